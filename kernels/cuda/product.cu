// Products of packed weights (product.cuh): which kernel makes them, the sum of chunks made apart, and rows that the tensor cores can read.
#include "kernels/cuda/product.cuh"

// out (m, n) of n_product = the parts of each chunk in order, + bias.
__global__ void sum_kernel(const struct product p)
{
    cu_wait_earlier();
    const int64_t rows = p.n_product * p.m, n = rows * p.n;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / p.n, col = i % p.n, to = row / p.m * p.out_each + row % p.m * p.out_row + col;
        float v = 0;
#pragma unroll 8 // so many on their way at once
        for (int c = 0; c < p.n_chunk; c++) v += p.part[c * n + i];
        v += p.bias ? p.bias[col] : 0.0f;
        if (p.out_bf16)
            ((bf16 *)p.out)[to] = cu_from<bf16>(v);
        else
            ((float *)p.out)[to] = v;
    }
}

static bool wants_split(const struct device *dev, const struct product *p, bool exact)
{
    return exact ? product_exact_wants_split(dev, p) : product_tile_wants_split(dev, p);
}
// Room for the chunks' sums of these rows or of fewer, which may be split where more are not: so a plan for many rows holds for few.
static float *split_scratch(struct device *dev, const struct product *p, bool exact, int64_t least)
{
    struct product few = *p;
    if (p->first) return NULL;                                                             // experts' are not split
    while (few.m > least && !wants_split(dev, &few, exact)) few.m = (few.m - 1) / 16 * 16; // whole tiles
    if (few.m <= least) return NULL;
    return (float *)dev_scratch(dev, sizeof(float) * (size_t)(few.n_chunk * product_rows(&few) * few.n));
}
void product_run(struct device *dev, struct product *p, enum dtype x_type, enum dtype w_type)
{
    enum { THIN_ROWS = 16, MANY_ROWS = 64, PIECES_ROW_MAX = 1 << 25 }; // the rows of a tile by 32-bit offsets
    const bool exact = !p->x_scale && (x_type != DT_BF16 || w_type != DT_BF16);
    product_cut(p, exact);
    p->trouble = cuda_of(dev)->trouble;
    p->out_wide = p->n % 4 == 0 && p->out_row % 4 == 0 && p->out_each % 4 == 0 && (uintptr_t)p->out % 16 == 0;
    if (p->first && p->n_product > OP_EXPERT_MAX) {
        dev_fail_op(dev, "%lld experts: wanted %d at most", (long long)p->n_product, OP_EXPERT_MAX);
        return;
    }
    if (!exact && ((p->m > 1 && p->x_row > PIECES_ROW_MAX) || p->w_row > PIECES_ROW_MAX)) {
        dev_fail_op(dev, "rows %lld values apart: wanted %d at most", (long long)(p->x_row > p->w_row ? p->x_row : p->w_row),
                    PIECES_ROW_MAX);
        return;
    }
    // At any number of rows: see there. FP8, whose order of sums is then another one, where it is free and many rows are worth it.
    if (p->first && !exact && cuda_of(dev)->wgmma && (!p->x_scale || (!dev->batch_invariant && p->m >= MANY_ROWS * p->n_product))) {
        if (!dev->measuring) product_wgmma(dev, p);
        return;
    }
    // Experts' rows are known to the device alone: a few each on average are taken as few, and an expert with more is read again.
    const bool few = p->first ? p->m <= THIN_ROWS || p->m <= 8 * p->n_product : p->m <= THIN_ROWS;
    const bool thin = !exact && (few || !product_tile_fits(dev, p));
    float *part = split_scratch(dev, p, exact, exact ? 0 : THIN_ROWS);
    if (dev->measuring) return;
    if (!thin && wants_split(dev, p, exact)) p->part = part;
    if (exact)
        product_exact(dev, p, x_type, w_type);
    else if (thin)
        product_thin(dev, p);
    else
        product_tile(dev, p);
    if (p->part) CU_LAUNCH_EARLY(dev, sum_kernel, cu_blocks(product_rows(p) * p->n, 256), 256, 0, *p);
}

template <class T>
__global__ void pieces_kernel(T *out, const T *x, int64_t n, int64_t n1, int64_t k, int64_t k_out, int64_t s0, int64_t s1)
{
    cu_wait_earlier();
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / k_out, j = i % k_out;
        out[i] = j < k ? x[row / n1 * s0 + row % n1 * s1 + j] : (T)0;
    }
}
struct tensor product_pieces(struct device *dev, struct tensor x)
{
    const int64_t k = x.shape[x.rank - 1], k_out = (k + 7) / 8 * 8;
    bool fits = k == k_out && (uintptr_t)x.data % 16 == 0;
    for (int d = 0; d < x.rank - 1; d++) fits = fits && (x.shape[d] == 1 || x.stride[d] % 8 == 0);
    if (fits || x.dtype != DT_BF16) return x;
    const int64_t n0 = x.shape[0], n1 = x.rank == 3 ? x.shape[1] : 1, n = n0 * n1 * k_out;
    struct tensor y = x;
    y.data = dev_scratch(dev, (size_t)n * sizeof(bf16));
    y.stride[0] = n1 * k_out;
    if (x.rank == 3) y.stride[1] = k_out;
    if (dev->measuring) return y;
    const unsigned want = cu_blocks(n, 256 * 4), most = (unsigned)cuda_of(dev)->n_sm * 16;
    CU_LAUNCH_EARLY(dev, pieces_kernel<bf16>, want < most ? want : most, 256, 0, (bf16 *)y.data, (const bf16 *)x.data, n, n1, k, k_out,
                    x.stride[0], x.rank == 3 ? x.stride[1] : 0);
    return y;
}
