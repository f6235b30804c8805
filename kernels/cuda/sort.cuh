// A stable sort by keys of at most SORT_BINS values: counting, without atomics and without the host. A block takes a tile of SORT_TILE
// items, each of its warps a run of them; a warp looks at 32 items at once, and each lane learns from __match_any_sync which others have
// its key: how many stand before it is its rank. One tile is sorted by one launch (decode); several by three: counts of each tile, where
// each bin of each tile begins, placing.
//
// Key is a struct with int operator()(int64_t i), Emit one with void operator()(int64_t i, int at): item i stands at `at` once sorted.
#pragma once
#include "kernels/cuda/ptx.cuh"

enum { SORT_THREADS = 256, SORT_WARPS = SORT_THREADS / 32, SORT_EACH = 8, SORT_TILE = SORT_THREADS * SORT_EACH, SORT_BINS = 1024 };

// What the block's threads brought, summed over those before this one. room: 33 values; *total is the sum of all.
__device__ __forceinline__ int sort_before(int v, smem<int> room, int *total)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warp = blockDim.x / 32;
    int sum = v;
    for (int by = 1; by < 32; by *= 2) {
        const int o = __shfl_up_sync(0xffffffffu, sum, by);
        if (lane >= by) sum += o;
    }
    if (lane == 31) room[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        int w = lane < n_warp ? (int)room[lane] : 0;
        for (int by = 1; by < 32; by *= 2) {
            const int o = __shfl_up_sync(0xffffffffu, w, by);
            if (lane >= by) w += o;
        }
        __syncwarp();
        room[lane] = w;
    }
    __syncthreads();
    *total = room[n_warp - 1];
    return sum - v + (warp ? (int)room[warp - 1] : 0);
}

// count[w * n_bin + k]: how many of warp w's run have key k.
template <class Key> __device__ __forceinline__ void sort_count_runs(smem<int> count, Key key, int64_t tile, int64_t n, int n_bin)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t run = tile * SORT_TILE + warp * SORT_EACH * 32;
    const smem<int> mine = count + warp * n_bin;
    for (int k = lane; k < n_bin; k += 32) mine[k] = 0;
    __syncwarp();
    for (int j = 0; j < SORT_EACH; j++) {
        const int64_t i = run + j * 32 + lane;
        const int k = i < n ? key(i) : -1;
        const unsigned same = __match_any_sync(0xffffffffu, k);
        if (k >= 0 && !(same & ((1u << lane) - 1))) mine[k] = mine[k] + __popc(same);
        __syncwarp();
    }
}
// count: where the next item of warp w with key k goes.
template <class Key, class Emit>
__device__ __forceinline__ void sort_place_runs(smem<int> count, Key key, Emit emit, int64_t tile, int64_t n, int n_bin)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t run = tile * SORT_TILE + warp * SORT_EACH * 32;
    const smem<int> mine = count + warp * n_bin;
    for (int j = 0; j < SORT_EACH; j++) {
        const int64_t i = run + j * 32 + lane;
        const int k = i < n ? key(i) : -1;
        const unsigned same = __match_any_sync(0xffffffffu, k), before = same & ((1u << lane) - 1);
        const int at = k >= 0 ? (int)mine[k] : 0;
        __syncwarp();
        if (k >= 0) {
            emit(i, at + __popc(before));
            if (!before) mine[k] = at + __popc(same);
        }
        __syncwarp();
    }
}
// A bin of the tile begins at `at`: so do the runs of the warps in it, one after the other.
__device__ __forceinline__ int sort_spread(smem<int> count, int k, int n_bin, int at)
{
    for (int w = 0; w < SORT_WARPS; w++) {
        const int c = count[w * n_bin + k];
        count[w * n_bin + k] = at;
        at += c;
    }
    return at;
}

// All in one block. first: NULL, or where each bin begins and, at n_bin, n.
template <class Key, class Emit> __global__ void sort_tile_kernel(Key key, Emit emit, int32_t *first, int64_t n, int n_bin)
{
    cu_wait_earlier();
    enum { MOST = SORT_BINS / SORT_THREADS };
    CU_SHARED(int, room, 33);
    CU_SHARED_DYNAMIC(memory);
    const smem<int> count = memory.as<int>();
    sort_count_runs(count, key, 0, n, n_bin);
    __syncthreads();
    const int each = (n_bin + SORT_THREADS - 1) / SORT_THREADS, begin = threadIdx.x * each;
    int sum = 0, total;
    for (int k = begin; k < begin + each && k < n_bin; k++)
        for (int w = 0; w < SORT_WARPS; w++) sum += count[w * n_bin + k];
    int at = sort_before(sum, room, &total);
    for (int k = begin; k < begin + each && k < n_bin; k++) {
        if (first) first[k] = at;
        at = sort_spread(count, k, n_bin, at);
    }
    if (first && threadIdx.x == 0) first[n_bin] = total;
    __syncthreads();
    sort_place_runs(count, key, emit, 0, n, n_bin);
}
// count (tiles, n_bin)
template <class Key> __global__ void sort_count_kernel(Key key, int *count, int64_t n, int n_bin)
{
    CU_SHARED_DYNAMIC(memory);
    const smem<int> runs = memory.as<int>();
    sort_count_runs(runs, key, blockIdx.x, n, n_bin);
    __syncthreads();
    for (int k = threadIdx.x; k < n_bin; k += SORT_THREADS) {
        int sum = 0;
        for (int w = 0; w < SORT_WARPS; w++) sum += runs[w * n_bin + k];
        count[(int64_t)blockIdx.x * n_bin + k] = sum;
    }
}
// One block, a thread a bin. begin (tiles, n_bin): where the tile's items of each bin go.
static __global__ void __launch_bounds__(SORT_BINS)
    sort_scan_kernel(int *__restrict__ begin, int32_t *first, const int *__restrict__ count, int n_tile, int n_bin)
{
    CU_SHARED(int, room, 33);
    const int k = threadIdx.x;
    int sum = 0, total;
    if (k < n_bin)
        for (int64_t t = 0; t < n_tile; t++) sum += count[t * n_bin + k];
    int at = sort_before(sum, room, &total);
    if (first && k < n_bin) first[k] = at;
    if (first && k == 0) first[n_bin] = total;
    if (k < n_bin)
        for (int64_t t = 0; t < n_tile; t++) {
            begin[t * n_bin + k] = at;
            at += count[t * n_bin + k];
        }
}
template <class Key, class Emit> __global__ void sort_place_kernel(Key key, Emit emit, const int *begin, int64_t n, int n_bin)
{
    CU_SHARED_DYNAMIC(memory);
    const smem<int> count = memory.as<int>();
    sort_count_runs(count, key, blockIdx.x, n, n_bin);
    __syncthreads();
    for (int k = threadIdx.x; k < n_bin; k += SORT_THREADS) sort_spread(count, k, n_bin, begin[(int64_t)blockIdx.x * n_bin + k]);
    __syncthreads();
    sort_place_runs(count, key, emit, blockIdx.x, n, n_bin);
}

// Of n items by keys of n_bin values; n may be 0. scratch: sort_scratch(n, n_bin) bytes.
static inline int64_t sort_tiles(int64_t n)
{
    return (n + SORT_TILE - 1) / SORT_TILE;
}
static inline size_t sort_scratch(int64_t n, int n_bin)
{
    return n <= SORT_TILE ? 0 : 2 * (size_t)sort_tiles(n) * (size_t)n_bin * sizeof(int);
}
template <class Key, class Emit>
static void sort_stable(struct device *dev, Key key, Emit emit, int32_t *first, int64_t n, int n_bin, void *scratch)
{
    const size_t shared = SORT_WARPS * (size_t)n_bin * sizeof(int);
    if (n <= SORT_TILE) {
        CU_LAUNCH_EARLY(dev, (sort_tile_kernel<Key, Emit>), 1, SORT_THREADS, shared, key, emit, first, n, n_bin);
        return;
    }
    const int64_t n_tile = sort_tiles(n);
    int *count = (int *)scratch, *begin = count + n_tile * n_bin;
    CU_LAUNCH(dev, (sort_count_kernel<Key>), (unsigned)n_tile, SORT_THREADS, shared, key, count, n, n_bin);
    CU_LAUNCH(dev, sort_scan_kernel, 1, (unsigned)(n_bin + 31) / 32 * 32, 0, begin, first, count, (int)n_tile, n_bin);
    CU_LAUNCH(dev, (sort_place_kernel<Key, Emit>), (unsigned)n_tile, SORT_THREADS, shared, key, emit, begin, n, n_bin);
}
