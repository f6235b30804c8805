// AdamW and the gradient norm's sum of squares: both walk all parameters once, at the speed of memory.
#include "kernels/cpu/isa/rowvec.h"
#include "kernels/rows/adamw.h"

VEC_FN void adamw_vec(float *x, float *m, float *v, const float *g, void *w, bool write_w, bool bf, int n, const struct adamw_row *a)
{
    vf xs = vf_load_n(x, n), ms = vf_load_n(m, n), vs = vf_load_n(v, n);
    row_adamw(&xs, &ms, &vs, vf_load_n(g, n), a);
    vf_store_n(x, xs, n);
    vf_store_n(m, ms, n);
    vf_store_n(v, vs, n);
    if (write_w) vf_store_any_n(w, bf, 0, xs, n);
}

void ISA_NAME(adamw)(struct device *dev, struct tensor w, struct tensor master, struct tensor m, struct tensor v, struct tensor grad,
                     const struct adamw *a)
{
    struct adamw_row row = adamw_prepare(a);
    int64_t n = master.shape[0], n_piece = (n + PIECE - 1) / PIECE, size = (int64_t)dtype_size(w.dtype);
    float *x = master.data, *mm = m.data, *vv = v.data;
    const float *g = grad.data;
    bool bf = w.dtype == DT_BF16, write_w = w.data != master.data;
#pragma omp parallel for schedule(static) num_threads(cpu_team(dev, (double)n * 1.0))
    for (int64_t p = 0; p < n_piece; p++) {
        int64_t i = p * PIECE, end = n - i < PIECE ? n : i + PIECE;
        for (; i + VL <= end; i += VL) adamw_vec(x + i, mm + i, vv + i, g + i, (char *)w.data + i * size, write_w, bf, VL, &row);
        if (i < end) adamw_vec(x + i, mm + i, vv + i, g + i, (char *)w.data + i * size, write_w, bf, (int)(end - i), &row);
    }
}

// f32 within 256 vectors, f64 above that.
static double sumsq_block(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n;) {
        vf s = vf_zero();
        for (int64_t end = i + 256 * VL < n ? i + 256 * VL : n; i < end; i += VL) {
            vf a = n - i >= VL ? vf_load(x + i) : vf_load_n(x + i, (int)(n - i));
            s = vf_fma(a, a, s);
        }
        sum += (double)vf_sum(s);
    }
    return sum;
}

void ISA_NAME(sumsq)(struct device *dev, struct tensor out, struct tensor x)
{
    enum { BLOCK = 1 << 16 };
    int64_t n = x.shape[0], n_block = (n + BLOCK - 1) / BLOCK;
    double *part = dev_scratch(dev, (size_t)n_block * sizeof(double));
    if (dev->measuring) return;
#pragma omp parallel for schedule(static) num_threads(cpu_team(dev, (double)n * 0.2))
    for (int64_t b = 0; b < n_block; b++)
        part[b] = sumsq_block((const float *)x.data + b * BLOCK, n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK);
    double sum;
    memcpy(&sum, out.data, sizeof sum);
    for (int64_t b = 0; b < n_block; b++) sum += part[b];
    memcpy(out.data, &sum, sizeof sum);
}
