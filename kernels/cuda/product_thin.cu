// Products with few rows (decode): bound by reading the weights once, 2 n k bytes, n k in FP8; the tensor cores are idle most of the time.
//
// A tile is 16 or 32 weight rows by 8 or 16 rows of x; its block has a warp a chunk of k, so that the reading of one weight row is spread
// over up to 8 warps. Weights go from memory to registers in 16-byte pieces that are the fragments as they stand, or their e4m3
// (product_mma): 4 lanes read 64 neighbouring bytes, a warp has 4 KiB or more in flight (16 rows, 256 bytes along k of each), and the 16 to
// 24 warps of a multiprocessor three times what latency × bandwidth asks for. x comes from L1 and L2: at 8 rows half as many bytes as the
// weights, a quarter with 32 weight rows a tile, which is why large products take those. Shared memory only for the chunks' sums. A block
// that is placed early asks for its weights' first lines at once.
#include "kernels/cuda/product.cuh"

// The first 256 bytes of each of the warp's weight rows, while what makes x still runs: memory stays busy between products.
template <int BM, int BN, class T> __device__ __forceinline__ void thin_prefetch(const struct product &p, smem<int> begin)
{
    if (p.first) return; // whose rows they are is not known yet
    const struct product_spot s = product_spot_of(p, begin, blockIdx.x, BM, BN);
    const int64_t k = threadIdx.x / 32 * p.chunk + threadIdx.x % 2 * 128 / sizeof(T);
    for (int r = threadIdx.x % 32 / 2; r < BN; r += 16)
        if (s.col + r < p.n && k < p.k) cu_prefetch(product_w<T>(p, s) + (s.col + r) * p.w_row + k);
}

template <int NT, int MT, bool FP8>
__global__ void __launch_bounds__(32 * CHUNK_MAX, NT == 1 && !FP8 ? 3
                                                  : MT == 1       ? 2
                                                                  : 1) thin_kernel(const struct product p)
{
    typedef typename product_values<FP8>::T T;
    enum {
        BN = 16 * NT,
        BM = 8 * MT,
        PITCH = BN + 4, // no two lanes of a store in one bank
        EACH = product_values<FP8>::N,
        STEPS = CHUNK_UNIT / (4 * EACH),
        UNITS = FP8 && NT == 1 ? 2 : 1, // read at once
    };
    CU_SHARED_DYNAMIC(room);
    const smem<float> sums = room.as<float>();
    const smem<int> begin = room.as<int>(sizeof(float) * CHUNK_MAX * BM * PITCH);
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, chunk = threadIdx.x / 32;
    thin_prefetch<BM, BN, T>(p, begin);
    cu_wait_earlier();
    const int64_t n_item = product_plan(p, begin, BM, BN);
    const int64_t k_begin = chunk * p.chunk, k_end = k_begin + p.chunk < p.k ? k_begin + p.chunk : p.k;
    const uint4 zero = {0, 0, 0, 0};
    for (int64_t item = blockIdx.x; item < n_item; item += gridDim.x) {
        const struct product_spot s = product_spot_of(p, begin, item, BM, BN);
        const T *w[2 * NT], *x[MT];
        for (int i = 0; i < 2 * NT; i++) {
            const int64_t row = s.col + 8 * i + g; // beyond the last: it once more, not stored
            w[i] = product_w<T>(p, s) + (row < p.n ? row : p.n - 1) * p.w_row + EACH * t;
        }
        for (int i = 0; i < MT; i++) x[i] = product_x<T>(p, s) + min(8 * i + g, s.n_row - 1) * p.x_row + EACH * t;
        float sum[NT][MT][4] = {};
        for (int64_t k = k_begin; k < k_end; k += UNITS * CHUNK_UNIT) {
            uint4 a[UNITS * STEPS][NT][2], b[UNITS * STEPS][MT];
#pragma unroll
            for (int j = 0; j < UNITS * STEPS; j++) {
                const int64_t at = k + 4 * EACH * j;
                const bool there = at + EACH * t < k_end;
                for (int i = 0; i < 2 * NT; i++) a[j][i / 2][i % 2] = there ? __ldcs((const uint4 *)(w[i] + at)) : zero;
                for (int i = 0; i < MT; i++) b[j][i] = there ? *(const uint4 *)(x[i] + at) : zero;
            }
            if constexpr (FP8) {
#pragma unroll
                for (int u = 0; u < UNITS; u++) {
                    const int64_t at = k / CHUNK_UNIT + u;
                    if (at * CHUNK_UNIT >= k_end) break;
                    float block[NT][MT][4] = {};
#pragma unroll
                    for (int j = 0; j < STEPS; j++) product_mma<FP8, NT, MT>(block, a[u * STEPS + j], b[u * STEPS + j]);
                    const float ws = product_w_scale(p, s)[at];
                    for (int l = 0; l < MT; l++)
                        for (int c = 0; c < 2; c++) {
                            const float xs = product_x_scale(p, s)[at * p.m + min(8 * l + 2 * t + c, s.n_row - 1)];
                            for (int i = 0; i < NT; i++)
                                for (int h = c; h < 4; h += 2) sum[i][l][h] = product_scaled(block[i][l][h], xs, ws, sum[i][l][h]);
                        }
                }
            } else {
#pragma unroll
                for (int j = 0; j < STEPS; j++) product_mma<FP8, NT, MT>(sum, a[j], b[j]);
            }
        }
        __syncthreads(); // the sums of the tile before are read
        for (int i = 0; i < NT; i++)
            for (int l = 0; l < MT; l++)
                for (int h = 0; h < 4; h++) sums[(chunk * BM + 8 * l + 2 * t + h % 2) * PITCH + 16 * i + g + h / 2 * 8] = sum[i][l][h];
        __syncthreads();
        for (int i = threadIdx.x; i < s.n_row * BN; i += blockDim.x) {
            float all = 0;
            for (int c = 0; c < p.n_chunk; c++) all += sums[(c * BM + i / BN) * PITCH + i % BN];
            product_put<1>(p, s, i / BN, i % BN, &all, 0);
        }
    }
}

template <int NT, int MT> static void thin(struct device *dev, const struct product *p)
{
    const size_t shared = sizeof(float) * CHUNK_MAX * 8 * MT * (16 * NT + 4) + product_plan_bytes(p);
    int64_t grid = product_tiles(p, 8 * MT, 16 * NT);
    const int64_t most = (int64_t)cuda_of(dev)->n_sm * (p->first ? 8 : 1 << 20); // a plan is made once a block
    if (grid > most) grid = most;
    if (p->x_scale)
        CU_LAUNCH_EARLY(dev, (thin_kernel<NT, MT, true>), (unsigned)grid, (unsigned)(32 * p->n_chunk), shared, *p);
    else
        CU_LAUNCH_EARLY(dev, (thin_kernel<NT, MT, false>), (unsigned)grid, (unsigned)(32 * p->n_chunk), shared, *p);
}
void product_thin(struct device *dev, const struct product *p)
{
    const int64_t rows = p->first ? (p->m + p->n_product - 1) / p->n_product : p->m;
    if (rows > 8)
        thin<2, 2>(dev, p);
    else if (product_tiles(p, 8, 32) >= 4 * cuda_of(dev)->n_sm)
        thin<2, 1>(dev, p);
    else
        thin<1, 1>(dev, p);
}
