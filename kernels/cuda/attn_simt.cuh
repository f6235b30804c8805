// Attention without tensor cores: exact in f32, and bf16 heads larger than their tiles. Products of 64 × 64 by 256 threads, 4 × 4 each;
// thread (tx, ty) = (thread % 16, thread / 16) has rows 4 ty + i and columns 4 tx + j. Every element is one sum in one order.
#pragma once
#include "kernels/cuda/attn.cuh"

enum { SIMT_TILE = 64, SIMT_STEPS = 32, SIMT_LD = 68, SIMT_THREADS = 256 }; // steps at once; from a row of shared memory to the next

// acc += (32 steps of x) · (32 steps of y), each step a row of 64.
__device__ __forceinline__ void simt_steps(float acc[4][4], smem<float> x, smem<float> y)
{
    typedef cu_vec<float, 4> V;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll 8
    for (int k = 0; k < SIMT_STEPS; k++) {
        const V a = x.as<V>()[(k * SIMT_LD + ty * 4) / 4], b = y.as<V>()[(k * SIMT_LD + tx * 4) / 4];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) acc[i][j] += a.v[i] * b.v[j];
    }
}
// Columns [c, c + 32) of n of 64 rows as steps: to[column][row].
template <class T> __device__ __forceinline__ void simt_load_t(smem<float> to, const T *from, int64_t stride, int n, int c, int d)
{
    for (int i = threadIdx.x; i < SIMT_TILE * SIMT_STEPS; i += SIMT_THREADS) {
        const int r = i / SIMT_STEPS, k = i % SIMT_STEPS;
        to[k * SIMT_LD + r] = r < n && c + k < d ? cu_f32(from[r * stride + c + k]) : 0.0f;
    }
}
// acc += x · yᵀ: n_x and n_y of 64 rows of d elements.
template <class T>
__device__ void simt_rows(float acc[4][4], smem<float> room_x, smem<float> room_y, const T *x, int64_t x_stride, int n_x, const T *y,
                          int64_t y_stride, int n_y, int d)
{
    for (int c = 0; c < d; c += SIMT_STEPS) {
        __syncthreads();
        simt_load_t(room_x, x, x_stride, n_x, c, d);
        simt_load_t(room_y, y, y_stride, n_y, c, d);
        __syncthreads();
        simt_steps(acc, room_x, room_y);
    }
}
// acc[v] += p · columns [c + 64 v, c + 64 v + 64) of n of y's 64 rows; p[step][row] in shared memory.
template <int N, class T>
__device__ void simt_weigh(float (*acc)[4][4], smem<float> p, smem<float> room, const T *y, int64_t stride, int n, int c, int d)
{
#pragma unroll
    for (int v = 0; v < N; v++, c += SIMT_TILE)
        for (int k = 0; k < SIMT_TILE && c < d; k += SIMT_STEPS) {
            __syncthreads();
            for (int i = threadIdx.x; i < SIMT_STEPS * SIMT_TILE; i += SIMT_THREADS) {
                const int r = i / SIMT_TILE, j = i % SIMT_TILE;
                room[r * SIMT_LD + j] = k + r < n && c + j < d ? cu_f32(y[(k + r) * stride + c + j]) : 0.0f;
            }
            __syncthreads();
            simt_steps(acc[v], p + k * SIMT_LD, room);
        }
}
// Rows of a result: value (4 ty + i, c + 64 v + 4 tx + j) = acc[v][i][j] * by[i].
template <int N, class T>
__device__ __forceinline__ void simt_store(T *to, int64_t stride, int n, int c, int d, const float (*acc)[4][4], const float by[4])
{
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int v = 0; v < N; v++)
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int col = c + v * SIMT_TILE + tx * 4 + j;
                if (ty * 4 + i < n && col < d) to[(ty * 4 + i) * stride + col] = cu_from<T>(acc[v][i][j] * by[i]);
            }
}
// Over the 16 threads that share rows.
template <class Op> __device__ __forceinline__ float simt_reduce(float v, Op op)
{
    for (int by = 8; by > 0; by /= 2) v = op(v, __shfl_xor_sync(0xffffffffu, v, by));
    return v;
}
