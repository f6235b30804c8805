// Element by element: sums, SwiGLU, the rotation of queries and keys.
#include "kernels/cuda/ptx.cuh"
#include "kernels/rows/rope.h"
#include "kernels/rows/silu.h"

// Each block takes a piece of a row, or several rows that are short: (n, d) with a stride a tensor.
enum { ROW_THREADS = 256 };
static unsigned plane_grid(const struct device *dev, int64_t n, int64_t each)
{
    const unsigned want = cu_blocks(n, ROW_THREADS * each), most = (unsigned)cuda_of(dev)->n_sm * 16;
    return want < most ? want : most;
}
// Values that a thread takes at once: as many as 16 bytes hold, if all rows begin at 16 bytes and end at a multiple of it, else one.
static int vector_of(enum dtype t, int64_t d, const struct tensor *x, int n_x)
{
    const int64_t each = 16 / (int64_t)dtype_size(t);
    bool fits = d % each == 0;
    for (int i = 0; i < n_x; i++) fits = fits && (uintptr_t)x[i].data % 16 == 0 && (x[i].shape[0] == 1 || x[i].stride[0] % each == 0);
    return fits ? (int)each : 1;
}

template <class T, int N> __global__ void add_kernel(T *out, const T *a, const T *b, int64_t n)
{
    cu_wait_earlier();
    typedef cu_vec<T, N> V;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n / N; i += (int64_t)gridDim.x * blockDim.x) {
        const V x = ((const V *)a)[i], y = ((const V *)b)[i];
        V r;
        for (int j = 0; j < N; j++) r.v[j] = cu_from<T>(cu_f32(x.v[j]) + cu_f32(y.v[j]));
        ((V *)out)[i] = r;
    }
}
extern "C" void cuda_add(struct device *dev, struct tensor out, struct tensor a, struct tensor b)
{
    const int64_t n = tensor_numel(out);
    const struct tensor flat[] = {tensor_2d(out.data, out.dtype, 1, n), tensor_2d(a.data, a.dtype, 1, n), tensor_2d(b.data, b.dtype, 1, n)};
    const bool wide = vector_of(out.dtype, n, flat, 3) > 1;
    CU_DTYPE(out.dtype, T, {
        enum { N = 16 / sizeof(T) };
        if (wide)
            CU_LAUNCH_EARLY(dev, (add_kernel<T, N>), plane_grid(dev, n, N), ROW_THREADS, 0, (T *)out.data, (const T *)a.data,
                            (const T *)b.data, n);
        else
            CU_LAUNCH_EARLY(dev, (add_kernel<T, 1>), plane_grid(dev, n, 1), ROW_THREADS, 0, (T *)out.data, (const T *)a.data,
                            (const T *)b.data, n);
    });
}

struct silu_args {
    int64_t n, d;                            // pieces of N values in all, and in a row
    int64_t out, gate, up, dout, dgate, dup; // strides of rows, in pieces
};
template <class T, int N> __global__ void silu_mul_kernel(T *out, const T *gate, const T *up, struct silu_args s)
{
    cu_wait_earlier();
    typedef cu_vec<T, N> V;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < s.n; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t r = i / s.d, c = i % s.d;
        const V g = ((const V *)gate)[r * s.gate + c], u = ((const V *)up)[r * s.up + c];
        V o;
        for (int j = 0; j < N; j++) o.v[j] = cu_from<T>(row_silu_mul(cu_f32(g.v[j]), cu_f32(u.v[j])));
        ((V *)out)[r * s.out + c] = o;
    }
}
template <class T, int N>
__global__ void silu_mul_bwd_kernel(T *dgate, T *dup, const T *dout, const T *gate, const T *up, struct silu_args s)
{
    typedef cu_vec<T, N> V;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < s.n; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t r = i / s.d, c = i % s.d;
        const V g = ((const V *)gate)[r * s.gate + c], u = ((const V *)up)[r * s.up + c], o = ((const V *)dout)[r * s.dout + c];
        V dg, du;
        for (int j = 0; j < N; j++) {
            float a, b;
            row_silu_mul_bwd(&a, &b, cu_f32(o.v[j]), cu_f32(g.v[j]), cu_f32(u.v[j]));
            dg.v[j] = cu_from<T>(a);
            du.v[j] = cu_from<T>(b);
        }
        ((V *)dgate)[r * s.dgate + c] = dg;
        ((V *)dup)[r * s.dup + c] = du;
    }
}
extern "C" void cuda_silu_mul(struct device *dev, struct tensor out, struct tensor gate, struct tensor up)
{
    const struct tensor all[] = {out, gate, up};
    const int64_t n = tensor_numel(out), d = out.shape[1], v = vector_of(out.dtype, d, all, 3);
    struct silu_args s = {};
    s.n = n / v, s.d = d / v, s.out = out.stride[0] / v, s.gate = gate.stride[0] / v, s.up = up.stride[0] / v;
    CU_DTYPE(out.dtype, T, {
        enum { N = 16 / sizeof(T) };
        if (v > 1)
            CU_LAUNCH_EARLY(dev, (silu_mul_kernel<T, N>), plane_grid(dev, n, N), ROW_THREADS, 0, (T *)out.data, (const T *)gate.data,
                            (const T *)up.data, s);
        else
            CU_LAUNCH_EARLY(dev, (silu_mul_kernel<T, 1>), plane_grid(dev, n, 1), ROW_THREADS, 0, (T *)out.data, (const T *)gate.data,
                            (const T *)up.data, s);
    });
}
extern "C" void cuda_silu_mul_bwd(struct device *dev, struct tensor dgate, struct tensor dup, struct tensor dout, struct tensor gate,
                                  struct tensor up)
{
    const struct tensor all[] = {dgate, dup, dout, gate, up};
    const int64_t n = tensor_numel(gate), d = gate.shape[1], v = vector_of(gate.dtype, d, all, 5);
    struct silu_args s = {};
    s.n = n / v, s.d = d / v, s.gate = gate.stride[0] / v, s.up = up.stride[0] / v, s.dout = dout.stride[0] / v;
    s.dgate = dgate.stride[0] / v, s.dup = dup.stride[0] / v;
    CU_DTYPE(gate.dtype, T, {
        enum { N = 16 / sizeof(T) };
        if (v > 1)
            CU_LAUNCH(dev, (silu_mul_bwd_kernel<T, N>), plane_grid(dev, n, N), ROW_THREADS, 0, (T *)dgate.data, (T *)dup.data,
                      (const T *)dout.data, (const T *)gate.data, (const T *)up.data, s);
        else
            CU_LAUNCH(dev, (silu_mul_bwd_kernel<T, 1>), plane_grid(dev, n, 1), ROW_THREADS, 0, (T *)dgate.data, (T *)dup.data,
                      (const T *)dout.data, (const T *)gate.data, (const T *)up.data, s);
    });
}

// ---- rotation
// -----------------------------------------------------------------------------------------------------------------------------

// A block a token: its angles once, then all its heads.
template <class T>
__global__ void rope_kernel(T *x, const int32_t *pos, const float *inv_freq, int n_head, int half, int64_t row, int64_t head, float mscale,
                            bool pairs, bool inverse)
{
    cu_wait_earlier();
    CU_SHARED(float, angle, OP_ROPE_MAX); // cosines, then sines
    const int64_t r = blockIdx.x;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float s, c;
        row_sincos((float)pos[r] * inv_freq[i], &s, &c);
        angle[i] = c * mscale;
        angle[half + i] = (inverse ? -s : s) * mscale;
    }
    __syncthreads();
    for (int j = threadIdx.x; j < n_head * half; j += blockDim.x) {
        const int i = j % half;
        T *p = x + r * row + j / half * head + (pairs ? 2 * i : i), *q = p + (pairs ? 1 : half);
        float a = cu_f32(*p), b = cu_f32(*q);
        row_rotate(&a, &b, angle[i], angle[half + i]);
        *p = cu_from<T>(a);
        *q = cu_from<T>(b);
    }
}
extern "C" void cuda_rope(struct device *dev, struct tensor x, const struct segments *seg, struct tensor inv_freq, float mscale,
                          enum rope_order order, bool inverse)
{
    const int n_head = (int)x.shape[1], half = (int)x.shape[2] / 2, work = n_head * half;
    const unsigned threads = work >= 256 ? 256 : (unsigned)(work + 31) / 32 * 32;
    CU_DTYPE(x.dtype, T, {
        CU_LAUNCH_EARLY(dev, rope_kernel<T>, (unsigned)x.shape[0], threads, 0, (T *)x.data, seg->pos, (const float *)inv_freq.data, n_head,
                        half, x.stride[0], x.stride[1], mscale, order == ROPE_PAIRS, inverse);
    });
}
