// Loss rows: cross entropy and a divergence from the teacher's targets, and their gradient with respect to the logits, in two readings of
// the row: log-sum-exps, then the gradient as if no id were kept, after which the few kept ids and the label are put right. Formulas:
// kernels/rows/divergence.h.
#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/softmax.h"
#include "kernels/rows/divergence.h"

struct row_loss {
    const struct loss_targets *t;
    const struct loss_mix *mix;
    int64_t k;    // targets a row
    float *z, *g; // (k) each: the student's logit at each target, the derivative g of its term
};
struct row_grad { // dlogits_j = ce * S1_j + kd * ST_j, then corrections at kept ids and the label
    double lse1, lset;
    float ce, kd;
};

// The divergence of a row from its targets, from the logits saved in r->z. Fills r->g with d D / d log q of each kept id, *tail with
// g_tail / q_tail, *sum with Σ g.
static float row_kd(const struct row_loss *r, int64_t row, double lset, double *tail, double *sum)
{
    const struct loss_mix *mix = r->mix;
    const struct loss_targets *t = r->t;
    const int32_t *id = (const int32_t *)t->ids.data + row * r->k;
    const float *logprob = (const float *)t->logprob.data + row * r->k;
    double inv_t = 1.0 / (double)mix->temperature, total = 0, p_sum = 0, q_sum = 0, g_sum = 0;
    double z1 = tensor_none(t->log_z1) ? 0 : (double)((const float *)t->log_z1.data)[row];
    double zt = tensor_none(t->log_zt) ? z1 : (double)((const float *)t->log_zt.data)[row];
    int64_t n_kept = 0;
    for (int64_t i = 0; i < r->k; i++) {
        r->g[i] = 0;
        if (id[i] < 0) continue;
        n_kept++;
        float lq = (float)((double)r->z[i] * inv_t - lset);
        struct div_term d = row_divergence(mix->divergence, mix->beta, row_teacher_logprob(mix, logprob[i], z1, zt), lq);
        total += (double)d.term;
        g_sum += (double)d.grad;
        r->g[i] = d.grad;
        p_sum += (double)d.p;
        q_sum += (double)d.q;
    }
    *tail = 0;
    if (!mix->full && n_kept < mix->n_vocab) {
        float stored = tensor_none(t->tail_logprob) ? NAN : ((const float *)t->tail_logprob.data)[row];
        struct div_term d = row_tail(mix, stored, p_sum, q_sum, tail);
        total += (double)d.term;
        g_sum += (double)d.grad;
    }
    *sum = g_sum;
    return (float)total;
}

VEC_FN void write_grad(void *out, const float *z, int64_t n, int64_t n_col, float a, double lse1, float b, double lset, float inv_t,
                       bool bf)
{
    vf va = vf_set1(a), vb = vf_set1(b), l1 = vf_set1((float)lse1), lt = vf_set1((float)lset), t = vf_set1(inv_t);
    for (int64_t i = 0; i < n; i += VL) {
        int c = (int)(n - i < VL ? n - i : VL);
        vf x = c == VL ? vf_load(z + i) : vf_load_n(z + i, c), y;
        if (inv_t == 1.0f)
            y = (va + vb) * vf_exp(x - l1);
        else if (b == 0.0f)
            y = va * vf_exp(x - l1);
        else
            y = va * vf_exp(x - l1) + vb * vf_exp(x * t - lt);
        if (c == VL)
            vf_store_any(out, bf, i, y);
        else
            vf_store_any_n(out, bf, i, y, c);
    }
    for (int64_t i = n; i < n_col; i++) vf_store_any_n(out, bf, i, vf_zero(), 1); // padding columns
}

static void store_one(void *out, bool bf, int64_t i, float y)
{
    if (bf)
        ((bf16 *)out)[i] = f32_to_bf16(y);
    else
        ((float *)out)[i] = y;
}

// One row; false if an id or the label lies outside the vocabulary.
static bool loss_row(const struct row_loss *r, int64_t row, void *out, bool bf, const float *z, int64_t n_col, int32_t label, float *ce,
                     float *kd)
{
    const struct loss_mix *mix = r->mix;
    int n = mix->n_vocab;
    *ce = *kd = 0;
    if (label < 0) {
        memset(out, 0, (size_t)n_col * (bf ? 2 : 4));
        return true;
    }
    if (label >= n) return false;
    const int32_t *id = r->k ? (const int32_t *)r->t->ids.data + row * r->k : NULL;
    for (int64_t i = 0; i < r->k; i++) {
        if (id[i] >= n) return false;
        r->z[i] = id[i] < 0 ? 0 : z[id[i]];
    }
    float inv_t[2] = {1, r->k ? 1.0f / mix->temperature : 1}, z_label = z[label];
    double lse[2], tail = 0, sum = 0;
    row_logsumexp(z, n, inv_t[1] == 1 ? 1 : 2, inv_t, lse);
    if (inv_t[1] == 1) lse[1] = lse[0];
    *ce = (float)(lse[0] - (double)z_label);
    if (r->k) *kd = row_kd(r, row, lse[1], &tail, &sum);
    float a = mix->grad_scale * mix->ce_weight, kd_scale = r->k ? mix->grad_scale * mix->kd_weight * mix->kd_scale * inv_t[1] : 0;
    float b = (float)((tail - sum) * (double)kd_scale);
    if (bf)
        write_grad(out, z, n, n_col, a, lse[0], b, lse[1], inv_t[1], true);
    else
        write_grad(out, z, n, n_col, a, lse[0], b, lse[1], inv_t[1], false);
    // Kept ids and the label, computed anew from their logits: a rounded bf16 gradient must not be corrected but replaced.
    bool label_kept = false;
    for (int64_t i = 0; i < r->k; i++) {
        if (id[i] < 0) continue;
        float s1 = exp_f32((float)((double)r->z[i] - lse[0])), st = exp_f32((float)((double)r->z[i] * (double)inv_t[1] - lse[1]));
        float y = a * (s1 - (id[i] == label)) + kd_scale * (float)((double)r->g[i] - (double)st * sum);
        label_kept |= id[i] == label;
        store_one(out, bf, id[i], y);
    }
    if (!label_kept) {
        float s1 = exp_f32((float)((double)z_label - lse[0])), st = exp_f32((float)((double)z_label * (double)inv_t[1] - lse[1]));
        store_one(out, bf, label, a * (s1 - 1) + b * st);
    }
    return true;
}

void ISA_NAME(loss)(struct device *dev, struct tensor dlogits, struct tensor ce, struct tensor kd, struct tensor logits,
                    struct tensor label, const struct loss_targets *t, const struct loss_mix *mix)
{
    int64_t n = logits.shape[0], n_col = logits.shape[1];
    int64_t k = mix->kd_weight != 0 && mix->divergence != DIV_NONE ? t->ids.shape[1] : 0;
    float *room = dev_scratch(dev, (size_t)(2 * k * dev->n_thread) * sizeof(float) + 64);
    if (dev->measuring) return;
    bool bf = dlogits.dtype == DT_BF16, bad = false;
#pragma omp parallel reduction(|| : bad) num_threads(cpu_team(dev, (double)(n * mix->n_vocab) * 1.5))
    {
        float *mine = room + 2 * k * omp_get_thread_num();
        struct row_loss r = {t, mix, k, mine, mine + k};
#pragma omp for schedule(static)
        for (int64_t row = 0; row < n; row++) {
            void *out = (char *)dlogits.data + row * dlogits.stride[0] * (int64_t)dtype_size(dlogits.dtype);
            if (!loss_row(&r, row, out, bf, (const float *)logits.data + row * logits.stride[0], n_col, ((const int32_t *)label.data)[row],
                          (float *)ce.data + row, (float *)kd.data + row))
                bad = true;
        }
    }
    if (bad) dev_fail(dev, "op_loss", "a label or a target id lies outside the vocabulary of %d", mix->n_vocab);
}
