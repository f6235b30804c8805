// What every .cu file includes: the house's headers, launching a kernel, shared memory, reductions, values of either dtype.
//
// The same text is compiled by nvcc, and by g++ for tests against an emulation that runs each thread and checks barriers, bounds and races
// (tests/simt). So kernels are launched by cu_launch, shared memory is held in smem<T>, and inline PTX stands in ptx.cuh alone.
#pragma once
#include <cuda_runtime.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern "C" {
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/entries.h"
}

static const size_t STAGE_BYTES = 1 << 20;
enum { N_STAGE = 16 };
// What a kernel found wrong with its data, in the host's memory: told when the device is next waited for. Of several, any one.
enum cuda_trouble_code {
    TROUBLE_NONE,
    TROUBLE_TOKEN,
    TROUBLE_EXPERT,
    TROUBLE_TOKEN_BWD,
    TROUBLE_CHOICE,
    TROUBLE_ROW,
    TROUBLE_ROW_TO,
    TROUBLE_TARGET
};
struct cuda_trouble {
    int code, row, found, limit; // TOKEN, TARGET: id `found` in `row`, a vocabulary of `limit`. EXPERT: `found` has `row` rows, no weights
                                 // here CHOICE: expert `found` of token `row`, of `limit`. ROW, ROW_TO: `found` of `limit`
};
struct graphs; // graph.cu: steps that were recorded
struct blaslt; // blaslt.cu: the library and its tuned products
struct cudnn;  // cudnn.cu: the library and its plans
struct cuda_state {
    int index; // of the device
    cudaStream_t stream;
    int n_sm, arch; // multiprocessors; 90 for sm_90
    bool wgmma;     // an sm_90, and this build has the kernels that only it runs (sm_90a)
    size_t shared_max, l2_bytes;
    struct {
        char *host;                // pinned, N_STAGE pieces of STAGE_BYTES
        cudaEvent_t free[N_STAGE]; // the copies out of a piece have ended
        int now;                   // the piece being filled …
        size_t used;               // … up to here
    } stage;                       // uploads go through it, so that the host need not wait for each
    struct cuda_trouble *trouble;
    struct blaslt *blaslt;
    struct cudnn *cudnn;
    struct graphs *graphs;
    bool recording;    // into a graph: nothing may wait
    bool early;        // kernels may be launched early: sm_90 and newer, unless DISTILL_CUDA_EARLY=0
    bool after_kernel; // what was last put into the stream is a kernel of ours
};
void graphs_free(struct graphs *g);
static inline struct cuda_state *cuda_of(const struct device *dev)
{
    return (struct cuda_state *)dev->state;
}
static inline cudaStream_t cuda_stream(const struct device *dev) // for all but our kernels
{
    cuda_of(dev)->after_kernel = false;
    return cuda_of(dev)->stream;
}
// Whether a call went well; if not, it sticks in the device: "op_x on cuda:0: what: CUDA's message", with the shapes of the op's tensors.
bool cuda_ok(struct device *dev, cudaError_t e, const char *what);

// ---- launching ------------------------------------------------------------------------------------------------------------------------
// CU_LAUNCH(dev, (kernel<T>), grid, block, shared_bytes, arguments…): on the device's stream. Nothing is launched for an empty grid or
// after a failure. Arguments are converted to the kernel's parameters.
//
// CU_LAUNCH_EARLY: the same for a kernel that begins with cu_wait_earlier() (ptx.cuh). If the stream's last work is a kernel of ours, its
// blocks may be placed while that one still runs, as soon as all of that one's blocks are (programmatic dependent launch): a decode step
// is a thousand kernels of microseconds, one after the other. A kernel that does not wait is never launched so, hence each ends after all
// that came before it.
#define CU_LAUNCH(dev, kernel, ...) cu_launch(dev, #kernel, false, kernel, __VA_ARGS__)
#define CU_LAUNCH_EARLY(dev, kernel, ...) cu_launch(dev, #kernel, true, kernel, __VA_ARGS__)
bool cuda_launch_begin(struct device *dev, const char *name, dim3 grid);
void cuda_launch_end(struct device *dev, const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaError_t e);

template <class T> struct cu_same {
    typedef T type;
};
// What a launch hands over: 4 KiB is what every toolkit and GPU takes.
template <class... P> constexpr size_t cu_parameter_bytes()
{
    size_t n = 0;
    ((n = (n + alignof(P) - 1) / alignof(P) * alignof(P) + sizeof(P)), ...);
    return n;
}
#ifdef __CUDACC__
template <class... P>
static void cu_launch(struct device *dev, const char *name, bool early, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                      typename cu_same<P>::type... arg)
{
    static_assert(cu_parameter_bytes<P...>() <= 4096, "parameters of a kernel");
    if (!cuda_launch_begin(dev, name, grid)) return;
    struct cuda_state *s = cuda_of(dev);
    void *args[] = {(void *)&arg..., nullptr};
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared_bytes, config.stream = s->stream;
    config.attrs = &attribute, config.numAttrs = early && s->early && s->after_kernel;
    cudaError_t e = cudaSuccess;
    if (shared_bytes > 48 << 10)
        e = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (!e) e = cudaLaunchKernelExC(&config, (const void *)kernel, args);
    s->after_kernel = true;
    cuda_launch_end(dev, name, grid, block, shared_bytes, e);
}
#else
template <class... P>
static void cu_launch(struct device *dev, const char *name, bool early, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                      typename cu_same<P>::type... arg)
{
    static_assert(cu_parameter_bytes<P...>() <= 4096, "parameters of a kernel");
    if (!cuda_launch_begin(dev, name, grid)) return;
    cudaError_t e = simt_launch_check();
    if (!e) simt_run([=] { simt::launch(name, grid, block, shared_bytes, early, [=] { kernel(arg...); }); });
    cuda_launch_end(dev, name, grid, block, shared_bytes, e);
}
#endif
static inline unsigned cu_blocks(int64_t n, int64_t each) // of `each` items for n items
{
    return (unsigned)((n + each - 1) / each);
}

// ---- shared memory ----------------------------------------------------------------------------------------------------------------------
// CU_SHARED(float, name, 32): an array of the block's, name[i]. CU_SHARED_DYNAMIC(name): the launch's bytes, an smem<unsigned char>;
// name.as<T>(byte offset) looks at it as T. raw(i): a plain address for the instructions of ptx.cuh, which check it themselves.
#ifdef __CUDACC__
template <class T> struct smem {
    T *p;
    __device__ __forceinline__ T &operator[](int i) const { return p[i]; }
    __device__ __forceinline__ smem operator+(int i) const { return smem{p + i}; }
    __device__ __forceinline__ T *raw(int i = 0) const { return p + i; }
    template <class U> __device__ __forceinline__ smem<U> as(size_t bytes = 0) const { return smem<U>{(U *)((char *)p + bytes)}; }
};
#define CU_SHARED(T, name, n)                                                                                                              \
    __shared__ __align__(16) T name##_memory[n];                                                                                           \
    const smem<T> name = {name##_memory}
#define CU_SHARED_DYNAMIC(name)                                                                                                            \
    extern __shared__ __align__(1024) unsigned char cu_dynamic_memory[];                                                                   \
    const smem<unsigned char> name = {cu_dynamic_memory}
#else
template <class T> struct smem {
    T *p;
    struct ref {
        T *p;
        operator T() const
        {
            simt::shared_touch(p, sizeof(T), false);
            return *p;
        }
        const ref &operator=(T v) const
        {
            simt::shared_touch(p, sizeof(T), true);
            *p = v;
            return *this;
        }
        const ref &operator=(const ref &o) const { return *this = (T)o; }
        const ref &operator+=(T v) const { return *this = (T)((T) * this + v); }
    };
    ref operator[](int i) const { return ref{p + i}; }
    smem operator+(int i) const { return smem{p + i}; }
    T *raw(int i = 0) const { return p + i; }
    template <class U> smem<U> as(size_t bytes = 0) const { return smem<U>{(U *)((char *)p + bytes)}; }
};
#define CU_SHARED(T, name, n)                                                                                                              \
    static const char name##_key = 0;                                                                                                      \
    const smem<T> name = {(T *)simt::shared_static(&name##_key, sizeof(T) * (n), alignof(T))}
#define CU_SHARED_DYNAMIC(name) const smem<unsigned char> name = {(unsigned char *)simt::shared_dynamic()}
#endif

// ---- values -----------------------------------------------------------------------------------------------------------------------------
struct half_t { // f16, which as a number is the same C type as bf16
    f16 bits;
};
__device__ __forceinline__ float cu_f32(float x)
{
    return x;
}
__device__ __forceinline__ float cu_f32(bf16 x)
{
    return __uint_as_float((unsigned)x << 16);
}
__device__ __forceinline__ float cu_f32(half_t x)
{
    return f16_to_f32(x.bits);
}
template <class T> __device__ __forceinline__ T cu_from(float x);
template <> __device__ __forceinline__ float cu_from<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 cu_from<bf16>(float x)
{
    return f32_to_bf16(x);
}
// N values at once, of 16 bytes at most; the address must be aligned to their size.
template <class T, int N> struct alignas(sizeof(T) * N) cu_vec {
    T v[N];
};
// CU_DTYPE(dtype, T, { … }): the block with T as float or bf16.
#define CU_DTYPE(dtype_, T, ...)                                                                                                           \
    do {                                                                                                                                   \
        if ((dtype_) == DT_F32) {                                                                                                          \
            typedef float T;                                                                                                               \
            __VA_ARGS__                                                                                                                    \
        } else {                                                                                                                           \
            typedef bf16 T;                                                                                                                \
            __VA_ARGS__                                                                                                                    \
        }                                                                                                                                  \
    } while (0)

// For kernels: see struct cuda_trouble. Which of several is told does not matter.
__device__ __forceinline__ void cu_trouble(struct cuda_trouble *t, int code, int row, int found, int limit)
{
    t->row = row;
    t->found = found;
    t->limit = limit;
    t->code = code;
}

// ---- reductions: one fixed order, whatever the block's size allows ----------------------------------------------------------------------
struct cu_add {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct cu_max {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a > b ? a : b; }
};
// Over the lanes of a warp: every lane has the result.
template <class T, class Op> __device__ __forceinline__ T cu_warp_reduce(T v, Op op)
{
    for (int by = 16; by > 0; by /= 2) v = op(v, __shfl_xor_sync(0xffffffffu, v, by));
    return v;
}
// Over a block of whole warps, all threads calling: every thread has the result. room: 32 values of shared memory, free again after the
// next barrier. `none` is what op leaves alone.
template <class T, class Op> __device__ __forceinline__ T cu_block_reduce(T v, Op op, T none, smem<T> room)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warp = (blockDim.x + 31) / 32;
    v = cu_warp_reduce(v, op);
    __syncthreads(); // room may still be read from the reduction before
    if (lane == 0) room[warp] = v;
    __syncthreads();
    v = lane < n_warp ? (T)room[lane] : none;
    return cu_warp_reduce(v, op);
}
