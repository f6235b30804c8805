// RMSNorm (Zhang & Sennrich 2019), forward and backward. Bound by bytes: a row is read once and stays in registers, a few chunks of 16
// bytes a thread; only what is longer is read again, from the cache. A row has 8 threads, a warp or a block, so that short ones (the
// heads') keep as many bytes in flight as long ones; which, and the order of a sum, depends on the row's length alone.
//
// The weight's gradient sums over rows: each block keeps the sums of its rows in registers, and NORM_PARTS rows of partial sums at most are
// added in order.
#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/columns.cuh"

// Chunks in registers: forward, backward. 264: two blocks for each of an H100's multiprocessors.
enum { NORM_THREADS = 256, NORM_KEEP = 4, NORM_KEEP_BWD = 2, NORM_PARTS = 264 };

struct norm_rows { // where row r of (n, d) or (n, n_head, d) lies: elements
    int64_t outer, inner;
};
struct norm_args {
    int64_t n, d;
    int n_head; // 1: rank 2
    bool accumulate;
    float eps;
    struct norm_rows x, out, dout; // out: dx in backward
};
static struct norm_rows norm_rows_of(struct tensor t)
{
    return t.rank == 2 ? norm_rows{t.stride[0], 0} : norm_rows{t.stride[0], t.stride[1]};
}
__device__ __forceinline__ int64_t norm_row_at(struct norm_rows at, int64_t row, int n_head)
{
    return row / n_head * at.outer + row % n_head * at.inner;
}
template <int GROUP> __device__ __forceinline__ float norm_sum(float v, smem<float> room)
{
    if constexpr (GROUP > 32) {
        return cu_block_reduce(v, cu_add(), 0.0f, room);
    } else {
        CU_UNROLL
        for (int by = GROUP / 2; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
        return v;
    }
}
template <int N, class T> __device__ __forceinline__ float norm_squares(float sum, cu_chunk<T, N> c)
{
    CU_UNROLL
    for (int j = 0; j < N; j++) sum = fmaf(cu_f32(c.v[j]), cu_f32(c.v[j]), sum);
    return sum;
}
template <bool WIDE, int N, class T>
__device__ __forceinline__ void norm_write(T *out, cu_chunk<T, N> x, const float *w, float rstd, int64_t i, int64_t d)
{
    const cu_chunk<float, N> wt = cu_load<WIDE, N>(w, i, d);
    CU_UNROLL
    for (int j = 0; j < N; j++) x.v[j] = cu_from<T>(cu_f32(x.v[j]) * rstd * wt.v[j]);
    cu_store<WIDE, N>(out, i, d, x);
}

// GROUP threads a row. A group without a row goes along with one of no elements.
template <class T, bool WIDE, int GROUP>
__global__ void rmsnorm_kernel(T *out, const T *x, const float *w, float *keep_rstd, struct norm_args a)
{
    cu_wait_earlier();
    enum { N = 16 / sizeof(T), STEP = GROUP * N };
    CU_SHARED(float, room, 32);
    const int64_t row = (int64_t)blockIdx.x * (NORM_THREADS / GROUP) + threadIdx.x / GROUP, d = row < a.n ? a.d : 0;
    const int64_t begin = (int64_t)threadIdx.x % GROUP * N;
    const T *from = x + norm_row_at(a.x, row, a.n_head);
    T *to = out + norm_row_at(a.out, row, a.n_head);
    cu_chunk<T, N> kept[NORM_KEEP];
    float sum = 0;
    CU_UNROLL
    for (int k = 0; k < NORM_KEEP; k++) kept[k] = cu_load<WIDE, N>(from, begin + k * STEP, d);
    CU_UNROLL
    for (int k = 0; k < NORM_KEEP; k++) sum = norm_squares(sum, kept[k]);
    for (int64_t i = begin + NORM_KEEP * STEP; i < d; i += STEP) sum = norm_squares(sum, cu_load<WIDE, N>(from, i, d));
    const float rstd = 1.0f / sqrtf(norm_sum<GROUP>(sum, room) / (float)a.d + a.eps);
    if (keep_rstd && begin == 0 && d) keep_rstd[row] = rstd;
    CU_UNROLL
    for (int k = 0; k < NORM_KEEP; k++)
        if (begin + k * STEP < d) norm_write<WIDE>(to, kept[k], w, rstd, begin + k * STEP, d);
    for (int64_t i = begin + NORM_KEEP * STEP; i < d; i += STEP) norm_write<WIDE>(to, cu_load<WIDE, N>(from, i, d), w, rstd, i, d);
}
// How many threads a row is given: those whose registers it fits, if there are as many.
static int norm_group(struct tensor x, int keep)
{
    const int64_t d = x.shape[x.rank - 1], each = keep * 16 / (int64_t)dtype_size(x.dtype);
    return d <= 8 * each ? 8 : d <= 32 * each ? 32 : d <= 256 * each ? 256 : 512;
}
template <class T, bool WIDE, int GROUP>
static void rmsnorm_by(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor rstd, struct norm_args a)
{
    CU_LAUNCH_EARLY(dev, (rmsnorm_kernel<T, WIDE, GROUP>), cu_blocks(a.n, NORM_THREADS / GROUP), NORM_THREADS, 0, (T *)out.data,
                    (const T *)x.data, (const float *)w.data, (float *)rstd.data, a);
}
extern "C" void cuda_rmsnorm(struct device *dev, struct tensor out, struct tensor x, struct tensor w, float eps, struct tensor rstd)
{
    struct norm_args a = {};
    a.d = x.shape[x.rank - 1], a.n = tensor_numel(x) / a.d, a.n_head = x.rank == 3 ? (int)x.shape[1] : 1, a.eps = eps;
    a.x = norm_rows_of(x), a.out = norm_rows_of(out);
    const struct tensor all[] = {out, x, w};
    const bool wide = cu_wide(16 / (int)dtype_size(x.dtype), all, 3);
    CU_DTYPE(x.dtype, T, CU_WIDE(wide, WIDE, {
                 const int group = norm_group(x, NORM_KEEP);
                 if (group == 8)
                     rmsnorm_by<T, WIDE, 8>(dev, out, x, w, rstd, a);
                 else if (group == 32)
                     rmsnorm_by<T, WIDE, 32>(dev, out, x, w, rstd, a);
                 else
                     rmsnorm_by<T, WIDE, NORM_THREADS>(dev, out, x, w, rstd, a);
             }););
}

// ---- backward ---------------------------------------------------------------------------------------------------------------------------
// With x̂ = x rstd and g = w dout: dx = rstd (g - x̂ mean(g x̂)), dw += dout x̂.

template <int N, class T> struct norm_pair { // a chunk of both
    cu_chunk<T, N> x, dout;
};
template <bool WIDE, int N, class T>
__device__ __forceinline__ float norm_dot(float sum, norm_pair<N, T> c, const float *w, float rstd, int64_t i, int64_t d)
{
    const cu_chunk<float, N> wt = cu_load<WIDE, N>(w, i, d);
    CU_UNROLL
    for (int j = 0; j < N; j++) sum = fmaf(cu_f32(c.dout.v[j]) * wt.v[j], cu_f32(c.x.v[j]) * rstd, sum);
    return sum;
}
template <bool WIDE, int N, class T>
__device__ __forceinline__ void norm_write_dx(T *dx, norm_pair<N, T> c, const float *w, float rstd, float mean, bool accumulate, int64_t i,
                                              int64_t d)
{
    const cu_chunk<float, N> wt = cu_load<WIDE, N>(w, i, d);
    cu_chunk<T, N> was, r;
    if (accumulate) was = cu_load<WIDE, N>(dx, i, d);
    CU_UNROLL
    for (int j = 0; j < N; j++) {
        float t = rstd * (cu_f32(c.dout.v[j]) * wt.v[j] - cu_f32(c.x.v[j]) * rstd * mean);
        r.v[j] = cu_from<T>(accumulate ? t + cu_f32(was.v[j]) : t);
    }
    cu_store<WIDE, N>(dx, i, d, r);
}
// sum += dout x̂
template <int N, class T> __device__ __forceinline__ void norm_add_dw(cu_chunk<float, N> &sum, norm_pair<N, T> c, float rstd)
{
    CU_UNROLL
    for (int j = 0; j < N; j++) sum.v[j] = fmaf(cu_f32(c.dout.v[j]), cu_f32(c.x.v[j]) * rstd, sum.v[j]);
}

__host__ __device__ constexpr int norm_block(int group)
{
    return group > NORM_THREADS ? group : NORM_THREADS;
}
// part: NULL, or a row of d for each block. Columns that a block's registers do not hold are summed there, each by one thread.
template <class T, bool WIDE, int GROUP>
__global__ void __launch_bounds__(norm_block(GROUP), GROUP > 256 ? 1 : 2)
    rmsnorm_bwd_kernel(T *dx, float *part, const T *dout, const T *x, const float *w, const float *rstd, struct norm_args a)
{
    enum { N = 16 / sizeof(T), STEP = GROUP * N, THREADS = norm_block(GROUP), N_GROUP = THREADS / GROUP, KEEP = NORM_KEEP_BWD };
    CU_SHARED(float, room, 32);
    CU_SHARED_DYNAMIC(columns);
    const int64_t begin = (int64_t)threadIdx.x % GROUP * N;
    cu_chunk<float, N> sum[KEEP] = {};
    float *mine = part ? part + (int64_t)blockIdx.x * a.d : NULL;
    for (int64_t first = (int64_t)blockIdx.x * N_GROUP; first < a.n; first += (int64_t)gridDim.x * N_GROUP) {
        const int64_t row = first + threadIdx.x / GROUP, d = row < a.n ? a.d : 0;
        const T *xs = x + norm_row_at(a.x, row, a.n_head), *gs = dout + norm_row_at(a.dout, row, a.n_head);
        T *to = dx + norm_row_at(a.out, row, a.n_head);
        const float r = d ? rstd[row] : 0;
        norm_pair<N, T> kept[KEEP];
        float dot = 0;
        CU_UNROLL
        for (int k = 0; k < KEEP; k++) {
            kept[k].x = cu_load<WIDE, N>(xs, begin + k * STEP, d);
            kept[k].dout = cu_load<WIDE, N>(gs, begin + k * STEP, d);
        }
        CU_UNROLL
        for (int k = 0; k < KEEP; k++) {
            dot = norm_dot<WIDE>(dot, kept[k], w, r, begin + k * STEP, d);
            norm_add_dw(sum[k], kept[k], r);
        }
        for (int64_t i = begin + KEEP * STEP; i < d; i += STEP) {
            const norm_pair<N, T> c = {cu_load<WIDE, N>(xs, i, d), cu_load<WIDE, N>(gs, i, d)};
            dot = norm_dot<WIDE>(dot, c, w, r, i, d);
            if (!mine) continue;
            cu_chunk<float, N> s = {};
            if (first != (int64_t)blockIdx.x * N_GROUP) s = cu_load<false, N>(mine, i, d);
            norm_add_dw(s, c, r);
            cu_store<false, N>(mine, i, d, s);
        }
        const float mean = norm_sum<GROUP>(dot, room) / (float)a.d;
        CU_UNROLL
        for (int k = 0; k < KEEP; k++)
            if (begin + k * STEP < d) norm_write_dx<WIDE>(to, kept[k], w, r, mean, a.accumulate, begin + k * STEP, d);
        for (int64_t i = begin + KEEP * STEP; i < d; i += STEP) {
            const norm_pair<N, T> c = {cu_load<WIDE, N>(xs, i, d), cu_load<WIDE, N>(gs, i, d)};
            norm_write_dx<WIDE>(to, c, w, r, mean, a.accumulate, i, d);
        }
    }
    if (!mine) return;
    if (N_GROUP == 1) {
        CU_UNROLL
        for (int k = 0; k < KEEP; k++)
            if (begin + k * STEP < a.d) cu_store<false, N>(mine, begin + k * STEP, a.d, sum[k]);
        return;
    }
    const smem<float> all = columns.as<float>(); // the groups one after the other
    for (int g = 0; g < N_GROUP; g++) {
        CU_UNROLL
        for (int k = 0; k < KEEP; k++) CU_UNROLL
        for (int j = 0; j < N; j++) {
            const int64_t i = begin + k * STEP + j;
            if ((int)threadIdx.x / GROUP == g && i < a.d) all[(int)i] = g ? all[(int)i] + sum[k].v[j] : sum[k].v[j];
        }
        __syncthreads();
    }
    for (int64_t i = threadIdx.x; i < a.d; i += THREADS) mine[i] = all[(int)i];
}
template <class T, bool WIDE, int GROUP>
static void rmsnorm_bwd_by(struct device *dev, unsigned grid, struct tensor dx, float *part, struct tensor dout, struct tensor x,
                           struct tensor w, struct tensor rstd, struct norm_args a)
{
    const size_t shared = GROUP < NORM_THREADS ? (size_t)a.d * sizeof(float) : 0;
    CU_LAUNCH(dev, (rmsnorm_bwd_kernel<T, WIDE, GROUP>), grid, norm_block(GROUP), shared, (T *)dx.data, part, (const T *)dout.data,
              (const T *)x.data, (const float *)w.data, (const float *)rstd.data, a);
}
extern "C" void cuda_rmsnorm_bwd(struct device *dev, struct tensor dx, struct tensor dw, struct tensor dout, struct tensor x,
                                 struct tensor w, struct tensor rstd, bool accumulate)
{
    struct norm_args a = {};
    a.d = x.shape[x.rank - 1], a.n = tensor_numel(x) / a.d, a.n_head = x.rank == 3 ? (int)x.shape[1] : 1, a.accumulate = accumulate;
    a.x = norm_rows_of(x), a.out = norm_rows_of(dx), a.dout = norm_rows_of(dout);
    const int group = norm_group(x, NORM_KEEP_BWD);
    const unsigned want = cu_blocks(a.n, norm_block(group) / group), grid = want < NORM_PARTS ? want : (unsigned)NORM_PARTS;
    float *part = tensor_none(dw) ? NULL : (float *)dev_scratch(dev, (size_t)grid * (size_t)a.d * sizeof(float));
    if (dev->measuring) return;
    const struct tensor all[] = {dx, dout, x, w};
    const bool wide = cu_wide(16 / (int)dtype_size(x.dtype), all, 4);
    CU_DTYPE(x.dtype, T, CU_WIDE(wide, WIDE, {
                 if (group == 8)
                     rmsnorm_bwd_by<T, WIDE, 8>(dev, grid, dx, part, dout, x, w, rstd, a);
                 else if (group == 32)
                     rmsnorm_bwd_by<T, WIDE, 32>(dev, grid, dx, part, dout, x, w, rstd, a);
                 else if (group == 256)
                     rmsnorm_bwd_by<T, WIDE, 256>(dev, grid, dx, part, dout, x, w, rstd, a);
                 else
                     rmsnorm_bwd_by<T, WIDE, 512>(dev, grid, dx, part, dout, x, w, rstd, a);
             }););
    if (part) column_add(dev, dw, part, (int)grid);
}
