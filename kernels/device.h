// A device is one CPU or one GPU: the table of its ops, the arena of its step memory, and a sticky error.
//
// Ops return nothing. The first failure sticks in the device with the op, the shapes and the cause; later ops do nothing; the caller asks
// dev_check() once a step. With `sync` every op is waited for and checked as it ends, to find the culprit.
// While `measuring`, ops check shapes and count their scratch memory but touch no data.
#pragma once
#include "kernels/base/arena.h"
#include "kernels/tensor.h"

struct backend; // ops.h: the op table

struct device {
    const struct backend *backend;
    struct arena arena; // step memory: activations, saved values, scratch; used as a stack by mark and release
    bool measuring;     // same as arena.measuring
    bool sync;
    bool batch_invariant; // products with packed weights, of many rows too, by the kernels that promise it; dev_open sets it
    int n_thread;
    struct err error; // sticky
    void *state;      // the backend's own (streams, handles, caches of compiled primitives)
    // The op that was checked last, and its tensors: what a failure of the backend is told with.
    const char *op;
    int n_seen;
    bool seen_all; // its check is over
    struct tensor seen[8];
    uint64_t n_arena; // taken so far: a step recorded over memory that was given back is not found again
};

const char *dev_default(void); // "cuda" if there is a GPU and the backend for it, else "cpu"
// Opens "cpu", "cpu:avx2" …, "cuda", "cuda:1" …, or "auto": the default. n_thread 0: as many as the process may run on.
// The arena is empty: dev_reserve or dev_measure it.
enum status dev_open(struct device *dev, const char *name, int n_thread, struct err *err);
void dev_close(struct device *dev);
// Memory of the device for an arena of any use (weights, cache, gradients). ST_FAIL: needed against free. arena_free gives it back, and
// must come before dev_close.
enum status dev_arena(struct device *dev, struct arena *a, const char *name, size_t size_bytes, struct err *err);
size_t dev_available_bytes(struct device *dev);                                  // what could still be taken
void dev_measure(struct device *dev);                                            // until dev_reserve
enum status dev_reserve(struct device *dev, size_t size_bytes, struct err *err); // real memory for the arena; ends measuring
enum status dev_check(struct device *dev, struct err *err);                      // moves the sticky error out; ST_OK if none
void dev_fail(struct device *dev, const char *op, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); // for ops; the first one sticks
void dev_fail_op(struct device *dev, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); // for backends: of the op that runs, with the shapes of its tensors

// A stretch of many small ops costs more to launch than to run. Between dev_step_begin and dev_step_end stand ops that do the same over the
// same memory whenever `key` (n ≤ 80 bytes: shapes, bounds, addresses) is the same; what they read may differ. True: the device has begun
// them as it recorded them, and they are to be skipped. False: run them. dev_step_end follows either way. Neither uploads nor downloads
// between, but where the step pauses: what stands between dev_step_pause and dev_step_resume is never recorded and always runs.
bool dev_step_begin(struct device *dev, const void *key, size_t n);
void dev_step_pause(struct device *dev); // DEV_STEP_PARTS - 1 times at most
void dev_step_resume(struct device *dev);
void dev_step_end(struct device *dev);
enum { DEV_STEP_PARTS = 2 };
bool dev_records(const struct device *dev); // whether steps that repeat gain by it: then it pays to make them repeat

// Step memory. Contents are undefined until written (ops that accumulate say so; clear with op_zero).
struct tensor dev_1d(struct device *dev, enum dtype t, int64_t a);
struct tensor dev_2d(struct device *dev, enum dtype t, int64_t a, int64_t b);
struct tensor dev_3d(struct device *dev, enum dtype t, int64_t a, int64_t b, int64_t c);
static inline size_t dev_mark(const struct device *dev)
{
    return arena_mark(&dev->arena);
}
static inline void dev_release(struct device *dev, size_t mark)
{
    arena_release(&dev->arena, mark);
}
