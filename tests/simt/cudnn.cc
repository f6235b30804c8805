// cuDNN's attention as its documentation defines it, computed plainly. Descriptors are read strictly: an attribute that a descriptor does
// not have, of another type or count, one that is missing, tensors that do not belong together, a number of the variant pack too many: an
// error.
//
// As on an H100, only an engine whose knob STAGES is 4 adds up dq in one order: with another one results change from run to run. The
// workspace is written to its last byte.
//
// DISTILL_SIMT_CUDNN: what is wrong with the library. "old": its version; "refuses": no engine; "greedy": a workspace of 1 GiB; "wrong": no
// query sees its segment's first key, but that key's own; "restless": other bits each time; "fails": it does not run.
#include "kernels/base/half.h"
#include "tests/simt/simt_state.h"

#include <cudnn.h>
#include <map>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <vector>

struct simt_cudnn {
    int none;
};
namespace
{
int n_run;
bool it(const char *what)
{
    const char *s = getenv("DISTILL_SIMT_CUDNN");
    return s && !strcmp(s, what);
}

typedef cudnnBackendAttributeName_t name_t;
struct value {
    cudnnBackendAttributeType_t type;
    int64_t n;
    std::vector<int64_t> v; // each in a word
};
struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool final;
    std::map<int, value> has;
    int64_t number(int name, int64_t otherwise = -1) const
    {
        const auto at = has.find(name);
        return at == has.end() ? otherwise : at->second.v[0];
    }
    const descriptor *desc(int name) const { return (const descriptor *)(intptr_t)number(name, 0); }
    bool set(int name) const { return has.count(name) != 0; }
};
descriptor *of(cudnnBackendDescriptor_t d)
{
    return (descriptor *)d;
}

// ---- what descriptors have --------------------------------------------------------------------------------------------------------------

struct rule {
    int descriptor, name;
    cudnnBackendAttributeType_t type;
    int least, most; // elements
    bool required;
};
#define DESC CUDNN_TYPE_BACKEND_DESCRIPTOR
#define SDPA(type, dir)                                                                                                                    \
    {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_QDESC, DESC, 1, 1, true}, {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_KDESC, DESC, 1, 1, true},  \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_VDESC, DESC, 1, 1, true},                                                                 \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_ODESC, DESC, 1, 1, true},                                                                 \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_STATSDESC, DESC, 1, 1, type == CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR},              \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_SCALEDESC, DESC, 1, 1, false},                                                            \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_SEQ_LEN_QDESC, DESC, 1, 1, true},                                                         \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_SEQ_LEN_KVDESC, DESC, 1, 1, true},                                                        \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_SUBGRAPH, DESC, 1, 1, true},                                                              \
        {type, CUDNN_ATTR_OPERATION_SDPA_##dir##_SUBGRAPH_INPUT_UID, CUDNN_TYPE_INT64, 1, 1, true},                                        \
    {                                                                                                                                      \
        type, CUDNN_ATTR_OPERATION_SDPA_##dir##_SUBGRAPH_OUTPUT_UID, CUDNN_TYPE_INT64, 1, 1, true                                          \
    }
const int FWD = CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, BWD = CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR,
          BAND = CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR, GRAPH = CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
          TENSOR = CUDNN_BACKEND_TENSOR_DESCRIPTOR, HEUR = CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, ENGINE = CUDNN_BACKEND_ENGINE_DESCRIPTOR,
          CONFIG = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, PLAN = CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
          CHOICE = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, PACK = CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR;
const rule rules[] = {
    {TENSOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
    {TENSOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, 4, true},
    {TENSOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, 4, true},
    {TENSOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, true},
    {TENSOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, true},
    {TENSOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, false},
    {TENSOR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, false},
    {TENSOR, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, DESC, 1, 1, false},
    {BAND, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC, DESC, 1, 1, true},
    {BAND, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC, DESC, 1, 1, true},
    {BAND, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC, DESC, 1, 1, true},
    {BAND, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_LEFT_BOUND_DESC, DESC, 1, 1, false},
    {BAND, CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, 1, true},
    SDPA(FWD, FWD),
    SDPA(BWD, BWD),
    {BWD, CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC, DESC, 1, 1, true},
    {BWD, CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC, DESC, 1, 1, true},
    {BWD, CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC, DESC, 1, 1, true},
    {BWD, CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC, DESC, 1, 1, true},
    {BWD, CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_Q, CUDNN_TYPE_INT64, 1, 1, true},
    {BWD, CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_KV, CUDNN_TYPE_INT64, 1, 1, true},
    {GRAPH, CUDNN_ATTR_OPERATIONGRAPH_OPS, DESC, 1, 2, true},
    {GRAPH, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, false},
    {HEUR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, DESC, 1, 1, true},
    {HEUR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, true},
    {ENGINE, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, DESC, 1, 1, true},
    {ENGINE, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, 1, true},
    {CHOICE, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, 1, true},
    {CHOICE, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, 1, true},
    {CONFIG, CUDNN_ATTR_ENGINECFG_ENGINE, DESC, 1, 1, true},
    {CONFIG, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, DESC, 1, 32, false},
    {PLAN, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, true},
    {PLAN, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, DESC, 1, 1, true},
    {PACK, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, 64, true},
    {PACK, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 64, true},
    {PACK, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, true},
};
size_t size_of(cudnnBackendAttributeType_t t)
{
    switch (t) {
    case CUDNN_TYPE_BOOLEAN:
        return 1;
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_HEUR_MODE:
    case CUDNN_TYPE_KNOB_TYPE:
    case CUDNN_TYPE_POINTWISE_MODE:
        return 4;
    default:
        return 8;
    }
}

// ---- what a finished descriptor means ---------------------------------------------------------------------------------------------------

struct sdpa { // 0 to 8: q, k, v, out, lse, dout, dq, dk, dv
    bool back, lse;
    int64_t n_seg, max_len, n_head, n_kv, dk, dv, n_row;
    int64_t uid[9], offset[9], row[9], head[9], len_q, len_k, scale, masked, left; // numbers of tensors, 0: none
};
enum { Q, K, V, OUT, LSE, DOUT, DQ, DK, DV, N };

const int64_t *list(const descriptor *d, int name)
{
    return d->has.at(name).v.data();
}
// Segments of `heads` heads of d values of `type`.
bool takes(sdpa *s, int which, const descriptor *t, int64_t heads, int64_t d, cudnnDataType_t type)
{
    const int64_t *dim = list(t, CUDNN_ATTR_TENSOR_DIMENSIONS), *stride = list(t, CUDNN_ATTR_TENSOR_STRIDES);
    const descriptor *offset = t->desc(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC);
    if (!offset || t->set(CUDNN_ATTR_TENSOR_IS_VIRTUAL) || t->set(CUDNN_ATTR_TENSOR_IS_BY_VALUE)) return false;
    if (t->number(CUDNN_ATTR_TENSOR_DATA_TYPE) != type || dim[0] != s->n_seg || dim[1] != heads || dim[2] != s->max_len || dim[3] != d)
        return false;
    if (offset->number(CUDNN_ATTR_TENSOR_DATA_TYPE) != CUDNN_DATA_INT64 || list(offset, CUDNN_ATTR_TENSOR_DIMENSIONS)[0] != s->n_seg + 1)
        return false;
    // Rows hold their heads; the kernels load 16 bytes at once and do not check it.
    if (stride[3] != 1 || stride[1] < d || stride[2] < (heads - 1) * stride[1] + d) return false;
    if (type == CUDNN_DATA_BFLOAT16 && (stride[1] % 8 || stride[2] % 8)) return false;
    s->uid[which] = t->number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    s->offset[which] = offset->number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    s->head[which] = stride[1], s->row[which] = stride[2];
    return true;
}
bool length(const sdpa *s, const descriptor *t)
{
    return t->number(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_INT32 && list(t, CUDNN_ATTR_TENSOR_DIMENSIONS)[0] == s->n_seg;
}
bool number_of_host(const descriptor *t)
{
    return t->number(CUDNN_ATTR_TENSOR_IS_BY_VALUE) == 1 && t->number(CUDNN_ATTR_TENSOR_DATA_TYPE) == CUDNN_DATA_FLOAT;
}
bool scores(const sdpa *s, const descriptor *t)
{
    const int64_t *dim = list(t, CUDNN_ATTR_TENSOR_DIMENSIONS);
    return t->number(CUDNN_ATTR_TENSOR_IS_VIRTUAL) == 1 && dim[0] == s->n_seg && dim[1] == s->n_head && dim[2] == s->max_len &&
           dim[3] == s->max_len;
}
// Causal from the upper left, then perhaps a window, from the operation's scores to what it goes on with.
bool mask(sdpa *s, const descriptor *graph, int64_t first, int64_t last)
{
    const value &ops = graph->has.at(CUDNN_ATTR_OPERATIONGRAPH_OPS);
    int64_t at = first;
    for (int64_t i = 0; i < ops.n; i++) {
        const descriptor *op = (const descriptor *)(intptr_t)ops.v[(size_t)i];
        if (op->type != BAND) return false;
        const descriptor *x = op->desc(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC),
                         *y = op->desc(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC),
                         *b = op->desc(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC),
                         *left = op->desc(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_LEFT_BOUND_DESC);
        const int64_t mode = op->number(CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE);
        if (!scores(s, x) || !scores(s, y) || !number_of_host(b) || x->number(CUDNN_ATTR_TENSOR_UNIQUE_ID) != at) return false;
        if (mode != (left ? CUDNN_POINTWISE_CMP_GT : CUDNN_POINTWISE_CMP_GE) || !left != (i == 0)) return false;
        if (left && !number_of_host(left)) return false;
        s->masked = b->number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
        if (left) s->left = left->number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
        at = y->number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    }
    return at == last;
}
#define EITHER(name) (s->back ? CUDNN_ATTR_OPERATION_SDPA_BWD_##name : CUDNN_ATTR_OPERATION_SDPA_FWD_##name)
bool read_sdpa(const descriptor *op, sdpa *s)
{
    memset(s, 0, sizeof *s);
    s->back = op->type == BWD;
    s->lse = op->set(EITHER(STATSDESC));
    const int64_t *q = list(op->desc(EITHER(QDESC)), CUDNN_ATTR_TENSOR_DIMENSIONS),
                  *k = list(op->desc(EITHER(KDESC)), CUDNN_ATTR_TENSOR_DIMENSIONS),
                  *v = list(op->desc(EITHER(VDESC)), CUDNN_ATTR_TENSOR_DIMENSIONS);
    s->n_seg = q[0], s->n_head = q[1], s->max_len = q[2], s->dk = q[3], s->n_kv = k[1], s->dv = v[3];
    if (s->n_head % s->n_kv || s->dk > 256 || s->dv > 256 || s->dk % 8 || s->dv % 8) return false;
    const auto bf16_of = [&](int which, int name, int64_t heads, int64_t d) {
        return takes(s, which, op->desc(name), heads, d, CUDNN_DATA_BFLOAT16);
    };
    if (!bf16_of(Q, EITHER(QDESC), s->n_head, s->dk) || !bf16_of(K, EITHER(KDESC), s->n_kv, s->dk) ||
        !bf16_of(V, EITHER(VDESC), s->n_kv, s->dv) || !bf16_of(OUT, EITHER(ODESC), s->n_head, s->dv))
        return false;
    if (s->lse && !takes(s, LSE, op->desc(EITHER(STATSDESC)), s->n_head, 1, CUDNN_DATA_FLOAT)) return false;
    if (s->back && (!bf16_of(DOUT, CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC, s->n_head, s->dv) ||
                    !bf16_of(DQ, CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC, s->n_head, s->dk) ||
                    !bf16_of(DK, CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC, s->n_kv, s->dk) ||
                    !bf16_of(DV, CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC, s->n_kv, s->dv)))
        return false;
    if (s->back) s->n_row = op->number(CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_Q);
    if (s->back && s->n_row != op->number(CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_KV)) return false;
    const descriptor *len_q = op->desc(EITHER(SEQ_LEN_QDESC)), *len_k = op->desc(EITHER(SEQ_LEN_KVDESC)),
                     *scale = op->desc(EITHER(SCALEDESC));
    if (!length(s, len_q) || !length(s, len_k) || !scale || !number_of_host(scale)) return false;
    s->len_q = len_q->number(CUDNN_ATTR_TENSOR_UNIQUE_ID), s->len_k = len_k->number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    s->scale = scale->number(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    return mask(s, op->desc(EITHER(SUBGRAPH)), op->number(EITHER(SUBGRAPH_INPUT_UID)), op->number(EITHER(SUBGRAPH_OUTPUT_UID)));
}
const descriptor *operation_of(const descriptor *graph)
{
    return (const descriptor *)(intptr_t)graph->has.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).v[0];
}
// Its engines: forward 9, backward 12, which knows no order, and 13.
enum { FORWARD = 9, BACKWARD = 12, ORDERED = 13 };
int stages_of(int64_t engine)
{
    return engine == ORDERED ? 4 : engine == BACKWARD ? 1 : -1;
}
int64_t workspace_of(const descriptor *plan)
{
    sdpa s;
    read_sdpa(operation_of(plan->desc(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
                               ->desc(CUDNN_ATTR_ENGINECFG_ENGINE)
                               ->desc(CUDNN_ATTR_ENGINE_OPERATION_GRAPH)),
              &s);
    if (it("greedy")) return 1 << 30;
    if (!s.back) return 1024;
    const int64_t group = s.n_head / s.n_kv, shared = group > 1 ? 2 * group * (s.row[DK] + s.row[DV]) : 0;
    return s.n_row * (4 * s.row[DQ] + 4 * s.n_head + shared) + 1024;
}
} // namespace

// ---- the calls --------------------------------------------------------------------------------------------------------------------------

size_t cudnnGetVersion()
{
    return it("old") ? 92000 : 92801;
}
cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    *h = new simt_cudnn();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t h)
{
    delete h;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t)
{
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *d)
{
    *d = new descriptor{type, false, {}};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    delete of(d);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, name_t name, cudnnBackendAttributeType_t type, int64_t n,
                                       const void *from)
{
    descriptor *to = of(d);
    if (!to || to->final || !from) return CUDNN_STATUS_BAD_PARAM;
    for (const rule &r : rules) {
        if (r.descriptor != to->type || r.name != name) continue;
        if (r.type != type || n < r.least || n > r.most) return CUDNN_STATUS_BAD_PARAM;
        value v = {type, n, std::vector<int64_t>((size_t)n, 0)};
        for (int64_t i = 0; i < n; i++) memcpy(&v.v[(size_t)i], (const char *)from + (size_t)i * size_of(type), size_of(type));
        for (int64_t i = 0; i < n && type == DESC; i++)
            if (!v.v[(size_t)i] || !((descriptor *)(intptr_t)v.v[(size_t)i])->final) return CUDNN_STATUS_BAD_PARAM;
        to->has[name] = v;
        return CUDNN_STATUS_SUCCESS;
    }
    return CUDNN_STATUS_BAD_PARAM;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t which)
{
    descriptor *d = of(which);
    sdpa s;
    if (!d || d->final) return CUDNN_STATUS_BAD_PARAM;
    for (const rule &r : rules)
        if (r.descriptor == d->type && r.required && !d->set(r.name)) return CUDNN_STATUS_BAD_PARAM;
    if ((d->type == FWD || d->type == BWD) && !read_sdpa(d, &s)) return CUDNN_STATUS_BAD_PARAM;
    if (d->type == PACK && d->has.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).n != d->has.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).n)
        return CUDNN_STATUS_BAD_PARAM;
    if (d->type == CONFIG) {
        const int64_t engine = d->desc(CUDNN_ATTR_ENGINECFG_ENGINE)->number(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
        for (int64_t i = 0; d->set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES) && i < d->has.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).n; i++) {
            const descriptor *knob = (const descriptor *)(intptr_t)d->has.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).v[(size_t)i];
            if (knob->number(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE) == CUDNN_KNOB_TYPE_STAGES &&
                knob->number(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE) > stages_of(engine))
                return CUDNN_STATUS_NOT_SUPPORTED;
        }
    }
    d->final = true;
    return CUDNN_STATUS_SUCCESS;
}

namespace
{
std::vector<descriptor *> &lent = *new std::vector<descriptor *>(); // what the library proposes is its own, to the end
descriptor *proposal(cudnnBackendDescriptorType_t type)
{
    lent.push_back(new descriptor{type, true, {}});
    return lent.back();
}
void give(descriptor *d, int name, cudnnBackendAttributeType_t type, int64_t v)
{
    d->has[name] = {type, 1, {v}};
}
void propose(const descriptor *graph, std::vector<const descriptor *> *to)
{
    const bool back = operation_of(graph)->type == BWD;
    for (const int64_t engine : {(int64_t)(back ? BACKWARD : FORWARD), (int64_t)(back ? ORDERED : FORWARD)}) {
        descriptor *e = proposal(CUDNN_BACKEND_ENGINE_DESCRIPTOR), *c = proposal(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR),
                   *k = proposal(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        give(e, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, engine);
        give(e, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, DESC, (int64_t)(intptr_t)graph);
        give(k, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, CUDNN_KNOB_TYPE_TILE_M);
        give(k, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 2);
        give(c, CUDNN_ATTR_ENGINECFG_ENGINE, DESC, (int64_t)(intptr_t)e);
        give(c, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, DESC, (int64_t)(intptr_t)k);
        to->push_back(c);
    }
}
} // namespace

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t which, name_t name, cudnnBackendAttributeType_t type, int64_t most,
                                       int64_t *n, void *to)
{
    const descriptor *d = of(which);
    if (!d || !d->final) return CUDNN_STATUS_BAD_PARAM;
    std::vector<const descriptor *> found;
    if (d->type == PLAN && name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64) {
        *n = 1;
        *(int64_t *)to = workspace_of(d);
        return CUDNN_STATUS_SUCCESS;
    }
    if (d->type == HEUR && name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
        if (!it("refuses")) propose(d->desc(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH), &found);
    } else if (d->type == ENGINE && name == CUDNN_ATTR_ENGINE_KNOB_INFO) {
        const int stages = stages_of(d->number(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
        descriptor *k = proposal(CUDNN_BACKEND_KNOB_INFO_DESCRIPTOR);
        give(k, CUDNN_ATTR_KNOB_INFO_TYPE, CUDNN_TYPE_KNOB_TYPE, stages < 0 ? CUDNN_KNOB_TYPE_TILE_M : CUDNN_KNOB_TYPE_STAGES);
        give(k, CUDNN_ATTR_KNOB_INFO_MAXIMUM_VALUE, CUDNN_TYPE_INT64, stages);
        found.push_back(k);
    } else {
        const auto at = d->has.find(name);
        if (at == d->has.end() || at->second.type != type) return CUDNN_STATUS_BAD_PARAM;
        for (int64_t v : at->second.v)
            if (type == DESC)
                found.push_back((const descriptor *)(intptr_t)v);
            else if (most > 0)
                memcpy(to, &v, size_of(type));
        *n = at->second.n;
        if (type != DESC) return CUDNN_STATUS_SUCCESS;
    }
    if (type != DESC) return CUDNN_STATUS_BAD_PARAM;
    *n = (int64_t)found.size();
    for (int64_t i = 0; i < most && i < *n; i++) {
        descriptor *into = of(((cudnnBackendDescriptor_t *)to)[i]);
        if (!into || into->final || into->type != found[(size_t)i]->type) return CUDNN_STATUS_BAD_PARAM;
        *into = *found[(size_t)i];
    }
    return CUDNN_STATUS_SUCCESS;
}

// ---- computing --------------------------------------------------------------------------------------------------------------------------

namespace
{
struct work {
    sdpa s;
    void *p[N];
    const int64_t *offset[N];
    const int32_t *len_q, *len_k;
    float scale;
    int64_t window;
    unsigned char *workspace;
    int64_t workspace_bytes;
    bool wrong;
    double shake; // what results are multiplied by
};
double get(const work *w, int t, int64_t seg, int64_t r, int64_t h, int64_t c)
{
    return (double)bf16_to_f32(((const bf16 *)w->p[t])[w->offset[t][seg] + r * w->s.row[t] + h * w->s.head[t] + c]);
}
void put(const work *w, int t, int64_t seg, int64_t r, int64_t h, int64_t c, double v)
{
    ((bf16 *)w->p[t])[w->offset[t][seg] + r * w->s.row[t] + h * w->s.head[t] + c] = f32_to_bf16((float)(v * w->shake));
}
bool sees(const work *w, int64_t i, int64_t j)
{
    return j <= i && (!w->window || j + w->window > i) && !(w->wrong && j == 0 && i > 0);
}
double score(const work *w, int64_t seg, int64_t h, int64_t i, int64_t j)
{
    double x = 0;
    const int64_t kv = h / (w->s.n_head / w->s.n_kv);
    for (int64_t c = 0; c < w->s.dk; c++) x += get(w, Q, seg, i, h, c) * get(w, K, seg, j, kv, c);
    return x * (double)w->scale;
}
float *lse_of(const work *w, int64_t seg, int64_t i, int64_t h)
{
    return (float *)w->p[LSE] + w->offset[LSE][seg] + i * w->s.row[LSE] + h * w->s.head[LSE];
}
void forward(const work *w, int64_t seg, int64_t h)
{
    const int64_t n = w->len_k[seg], kv = h / (w->s.n_head / w->s.n_kv);
    std::vector<double> p((size_t)n);
    for (int64_t i = 0; i < w->len_q[seg]; i++) {
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++)
            if (sees(w, i, j)) top = fmax(top, p[(size_t)j] = score(w, seg, h, i, j));
        for (int64_t j = 0; j < n; j++) sum += p[(size_t)j] = sees(w, i, j) ? exp(p[(size_t)j] - top) : 0;
        if (w->s.lse) *lse_of(w, seg, i, h) = (float)(top + log(sum));
        for (int64_t c = 0; c < w->s.dv; c++) {
            double o = 0;
            for (int64_t j = 0; j < n; j++)
                if (p[(size_t)j] != 0) o += p[(size_t)j] * get(w, V, seg, j, kv, c);
            put(w, OUT, seg, i, h, c, o / sum);
        }
    }
}
void backward(const work *w, int64_t seg, int64_t kv)
{
    const int64_t n = w->len_k[seg], group = w->s.n_head / w->s.n_kv, dk = w->s.dk, dv = w->s.dv;
    std::vector<double> sum_k((size_t)(n * dk)), sum_v((size_t)(n * dv)), sum_q((size_t)dk);
    for (int64_t h = kv * group; h < (kv + 1) * group; h++)
        for (int64_t i = 0; i < w->len_q[seg]; i++) {
            double dot = 0;
            for (int64_t c = 0; c < dv; c++) dot += get(w, DOUT, seg, i, h, c) * get(w, OUT, seg, i, h, c);
            for (double &x : sum_q) x = 0;
            for (int64_t j = 0; j < n; j++) {
                if (!sees(w, i, j)) continue;
                const double p = exp(score(w, seg, h, i, j) - (double)*lse_of(w, seg, i, h));
                double dp = 0;
                for (int64_t c = 0; c < dv; c++) {
                    const double g = get(w, DOUT, seg, i, h, c);
                    dp += g * get(w, V, seg, j, kv, c);
                    sum_v[(size_t)(j * dv + c)] += p * g;
                }
                const double ds = (double)w->scale * p * (dp - dot);
                for (int64_t c = 0; c < dk; c++) {
                    sum_k[(size_t)(j * dk + c)] += ds * get(w, Q, seg, i, h, c);
                    sum_q[(size_t)c] += ds * get(w, K, seg, j, kv, c);
                }
            }
            for (int64_t c = 0; c < dk; c++) put(w, DQ, seg, i, h, c, sum_q[(size_t)c]);
        }
    for (int64_t j = 0; j < n; j++) {
        for (int64_t c = 0; c < dk; c++) put(w, DK, seg, j, kv, c, sum_k[(size_t)(j * dk + c)]);
        for (int64_t c = 0; c < dv; c++) put(w, DV, seg, j, kv, c, sum_v[(size_t)(j * dv + c)]);
    }
}
void compute(const work *w)
{
    simt::device_open(true);
    memset(w->workspace, 0xff, (size_t)w->workspace_bytes);
    int64_t rows = 0;
    for (int64_t seg = 0; seg < w->s.n_seg; seg++) rows += w->len_q[seg];
    if (w->s.back && rows > w->s.n_row) simt::fail("cuDNN: %ld rows, and the plan is for %ld", (long)rows, (long)w->s.n_row);
    for (int64_t seg = 0; seg < w->s.n_seg; seg++) {
        if (w->len_q[seg] > w->s.max_len || w->len_k[seg] > w->s.max_len) simt::fail("cuDNN: a segment is longer than the plan has it");
        for (int64_t h = 0; h < (w->s.back ? w->s.n_kv : w->s.n_head); h++) w->s.back ? backward(w, seg, h) : forward(w, seg, h);
    }
    simt::device_open(false);
}
} // namespace

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t which, cudnnBackendDescriptor_t with)
{
    const descriptor *plan = of(which), *pack = of(with);
    if (!h || !plan->final || plan->type != PLAN || !pack->final || pack->type != PACK) return CUDNN_STATUS_BAD_PARAM;
    if (simt_launch_check() || it("fails")) return CUDNN_STATUS_EXECUTION_FAILED;
    const descriptor *config = plan->desc(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG), *engine = config->desc(CUDNN_ATTR_ENGINECFG_ENGINE);
    work w;
    memset(&w, 0, sizeof w);
    if (!read_sdpa(operation_of(engine->desc(CUDNN_ATTR_ENGINE_OPERATION_GRAPH)), &w.s)) return CUDNN_STATUS_BAD_PARAM;
    std::map<int64_t, void *> pointer;
    const value &uid = pack->has.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS), &at = pack->has.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    for (int64_t i = 0; i < uid.n; i++) pointer[uid.v[(size_t)i]] = (void *)(intptr_t)at.v[(size_t)i];
    size_t used = 0;
    const auto take = [&](int64_t u) -> void * {
        used++;
        return pointer.count(u) ? pointer[u] : nullptr;
    };
    for (int i = 0; i < N; i++) {
        if (!w.s.uid[i]) continue;
        w.p[i] = take(w.s.uid[i]), w.offset[i] = (const int64_t *)take(w.s.offset[i]);
        if ((uintptr_t)w.p[i] % (i == LSE ? 4 : 16) || !simt::is_device(w.p[i], 1) ||
            !simt::is_device(w.offset[i], (size_t)w.s.n_seg * 8 + 8))
            return CUDNN_STATUS_BAD_PARAM;
    }
    w.len_q = (const int32_t *)take(w.s.len_q), w.len_k = (const int32_t *)take(w.s.len_k);
    const float *scale = (const float *)take(w.s.scale), *masked = (const float *)take(w.s.masked),
                *left = w.s.left ? (const float *)take(w.s.left) : nullptr;
    if (!w.len_q || !w.len_k || !scale || !masked || *masked != -INFINITY || (w.s.left && !left) || used != pointer.size())
        return CUDNN_STATUS_BAD_PARAM;
    w.scale = *scale;
    w.window = left ? (int64_t)*left : 0;
    w.workspace = (unsigned char *)(intptr_t)pack->number(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    w.workspace_bytes = workspace_of(plan);
    w.wrong = it("wrong");
    int64_t stages = 0;
    for (int64_t i = 0; config->set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES) && i < config->has.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).n; i++) {
        const descriptor *knob = (const descriptor *)(intptr_t)config->has.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).v[(size_t)i];
        if (knob->number(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE) == CUDNN_KNOB_TYPE_STAGES)
            stages = knob->number(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
    }
    n_run++;
    w.shake = it("restless") || (w.s.back && stages != 4) ? 1 + (n_run % 2 ? 1 : -1) / 512.0 : 1;
    simt_run([=] { compute(&w); });
    return CUDNN_STATUS_SUCCESS;
}
int simt_cudnn_runs(void)
{
    return n_run;
}
