// Products in f32 as it is: FMAs, one chain a chunk of k and output, for every pair of types but bf16 with bf16 (the router's logits among
// them), at any number of rows. Bound by the FMA units from some 32 rows on, below by the weights.
//
// A block of 256 threads makes 64 weight rows by 64 or 16 rows of x, 4 x 4 or 4 x 1 a thread, k in steps of 32 or 64 through shared memory,
// the next step's values already on their way in registers. Loads are single values along k, 128 neighbouring bytes a warp of f32: any
// stride and any length will do. Few tiles: a block a chunk of k, as in product_tile.cu; chunks are short, for a decode step's router is
// bound by the latency of its block's steps.
#include "kernels/cuda/product.cuh"

enum { EXACT_BN = 64, EXACT_THREADS = 256 };

template <class X, class W, int TM> __global__ void __launch_bounds__(EXACT_THREADS, 2) exact_kernel(const struct product p)
{
    cu_wait_earlier();
    enum { BN = EXACT_BN, BK = TM == 1 ? 64 : 32, BM = 16 * TM, TN = 4, LANES = BK / 32, WL = BN / 8 * LANES, XL = BM / 8 * LANES };
    CU_SHARED(float, ws, BK *(BN + 1)); // by k; + 1: a warp writes a column without conflicts
    CU_SHARED(float, xs, BK *(BM + 1));
    CU_SHARED_DYNAMIC(room);
    const smem<int> begin = room.as<int>();
    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, tn = tid % 16, tm = tid / 16;
    const int64_t n_item = product_plan(p, begin, BM, BN);
    const int first = p.part ? (int)blockIdx.y : 0, last = p.part ? first + 1 : p.n_chunk;
    for (int64_t item = blockIdx.x; item < n_item; item += gridDim.x) {
        const struct product_spot s = product_spot_of(p, begin, item, BM, BN);
        const W *w = product_w<W>(p, s) + s.col * p.w_row;
        const X *x = product_x<X>(p, s);
        const int n_w = p.n - s.col < BN ? (int)(p.n - s.col) : BN;
        float w_next[WL], x_next[XL], total[TN][TM] = {};
        auto load = [&](int64_t k, int64_t k_end) {
            for (int i = 0; i < WL; i++) {
                const int row = warp + i / LANES * 8;
                const int64_t at = k + lane + i % LANES * 32;
                w_next[i] = at < k_end && row < n_w ? cu_f32(w[row * p.w_row + at]) : 0.0f;
            }
            for (int i = 0; i < XL; i++) {
                const int row = warp + i / LANES * 8;
                const int64_t at = k + lane + i % LANES * 32;
                x_next[i] = at < k_end && row < s.n_row ? cu_f32(x[row * p.x_row + at]) : 0.0f;
            }
        };
        for (int chunk = first; chunk < last; chunk++) {
            const int64_t k_begin = chunk * p.chunk, k_end = k_begin + p.chunk < p.k ? k_begin + p.chunk : p.k;
            float sum[TN][TM] = {};
            load(k_begin, k_end);
            for (int64_t k = k_begin; k < k_end; k += BK) {
                __syncthreads();
                for (int i = 0; i < WL; i++) ws[(lane + i % LANES * 32) * (BN + 1) + warp + i / LANES * 8] = w_next[i];
                for (int i = 0; i < XL; i++) xs[(lane + i % LANES * 32) * (BM + 1) + warp + i / LANES * 8] = x_next[i];
                __syncthreads();
                if (k + BK < k_end) load(k + BK, k_end);
#pragma unroll 8
                for (int j = 0; j < BK; j++) {
                    float a[TN], b[TM];
                    for (int i = 0; i < TN; i++) a[i] = ws[j * (BN + 1) + tn + 16 * i];
                    for (int l = 0; l < TM; l++) b[l] = xs[j * (BM + 1) + tm + 16 * l];
                    for (int i = 0; i < TN; i++)
                        for (int l = 0; l < TM; l++) sum[i][l] = fmaf(a[i], b[l], sum[i][l]);
                }
            }
            for (int i = 0; i < TN; i++)
                for (int l = 0; l < TM; l++) total[i][l] += sum[i][l];
        }
        for (int l = 0; l < TM; l++)
            for (int i = 0; i < TN; i++)
                if (tm + 16 * l < s.n_row) product_put<1>(p, s, tm + 16 * l, tn + 16 * i, &total[i][l], first);
    }
}

template <class X, class W, int TM> static void exact(struct device *dev, const struct product *p)
{
    const int64_t n_tile = product_tiles(p, 16 * TM, EXACT_BN), most = (int64_t)cuda_of(dev)->n_sm * (p->first ? 4 : 1 << 20);
    const dim3 grid((unsigned)(n_tile < most ? n_tile : most), p->part ? (unsigned)p->n_chunk : 1);
    CU_LAUNCH_EARLY(dev, (exact_kernel<X, W, TM>), grid, (unsigned)EXACT_THREADS, product_plan_bytes(p), *p);
}
static bool few_rows(const struct product *p)
{
    return p->first ? p->m < 32 * p->n_product : p->m <= 32;
}
bool product_exact_wants_split(const struct device *dev, const struct product *p)
{
    if (p->first || p->n_chunk == 1) return false;
    const int64_t n_sm = cuda_of(dev)->n_sm;
    return few_rows(p) ? product_tiles(p, 16, EXACT_BN) < 2 * n_sm : product_tiles(p, 64, EXACT_BN) < n_sm / 2; // parts cost bytes, too
}
void product_exact(struct device *dev, const struct product *p, enum dtype x_type, enum dtype w_type)
{
    CU_DTYPE(x_type, X, {
        CU_DTYPE(w_type, W, {
            if (few_rows(p))
                exact<X, W, 1>(dev, p);
            else
                exact<X, W, 4>(dev, p);
        });
    });
}
