// What the tests of single ops share: every instruction set this machine runs, seeded numbers, tensors in host memory read as doubles.
// A device's arena is planned by running the op once while measuring, so each test also shows that the plan suffices.
#pragma once
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "tests/gpu.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// The CPU's instruction sets and, where `list` has room for one more, the GPU, emulated. Returns how many.
static inline int device_list(const struct backend *list[N_CPU_ISA + 1])
{
    struct err err = {0};
    int n = cpu_backend_list(list);
    if (test_gpu() && !cuda_backend(&list[n], "cuda", &err)) n++;
    return n;
}
// For checks of single elements: Check's own assertions write to a file each time, which takes longer than the op.
#define want(cond, ...)                                                                                                                    \
    do {                                                                                                                                   \
        if (!(cond)) ck_abort_msg(__VA_ARGS__);                                                                                            \
    } while (0)
static inline void device_open(struct device *dev, const char *name, int n_thread)
{
    struct err err = {0};
    if (dev_open(dev, name, n_thread, &err)) ck_abort_msg("%s", err.text);
}
// Runs the statement measuring, reserves exactly what it took, runs it for good.
#define PLANNED(dev, ...)                                                                                                                  \
    do {                                                                                                                                   \
        struct err err_ = {0};                                                                                                             \
        dev_measure(dev);                                                                                                                  \
        __VA_ARGS__;                                                                                                                       \
        if (dev_reserve(dev, (dev)->arena.peak, &err_)) ck_abort_msg("%s", err_.text);                                                     \
        __VA_ARGS__;                                                                                                                       \
        if (dev_check(dev, &err_)) ck_abort_msg("%s", err_.text);                                                                          \
    } while (0)

// As PLANNED, in memory reserved beforehand: for many small calls.
#define RESERVED(dev, ...)                                                                                                                 \
    do {                                                                                                                                   \
        struct err err_ = {0};                                                                                                             \
        if (!(dev)->arena.base && dev_reserve(dev, 64 << 20, &err_)) ck_abort_msg("%s", err_.text);                                        \
        __VA_ARGS__;                                                                                                                       \
        if (dev_check(dev, &err_)) ck_abort_msg("%s", err_.text);                                                                          \
    } while (0)
static inline double at(struct tensor t, int64_t i) // of its contiguous elements, or through strides up to rank 4
{
    int64_t off = 0;
    for (int d = t.rank - 1; d >= 0; d--) {
        off += i % t.shape[d] * t.stride[d];
        i /= t.shape[d];
    }
    if (t.dtype == DT_F32) return ((float *)t.data)[off];
    if (t.dtype == DT_BF16) return bf16_to_f32(((bf16 *)t.data)[off]);
    if (t.dtype == DT_E4M3) return e4m3_to_f32(((e4m3 *)t.data)[off]);
    return ((int32_t *)t.data)[off];
}
static inline void put(struct tensor t, int64_t i, double v)
{
    int64_t off = 0;
    for (int d = t.rank - 1; d >= 0; d--) {
        off += i % t.shape[d] * t.stride[d];
        i /= t.shape[d];
    }
    if (t.dtype == DT_F32)
        ((float *)t.data)[off] = (float)v;
    else if (t.dtype == DT_E4M3)
        ((e4m3 *)t.data)[off] = f32_to_e4m3((float)v);
    else
        ((bf16 *)t.data)[off] = f32_to_bf16((float)v);
}
static inline void fill(struct tensor t, uint64_t stream, double size)
{
    for (int64_t i = 0; i < tensor_numel(t); i++) put(t, i, size * rng_normal(7, stream, (uint64_t)i));
}
// Zeroed memory, a cache line aligned, for as long as the test's process lives; the list lets the leak checker see that it is meant to.
struct kept {
    struct kept *next;
    _Alignas(64) unsigned char data[];
};
static inline void *keep(size_t size_bytes)
{
    static struct kept *all;
    struct kept *k = aligned_alloc(64, (sizeof *k + size_bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(k);
    memset(k, 0, sizeof *k + size_bytes);
    k->next = all;
    all = k;
    return k->data;
}
// A random (a, b, c) tensor, rows of `pad` more elements than c, kept. b 0: rank 2.
static inline struct tensor make(enum dtype t, int64_t a, int64_t b, int64_t c, int64_t pad, uint64_t stream)
{
    const int64_t heads = b ? b : 1;
    struct tensor x = {.data = keep((size_t)(a * heads * (c + pad) + 1) * dtype_size(t)), .dtype = t, .rank = b ? 3 : 2};
    if (b)
        x.shape[0] = a, x.shape[1] = b, x.shape[2] = c, x.stride[0] = b * (c + pad), x.stride[1] = c + pad, x.stride[2] = 1;
    else
        x.shape[0] = a, x.shape[1] = c, x.stride[0] = c + pad, x.stride[1] = 1;
    fill(x, stream, 1);
    return x;
}
// How far a sum of n terms in f32, in any order, may be off when their sizes add up to `size`; plus the rounding of a result near `value`.
static inline double sum_slack(double n, double size, double value, enum dtype out)
{
    return (n + 4) * FLT_EPSILON * size + (out == DT_BF16 ? fabs(value) / 256 : 0) + 1e-30;
}
