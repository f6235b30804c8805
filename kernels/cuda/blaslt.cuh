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
};
// Fails the device when the library is not to be had; a shape that it refuses is done by our own plain kernel.
void blaslt_multiply(struct device *dev, const struct library_product *p);
void blaslt_close(struct blaslt *b); // writes what was measured
