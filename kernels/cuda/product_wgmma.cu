// The experts' products on sm_90: a warpgroup's instructions that multiply from shared memory, the only ones that reach the tensor
// cores' rate. Many rows an expert: bound by it; few: by the weights' bytes.
//
// All row counts go through here, as sums by wgmma and by mma.sync need not have the same bits: k in its order, 16 at a time, one sum an
// output, at every tile. A block is persistent: one warpgroup fills a ring of 192 KiB by cp.async, one or two multiply, and they meet at
// mbarriers only, so that the next tile's values come in while the last one's results go out. (The copy engine would want a tensor map an
// expert, and where an expert's weights are stands in the device's memory; 16-byte copies ask for nothing, end rows anywhere, and cost the
// filling warps a quarter of the time that the tensor cores take.) Weights are the 64 rows of an instruction, rows of x its columns:
//   8 rows of x by 64 of weights, 21 steps of 9 KiB: at least 10 of them, 80 KiB of weights, on their way
//   32 by 128, two warpgroups
//   128 by 256, two warpgroups with two products each: 48 KiB for 2^21 FMAs, what L2 can bring
// and in FP8 128 by 128, two warpgroups, 32 KiB for 2^21 FMAs at twice the rate. These instructions' sums keep about 14 bits, so each block
// of 128 along k, one step, is a sum of its own, added in f32 with its scales while the other group multiplies (as DeepGEMM does it). That
// is less exact than our other FP8 kernels, and not their bits: it is taken only where dev->batch_invariant is off.
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/ring.cuh"

template <bool FP8_, int BM_, int GROUPS_, int TILES_> struct wgmma_shape {
    typedef typename product_values<FP8_>::T T;
    enum {
        FP8 = FP8_,
        EACH = product_values<FP8_>::N,
        BM = BM_,
        GROUPS = GROUPS_, // that multiply
        TILES = TILES_,   // of 64 weight rows, each group's
        BN = 64 * TILES * GROUPS,
        BK = 8 * EACH,
        THREADS = 128 * (GROUPS + 1),
        STAGE = (BN + BM) * 128, // bytes; weights, then x
        STAGES = (192 << 10) / STAGE,
        OUT_ROWS = BM < 32 ? BM : 32,           // rows that leave at once
        PITCH = 64 + 4,                         // no two lanes of a store in one bank
        OUT = OUT_ROWS * PITCH * 4,             // bytes, a group's
        SCALES = STAGE * STAGES + OUT * GROUPS, // of x's rows, a step's after the other
        BARRIERS = SCALES + (FP8_ ? BM * 4 * STAGES : 0),
        PLAN = BARRIERS + 16 * STAGES,
    };
};
template <class S>
__device__ __forceinline__ void wgmma_fill(const struct product &p, smem<unsigned char> room, smem<int> begin, int64_t n_item)
{
    typedef typename S::T T;
    enum { STAGES = S::STAGES, ROWS = 16 }; // rows that the 128 threads copy 128 bytes of at once
    const smem<uint64_t> full = room.as<uint64_t>(S::BARRIERS), empty = full + STAGES;
    const int tid = threadIdx.x % 128, piece = tid % 8, row = tid / 8;
    const int n_step = (int)((p.k + S::BK - 1) / S::BK);
    struct ring_place at = {0, 0};
    for (int64_t item = blockIdx.x; item < n_item; item += gridDim.x) {
        const struct product_spot s = product_spot_of(p, begin, item, S::BM, S::BN);
        const T *w = product_w<T>(p, s) + s.col * p.w_row + S::EACH * piece, *x = product_x<T>(p, s) + S::EACH * piece;
        const int n_w = p.n - s.col < S::BN ? (int)(p.n - s.col) : (int)S::BN;
        for (int step = 0; step < n_step; step++) {
            cu_mbarrier_wait(empty.raw(at.slot), at.parity ^ 1);
            const smem<unsigned char> stage = room + at.slot * S::STAGE;
            const int64_t k = (int64_t)step * S::BK;
            const bool inside = k + S::EACH * piece < p.k;
            // Rolled, with pointers that walk: 24 of them would not fit the registers of a group that fills.
            const T *from = w + row * p.w_row + k;
#pragma unroll 4
            for (int r = row; r < S::BN; r += ROWS, from += ROWS * p.w_row) {
                const bool valid = inside && r < n_w;
                cu_async_copy16(stage.raw(r * 128 + (piece ^ r % 8) * 16), valid ? from : (const T *)p.x, valid);
            }
            from = x + row * p.x_row + k;
#pragma unroll 4
            for (int r = row; r < S::BM; r += ROWS, from += ROWS * p.x_row) {
                const bool valid = inside && r < s.n_row;
                cu_async_copy16(stage.raw((S::BN + r) * 128 + (piece ^ r % 8) * 16), valid ? from : (const T *)p.x, valid);
            }
            if (S::FP8)
                for (int r = tid; r < S::BM; r += 128) {
                    const bool valid = r < s.n_row;
                    cu_async_copy4(room.raw(S::SCALES + (at.slot * S::BM + r) * 4), product_x_scale(p, s) + step * p.m + (valid ? r : 0),
                                   valid);
                }
            cu_async_arrive(full.raw(at.slot));
            ring_next<STAGES>(&at);
        }
    }
}

// Sums of a group's 64 columns from `col` on, all rows, to out: through shared memory, so that rows are written along.
template <class S>
__device__ __forceinline__ void wgmma_store(const struct product &p, const struct product_spot &s, smem<float> out, const float *sum,
                                            int col, int barrier)
{
    const int tid = threadIdx.x % 128, warp = tid / 32, g = tid % 32 / 4, t = tid % 4;
#pragma unroll
    for (int first = 0; first < S::BM; first += S::OUT_ROWS) {
        cu_barrier(barrier, 128); // what stood there is read
#pragma unroll
        for (int j = 0; j < S::OUT_ROWS / 8; j++)
            for (int h = 0; h < 4; h++) out[(8 * j + 2 * t + h % 2) * S::PITCH + 16 * warp + g + h / 2 * 8] = sum[4 * (first / 8 + j) + h];
        cu_barrier(barrier, 128);
        for (int i = tid; i < S::OUT_ROWS * 16 && first + i / 16 < s.n_row; i += 128) {
            const cu_vec<float, 4> v = out.as<cu_vec<float, 4>>()[(i / 16 * S::PITCH + i % 16 * 4) / 4];
            product_put<4>(p, s, first + i / 16, col + i % 16 * 4, v.v, 0);
        }
    }
}

// sum = all of k for one tile.
template <class S>
__device__ __forceinline__ void wgmma_steps(smem<unsigned char> room, int n_step, float sum[S::TILES][S::BM / 2], struct ring_place *at)
{
    const smem<uint64_t> full = room.as<uint64_t>(S::BARRIERS), empty = full + S::STAGES;
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
    int before = 0;
    for (int step = 0; step < n_step; step++) {
        const smem<unsigned char> stage = room + at->slot * S::STAGE;
        const uint64_t w = cu_wgmma_tile(stage.raw(group * S::TILES * 64 * 128)), x = cu_wgmma_tile(stage.raw(S::BN * 128));
        cu_mbarrier_wait(full.raw(at->slot), at->parity);
        cu_async_fence(); // the copies are not wgmma's own way to shared memory
        cu_wgmma_begin();
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int i = 0; i < S::TILES; i++)
                cu_wgmma<S::BM>(sum[i], cu_wgmma_on(w, 64 * 128 * i + 32 * j), cu_wgmma_on(x, 32 * j), step || j);
        cu_wgmma_commit();
        cu_wgmma_wait<1>(); // the step before is multiplied: its place is free
        if (step && threadIdx.x % 32 == 0) cu_mbarrier_arrive(empty.raw(before));
        before = at->slot;
        ring_next<S::STAGES>(at);
    }
    cu_wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < S::TILES; i++) cu_wgmma_hold<S::BM / 2>(sum[i]);
    if (threadIdx.x % 32 == 0) cu_mbarrier_arrive(empty.raw(before));
}
// The same in FP8; w_scale: the tile's, a step's after the other.
template <class S>
__device__ __forceinline__ void wgmma_steps_fp8(const struct product &p, smem<unsigned char> room, const float *w_scale, float *sum,
                                                struct ring_place *at)
{
    static_assert((int)S::BN == (int)CHUNK_UNIT && (int)S::BK == (int)CHUNK_UNIT && S::TILES == 1 && S::BM == 128,
                  "a step has one scale of weights");
    const smem<uint64_t> full = room.as<uint64_t>(S::BARRIERS), empty = full + S::STAGES;
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < S::BM / 2; i++) sum[i] = 0;
    float ws = w_scale[0];
    for (int step = 0; step < p.n_block; step++) {
        float block[S::BM / 2], by[S::BM / 4]; // of the lane's columns
        const smem<unsigned char> stage = room + at->slot * S::STAGE;
        const uint64_t w = cu_wgmma_tile(stage.raw(group * 64 * 128)), x = cu_wgmma_tile(stage.raw(S::BN * 128));
        const smem<cu_vec<float, 2>> xs = room.as<cu_vec<float, 2>>(S::SCALES + at->slot * S::BM * 4);
        cu_mbarrier_wait(full.raw(at->slot), at->parity);
        cu_async_fence(); // the copies are not wgmma's own way to shared memory
        cu_wgmma_begin();
#pragma unroll
        for (int j = 0; j < 4; j++) cu_wgmma_e4m3(block, cu_wgmma_on(w, 32 * j), cu_wgmma_on(x, 32 * j), j);
        cu_wgmma_commit();
        const float next = w_scale[step + 1 < p.n_block ? step + 1 : step];
#pragma unroll
        for (int j = 0; j < S::BM / 8; j++) {
            const cu_vec<float, 2> v = xs[4 * j + t];
            by[2 * j] = v.v[0] * ws, by[2 * j + 1] = v.v[1] * ws;
        }
        cu_wgmma_wait<0>();
        cu_wgmma_hold<S::BM / 2>(block);
        __syncwarp(); // the scales are read
        if (threadIdx.x % 32 == 0) cu_mbarrier_arrive(empty.raw(at->slot));
#pragma unroll
        for (int i = 0; i < S::BM / 2; i++) sum[i] = fmaf(block[i], by[i / 4 * 2 + i % 2], sum[i]);
        ws = next;
        ring_next<S::STAGES>(at);
    }
}

template <class S>
__device__ __forceinline__ void wgmma_multiply(const struct product &p, smem<unsigned char> room, smem<int> begin, int64_t n_item)
{
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
    const smem<float> out = room.as<float>(S::STAGE * S::STAGES + group * S::OUT);
    const int n_step = (int)((p.k + S::BK - 1) / S::BK);
    struct ring_place at = {0, 0};
    for (int64_t item = blockIdx.x; item < n_item; item += gridDim.x) {
        float sum[S::TILES][S::BM / 2];
        if constexpr (S::FP8)
            wgmma_steps_fp8<S>(p, room, product_w_scale(p, product_spot_of(p, begin, item, S::BM, S::BN)), sum[0], &at);
        else
            wgmma_steps<S>(room, n_step, sum, &at);
        const struct product_spot s = product_spot_of(p, begin, item, S::BM, S::BN);
#pragma unroll
        for (int i = 0; i < S::TILES; i++) wgmma_store<S>(p, s, out, sum[i], (group * S::TILES + i) * 64, 1 + group);
    }
}

template <class S> __global__ void __launch_bounds__(S::THREADS, 1) wgmma_kernel(const struct product p)
{
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    cu_wait_earlier();
    CU_SHARED_DYNAMIC(room);
    const smem<int> begin = room.as<int>(S::PLAN);
    const smem<uint64_t> full = room.as<uint64_t>(S::BARRIERS);
    if (threadIdx.x < 2 * S::STAGES) cu_mbarrier_init(full.raw(threadIdx.x), threadIdx.x < S::STAGES ? 128 : 4 * S::GROUPS);
    const int64_t n_item = product_plan(p, begin, S::BM, S::BN);
    __syncthreads();
    if (threadIdx.x / 128 == S::GROUPS) {
        if (S::BM > 32) cu_registers_fewer<72>();
        wgmma_fill<S>(p, room, begin, n_item);
    } else {
        if (S::BM > 32) cu_registers_more<216>();
        wgmma_multiply<S>(p, room, begin, n_item);
    }
#else
    __trap(); // product_run takes it on sm_90 alone, whose code is built for sm_90a
#endif
}

template <bool FP8, int BM, int GROUPS, int TILES> static void wgmma(struct device *dev, const struct product *p)
{
    typedef wgmma_shape<FP8, BM, GROUPS, TILES> S;
    const int64_t n_tile = product_tiles(p, S::BM, S::BN), n_sm = cuda_of(dev)->n_sm;
    CU_LAUNCH_EARLY(dev, wgmma_kernel<S>, (unsigned)(n_tile < n_sm ? n_tile : n_sm), (unsigned)S::THREADS, S::PLAN + product_plan_bytes(p),
                    *p);
}
void product_wgmma(struct device *dev, const struct product *p)
{
    const int64_t rows = p->m / p->n_product; // of an expert, on average
    if (p->x_scale)
        wgmma<true, 128, 2, 1>(dev, p);
    else if (rows <= 8)
        wgmma<false, 8, 1, 1>(dev, p);
    else if (rows <= 40)
        wgmma<false, 32, 2, 1>(dev, p);
    else
        wgmma<false, 128, 2, 2>(dev, p);
}
