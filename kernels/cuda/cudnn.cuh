// Attention by cuDNN, found at run time: the program starts without it, and without it, or where it refuses, our own kernels do it all.
#pragma once
#include "kernels/cuda/device.cuh"

// A call of op_attention, or of its backward pass.
struct attention_call {
    bool backward;
    struct tensor q, k, v, out, lse, dout, dq, dk, dv;
    const struct attention *a;
    void *scratch[2];       // of our own kernels
    void *workspace;        // of the library's
    size_t workspace_bytes; // 0: it is not asked
};
// How much workspace the library is given, also while measuring: 0 where it is not asked. By shapes and strides alone, and never more for
// fewer rows.
size_t cudnn_workspace_bytes(struct device *dev, const struct attention_call *c);
// True: done. False: the caller does it by our own kernels; `ours` is the same, for comparison.
bool cudnn_attention(struct device *dev, const struct attention_call *c, void (*ours)(struct device *, const struct attention_call *));
void cudnn_close(struct cudnn *c);
