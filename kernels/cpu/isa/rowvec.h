// The row maths of kernels/rows/ over this instruction set's vectors, and loops over the elements of rows.
#pragma once
#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/vec.h"
#define ROW_T vf
#define ROW_EXP vf_exp
#define ROW_SQRT vf_sqrt
#define ROW_SET vf_set1

// Element-wise work over (n, d) is shared out in pieces of a row, so that one long row feeds all threads too.
enum { PIECE = 8192 };
struct pieces {
    int64_t n, d, per_row, n_piece;
};
static inline __attribute__((unused)) struct pieces pieces_of(int64_t n, int64_t d, bool one_row) // one_row: all tensors are contiguous
{
    if (one_row) {
        d *= n;
        n = 1;
    }
    int64_t per_row = (d + PIECE - 1) / PIECE;
    return (struct pieces){n, d, per_row, n * per_row};
}
// Where element (row, col) of a tensor of rank 2 with contiguous rows lies.
static inline __attribute__((unused)) void *row_at(struct tensor t, int64_t row, int64_t col)
{
    return (char *)t.data + (row * t.stride[0] + col) * (int64_t)dtype_size(t.dtype);
}
