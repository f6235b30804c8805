// AdamW and the gradient norm's sum of squares: both walk all parameters once, at the speed of memory.
#include "kernels/cuda/chunk.cuh"
#include "kernels/rows/adamw.h"
#include "kernels/rows/adamw8.h"

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

// ---- 8-bit states
// ------------------------------------------------------------------------------------------------------------------------

struct adamw8_args {
    uint8_t *m, *v;
    float *m_unit, *v_unit;
    const float *grad;
    int64_t n;
    struct adamw_row row;
    struct adamw8 a;
};
// A warp a block of the parameter, eight elements a lane, all in registers between one reading and one writing: 12 bytes an element in bf16
// with its gradient. The draws cost about as much time as the bytes do: one block of random numbers for two elements.
template <class T, bool WIDE> __global__ void adamw8_kernel(T *w, struct adamw8_args s)
{
    enum { N = OP_ADAMW8_BLOCK / 32 };
    const int64_t block = ((int64_t)blockIdx.x * OPTIMIZER_THREADS + threadIdx.x) / 32;
    const int64_t i = block * OP_ADAMW8_BLOCK + threadIdx.x % 32 * N;
    if (block * OP_ADAMW8_BLOCK >= s.n) return; // a warp whole
    const cu_chunk<float, N> g = cu_load<WIDE, N>(s.grad, i, s.n);
    const cu_chunk<uint8_t, N> m_was = cu_load<WIDE, N>((const uint8_t *)s.m, i, s.n),
                               v_was = cu_load<WIDE, N>((const uint8_t *)s.v, i, s.n);
    const float m_unit = s.m_unit[block], v_unit = s.v_unit[block];
    cu_chunk<T, N> to = cu_load<WIDE, N>((const T *)w, i, s.n);
    float x[N], m[N], v[N], m_most = 0, v_most = 0;
    CU_UNROLL
    for (int j = 0; j < N; j++) {
        x[j] = cu_f32(to.v[j]);
        m[j] = row_m_value(m_was.v[j], m_unit);
        v[j] = row_v_value(v_was.v[j], v_unit);
        row_adamw(&x[j], &m[j], &v[j], g.v[j], &s.row); // beyond the end: zeros, which stay so
        m_most = cu_max()(fabsf(m[j]), m_most);
        v_most = cu_max()(v[j], v_most);
    }
    const float m_to = cu_warp_reduce(m_most, cu_max()) / ROW_M_MOST, v_to = cu_warp_reduce(v_most, cu_max()) / ROW_V_MOST;
    cu_chunk<uint8_t, N> m_now, v_now;
    CU_UNROLL
    for (int j = 0; j < N; j += 2) {
        const struct rng_block draw = row_adamw8_draw(&s.a, (uint64_t)(s.a.first + i + j) / 2);
        CU_UNROLL
        for (int l = 0; l < 2; l++) {
            m_now.v[j + l] = row_m_code(m[j + l], m_to, draw.v[2 * l] >> 16);
            v_now.v[j + l] = row_v_code(v[j + l], v_to, draw.v[2 * l + 1] & 0xffff);
            if constexpr (sizeof(T) == 2)
                to.v[j + l] = row_bf16_by_chance(x[j + l], draw.v[2 * l] & 0xffff);
            else
                to.v[j + l] = x[j + l];
        }
    }
    cu_store<WIDE, N>(w, i, s.n, to);
    cu_store<WIDE, N>(s.m, i, s.n, m_now);
    cu_store<WIDE, N>(s.v, i, s.n, v_now);
    if (threadIdx.x % 32 == 0) {
        s.m_unit[block] = m_to;
        s.v_unit[block] = v_to;
    }
}
extern "C" void cuda_adamw8(struct device *dev, struct tensor w, struct tensor m, struct tensor v, struct tensor m_unit,
                            struct tensor v_unit, struct tensor grad, const struct adamw8 *a)
{
    const struct adamw8_args args = {(uint8_t *)m.data,        (uint8_t *)v.data, (float *)m_unit.data,     (float *)v_unit.data,
                                     (const float *)grad.data, w.shape[0],        adamw_prepare(&a->adamw), *a};
    const struct tensor all[] = {w, m, v, grad};
    const bool wide = cu_wide(OP_ADAMW8_BLOCK / 32, all, 4);
    CU_DTYPE(w.dtype, T, CU_WIDE(wide, WIDE, {
                 CU_LAUNCH(dev, (adamw8_kernel<T, WIDE>), cu_blocks(args.n, OPTIMIZER_THREADS * 8), OPTIMIZER_THREADS, 0, (T *)w.data,
                           args);
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
