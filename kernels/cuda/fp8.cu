// Products in DeepSeek's FP8: activations rounded block by block here, then the kernels of product.cuh.
//
// The values multiplied are e4m3, held in bf16, which has all their bits; the tensor cores' products of them are exact (4 bits times 4) and
// their sums f32, so that bf16 instructions give what FP8 ones would, with a better sum (those of sm_90 keep 14 bits), at half the rate.
// Weights cost two bytes a value to read.
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/product.cuh"

// A warp a block of a row: 4 values a lane, zeros behind k. Bound by reading x and writing it again.
template <class T>
__global__ void quantise_kernel(bf16 *out, float *scale, const T *x, int64_t n, int64_t n_block, int64_t k, int64_t x_row, bool ue8m0)
{
    const int lane = threadIdx.x % 32;
    for (int64_t i = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < n; i += (int64_t)gridDim.x * (blockDim.x / 32)) {
        const int64_t at = i % n_block * FP8_BLOCK, from = i / n_block * x_row + at;
        float v[4], amax = 0;
        for (int j = 0; j < 4; j++) {
            const int l = lane + 32 * j;
            v[j] = at + l < k ? cu_f32(x[from + l]) : 0.0f;
            amax = fabsf(v[j]) > amax ? fabsf(v[j]) : amax; // NaN stays out of the scale, and in the values
        }
        amax = cu_warp_reduce(amax, cu_max());
        const float s = fp8_scale(amax, ue8m0);
        if (lane == 0) scale[i] = s;
        for (int j = 0; j < 4; j++) out[i * FP8_BLOCK + lane + 32 * j] = cu_from<bf16>(f32_round_e4m3(v[j] / s));
    }
}

void product_quantise(struct device *dev, struct product *p, struct tensor x, bool ue8m0)
{
    const int64_t m = x.shape[0], k = x.shape[1], n_block = (k + FP8_BLOCK - 1) / FP8_BLOCK, n = m * n_block;
    bf16 *values = (bf16 *)dev_scratch(dev, (size_t)(n * FP8_BLOCK) * sizeof(bf16));
    float *scale = (float *)dev_scratch(dev, (size_t)n * sizeof(float));
    p->x = values, p->x_row = n_block * FP8_BLOCK;
    p->x_scale = scale, p->n_block = (int)n_block;
    if (dev->measuring) return;
    const unsigned want = cu_blocks(n, 8), most = (unsigned)cuda_of(dev)->n_sm * 16;
    CU_DTYPE(x.dtype, T, {
        CU_LAUNCH(dev, quantise_kernel<T>, want < most ? want : most, 256, 0, values, scale, (const T *)x.data, n, n_block, k, x.stride[0],
                  ue8m0);
    });
}

extern "C" void cuda_fp8_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor w_scale,
                                struct tensor bias, bool ue8m0)
{
    struct product p = {};
    product_quantise(dev, &p, x, ue8m0);
    p.w = w.data, p.w_row = panel_stride(w.dtype, w.shape[1]);
    p.w_scale = (const float *)w_scale.data;
    p.out = out.data, p.out_row = out.stride[0], p.out_bf16 = out.dtype == DT_BF16;
    p.n_product = 1, p.m = x.shape[0], p.n = w.shape[0], p.k = x.shape[1];
    p.bias = (const float *)bias.data;
    product_run(dev, &p, DT_BF16, w.dtype);
}
