// References of products, attention and the mixture of experts.
#include "kernels/base/rng.h"
#include "tests/kernels/ops_ref.h"

#include <math.h>
#include <string.h>

#define R(i) (c->arg[i].ref)
#define N(i) tensor_numel(c->arg[i].t)
#define S(i, d) (c->arg[i].t.shape[d])
#define END (-1), (-1)

// w packed in step memory
static struct tensor packed(struct device *dev, struct tensor w)
{
    struct tensor p =
        tensor_2d(dev_1d(dev, DT_U8, (int64_t)op_pack_bytes(dev, w.dtype, w.shape[0], w.shape[1])).data, w.dtype, w.shape[0], w.shape[1]);
    p.layout = LAYOUT_PANEL;
    op_pack(dev, p, w, TENSOR_NONE);
    return p;
}

// ---- products: dim rows, n, k, packed, bias ------------------------------------------------------------------------------------------

static void setup_linear(struct op_case *c)
{
    int by_row = c->dim[3] ? BY_ROW : 0; // the library's products do not promise it
    arg_add(c, OUT | by_row, c->dtype, 1, 0, rows(c), c->dim[1], END)->len = (double)c->dim[2];
    arg_add(c, by_row, c->dtype, 1, 0, rows(c), c->dim[2], END);
    arg_add(c, IN, c->dtype, 1, 0, c->dim[1], c->dim[2], END);
    struct op_arg *bias = arg_add(c, IN, DT_F32, 1, 0, c->dim[1], -1, END);
    double most = 0;
    for (int64_t i = 0; i < c->dim[1]; i++) most = fmax(most, fabs(bias->ref[i]));
    // cuBLASLt adds a bias of the output's dtype: its rounding, half a unit of bf16's last place
    if (!by_row && c->dim[4] && c->dtype == DT_BF16) c->arg[0].slack = most / 256;
}
static void call_linear(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_linear(dev, x[0], x[1], c->dim[3] ? packed(dev, x[2]) : x[2], c->dim[4] ? x[3] : TENSOR_NONE);
}
static void ref_linear(struct op_case *c)
{
    int64_t n = c->dim[1], k = c->dim[2];
    for (int64_t i = 0; i < N(0); i++) {
        double s = c->dim[4] ? R(3)[i % n] : 0;
        for (int64_t l = 0; l < k; l++) s += R(1)[i / n * k + l] * R(2)[i % n * k + l];
        R(0)[i] = s;
    }
}
// dim[3]: accumulate
static void setup_bwd_x(struct op_case *c)
{
    arg_add(c, OUT, c->dtype, 1, 0, rows(c), c->dim[2], END)->len = (double)c->dim[1];
    arg_add(c, IN, c->dtype, 1, 0, rows(c), c->dim[1], END);
    arg_add(c, IN, c->dtype, 1, 0, c->dim[1], c->dim[2], END);
}
static void call_bwd_x(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_linear_bwd_x(dev, x[0], x[1], x[2], c->dim[3] != 0);
}
static void ref_bwd_x(struct op_case *c)
{
    int64_t n = c->dim[1], k = c->dim[2];
    for (int64_t i = 0; i < N(0); i++) {
        double s = c->dim[3] ? R(0)[i] : 0;
        for (int64_t j = 0; j < n; j++) s += R(1)[i / k * n + j] * R(2)[j * k + i % k];
        R(0)[i] = s;
    }
}
static void setup_bwd_w(struct op_case *c)
{
    arg_add(c, OUT, DT_F32, 1, 0, c->dim[1], c->dim[2], END)->len = (double)rows(c);
    arg_add(c, IN, c->dtype, 1, 0, rows(c), c->dim[1], END);
    arg_add(c, IN, c->dtype, 1, 0, rows(c), c->dim[2], END);
}
static void call_bwd_w(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_linear_bwd_w(dev, x[0], x[1], x[2]);
}
static void ref_bwd_w(struct op_case *c)
{
    int64_t n = c->dim[1], k = c->dim[2];
    for (int64_t i = 0; i < N(0); i++)
        for (int64_t r = 0; r < rows(c); r++) R(0)[i] += R(1)[r * n + i / k] * R(2)[r * k + i % k];
}

// dim: rows, heads, n, k, packed
static void setup_head_linear(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, c->dtype, 1, 3, rows(c), c->dim[1], c->dim[2], -1)->len = (double)c->dim[3];
    arg_add(c, BY_ROW, c->dtype, 1, 5, rows(c), c->dim[1], c->dim[3], -1);
    arg_add(c, IN, c->dtype, 1, 0, c->dim[1], c->dim[2], c->dim[3], -1);
}
static void call_head_linear(struct device *dev, const struct op_case *c, struct tensor *x)
{
    int64_t h = c->dim[1], n = c->dim[2], k = c->dim[3];
    struct tensor w = x[2];
    if (c->dim[4]) { // heads lie one after the other, each packed alone
        size_t each = op_pack_bytes(dev, w.dtype, n, k);
        char *room = dev_1d(dev, DT_U8, (int64_t)each * h).data;
        for (int64_t i = 0; i < h; i++) {
            struct tensor p = tensor_2d(room + (size_t)i * each, w.dtype, n, k);
            p.layout = LAYOUT_PANEL;
            op_pack(dev, p, tensor_2d((char *)w.data + (size_t)(i * n * k) * dtype_size(w.dtype), w.dtype, n, k), TENSOR_NONE);
        }
        w = tensor_3d(room, w.dtype, h, n, k);
        w.layout = LAYOUT_PANEL;
    }
    op_head_linear(dev, x[0], x[1], w);
}
static void ref_head_linear(struct op_case *c)
{
    int64_t h = c->dim[1], n = c->dim[2], k = c->dim[3];
    for (int64_t i = 0; i < N(0); i++) {
        R(0)[i] = 0;
        for (int64_t l = 0; l < k; l++) R(0)[i] += R(1)[i / n * k + l] * R(2)[(i / n % h * n + i % n) * k + l];
    }
}

// ---- attention: dim segments' set, heads, kv heads, dk, dv, window -------------------------------------------------------------------

static const struct seg_set {
    int n_seg;
    int32_t q[5], k[5]; // lengths
} seg_sets[] = {
    {0}, {1, {1}, {1}}, {4, {3, 1, 0, 5}, {3, 4, 2, 9}}, {2, {7, 6}, {7, 6}}, {3, {70, 1, 33}, {130, 65, 33}}, {2, {129, 5}, {129, 70}}};

static int32_t seg_add(struct op_case *c, bool keys) // an argument with the starts; returns the sum
{
    const struct seg_set *s = &seg_sets[c->dim[0]];
    struct op_arg *a = arg_add(c, IN, DT_I32, 0, 0, s->n_seg + 1, -1, END);
    int32_t sum = 0;
    for (int i = 0; i < s->n_seg; i++) arg_set(a, i + 1, sum += keys ? s->k[i] : s->q[i]);
    return sum;
}
static struct attention attention_of(const struct op_case *c, const struct tensor *start)
{
    struct attention a = {.n_seg = seg_sets[c->dim[0]].n_seg, .scale = 0.25f, .window = (int)c->dim[5]};
    a.q_start = start[0].data;
    a.k_start = start[1].data;
    for (int i = 0; i < a.n_seg; i++) a.max_len = seg_sets[c->dim[0]].q[i] > a.max_len ? seg_sets[c->dim[0]].q[i] : a.max_len;
    return a;
}
static int32_t seg_sum(const struct op_case *c, bool keys)
{
    const struct seg_set *s = &seg_sets[c->dim[0]];
    int32_t sum = 0;
    for (int i = 0; i < s->n_seg; i++) sum += keys ? s->k[i] : s->q[i];
    return sum;
}
struct att { // doubles of one attention
    double *out, *lse, *dq, *dk, *dv;
    const double *q, *k, *v, *dout, *start_q, *start_k;
};
// Forward, or with dq the backward from the given out and lse, as Dao 2022: P = exp(S - lse), dS = P (dP - dout·out).
static void attend(const struct op_case *c, const struct att *a)
{
    int64_t h = c->dim[1], g = c->dim[2], dk = c->dim[3], dv = c->dim[4];
    for (int s = 0; s < seg_sets[c->dim[0]].n_seg; s++)
        for (int64_t r = (int64_t)a->start_q[s]; r < (int64_t)a->start_q[s + 1]; r++)
            for (int64_t i = 0; i < h; i++) {
                int64_t last = (int64_t)a->start_k[s + 1] - ((int64_t)a->start_q[s + 1] - r), first = (int64_t)a->start_k[s],
                        kv = i / (h / g);
                if (c->dim[5] && last - c->dim[5] + 1 > first) first = last - c->dim[5] + 1;
                const double *q = a->q + (r * h + i) * dk;
                double score[256], max = -INFINITY, sum = 0, *out = a->out + (r * h + i) * dv, delta = 0;
                for (int64_t j = first; j <= last; j++) {
                    double t = 0;
                    for (int64_t l = 0; l < dk; l++) t += q[l] * a->k[(j * g + kv) * dk + l];
                    score[j - first] = t * 0.25;
                    max = fmax(max, score[j - first]);
                }
                for (int64_t j = first; j <= last; j++) sum += exp(score[j - first] - max);
                if (!a->dq) {
                    a->lse[r * h + i] = max + log(sum);
                    memset(out, 0, (size_t)dv * sizeof *out);
                    for (int64_t j = first; j <= last; j++)
                        for (int64_t l = 0; l < dv; l++) out[l] += exp(score[j - first] - max) / sum * a->v[(j * g + kv) * dv + l];
                    continue;
                }
                const double *dout = a->dout + (r * h + i) * dv;
                for (int64_t l = 0; l < dv; l++) delta += dout[l] * out[l];
                for (int64_t j = first; j <= last; j++) {
                    double p = exp(score[j - first] - a->lse[r * h + i]), dp = 0;
                    for (int64_t l = 0; l < dv; l++) {
                        dp += dout[l] * a->v[(j * g + kv) * dv + l];
                        a->dv[(j * g + kv) * dv + l] += p * dout[l];
                    }
                    for (int64_t l = 0; l < dk; l++) {
                        a->dq[(r * h + i) * dk + l] += 0.25 * p * (dp - delta) * a->k[(j * g + kv) * dk + l];
                        a->dk[(j * g + kv) * dk + l] += 0.25 * p * (dp - delta) * q[l];
                    }
                }
            }
}
static void add_qkv(struct op_case *c, int flags) // q, k, v with rows a little apart
{
    arg_add(c, flags, c->dtype, 1, 2, seg_sum(c, false), c->dim[1], c->dim[3], -1);
    arg_add(c, flags, c->dtype, 1, 3, seg_sum(c, true), c->dim[2], c->dim[3], -1);
    arg_add(c, flags, c->dtype, 1, 1, seg_sum(c, true), c->dim[2], c->dim[4], -1);
}
static void setup_attention(struct op_case *c) // out, lse, q, k, v, q_start, k_start
{
    arg_add(c, OUT, c->dtype, 1, 4, seg_sum(c, false), c->dim[1], c->dim[4], -1)->len = 100;
    arg_add(c, OUT, DT_F32, 1, 0, seg_sum(c, false), c->dim[1], END)->len = 100;
    add_qkv(c, IN);
    seg_add(c, false);
    seg_add(c, true);
    // bf16 kernels may round the probabilities: then every term is off by 2^-9 of itself, and cancellation shows it
    if (c->dtype == DT_BF16) c->arg[0].len = 1 << 16;
}
static void call_attention(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct attention a = attention_of(c, x + 5);
    op_attention(dev, x[0], x[1], x[2], x[3], x[4], &a);
}
static void ref_attention(struct op_case *c)
{
    attend(c, &(struct att){.out = R(0), .lse = R(1), .q = R(2), .k = R(3), .v = R(4), .start_q = R(5), .start_k = R(6)});
}
static void setup_attention_bwd(struct op_case *c) // dq, dk, dv, dout, q, k, v, out, lse, q_start, k_start
{
    add_qkv(c, OUT);
    for (int i = 0; i < 3; i++) c->arg[i].len = c->dtype == DT_BF16 ? 1 << 17 : 200;
    arg_add(c, IN, c->dtype, 1, 0, seg_sum(c, false), c->dim[1], c->dim[4], -1);
    add_qkv(c, IN);
    struct op_arg *out = arg_add(c, IN, c->dtype, 1, 0, seg_sum(c, false), c->dim[1], c->dim[4], -1);
    struct op_arg *lse = arg_add(c, IN, DT_F32, 1, 0, seg_sum(c, false), c->dim[1], END);
    seg_add(c, false);
    seg_add(c, true);
    attend(c, &(struct att){.out = R(7), .lse = R(8), .q = R(4), .k = R(5), .v = R(6), .start_q = R(9), .start_k = R(10)});
    for (int64_t i = 0; i < N(7); i++) arg_set(out, i, R(7)[i]);
    for (int64_t i = 0; i < N(8); i++) arg_set(lse, i, R(8)[i]);
}
static void call_attention_bwd(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct attention a = attention_of(c, x + 9);
    op_attention_bwd(dev, x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], &a);
}
static void ref_attention_bwd(struct op_case *c)
{
    for (int i = 0; i < 3; i++) memset(R(i), 0, (size_t)N(i) * sizeof(double));
    attend(c, &(struct att){.dq = R(0),
                            .dk = R(1),
                            .dv = R(2),
                            .dout = R(3),
                            .q = R(4),
                            .k = R(5),
                            .v = R(6),
                            .out = R(7),
                            .lse = R(8),
                            .start_q = R(9),
                            .start_k = R(10)});
}

// ---- pages: dim rows, heads (of copies: 0 if their rows lie close), kv heads, d, page_len, chunked. Row r of its own segment, unless
// chunked: then all rows are one segment
// ----------------

static int32_t row_pos(const struct op_case *c, int64_t r)
{
    return (int32_t)(c->dim[5] ? 3 + r : r * 7 % 23);
}
static const int MAX_PAGE = 30;
static void add_pages(struct op_case *c) // pos, page, start
{
    int64_t n = rows(c), n_seg = c->dim[5] ? n > 0 : n;
    struct op_arg *pos = arg_add(c, c->dim[5] ? IN : BY_ROW, DT_I32, 0, 0, n, -1, END);
    struct op_arg *page = arg_add(c, c->dim[5] ? IN : BY_ROW, DT_I32, 0, 0, n_seg, MAX_PAGE, END);
    struct op_arg *start = arg_add(c, IN, DT_I32, 0, 0, n_seg + 1, -1, END);
    for (int64_t i = 0; i < n; i++) arg_set(pos, i, row_pos(c, i));
    for (int64_t i = 0; i < n_seg * MAX_PAGE; i++)
        arg_set(page, i, (double)(i * 37 % (n_seg * MAX_PAGE))); // 37 is prime to it: all pages differ
    for (int64_t i = 0; i <= n_seg; i++) arg_set(start, i, (double)(c->dim[5] ? i * n : i));
}
static struct segments pages_of(const struct op_case *c, const struct tensor *x)
{
    int64_t n = x[0].shape[0];
    return (struct segments){.n_seg = (int)x[1].shape[0],
                             .n_tok = (int)n,
                             .max_len = c->dim[5] ? (int)n : 1,
                             .max_pos = MAX_PAGE,
                             .start = x[2].data,
                             .pos = x[0].data,
                             .page = x[1].data,
                             .max_page = MAX_PAGE,
                             .page_len = (int)c->dim[4]};
}
// where position p of row r's segment lies, in rows of all pages
static int64_t slot_of(const struct op_case *c, int page_arg, int64_t r, int64_t p)
{
    int64_t len = c->dim[4], seg = c->dim[5] ? 0 : r;
    return (int64_t)R(page_arg)[seg * MAX_PAGE + p / len] * len + p % len;
}
static int64_t n_page(const struct op_case *c)
{
    return (c->dim[5] ? 1 : rows(c)) * MAX_PAGE;
}
static void setup_kv_write(struct op_case *c)
{
    arg_add(c, OUT, c->dtype, 1, 0, n_page(c), c->dim[4], c->dim[2], c->dim[3])->len = 0;
    arg_add(c, IN, c->dtype, 1, c->dim[1] ? 2 : 0, rows(c), c->dim[2], c->dim[3], -1);
    add_pages(c);
}
static void call_kv_write(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct segments seg = pages_of(c, x + 2);
    op_kv_write(dev, x[0], x[1], &seg);
}
static void ref_kv_write(struct op_case *c)
{
    int64_t d = c->dim[2] * c->dim[3];
    for (int64_t i = 0; i < N(1); i++) R(0)[slot_of(c, 3, i / d, row_pos(c, i / d)) * d + i % d] = R(1)[i];
}
static void setup_kv_read(struct op_case *c) // out, pages, pos, page, start, k_start
{
    int64_t n_seg = c->dim[5] ? 1 : rows(c), sum = 0;
    for (int64_t s = 0; s < n_seg; s++) sum += row_pos(c, c->dim[5] ? rows(c) - 1 : s) + 1;
    arg_add(c, OUT, c->dtype, 1, c->dim[1] ? 1 : 0, sum, c->dim[2], c->dim[3], -1)->len = 0;
    arg_add(c, IN, c->dtype, 1, 0, n_page(c), c->dim[4], c->dim[2], c->dim[3]);
    add_pages(c);
    struct op_arg *start = arg_add(c, IN, DT_I32, 0, 0, n_seg + 1, -1, END);
    for (int64_t s = 0; s < n_seg; s++) arg_set(start, s + 1, start->ref[s] + row_pos(c, c->dim[5] ? rows(c) - 1 : s) + 1);
    for (int i = 2; i < 4; i++) c->arg[i].flags = IN;
}
static void call_kv_read(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct segments seg = pages_of(c, x + 2);
    op_kv_read(dev, x[0], x[1], &seg, x[5].data);
}
static void ref_kv_read(struct op_case *c)
{
    int64_t d = c->dim[2] * c->dim[3];
    for (int64_t s = 0; s < S(5, 0) - 1; s++)
        for (int64_t p = 0; p < (int64_t)(R(5)[s + 1] - R(5)[s]); p++)
            for (int64_t j = 0; j < d; j++) R(0)[((int64_t)R(5)[s] + p) * d + j] = R(1)[slot_of(c, 3, s, p) * d + j];
}
// values are the first half of keys' columns, as absorbed MLA has them, when kv heads is 1
static void setup_paged(struct op_case *c) // out, q, keys, values, pos, page, start
{
    int by_row = c->dim[5] ? 0 : BY_ROW;
    int64_t d = c->dim[3];
    arg_add(c, OUT | by_row, c->dtype, 1, 2, rows(c), c->dim[1], c->dim[2] == 1 ? d / 2 : d, -1)->len = c->dtype == DT_BF16 ? 1 << 16 : 100;
    arg_add(c, by_row, c->dtype, 1, 1, rows(c), c->dim[1], d, -1);
    arg_add(c, IN, c->dtype, 1, 0, n_page(c), c->dim[4], c->dim[2], d);
    arg_add(c, IN, c->dtype, 1, 0, n_page(c), c->dim[4], c->dim[2], d);
    add_pages(c);
}
static void call_paged(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct segments seg = pages_of(c, x + 4);
    op_attention_paged(dev, x[0], x[1], x[2], c->dim[2] == 1 ? tensor_cols(x[2], 0, c->dim[3] / 2) : x[3], &seg, 0.25f, 0);
}
static void ref_paged(struct op_case *c)
{
    int64_t h = c->dim[1], g = c->dim[2], d = c->dim[3], dv = S(0, 2);
    for (int64_t i = 0; i < rows(c) * h; i++) {
        int64_t r = i / h, kv = i % h / (h / g);
        double score[64], sum = 0, *out = R(0) + i * dv;
        memset(out, 0, (size_t)dv * sizeof *out);
        for (int64_t p = 0; p <= row_pos(c, r); p++) {
            double t = 0;
            for (int64_t l = 0; l < d; l++) t += R(1)[i * d + l] * R(2)[(slot_of(c, 5, r, p) * g + kv) * d + l];
            sum += score[p] = exp(t * 0.25);
        }
        for (int64_t p = 0; p <= row_pos(c, r); p++)
            for (int64_t l = 0; l < dv; l++) out[l] += score[p] / sum * R(g == 1 ? 2 : 3)[(slot_of(c, 5, r, p) * g + kv) * d + l];
    }
}

// ---- mixture of experts --------------------------------------------------------------------------------------------------------------

// dim: rows, experts, top_k, groups, groups taken, softmax without bias
static struct router router_of(const struct op_case *c)
{
    return (struct router){.scoring = c->dim[5] ? ROUTER_SOFTMAX : ROUTER_SIGMOID,
                           .n_expert = (int)c->dim[1],
                           .top_k = (int)c->dim[2],
                           .n_group = (int)c->dim[3],
                           .topk_group = (int)c->dim[4],
                           .norm_topk_prob = !c->dim[5],
                           .scale = 2.5f};
}
static void setup_router(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, DT_I32, 0, 0, rows(c), c->dim[2], END);
    arg_add(c, OUT | BY_ROW, DT_F32, 1, 0, rows(c), c->dim[2], END);
    arg_add(c, BY_ROW, DT_F32, 1, 0, rows(c), c->dim[1], END);
    arg_add(c, IN, DT_F32, 0.3, 0, c->dim[1], -1, END);
}
static void call_router(struct device *dev, const struct op_case *c, struct tensor *x)
{
    struct router r = router_of(c);
    op_router(dev, x[0], x[1], x[2], c->dim[5] ? TENSOR_NONE : x[3], &r);
}
// An expert is chosen if fewer than top_k are better, among groups fewer than topk_group of which are better: ranks, not a search.
static void ref_router(struct op_case *c)
{
    int64_t e = c->dim[1], per = e / c->dim[3];
    for (int64_t t = 0; t < rows(c); t++) {
        double score[OP_EXPERT_MAX], choice[OP_EXPERT_MAX], group[OP_EXPERT_MAX], sum = 0, total = 0;
        for (int64_t i = 0; i < e; i++) sum += exp(R(2)[t * e + i]);
        for (int64_t i = 0; i < e; i++) {
            score[i] = c->dim[5] ? exp(R(2)[t * e + i]) / sum : 1 / (1 + exp(-R(2)[t * e + i]));
            choice[i] = score[i] + (c->dim[5] ? 0 : R(3)[i]);
        }
        for (int64_t g = 0; g < c->dim[3]; g++) {
            group[g] = -INFINITY;
            for (int64_t i = 0; i < per; i++)
                for (int64_t j = c->dim[5] || per == 1 ? i : i + 1; j < (c->dim[5] || per == 1 ? i + 1 : per); j++)
                    group[g] = fmax(group[g], i == j ? choice[g * per + i] : choice[g * per + i] + choice[g * per + j]);
        }
        for (int64_t i = 0; i < e; i++) {
            int64_t better = 0;
            for (int64_t g = 0; g < c->dim[3]; g++) better += group[g] > group[i / per];
            if (better >= c->dim[4]) choice[i] = -INFINITY;
        }
        for (int64_t i = 0; i < e; i++) {
            int64_t better = 0;
            for (int64_t j = 0; j < e; j++) better += choice[j] > choice[i];
            if (better >= c->dim[2] || choice[i] == -INFINITY) continue;
            R(0)[t * c->dim[2] + better] = (double)i;
            R(1)[t * c->dim[2] + better] = score[i];
            total += score[i];
        }
        for (int64_t k = 0; k < c->dim[2]; k++) R(1)[t * c->dim[2] + k] *= 2.5 / (c->dim[5] ? 1 : total);
    }
}

// dim: rows, experts, top_k
static void setup_moe_sort(struct op_case *c) // first, row_token, token_row, expert
{
    arg_add(c, OUT, DT_I32, 0, 0, c->dim[1] + 1, -1, END);
    arg_add(c, OUT, DT_I32, 0, 0, rows(c) * c->dim[2], -1, END);
    arg_add(c, OUT, DT_I32, 0, 0, rows(c), c->dim[2], END);
    struct op_arg *e = arg_add(c, IN, DT_I32, 0, 0, rows(c), c->dim[2], END);
    for (int64_t i = 0; i < N(3); i++) arg_set(e, i, (double)rng_below(8, 0, (uint64_t)i, (uint64_t)c->dim[1]));
}
static void call_moe_sort(struct device *dev, const struct op_case *c, struct tensor *x)
{
    op_moe_sort(dev, x[0], x[1], x[2], x[3], (int)c->dim[1]);
}
static void ref_moe_sort(struct op_case *c)
{
    int64_t at = 0;
    for (int64_t e = 0; e < c->dim[1]; e++) {
        R(0)[e] = (double)at;
        for (int64_t i = 0; i < N(3); i++) {
            if (R(3)[i] != (double)e) continue;
            R(1)[at] = (double)(i / c->dim[2]);
            R(2)[i] = (double)at++;
        }
    }
    R(0)[c->dim[1]] = (double)at;
}
// dim: rows, rows of x, d, rows lie close
static void setup_gather(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, c->dtype, 1, c->dim[3] ? 0 : 2, rows(c), c->dim[2], END)->len = 0;
    arg_add(c, IN, c->dtype, 1, 0, c->dim[1], c->dim[2], END);
    struct op_arg *r = arg_add(c, BY_ROW, DT_I32, 0, 0, rows(c), -1, END);
    for (int64_t i = 0; i < rows(c); i++) arg_set(r, i, (double)rng_below(9, 0, (uint64_t)i, (uint64_t)c->dim[1]));
}
static void call_gather(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_gather_rows(dev, x[0], x[1], x[2]);
}
static void ref_gather(struct op_case *c)
{
    for (int64_t i = 0; i < N(0); i++) R(0)[i] = R(1)[(int64_t)R(2)[i / S(0, 1)] * S(0, 1) + i % S(0, 1)];
}
// dim: rows, rows of out, d, rows lie close
static void setup_scatter(struct op_case *c)
{
    arg_add(c, OUT, c->dtype, 1, c->dim[3] ? 0 : 2, c->dim[1], c->dim[2], END)->len = 0;
    arg_add(c, IN | BY_ROW, c->dtype, 1, 0, rows(c), c->dim[2], END);
    struct op_arg *r = arg_add(c, BY_ROW, DT_I32, 0, 0, rows(c), -1, END);
    for (int64_t i = 0; i < rows(c); i++) arg_set(r, i, (double)(c->dim[1] - 1 - i * (c->dim[1] / rows(c)))); // no row twice
}
static void call_scatter(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_scatter_rows(dev, x[0], x[1], x[2]);
}
static void ref_scatter(struct op_case *c)
{
    for (int64_t i = 0; i < N(1); i++) R(0)[(int64_t)R(2)[i / S(0, 1)] * S(0, 1) + i % S(0, 1)] = R(1)[i];
}
// dim: rows, experts, n, k. Every third expert has no rows, and no weights.
static void setup_grouped(struct op_case *c) // out, x, w, first
{
    arg_add(c, OUT, c->dtype, 1, 0, rows(c), c->dim[2], END)->len = (double)c->dim[3];
    arg_add(c, IN, c->dtype, 1, 0, rows(c), c->dim[3], END);
    arg_add(c, IN, c->dtype, 1, 0, c->dim[1] * c->dim[2], c->dim[3], END);
    struct op_arg *first = arg_add(c, IN, DT_I32, 0, 0, c->dim[1] + 1, -1, END);
    for (int64_t e = 0; e < c->dim[1]; e++)
        arg_set(first, e + 1, e + 1 == c->dim[1] ? (double)rows(c) : e % 3 == 1 ? first->ref[e] : (double)(rows(c) * (e + 1) / c->dim[1]));
}
static void call_grouped(struct device *dev, const struct op_case *c, struct tensor *x)
{
    int64_t e = c->dim[1], n = c->dim[2], k = c->dim[3];
    const void *slot[64] = {0};
    for (int64_t i = 0; i < e; i++)
        if (i % 3 != 1 || i + 1 == e) slot[i] = packed(dev, tensor_rows(x[2], i * n, n)).data;
    struct tensor table = dev_1d(dev, DT_U8, (int64_t)sizeof slot);
    op_upload(dev, table, slot);
    struct expert_weights w = {.n_expert = (int)e, .n = n, .k = k, .dtype = x[2].dtype, .slot = table.data};
    op_grouped_linear(dev, x[0], x[1], &w, x[3]);
}
static void ref_grouped(struct op_case *c)
{
    int64_t n = c->dim[2], k = c->dim[3], e = 0;
    for (int64_t i = 0; i < N(0); i++) {
        while ((double)(i / n) >= R(3)[e + 1]) e++;
        R(0)[i] = 0;
        for (int64_t l = 0; l < k; l++) R(0)[i] += R(1)[i / n * k + l] * R(2)[(e * n + i % n) * k + l];
    }
}
// dim: rows, d, top_k
static void setup_combine(struct op_case *c)
{
    arg_add(c, OUT | BY_ROW, c->dtype, 1, 0, rows(c), c->dim[1], END)->len = (double)c->dim[2];
    arg_add(c, IN, c->dtype, 1, 0, rows(c) * c->dim[2], c->dim[1], END);
    struct op_arg *r = arg_add(c, BY_ROW, DT_I32, 0, 0, rows(c), c->dim[2], END);
    for (int64_t i = 0; i < N(2); i++) arg_set(r, i, (double)(N(2) - 1 - i));
    arg_add(c, BY_ROW, DT_F32, 1, 0, rows(c), c->dim[2], END);
}
static void call_combine(struct device *dev, const struct op_case *c, struct tensor *x)
{
    (void)c;
    op_moe_combine(dev, x[0], x[1], x[2], x[3]);
}
static void ref_combine(struct op_case *c)
{
    int64_t d = c->dim[1], k = c->dim[2];
    for (int64_t i = 0; i < N(0); i++)
        for (int64_t s = 0; s < k; s++) R(0)[i] += R(3)[i / d * k + s] * R(1)[(int64_t)R(2)[i / d * k + s] * d + i % d];
}

const struct op_row op_rows_heads[] = {
    {OP_ROW(linear),
     setup_linear,
     call_linear,
     ref_linear,
     {{1, 1, 1, 1},
      {3, 37, 5, 0, 1},
      {5, 33, 65, 1, 1},
      {7, 130, 64, 1},
      {NO_ROWS, 3, 4},
      {67, 200, 129, 0, 1},
      {67, 200, 129, 1, 1},
      // the GPU's kernels: few rows, chunks of k, tiles of 64 and of 128, chunks apart, more than eight tiles of rows
      {7, 530, 40, 1},
      {13, 50, 1030, 1, 1},
      {2, 20, 4100, 1},
      {33, 130, 700, 1},
      {200, 260, 140, 1, 1},
      {1100, 9, 20, 1}}},
    {OP_ROW(linear_bwd_x), setup_bwd_x, call_bwd_x, ref_bwd_x, {{1, 1, 1}, {3, 17, 5, 1}, {NO_ROWS, 3, 4}, {67, 129, 200}}},
    {OP_ROW(linear_bwd_w), setup_bwd_w, call_bwd_w, ref_bwd_w, {{1, 1, 1}, {3, 17, 5}, {NO_ROWS, 3, 4}, {67, 129, 200}}},
    {OP_ROW(head_linear),
     setup_head_linear,
     call_head_linear,
     ref_head_linear,
     {{1, 1, 1, 1, 1},
      {3, 2, 17, 5, 0},
      {5, 3, 33, 65, 1},
      {NO_ROWS, 2, 3, 4},
      {33, 4, 64, 130, 1},
      {33, 4, 64, 130, 0},
      {40, 2, 30, 400, 1}}},
    {OP_ROW(attention),
     setup_attention,
     call_attention,
     ref_attention,
     {{1, 1, 1, 1, 1},
      {2, 2, 1, 5, 3},
      {3, 4, 2, 16, 16, 3},
      {4, 4, 2, 33, 17},
      {4, 6, 6, 64, 64, 40},
      {5, 2, 1, 72, 128},
      {5, 1, 1, 192, 24, 65}}},
    {OP_ROW(attention_bwd),
     setup_attention_bwd,
     call_attention_bwd,
     ref_attention_bwd,
     {{1, 1, 1, 1, 1},
      {2, 2, 1, 5, 3},
      {3, 4, 2, 16, 8, 3},
      {4, 4, 2, 33, 17},
      {4, 6, 6, 64, 64, 40},
      {5, 2, 1, 72, 128},
      {5, 1, 1, 192, 24, 65}}},
    {OP_ROW(kv_write),
     setup_kv_write,
     call_kv_write,
     ref_kv_write,
     {{1, 1, 1, 1, 1}, {5, 4, 2, 9, 4}, {20, 4, 2, 8, 3, 1}, {NO_ROWS, 2, 1, 4, 4}, {5, 0, 3, 104, 4}}},
    {OP_ROW(kv_read),
     setup_kv_read,
     call_kv_read,
     ref_kv_read,
     {{1, 1, 1, 1, 1}, {5, 4, 2, 9, 4}, {20, 4, 2, 8, 3, 1}, {5, 0, 3, 104, 4}, {6, 0, 1, 2056, 4, 1}}},
    {OP_ROW(attention_paged),
     setup_paged,
     call_paged,
     ref_paged,
     {{1, 1, 1, 2, 1},
      {5, 4, 2, 9, 4},
      {20, 4, 2, 8, 3, 1},
      {7, 6, 1, 40, 16},
      {NO_ROWS, 2, 1, 4, 4},
      {33, 16, 1, 160, 16},
      {3, 20, 1, 264, 16}}},
    {OP_ROW(router),
     setup_router,
     call_router,
     ref_router,
     {{1, 1, 1, 1, 1},
      {5, 8, 2, 4, 2},
      {7, 60, 6, 1, 1, 1},
      {5, 16, 3, 8, 3, 1},
      {3, 1000, 40, 500, 70},
      {NO_ROWS, 8, 2, 1, 1},
      {50, 256, 8, 8, 4}}},
    {OP_ROW(moe_sort),
     setup_moe_sort,
     call_moe_sort,
     ref_moe_sort,
     {{1, 1, 1}, {5, 8, 3}, {NO_ROWS, 4, 2}, {300, 64, 6}, {700, 1, 3}, {1100, 1000, 4}}},
    {OP_ROW(gather_rows),
     setup_gather,
     call_gather,
     ref_gather,
     {{1, 1, 1}, {9, 4, 33}, {NO_ROWS, 2, 4}, {300, 100, 513}, {5, 7, 2056, 1}}},
    {OP_ROW(scatter_rows),
     setup_scatter,
     call_scatter,
     ref_scatter,
     {{1, 1, 1}, {4, 9, 33}, {NO_ROWS, 2, 4}, {100, 300, 513}, {7, 7, 2056, 1}}},
    {OP_ROW(grouped_linear),
     setup_grouped,
     call_grouped,
     ref_grouped,
     {{1, 1, 1, 1},
      {9, 4, 33, 5},
      {NO_ROWS, 2, 4, 4},
      {90, 8, 70, 129},
      {60, 8, 70, 300},
      {300, 3, 140, 200},
      {16, 1, 20, 30},
      {70, 40, 9, 16},
      {130, 3, 530, 520}, // rings that go round: of 4, 9 and 21 steps
      {50, 4, 140, 700},
      {20, 8, 70, 1500}}},
    {OP_ROW(moe_combine), setup_combine, call_combine, ref_combine, {{1, 1, 1}, {9, 33, 3}, {NO_ROWS, 4, 2}, {40, 513, 6}, {5, 2056, 9}}},
    {0},
};
