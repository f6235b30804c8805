// A GGUF file as a source of weights: under Hugging Face's names and in its order of rows. Plain tensors and slices of stacked experts are
// handed out where they are mapped; llama's interleaved heads, split kv_b and Q8_0 are put right row by row.
#include "kernels/model/gguf.h"
#include "kernels/model/source.h"

#include <stdlib.h>
#include <string.h>

// Where the rows of a tensor come from.
struct view {
    const struct gguf_tensor *t, *v; // v: attn_v_b of GGUF_KV_B
    enum gguf_form form;
    int64_t n_col;
    int64_t first;       // row of t where it begins: of an expert
    int64_t d_head;      // of interleaved heads; 0: they are not
    int64_t d_nope, d_v; // GGUF_KV_B; kv_lora is n_col
};
struct state {
    struct gguf g;
    struct view *view;
    size_t n_view, cap;
};

static size_t row_bytes(const struct gguf_tensor *t, int64_t n_col)
{
    const struct ggml_type_info *info = ggml_type_info(t->type);
    return (size_t)(n_col / info->n_block) * (size_t)info->block_bytes;
}

static void decode_row(const struct gguf_tensor *t, int64_t row, int64_t n_col, float *out)
{
    gguf_decode(out, t->type, t->data + (size_t)row * row_bytes(t, n_col), 0, n_col);
}

// Row i of kv_b: head i / (nope + v), then a column of its attn_k_b (kv_lora, nope), or a row of its attn_v_b (v, kv_lora).
static void kv_b_row(const struct view *w, int64_t i, float *out)
{
    int64_t head = i / (w->d_nope + w->d_v), r = i % (w->d_nope + w->d_v);
    if (r >= w->d_nope) {
        decode_row(w->v, head * w->d_v + r - w->d_nope, w->n_col, out);
        return;
    }
    size_t bytes = row_bytes(w->t, w->d_nope);
    for (int64_t k = 0; k < w->n_col; k++) gguf_decode(out + k, w->t->type, w->t->data + (size_t)(head * w->n_col + k) * bytes, r, 1);
}

static void view_row(const struct view *w, int64_t i, float *out)
{
    if (w->form == GGUF_KV_B) {
        kv_b_row(w, i, out);
        return;
    }
    if (w->d_head) { // row (half, j) of a head stands at (j, half)
        int64_t r = i % w->d_head, half = r / (w->d_head / 2), j = r % (w->d_head / 2);
        i += j * 2 + half - r;
    }
    decode_row(w->t, w->first + i, w->n_col, out);
}

static void rows(const struct source *s, const struct source_tensor *t, int64_t first, int64_t n, enum dtype type, void *out)
{
    const struct view *w = &((const struct state *)s->state)->view[(uintptr_t)t->own];
    float *row = type == DT_F32 ? NULL : NEW_N(float, w->n_col);
    for (int64_t i = 0; i < n; i++) {
        float *to = row ? row : (float *)out + i * w->n_col;
        view_row(w, first + i, to);
        for (int64_t k = 0; row && k < w->n_col; k++) ((bf16 *)out)[i * w->n_col + k] = f32_to_bf16(row[k]);
    }
    mem_free(row);
}

static void close_state(struct source *s)
{
    struct state *st = s->state;
    gguf_close(&st->g);
    mem_free(st->view);
    mem_free(st);
}

static const struct source_kind kind = {
    .dtypes = "F32, F16, BF16 or Q8_0 (convert it: llama-quantize)", .rows = rows, .close = close_state};

// ---- the list ----

static bool plain_type(uint32_t type, enum dtype *out)
{
    *out = type == GGML_F32 ? DT_F32 : type == GGML_F16 ? DT_F16 : DT_BF16;
    return type == GGML_F32 || type == GGML_F16 || type == GGML_BF16;
}

// An entry of rank 1 or 2 over the rows of w.
static void add(struct source *s, const char *name, const struct view *w, int rank, int64_t n_row)
{
    struct state *st = s->state;
    struct source_tensor *t = source_add(s, name);
    if (st->n_view == st->cap) st->view = mem_realloc(st->view, sizeof *st->view * (st->cap = st->cap ? 2 * st->cap : 64));
    t->own = (const void *)(uintptr_t)st->n_view;
    st->view[st->n_view++] = *w;
    snprintf(t->dtype, sizeof t->dtype, "%s", ggml_type_info(w->t->type)->name);
    t->rank = rank;
    t->shape[0] = n_row;
    if (rank == 2) t->shape[1] = w->n_col;
    bool plain = plain_type(w->t->type, &t->type);
    t->readable = plain || w->t->type == GGML_Q8_0;
    if (w->v && w->v->type != w->t->type) t->readable &= plain_type(w->v->type, &(enum dtype){0}) || w->v->type == GGML_Q8_0;
    if (plain && !w->d_head && w->form != GGUF_KV_B) t->data = w->t->data + (size_t)w->first * row_bytes(w->t, w->n_col);
}

static int64_t numel(const struct gguf_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

// A tensor that is one on both sides. Vectors are columns of one value, so that any of them can be handed out.
static void add_same(struct source *s, const char *name, const struct gguf_tensor *t, int64_t d_head)
{
    struct view w = {.t = t, .form = GGUF_SAME, .n_col = t->rank == 1 ? 1 : t->shape[t->rank - 1]};
    if (d_head && numel(t) / w.n_col % d_head == 0) w.d_head = d_head;               // else its shape is wrong, which the loader finds
    if (t->rank == 1 && ggml_type_info(t->type)->n_block > 1) w.n_col = t->shape[0]; // no block is split: such a vector is not read
    add(s, name, &w, t->rank == 1 ? 1 : 2, t->rank == 1 ? t->shape[0] : numel(t) / w.n_col);
    struct source_tensor *made = &s->v[s->n - 1];
    made->rank = t->rank;
    for (int i = 0; i < t->rank; i++) made->shape[i] = t->shape[i];
    if (t->rank == 1 && w.n_col > 1) made->readable = false;
}

static void add_experts(struct source *s, const char *prefix, const char *hf, const struct gguf_tensor *t)
{
    char rest[96], name[160];
    int64_t n_row = t->shape[t->rank - 2];
    for (int64_t e = 0; e < t->shape[0]; e++) {
        const char *mark = strstr(hf, "%d");
        snprintf(rest, sizeof rest, "%.*s%lld%s", (int)(mark - hf), hf, (long long)e, mark + 2);
        snprintf(name, sizeof name, "%s%s", prefix, rest);
        struct view w = {.t = t, .form = GGUF_EXPERTS, .n_col = t->shape[2], .first = e * n_row};
        add(s, name, &w, 2, n_row);
    }
}

// attn_k_b and attn_v_b as kv_b_proj.weight (h * (nope + v), kv_lora).
static enum status add_kv_b(struct source *s, const char *name, const struct gguf_tensor *k, const struct gguf_tensor *v,
                            const struct model_config *c, const char *path, struct err *err)
{
    const int64_t want_k[3] = {c->n_head, c->kv_lora_rank, c->d_nope}, want_v[3] = {c->n_head, c->d_v, c->kv_lora_rank};
    bool fit = v && k->rank == 3 && v->rank == 3;
    for (int i = 0; fit && i < 3; i++) fit = k->shape[i] == want_k[i] && v->shape[i] == want_v[i];
    if (!fit)
        return err_add(err, ST_BAD_INPUT,
                       "%s: tensor %s: wanted it as (%lld, %lld, %lld), and attn_v_b.weight as (%lld, %lld, %lld) beside it", path, k->name,
                       (long long)want_k[0], (long long)want_k[1], (long long)want_k[2], (long long)want_v[0], (long long)want_v[1],
                       (long long)want_v[2]);
    struct view w = {.t = k, .v = v, .form = GGUF_KV_B, .n_col = c->kv_lora_rank, .d_nope = c->d_nope, .d_v = c->d_v};
    add(s, name, &w, 2, c->n_head * (c->d_nope + c->d_v));
    return ST_OK;
}

static const struct gguf_name *name_of(const struct gguf_name *table, const char *gguf)
{
    while (table->hf && strcmp(table->gguf, gguf)) table++;
    return table->hf ? table : NULL;
}

// The tensors of layer N: `rest` is the name after "blk.N.".
static enum status add_layer_tensor(struct source *s, int64_t layer, const char *rest, const struct gguf_tensor *t,
                                    const struct model_config *c, struct err *err)
{
    const struct state *st = s->state;
    const struct gguf_family *family = gguf_family_of_type(c->model_type);
    char prefix[48], name[160];
    snprintf(prefix, sizeof prefix, "model.layers.%lld.", (long long)layer);
    if (!strcmp(rest, "attn_v_b.weight")) return ST_OK; // with attn_k_b
    const struct gguf_name *n = name_of(gguf_layer_names, rest);
    snprintf(name, sizeof name, "%s%s", prefix, n ? n->hf : !strcmp(rest, "attn_kv_b.weight") ? "self_attn.kv_b_proj.weight" : rest);
    if (n && n->form == GGUF_KV_B) {
        char sibling[64];
        snprintf(sibling, sizeof sibling, "blk.%lld.attn_v_b.weight", (long long)layer);
        return add_kv_b(s, name, t, gguf_find_tensor(&st->g, sibling), c, st->g.map.path, err);
    }
    if (n && n->form == GGUF_EXPERTS) {
        if (t->rank != 3 || t->shape[0] != c->router.n_expert)
            return err_add(err, ST_BAD_INPUT, "%s: tensor %s: wanted the matrices of %d experts, stacked", st->g.map.path, t->name,
                           c->router.n_expert);
        add_experts(s, prefix, n->hf, t);
        return ST_OK;
    }
    bool interleaved = n && family && family->permutes && (n->form == GGUF_Q || n->form == GGUF_K);
    add_same(s, name, t, interleaved ? c->d_head : 0);
    return ST_OK;
}

static void add_all(struct source *s, const struct model_config *c, struct err *err)
{
    const struct state *st = s->state;
    for (size_t i = 0; i < st->g.n_tensor; i++) {
        const struct gguf_tensor *t = &st->g.tensor[i];
        char *rest = NULL;
        int64_t layer = strncmp(t->name, "blk.", 4) ? -1 : strtoll(t->name + 4, &rest, 10);
        if (rest && *rest == '.' && layer >= 0) {
            add_layer_tensor(s, layer, rest + 1, t, c, err);
            continue;
        }
        const struct gguf_name *n = name_of(gguf_top_names, t->name);
        if (strcmp(t->name, "rope_freqs.weight")) add_same(s, n ? n->hf : t->name, t, 0); // that one: the configuration has read it
    }
}

// Both a whole kv_b and its halves, say: two entries of one name.
static void find_twins(const struct source *s, const char *path, struct err *err)
{
    for (size_t i = 1; i < s->n; i++)
        if (!strcmp(s->v[i].name, s->v[i - 1].name)) err_add(err, ST_BAD_INPUT, "%s: two tensors stand for %s", path, s->v[i].name);
}

enum status source_open_gguf(struct source *s, const char *path, const struct model_config *config, struct err *err)
{
    struct state *st = NEW(struct state);
    enum status status = gguf_open(&st->g, path, err);
    if (status) {
        mem_free(st);
        return status;
    }
    s->kind = &kind;
    s->state = st;
    err->code = ST_OK;
    add_all(s, config, err);
    source_sort(s);
    find_twins(s, path, err);
    return err->code;
}
