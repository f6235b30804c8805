// RMSNorm (Zhang & Sennrich 2019), forward and backward. A row is worked on alone, its sum in one fixed order. The weight's gradient sums
// over rows: blocks of rows whose size depends on d only give partial sums, added up in order, so threads do not change it.
#include "kernels/cpu/isa/rowvec.h"

static int64_t stride_of(struct tensor t, int64_t row) // rows of (n, d) or (n, h, d), in elements
{
    return t.rank == 2 ? row * t.stride[0] : row / t.shape[1] * t.stride[0] + row % t.shape[1] * t.stride[1];
}
static void *row_of(struct tensor t, int64_t row)
{
    return (char *)t.data + stride_of(t, row) * (int64_t)dtype_size(t.dtype);
}

VEC_FN float norm_row(void *out, const void *x, const float *w, int64_t d, float eps, bool bf)
{
    vf s0 = vf_zero(), s1 = vf_zero();
    int64_t i = 0;
    for (; i + 2 * VL <= d; i += 2 * VL) {
        vf a = vf_load_any(x, bf, i), b = vf_load_any(x, bf, i + VL);
        s0 = vf_fma(a, a, s0);
        s1 = vf_fma(b, b, s1);
    }
    for (; i < d; i += VL) {
        vf a = vf_load_any_n(x, bf, i, (int)(d - i < VL ? d - i : VL));
        s0 = vf_fma(a, a, s0);
    }
    float rstd = 1.0f / sqrtf(vf_sum(s0 + s1) / (float)d + eps);
    vf r = vf_set1(rstd);
    for (i = 0; i + VL <= d; i += VL) vf_store_any(out, bf, i, vf_load_any(x, bf, i) * r * vf_load(w + i));
    int rest = (int)(d - i);
    if (rest) vf_store_any_n(out, bf, i, vf_load_any_n(x, bf, i, rest) * r * vf_load_n(w + i, rest), rest);
    return rstd;
}

void ISA_NAME(rmsnorm)(struct device *dev, struct tensor out, struct tensor x, struct tensor w, float eps, struct tensor rstd)
{
    int64_t d = x.shape[x.rank - 1], n = tensor_numel(x) / d;
    const float *weight = w.data;
    float *keep = rstd.data;
    CPU_FOR(dev, (double)(n * d) * 0.2, row, n, {
        float r = x.dtype == DT_BF16 ? norm_row(row_of(out, row), row_of(x, row), weight, d, eps, true)
                                     : norm_row(row_of(out, row), row_of(x, row), weight, d, eps, false);
        if (keep) keep[row] = r;
    });
}

// With x̂ = x rstd and g = w dout: dx = rstd (g - x̂ mean(g x̂)), dw += dout x̂. dw may be NULL.
VEC_FN void norm_bwd_row(void *dx, float *dw, const void *dout, const void *x, const float *w, float rstd, int64_t d, bool accumulate,
                         bool bf)
{
    vf s = vf_zero(), r = vf_set1(rstd);
    for (int64_t i = 0; i < d; i += VL) {
        int n = (int)(d - i < VL ? d - i : VL);
        vf a, g, wt;
        if (n == VL) {
            a = vf_load_any(x, bf, i) * r;
            g = vf_load_any(dout, bf, i);
            wt = vf_load(w + i);
            if (dw) vf_store(dw + i, vf_fma(g, a, vf_load(dw + i)));
        } else {
            a = vf_load_any_n(x, bf, i, n) * r;
            g = vf_load_any_n(dout, bf, i, n);
            wt = vf_load_n(w + i, n);
            if (dw) vf_store_n(dw + i, vf_fma(g, a, vf_load_n(dw + i, n)), n);
        }
        s = vf_fma(g * wt, a, s);
    }
    vf mean = vf_set1(vf_sum(s) / (float)d);
    for (int64_t i = 0; i < d; i += VL) {
        int n = (int)(d - i < VL ? d - i : VL);
        if (n == VL) {
            vf t = r * (vf_load_any(dout, bf, i) * vf_load(w + i) - vf_load_any(x, bf, i) * r * mean);
            if (accumulate) t = t + vf_load_any(dx, bf, i);
            vf_store_any(dx, bf, i, t);
        } else {
            vf t = r * (vf_load_any_n(dout, bf, i, n) * vf_load_n(w + i, n) - vf_load_any_n(x, bf, i, n) * r * mean);
            if (accumulate) t = t + vf_load_any_n(dx, bf, i, n);
            vf_store_any_n(dx, bf, i, t, n);
        }
    }
}

void ISA_NAME(rmsnorm_bwd)(struct device *dev, struct tensor dx, struct tensor dw, struct tensor dout, struct tensor x, struct tensor w,
                           struct tensor rstd, bool accumulate)
{
    int64_t d = x.shape[x.rank - 1], n = tensor_numel(x) / d;
    int64_t per = d < 1 << 16 ? (1 << 17) / d : 2, n_block = (n + per - 1) / per; // rows a block: by d alone
    float *part = dev_scratch(dev, tensor_none(dw) ? 0 : (size_t)(n_block * d) * sizeof(float));
    if (dev->measuring) return;
    const float *weight = w.data, *rs = rstd.data;
    double ns = (double)(n * d) * 0.4;
    CPU_FOR(dev, ns, b, n_block, {
        float *sum = tensor_none(dw) ? NULL : part + b * d;
        if (sum) memset(sum, 0, (size_t)d * sizeof(float));
        for (int64_t row = b * per; row < n && row < (b + 1) * per; row++) {
            if (x.dtype == DT_BF16)
                norm_bwd_row(row_of(dx, row), sum, row_of(dout, row), row_of(x, row), weight, rs[row], d, accumulate, true);
            else
                norm_bwd_row(row_of(dx, row), sum, row_of(dout, row), row_of(x, row), weight, rs[row], d, accumulate, false);
        }
    });
    if (tensor_none(dw)) return;
    float *out = dw.data;
    for (int64_t b = 0; b < n_block; b++)
        for (int64_t i = 0; i < d; i++) out[i] += part[b * d + i];
}
