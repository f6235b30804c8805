// The part of cuda_runtime.h that kernels/cuda uses, for g++: see ../simt.h.
#pragma once
#include "tests/simt/simt.h"

#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

#define threadIdx (simt::self->idx)
#define blockIdx (simt::block_idx)
#define blockDim (simt::block_dim)
#define gridDim (simt::grid_dim)
#define warpSize 32

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
static inline int2 make_int2(int x, int y)
{
    return {x, y};
}
static inline int4 make_int4(int x, int y, int z, int w)
{
    return {x, y, z, w};
}

// ---- barriers, lanes ----
#define __syncthreads() simt::barrier(0, 0, __FILE__, __LINE__)
static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    simt::warp_sync(mask);
}
template <class T> static inline T __shfl_sync(unsigned mask, T v, int from, int width = 32)
{
    simt::exchange(mask, &v, sizeof v, "__shfl_sync");
    T r;
    int l = simt::lane();
    memcpy(&r, simt::peer(l / width * width + (from & (width - 1))), sizeof r);
    return r;
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32)
{
    simt::exchange(mask, &v, sizeof v, "__shfl_xor_sync");
    T r;
    int l = simt::lane(), o = l ^ by;
    memcpy(&r, simt::peer(o / width <= l / width ? o : l), sizeof r);
    return r;
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32)
{
    simt::exchange(mask, &v, sizeof v, "__shfl_up_sync");
    T r;
    int l = simt::lane(), o = l - (int)by;
    memcpy(&r, simt::peer(o >= l / width * width ? o : l), sizeof r);
    return r;
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32)
{
    simt::exchange(mask, &v, sizeof v, "__shfl_down_sync");
    T r;
    int l = simt::lane(), o = l + (int)by;
    memcpy(&r, simt::peer(o < (l / width + 1) * width ? o : l), sizeof r);
    return r;
}
static inline unsigned __ballot_sync(unsigned mask, int v)
{
    simt::exchange(mask, &v, sizeof v, "__ballot_sync");
    unsigned r = 0;
    for (int l = 0; l < 32; l++)
        if (simt::exchange_mask() >> l & 1) r |= (unsigned)(*(const int *)simt::peer(l) != 0) << l;
    return r;
}
static inline int __any_sync(unsigned mask, int v)
{
    return __ballot_sync(mask, v) != 0;
}
static inline int __all_sync(unsigned mask, int v)
{
    return __ballot_sync(mask, v) == simt::exchange_mask();
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T v)
{
    simt::exchange(mask, &v, sizeof v, "__match_any_sync");
    unsigned r = 0;
    for (int l = 0; l < 32; l++)
        if (simt::exchange_mask() >> l & 1) r |= (unsigned)!memcmp(simt::peer(l), &v, sizeof v) << l;
    return r;
}
static inline unsigned __activemask()
{
    return 0xffffffffu;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// ---- arithmetic ----
static inline float __uint_as_float(unsigned u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline unsigned __float_as_uint(float f)
{
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline int __float_as_int(float f)
{
    return (int)__float_as_uint(f);
}
static inline float __int_as_float(int i)
{
    return __uint_as_float((unsigned)i);
}
#define __expf expf // glibc declares these names
#define __logf logf
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}
template <class T> static inline T __ldcs(const T *p)
{
    return *p;
}
template <class T> static inline void __stcs(T *p, T v)
{
    *p = v;
}
template <class T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

// ---- atomics: threads run one at a time ----
template <class T, class V> static inline T atomicAdd(T *p, V v)
{
    T was = *p;
    *p = was + (T)v;
    return was;
}
template <class T, class V> static inline T atomicMax(T *p, V v)
{
    T was = *p;
    if (was < (T)v) *p = (T)v;
    return was;
}
template <class T, class V> static inline T atomicMin(T *p, V v)
{
    T was = *p;
    if ((T)v < was) *p = (T)v;
    return was;
}
template <class T, class V> static inline T atomicOr(T *p, V v)
{
    T was = *p;
    *p = was | (T)v;
    return was;
}
template <class T, class V> static inline T atomicExch(T *p, V v)
{
    T was = *p;
    *p = (T)v;
    return was;
}
template <class T, class V> static inline T atomicCAS(T *p, V compare, V v)
{
    T was = *p;
    if (was == (T)compare) *p = (T)v;
    return was;
}

// ---- the runtime: ../runtime.cc ----
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorECCUncorrectable = 214,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
struct cudaDeviceProp {
    char name[256];
    int major, minor, multiProcessorCount, l2CacheSize;
    size_t sharedMemPerBlockOptin, totalGlobalMem;
};
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int i);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int i);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
cudaError_t cudaMalloc(void **p, size_t size);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t size);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char *cudaGetErrorName(cudaError_t e);
const char *cudaGetErrorString(cudaError_t e);
typedef struct simt_graph *cudaGraph_t, *cudaGraphExec_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
typedef struct simt_graph_node *cudaGraphNode_t;
cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t *nodes, size_t *n_node);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
void simt_run(std::function<void()> f); // now, or when the graph that is being recorded is launched
cudaError_t simt_launch_check();        // a failure of a launch that a test asked for
