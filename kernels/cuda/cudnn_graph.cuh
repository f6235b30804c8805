// Attention as cuDNN's graph API has it, and its plan: what cudnn.cu runs, and what tests/cudnn/plan.cc has the library check without a
// GPU.
//
// Segments lie one after another in rows ("ragged": each tensor has its offsets by segment in device memory, in elements), a query sees the
// keys of its segment up to its own (from the window's first on). The operations are the two that hold all of attention, forward and
// backward, with the mask as their subgraph: cuDNN 9.21 and newer.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined __has_include
#if __has_include(<cudnn.h>)
#include <cudnn.h>
#endif
#endif
#if defined CUDNN_VERSION && CUDNN_VERSION >= 92100
#define HAVE_CUDNN 1
#else
#define HAVE_CUDNN 0 // no headers where this was built, or too old ones
#endif

enum { SDPA_Q, SDPA_K, SDPA_V, SDPA_OUT, SDPA_LSE, SDPA_DOUT, SDPA_DQ, SDPA_DK, SDPA_DV, N_SDPA }; // forward: up to SDPA_LSE
// All of a plan, compared as bytes: cleared before it is filled.
struct sdpa {
    int32_t backward, n_seg, max_len, n_head, n_kv, dk, dv, window;
    int64_t n_row;                     // backward: of all segments, at most
    int64_t row[N_SDPA], head[N_SDPA]; // from a row, a head to the next, elements
};
// Workspace that a plan may take: backward, dq in f32, the sums Σ dout · out, and dk and dv of all heads of queries where they share heads
// of keys; and what is not worth counting. Rows: from one to the next of dq, dk, dv.
enum { SDPA_SPARE = 4 << 20 };
static inline int64_t sdpa_sums_bytes(int64_t n_row, int64_t n_head, int64_t n_kv, int64_t row_dq, int64_t row_dk, int64_t row_dv)
{
    return n_row * (4 * row_dq + 4 * n_head + (n_head > n_kv ? 2 * (n_head / n_kv) * (row_dk + row_dv) : 0));
}
// What a plan is run with, by the unique numbers of its tensors.
enum {
    SDPA_TENSOR = 1,                    // + SDPA_Q …: its first element
    SDPA_OFFSET = SDPA_TENSOR + N_SDPA, // + SDPA_Q …: int64 (n_seg + 1)
    SDPA_LEN_Q = SDPA_OFFSET + N_SDPA,
    SDPA_LEN_K, // int32 (n_seg)
    SDPA_SCALE,
    SDPA_MASKED,
    SDPA_WINDOW, // f32 of the host: the scale, -inf, the window
    SDPA_SCORES, // + 0, 1, 2: of the graph alone
    N_SDPA_BOUND = 2 * N_SDPA + 5
};

#if HAVE_CUDNN
// clang-format off
#define CUDNN_CALLS(X)                                                                                                                     \
    X(Create) X(Destroy) X(SetStream) X(GetVersion)                                                                                        \
    X(BackendCreateDescriptor) X(BackendDestroyDescriptor) X(BackendSetAttribute) X(BackendGetAttribute) X(BackendFinalize)                 \
    X(BackendExecute)
// clang-format on
struct cudnn_calls {
#define X(name) __typeof__(&cudnn##name) name;
    CUDNN_CALLS(X)
#undef X
};
// For whom a plan is made: the device of a handle, or one that is only described.
struct cudnn_target {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t device;
};
enum { SDPA_MADE_MAX = 256 };
struct sdpa_plan {
    cudnnBackendDescriptor_t made[SDPA_MADE_MAX]; // all that it is made of
    int n_made;
    cudnnBackendDescriptor_t plan;
    int64_t workspace;
    int64_t engine;
    int status;       // of the call that failed, 0: none
    const char *what; // and what it was
};
// False: the library has no plan for it that needs at most workspace_most bytes (backward: none that gives the same bits each time).
bool sdpa_plan_make(const struct cudnn_calls *lib, const struct cudnn_target *target, const struct sdpa *s, int64_t workspace_most,
                    struct sdpa_plan *p);
void sdpa_plan_free(const struct cudnn_calls *lib, struct sdpa_plan *p);
// Runs it: pointers by their unique numbers, n of them.
cudnnStatus_t sdpa_plan_run(const struct cudnn_calls *lib, cudnnHandle_t handle, const struct sdpa_plan *p, const int64_t *uid,
                            void **pointer, int n, void *workspace);
#endif
