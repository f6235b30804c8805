// Keeping the teacher's distribution while it generates: top-k with tail and log Z, or unbiased draws.
//
// Bound by one read of the logits (vocab.cuh), which a decode step has just written: mostly from the L2 cache. Then a block a row works on
// what that read left: chunks' sums, groups' largest. At batch 1 both launches are a few microseconds beside a step's milliseconds.
#include "kernels/cuda/draw.cuh"
#include "kernels/cuda/top.cuh"
#include "kernels/rows/divergence.h"

enum { SORT_ROOM = TOP_DIGIT * VOCAB_THREADS_MAX * (int)sizeof(int) }; // shared bytes; the keys of TOP_ROOM fit as well

// The k best of any number, exactly: the bound by looking at the whole row, what reaches it in the order of ids, sorted.
__device__ static void top_many(int32_t *id, int32_t *other, const float *z, int n, int k, smem<int> room, smem<int> scan_room)
{
    const unsigned bound = top_bound(
        n,
        [&](int i) {
            return top_item<int>{row_order(z[i]), 1};
        },
        [&](int sum) { return sum >= k; }, -1, room);
    __syncthreads();
    const struct top_share s = top_share_of(n);
    int n_less = 0, n_equal = 0;
    for (int i = s.first; i < s.end; i++) {
        n_less += row_order(z[i]) < bound;
        n_equal += row_order(z[i]) == bound;
    }
    const int less_end = top_scan(n_less, scan_room), equal_end = top_scan(n_equal, scan_room);
    __syncthreads();
    if (threadIdx.x == blockDim.x - 1) room[0] = k - less_end; // of equal ones so many, the lowest ids
    __syncthreads();
    const int n_tie = room[0];
    int equal = equal_end - n_equal, at = less_end - n_less + min(equal, n_tie);
    for (int i = s.first; i < s.end; i++) {
        const unsigned o = row_order(z[i]);
        if (o < bound || (o == bound && equal++ < n_tie)) id[at++] = i;
    }
    __syncthreads();
    top_radix_sort(
        id, other, k, 32, [&](int32_t i) { return row_order(z[i]); }, room, scan_room);
}

struct topk_args {
    struct vocab v;
    struct vocab_temperatures t;
    int k;
    int32_t *ids, *other; // other: (rows, k), scratch
    float *logprob, *tail, *log_z;
};
__global__ void __launch_bounds__(VOCAB_THREADS_MAX, 1) capture_topk_kernel(struct topk_args c)
{
    cu_wait_earlier();
    CU_SHARED_DYNAMIC(memory);
    CU_SHARED(double, room, 32);
    CU_SHARED(float, room_f, 32);
    CU_SHARED(int, room_i, 192);
    CU_SHARED(int, count, 1);
    const int64_t row = blockIdx.x;
    const float *z = c.v.z + row * c.v.stride, most = vocab_max(c.v, row, room_f);
    const double lse = vocab_log_zs(c.log_z, c.v, c.t, row, most, room);
    const smem<uint64_t> key = memory.as<uint64_t>();
    int32_t *id = c.ids + row * c.k;
    float *lp = c.logprob + row * c.k;
    if (c.k <= TOP_MAX && top_gather(key, c.v, row, c.k, room_i, count) >= 0) {
        for (int i = threadIdx.x; i < c.k; i += blockDim.x) id[i] = top_id(key[i]);
    } else {
        __syncthreads();
        top_many(id, c.other + row * c.k, z, c.v.n, c.k, memory.as<int>(), room_i);
    }
    double all = 0;
    for (int i = threadIdx.x; i < c.k; i += blockDim.x) {
        const float l = (float)((double)z[id[i]] - lse);
        lp[i] = l;
        all += (double)expf(l);
    }
    all = cu_block_reduce(all, cu_add(), 0.0, room);
    if (threadIdx.x == 0) c.tail[row] = c.k < c.v.n ? row_log_rest((float)log(all)) : -INFINITY; // as the student's: row_tail
}

extern "C" void cuda_capture_topk(struct device *dev, struct tensor ids, struct tensor logprob, struct tensor tail_logprob,
                                  struct tensor log_z, struct tensor logits, int n_vocab, const float *temperature)
{
    const int64_t n = logits.shape[0];
    struct topk_args c = {};
    c.k = (int)ids.shape[1];
    c.ids = (int32_t *)ids.data, c.logprob = (float *)logprob.data, c.tail = (float *)tail_logprob.data, c.log_z = (float *)log_z.data;
    c.t = vocab_temperatures_of(temperature, (int)log_z.shape[1]);
    c.other = (int32_t *)dev_scratch(dev, (size_t)(n * c.k) * sizeof *c.other);
    const struct vocab_rows rows = {n, NULL, NULL};
    vocab_read(dev, &c.v, logits, n_vocab, &rows, c.t.n_sum, c.t.inv_t, true);
    if (!dev->measuring) CU_LAUNCH_EARLY(dev, capture_topk_kernel, (unsigned)n, vocab_row_threads(n_vocab), SORT_ROOM, c);
}

// ---- draws: a warp each
// ---------------------------------------------------------------------------------------------------------------------

struct sampled_args {
    struct vocab v;
    struct vocab_temperatures t;
    int n_draw;
    int32_t *ids, *count, *drawn; // drawn: (rows, 2, n_draw), scratch
    float *log_z;
    const struct sample_row *settings;
};
__global__ void __launch_bounds__(VOCAB_THREADS_MAX, 1) capture_sampled_kernel(struct sampled_args c)
{
    cu_wait_earlier();
    CU_SHARED_DYNAMIC(memory);
    CU_SHARED(double, room, 32);
    CU_SHARED(float, room_f, 32);
    CU_SHARED(int, room_i, 32);
    const int64_t row = blockIdx.x;
    const int n = c.n_draw, warp = threadIdx.x / 32, n_warp = blockDim.x / 32;
    const float most = vocab_max(c.v, row, room_f);
    vocab_log_zs(c.log_z, c.v, c.t, row, most, room);
    int32_t *id = c.ids + row * n, *count = c.count + row * n, *drawn = c.drawn + row * 2 * n, *other = drawn + n;
    const double total = draw_total(c.v, row, 0, 1, most);
    for (int i = warp; i < n; i += n_warp) {
        const int found = draw_token(c.v, row, 0, 1, most, row_capture_uniform(&c.settings[row], n, i) * total);
        if (threadIdx.x % 32 == 0) drawn[i] = found;
    }
    __syncthreads();
    const int bits = 32 - __clz(c.v.n - 1); // of an id
    top_radix_sort(
        drawn, other, n, bits, [](int32_t i) { return (unsigned)i; }, memory.as<int>(), room_i);
    if ((bits + 3) / 4 % 2) drawn = other;
    // Runs of equal ids: where each begins, then how long it is.
    const struct top_share s = top_share_of(n);
    int n_head = 0;
    for (int i = s.first; i < s.end; i++) n_head += i == 0 || drawn[i] != drawn[i - 1];
    const int end = top_scan(n_head, room_i);
    int at = end - n_head;
    for (int i = s.first; i < s.end; i++) {
        if (i && drawn[i] == drawn[i - 1]) continue;
        id[at] = drawn[i];
        count[at++] = i;
    }
    __syncthreads();
    if (threadIdx.x == blockDim.x - 1) room_i[0] = end;
    __syncthreads();
    const int n_id = room_i[0];
    for (int first = 0; first < n; first += blockDim.x) {
        const int i = first + (int)threadIdx.x;
        const int length = i < n_id ? (i + 1 < n_id ? count[i + 1] : n) - count[i] : 0;
        __syncthreads(); // the next one's beginning has been read
        if (i >= n) continue;
        count[i] = length;
        if (i >= n_id) id[i] = -1;
    }
}

extern "C" void cuda_capture_sampled(struct device *dev, struct tensor ids, struct tensor count, struct tensor log_z, struct tensor logits,
                                     int n_vocab, const float *temperature, const struct sample_row *row)
{
    const int64_t n = logits.shape[0];
    struct sampled_args c = {};
    c.n_draw = (int)ids.shape[1];
    c.ids = (int32_t *)ids.data, c.count = (int32_t *)count.data, c.log_z = (float *)log_z.data;
    c.settings = row;
    c.t = vocab_temperatures_of(temperature, (int)log_z.shape[1]);
    c.drawn = (int32_t *)dev_scratch(dev, (size_t)(2 * n * c.n_draw) * sizeof *c.drawn);
    const struct vocab_rows rows = {n, NULL, NULL};
    vocab_read(dev, &c.v, logits, n_vocab, &rows, c.t.n_sum, c.t.inv_t, false);
    if (dev->measuring) return;
    const unsigned threads = vocab_row_threads(n_vocab);
    CU_LAUNCH_EARLY(dev, capture_sampled_kernel, (unsigned)n, threads, TOP_DIGIT * threads * sizeof(int), c);
}
