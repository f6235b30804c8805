// A source of weights → the tensors of a GGUF file. See gguf.h.
#include "kernels/model/gguf.h"
#include "kernels/model/source.h"

#include <string.h>

enum { CHUNK = 1 << 18 }; // values that are converted at once

// A tensor of the file: n_row rows of n_col values, and which rows of the source they are.
struct gguf_plan_tensor {
    char name[64];
    enum ggml_type type;
    int rank;
    int64_t shape[4];
    int64_t n_row, n_col;
    enum gguf_form form;
    bool value_half;                   // GGUF_KV_B: attn_v_b, else attn_k_b
    const struct source_tensor **from; // (n_from) one, or one an expert; NULL: divisors
    int64_t n_from;
};
struct gguf_plan {
    const struct source *src;
    const struct model_config *c;
    struct gguf_plan_tensor *v;
    size_t n;
};

// ---- planning ----

static enum ggml_type type_of(const char *name, int rank, int64_t n_col, enum ggml_type type)
{
    size_t n = strlen(name);
    bool norm = n > 12 && !strcmp(name + n - 12, "_norm.weight"), gate = strstr(name, "ffn_gate_inp.weight") != NULL;
    if (rank == 1 || norm || gate) return GGML_F32;
    return type == GGML_Q8_0 && n_col % ggml_type_info(GGML_Q8_0)->n_block ? GGML_F16 : type;
}

static struct gguf_plan_tensor *add(struct gguf_plan *p, int64_t layer, const char *name, enum ggml_type type, int rank,
                                    const int64_t *shape)
{
    if ((p->n & (p->n - 1)) == 0) p->v = mem_realloc(p->v, sizeof *p->v * (p->n ? 2 * p->n : 1));
    struct gguf_plan_tensor *t = &p->v[p->n++];
    *t = (struct gguf_plan_tensor){.rank = rank, .n_row = 1, .n_col = rank == 1 ? 1 : shape[rank - 1]};
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%lld.%s", (long long)layer, name);
    for (int i = 0; i < rank; i++) t->shape[i] = shape[i];
    for (int i = 0; i < rank - (rank > 1); i++) t->n_row *= shape[i];
    t->type = type_of(t->name, rank, t->n_col, type);
    return t;
}

static void take_from(struct gguf_plan_tensor *t, const struct source_tensor *s)
{
    t->from = mem_realloc(t->from, sizeof *t->from * (size_t)(t->n_from + 1));
    t->from[t->n_from++] = s;
}

static void plan_experts(struct gguf_plan *p, int64_t layer, const struct gguf_name *n, enum ggml_type type)
{
    char rest[96], name[160];
    struct gguf_plan_tensor *t = NULL;
    for (int e = 0; e < p->c->router.n_expert; e++) {
        const char *mark = strstr(n->hf, "%d");
        snprintf(rest, sizeof rest, "%.*s%d%s", (int)(mark - n->hf), n->hf, e, mark + 2);
        snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, rest);
        const struct source_tensor *s = source_find(p->src, name);
        if (!s) return;
        if (!t) t = add(p, layer, n->gguf, type, 3, (int64_t[]){p->c->router.n_expert, s->shape[0], s->shape[1]});
        t->form = GGUF_EXPERTS;
        take_from(t, s);
    }
}

static void plan_kv_b(struct gguf_plan *p, int64_t layer, const struct source_tensor *s, enum ggml_type type)
{
    const struct model_config *c = p->c;
    struct gguf_plan_tensor *t = add(p, layer, "attn_k_b.weight", type, 3, (int64_t[]){c->n_head, c->kv_lora_rank, c->d_nope});
    t->form = GGUF_KV_B;
    take_from(t, s);
    t = add(p, layer, "attn_v_b.weight", type, 3, (int64_t[]){c->n_head, c->d_v, c->kv_lora_rank});
    t->form = GGUF_KV_B;
    t->value_half = true;
    take_from(t, s);
}

static void plan_table(struct gguf_plan *p, int64_t layer, const struct gguf_name *table, enum ggml_type type)
{
    char name[160];
    for (const struct gguf_name *n = table; n->hf; n++) {
        if (n->form == GGUF_EXPERTS) {
            plan_experts(p, layer, n, type);
            continue;
        }
        if (layer < 0)
            snprintf(name, sizeof name, "%s", n->hf);
        else
            snprintf(name, sizeof name, "model.layers.%lld.%s", (long long)layer, n->hf);
        const struct source_tensor *s = source_find(p->src, name);
        if (!s || (p->c->tied && !strcmp(name, "lm_head.weight"))) continue;
        if (n->form == GGUF_KV_B) {
            plan_kv_b(p, layer, s, type);
            continue;
        }
        struct gguf_plan_tensor *t = add(p, layer, n->gguf, type, s->rank, s->shape);
        bool permutes = gguf_family_of_type(p->c->model_type)->permutes;
        t->form = permutes ? n->form : GGUF_SAME;
        take_from(t, s);
    }
}

struct gguf_plan *gguf_plan_tensors(struct gguf_writer *w, const struct source *src, const struct model_config *c, enum ggml_type type)
{
    struct gguf_plan *p = NEW(struct gguf_plan);
    p->src = src;
    p->c = c;
    if (c->rope.scaling == ROPE_LLAMA3) add(p, -1, "rope_freqs.weight", GGML_F32, 1, (int64_t[]){c->d_head / 2});
    plan_table(p, -1, gguf_top_names, type);
    for (int64_t i = 0; i < c->n_layer; i++) plan_table(p, i, gguf_layer_names, type);
    for (size_t i = 0; i < p->n; i++) gguf_declare(w, p->v[i].name, p->v[i].type, p->v[i].rank, p->v[i].shape);
    return p;
}

void gguf_plan_free(struct gguf_plan *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) mem_free(p->v[i].from);
    mem_free(p->v);
    mem_free(p);
}

size_t gguf_plan_count(const struct gguf_plan *p)
{
    return p->n;
}

// ---- writing ----

// Row `row` of a source's tensor, n_col values as f32.
static void read_row(const struct source *src, const struct source_tensor *t, int64_t row, int64_t n_col, float *out)
{
    if (t->data) {
        uint32_t type = t->type == DT_F32 ? GGML_F32 : t->type == DT_F16 ? GGML_F16 : GGML_BF16;
        gguf_decode(out, type, (const uint8_t *)t->data + (size_t)(row * n_col) * dtype_size(t->type), 0, n_col);
    } else {
        src->kind->rows(src, t, row, 1, DT_F32, out);
    }
}

// Row i of the file's tensor.
static void make_row(const struct gguf_plan *p, const struct gguf_plan_tensor *t, int64_t i, float *out)
{
    const struct model_config *c = p->c;
    const struct source_tensor *from = t->from[0];
    int64_t row = i;
    if (t->form == GGUF_EXPERTS) {
        from = t->from[i / t->shape[1]];
        row = i % t->shape[1];
    } else if (t->form == GGUF_Q || t->form == GGUF_K) { // (j, half) of a head is row (half, j)
        int64_t r = i % c->d_head;
        row = i - r + r % 2 * (c->d_head / 2) + r / 2;
    } else if (t->form == GGUF_KV_B) { // attn_v_b
        row = i / c->d_v * (c->d_nope + c->d_v) + c->d_nope + i % c->d_v;
    }
    read_row(p->src, from, row, t->n_col, out);
}

struct scratch {
    float *value;  // CHUNK values, at least a row or a head's share of kv_b
    float *head;   // kv_b of a head
    uint8_t *byte; // 4 a value
};

static enum status put_values(struct gguf_writer *w, const struct gguf_plan_tensor *t, const struct scratch *s, int64_t n_row,
                              struct err *err)
{
    const struct ggml_type_info *info = ggml_type_info(t->type);
    const int64_t n_col = t->n_col, row_bytes = n_col / info->n_block * info->block_bytes;
    bool fits = true;
#pragma omp parallel for schedule(static) reduction(&& : fits) if (n_row * n_col > 1 << 14)
    for (int64_t i = 0; i < n_row; i++) fits = gguf_encode(s->byte + i * row_bytes, t->type, s->value + i * n_col, n_col) && fits;
    if (!fits)
        return err_set(err, ST_BAD_INPUT, "tensor %s has a value that is not finite%s", t->name,
                       t->type == GGML_F32    ? ""
                       : t->type == GGML_BF16 ? " or rounds to infinity"
                                              : " or beyond 65504, the largest of F16; use --type bf16");
    return gguf_put(w, s->byte, (size_t)(n_row * row_bytes), err);
}

// attn_k_b: each head's (nope, kv_lora) transposed.
static enum status put_k_b(struct gguf_writer *w, const struct gguf_plan *p, const struct gguf_plan_tensor *t, const struct scratch *s,
                           struct err *err)
{
    const struct model_config *c = p->c;
    const int64_t nope = c->d_nope, lora = c->kv_lora_rank;
    for (int64_t h = 0; h < c->n_head; h++) {
        for (int64_t i = 0; i < nope; i++) read_row(p->src, t->from[0], h * (nope + c->d_v) + i, lora, s->head + i * lora);
        for (int64_t k = 0; k < lora; k++)
            for (int64_t i = 0; i < nope; i++) s->value[k * nope + i] = s->head[i * lora + k];
        TRY(put_values(w, t, s, lora, err));
    }
    return ST_OK;
}

static enum status put_tensor(struct gguf_writer *w, const struct gguf_plan *p, const struct gguf_plan_tensor *t, const struct scratch *s,
                              struct err *err)
{
    if (!t->from) {
        gguf_llama3_divisors(&p->c->rope, p->c->d_head, s->value);
        return put_values(w, t, s, t->n_row, err);
    }
    if (t->form == GGUF_KV_B && !t->value_half) return put_k_b(w, p, t, s, err);
    const int64_t step = CHUNK / t->n_col > 0 ? CHUNK / t->n_col : 1;
    for (int64_t first = 0; first < t->n_row; first += step) {
        const int64_t n = t->n_row - first < step ? t->n_row - first : step;
#pragma omp parallel for schedule(static) if (n * t->n_col > 1 << 14)
        for (int64_t i = 0; i < n; i++) make_row(p, t, first + i, s->value + i * t->n_col);
        TRY(put_values(w, t, s, n, err));
    }
    return ST_OK;
}

enum status gguf_write_tensors(struct gguf_writer *w, const struct gguf_plan *p, bool (*done)(void *arg, size_t n), void *arg,
                               struct err *err)
{
    int64_t most = CHUNK, head = p->c->mla ? p->c->d_nope * p->c->kv_lora_rank : 0;
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i].n_col > most) most = p->v[i].n_col;
    if (p->c->d_head / 2 > most) most = p->c->d_head / 2;
    if (head > most) most = head;
    struct scratch s = {.value = NEW_N(float, most), .head = NEW_N(float, head + 1), .byte = mem_alloc((size_t)most * 4)};
    enum status st = ST_OK;
    for (size_t i = 0; !st && i < p->n; i++) {
        st = put_tensor(w, p, &p->v[i], &s, err);
        for (int64_t k = 0; k < p->v[i].n_from && p->src->kind->done; k++) p->src->kind->done(p->src, p->v[i].from[k]);
        if (!st && done && !done(arg, i + 1) && i + 1 < p->n)
            st = err_set(err, ST_INTERRUPTED, "stopped after %zu of %zu tensors", i + 1, p->n);
    }
    mem_free(s.value);
    mem_free(s.head);
    mem_free(s.byte);
    return st;
}
