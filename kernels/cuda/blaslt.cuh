// Products by cuBLASLt, found at run time: the binary starts without it. Algorithms are chosen by shape: measured once, kept on disk.
#pragma once
#include "kernels/cuda/device.cuh"

// As the library sees it, by columns: d (m, n) = op(a) (m, k) · op(b) (k, n) + bias (m), or d += the product. A matrix of ours, rows of
// `ld` elements, is its transpose there: op(a) is a (k, m) of ours read as it stands if ta, a (m, k)… of the library's if not.
struct library_product {
    int64_t m, n, k;
    bool ta, tb;         // op transposes
    enum dtype type, td; // of a and b; of d
    const void *a, *b, *bias;
    void *d;
    int64_t lda, ldb, ldd; // elements from column to column
    bool add;
    // e4m3, ta and not tb: of a a scale for each 128 × 128 (k along, columns ⌈k/128⌉ rounded up to 4 apart), of b one for each 128 along k
    // of a column (columns along). Both at 16 bytes; m and n multiples of 4, k and the leading dimensions of 16. sm_90 alone has it.
    const float *a_scale, *b_scale;
};
// False if the library refuses, and nothing is done. Fails the device when it is not to be had.
bool blaslt_try(struct device *dev, const struct library_product *p);
// The same, what it refuses by our own plain kernel: f32 and bf16.
void blaslt_multiply(struct device *dev, const struct library_product *p);
void blaslt_close(struct blaslt *b); // writes what was measured
