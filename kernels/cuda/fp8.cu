// Products in DeepSeek's FP8: activations rounded block by block here, then the kernels of product.cuh.
//
// x and w are e4m3 in memory, a byte a value. The kernels make f16 of them in registers, which has all their bits; the tensor cores'
// products of them are exact (4 bits times 4) and their sums f32, so that f16 instructions give what FP8 ones would, with a better sum
// (those of sm_90 keep 14 bits), at half the rate. Many rows, where their order of sums is free, go to the library on sm_90, which has
// the rate: it brings each block's sum to f32 as we do.
#include "kernels/cuda/blaslt.cuh"
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/product.cuh"

// A warp a block of a row: 4 values a lane, zeros behind k. Bound by reading x and writing it again.
template <class T>
__global__ void quantise_kernel(e4m3 *out, float *scale, const T *x, int64_t n, int64_t n_block, int64_t k, int64_t x_row, bool ue8m0)
{
    cu_wait_earlier();
    const int lane = threadIdx.x % 32;
    for (int64_t i = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < n; i += (int64_t)gridDim.x * (blockDim.x / 32)) {
        const int64_t at = i % n_block * FP8_BLOCK, from = i / n_block * x_row + at;
        float v[4], amax = 0;
        bool nan = false;
        for (int j = 0; j < 4; j++) {
            const int l = lane + 32 * j;
            v[j] = at + l < k ? cu_f32(x[from + l]) : 0.0f;
            amax = fabsf(v[j]) > amax ? fabsf(v[j]) : amax;
        }
        amax = cu_warp_reduce(amax, cu_max());
        const float s = fp8_scale(amax, ue8m0);
        for (int j = 0; j < 4; j++) {
            v[j] /= s;
            nan |= v[j] != v[j]; // or it was infinite
            out[i * FP8_BLOCK + lane + 32 * j] = f32_to_e4m3(v[j]);
        }
        nan = __any_sync(0xffffffffu, nan);
        if (lane == 0) scale[i % n_block * (n / n_block) + i / n_block] = nan ? NAN : s; // one makes the sum NaN all the same
    }
}

void product_quantise(struct device *dev, struct product *p, struct tensor x, bool ue8m0)
{
    const int64_t m = x.shape[0], k = x.shape[1], n_block = (k + FP8_BLOCK - 1) / FP8_BLOCK, n = m * n_block;
    e4m3 *values = (e4m3 *)dev_scratch(dev, (size_t)(n * FP8_BLOCK));
    float *scale = (float *)dev_scratch(dev, (size_t)n * sizeof(float));
    p->x = values, p->m = m, p->k = k, p->x_row = n_block * FP8_BLOCK;
    p->x_scale = scale, p->n_block = (int)n_block;
    if (dev->measuring) return;
    const unsigned want = cu_blocks(n, 8), most = (unsigned)cuda_of(dev)->n_sm * 16;
    CU_DTYPE(x.dtype, T, {
        CU_LAUNCH_EARLY(dev, quantise_kernel<T>, want < most ? want : most, 256, 0, values, scale, (const T *)x.data, n, n_block, k,
                        x.stride[0], ue8m0);
    });
}

// Whether the library may have x's product: it is faster with many rows, in an order of sums of its own; and what it wants of the layout.
static bool library_may(const struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor w_scale,
                        struct tensor bias)
{
    enum { MANY = 128 }; // rows: fewer are bound by the weights' bytes
    return !dev->batch_invariant && cuda_of(dev)->arch == 90 && x.shape[0] >= MANY && tensor_none(bias) &&
           out.stride[0] * dtype_size(out.dtype) % 16 == 0 && w.shape[0] % 4 == 0 && w_scale.shape[1] % 4 == 0 &&
           ((uintptr_t)out.data | (uintptr_t)w_scale.data) % 16 == 0;
}
static bool by_library(struct device *dev, const struct product *p, enum dtype out_type)
{
    struct library_product l = {};
    l.m = p->n, l.n = p->m, l.k = p->w_row; // the zeros behind k, too
    l.ta = true;
    l.type = DT_E4M3, l.td = out_type;
    l.a = p->w, l.b = p->x, l.d = p->out;
    l.lda = p->w_row, l.ldb = p->x_row, l.ldd = p->out_row;
    l.a_scale = p->w_scale, l.b_scale = p->x_scale;
    return blaslt_try(dev, &l);
}
static void fp8_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor w_scale, struct tensor bias,
                       bool ue8m0, bool library)
{
    struct product p = {};
    product_quantise(dev, &p, x, ue8m0);
    p.w = w.data, p.w_row = panel_stride(w.dtype, w.shape[1]);
    p.w_scale = (const float *)w_scale.data;
    p.out = out.data, p.out_row = out.stride[0], p.out_bf16 = out.dtype == DT_BF16;
    p.n_product = 1, p.n = w.shape[0];
    p.bias = (const float *)bias.data;
    if (library && !dev->measuring && by_library(dev, &p, out.dtype)) return;
    product_run(dev, &p, DT_E4M3, w.dtype);
}
extern "C" void cuda_fp8_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor w_scale,
                                struct tensor bias, bool ue8m0)
{
    const int64_t m = x.shape[0], n_library = library_may(dev, out, x, w, w_scale, bias) ? m / 4 * 4 : 0; // it wants whole fours
    if (n_library) fp8_linear(dev, tensor_rows(out, 0, n_library), tensor_rows(x, 0, n_library), w, w_scale, bias, ue8m0, true);
    if (n_library == m) return;
    fp8_linear(dev, tensor_rows(out, n_library, m - n_library), tensor_rows(x, n_library, m - n_library), w, w_scale, bias, ue8m0, false);
}
