// References of loss rows, capture, sampling and the optimizer.
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "tests/kernels/ops_ref.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define R(i) (c->arg[i].ref)
#define N(i) tensor_numel(c->arg[i].t)
#define END (-1), (-1)

static double log_sum_exp(const double *z, int64_t n, double t)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, z[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((z[i] - max) / t);
    return max / t + log(sum);
}

// ---- loss: dim rows, columns, vocabulary, k, mix, temperature * 10 -------------------------------------------------------------------

enum { MIX_CE, MIX_FKL, MIX_RKL, MIX_JSD_1, MIX_JSD_5, MIX_JSD_9, MIX_JSD_0, MIX_JSD_10, MIX_BOTH };
static struct loss_mix mix_of(const struct op_case *c)
{
    static const enum divergence kind[] = {DIV_NONE, DIV_FKL, DIV_RKL, DIV_JSD, DIV_JSD, DIV_JSD, DIV_JSD, DIV_JSD, DIV_FKL};
    static const float beta[] = {0, 0, 0, 0.1f, 0.5f, 0.9f, 0, 1, 0};
    float t = (float)c->dim[5] / 10;
    bool kd = c->dim[4] != MIX_CE;
    return (struct loss_mix){.ce_weight = c->dim[4] == MIX_CE || c->dim[4] == MIX_BOTH ? 0.75f : 0,
                             .kd_weight = kd ? 0.5f : 0,
                             .divergence = kind[c->dim[4]],
                             .beta = beta[c->dim[4]],
                             .temperature = t,
                             .kd_scale = t * t,
                             .grad_scale = 0.25f,
                             .full = c->dim[3] == c->dim[2],
                             .n_vocab = (int)c->dim[2]};
}
enum { L_D, L_CE, L_KD, L_LOGITS, L_LABEL, L_IDS, L_LOGPROB, L_TAIL, L_Z1, L_ZT };
static void setup_loss(struct op_case *c)
{
    int64_t n = rows(c), v = c->dim[2], k = c->dim[4] == MIX_CE ? 0 : c->dim[3];
    double *z = NEW_N(double, v), t = (double)c->dim[5] / 10;
    arg_add(c, OUT | BY_ROW, c->dtype, 1, 0, n, c->dim[1], END)->len = 64;
    arg_add(c, OUT | BY_ROW, DT_F32, 1, 0, n, -1, END)->len = 64;
    arg_add(c, OUT | BY_ROW, DT_F32, 1, 0, n, -1, END)->len = 64;
    arg_add(c, BY_ROW, DT_F32, 2, 3, n, c->dim[1], END);
    struct op_arg *label = arg_add(c, BY_ROW, DT_I32, 0, 0, n, -1, END), *ids = arg_add(c, BY_ROW, DT_I32, 0, 0, n, k, END);
    struct op_arg *lp = arg_add(c, BY_ROW, DT_F32, 1, 0, n, k, END), *tail = arg_add(c, BY_ROW, DT_F32, 1, 0, n, -1, END);
    struct op_arg *z1 = arg_add(c, BY_ROW, DT_F32, 1, 0, n, -1, END), *zt = arg_add(c, BY_ROW, DT_F32, 1, 0, n, -1, END);
    for (int64_t r = 0; r < n; r++) {
        arg_set(label, r, r % 4 == 2 ? -1 : (double)(r * 7 % v));
        for (int64_t j = 0; j < v; j++) z[j] = 2 * rng_normal(21, (uint64_t)r, (uint64_t)j);
        arg_set(z1, r, log_sum_exp(z, v, 1));
        arg_set(zt, r, log_sum_exp(z, v, t));
        double kept = 0;
        for (int64_t i = 0; i < k; i++) {
            int64_t id = (r + i * 3) % v; // 3 must be prime to v
            bool unused = k > 2 && k < v && i == k - 1 && r % 2;
            arg_set(ids, r * k + i, unused ? -1 : (double)id);
            arg_set(lp, r * k + i, unused ? 0 : z[id] - z1->ref[r]);
            if (!unused) kept += exp(lp->ref[r * k + i]);
        }
        arg_set(tail, r, k < v ? log(1 - kept) : -INFINITY);
    }
    mem_free(z);
}
static void call_loss(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct loss_mix mix = mix_of(c);
    bool one = mix.temperature == 1;
    struct loss_targets t = {x[L_IDS], x[L_LOGPROB], x[L_TAIL], one ? TENSOR_NONE : x[L_Z1], one ? TENSOR_NONE : x[L_ZT]};
    op_loss(dev, x[L_D], x[L_CE], x[L_KD], x[L_LOGITS], x[L_LABEL], &t, &mix);
}
// Σ p log(p/q) for the two ends, and for jsd against m = βp + (1-β)q: by definition, in probabilities.
static double divergence(const struct loss_mix *mix, double p, double q)
{
    double b = (double)mix->beta, m = b * p + (1 - b) * q;
    double fkl = p > 0 ? p * log(p / q) : 0, rkl = q > 0 ? q * log(q / p) : 0;
    if (mix->divergence == DIV_FKL || (mix->divergence == DIV_JSD && b == 0)) return fkl;
    if (mix->divergence == DIV_RKL || (mix->divergence == DIV_JSD && b == 1)) return rkl;
    return b * (p > 0 ? p * log(p / m) : 0) + (1 - b) * (q > 0 ? q * log(q / m) : 0);
}
static void loss_values(const struct op_case *c, int64_t r, const double *z, double *ce, double *kd)
{
    struct loss_mix mix = mix_of(c);
    int64_t v = c->dim[2], k = c->arg[L_IDS].t.shape[1];
    double t = (double)mix.temperature, lse = log_sum_exp(z, v, t), p_left = 1, q_left = 1;
    *ce = log_sum_exp(z, v, 1) - z[(int64_t)R(L_LABEL)[r]];
    *kd = 0;
    for (int64_t i = 0; i < k; i++) {
        int64_t id = (int64_t)R(L_IDS)[r * k + i];
        if (id < 0) continue;
        double p = exp((R(L_LOGPROB)[r * k + i] + R(L_Z1)[r]) / t - R(L_ZT)[r]), q = exp(z[id] / t - lse);
        *kd += divergence(&mix, p, q);
        p_left -= p;
        q_left -= q;
    }
    if (k && !mix.full) *kd += divergence(&mix, p_left, q_left);
}
// d kd / dz_j where rows are too long for finite differences: fkl only, S - P on kept ids and (1 - P_tail / S_tail) S_j on the others.
static void fkl_grad(const struct op_case *c, int64_t r, const double *z, double *dz)
{
    struct loss_mix mix = mix_of(c);
    int64_t v = c->dim[2], k = c->arg[L_IDS].t.shape[1];
    double t = (double)mix.temperature, lse = log_sum_exp(z, v, t), p_left = 1, q_left = 1;
    for (int pass = 0; pass < 2; pass++) {
        if (pass)
            for (int64_t j = 0; j < v; j++) dz[j] = k ? exp(z[j] / t - lse) * (mix.full ? 1 : 1 - p_left / q_left) / t : 0;
        for (int64_t i = 0; i < k; i++) {
            int64_t id = (int64_t)R(L_IDS)[r * k + i];
            if (id < 0) continue;
            double p = exp((R(L_LOGPROB)[r * k + i] + R(L_Z1)[r]) / t - R(L_ZT)[r]), q = exp(z[id] / t - lse);
            if (pass)
                dz[id] = (q - p) / t;
            else
                p_left -= p, q_left -= q;
        }
    }
}
static void ref_loss(struct op_case *c)
{
    struct loss_mix mix = mix_of(c);
    int64_t n_col = c->dim[1], v = c->dim[2];
    for (int64_t r = 0; r < rows(c); r++) {
        double *z = R(L_LOGITS) + r * n_col, *dz = R(L_D) + r * n_col, up[2], down[2];
        memset(dz, 0, (size_t)n_col * sizeof *dz);
        R(L_CE)[r] = R(L_KD)[r] = 0;
        if (R(L_LABEL)[r] < 0) continue;
        loss_values(c, r, z, &R(L_CE)[r], &R(L_KD)[r]);
        double lse = log_sum_exp(z, v, 1), a = (double)(mix.grad_scale * mix.ce_weight),
               b = (double)(mix.grad_scale * mix.kd_weight * mix.kd_scale);
        if (v > 100) fkl_grad(c, r, z, dz);
        for (int64_t j = 0; j < v; j++) {
            const double h = 1e-5, keep = z[j];
            if (v > 100) {
                dz[j] = b * dz[j] + a * (exp(keep - lse) - (j == (int64_t)R(L_LABEL)[r]));
                continue;
            }
            z[j] = keep + h;
            loss_values(c, r, z, &up[0], &up[1]);
            z[j] = keep - h;
            loss_values(c, r, z, &down[0], &down[1]);
            z[j] = keep;
            dz[j] = (a * (up[0] - down[0]) + b * (up[1] - down[1])) / (2 * h);
        }
    }
}

// ---- capture: dim rows, columns, vocabulary, k or draws, temperatures, many ties -----------------------------------------------------

static const float temperatures[] = {1, 0.5f, 2, 1.5f};

static int by_value(const void *a, const void *b) // falling, ties by rising index: pairs (value, index)
{
    const double *x = a, *y = b;
    if (x[0] != y[0]) return x[0] > y[0] ? -1 : 1;
    return x[1] < y[1] ? -1 : x[1] > y[1];
}
static double *sorted(const double *z, int64_t n)
{
    double *s = NEW_N(double, 2 * n);
    for (int64_t i = 0; i < n; i++) s[2 * i] = z[i], s[2 * i + 1] = (double)i;
    qsort(s, (size_t)n, 2 * sizeof *s, by_value);
    return s;
}
static struct op_arg *add_logits(struct op_case *c)
{
    struct op_arg *z = arg_add(c, BY_ROW, DT_F32, 2, 5, rows(c), c->dim[1], END);
    for (int64_t i = 0; i < tensor_numel(z->t) && c->dim[5]; i++) arg_set(z, i, i % 11 == 3 ? -INFINITY : floor(z->ref[i] * 4) / 4);
    return z;
}
static void setup_topk(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, DT_I32, 0, 0, rows(c), c->dim[3], END);
    arg_add(c, OUT | BY_ROW, DT_F32, 1, 0, rows(c), c->dim[3], END)->len = 8;
    // the tail is what is left of 1: an error of 1e-7 there is 1e-7 / tail of its logarithm; our tails are above 1e-3
    arg_add(c, OUT | BY_ROW, DT_F32, 1, 0, rows(c), -1, END)->len = 2000;
    arg_add(c, OUT | BY_ROW, DT_F32, 1, 0, rows(c), c->dim[4], END)->len = 8;
    add_logits(c);
}
static void call_topk(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_capture_topk(dev, x[0], x[1], x[2], x[3], x[4], (int)c->dim[2], temperatures);
}
static void ref_topk(struct op_case *c)
{
    int64_t v = c->dim[2], k = c->dim[3];
    for (int64_t r = 0; r < rows(c); r++) {
        const double *z = R(4) + r * c->dim[1];
        double *s = sorted(z, v), lse = log_sum_exp(z, v, 1), left = 0;
        for (int64_t i = 0; i < v; i++) {
            if (i < k) {
                R(0)[r * k + i] = s[2 * i + 1];
                R(1)[r * k + i] = s[2 * i] - lse;
            } else {
                left += exp(s[2 * i] - lse);
            }
        }
        R(2)[r] = k < v ? log(left) : -INFINITY;
        for (int64_t t = 0; t < c->dim[4]; t++) R(3)[r * c->dim[4] + t] = log_sum_exp(z, v, (double)temperatures[t]);
        mem_free(s);
    }
}

static const struct sample_row settings[] = {{.temperature = 1, .top_p = 1},
                                             {.temperature = 0, .top_p = 1},
                                             {.temperature = 0.7f, .top_p = 0.9f},
                                             {.temperature = 1.3f, .top_p = 1, .top_k = 5},
                                             {.temperature = 1, .top_p = 1, .min_p = 0.1f},
                                             {.temperature = 2, .top_p = 0.99f, .top_k = 40, .min_p = 0.05f},
                                             {.temperature = 3, .top_p = 0.999f},
                                             {.temperature = 2, .top_p = 0.97f, .top_k = 1500, .min_p = 0.001f},
                                             {.temperature = 0.8f, .top_p = 1, .top_k = 1100}};
enum { N_SETTING = sizeof settings / sizeof *settings };
static void add_settings(struct op_case *c) // as words: (rows, 10)
{
    struct op_arg *a = arg_add(c, BY_ROW, DT_I32, 0, 0, rows(c), sizeof(struct sample_row) / 4, END);
    for (int64_t r = 0; r < rows(c); r++) {
        struct sample_row s = settings[r % N_SETTING];
        s.seed = 5, s.stream = (uint64_t)(r / N_SETTING), s.counter = (uint64_t)r + ((uint64_t)1 << 40);
        memcpy((char *)a->init + (size_t)r * sizeof s, &s, sizeof s);
    }
}
static void setup_sample(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, DT_I32, 0, 0, rows(c), -1, END);
    add_logits(c);
    add_settings(c);
}
static void call_sample(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_sample(dev, x[0], x[1], (int)c->dim[2], x[2].data);
}
// The kept set by definition: top-k with ties, then the smallest head whose mass reaches top_p, then min-p; walked by falling probability,
// or by id when neither top-k nor top-p is asked for.
static void ref_sample(struct op_case *c)
{
    int64_t v = c->dim[2];
    for (int64_t r = 0; r < rows(c); r++) {
        struct sample_row s;
        memcpy(&s, (char *)c->arg[2].init + (size_t)r * sizeof s, sizeof s);
        const double *z = R(1) + r * c->dim[1], t = s.temperature > 0 ? (double)s.temperature : 1;
        double *o = sorted(z, v), total = 0, mass = 0, kept_mass = 0, target;
        int64_t n = v, kept = 0;
        if (s.top_k && s.top_k < v)
            for (n = s.top_k; n < v && o[2 * n] == o[2 * (s.top_k - 1)];) n++;
        for (int64_t i = 0; i < n; i++) total += exp((o[2 * i] - o[0]) / t);
        for (kept = 0; kept < n; kept++) {
            double p = exp((o[2 * kept] - o[0]) / t);
            if (kept && ((s.top_p < 1 && mass >= (double)s.top_p * total) || p < (double)s.min_p)) break;
            mass += p;
        }
        bool by_id = s.top_p >= 1 && (!s.top_k || s.top_k >= v);
        if (by_id)
            for (int64_t i = 0, j = 0; i < v; i++) // the kept ones again, in the order of ids
                if (exp((z[i] - o[0]) / t) >= (s.min_p > 0 ? (double)s.min_p : 0) && j < v) o[2 * j++ + 1] = (double)i;
        target = rng_uniform(s.seed, s.stream, s.counter) * mass;
        int64_t pick = 0;
        double top = o[0];
        for (pick = 0; pick < kept - 1; pick++) {
            kept_mass += exp((z[(int64_t)o[2 * pick + 1]] - top) / t);
            if (kept_mass > target) break;
        }
        R(0)[r] = o[2 * pick + 1];
        if (s.temperature <= 0)
            for (R(0)[r] = 0; z[(int64_t)R(0)[r]] != top;) R(0)[r]++;
        mem_free(o);
    }
}
static void setup_sampled(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, DT_I32, 0, 0, rows(c), c->dim[3], END);
    arg_add(c, OUT | BY_ROW, DT_I32, 0, 0, rows(c), c->dim[3], END);
    arg_add(c, OUT | BY_ROW, DT_F32, 1, 0, rows(c), c->dim[4], END)->len = 8;
    add_logits(c);
    add_settings(c);
}
static void call_sampled(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_capture_sampled(dev, x[0], x[1], x[2], x[3], (int)c->dim[2], temperatures, x[4].data);
}
static void ref_sampled(struct op_case *c)
{
    int64_t v = c->dim[2], n_draw = c->dim[3];
    for (int64_t r = 0; r < rows(c); r++) {
        struct sample_row s;
        memcpy(&s, (char *)c->arg[4].init + (size_t)r * sizeof s, sizeof s);
        const double *z = R(3) + r * c->dim[1], lse = log_sum_exp(z, v, 1);
        int64_t n = 0;
        double below = 0;
        for (int64_t t = 0; t < c->dim[4]; t++) R(2)[r * c->dim[4] + t] = log_sum_exp(z, v, (double)temperatures[t]);
        for (int64_t i = 0; i < n_draw; i++) R(0)[r * n_draw + i] = -1, R(1)[r * n_draw + i] = 0;
        for (int64_t id = 0; id < v; id++) {
            double up = below + exp(z[id] - lse);
            int64_t hits = 0;
            for (int64_t i = 0; i < n_draw; i++) {
                double u = rng_uniform(s.seed ^ 0x6361707475726564u, s.stream, s.counter * (uint64_t)n_draw + (uint64_t)i);
                hits += u >= below && u < up;
            }
            if (hits) R(0)[r * n_draw + n] = (double)id, R(1)[r * n_draw + n++] = (double)hits;
            below = up;
        }
    }
}

// ---- optimizer: dim n, w is the master itself ----------------------------------------------------------------------------------------

static const struct adamw adamw_case = {
    .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .grad_scale = 0.5f, .step = 3};
static void setup_adamw(struct op_case *c)
{
    arg_add(c, c->dim[1] ? IN : OUT, c->dtype, 1, 0, rows(c), -1, END);
    for (int i = 1; i < 5; i++) arg_add(c, i < 4 ? OUT : IN, DT_F32, 1, 0, rows(c), -1, END);
    for (int64_t i = 0; i < rows(c); i++) arg_set(&c->arg[3], i, fabs(R(3)[i]) + 0.01);
}
static void call_adamw(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_adamw(dev, c->dim[1] ? x[1] : x[0], x[1], x[2], x[3], x[4], &adamw_case);
}
static void ref_adamw(struct op_case *c)
{
    const struct adamw *a = &adamw_case;
    for (int64_t i = 0; i < rows(c); i++) {
        double g = R(4)[i] * (double)a->grad_scale;
        R(2)[i] = a->beta1 * R(2)[i] + (1 - a->beta1) * g;
        R(3)[i] = a->beta2 * R(3)[i] + (1 - a->beta2) * g * g;
        double m = R(2)[i] / (1 - pow(a->beta1, 3)), v = R(3)[i] / (1 - pow(a->beta2, 3));
        R(1)[i] = R(1)[i] * (1 - a->lr * a->weight_decay) - a->lr * m / (sqrt(v) + a->eps);
        R(0)[i] = R(1)[i];
    }
}

// AdamW with states of 8 bits. Neighbouring codes are found in a table made from what a code is: 0 to 15 are themselves, then each eight
// are twice as far apart as the eight before. Rounding goes up if the fraction and the 16 bits drawn make a whole.
static struct adamw8 adamw8_of(const struct op_case *c) // dim: n, blocks of the parameter before them
{
    return (struct adamw8){.adamw = adamw_case, .seed = 21, .stream = 5, .first = c->dim[1] * OP_ADAMW8_BLOCK};
}
static double code_value(int code)
{
    static double value[256];
    for (int i = 0; value[255] == 0 && i < 255; i++) value[i + 1] = value[i] + (i < 16 ? 1 : exp2(i / 8 - 1));
    return value[code];
}
// off: how far x may be from what f32 makes of it. The case's draws are such that it does not matter.
static int code_near(double x, double unit, int last, uint32_t random, double off)
{
    int code = 0;
    while (code < last && code_value(code + 1) * unit <= x) code++;
    if (code == last) return last;
    double gap = (code_value(code + 1) - code_value(code)) * unit, up = (x - code_value(code) * unit) / gap + random / 65536.0 - 1;
    ck_assert_msg(fabs(up) > off / gap, "this case cannot tell a wrong rounding from f32's: take another seed");
    return code + (up >= 0);
}
static double bf16_near(double x, uint32_t random, double off)
{
    double gap = exp2(ilogb(x) - 7), low = floor(fabs(x) / gap) * gap, up = (fabs(x) - low) / gap + random / 65536.0 - 1;
    ck_assert_msg(fabs(up) > off / gap, "this case cannot tell a wrong rounding from f32's: take another seed");
    return copysign(low + (up >= 0 ? gap : 0), x);
}
static void setup_adamw8(struct op_case *c) // w, m, v, m_unit, v_unit, grad
{
    int64_t n = rows(c), n_block = (n + OP_ADAMW8_BLOCK - 1) / OP_ADAMW8_BLOCK;
    arg_add(c, OUT, c->dtype, 1, 0, n, -1, END)->len = c->dtype == DT_F32;
    for (int i = 1; i < 5; i++) arg_add(c, OUT, i < 3 ? DT_U8 : DT_F32, 0, 0, i < 3 ? n : n_block, -1, END)->len = i >= 3;
    arg_add(c, IN, DT_F32, 3e6, 0, n, -1, END); // then units are near 1, as tolerances want it
    for (int64_t i = 0; i < n; i++)
        for (int j = 1; j < 3; j++) arg_set(&c->arg[j], i, (double)rng_below(4, (uint64_t)j, (uint64_t)i, 256));
    for (int64_t i = 0; i < n_block; i++)
        for (int j = 3; j < 5; j++) arg_set(&c->arg[j], i, i == 1 ? 0 : 1.25); // 0: a block that has never been stepped
}
static void call_adamw8(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct adamw8 a = adamw8_of(c);
    op_adamw8(dev, x[0], x[1], x[2], x[3], x[4], x[5], &a);
}
static void ref_adamw8(struct op_case *c)
{
    const struct adamw *a = &adamw_case;
    for (int64_t begin = 0; begin < rows(c); begin += OP_ADAMW8_BLOCK) {
        int64_t b = begin / OP_ADAMW8_BLOCK, n = rows(c) - begin < OP_ADAMW8_BLOCK ? rows(c) - begin : OP_ADAMW8_BLOCK;
        double m[OP_ADAMW8_BLOCK], v[OP_ADAMW8_BLOCK], m_off[OP_ADAMW8_BLOCK], m_most = 0, v_most = 0;
        for (int64_t i = 0; i < n; i++) {
            int code = (int)R(1)[begin + i];
            double g = R(5)[begin + i] * (double)a->grad_scale, was = code_value(code % 128) * R(3)[b] * (code < 128 ? 1 : -1);
            m[i] = a->beta1 * was + (1 - a->beta1) * g;
            m_off[i] = 1e-6 * (fabs(was) + fabs(g));
            v[i] = a->beta2 * code_value((int)R(2)[begin + i]) * R(4)[b] + (1 - a->beta2) * g * g;
            m_most = fmax(m_most, fabs(m[i]));
            v_most = fmax(v_most, v[i]);
        }
        R(3)[b] = m_most / code_value(127);
        R(4)[b] = v_most / code_value(255);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = c->dim[1] * OP_ADAMW8_BLOCK + begin + i;
            const struct rng_block random = rng_block(21, 5, (uint64_t)a->step << 40 | (uint64_t)at / 2);
            const uint32_t *draw = random.v + at % 2 * 2;
            double mm = m[i] / (1 - pow(a->beta1, 3)), vv = v[i] / (1 - pow(a->beta2, 3)), step = a->lr * mm / (sqrt(vv) + a->eps);
            double w = R(0)[begin + i] * (1 - a->lr * a->weight_decay) - step;
            R(0)[begin + i] = c->dtype == DT_F32 ? w : bf16_near(w, draw[0] & 0xffff, 1e-7 * fabs(w) + 1e-6 * fabs(step));
            R(1)[begin + i] = code_near(fabs(m[i]), R(3)[b], 127, draw[0] >> 16, m_off[i]) + (m[i] < 0 ? 128 : 0);
            R(2)[begin + i] = fmax(code_near(v[i], R(4)[b], 255, draw[1] & 0xffff, 1e-6 * v[i]), v[i] > 0);
        }
    }
}
static void setup_sumsq(struct op_case *c)
{
    struct op_arg *out = arg_add(c, OUT, DT_U8, 0, 0, 8, -1, END);
    for (int i = 0; i < 8; i++) arg_set(out, i, 0.5);
    arg_add(c, IN, DT_F32, 1, 0, rows(c), -1, END);
}
static void call_sumsq(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_sumsq(dev, x[0], x[1]);
}
static void ref_sumsq(struct op_case *c)
{
    for (int64_t i = 0; i < N(1); i++) R(0)[0] += R(1)[i] * R(1)[i];
    for (int i = 1; i < 8; i++) R(0)[i] = R(0)[0];
}

// The shapes of losses at length: the other mixes are here too, in rows of their own, since one row has MAX_SHAPE shapes.
const struct op_row op_rows_loss[] = {
    {OP_ROW(loss),
     setup_loss,
     call_loss,
     ref_loss,
     {{5, 41, 40, 9, MIX_BOTH, 10},
      {3, 1, 1, 1, MIX_CE, 10},
      {5, 40, 40, 40, MIX_JSD_5, 20},
      {9, 53, 50, 7, MIX_RKL, 15},
      {NO_ROWS, 7, 7, 2, MIX_FKL, 10},
      {40, 4001, 4000, 64, MIX_BOTH, 20},
      {6, 3000, 2999, 2999, MIX_BOTH, 10},
      {5, 4104, 4097, 17, MIX_FKL, 15}}},
    {OP_ROW(capture_topk),
     setup_topk,
     call_topk,
     ref_topk,
     {{1, 1, 1, 1, 1},
      {3, 41, 40, 9, 2, 1},
      {5, 50, 50, 50, 1},
      {NO_ROWS, 7, 7, 2, 1},
      {2, 151939, 151936, 64, 2},
      {4, 5000, 5000, 700, 4, 1},
      {3, 3000, 3000, 3000, 1},
      {3, 4104, 4097, 1, 3}}},
    {OP_ROW(sample),
     setup_sample,
     call_sample,
     ref_sample,
     {{9, 1, 1},
      {27, 41, 40},
      {27, 41, 40, 0, 0, 1},
      {NO_ROWS, 7, 7},
      {36, 5003, 5000},
      {18, 5003, 5000, 0, 0, 1},
      {9, 2052, 2049},
      {3, 151939, 151936}}},
    {OP_ROW(capture_sampled),
     setup_sampled,
     call_sampled,
     ref_sampled,
     {{1, 1, 1, 1, 1}, {3, 41, 40, 9, 2, 1}, {NO_ROWS, 7, 7, 2, 1}, {14, 5003, 5000, 50, 1}, {2, 2052, 2049, 600, 3, 1}}},
    {OP_ROW(adamw), setup_adamw, call_adamw, ref_adamw, {{1}, {37}, {NO_ROWS}, {25003}, {25003, 1}}},
    {OP_ROW(adamw8), setup_adamw8, call_adamw8, ref_adamw8, {{1}, {37}, {NO_ROWS}, {257}, {520, 3}, {1000, 5}}},
    {OP_ROW(sumsq), setup_sumsq, call_sumsq, ref_sumsq, {{1}, {37}, {NO_ROWS}, {400003}}},
    {0},
};
