// A ring of places in shared memory that one part of a block fills and another empties, each with mbarriers to say so.
#pragma once
#include "kernels/cuda/ptx.cuh"

// Where in the ring, and which turn of it.
struct ring_place {
    int slot, parity;
};
template <int STAGES> __device__ __forceinline__ void ring_next(struct ring_place *r)
{
    if (++r->slot < STAGES) return;
    r->slot = 0;
    r->parity ^= 1;
}
