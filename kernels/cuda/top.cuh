// A block and its row of logits: the k best of them, and places along a cumulative sum. All threads of the block call these together.
//
// Nothing is sorted that need not be: a bound is found that k groups reach (vocab.cuh), by fixing two bits of it in each pass over the
// groups' largest; what reaches it is gathered, a few more than k logits, and only these are sorted. Keys differ, so whatever order the
// gathering has, the sorted order is one.
#pragma once
#include "kernels/cuda/vocab.cuh"

enum { TOP_ROOM = 2048, TOP_MAX = 1024 }; // sorted in shared memory at once; largest k that is tried so: ties and skew need space

__device__ __forceinline__ uint64_t top_key(float z, int id)
{
    return (uint64_t)row_order(z) << 32 | (unsigned)id;
}
__device__ __forceinline__ int top_id(uint64_t key)
{
    return (int)(unsigned)key;
}
__device__ __forceinline__ float top_logit(unsigned order) // of which it is the order; UINT32_MAX: NaN
{
    return __uint_as_float(order & 0x80000000u ? order : ~order & 0x7fffffffu);
}
// The sum of v over this thread and those before it.
template <class V> __device__ __forceinline__ V top_scan(V v, smem<V> room)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int by = 1; by < 32; by *= 2) {
        const V left = __shfl_up_sync(0xffffffffu, v, (unsigned)by);
        if (lane >= by) v += left;
    }
    __syncthreads();
    if (lane == 31) room[warp] = v;
    __syncthreads();
    V before = 0;
    for (int w = 0; w < warp; w++) before += room[w];
    return before + v;
}
// Items in a row, split among the threads in their order.
struct top_share {
    int first, end;
};
__device__ __forceinline__ struct top_share top_share_of(int n)
{
    const int each = (n + (int)blockDim.x - 1) / (int)blockDim.x, first = min(n, (int)threadIdx.x * each);
    return {first, min(n, first + each)};
}

// ---- bounds -----------------------------------------------------------------------------------------------------------------------------

template <class V> struct top_item {
    unsigned order;
    V value;
};
// The smallest order P such that enough(sum of the values of items with order ≤ P); UINT32_MAX if there is none. Of n items item(i).
// At a P whose sum is enough and at most `most`, the search ends early. room: 192 values.
template <class V, class Item, class Enough>
__device__ __forceinline__ unsigned top_bound(int n, Item item, Enough enough, V most, smem<V> room)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warp = blockDim.x / 32;
    unsigned found = 0;
    __syncthreads();
    for (int shift = 30; shift >= 0; shift -= 2) {
        const unsigned step = 1u << shift,
                       low = found | (step - 1); // bounds low, low + step, low + 2 step; low + 3 step is the last resort
        V sum[3] = {0, 0, 0};
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            const top_item<V> it = item(i);
            for (int b = 0; b < 3; b++) sum[b] += it.order <= low + (unsigned)b * step ? it.value : (V)0;
        }
        const smem<V> mine = room + shift / 2 % 2 * 96; // two by turns: one barrier a pass
        for (int b = 0; b < 3; b++) {
            sum[b] = cu_warp_reduce(sum[b], cu_add());
            if (lane == 0) mine[b * 32 + warp] = sum[b];
        }
        __syncthreads();
        V all[3];
        for (int b = 0; b < 3; b++) all[b] = cu_warp_reduce(lane < n_warp ? (V)mine[b * 32 + lane] : (V)0, cu_add());
        const unsigned take = enough(all[0]) ? 0 : enough(all[1]) ? 1 : enough(all[2]) ? 2 : 3;
        const V taken = take == 0 ? all[0] : take == 1 ? all[1] : all[2];
        if (take < 3 && taken <= most) return low + take * step;
        found |= take * step;
    }
    return found;
}

// ---- the best, sorted -------------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void top_sort(smem<uint64_t> key, int n) // n a power of two: bitonic
{
    for (int size = 2; size <= n; size *= 2)
        for (int by = size / 2; by > 0; by /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
                const int lo = (i / by * 2) * by + i % by, hi = lo + by;
                const uint64_t a = key[lo], b = key[hi];
                if ((a > b) == ((lo & size) == 0)) {
                    key[lo] = b;
                    key[hi] = a;
                }
            }
        }
    __syncthreads();
}
// Sorts keys [0, n) of a room that holds the next power of two.
__device__ __forceinline__ void top_sort_padded(smem<uint64_t> key, int n)
{
    int size = 2;
    while (size < n) size *= 2;
    for (int i = n + (int)threadIdx.x; i < size; i += blockDim.x) key[i] = UINT64_MAX;
    top_sort(key, size);
}
// Gathers a head of the row's order, at least its k best and all that tie with the last of these, sorted, into key (TOP_ROOM); returns how
// many, or -1 if they do not fit. room: 192 ints; count: 1.
__device__ __forceinline__ int top_gather(smem<uint64_t> key, const struct vocab &v, int64_t row, int k, smem<int> room, smem<int> count)
{
    const float *z = v.z + row * v.stride, *group = v.group_max + row * v.n_group;
    const unsigned bound = k >= v.n_group ? UINT32_MAX
                                          : top_bound(
                                                v.n_group,
                                                [&](int i) {
                                                    return top_item<int>{row_order(group[i]), 1};
                                                },
                                                [&](int sum) { return sum >= k; }, k + k / 4 + 8, room);
    __syncthreads(); // the keys may still be read from a gathering before
    if (threadIdx.x == 0) count[0] = 0;
    __syncthreads();
    for (int g = threadIdx.x; g < v.n_group; g += blockDim.x) {
        if (row_order(group[g]) > bound) continue;
        for (int i = g * VOCAB_GROUP; i < g * VOCAB_GROUP + VOCAB_GROUP && i < v.n; i++) {
            if (row_order(z[i]) > bound) continue;
            const int at = atomicAdd(count.raw(), 1);
            if (at < TOP_ROOM) key[at] = top_key(z[i], i);
        }
    }
    __syncthreads();
    const int n = count[0];
    if (n > TOP_ROOM) return -1;
    top_sort_padded(key, n);
    return n;
}

// ---- many, in memory of the device ------------------------------------------------------------------------------------------------------

// Sorts n ids by order(id), ties as they stand: stable passes over four bits each, of `bits` bits; a thread counts and moves its own share,
// so that no order is left to chance. An even number of passes ends in `id`, an odd one in `other`. room: 16 ints a thread.
enum { TOP_DIGIT = 16 };
template <class Order>
__device__ __forceinline__ void top_radix_sort(int32_t *id, int32_t *other, int n, int bits, Order order, smem<int> room,
                                               smem<int> scan_room)
{
    const int threads = (int)blockDim.x, me = (int)threadIdx.x;
    const struct top_share s = top_share_of(n);
    for (int shift = 0; shift < bits; shift += 4) {
        for (int d = 0; d < TOP_DIGIT; d++) room[d * threads + me] = 0;
        for (int i = s.first; i < s.end; i++) room[(int)(order(id[i]) >> shift & 15) * threads + me] += 1;
        __syncthreads();
        int sum = 0; // counters in the order of digits, then threads: 16 in a row to a thread
        for (int j = 0; j < TOP_DIGIT; j++) sum += room[me * TOP_DIGIT + j];
        int at = top_scan(sum, scan_room) - sum;
        for (int j = 0; j < TOP_DIGIT; j++) {
            const int c = room[me * TOP_DIGIT + j];
            room[me * TOP_DIGIT + j] = at;
            at += c;
        }
        __syncthreads();
        for (int i = s.first; i < s.end; i++) {
            const int d = (int)(order(id[i]) >> shift & 15) * threads + me, to = room[d];
            room[d] = to + 1;
            other[to] = id[i];
        }
        __syncthreads();
        int32_t *t = id;
        id = other;
        other = t;
    }
}
