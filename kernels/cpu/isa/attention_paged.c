// Attention over the paged cache (decode), and the cache's reading and writing. Each row (token) and head of keys is worked on alone:
// blocks of ATTN_KEYS positions from 0 are fetched from their pages into the forms tile.h wants, for all heads of the group at once, with
// an online softmax; every ATTN_SPLIT positions the sums start anew and are merged in order. So a row's bits depend on its position and
// keys only, and long contexts can be shared out among threads by splits where rows are few.
#include "kernels/cpu/isa/attn.h"

enum { ATTN_SPLIT = 8 * ATTN_KEYS };

struct paged {
    struct tensor out, q, keys, values;
    const struct segments *seg;
    float scale;
    int window;
    bool dp;
    int64_t group, dk, dv, k_words, v_pad;
    int64_t state_words; // of one row and head of keys: sums (group, v_pad), then top and sum (group)
};
struct state {
    float *o, *top, *sum;
};

static struct state state_at(const struct paged *p, float *base)
{
    return (struct state){base, base + p->group * p->v_pad, base + p->group * (p->v_pad + 1)};
}
static int64_t segment_of(const struct segments *seg, int64_t row)
{
    int64_t lo = 0, hi = seg->n_seg;
    while (hi - lo > 1) {
        const int64_t mid = (lo + hi) / 2;
        if (seg->start[mid] <= row)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}
static const char *slot_of(struct tensor pages, const struct segments *seg, int64_t s, int64_t pos, int64_t head)
{
    const int64_t page = seg->page[s * seg->max_page + pos / seg->page_len];
    return elem(pages, page * pages.stride[0] + pos % seg->page_len * pages.stride[1] + head * pages.stride[2]);
}

// Where the rows of n positions from pos on lie, of one head.
static void rows_of(struct tensor pages, const struct segments *seg, int64_t s, int64_t head, int64_t pos, int64_t n, const char **row)
{
    const int32_t *page = seg->page + s * seg->max_page + pos / seg->page_len;
    int64_t slot = pos % seg->page_len;
    for (int64_t i = 0; i < n; page++, slot = 0)
        for (; slot < seg->page_len && i < n; slot++, i++)
            row[i] = elem(pages, *page * pages.stride[0] + slot * pages.stride[1] + head * pages.stride[2]);
}
static inline void prefetch(const char *row, int64_t size_bytes)
{
    for (int64_t i = 0; i < size_bytes; i += 64) __builtin_prefetch(row + i);
}

// Positions [key + lo, key + n) of at most `end` into panels and w form; those before lo are zeros, and w form has none before lo's pair.
static void fetch(const struct paged *p, int64_t s, int64_t head, int64_t key, int64_t lo, int64_t n, int64_t end, uint32_t *panels,
                  uint32_t *values, uint32_t *tmp)
{
    const bool is_bf16 = p->q.dtype == DT_BF16;
    const int64_t step = p->dp ? 2 : 1, known = end - key < ATTN_KEYS + PANEL_N ? end - key : ATTN_KEYS + PANEL_N, size = is_bf16 ? 2 : 4;
    const char *k[ATTN_KEYS + PANEL_N], *v[ATTN_KEYS];
    rows_of(p->keys, p->seg, s, head, key + lo, known - lo, k + lo);
    rows_of(p->values, p->seg, s, head, key + lo, n - lo, v + lo);
    for (int64_t at = 0; at < n; at += PANEL_N) {
        const int64_t rows = n - at < PANEL_N ? n - at : PANEL_N;
        for (int64_t r = at; r < at + rows; r++) {
            if (r < lo) {
                memset(tmp + (r - at) * p->k_words, 0, (size_t)p->k_words * 4);
                continue;
            }
            // Pages lie anywhere: what comes next is asked for by hand.
            if (r + PANEL_N < known) prefetch(k[r + PANEL_N], p->dk * size);
            prefetch(v[r], p->dv * size);
            row_x(tmp + (r - at) * p->k_words, k[r], is_bf16, p->dk, p->dp);
        }
        panel_of(panels + at * p->k_words, tmp, p->k_words, rows, p->k_words);
    }
    for (int64_t r = lo / step * step; r < n; r += step) // a hidden row's partner may be any: its weight is 0
        row_w(values + r / step * PANEL_N, ATTN_KEYS / step * PANEL_N, v[r < lo ? lo : r], r + 1 < n ? v[r + 1] : NULL, is_bf16, p->dv,
              p->dp);
}

// The positions of one split a row sees, summed into st from nothing.
static __attribute__((noinline)) void attend_split(const struct paged *p, int64_t row, int64_t head, int64_t split, struct state st,
                                                   char *work)
{
    const bool is_bf16 = p->q.dtype == DT_BF16;
    const int64_t s = segment_of(p->seg, row), pos = p->seg->pos[row],
                  first = p->window && pos - p->window + 1 > 0 ? pos - p->window + 1 : 0;
    const int64_t step = p->dp ? 2 : 1, p_words = words_x(ATTN_KEYS, p->dp);
    uint32_t *panels = (uint32_t *)work, *values = panels + ATTN_KEYS * p->k_words, *tmp = values + ATTN_KEYS / step * p->v_pad,
             *q = tmp + PANEL_N * p->k_words, *prob = q + p->group * p->k_words;
    float *score = (float *)(p->dp ? prob + TILE_M * p_words : prob);
    for (int64_t h = 0; h < p->group; h++) {
        row_x(q + h * p->k_words, elem(p->q, row * p->q.stride[0] + (head * p->group + h) * p->q.stride[1]), is_bf16, p->dk, p->dp);
        st.top[h] = -INFINITY;
        st.sum[h] = 0;
    }
    memset(st.o, 0, (size_t)(p->group * p->v_pad) * 4);
    for (int64_t key = split * ATTN_SPLIT; key < (split + 1) * ATTN_SPLIT && key <= pos; key += ATTN_KEYS) {
        const int64_t n = pos + 1 - key < ATTN_KEYS ? pos + 1 - key : ATTN_KEYS, lo = first > key ? first - key : 0, end = round_up(n, 2);
        if (lo >= n) continue;
        fetch(p, s, head, key, lo, n, pos + 1, panels, values, tmp);
        const int64_t from = lo / step; // steps before it are all zeros, and not in `values`
        for (int64_t t = 0; t < p->group; t += TILE_M) {
            const int64_t rows = p->group - t < TILE_M ? p->group - t : TILE_M;
            attn_product(p->dp, rows, n, p->k_words, q + t * p->k_words, p->k_words * 4, 4, panels, PANEL_N * p->k_words, score, ATTN_KEYS,
                         false);
            for (int64_t r = 0; r < rows; r++) {
                float *sc = score + r * ATTN_KEYS, *top = &st.top[t + r];
                const float best = row_scale(sc, lo, n, p->scale), now = best > *top ? best : *top, keep = exp_f32(*top - now);
                const float more = row_exp(prob + r * p_words, sc, n, end, now, p->dp);
                if (keep != 1) row_times(st.o + (t + r) * p->v_pad, p->v_pad, keep);
                st.sum[t + r] = fma_f32(st.sum[t + r], keep, more);
                *top = now;
            }
            attn_product(p->dp, rows, p->dv, (n + step - 1) / step - from, prob + from, p_words * 4, 4, values + from * PANEL_N,
                         ATTN_KEYS / step * PANEL_N, st.o + t * p->v_pad, p->v_pad, true);
        }
    }
}

// a becomes the state of a's and b's keys together; b's come later.
static __attribute__((noinline)) void merge(const struct paged *p, struct state a, struct state b)
{
    for (int64_t h = 0; h < p->group; h++) {
        const float now = a.top[h] > b.top[h] ? a.top[h] : b.top[h];
        if (now == -INFINITY) continue;
        const float ka = exp_f32(a.top[h] - now), kb = exp_f32(b.top[h] - now);
        for (int64_t j = 0; j < p->v_pad; j += VL) {
            float *o = a.o + h * p->v_pad + j;
            vf_store(o, vf_fma(vf_load(b.o + h * p->v_pad + j), vf_set1(kb), vf_load(o) * vf_set1(ka)));
        }
        a.sum[h] = fma_f32(b.sum[h], kb, a.sum[h] * ka);
        a.top[h] = now;
    }
}
static void finish(const struct paged *p, int64_t row, int64_t head, struct state st)
{
    for (int64_t h = 0; h < p->group; h++)
        row_out((void *)elem(p->out, row * p->out.stride[0] + (head * p->group + h) * p->out.stride[1]), p->q.dtype == DT_BF16,
                st.o + h * p->v_pad, p->dv, st.sum[h]);
}
static int64_t split_first(const struct paged *p, int64_t row)
{
    const int64_t pos = p->seg->pos[row];
    return p->window && pos - p->window + 1 > 0 ? (pos - p->window + 1) / ATTN_SPLIT : 0;
}

void ISA_NAME(attention_paged)(struct device *dev, struct tensor out, struct tensor q, struct tensor keys, struct tensor values,
                               const struct segments *seg, float scale, int window)
{
    struct paged p = {
        out, q, keys, values, seg, scale, window, .dp = ATTN_DP && q.dtype == DT_BF16, .dk = q.shape[2], .dv = values.shape[3]};
    const int64_t n_kv = keys.shape[2], n_tok = q.shape[0], max_split = ((int64_t)seg->max_pos + ATTN_SPLIT - 1) / ATTN_SPLIT,
                  step = p.dp ? 2 : 1;
    p.group = q.shape[1] / n_kv;
    p.k_words = words_x(p.dk, p.dp);
    p.v_pad = cols_pad(p.dv);
    p.state_words = round_up(p.group * (p.v_pad + 2), 16);
    // Too few rows to occupy the threads: the splits of a row go to different threads, their states to `parts`. The scratch is that of the
    // most rows this happens for, so that a plan made for many rows holds for few.
    const int64_t few = (dev->n_thread - 1) / n_kv;
    float *parts = dev_scratch(dev, (size_t)((few < n_tok ? few : n_tok) * n_kv * max_split * p.state_words) * 4);
    const size_t work_bytes = (size_t)round_up((ATTN_KEYS * p.k_words + ATTN_KEYS / step * p.v_pad + PANEL_N * p.k_words +
                                                p.group * p.k_words + TILE_M * (ATTN_KEYS + words_x(ATTN_KEYS, p.dp))) *
                                                       4 +
                                                   2 * p.state_words * 4,
                                               64);
    char *all = dev_scratch(dev, work_bytes * (size_t)dev->n_thread);
    if (dev->measuring) return;

    double pairs = 0;
    for (int64_t r = 0; r < n_tok; r++) pairs += seg->pos[r] + 1;
    const int team = cpu_team(dev, pairs * (double)n_kv * (double)(p.group + 2) * (double)(p.dk + p.dv) * 2 / (6 * VL));
    const bool by_split = n_tok <= few && team > 1 && max_split > 1;
#pragma omp parallel num_threads(team)
    {
        char *work = all + (size_t)omp_get_thread_num() * work_bytes;
        const struct state one = state_at(&p, (float *)work), two = state_at(&p, (float *)work + p.state_words);
        work += 2 * p.state_words * 4;
        if (by_split) {
#pragma omp for collapse(3) schedule(dynamic, 1)
            for (int64_t row = 0; row < n_tok; row++)
                for (int64_t head = 0; head < n_kv; head++)
                    for (int64_t i = 0; i < max_split; i++)
                        if (i >= split_first(&p, row) && i * ATTN_SPLIT <= seg->pos[row])
                            attend_split(&p, row, head, i, state_at(&p, parts + ((row * n_kv + head) * max_split + i) * p.state_words),
                                         work);
        }
#pragma omp for collapse(2) schedule(dynamic, 1)
        for (int64_t row = 0; row < n_tok; row++)
            for (int64_t head = 0; head < n_kv; head++) {
                struct state sum = one;
                for (int64_t i = split_first(&p, row); i * ATTN_SPLIT <= seg->pos[row]; i++) {
                    struct state part = i == split_first(&p, row) ? one : two;
                    if (by_split)
                        part = state_at(&p, parts + ((row * n_kv + head) * max_split + i) * p.state_words);
                    else
                        attend_split(&p, row, head, i, part, work);
                    if (i == split_first(&p, row))
                        sum = part;
                    else
                        merge(&p, sum, part);
                }
                finish(&p, row, head, sum);
            }
    }
}

void ISA_NAME(kv_write)(struct device *dev, struct tensor pages, struct tensor x, const struct segments *seg)
{
    const int64_t n_kv = x.shape[1], d = x.shape[2], size = (int64_t)dtype_size(x.dtype);
#pragma omp parallel for schedule(static) num_threads(cpu_team(dev, (double)(x.shape[0] * n_kv * d) * 0.2))
    for (int64_t row = 0; row < x.shape[0]; row++) {
        const int64_t s = segment_of(seg, row);
        for (int64_t h = 0; h < n_kv; h++)
            memcpy((void *)slot_of(pages, seg, s, seg->pos[row], h), (const char *)x.data + (row * x.stride[0] + h * x.stride[1]) * size,
                   (size_t)(d * size));
    }
}

void ISA_NAME(kv_read)(struct device *dev, struct tensor out, struct tensor pages, const struct segments *seg, const int32_t *k_start)
{
    const int64_t n_kv = pages.shape[2], d = pages.shape[3], size = (int64_t)dtype_size(out.dtype);
#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_team(dev, (double)(out.shape[0] * n_kv * d) * 0.2))
    for (int s = 0; s < seg->n_seg; s++)
        for (int64_t pos = 0; pos < seg->max_pos; pos++) {
            if (pos >= k_start[s + 1] - k_start[s]) continue;
            for (int64_t h = 0; h < n_kv; h++)
                memcpy((char *)out.data + ((k_start[s] + pos) * out.stride[0] + h * out.stride[1]) * size, slot_of(pages, seg, s, pos, h),
                       (size_t)(d * size));
        }
}
