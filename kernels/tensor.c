// Views: shapes, strides, and the words messages use for them.
#include "kernels/tensor.h"

#include "kernels/base/status.h"

#include <stdio.h>

size_t dtype_size(enum dtype t)
{
    static const size_t size[N_DTYPE] = {[DT_F32] = 4, [DT_BF16] = 2, [DT_F16] = 2, [DT_I32] = 4, [DT_U8] = 1, [DT_E4M3] = 1};
    return size[t];
}

const char *dtype_name(enum dtype t)
{
    static const char *const name[N_DTYPE] = {
        [DT_F32] = "f32", [DT_BF16] = "bf16", [DT_F16] = "f16", [DT_I32] = "i32", [DT_U8] = "u8", [DT_E4M3] = "e4m3"};
    return t < N_DTYPE ? name[t] : "?";
}

static struct tensor contiguous(void *data, enum dtype t, int rank, const int64_t *shape)
{
    struct tensor r = {.data = data, .dtype = t, .layout = LAYOUT_ROWS, .rank = rank};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        r.shape[i] = shape[i];
        r.stride[i] = stride;
        stride *= shape[i];
    }
    return r;
}

struct tensor tensor_1d(void *data, enum dtype t, int64_t a)
{
    return contiguous(data, t, 1, (int64_t[]){a});
}
struct tensor tensor_2d(void *data, enum dtype t, int64_t a, int64_t b)
{
    return contiguous(data, t, 2, (int64_t[]){a, b});
}
struct tensor tensor_3d(void *data, enum dtype t, int64_t a, int64_t b, int64_t c)
{
    return contiguous(data, t, 3, (int64_t[]){a, b, c});
}
struct tensor tensor_4d(void *data, enum dtype t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return contiguous(data, t, 4, (int64_t[]){a, b, c, d});
}

// Moves the view by n elements of stride 1; a view of nothing stays one (its address is not there to be moved).
static void *advance(struct tensor t, int64_t n)
{
    return t.data ? (char *)t.data + n * (int64_t)dtype_size(t.dtype) : NULL;
}

struct tensor tensor_rows(struct tensor t, int64_t first, int64_t n)
{
    if (t.layout != LAYOUT_ROWS || first < 0 || n < 0 || first + n > t.shape[0])
        BUG("rows %lld .. %lld of a tensor of %lld", (long long)first, (long long)(first + n), (long long)t.shape[0]);
    t.data = advance(t, first * t.stride[0]);
    t.shape[0] = n;
    return t;
}

struct tensor tensor_heads(struct tensor t, int64_t n_head)
{
    if (t.layout != LAYOUT_ROWS || t.rank != 2 || n_head <= 0 || t.shape[1] % n_head || t.stride[1] != 1)
        BUG("%lld heads of a row of %lld", (long long)n_head, (long long)t.shape[1]);
    t.rank = 3;
    t.shape[2] = t.shape[1] / n_head;
    t.shape[1] = n_head;
    t.stride[1] = t.shape[2];
    t.stride[2] = 1;
    return t;
}

struct tensor tensor_cols(struct tensor t, int64_t first, int64_t len)
{
    int last = t.rank - 1;
    if (t.layout != LAYOUT_ROWS || first < 0 || len < 0 || first + len > t.shape[last])
        BUG("columns %lld .. %lld of %lld", (long long)first, (long long)(first + len), (long long)t.shape[last]);
    t.data = advance(t, first * t.stride[last]);
    t.shape[last] = len;
    return t;
}

struct tensor tensor_flat(struct tensor t)
{
    if (t.layout != LAYOUT_ROWS || t.rank != 3 || t.stride[2] != 1 || t.stride[1] != t.shape[2])
        BUG("flattening a tensor whose heads are apart");
    t.rank = 2;
    t.shape[1] *= t.shape[2];
    t.stride[1] = 1;
    t.shape[2] = t.stride[2] = 0;
    return t;
}

int64_t tensor_numel(struct tensor t)
{
    int64_t n = t.rank > 0;
    for (int i = 0; i < t.rank; i++) n *= t.shape[i];
    return n;
}

size_t tensor_bytes(struct tensor t)
{
    return (size_t)tensor_numel(t) * dtype_size(t.dtype);
}

bool tensor_contiguous(struct tensor t)
{
    int64_t stride = 1;
    if (t.layout != LAYOUT_ROWS) return false;
    for (int i = t.rank - 1; i >= 0; i--) {
        if (t.shape[i] != 1 && t.stride[i] != stride) return false;
        stride *= t.shape[i];
    }
    return true;
}

void tensor_describe(struct tensor t, char *buf, size_t n)
{
    if (tensor_none(t) && !t.rank) {
        snprintf(buf, n, "none");
        return;
    }
    size_t at = 0;
    at += (size_t)snprintf(buf, n, "%s (", dtype_name(t.dtype));
    for (int i = 0; i < t.rank && at < n; i++) at += (size_t)snprintf(buf + at, n - at, i ? ", %lld" : "%lld", (long long)t.shape[i]);
    if (at < n) at += (size_t)snprintf(buf + at, n - at, ")%s", t.layout == LAYOUT_PANEL ? " panel" : "");
    if (t.layout == LAYOUT_ROWS && !tensor_contiguous(t)) {
        for (int i = 0; i < t.rank && at < n; i++)
            at += (size_t)snprintf(buf + at, n - at, i ? ", %lld" : " strides (%lld", (long long)t.stride[i]);
        if (at < n) snprintf(buf + at, n - at, ")");
    }
}
