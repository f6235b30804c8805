// Sums of columns: each block sums its rows into a row of partial sums, whose number depends on the shape alone, and these are added in
// order.
#pragma once
#include "kernels/cuda/device.cuh"

// out[c] += the sum of column c of part (n_part, d), in double. A block has 32 columns, eight rows at once.
static __global__ void column_add_kernel(float *out, const float *part, int n_part, int64_t d)
{
    CU_SHARED(double, room, 256);
    const int lane = threadIdx.x % 32, at = threadIdx.x / 32;
    const int64_t c = (int64_t)blockIdx.x * 32 + lane;
    double sum = 0;
    if (c < d)
        for (int64_t r = at; r < n_part; r += 8) sum += (double)part[r * d + c];
    room[at * 32 + lane] = sum;
    __syncthreads();
    if (at || c >= d) return;
    for (int j = 1; j < 8; j++) sum += room[j * 32 + lane];
    out[c] += (float)sum;
}
static inline void column_add(struct device *dev, struct tensor out, const float *part, int n_part)
{
    const int64_t d = out.shape[0];
    CU_LAUNCH(dev, column_add_kernel, cu_blocks(d, 32), 256, 0, (float *)out.data, part, n_part, d);
}
