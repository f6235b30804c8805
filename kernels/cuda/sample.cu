// The next token: temperature, then top-k, top-p and min-p as transformers filters, or greedy.
//
// Bound by one read of the logits (vocab.cuh); then a block a row. Without top-k and top-p the token is found by id, along the chunks'
// sums. With them the head of the row's order is sorted (top.cuh): the k best, or 128 and, if the mass asked for is not among them, 1,024.
// Sets beyond that are rare, and are never sorted: logits of one value weigh the same, so that a place along the order is a value, found by
// fixing two bits of it in each pass over the row, and a count of ties.
#include "kernels/cuda/draw.cuh"
#include "kernels/cuda/top.cuh"

struct sampler {
    struct vocab v;
    int64_t row;
    const float *z;
    struct sample_row s;
    float most, inv_t;
    double u; // uniform
    bool top_k;
    smem<double> room; // 192
    smem<int> room_i;  // 192
};

// 0 below `least`, and for NaN
__device__ __forceinline__ float weight(const struct sampler &p, float z, float least)
{
    const float w = expf((z - p.most) * p.inv_t);
    return w >= least ? w : 0.0f;
}
// The smallest of the threads' numbers.
__device__ __forceinline__ int least_of(const struct sampler &p, int i)
{
    return cu_block_reduce(i, cu_min(), INT32_MAX, p.room_i);
}

__device__ static int sample_greedy(const struct sampler &p)
{
    int found = INT32_MAX;
    for (int c = threadIdx.x; c < p.v.n_chunk; c += blockDim.x)
        if (p.v.chunk_max[p.row * p.v.n_chunk + c] == p.most) found = min(found, c);
    const int chunk = least_of(p, found);
    found = INT32_MAX;
    for (int i = chunk * VOCAB_CHUNK + (int)threadIdx.x; i < min(p.v.n, (chunk + 1) * VOCAB_CHUNK); i += blockDim.x)
        if (p.z[i] == p.most) found = min(found, i);
    return least_of(p, found);
}

// By id among those that min-p keeps. They stand in few groups: only those are looked into.
__device__ static int sample_min_p(const struct sampler &p)
{
    const float *group = p.v.group_max + p.row * p.v.n_group, least = p.s.min_p * (1 - 1e-5f); // exp may fail to rise by an ulp
    const struct top_share s = top_share_of(p.v.n_group);
    double sum = 0;
    int found = INT32_MAX;
    for (int g = s.first; g < s.end; g++) {
        if (weight(p, group[g], least) == 0) continue;
        for (int i = g * VOCAB_GROUP; i < min(p.v.n, (g + 1) * VOCAB_GROUP); i++) sum += (double)weight(p, p.z[i], p.s.min_p);
    }
    const double end = top_scan(sum, p.room), target = p.u * cu_block_reduce(sum, cu_add(), 0.0, p.room);
    const int me = (int)threadIdx.x, first = least_of(p, end > target && sum > 0 ? me : INT32_MAX);
    const int last = -least_of(p, sum > 0 ? -me : INT32_MAX), owner = first == INT32_MAX ? last : first; // rounding at the very end
    if (me == owner) {
        double at = end - sum;
        for (int g = s.first; g < s.end && at <= target; g++) {
            if (weight(p, group[g], least) == 0) continue;
            for (int i = g * VOCAB_GROUP; i < min(p.v.n, (g + 1) * VOCAB_GROUP) && at <= target; i++) {
                const float w = weight(p, p.z[i], p.s.min_p);
                if (w > 0) found = i;
                at += (double)w;
            }
        }
    }
    found = least_of(p, found);
    return found == INT32_MAX ? sample_greedy(p) : found; // min-p above 1
}

// From a sorted head of the row: the token, or -1 if the set that is kept reaches beyond it. all: nothing that may be kept does.
__device__ static int sample_head(const struct sampler &p, smem<uint64_t> key, smem<double> end, int n, bool all, double total)
{
    const struct top_share s = top_share_of(n);
    double sum = 0;
    for (int i = s.first; i < s.end; i++) sum += (double)weight(p, p.z[top_id(key[i])], 0);
    double at = top_scan(sum, p.room) - sum;
    if (p.top_k) total = cu_block_reduce(sum, cu_add(), 0.0, p.room);
    int kept = n;
    for (int i = s.first; i < s.end; i++) {
        const float w = weight(p, p.z[top_id(key[i])], 0);
        if (i && ((p.s.top_p < 1 && at >= (double)p.s.top_p * total) || w < p.s.min_p)) {
            kept = i;
            break;
        }
        at += (double)w;
        end[i] = at;
    }
    kept = least_of(p, kept); // and a barrier: `end` is everyone's
    if (kept == n && !all) return -1;
    const double target = p.u * end[kept - 1];
    int pick = kept - 1;
    for (int i = s.first; i < min(s.end, kept); i++)
        if (end[i] > target) {
            pick = min(pick, i);
            break;
        }
    return top_id(key[least_of(p, pick)]);
}

// Of the logits whose order is below / at `order`: the mass (of weights of at least `least`) / how many.
struct sample_class {
    double before;
    int n;
    float w; // of each
};
__device__ static struct sample_class class_of(const struct sampler &p, unsigned order, float least)
{
    double before = 0;
    int n = 0;
    for (int i = threadIdx.x; i < p.v.n; i += blockDim.x) {
        const unsigned o = row_order(p.z[i]);
        if (o < order) before += (double)weight(p, p.z[i], least);
        n += o == order;
    }
    before = cu_block_reduce(before, cu_add(), 0.0, p.room);
    n = cu_block_reduce(n, cu_add(), 0, p.room_i);
    return {before, n, weight(p, top_logit(order), least)};
}
__device__ static unsigned order_at(const struct sampler &p, double target, bool above, float least)
{
    return top_bound(
        p.v.n,
        [&](int i) {
            return top_item<double>{row_order(p.z[i]), (double)weight(p, p.z[i], least)};
        },
        [&](double sum) { return above ? sum > target : sum >= target && sum > 0; }, -1.0, p.room);
}
// The j-th of the ids, from 0, whose logit has this order.
__device__ static int id_of_tie(const struct sampler &p, unsigned order, int j)
{
    const struct top_share s = top_share_of(p.v.n);
    int n = 0, found = INT32_MAX;
    for (int i = s.first; i < s.end; i++) n += row_order(p.z[i]) == order;
    int at = top_scan(n, p.room_i) - n;
    for (int i = s.first; i < s.end; i++)
        if (row_order(p.z[i]) == order && at++ == j) found = i;
    return least_of(p, found);
}
__device__ static int clamp_to(double x, int lo, int hi)
{
    return !(x > lo) ? lo : x < hi ? (int)x : hi;
}
// Sets of any size, without sorting.
__device__ static int sample_wide(const struct sampler &p, double total)
{
    unsigned cut = UINT32_MAX; // the order of the last that is kept
    if (p.top_k) {
        const double k = (double)p.s.top_k;
        cut = top_bound(
            p.v.n,
            [&](int i) {
                return top_item<double>{row_order(p.z[i]), 1.0};
            },
            [&](double n) { return n >= k; }, -1.0, p.room);
        const struct sample_class last = class_of(p, cut, 0);
        total = last.before + last.n * (double)last.w;
    }
    const double enough = (double)p.s.top_p * total;
    if (p.s.top_p < 1) cut = min(cut, order_at(p, enough, false, 0));
    const struct sample_class c = class_of(p, cut, 0);
    const int n_cut = p.s.top_p < 1 ? clamp_to(ceil((enough - c.before) / (double)c.w), 1, c.n) : c.n;
    const struct sample_class kept = class_of(p, cut, p.s.min_p);
    const double target = p.u * (kept.before + n_cut * (double)kept.w);
    const unsigned pick = min(cut, order_at(p, target, true, p.s.min_p));
    const struct sample_class t = class_of(p, pick, p.s.min_p);
    const int most = (pick == cut ? n_cut : t.n) - 1, j = clamp_to((target - t.before) / (double)t.w, 0, most);
    const int found = t.w > 0 ? id_of_tie(p, pick, j) : INT32_MAX;
    return found == INT32_MAX ? sample_greedy(p) : found; // nothing of weight
}

__global__ void __launch_bounds__(VOCAB_THREADS_MAX, 1)
    sample_kernel(int32_t *out, const __grid_constant__ struct vocab v, const struct sample_row *settings)
{
    cu_wait_earlier();
    CU_SHARED(uint64_t, key, TOP_ROOM);
    CU_SHARED(double, end, TOP_ROOM);
    CU_SHARED(double, room, 192);
    CU_SHARED(float, room_f, 32);
    CU_SHARED(int, room_i, 192);
    CU_SHARED(int, count, 1);
    struct sampler p = {v, (int64_t)blockIdx.x, v.z + (int64_t)blockIdx.x * v.stride, settings[blockIdx.x], 0, 0, 0, false, room, room_i};
    p.most = vocab_max(v, p.row, room_f);
    p.top_k = p.s.top_k > 0 && p.s.top_k < v.n;
    int found = 0; // all NaN or -inf
    if (p.most > -INFINITY && p.s.temperature <= 0) {
        found = sample_greedy(p);
    } else if (p.most > -INFINITY) {
        p.inv_t = 1.0f / p.s.temperature;
        p.u = row_uniform(&p.s);
        if (p.s.top_p < 1 || p.top_k) {
            const double total = vocab_sum(v, p.row, 0, p.inv_t, p.most, room);
            found = -1;
            for (int k = p.top_k ? p.s.top_k : 128; found < 0 && k <= TOP_MAX; k *= 8) {
                int n = top_gather(key, v, p.row, k, room_i, count);
                if (n < 0) break;
                if (p.top_k) { // ties with the k-th stay
                    int rest = n;
                    for (int i = k + (int)threadIdx.x; i < n; i += blockDim.x)
                        if (key[i] >> 32 != key[k - 1] >> 32) rest = min(rest, i);
                    n = least_of(p, rest);
                }
                found = sample_head(p, key, end, n, p.top_k || n == v.n, total);
            }
            if (found < 0) found = sample_wide(p, total);
        } else if (p.s.min_p > 0) {
            found = sample_min_p(p);
        } else if (threadIdx.x < 32) {
            found = draw_token(v, p.row, 0, p.inv_t, p.most, p.u * draw_total(v, p.row, 0, p.inv_t, p.most));
        }
    }
    if (threadIdx.x == 0) out[p.row] = found;
}

extern "C" void cuda_sample(struct device *dev, struct tensor out, struct tensor logits, int n_vocab, const struct sample_row *row)
{
    struct vocab v;
    const struct vocab_rows rows = {logits.shape[0], NULL, row};
    vocab_read(dev, &v, logits, n_vocab, &rows, 1, NULL, true);
    if (!dev->measuring) CU_LAUNCH_EARLY(dev, sample_kernel, (unsigned)rows.n, vocab_row_threads(n_vocab), 0, (int32_t *)out.data, v, row);
}
