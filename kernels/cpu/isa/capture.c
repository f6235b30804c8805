// Keeping the teacher's distribution (top-k with tail and log Z, or unbiased draws), and drawing the next token. A row's result depends on
// its logits and its settings alone; sums run over blocks of columns in an order fixed by the size of the vocabulary.
#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/keys.h"
#include "kernels/rows/divergence.h"

static const float *logits_row(struct tensor logits, int64_t row)
{
    return (const float *)logits.data + row * logits.stride[0];
}

// lse[0] at T = 1, then those of `temperature`, which are also written to log_z.
static float row_log_z(float *log_z, double *lse, const float *z, int n, const float *temperature, int n_t)
{
    float inv_t[OP_TEMPERATURE_MAX + 1] = {1};
    for (int j = 0; j < n_t; j++) inv_t[j + 1] = 1.0f / temperature[j];
    int n_sum = n_t + 1;
    if (n_t == 1 && temperature[0] == 1) n_sum = 1; // the usual case: once is enough
    float max = row_logsumexp(z, n, n_sum, inv_t, lse);
    if (n_sum == 1 && n_t) lse[1] = lse[0];
    for (int j = 0; j < n_t; j++) log_z[j] = (float)lse[j + 1];
    return max;
}

void ISA_NAME(capture_topk)(struct device *dev, struct tensor ids, struct tensor logprob, struct tensor tail_logprob, struct tensor log_z,
                            struct tensor logits, int n_vocab, const float *temperature)
{
    int64_t n = logits.shape[0], room = 2 * (int64_t)n_vocab;
    int k = (int)ids.shape[1], n_t = (int)log_z.shape[1];
    uint64_t *keys = dev_scratch(dev, (size_t)(room * dev->n_thread) * sizeof *keys);
    if (dev->measuring) return;
    CPU_FOR(dev, (double)n * n_vocab * (1.0 + 0.5 * n_t), row, n, {
        uint64_t *key = keys + room * omp_get_thread_num();
        const float *z = logits_row(logits, row);
        int32_t *id = (int32_t *)ids.data + row * k;
        float *lp = (float *)logprob.data + row * k;
        double lse[OP_TEMPERATURE_MAX + 1];
        row_log_z((float *)log_z.data + row * n_t, lse, z, n_vocab, temperature, n_t);
        keys_top(key, z, n_vocab, k);
        for (int i = 0; i < k; i++) {
            id[i] = key_id(key[i]);
            lp[i] = (float)((double)z[id[i]] - lse[0]);
        }
        // As the student's tail is computed: equal distributions then give equal tails.
        ((float *)tail_logprob.data)[row] = k < n_vocab ? row_log_rest(logf(row_sumexp(lp, k, 0, 1))) : -INFINITY;
    });
}

// ---- drawing ----------------------------------------------------------------------------------------------------------------------------

// exp((z - m) / T) of a block of columns, 0 below `least`.
VEC_FN void block_weights(float *w, const float *z, int n, float m, float inv_t, float least)
{
    for (int i = 0; i < n; i += VL) {
        int c = n - i < VL ? n - i : VL;
        vf_store(w + i, vf_exp((vf_load_n(z + i, c) - vf_set1(m)) * vf_set1(inv_t)));
    }
    for (int i = 0; i < n; i++) w[i] = w[i] >= least ? w[i] : 0; // also for NaN
}
static double block_sum(float *w, int n)
{
    double s[8] = {0};
    for (int i = n; i < n + 8; i++) w[i] = 0; // there is room
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++) s[j] += (double)w[i + j];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

// The sums of all blocks; returns their sum.
static double all_blocks(double *sum, const float *z, int n, float m, float inv_t, float least)
{
    float w[SOFTMAX_BLOCK + 16];
    double total = 0;
    for (int b = 0, at = 0; at < n; b++, at += SOFTMAX_BLOCK) {
        int len = n - at < SOFTMAX_BLOCK ? n - at : SOFTMAX_BLOCK;
        block_weights(w, z + at, len, m, inv_t, least);
        sum[b] = block_sum(w, len);
        total += sum[b];
    }
    return total;
}

// Walks the cumulative sum over ids. Targets must come in rising order; each call goes on where the last one stopped.
struct walk {
    const float *z;
    const double *sum; // of the blocks
    int n, block;      // the block in w
    float m, inv_t, least;
    double before; // the sum of the blocks before it
    float w[SOFTMAX_BLOCK + 16];
};
static void walk_load(struct walk *s)
{
    int at = s->block * SOFTMAX_BLOCK, len = s->n - at < SOFTMAX_BLOCK ? s->n - at : SOFTMAX_BLOCK;
    block_weights(s->w, s->z + at, len, s->m, s->inv_t, s->least);
}
static int walk_to(struct walk *s, double target)
{
    int last_block = (s->n - 1) / SOFTMAX_BLOCK, old = s->block;
    while (s->block < last_block && s->before + s->sum[s->block] <= target) s->before += s->sum[s->block++];
    if (s->block != old) walk_load(s);
    int at = s->block * SOFTMAX_BLOCK, len = s->n - at < SOFTMAX_BLOCK ? s->n - at : SOFTMAX_BLOCK, last = 0;
    double c = s->before;
    for (int i = 0; i < len; i++) {
        if (s->w[i] == 0) continue;
        last = i;
        c += (double)s->w[i];
        if (c > target) break;
    }
    return at + last; // rounding at the very end: the last id with any weight
}

static int sample_all(double *sum, const float *z, int n, float m, float inv_t, float min_p, double u)
{
    struct walk s = {.z = z, .sum = sum, .n = n, .m = m, .inv_t = inv_t, .least = min_p};
    double total = all_blocks(sum, z, n, m, inv_t, min_p);
    walk_load(&s);
    return walk_to(&s, u * total);
}

// The candidates of top-k: the k best, and what ties with the last of them, as transformers keeps. Sorted; returns how many.
static int top_k_set(uint64_t *key, const float *z, int n, int k)
{
    keys_top(key, z, n, k);
    int last = key_id(key[k - 1]), n_key = k;
    float least = z[last];
    for (int i = last + 1; i < n; i++)
        if (z[i] == least) key[n_key++] = key_of(z[i], (uint32_t)i); // ids above the last one's: still sorted
    return n_key;
}

// exp((z - m) / T) of sorted candidates
static void key_weights(float *w, const uint64_t *key, int n_key, const float *z, float m, float inv_t)
{
    for (int i = 0; i < n_key; i++) w[i] = z[key_id(key[i])];
    block_weights(w, w, n_key, m, inv_t, 0);
}

static int sample_filtered(uint64_t *key, double *sum, const float *z, int n, float m, float inv_t, const struct sample_row *r, double u)
{
    int n_key = n < 64 ? n : 64, kept;
    double total = 0, mass;
    bool top_k = r->top_k > 0 && r->top_k < n;
    float *w = (float *)(key + n); // the sort's second half, free after it
    if (top_k) {
        n_key = top_k_set(key, z, n, r->top_k);
    } else {
        total = all_blocks(sum, z, n, m, inv_t, 0);
        keys_top(key, z, n, n_key);
    }
    for (;;) {
        key_weights(w, key, n_key, z, m, inv_t);
        for (int i = 0; i < n_key && top_k; i++) total += (double)w[i];
        mass = 0;
        for (kept = 0; kept < n_key; kept++) {
            if (kept && ((r->top_p < 1 && mass >= (double)r->top_p * total) || w[kept] < r->min_p)) break;
            mass += (double)w[kept];
        }
        if (kept < n_key || top_k || n_key == n) break;
        n_key = n_key * 16 < n ? n_key * 16 : n; // the set reaches beyond the candidates
        keys_top(key, z, n, n_key);
    }
    double c = 0;
    for (int i = 0; i < kept; i++) {
        c += (double)w[i];
        if (c > u * mass) return key_id(key[i]);
    }
    return key_id(key[kept - 1]);
}

static int sample_one(uint64_t *key, double *sum, const float *z, int n, const struct sample_row *r)
{
    float m = row_max(z, n);
    if (!(m > -INFINITY)) return 0; // all NaN or -inf
    if (r->temperature <= 0) {
        for (int i = 0; i < n; i++)
            if (z[i] == m) return i;
    }
    float inv_t = 1.0f / r->temperature;
    double u = row_uniform(r);
    if (r->top_p >= 1 && (r->top_k <= 0 || r->top_k >= n)) return sample_all(sum, z, n, m, inv_t, r->min_p, u);
    return sample_filtered(key, sum, z, n, m, inv_t, r, u);
}

// A thread's room: keys of a row twice (and a vector more, for the weights that overwrite the second), then the sums of its blocks.
static size_t room_bytes(int n_vocab)
{
    return ((2 * (size_t)n_vocab + 8) * sizeof(uint64_t) + (size_t)(n_vocab / SOFTMAX_BLOCK + 1) * sizeof(double) + 63) / 64 * 64;
}

void ISA_NAME(sample)(struct device *dev, struct tensor out, struct tensor logits, int n_vocab, const struct sample_row *row)
{
    int64_t n = logits.shape[0];
    size_t each = room_bytes(n_vocab);
    char *room = dev_scratch(dev, each * (size_t)dev->n_thread);
    if (dev->measuring) return;
    CPU_FOR(dev, (double)n * n_vocab * 1.5, i, n, {
        uint64_t *key = (uint64_t *)(room + each * (size_t)omp_get_thread_num());
        ((int32_t *)out.data)[i] = sample_one(key, (double *)(key + 2 * n_vocab + 8), logits_row(logits, i), n_vocab, &row[i]);
    });
}

void ISA_NAME(capture_sampled)(struct device *dev, struct tensor ids, struct tensor count, struct tensor log_z, struct tensor logits,
                               int n_vocab, const float *temperature, const struct sample_row *row)
{
    int64_t n = logits.shape[0];
    int n_draw = (int)ids.shape[1], n_t = (int)log_z.shape[1];
    size_t n_sum = (size_t)(n_vocab / SOFTMAX_BLOCK + 1), each = (((size_t)n_draw + n_sum) * sizeof(double) + 63) / 64 * 64;
    char *room = dev_scratch(dev, each * (size_t)dev->n_thread);
    if (dev->measuring) return;
    CPU_FOR(dev, (double)n * n_vocab * (2.0 + 0.5 * n_t), r, n, {
        double *u = (double *)(room + each * (size_t)omp_get_thread_num()), *sum = u + n_draw, lse[OP_TEMPERATURE_MAX + 1];
        const float *z = logits_row(logits, r);
        int32_t *id = (int32_t *)ids.data + r * n_draw, *c = (int32_t *)count.data + r * n_draw;
        struct walk s = {.z = z, .sum = sum, .n = n_vocab, .inv_t = 1};
        s.m = row_log_z((float *)log_z.data + r * n_t, lse, z, n_vocab, temperature, n_t);
        double total = all_blocks(sum, z, n_vocab, s.m, 1, 0);
        for (int i = 0; i < n_draw; i++) {
            double v = row_capture_uniform(&row[r], n_draw, i) * total;
            int j = i;
            for (; j > 0 && u[j - 1] > v; j--) u[j] = u[j - 1];
            u[j] = v;
        }
        walk_load(&s);
        int n_id = 0;
        for (int i = 0; i < n_draw; i++) {
            int drawn = walk_to(&s, u[i]);
            if (n_id && id[n_id - 1] == drawn) {
                c[n_id - 1]++;
            } else {
                id[n_id] = drawn;
                c[n_id++] = 1;
            }
        }
        for (int i = n_id; i < n_draw; i++) {
            id[i] = -1;
            c[i] = 0;
        }
    });
}
