// The arrays of a test where the device reads them: on the CPU the arrays themselves, on a GPU copies in its step memory.
#pragma once
#include "kernels/base/arena.h"
#include "kernels/ops.h"

static inline size_t memory_of(struct tensor t) // bytes from the first element to the last
{
    int64_t last = 0;
    for (int d = 0; d < t.rank; d++) {
        if (t.shape[d] == 0) return 0;
        last += (t.shape[d] - 1) * t.stride[d];
    }
    return (size_t)(last + 1) * dtype_size(t.dtype);
}
static inline struct tensor on_device(struct device *dev, struct tensor host)
{
    if (dev->backend->host_memory || dev->measuring) return host;
    struct tensor t = host;
    const size_t n = memory_of(host);
    t.data = arena_alloc(&dev->arena, n);
    op_upload(dev, tensor_1d(t.data, DT_U8, (int64_t)n), host.data);
    return t;
}
// What the op left in `there` (on_device's answer) comes back.
static inline void off_device(struct device *dev, struct tensor host, struct tensor there)
{
    if (there.data != host.data) op_download(dev, host.data, tensor_1d(there.data, DT_U8, (int64_t)memory_of(there)));
}
