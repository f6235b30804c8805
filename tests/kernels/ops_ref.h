// One row for each op of struct backend: how to make a case of it, how to call it, and what it must give: a naive reference in double. The
// rows stand in ops_ref.c and ops_ref_rows.c; test_ops.c runs them all on every instruction set.
#pragma once
#include "kernels/ops.h"

#include <stddef.h>

enum { // of an argument
    IN = 0,
    OUT = 1,    // compared after the call. What it holds before is random: ops that accumulate add to it
    BY_ROW = 2, // its first dimension is the op's rows: one row alone must give the same bits
    HOST = 4,   // stays in the host's memory, on every device
};
enum { MAX_ARG = 12, MAX_DIM = 6, MAX_SHAPE = 14 };

struct op_arg {
    struct tensor t;
    int flags;
    void *init;   // what its memory holds before the call
    size_t size;  // of that memory, bytes
    double *ref;  // its elements in order: before `ref` runs the initial ones, after it what an output must be
    double len;   // of an output: how many additions made an element. 0: exact
    double slack; // of an output: what more an element may be off, for values that a backend may round on the way
};
struct op_case {
    enum dtype dtype; // of the activations
    const int64_t *dim;
    int n_arg;
    struct op_arg arg[MAX_ARG];
};
struct op_row {
    const char *name;
    size_t offset; // of its entry in struct backend
    void (*setup)(struct op_case *c);
    void (*call)(struct device *dev, const struct op_case *c, struct tensor *x); // x: the arguments' tensors
    void (*ref)(struct op_case *c);
    int64_t dim[MAX_SHAPE][MAX_DIM]; // ends with a row of zeros... unless dim[i][0] is NO_ROWS
};
enum { NO_ROWS = -1 }; // as dim[i][0]: an empty case; rows(c) is 0 then
int64_t rows(const struct op_case *c);

extern const struct op_row op_rows_plain[], op_rows_heads[], op_rows_loss[], op_rows_fp8[]; // each ends with name NULL
#define OP_ROW(entry) .name = #entry, .offset = offsetof(struct backend, entry)

// A new argument of random normal numbers times `size` (an i32: zeros), rows `pad` elements longer than they look; its element i is set by
// arg_set. Shapes end at the first negative.
struct op_arg *arg_add(struct op_case *c, int flags, enum dtype t, double size, int64_t pad, int64_t d0, int64_t d1, int64_t d2,
                       int64_t d3);
void arg_set(struct op_arg *a, int64_t i, double v); // in `init` and in `ref`, rounded to its type
double tensor_get(struct tensor t, int64_t i);       // through strides; u8 (8) is one double, others are bytes
void case_free(struct op_case *c);
