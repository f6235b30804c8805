// A tensor is a view by value: what the bytes at `data` mean. It never owns memory (arenas and file mappings do).
#pragma once
#include "kernels/base/half.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype { DT_F32, DT_BF16, DT_F16, DT_I32, DT_U8, DT_E4M3, N_DTYPE }; // e4m3: the values of FP8 weights, their scales apart

// How a matrix lies in memory. Ops choose their kernel by it: a weight packed into panels is multiplied by our batch-invariant kernels
// (generation: a row's result never depends on the other rows), a plain one by the library's GEMM (training).
enum layout {
    LAYOUT_ROWS,  // element strides as in `stride`
    LAYOUT_PANEL, // a weight (n, k) packed by op_pack; the backend's own order, shape kept, strides meaningless
};

struct tensor {
    void *data;
    enum dtype dtype;
    enum layout layout;
    int rank;          // 0..4
    int64_t shape[4];  // outermost first
    int64_t stride[4]; // in elements
};

size_t dtype_size(enum dtype t);
const char *dtype_name(enum dtype t); // "f32", "bf16", …

// Contiguous views over memory of the caller's.
struct tensor tensor_1d(void *data, enum dtype t, int64_t a);
struct tensor tensor_2d(void *data, enum dtype t, int64_t a, int64_t b);
struct tensor tensor_3d(void *data, enum dtype t, int64_t a, int64_t b, int64_t c);
struct tensor tensor_4d(void *data, enum dtype t, int64_t a, int64_t b, int64_t c, int64_t d);
// Rows [first, first + n) of the outermost dimension.
struct tensor tensor_rows(struct tensor t, int64_t first, int64_t n);
// (n, h*d) seen as (n, h, d): splits the last dimension.
struct tensor tensor_heads(struct tensor t, int64_t n_head);
// (n, h, d) → (n, h, len): columns [first, first+len) of the last dimension, strides kept.
struct tensor tensor_cols(struct tensor t, int64_t first, int64_t len);
// (n, h, d) contiguous → (n, h*d).
struct tensor tensor_flat(struct tensor t);
int64_t tensor_numel(struct tensor t);
size_t tensor_bytes(struct tensor t); // of the contiguous rows layout
bool tensor_contiguous(struct tensor t);
static inline bool tensor_none(struct tensor t)
{
    return t.data == NULL;
}
void tensor_describe(struct tensor t, char *buf, size_t n); // "bf16 (12, 4, 64)"
#define TENSOR_NONE ((struct tensor){0})
