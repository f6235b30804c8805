// Rows in chunks of N elements, one chunk a thread at once: 16 bytes of the narrower dtype. Which elements a chunk holds does not depend on
// how it is read: by words of 16 bytes where all rows begin at them (WIDE), else one by one. So a sum over a row has one order wherever
// the row lies, and a row alone gives the same bits as among others.
#pragma once
#include "kernels/cuda/ptx.cuh"

// Before a loop over what must stay in registers.
#ifdef __CUDACC__
#define CU_UNROLL _Pragma("unroll")
#else
#define CU_UNROLL
#endif

template <class T, int N> struct cu_chunk {
    T v[N];
};
// Elements [i, i + N) of a row of n; zeros beyond its end.
template <bool WIDE, int N, class T> __device__ __forceinline__ cu_chunk<T, N> cu_load(const T *row, int64_t i, int64_t n)
{
    enum { EACH = N * sizeof(T) < 16 ? N : 16 / sizeof(T) };
    cu_chunk<T, N> c;
    if (WIDE && i + N <= n) {
        CU_UNROLL
        for (int j = 0; j < N; j += EACH) {
            const cu_vec<T, EACH> v = *(const cu_vec<T, EACH> *)(row + i + j);
            CU_UNROLL
            for (int l = 0; l < EACH; l++) c.v[j + l] = v.v[l];
        }
    } else {
        CU_UNROLL
        for (int j = 0; j < N; j++) c.v[j] = i + j < n ? row[i + j] : T(0);
    }
    return c;
}
// What lies beyond the row's end is left out.
template <bool WIDE, int N, class T> __device__ __forceinline__ void cu_store(T *row, int64_t i, int64_t n, cu_chunk<T, N> c)
{
    enum { EACH = N * sizeof(T) < 16 ? N : 16 / sizeof(T) };
    if (WIDE && i + N <= n) {
        CU_UNROLL
        for (int j = 0; j < N; j += EACH) {
            cu_vec<T, EACH> v;
            CU_UNROLL
            for (int l = 0; l < EACH; l++) v.v[l] = c.v[j + l];
            *(cu_vec<T, EACH> *)(row + i + j) = v;
        }
    } else {
        CU_UNROLL
        for (int j = 0; j < N; j++)
            if (i + j < n) row[i + j] = c.v[j];
    }
}
// Whether all rows of these tensors begin at the words that chunks of n elements are read by.
static inline bool cu_wide(int n, const struct tensor *x, int n_x)
{
    bool wide = true;
    for (int i = 0; i < n_x; i++) {
        const int64_t size = (int64_t)dtype_size(x[i].dtype), word = n * size < 16 ? n * size : 16;
        wide = wide && (uintptr_t)x[i].data % (uintptr_t)word == 0;
        for (int d = 0; d + 1 < x[i].rank; d++) wide = wide && (x[i].shape[d] == 1 || x[i].stride[d] * size % word == 0);
    }
    return wide;
}
// CU_WIDE(wide, WIDE, { … }): the block with WIDE as a constant.
#define CU_WIDE(wide_, WIDE, ...)                                                                                                          \
    do {                                                                                                                                   \
        if (wide_) {                                                                                                                       \
            enum { WIDE = 1 };                                                                                                             \
            __VA_ARGS__                                                                                                                    \
        } else {                                                                                                                           \
            enum { WIDE = 0 };                                                                                                             \
            __VA_ARGS__                                                                                                                    \
        }                                                                                                                                  \
    } while (0)
// Rows of chunks, a block a row and perhaps a piece of it: threads of a block, and pieces, for rows of n_chunk.
static inline unsigned cu_row_threads(int64_t n_chunk)
{
    return n_chunk >= 256 ? 256 : (unsigned)(n_chunk + 31) / 32 * 32;
}
static inline unsigned cu_row_pieces(int64_t n_chunk)
{
    return n_chunk > 64 * 256 ? 64 : cu_blocks(n_chunk, 256);
}
