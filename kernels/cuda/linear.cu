// Linear maps and their gradients: plain weights by the library, packed ones by our own kernels.
#include "kernels/cuda/blaslt.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/panel.cuh"

// TRAP: a single row may have any stride.
static int64_t leading(struct tensor t)
{
    return t.stride[0] > t.shape[1] ? t.stride[0] : t.shape[1];
}

// The library adds a bias of the output's dtype: an f32 bias of bf16 outputs is rounded first, as PyTorch's bf16 layers hold it.
__global__ void round_bias_kernel(bf16 *out, const float *bias, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = cu_from<bf16>(bias[i]);
}

// Whether the library is given a packed weight: where it is faster, and nobody asked for one order of sums.
enum { MANY = 256 }; // rows: from here on its wgmma kernels pass ours
static bool library_may(const struct device *dev, struct tensor x, struct tensor w)
{
    return !dev->batch_invariant && x.dtype == DT_BF16 && w.dtype == DT_BF16 && x.shape[0] >= MANY && w.shape[1] % 8 == 0;
}

// out (n_tok, n) = x (n_tok, k) · wᵀ: by columns, outᵀ (n, n_tok) = w (n, k) · xᵀ (k, n_tok).
extern "C" void cuda_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias)
{
    if (w.layout == LAYOUT_PANEL && !library_may(dev, x, w)) {
        cuda_linear_panel(dev, out, x, w, bias);
        return;
    }
    if (x.dtype != w.dtype) {
        dev_fail_op(dev, "x and w must have one dtype");
        return;
    }
    const int64_t n = w.shape[0];
    bf16 *rounded = !tensor_none(bias) && out.dtype == DT_BF16 ? (bf16 *)dev_scratch(dev, (size_t)n * sizeof(bf16)) : NULL;
    if (dev->measuring) { // and what fewer rows take, which are not the library's
        if (w.layout == LAYOUT_PANEL) cuda_linear_panel(dev, tensor_rows(out, 0, MANY - 1), tensor_rows(x, 0, MANY - 1), w, bias);
        return;
    }
    if (rounded) CU_LAUNCH(dev, round_bias_kernel, cu_blocks(n, 256), 256, 0, rounded, (const float *)bias.data, n);
    struct library_product p = {};
    p.m = n, p.n = x.shape[0], p.k = x.shape[1];
    p.ta = true;
    p.type = x.dtype, p.td = out.dtype;
    p.a = w.data, p.b = x.data, p.d = out.data;
    p.bias = rounded ? rounded : bias.data;
    p.lda = w.layout == LAYOUT_PANEL ? panel_stride(w.dtype, w.shape[1]) : leading(w), p.ldb = leading(x), p.ldd = leading(out);
    blaslt_multiply(dev, &p);
}

// dx (n_tok, k) = dout (n_tok, n) · w (n, k): dxᵀ (k, n_tok) = wᵀ (k, n) · doutᵀ (n, n_tok).
extern "C" void cuda_linear_bwd_x(struct device *dev, struct tensor dx, struct tensor dout, struct tensor w, bool accumulate)
{
    if (dev->measuring) return;
    struct library_product p = {};
    p.m = dx.shape[1], p.n = dx.shape[0], p.k = dout.shape[1];
    p.type = dout.dtype, p.td = dx.dtype;
    p.a = w.data, p.b = dout.data, p.d = dx.data;
    p.lda = leading(w), p.ldb = leading(dout), p.ldd = leading(dx);
    p.add = accumulate;
    blaslt_multiply(dev, &p);
}

// dw (n, k) += doutᵀ (n, n_tok) · x (n_tok, k): dwᵀ (k, n) += xᵀ (k, n_tok) · dout (n_tok, n).
extern "C" void cuda_linear_bwd_w(struct device *dev, struct tensor dw, struct tensor dout, struct tensor x)
{
    if (dev->measuring) return;
    struct library_product p = {};
    p.m = dw.shape[1], p.n = dw.shape[0], p.k = x.shape[0];
    p.tb = true;
    p.type = x.dtype, p.td = dw.dtype;
    p.a = x.data, p.b = dout.data, p.d = dw.data;
    p.lda = leading(x), p.ldb = leading(dout), p.ldd = leading(dw);
    p.add = true;
    blaslt_multiply(dev, &p);
}
