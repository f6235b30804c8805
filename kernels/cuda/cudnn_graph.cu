// Building the graph and its plan. The first call that fails ends it: later ones do nothing.
//
// Backward on sm_90: the library's usual way adds up dq by atomics, in any order. Its engines that have it (knob STAGES up to 4, from 9.28
// on) add in one order when that knob is 4; no other engine is taken.
#include "kernels/cuda/cudnn_graph.cuh"

#if HAVE_CUDNN
#include <string.h>

typedef cudnnBackendDescriptor_t desc_t;
enum { ORDERED = 4, N_CONFIG = 4, N_KNOB = 16 };
struct builder {
    const struct cudnn_calls *lib;
    const struct cudnn_target *target;
    const struct sdpa *s;
    struct sdpa_plan *p;
};

static void failed(struct builder *b, cudnnStatus_t st, const char *what)
{
    if (!st || b->p->status) return;
    b->p->status = (int)st;
    b->p->what = what;
}
static desc_t made(struct builder *b, cudnnBackendDescriptorType_t type, const char *what)
{
    desc_t d = NULL;
    if (b->p->status) return NULL;
    if (b->p->n_made == SDPA_MADE_MAX)
        failed(b, CUDNN_STATUS_INTERNAL_ERROR, what);
    else
        failed(b, b->lib->BackendCreateDescriptor(type, &d), what);
    if (d) b->p->made[b->p->n_made++] = d;
    return d;
}
static void set(struct builder *b, desc_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n,
                const void *value, const char *what)
{
    if (!b->p->status) failed(b, b->lib->BackendSetAttribute(d, name, type, n, value), what);
}
static void set_desc(struct builder *b, desc_t d, cudnnBackendAttributeName_t name, desc_t value, const char *what)
{
    set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value, what);
}
static void set_int(struct builder *b, desc_t d, cudnnBackendAttributeName_t name, int64_t value, const char *what)
{
    set(b, d, name, CUDNN_TYPE_INT64, 1, &value, what);
}
static void finish(struct builder *b, desc_t d, const char *what)
{
    if (!b->p->status) failed(b, b->lib->BackendFinalize(d), what);
}

// ---- tensors ----------------------------------------------------------------------------------------------------------------------------

enum place { ON_DEVICE, ON_HOST, INSIDE }; // ON_HOST: its value is read when the plan is run
static desc_t tensor(struct builder *b, int uid, cudnnDataType_t type, const int64_t dim[4], const int64_t stride[4], enum place place,
                     desc_t offset)
{
    static const char what[] = "a tensor";
    const int64_t align = 16;
    const bool yes = true;
    desc_t d = made(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR, what);
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, what);
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, what);
    set_int(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, uid, what);
    set_int(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, align, what);
    if (offset) set_desc(b, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, offset, "a tensor of segments");
    if (place == INSIDE) set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes, what);
    if (place == ON_HOST) set(b, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes, what);
    finish(b, d, what);
    return d;
}
static desc_t of_segments(struct builder *b, int which)
{
    const struct sdpa *s = b->s;
    const bool keys = which == SDPA_K || which == SDPA_V || which == SDPA_DK || which == SDPA_DV;
    const bool values = which == SDPA_V || which == SDPA_OUT || which == SDPA_DOUT || which == SDPA_DV;
    const int64_t one[4] = {1, 1, 1, 1}, n[4] = {s->n_seg + 1, 1, 1, 1};
    const int64_t dim[4] = {s->n_seg, keys ? s->n_kv : s->n_head, s->max_len, which == SDPA_LSE ? 1 : values ? s->dv : s->dk};
    const int64_t stride[4] = {s->max_len * s->row[which], s->head[which], s->row[which], 1};
    desc_t offset = tensor(b, SDPA_OFFSET + which, CUDNN_DATA_INT64, n, one, ON_DEVICE, NULL);
    return tensor(b, SDPA_TENSOR + which, which == SDPA_LSE ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16, dim, stride, ON_DEVICE, offset);
}
static desc_t number(struct builder *b, int uid)
{
    const int64_t one[4] = {1, 1, 1, 1};
    return tensor(b, uid, CUDNN_DATA_FLOAT, one, one, ON_HOST, NULL);
}
static desc_t lengths(struct builder *b, int uid)
{
    const int64_t one[4] = {1, 1, 1, 1}, n[4] = {b->s->n_seg, 1, 1, 1};
    return tensor(b, uid, CUDNN_DATA_INT32, n, one, ON_DEVICE, NULL);
}
static desc_t scores(struct builder *b, int which)
{
    const int64_t h = b->s->n_head, n = b->s->max_len, dim[4] = {b->s->n_seg, h, n, n}, stride[4] = {h * n * n, n * n, n, 1};
    return tensor(b, SDPA_SCORES + which, CUDNN_DATA_FLOAT, dim, stride, INSIDE, NULL);
}

// ---- operations -------------------------------------------------------------------------------------------------------------------------

// Scores x where `row mode column` (left: where column + left mode row), else `masked`.
static desc_t band(struct builder *b, desc_t x, desc_t y, desc_t masked, cudnnPointwiseMode_t mode, desc_t left)
{
    static const char what[] = "the mask";
    desc_t d = made(b, CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR, what);
    set_desc(b, d, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC, x, what);
    set_desc(b, d, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC, masked, what);
    if (left) set_desc(b, d, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_LEFT_BOUND_DESC, left, what);
    set_desc(b, d, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC, y, what);
    set(b, d, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, what);
    finish(b, d, what);
    return d;
}
static desc_t graph_of(struct builder *b, desc_t *op, int n, cudnnHandle_t handle, const char *what)
{
    desc_t d = made(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, what);
    if (handle) set(b, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle, what);
    set(b, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, op, what);
    finish(b, d, what);
    return d;
}
static desc_t mask_of(struct builder *b)
{
    const int n = b->s->window ? 2 : 1;
    desc_t x[3] = {NULL}, op[2] = {NULL}, masked = number(b, SDPA_MASKED);
    for (int i = 0; i <= n; i++) x[i] = scores(b, i);
    op[0] = band(b, x[0], x[1], masked, CUDNN_POINTWISE_CMP_GE, NULL);
    if (n > 1) op[1] = band(b, x[1], x[2], masked, CUDNN_POINTWISE_CMP_GT, number(b, SDPA_WINDOW));
    return graph_of(b, op, n, NULL, "the mask's graph");
}

#define FORWARD(name) CUDNN_ATTR_OPERATION_SDPA_FWD_##name
#define BACKWARD(name) CUDNN_ATTR_OPERATION_SDPA_BWD_##name
#define EITHER(name) (back ? BACKWARD(name) : FORWARD(name))
static desc_t operation(struct builder *b)
{
    const bool back = b->s->backward;
    const char *what = back ? "the operation, backward" : "the operation";
    desc_t d = made(b, back ? CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR : CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, what);
    set_desc(b, d, EITHER(QDESC), of_segments(b, SDPA_Q), what);
    set_desc(b, d, EITHER(KDESC), of_segments(b, SDPA_K), what);
    set_desc(b, d, EITHER(VDESC), of_segments(b, SDPA_V), what);
    set_desc(b, d, EITHER(ODESC), of_segments(b, SDPA_OUT), what);
    set_desc(b, d, EITHER(STATSDESC), of_segments(b, SDPA_LSE), what);
    set_desc(b, d, EITHER(SCALEDESC), number(b, SDPA_SCALE), what);
    set_desc(b, d, EITHER(SEQ_LEN_QDESC), lengths(b, SDPA_LEN_Q), what);
    set_desc(b, d, EITHER(SEQ_LEN_KVDESC), lengths(b, SDPA_LEN_K), what);
    set_desc(b, d, EITHER(SUBGRAPH), mask_of(b), what);
    set_int(b, d, EITHER(SUBGRAPH_INPUT_UID), SDPA_SCORES, what);
    set_int(b, d, EITHER(SUBGRAPH_OUTPUT_UID), SDPA_SCORES + (b->s->window ? 2 : 1), what);
    if (back) {
        set_desc(b, d, BACKWARD(DODDESC), of_segments(b, SDPA_DOUT), what);
        set_desc(b, d, BACKWARD(DQDESC), of_segments(b, SDPA_DQ), what);
        set_desc(b, d, BACKWARD(DKDESC), of_segments(b, SDPA_DK), what);
        set_desc(b, d, BACKWARD(DVDESC), of_segments(b, SDPA_DV), what);
        set_int(b, d, BACKWARD(MAX_TOTAL_SEQ_LEN_Q), b->s->n_row, what);
        set_int(b, d, BACKWARD(MAX_TOTAL_SEQ_LEN_KV), b->s->n_row, what);
    }
    finish(b, d, what);
    return d;
}

// ---- plans ------------------------------------------------------------------------------------------------------------------------------

static void for_device(struct builder *b, desc_t d, cudnnBackendAttributeName_t name, const char *what)
{
    if (b->target->device) set_desc(b, d, name, b->target->device, what);
}
static int64_t get_int(struct builder *b, desc_t d, cudnnBackendAttributeName_t name, int64_t otherwise)
{
    int64_t n = 0, value = otherwise;
    if (b->p->status || b->lib->BackendGetAttribute(d, name, CUDNN_TYPE_INT64, 1, &n, &value) || n != 1) return otherwise;
    return value;
}
// What the library answers, in its order. `to` holds descriptors made before.
static int64_t get_descs(struct builder *b, desc_t d, cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type, desc_t *to,
                         int most)
{
    int64_t n = 0;
    for (int i = 0; i < most; i++) to[i] = made(b, type, "what the library proposes");
    if (b->p->status || b->lib->BackendGetAttribute(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &n, to)) return 0;
    return n < most ? n : most;
}
static int proposals(struct builder *b, desc_t graph, desc_t config[N_CONFIG])
{
    static const char what[] = "the heuristics";
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    desc_t d = made(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, what);
    set_desc(b, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph, what);
    set(b, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, what);
    for_device(b, d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, what);
    finish(b, d, what);
    return (int)get_descs(b, d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, config, N_CONFIG);
}

static int64_t engine_of(struct builder *b, desc_t config)
{
    desc_t engine;
    if (!get_descs(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine, 1)) return -1;
    return get_int(b, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1);
}
static bool is_stages(struct builder *b, desc_t knob, cudnnBackendAttributeName_t name)
{
    cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
    int64_t n = 0;
    return !b->lib->BackendGetAttribute(knob, name, CUDNN_TYPE_KNOB_TYPE, 1, &n, &type) && type == CUDNN_KNOB_TYPE_STAGES;
}
// The proposed configuration with its sums in one order. NULL: its engine has no such knob.
static desc_t ordered(struct builder *b, desc_t graph, desc_t config)
{
    static const char what[] = "the configuration with sums in one order";
    desc_t engine, info[N_KNOB], choice[N_KNOB + 1];
    int n = 0, most = 0;
    if (!get_descs(b, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine, 1)) return NULL;
    const int n_info = (int)get_descs(b, engine, CUDNN_ATTR_ENGINE_KNOB_INFO, CUDNN_BACKEND_KNOB_INFO_DESCRIPTOR, info, N_KNOB);
    for (int i = 0; i < n_info; i++)
        if (is_stages(b, info[i], CUDNN_ATTR_KNOB_INFO_TYPE)) most = (int)get_int(b, info[i], CUDNN_ATTR_KNOB_INFO_MAXIMUM_VALUE, 0);
    if (most < ORDERED) return NULL;
    const int n_choice = (int)get_descs(b, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, choice, N_KNOB);
    for (int i = 0; i < n_choice; i++)
        if (!is_stages(b, choice[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE)) choice[n++] = choice[i];
    const cudnnBackendKnobType_t stages = CUDNN_KNOB_TYPE_STAGES;
    choice[n] = made(b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, what);
    set(b, choice[n], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &stages, what);
    set_int(b, choice[n], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, ORDERED, what);
    finish(b, choice[n++], what);
    desc_t with = made(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR, what), d = made(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, what);
    set_desc(b, with, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph, what);
    set_int(b, with, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, get_int(b, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1), what);
    for_device(b, with, CUDNN_ATTR_ENGINE_DEVICEPROP, what);
    finish(b, with, what);
    set_desc(b, d, CUDNN_ATTR_ENGINECFG_ENGINE, with, what);
    set(b, d, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, choice, what);
    finish(b, d, what);
    return d;
}
static bool plan_of(struct builder *b, desc_t config, int64_t workspace_most)
{
    static const char what[] = "the plan";
    desc_t d = made(b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, what);
    if (b->target->handle) set(b, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->target->handle, what);
    set_desc(b, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config, what);
    for_device(b, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, what);
    finish(b, d, what);
    const int64_t bytes = get_int(b, d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, -1);
    if (b->p->status) return false;
    b->p->workspace = bytes;
    if (bytes < 0 || bytes > workspace_most) {
        failed(b, CUDNN_STATUS_NOT_SUPPORTED, "its workspace");
        return false;
    }
    b->p->plan = d;
    return true;
}

bool sdpa_plan_make(const struct cudnn_calls *lib, const struct cudnn_target *target, const struct sdpa *s, int64_t workspace_most,
                    struct sdpa_plan *p)
{
    struct builder b = {lib, target, s, p};
    memset(p, 0, sizeof *p);
    desc_t op = operation(&b), graph = graph_of(&b, &op, 1, target->handle, "the graph"), config[N_CONFIG];
    const int n = proposals(&b, graph, config);
    for (int i = 0; i < n && !p->plan; i++) {
        p->status = 0; // another proposal may do
        desc_t c = s->backward ? ordered(&b, graph, config[i]) : config[i];
        if (c && plan_of(&b, c, workspace_most)) p->engine = engine_of(&b, config[i]);
    }
    if (!p->plan) failed(&b, CUDNN_STATUS_NOT_SUPPORTED, n ? "sums in one order" : "an engine");
    if (!p->plan) sdpa_plan_free(lib, p);
    return p->plan != NULL;
}
void sdpa_plan_free(const struct cudnn_calls *lib, struct sdpa_plan *p)
{
    while (p->n_made) lib->BackendDestroyDescriptor(p->made[--p->n_made]);
    p->plan = NULL;
}

cudnnStatus_t sdpa_plan_run(const struct cudnn_calls *lib, cudnnHandle_t handle, const struct sdpa_plan *p, const int64_t *uid,
                            void **pointer, int n, void *workspace)
{
    desc_t d = NULL;
    cudnnStatus_t st = lib->BackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &d);
    if (!st) st = lib->BackendSetAttribute(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uid);
    if (!st) st = lib->BackendSetAttribute(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointer);
    if (!st) st = lib->BackendSetAttribute(d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (!st) st = lib->BackendFinalize(d);
    if (!st) st = lib->BackendExecute(handle, p->plan, d);
    if (d) lib->BackendDestroyDescriptor(d);
    return st;
}
#endif
