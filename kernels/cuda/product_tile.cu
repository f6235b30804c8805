// Products with many rows (prefill, experts of a large batch): bound by the tensor cores from a few hundred rows on, below by the weights.
//
// A block of 8 warps makes a tile of 128 weight rows by 128 or 64 rows of x, k in steps of 128 bytes through a ring of shared memory that
// cp.async fills two or three steps ahead (96 KiB: what every GPU from sm_80 on has), in FP8 with its scales. A warp holds 64 x 32 or 32 x
// 32 sums in registers, and the chunks' total beside them. Fragments are read in 16-byte pieces (product_mma), as many bytes as by
// ldmatrix; piece c of row r lies at c ^ 4 (r % 2), so that the 8 lanes that read together, 4 pieces of 2 rows, find 8 different banks of
// 16 bytes.
//
// Where tiles are too few for the multiprocessors (decode of 17 to some hundred rows), each chunk of k is a block of its own: its sums go
// to scratch, which stays in L2, and sum_kernel adds them in the order that one block would.
#include "kernels/cuda/product.cuh"

template <int BM> struct tile_shape {
    enum {
        BN = 128,
        PIECES = 8, // of a row, in a step
        THREADS = 256,
        WARPS_N = BM == 128 ? 2 : 4,
        WARPS_M = 8 / WARPS_N,
        NN = BN / WARPS_N / 16, // of a warp: 16 weight rows each
        NM = BM / WARPS_M / 8,  // 8 rows of x each
        STAGES = BM == 128 ? 3 : 4,
        STAGE = (BN + BM) * PIECES * 16, // bytes
        LOADS = (BN + BM) * PIECES / THREADS,
        PITCH = BN + 4, // of the sums on their way out: no two lanes in one bank
    };
};
static_assert((int)tile_shape<128>::PITCH * 128 * 4 <= (int)tile_shape<128>::STAGE * (int)tile_shape<128>::STAGES, "sums fit the ring");
static_assert((int)tile_shape<64>::PITCH * 64 * 4 <= (int)tile_shape<64>::STAGE * (int)tile_shape<64>::STAGES, "sums fit the ring");

__device__ __forceinline__ int tile_piece(int row, int piece) // where it lies in a stage
{
    return row * 8 + (piece ^ (row & 1) << 2);
}

// Where the plan of the experts' tiles begins: behind the ring and, in FP8, a step's scales in each of its places.
template <int BM, bool FP8> __host__ __device__ constexpr int tile_plan()
{
    return tile_shape<BM>::STAGE * tile_shape<BM>::STAGES + (FP8 ? tile_shape<BM>::STAGES * (BM + 4) * 4 : 0);
}

// What a warp multiplies in one step of the ring.
template <int BM>
__device__ __forceinline__ void tile_step(float sum[tile_shape<BM>::NN][tile_shape<BM>::NM][4], smem<uint4> stage, int row_n, int row_m,
                                          int t)
{
    typedef tile_shape<BM> S;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        uint4 a[S::NN][2], b[S::NM];
        for (int i = 0; i < S::NN; i++)
            for (int h = 0; h < 2; h++) a[i][h] = stage[tile_piece(row_n + 16 * i + 8 * h, 4 * j + t)];
        for (int i = 0; i < S::NM; i++) b[i] = stage[tile_piece(S::BN + row_m + 8 * i, 4 * j + t)];
        product_mma<false, S::NN, S::NM>(sum, a, b);
    }
}
// In FP8 a step is a block: its sums, times their scales (x's rows', then the weights'), are added.
template <int BM>
__device__ __forceinline__ void tile_step_fp8(float sum[tile_shape<BM>::NN][tile_shape<BM>::NM][4], smem<uint4> stage, smem<float> scale,
                                              int row_n, int row_m, int t)
{
    typedef tile_shape<BM> S;
    float block[S::NN][S::NM][4] = {};
#pragma unroll 1
    for (int j = 0; j < 2; j++) {
        uint4 a[S::NN][2], b[S::NM];
        for (int i = 0; i < S::NN; i++)
            for (int h = 0; h < 2; h++) a[i][h] = stage[tile_piece(row_n + 16 * i + 8 * h, 4 * j + t)];
        for (int i = 0; i < S::NM; i++) b[i] = stage[tile_piece(S::BN + row_m + 8 * i, 4 * j + t)];
        product_mma<true, S::NN, S::NM>(block, a, b);
    }
    const float ws = scale[BM];
    for (int m = 0; m < S::NM; m++) {
        const cu_vec<float, 2> xs = scale.as<cu_vec<float, 2>>()[row_m / 8 * 4 + 4 * m + t];
        for (int i = 0; i < S::NN; i++)
            for (int h = 0; h < 4; h++) sum[i][m][h] = product_scaled(block[i][m][h], xs.v[h % 2], ws, sum[i][m][h]);
    }
}

// ONE: a chunk of k a block, whose sums go to p.part. Narrow tiles have registers for two blocks a multiprocessor, but in FP8 with three
// sums, so that one block's barriers and conversions hide behind the other's copies (some pointers are spilled for it: read once a step).
template <int BM, bool FP8, bool ONE>
__global__ void __launch_bounds__(256, BM == 64 && (ONE || !FP8) ? 2 : 1) tile_kernel(const struct product p)
{
    cu_wait_earlier();
    typedef tile_shape<BM> S;
    typedef typename product_values<FP8>::T T;
    enum { EACH = product_values<FP8>::N, BK = S::PIECES * EACH };
    static_assert(!FP8 || (int)BK == (int)CHUNK_UNIT, "a step is a block with its scales");
    if (ONE ? p.first || !p.part : p.part != NULL) return; // never, and the compiler shall know
    CU_SHARED_DYNAMIC(room);
    const smem<float> scales = room.as<float>(S::STAGE * S::STAGES); // of a step: x's rows', then the weights'
    const smem<int> begin = room.as<int>(tile_plan<BM, FP8>());
    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane / 4, t = lane % 4;
    const int row_n = warp / S::WARPS_M * (S::BN / S::WARPS_N) + g, row_m = warp % S::WARPS_M * (BM / S::WARPS_M) + g;
    const int64_t n_item = product_plan(p, begin, BM, S::BN);
    // chunks of this block: one, or all
    const int chunk = ONE ? (int)blockIdx.y : 0;
    const int k_begin = chunk * (int)p.chunk, k_end = ONE ? min(k_begin + (int)p.chunk, (int)p.k) : (int)p.k;
    const int n_step = (k_end - k_begin + BK - 1) / BK, chunk_steps = (int)p.chunk / BK;
    for (int64_t item = blockIdx.x; item < n_item; item += gridDim.x) {
        struct product_spot s = product_spot_of(p, begin, item, BM, S::BN);
        // This thread's pieces: one place along k, rows 32 apart; zeros beyond the last row.
        const int piece = tid % S::PIECES, row = tid / S::PIECES, n_w = p.n - s.col < S::BN ? (int)(p.n - s.col) : S::BN, n_x = s.n_row;
        const T *w = product_w<T>(p, s) + (s.col + row) * p.w_row + EACH * piece, *x = product_x<T>(p, s) + row * p.x_row + EACH * piece;
        // And its scale: of a row of x, or, one thread, of the weights.
        const float *scale = !FP8 ? NULL : tid < BM ? product_x_scale(p, s) + min(tid, n_x - 1) : product_w_scale(p, s);
        const int64_t scale_step = tid < BM ? p.m : 1;
        auto fill = [&](int step) {
            const int slot = step % S::STAGES, k = k_begin + step * BK;
            const bool inside = k + EACH * piece < k_end;
            for (int i = 0; i < S::LOADS; i++) {
                const bool of_w = 32 * i < S::BN;
                cu_async_copy16(room.raw(slot * S::STAGE + tile_piece(row + 32 * i, piece) * 16),
                                of_w ? w + (32 * i * p.w_row + k) : x + ((32 * i - S::BN) * p.x_row + k),
                                inside && (of_w ? row + 32 * i < n_w : row + 32 * i - S::BN < n_x));
            }
            if (FP8 && tid <= BM) cu_async_copy4(scales.raw(slot * (BM + 4) + tid), scale + (k_begin / CHUNK_UNIT + step) * scale_step);
        };
        __syncthreads(); // the ring is free: the tile before is stored
        for (int i = 0; i < S::STAGES - 1; i++) {
            if (i < n_step) fill(i);
            cu_async_commit();
        }
        float sum[S::NN][S::NM][4] = {}, total[S::NN][S::NM][4] = {};
        for (int step = 0; step < n_step; step++) {
            cu_async_wait<S::STAGES - 2>();
            __syncthreads();
            if (step + S::STAGES - 1 < n_step) fill(step + S::STAGES - 1);
            cu_async_commit();
            const smem<uint4> stage = room.as<uint4>(step % S::STAGES * S::STAGE);
            if constexpr (FP8)
                tile_step_fp8<BM>(sum, stage, scales + step % S::STAGES * (BM + 4), row_n, row_m, t);
            else
                tile_step<BM>(sum, stage, row_n, row_m, t);
            if (!ONE && ((step + 1) % chunk_steps == 0 || step + 1 == n_step))
                for (int i = 0; i < S::NN; i++)
                    for (int l = 0; l < S::NM; l++)
                        for (int h = 0; h < 4; h++) {
                            total[i][l][h] += sum[i][l][h];
                            sum[i][l][h] = 0;
                        }
        }
        // Through shared memory, so that rows of out are written along.
        const smem<float> sums = room.as<float>();
        cu_async_wait<0>();
        __syncthreads();
        s = product_spot_of(p, begin, item, BM, S::BN); // again: it would cost registers meanwhile
        for (int i = 0; i < S::NN; i++)
            for (int l = 0; l < S::NM; l++)
                for (int h = 0; h < 4; h++)
                    sums[(row_m - g + 8 * l + 2 * t + h % 2) * S::PITCH + row_n + 16 * i + h / 2 * 8] = ONE ? sum[i][l][h] : total[i][l][h];
        __syncthreads();
        for (int i = tid; i < s.n_row * (S::BN / 4); i += S::THREADS) {
            const int row = i / (S::BN / 4), at = i % (S::BN / 4) * 4;
            const cu_vec<float, 4> v = sums.as<cu_vec<float, 4>>()[(row * S::PITCH + at) / 4];
            product_put<4>(p, s, row, at, v.v, chunk);
        }
        if (ONE) return; // a tile a block
    }
}

bool product_tile_fits(const struct device *dev, const struct product *p)
{
    return (size_t)(p->x_scale ? tile_plan<64, true>() : tile_plan<128, false>()) + product_plan_bytes(p) <= cuda_of(dev)->shared_max;
}
template <int BM, bool FP8, bool ONE> static void tile(struct device *dev, const struct product *p)
{
    typedef tile_shape<BM> S;
    static_assert(tile_plan<64, false>() == tile_plan<128, false>(), "product_tile_fits");
    const size_t shared = tile_plan<BM, FP8>() + product_plan_bytes(p);
    const int64_t n_tile = product_tiles(p, BM, S::BN), most = cuda_of(dev)->n_sm * (shared <= cuda_of(dev)->shared_max / 2 ? 2 : 1);
    const dim3 grid((unsigned)(n_tile < most ? n_tile : most), ONE ? (unsigned)p->n_chunk : 1);
    CU_LAUNCH_EARLY(dev, (tile_kernel<BM, FP8, ONE>), grid, (unsigned)S::THREADS, shared, *p);
}
bool product_tile_wants_split(const struct device *dev, const struct product *p)
{
    return !p->first && p->n_chunk > 1 && product_tiles(p, 64, 128) < cuda_of(dev)->n_sm;
}
void product_tile(struct device *dev, const struct product *p)
{
    // FP8 holds three sums: narrow tiles. Experts: wide ones when they have them full on average.
    const bool wide = p->first ? p->m >= 96 * p->n_product : product_tiles(p, 128, 128) >= cuda_of(dev)->n_sm;
    if (p->x_scale && p->part)
        tile<64, true, true>(dev, p);
    else if (p->x_scale)
        tile<64, true, false>(dev, p);
    else if (p->part)
        tile<64, false, true>(dev, p);
    else if (wide)
        tile<128, false, false>(dev, p);
    else
        tile<64, false, false>(dev, p);
}
