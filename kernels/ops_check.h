// What the dispatchers in ops.c and ops_loss.c share: one check of a tensor against what an op wants of it, and the call of the backend.
// A dispatcher reads: WANT(…) for each argument, then RUN or RUN_SCRATCH. Both leave the function early: after a failure nothing runs.
#pragma once
#include "kernels/ops.h"

enum { // dtypes an argument may have: a mask
    T_F32 = 1 << DT_F32,
    T_BF16 = 1 << DT_BF16,
    T_F16 = 1 << DT_F16,
    T_I32 = 1 << DT_I32,
    T_U8 = 1 << DT_U8,
    T_E4M3 = 1 << DT_E4M3,
    T_A = T_F32 | T_BF16, // activations and matrices
    T_ANY = T_A | T_F16 | T_I32 | T_U8,
};
enum {           // how it may lie; without a flag: there, and contiguous rows
    OPT = 1,     // may be none
    STRIDED = 2, // only the last dimension need be contiguous
    PANEL = 4,   // may be packed
    FREE = 8,    // any strides
};
enum { ANY_N = -1 };

// Whether t is as wanted; if not, dev_fail with the argument's name, what was wanted and what was found.
bool op_want(struct device *dev, const char *op, const char *arg, struct tensor t, int types, int flags, int rank, const int64_t shape[4]);
// False after a failure, and when the backend has no such entry (which fails then).
bool op_ready(struct device *dev, const char *op, bool entry_there);
void op_done(struct device *dev);

#define WANT(t, types, flags, rank, ...)                                                                                                   \
    do {                                                                                                                                   \
        if (!op_want(dev, __func__, #t, t, types, flags, rank, (const int64_t[4]){__VA_ARGS__})) return;                                   \
    } while (0)
#define REQUIRE(cond, ...)                                                                                                                 \
    do {                                                                                                                                   \
        if (!(cond)) {                                                                                                                     \
            dev_fail(dev, __func__, __VA_ARGS__);                                                                                          \
            return;                                                                                                                        \
        }                                                                                                                                  \
    } while (0)
// The entry, unless measuring.
#define RUN(entry, ...)                                                                                                                    \
    do {                                                                                                                                   \
        if (!op_ready(dev, __func__, dev->backend->entry != NULL) || dev->measuring) return;                                               \
        dev->backend->entry(dev, __VA_ARGS__);                                                                                             \
        op_done(dev);                                                                                                                      \
    } while (0)
// The entry, also while measuring (it takes its scratch and returns); what it took is given back.
#define RUN_SCRATCH(entry, ...)                                                                                                            \
    do {                                                                                                                                   \
        if (!op_ready(dev, __func__, dev->backend->entry != NULL)) return;                                                                 \
        size_t mark_ = dev_mark(dev);                                                                                                      \
        dev->backend->entry(dev, __VA_ARGS__);                                                                                             \
        dev_release(dev, mark_);                                                                                                           \
        if (!dev->measuring) op_done(dev);                                                                                                 \
    } while (0)
