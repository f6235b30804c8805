// Attention over flat tokens (training, prefill), forward. A task is ATTN_ROWS rows (query, head of the group) of one segment and one head
// of keys; it walks the keys in blocks of ATTN_KEYS with an online softmax (Milakov & Gimelshein 2018; Dao 2022).
//
// A row's result does not depend on what shares its task: blocks are counted from the segment's first key, every score and every sum is one
// accumulator in one order (tile.h), and keys a row must not see add exactly 0. So queries in chunks give the bits of all at once.
#include "kernels/cpu/isa/attn.h"

struct flat {
    struct tensor out, lse, q, k, v;
    const struct attention *a;
    bool dp;
    int64_t group, dk, dv, k_words, v_pad; // k_words: of a row in x form
    uint32_t *keys, *values;               // packed, by head of keys
    int64_t keys_head, values_head;        // words
    char *work;                            // of each thread
    size_t work_bytes;
};

// Segments start at whole panels: this many panels stand before segment s.
static int64_t panels_before(const struct attention *a, int64_t s)
{
    return a->k_start[s] / PANEL_N + s;
}

static uint32_t *keys_of(const struct flat *f, int64_t s, int64_t head)
{
    return f->keys + head * f->keys_head + panels_before(f->a, s) * PANEL_N * f->k_words;
}
// In w form; from PANEL_N columns to the next are values_next() words.
static int64_t values_next(const struct flat *f, int64_t s)
{
    return round_up(f->a->k_start[s + 1] - f->a->k_start[s], PANEL_N) / (f->dp ? 2 : 1) * PANEL_N;
}
static uint32_t *values_of(const struct flat *f, int64_t s, int64_t head)
{
    return f->values + head * f->values_head + panels_before(f->a, s) * PANEL_N / (f->dp ? 2 : 1) * f->v_pad;
}

// Keys [at, at + n) of a segment, of one head, into panels and w form.
static void pack_keys(const struct flat *f, int64_t s, int64_t head, int64_t at, int64_t n, uint32_t *tmp)
{
    const bool is_bf16 = f->q.dtype == DT_BF16;
    for (int64_t p = 0; p < n; p += PANEL_N) {
        const int64_t rows = n - p < PANEL_N ? n - p : PANEL_N;
        for (int64_t r = 0; r < rows; r++)
            row_x(tmp + r * f->k_words, elem(f->k, (f->a->k_start[s] + at + p + r) * f->k.stride[0] + head * f->k.stride[1]), is_bf16,
                  f->dk, f->dp);
        panel_of(keys_of(f, s, head) + (at + p) * f->k_words, tmp, f->k_words, rows, f->k_words);
    }
    const int step = f->dp ? 2 : 1;
    for (int64_t r = 0; r < n; r += step) {
        const char *row = elem(f->v, (f->a->k_start[s] + at + r) * f->v.stride[0] + head * f->v.stride[1]);
        row_w(values_of(f, s, head) + (at + r) / step * PANEL_N, values_next(f, s), row, r + 1 < n ? row + 2 * f->v.stride[0] : NULL,
              is_bf16, f->dv, f->dp);
    }
}

// Rows [row, row + n) of segment s: row i is query i / group, head i % group.
static void attend(const struct flat *f, int64_t s, int64_t head, int64_t row, int64_t n, char *work)
{
    const struct attention *a = f->a;
    const bool is_bf16 = f->q.dtype == DT_BF16;
    const int64_t q0 = a->q_start[s], n_key = a->k_start[s + 1] - a->k_start[s], ahead = n_key - (a->q_start[s + 1] - q0);
    float *score = (float *)work, *o = score + ATTN_ROWS * ATTN_KEYS, *top = o + ATTN_ROWS * f->v_pad, *sum = top + ATTN_ROWS;
    uint32_t *q = (uint32_t *)(sum + ATTN_ROWS);
    uint32_t *p = f->dp ? q + ATTN_ROWS * f->k_words : (uint32_t *)score; // the probabilities in x form
    const int64_t p_words = words_x(ATTN_KEYS, f->dp), last = ahead + (row + n - 1) / f->group;
    for (int64_t r = 0; r < n; r++) {
        row_x(q + r * f->k_words,
              elem(f->q, (q0 + (row + r) / f->group) * f->q.stride[0] + (head * f->group + (row + r) % f->group) * f->q.stride[1]), is_bf16,
              f->dk, f->dp);
        top[r] = -INFINITY;
        sum[r] = 0;
    }
    memset(o, 0, (size_t)(n * f->v_pad) * sizeof *o);
    const int64_t oldest = a->window ? ahead + row / f->group - a->window + 1 : 0;
    for (int64_t key = oldest > 0 ? oldest / ATTN_KEYS * ATTN_KEYS : 0; key <= last; key += ATTN_KEYS)
        for (int64_t t = 0; t < n; t += TILE_M) {
            const int64_t rows = n - t < TILE_M ? n - t : TILE_M, seen = ahead + (row + t + rows - 1) / f->group + 1 - key;
            if (seen <= 0) continue;
            const int64_t keys = seen < ATTN_KEYS ? seen : ATTN_KEYS, end = round_up(keys, 2);
            attn_product(f->dp, rows, keys, f->k_words, q + t * f->k_words, f->k_words * 4, 4, keys_of(f, s, head) + key * f->k_words,
                         PANEL_N * f->k_words, score + t * ATTN_KEYS, ATTN_KEYS, false);
            for (int64_t r = t; r < t + rows; r++) {
                const int64_t at = ahead + (row + r) / f->group - key; // the row's own key in this block
                int64_t lo = a->window && at - a->window + 1 > 0 ? at - a->window + 1 : 0;
                const int64_t hi = at + 1 < ATTN_KEYS ? at + 1 : ATTN_KEYS;
                float *sc = score + r * ATTN_KEYS;
                if (hi <= lo) { // sees nothing of this block: adds zeros
                    row_exp(p + r * p_words, sc, 0, end, 0, f->dp);
                    continue;
                }
                const float best = row_scale(sc, lo, hi, a->scale), now = best > top[r] ? best : top[r];
                const float keep = exp_f32(top[r] - now);
                const float more = row_exp(p + r * p_words, sc, hi, end, now, f->dp);
                if (keep != 1) row_times(o + r * f->v_pad, f->v_pad, keep);
                sum[r] = fma_f32(sum[r], keep, more);
                top[r] = now;
            }
            attn_product(f->dp, rows, f->dv, f->dp ? end / 2 : keys, p + t * p_words, p_words * 4, 4,
                         values_of(f, s, head) + key / (f->dp ? 2 : 1) * PANEL_N, values_next(f, s), o + t * f->v_pad, f->v_pad, true);
        }
    for (int64_t r = 0; r < n; r++) {
        const int64_t tok = q0 + (row + r) / f->group, h = head * f->group + (row + r) % f->group;
        row_out((void *)elem(f->out, tok * f->out.stride[0] + h * f->out.stride[1]), is_bf16, o + r * f->v_pad, f->dv, sum[r]);
        if (!tensor_none(f->lse)) ((float *)f->lse.data)[tok * f->lse.stride[0] + h] = top[r] + logf(sum[r]);
    }
}

void ISA_NAME(attention)(struct device *dev, struct tensor out, struct tensor lse, struct tensor q, struct tensor k, struct tensor v,
                         const struct attention *a)
{
    const int64_t n_kv = k.shape[1], n_panel = k.shape[0] / PANEL_N + a->n_seg;
    struct flat f = {
        out, lse, q, k, v, a, .dp = ATTN_DP && q.dtype == DT_BF16, .group = q.shape[1] / n_kv, .dk = q.shape[2], .dv = v.shape[2]};
    f.k_words = words_x(f.dk, f.dp);
    f.v_pad = cols_pad(f.dv);
    f.keys_head = n_panel * PANEL_N * f.k_words;
    f.values_head = n_panel * PANEL_N / (f.dp ? 2 : 1) * f.v_pad;
    f.keys = dev_scratch(dev, (size_t)(n_kv * f.keys_head) * 4);
    f.values = dev_scratch(dev, (size_t)(n_kv * f.values_head) * 4);
    f.work_bytes =
        (size_t)round_up((ATTN_ROWS * (ATTN_KEYS + f.v_pad + 2 + f.k_words + (f.dp ? ATTN_KEYS / 2 : 0)) + PANEL_N * f.k_words) * 4, 64);
    f.work = dev_scratch(dev, f.work_bytes * (size_t)dev->n_thread);
    if (dev->measuring) return;

    int64_t max_key = 0;
    double pairs = 0;
    for (int s = 0; s < a->n_seg; s++) {
        const int64_t n_key = a->k_start[s + 1] - a->k_start[s], n_q = a->q_start[s + 1] - a->q_start[s];
        max_key = n_key > max_key ? n_key : max_key;
        pairs += (double)n_q * ((double)n_key - 0.5 * (double)n_q);
    }
    const int team = cpu_team(dev, pairs * (double)q.shape[1] * (double)(f.dk + f.dv) * 2 / (6 * VL));
    const int64_t n_chunk = (max_key + ATTN_KEYS - 1) / ATTN_KEYS, n_block = ((int64_t)a->max_len * f.group + ATTN_ROWS - 1) / ATTN_ROWS;
#pragma omp parallel num_threads(team)
    {
        char *work = f.work + (size_t)omp_get_thread_num() * f.work_bytes;
#pragma omp for collapse(3) schedule(dynamic, 4)
        for (int s = 0; s < a->n_seg; s++)
            for (int64_t head = 0; head < n_kv; head++)
                for (int64_t c = 0; c < n_chunk; c++) {
                    const int64_t n_key = a->k_start[s + 1] - a->k_start[s], at = c * ATTN_KEYS;
                    if (at < n_key) pack_keys(&f, s, head, at, n_key - at < ATTN_KEYS ? n_key - at : ATTN_KEYS, (uint32_t *)work);
                }
#pragma omp for collapse(3) schedule(dynamic, 1)
        for (int64_t b = n_block - 1; b >= 0; b--) // the longest rows first: they end together
            for (int s = 0; s < a->n_seg; s++)
                for (int64_t head = 0; head < n_kv; head++) {
                    const int64_t n_row = (a->q_start[s + 1] - a->q_start[s]) * f.group, row = b * ATTN_ROWS;
                    if (row < n_row) attend(&f, s, head, row, n_row - row < ATTN_ROWS ? n_row - row : ATTN_ROWS, work);
                }
    }
}
