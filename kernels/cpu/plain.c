// What stands in for oneDNN where it is left out (make DNNL=0): products by plain loops, for a reference that needs no library, not for
// speed.
//
// c is cut into tiles; a tile is summed by one thread, over k in rising order, in f32 without fused multiply-add. So a result depends
// neither on the number of threads nor on the processor, nor a row on the other rows.
#include "kernels/cpu/dnnl.h"
#include "kernels/ops.h"

#include <string.h>

enum { TILE_M = 128, TILE_N = 64, TILE_K = 128 };
struct matrix { // any two strides, in elements
    const void *data;
    enum dtype dtype;
    int64_t row, col;
};

// Elements [i, i + rows) × [j, j + cols) as f32, rows of `width`, what is beyond them 0.
static void tile_read(float *out, int width, struct matrix a, int64_t i, int64_t j, int rows, int cols)
{
    for (int r = 0; r < rows; r++, out += width) {
        const int64_t at = (i + r) * a.row + j * a.col;
        if (a.dtype == DT_BF16)
            for (int c = 0; c < cols; c++) out[c] = bf16_to_f32(((const bf16 *)a.data)[at + c * a.col]);
        else
            for (int c = 0; c < cols; c++) out[c] = ((const float *)a.data)[at + c * a.col];
        for (int c = cols; c < width; c++) out[c] = 0;
    }
}

typedef float v16 __attribute__((vector_size(64)));     // four of them are TILE_N
#if defined __x86_64__ && !defined __SANITIZE_ADDRESS__ // a sanitizer is not there yet when the copy is chosen
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
static void
tile_add(float *restrict sum, const float *restrict a, const float *restrict b, int rows, int k)
{
    for (int r = 0; r < rows; r++) {
        v16 *out = (v16 *)(sum + r * TILE_N), s0 = out[0], s1 = out[1], s2 = out[2], s3 = out[3];
        for (int p = 0; p < k; p++) {
            const v16 *row = (const v16 *)(b + p * TILE_N);
            const float x = a[r * TILE_K + p];
            s0 += x * row[0], s1 += x * row[1], s2 += x * row[2], s3 += x * row[3];
        }
        out[0] = s0, out[1] = s1, out[2] = s2, out[3] = s3;
    }
}

static int least(int64_t a, int b)
{
    return a < b ? (int)a : b;
}

// out (m, n) = [out +] a (m, k) · b (k, n) [+ bias]
static void product(struct device *dev, struct tensor out, int64_t k, struct matrix a, struct matrix b, const float *bias, bool accumulate)
{
    if (dev->measuring) return;
    const int64_t m = out.shape[0], n = out.shape[1], n_across = (n + TILE_N - 1) / TILE_N, n_tile = (m + TILE_M - 1) / TILE_M * n_across;
    CPU_FOR(dev, 0.1 * (double)m * (double)n * (double)k, t, n_tile, {
        _Alignas(64) float sum[TILE_M * TILE_N];
        _Alignas(64) float at[TILE_M * TILE_K];
        _Alignas(64) float bt[TILE_K * TILE_N];
        const int64_t i = t / n_across * TILE_M, j = t % n_across * TILE_N;
        const int rows = least(m - i, TILE_M), cols = least(n - j, TILE_N);
        memset(sum, 0, sizeof sum);
        for (int64_t p = 0; p < k; p += TILE_K) {
            const int deep = least(k - p, TILE_K);
            tile_read(at, TILE_K, a, i, p, rows, deep);
            tile_read(bt, TILE_N, b, p, j, deep, cols);
            tile_add(sum, at, bt, rows, deep);
        }
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) {
                const int64_t to = (i + r) * out.stride[0] + j + c;
                float v = sum[r * TILE_N + c] + (bias ? bias[j + c] : 0);
                if (out.dtype == DT_F32) {
                    float *o = (float *)out.data + to;
                    *o = accumulate ? *o + v : v;
                } else {
                    bf16 *o = (bf16 *)out.data + to;
                    *o = f32_to_bf16(accumulate ? bf16_to_f32(*o) + v : v);
                }
            }
    });
}

static struct matrix rows_of(struct tensor t)
{
    return (struct matrix){t.data, t.dtype, t.stride[0], 1};
}
static struct matrix transposed(struct tensor t)
{
    return (struct matrix){t.data, t.dtype, 1, t.stride[0]};
}

void cpu_dnnl_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias)
{
    product(dev, out, x.shape[1], rows_of(x), transposed(w), bias.data, false);
}

void cpu_dnnl_linear_bwd_x(struct device *dev, struct tensor dx, struct tensor dout, struct tensor w, bool accumulate)
{
    product(dev, dx, dout.shape[1], rows_of(dout), rows_of(w), NULL, accumulate);
}

void cpu_dnnl_linear_bwd_w(struct device *dev, struct tensor dw, struct tensor dout, struct tensor x)
{
    product(dev, dw, dout.shape[0], transposed(dout), rows_of(x), NULL, true);
}

void cpu_dnnl_free(struct cpu_state *s)
{
    (void)s; // it keeps nothing
}
