// A packed weight on the device: rows of k values, each begun at 16 bytes, the gap filled with zeros.
#pragma once
#include "kernels/tensor.h"

static inline int64_t panel_stride(enum dtype t, int64_t k) // elements from row to row
{
    const int64_t each = 16 / (t == DT_F32 ? 4 : t == DT_E4M3 ? 1 : 2);
    return (k + each - 1) / each * each;
}
// Of a weight in either layout.
static inline int64_t weight_stride(struct tensor w)
{
    return w.layout == LAYOUT_PANEL ? panel_stride(w.dtype, w.shape[w.rank - 1]) : w.stride[w.rank - 2];
}
