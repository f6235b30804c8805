// Rows by index: out[i] = x[row[i]], or out[row[i]] = x[i]. Bound by bytes; a block a row, in pieces of 256 chunks of 16 bytes where it is
// long, so that a few tokens of decode keep more than a few multiprocessors busy.
#pragma once
#include "kernels/cuda/chunk.cuh"

struct gather_args {
    int64_t d, out, x; // columns, strides of rows
    int n, code;       // rows there are, and what is told of an index that is not one of them
    struct cuda_trouble *trouble;
};
template <class To, class From, bool WIDE, bool SCATTER>
__global__ void gather_kernel(To *out, const From *x, const int32_t *row, struct gather_args a)
{
    cu_wait_earlier();
    enum { N = 16 / (sizeof(To) > sizeof(From) ? sizeof(To) : sizeof(From)) };
    const int64_t r = blockIdx.x;
    const int named = row[r];
    if (named < 0 || named >= a.n) {
        if (threadIdx.x == 0 && blockIdx.y == 0) cu_trouble(a.trouble, a.code, (int)r, named, a.n);
        return;
    }
    const int64_t from = SCATTER ? r : named, to_row = SCATTER ? named : r;
    const int64_t step = (int64_t)gridDim.y * blockDim.x * N;
    for (int64_t i = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N; i < a.d; i += step) {
        const cu_chunk<From, N> c = cu_load<WIDE, N>(x + from * a.x, i, a.d);
        cu_chunk<To, N> to;
        CU_UNROLL
        for (int j = 0; j < N; j++) to.v[j] = cu_from<To>(cu_f32(c.v[j]));
        cu_store<WIDE, N>(out + to_row * a.out, i, a.d, to);
    }
}
template <bool SCATTER> static void gather_or_scatter(struct device *dev, struct tensor out, struct tensor x, struct tensor row, int code)
{
    const int n_there = (int)(SCATTER ? out : x).shape[0];
    const struct gather_args a = {x.shape[1], out.stride[0], x.stride[0], n_there, code, cuda_of(dev)->trouble};
    const bool narrow = out.dtype == DT_BF16 && x.dtype == DT_BF16;
    const int n = narrow ? 8 : 4;
    const int64_t n_chunk = (a.d + n - 1) / n;
    const dim3 grid((unsigned)row.shape[0], cu_row_pieces(n_chunk));
    const struct tensor all[] = {out, x};
    const bool wide = cu_wide(n, all, 2);
    CU_DTYPE(out.dtype, To, CU_DTYPE(x.dtype, From, CU_WIDE(wide, WIDE, {
                                         CU_LAUNCH_EARLY(dev, (gather_kernel<To, From, WIDE, SCATTER>), grid, cu_row_threads(n_chunk), 0,
                                                         (To *)out.data, (const From *)x.data, (const int32_t *)row.data, a);
                                     });););
}
// x: rank 2, its strides as they are in memory.
static inline void gather(struct device *dev, struct tensor out, struct tensor x, struct tensor row, int code)
{
    gather_or_scatter<false>(dev, out, x, row, code);
}
static inline void scatter(struct device *dev, struct tensor out, struct tensor x, struct tensor row, int code)
{
    gather_or_scatter<true>(dev, out, x, row, code);
}
