// AdamW and the gradient norm's sum of squares: both walk all parameters once, at the speed of memory.
#include "kernels/cuda/chunk.cuh"
#include "kernels/rows/adamw.h"

enum { OPTIMIZER_THREADS = 256 };

struct adamw_args {
    float *master, *m, *v;
    const float *grad;
    int64_t n;
    struct adamw_row row;
};
// Four elements a thread. w may be NULL: the master is the weight.
template <class T, bool WIDE> __global__ void adamw_kernel(T *w, struct adamw_args a)
{
    enum { N = 4 };
    const int64_t i = ((int64_t)blockIdx.x * OPTIMIZER_THREADS + threadIdx.x) * N;
    if (i >= a.n) return;
    const cu_chunk<float, N> g = cu_load<WIDE, N>(a.grad, i, a.n);
    cu_chunk<float, N> x = cu_load<WIDE, N>((const float *)a.master, i, a.n), m = cu_load<WIDE, N>((const float *)a.m, i, a.n),
                       v = cu_load<WIDE, N>((const float *)a.v, i, a.n);
    cu_chunk<T, N> to;
    CU_UNROLL
    for (int j = 0; j < N; j++) {
        row_adamw(&x.v[j], &m.v[j], &v.v[j], g.v[j], &a.row);
        to.v[j] = cu_from<T>(x.v[j]);
    }
    cu_store<WIDE, N>(a.master, i, a.n, x);
    cu_store<WIDE, N>(a.m, i, a.n, m);
    cu_store<WIDE, N>(a.v, i, a.n, v);
    if (w) cu_store<WIDE, N>(w, i, a.n, to);
}
extern "C" void cuda_adamw(struct device *dev, struct tensor w, struct tensor master, struct tensor m, struct tensor v, struct tensor grad,
                           const struct adamw *a)
{
    const struct adamw_args args = {(float *)master.data,     (float *)m.data, (float *)v.data,
                                    (const float *)grad.data, master.shape[0], adamw_prepare(a)};
    const struct tensor all[] = {w, master, m, v, grad};
    const bool wide = cu_wide(4, all, 5);
    void *to = w.data == master.data ? NULL : w.data;
    CU_DTYPE(w.dtype, T, CU_WIDE(wide, WIDE, {
                 CU_LAUNCH(dev, (adamw_kernel<T, WIDE>), cu_blocks(args.n, OPTIMIZER_THREADS * 4), OPTIMIZER_THREADS, 0, (T *)to, args);
             }););
}

// ---- sum of squares ---------------------------------------------------------------------------------------------------------------------

enum { SUMSQ_BLOCK = 1 << 14 };
// A thread sums its 64 squares in f32, in four chains, and the block in f64.
template <bool WIDE> __global__ void sumsq_part_kernel(double *part, const float *x, int64_t n)
{
    enum { N = 4 };
    CU_SHARED(double, room, 32);
    const int64_t begin = (int64_t)blockIdx.x * SUMSQ_BLOCK, end = begin + SUMSQ_BLOCK < n ? begin + SUMSQ_BLOCK : n;
    float sum[N] = {0};
    for (int64_t i = begin + threadIdx.x * N; i < end; i += OPTIMIZER_THREADS * N) {
        const cu_chunk<float, N> c = cu_load<WIDE, N>(x, i, end);
        CU_UNROLL
        for (int j = 0; j < N; j++) sum[j] = fmaf(c.v[j], c.v[j], sum[j]);
    }
    const double all = cu_block_reduce(((double)sum[0] + (double)sum[1]) + ((double)sum[2] + (double)sum[3]), cu_add(), 0.0, room);
    if (threadIdx.x == 0) part[blockIdx.x] = all;
}
static __global__ void sumsq_add_kernel(double *out, const double *part, int64_t n)
{
    CU_SHARED(double, room, 32);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += OPTIMIZER_THREADS) sum += part[i];
    sum = cu_block_reduce(sum, cu_add(), 0.0, room);
    if (threadIdx.x == 0) *out += sum;
}
extern "C" void cuda_sumsq(struct device *dev, struct tensor out, struct tensor x)
{
    const int64_t n = x.shape[0];
    const unsigned n_block = cu_blocks(n, SUMSQ_BLOCK);
    double *part = (double *)dev_scratch(dev, (size_t)n_block * sizeof(double));
    if (dev->measuring) return;
    CU_WIDE(cu_wide(4, &x, 1), WIDE,
            { CU_LAUNCH(dev, (sumsq_part_kernel<WIDE>), n_block, OPTIMIZER_THREADS, 0, part, (const float *)x.data, n); });
    CU_LAUNCH(dev, sumsq_add_kernel, 1, OPTIMIZER_THREADS, 0, (double *)out.data, part, n_block);
}
