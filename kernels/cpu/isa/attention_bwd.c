// Attention's backward pass by recomputing the scores (Dao 2022): P = exp(scale · q kᵀ - lse), dP = dout vᵀ, dS = scale · P (dP - D) with
// D = Σ dout · out; then dv = Pᵀ dout, dq = dS k, dk = dSᵀ q.
//
// A task is one segment and one head of keys: it alone adds to their dk and dv (f32, in scratch), row block after row block in order, so
// no atomics, and the same bits on any number of threads. Rows are (query, head of the group) as in attention.c.
#include "kernels/cpu/isa/attn.h"

struct back {
    struct tensor dq, dk, dv, dout, q, k, v, out, lse;
    const struct attention *a;
    bool dp;
    int64_t group, n_kv, d, e;           // d, e: sizes of a key, a value
    int64_t d_x, e_x, d_pad, e_pad;      // words in x form and of a padded row
    int64_t panels;                      // keys padded to whole panels, of a head
    uint32_t *key_panels, *value_panels; // for q kᵀ and dout vᵀ
    uint32_t *keys;                      // w form, for dS k
    float *sum_k, *sum_v;                // dk, dv while they are summed
    char *work;
    size_t work_bytes;
};
struct block {                       // a thread's buffers
    uint32_t *q_x, *q_w, *g_x, *g_w; // queries and dout in both forms
    float *p, *ds, *dq, *lse, *dot;
    uint32_t *p_pairs, *ds_pairs, *ds_x; // dp only: rows paired, and x form
};

static size_t block_layout(const struct back *b, struct block *w, char *base)
{
    const int64_t step = b->dp ? 2 : 1;
    int64_t at = 0;
#define TAKE(field, words)                                                                                                                 \
    do {                                                                                                                                   \
        if (w) w->field = (void *)(base + at * 4);                                                                                         \
        at += round_up(words, 16);                                                                                                         \
    } while (0)
    TAKE(q_x, ATTN_ROWS * b->d_x);
    TAKE(g_x, ATTN_ROWS * b->e_x);
    TAKE(q_w, ATTN_ROWS / step * b->d_pad);
    TAKE(g_w, ATTN_ROWS / step * b->e_pad);
    TAKE(p, ATTN_ROWS * ATTN_KEYS);
    TAKE(ds, ATTN_ROWS * ATTN_KEYS);
    TAKE(dq, ATTN_ROWS * b->d_pad);
    TAKE(lse, ATTN_ROWS);
    TAKE(dot, ATTN_ROWS);
    if (b->dp) {
        TAKE(p_pairs, ATTN_ROWS / 2 * ATTN_KEYS);
        TAKE(ds_pairs, ATTN_ROWS / 2 * ATTN_KEYS);
        TAKE(ds_x, ATTN_ROWS * ATTN_KEYS / 2);
    }
#undef TAKE
    return (size_t)at * 4;
}

static int64_t first_panel(const struct back *b, int64_t s, int64_t head)
{
    return head * b->panels + b->a->k_start[s] / PANEL_N + s;
}

// Words from PANEL_N columns of a segment's `keys` to the next.
static int64_t keys_next(const struct back *b, int64_t s)
{
    return round_up(b->a->k_start[s + 1] - b->a->k_start[s], PANEL_N) / (b->dp ? 2 : 1) * PANEL_N;
}

// All rows of a segment and a head of keys in the forms the products want.
static void pack_segment(const struct back *b, int64_t s, int64_t head, uint32_t *tmp)
{
    const bool is_bf16 = b->q.dtype == DT_BF16;
    const int64_t k0 = b->a->k_start[s], n = b->a->k_start[s + 1] - k0, base = first_panel(b, s, head) * PANEL_N, step = b->dp ? 2 : 1;
    for (int64_t p = 0; p < n; p += PANEL_N) {
        const int64_t rows = n - p < PANEL_N ? n - p : PANEL_N;
        for (int64_t r = 0; r < rows; r++)
            row_x(tmp + r * b->d_x, elem(b->k, (k0 + p + r) * b->k.stride[0] + head * b->k.stride[1]), is_bf16, b->d, b->dp);
        panel_of(b->key_panels + (base + p) * b->d_x, tmp, b->d_x, rows, b->d_x);
        for (int64_t r = 0; r < rows; r++)
            row_x(tmp + r * b->e_x, elem(b->v, (k0 + p + r) * b->v.stride[0] + head * b->v.stride[1]), is_bf16, b->e, b->dp);
        panel_of(b->value_panels + (base + p) * b->e_x, tmp, b->e_x, rows, b->e_x);
    }
    for (int64_t r = 0; r < n; r += step) {
        const char *row = elem(b->k, (k0 + r) * b->k.stride[0] + head * b->k.stride[1]);
        row_w(b->keys + base / step * b->d_pad + r / step * PANEL_N, keys_next(b, s), row, r + 1 < n ? row + 2 * b->k.stride[0] : NULL,
              is_bf16, b->d, b->dp);
    }
    memset(b->sum_k + base * b->d_pad, 0, (size_t)(n * b->d_pad) * 4);
    memset(b->sum_v + base * b->e_pad, 0, (size_t)(n * b->e_pad) * 4);
}

static float dot(const char *x, const char *y, bool is_bf16, int64_t n)
{
    vf sum = vf_zero();
    for (int64_t i = 0; i < n; i += VL) {
        const int left = n - i < VL ? (int)(n - i) : VL;
        sum = vf_fma(vf_load_any_n(x, is_bf16, i, left), vf_load_any_n(y, is_bf16, i, left), sum);
    }
    return vf_sum(sum);
}

// Rows [row, row + n) of the segment into the thread's buffers.
static void load_rows(const struct back *b, const struct block *w, int64_t s, int64_t head, int64_t row, int64_t n)
{
    const bool is_bf16 = b->q.dtype == DT_BF16;
    const int64_t step = b->dp ? 2 : 1, next = ATTN_ROWS / step * PANEL_N;
    const char *q_last = NULL, *g_last = NULL;
    for (int64_t r = 0; r < n; r++) {
        const int64_t tok = b->a->q_start[s] + (row + r) / b->group, h = head * b->group + (row + r) % b->group;
        const char *q = elem(b->q, tok * b->q.stride[0] + h * b->q.stride[1]),
                   *g = elem(b->dout, tok * b->dout.stride[0] + h * b->dout.stride[1]);
        row_x(w->q_x + r * b->d_x, q, is_bf16, b->d, b->dp);
        row_x(w->g_x + r * b->e_x, g, is_bf16, b->e, b->dp);
        w->lse[r] = ((const float *)b->lse.data)[tok * b->lse.stride[0] + h];
        w->dot[r] = dot(g, elem(b->out, tok * b->out.stride[0] + h * b->out.stride[1]), is_bf16, b->e);
        if (!b->dp || r % 2 || r + 1 == n) {
            const bool pair = b->dp && r % 2;
            row_w(w->q_w + r / step * PANEL_N, next, pair ? q_last : q, pair ? q : NULL, is_bf16, b->d, b->dp);
            row_w(w->g_w + r / step * PANEL_N, next, pair ? g_last : g, pair ? g : NULL, is_bf16, b->e, b->dp);
        }
        q_last = q, g_last = g;
    }
    memset(w->dq, 0, (size_t)(n * b->d_pad) * 4);
}

// p holds scores, ds dP; both become what their names say: 0 where the row does not see, up to the vector that holds `end`.
static __attribute__((noinline)) void row_back(float *p, float *ds, int64_t lo, int64_t hi, int64_t end, float scale, float lse, float dot)
{
    const vf by = vf_set1(scale), minus_lse = vf_set1(-lse), minus_dot = vf_set1(-dot), zero = vf_zero();
    int64_t j = 0;
    for (; j < hi; j += VL) {
        vf a = vf_exp(vf_fma(vf_load(p + j), by, minus_lse));
        vf b = a * (vf_load(ds + j) + minus_dot) * by;
        if (hi - j < VL) a = vf_select_n((int)(hi - j), a, zero), b = vf_select_n((int)(hi - j), b, zero);
        if (lo > j) a = vf_select_n(lo - j < VL ? (int)(lo - j) : VL, zero, a), b = vf_select_n(lo - j < VL ? (int)(lo - j) : VL, zero, b);
        vf_store(p + j, a);
        vf_store(ds + j, b);
    }
    for (; j < end; j += VL) {
        vf_store(p + j, zero);
        vf_store(ds + j, zero);
    }
}

#ifdef TILE_DP
// Rows a and b (NULL: zeros) as bf16 pairs.
static void row_pairs(uint32_t *out, const float *a, const float *b, int64_t n)
{
    for (int64_t j = 0; j < n; j += VL) {
        __m256i lo = (__m256i)_mm512_cvtneps_pbh(vf_load(a + j)),
                hi = b ? (__m256i)_mm512_cvtneps_pbh(vf_load(b + j)) : _mm256_setzero_si256();
        _mm512_storeu_si512(out + j, _mm512_or_si512(_mm512_cvtepu16_epi32(lo), _mm512_slli_epi32(_mm512_cvtepu16_epi32(hi), 16)));
    }
}
#endif

static void back_rows(const struct back *b, const struct block *w, int64_t s, int64_t head, int64_t row, int64_t n)
{
    const struct attention *a = b->a;
    const int64_t n_key = a->k_start[s + 1] - a->k_start[s], ahead = n_key - (a->q_start[s + 1] - a->q_start[s]), step = b->dp ? 2 : 1,
                  base = first_panel(b, s, head) * PANEL_N, last = ahead + (row + n - 1) / b->group, steps_row = (n + step - 1) / step,
                  oldest = a->window ? ahead + row / b->group - a->window + 1 : 0;
    load_rows(b, w, s, head, row, n);
    for (int64_t key = oldest > 0 ? oldest / ATTN_KEYS * ATTN_KEYS : 0; key <= last; key += ATTN_KEYS) {
        const int64_t keys = last + 1 - key < ATTN_KEYS ? last + 1 - key : ATTN_KEYS;
        attn_product(b->dp, n, keys, b->d_x, w->q_x, b->d_x * 4, 4, b->key_panels + (base + key) * b->d_x, PANEL_N * b->d_x, w->p,
                     ATTN_KEYS, false);
        attn_product(b->dp, n, keys, b->e_x, w->g_x, b->e_x * 4, 4, b->value_panels + (base + key) * b->e_x, PANEL_N * b->e_x, w->ds,
                     ATTN_KEYS, false);
        for (int64_t r = 0; r < n; r++) {
            const int64_t at = ahead + (row + r) / b->group - key, hi = at + 1 < ATTN_KEYS ? at + 1 : ATTN_KEYS;
            const int64_t lo = a->window && at - a->window + 1 > 0 ? at - a->window + 1 : 0;
            row_back(w->p + r * ATTN_KEYS, w->ds + r * ATTN_KEYS, lo, hi > lo ? hi : 0, round_up(keys, step), a->scale, w->lse[r],
                     w->dot[r]);
        }
        const uint32_t *p_w = (uint32_t *)w->p, *ds_w = (uint32_t *)w->ds, *ds_x = ds_w;
#ifdef TILE_DP
        if (b->dp) {
            for (int64_t r = 0; r < n; r += 2) {
                row_pairs(w->p_pairs + r / 2 * ATTN_KEYS, w->p + r * ATTN_KEYS, r + 1 < n ? w->p + (r + 1) * ATTN_KEYS : NULL, keys);
                row_pairs(w->ds_pairs + r / 2 * ATTN_KEYS, w->ds + r * ATTN_KEYS, r + 1 < n ? w->ds + (r + 1) * ATTN_KEYS : NULL, keys);
            }
            for (int64_t r = 0; r < n; r++)
                for (int64_t j = 0; j < round_up(keys, 2); j += VL)
                    store_p((float *)(w->ds_x + r * (ATTN_KEYS / 2)), j, vf_load(w->ds + r * ATTN_KEYS + j), true);
            p_w = w->p_pairs, ds_w = w->ds_pairs, ds_x = w->ds_x;
        }
#endif
        attn_product(b->dp, keys, b->e, steps_row, p_w, 4, ATTN_KEYS * 4, w->g_w, ATTN_ROWS / step * PANEL_N,
                     b->sum_v + (base + key) * b->e_pad, b->e_pad, true);
        attn_product(b->dp, keys, b->d, steps_row, ds_w, 4, ATTN_KEYS * 4, w->q_w, ATTN_ROWS / step * PANEL_N,
                     b->sum_k + (base + key) * b->d_pad, b->d_pad, true);
        attn_product(b->dp, n, b->d, (keys + step - 1) / step, ds_x, ATTN_KEYS / step * 4, 4,
                     b->keys + base / step * b->d_pad + key / step * PANEL_N, keys_next(b, s), w->dq, b->d_pad, true);
    }
    for (int64_t r = 0; r < n; r++) {
        const int64_t tok = a->q_start[s] + (row + r) / b->group, h = head * b->group + (row + r) % b->group;
        row_out((void *)elem(b->dq, tok * b->dq.stride[0] + h * b->dq.stride[1]), b->q.dtype == DT_BF16, w->dq + r * b->d_pad, b->d, 1);
    }
}

static void back_segment(const struct back *b, const struct block *w, int64_t s, int64_t head)
{
    const int64_t k0 = b->a->k_start[s], n = b->a->k_start[s + 1] - k0, n_row = (b->a->q_start[s + 1] - b->a->q_start[s]) * b->group,
                  base = first_panel(b, s, head) * PANEL_N;
    const bool is_bf16 = b->q.dtype == DT_BF16;
    pack_segment(b, s, head, (uint32_t *)w->p);
    for (int64_t row = 0; row < n_row; row += ATTN_ROWS) back_rows(b, w, s, head, row, n_row - row < ATTN_ROWS ? n_row - row : ATTN_ROWS);
    for (int64_t r = 0; r < n; r++) {
        row_out((void *)elem(b->dk, (k0 + r) * b->dk.stride[0] + head * b->dk.stride[1]), is_bf16, b->sum_k + (base + r) * b->d_pad, b->d,
                1);
        row_out((void *)elem(b->dv, (k0 + r) * b->dv.stride[0] + head * b->dv.stride[1]), is_bf16, b->sum_v + (base + r) * b->e_pad, b->e,
                1);
    }
}

void ISA_NAME(attention_bwd)(struct device *dev, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor dout, struct tensor q,
                             struct tensor k, struct tensor v, struct tensor out, struct tensor lse, const struct attention *a)
{
    struct back b = {
        dq, dk, dv, dout, q, k, v, out, lse, a, .dp = ATTN_DP && q.dtype == DT_BF16, .n_kv = k.shape[1], .d = q.shape[2], .e = v.shape[2]};
    b.group = q.shape[1] / b.n_kv;
    b.d_x = words_x(b.d, b.dp);
    b.e_x = words_x(b.e, b.dp);
    b.d_pad = cols_pad(b.d);
    b.e_pad = cols_pad(b.e);
    b.panels = k.shape[0] / PANEL_N + a->n_seg;
    const int64_t rows = b.n_kv * b.panels * PANEL_N;
    b.key_panels = dev_scratch(dev, (size_t)(rows * b.d_x) * 4);
    b.value_panels = dev_scratch(dev, (size_t)(rows * b.e_x) * 4);
    b.keys = dev_scratch(dev, (size_t)(rows / (b.dp ? 2 : 1) * b.d_pad) * 4);
    b.sum_k = dev_scratch(dev, (size_t)(rows * b.d_pad) * 4);
    b.sum_v = dev_scratch(dev, (size_t)(rows * b.e_pad) * 4);
    const size_t tmp_bytes = (size_t)(PANEL_N * (b.d_x > b.e_x ? b.d_x : b.e_x)) * 4; // pack_segment's, over the buffers it precedes
    b.work_bytes = block_layout(&b, NULL, NULL) + tmp_bytes;
    b.work = dev_scratch(dev, b.work_bytes * (size_t)dev->n_thread);
    if (dev->measuring) return;

    double pairs = 0;
    for (int s = 0; s < a->n_seg; s++) {
        const double n_key = a->k_start[s + 1] - a->k_start[s], n_q = a->q_start[s + 1] - a->q_start[s];
        pairs += n_q * (n_key - 0.5 * n_q);
    }
#pragma omp parallel num_threads(cpu_team(dev, pairs *(double)q.shape[1] * (double)(3 * b.d + 2 * b.e) * 2 / (6 * VL)))
    {
        struct block w = {0};
        block_layout(&b, &w, b.work + (size_t)omp_get_thread_num() * b.work_bytes);
#pragma omp for collapse(2) schedule(dynamic, 1)
        for (int s = 0; s < a->n_seg; s++)
            for (int64_t head = 0; head < b.n_kv; head++) back_segment(&b, &w, s, head);
    }
}
