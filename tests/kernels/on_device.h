// Tensors of a test where the device reads them, and what it wrote back where they came from. On the CPU they stay where they are.
// Elsewhere each is lent as memory of its own, not step memory, which on the emulated GPU ends at a page that is not there, to 16 bytes: an
// op that reads or writes beyond a tensor is found.
//
//     struct lent l = {.dev = &dev};
//     op_add(&dev, lend_out(&l, out), lend_tensor(&l, a), lend_tensor(&l, b));
//     lent_back(&l);
#pragma once
#include "kernels/base/arena.h"
#include "kernels/ops.h"
#include "tests/test.h"

enum { MAX_LENT = 24, LENT_ALIGN = 16 }; // the widest access of a kernel, bytes
struct lent {
    struct device *dev;
    int n;
    struct {
        struct arena mem;
        void *back; // where it returns to; NULL: it is read only
        struct tensor there;
    } item[MAX_LENT];
};
// `size` bytes, as far from a multiple of LENT_ALIGN there as here, so that a kernel takes the same way. NULL stays NULL.
static inline void *lend(struct lent *l, const void *host, size_t size)
{
    struct err err = {0};
    if (l->dev->backend->host_memory || !host) return (void *)(uintptr_t)host;
    const size_t off = (uintptr_t)host % LENT_ALIGN, end = off + (size ? size : 1);
    ck_assert_int_lt(l->n, MAX_LENT);
    ck_ok(dev_arena(l->dev, &l->item[l->n].mem, "lent to the device", (end + LENT_ALIGN - 1) / LENT_ALIGN * LENT_ALIGN, &err));
    l->item[l->n].there = tensor_1d(l->item[l->n].mem.base + off, DT_U8, (int64_t)size);
    op_upload(l->dev, l->item[l->n].there, host);
    return l->item[l->n++].there.data;
}
// From the first element to the last, strides kept.
static inline struct tensor lend_tensor(struct lent *l, struct tensor t)
{
    int64_t n = tensor_numel(t) != 0;
    for (int d = 0; d < t.rank && n; d++) n += (t.shape[d] - 1) * t.stride[d];
    t.data = lend(l, t.data, (size_t)n * dtype_size(t.dtype));
    return t;
}
// One that the device writes.
static inline struct tensor lend_out(struct lent *l, struct tensor t)
{
    const int n = l->n;
    struct tensor there = lend_tensor(l, t);
    if (l->n > n) l->item[n].back = t.data;
    return there;
}
// All that was lent: what was written is on the host again, the device's memory is given back.
static inline void lent_back(struct lent *l)
{
    for (int i = 0; i < l->n; i++) {
        if (l->item[i].back) op_download(l->dev, l->item[i].back, l->item[i].there);
        arena_free(&l->item[i].mem);
    }
    *l = (struct lent){.dev = l->dev};
}
