// Loading: config.json decides which parameters there are; the source of weights (source.h) must hold exactly those, in shape and free of
// NaN; their rows go a chunk at a time to the device, to be packed (generation) or converted (training) there, so that the peak is the
// weights and one chunk.
#include "kernels/base/rng.h"
#include "kernels/layers/layer.h"
#include "kernels/model/model.h"
#include "kernels/model/source.h"

#include <stdlib.h>
#include <string.h>

// Of f32, a thread, that go to the device at once: what a core's cache holds; where mapped values are packed as they stand, many of the
// huge pages that they go to, so that the threads have pages of their own to touch first (the system clears them, which costs more than
// packing).
enum { CHUNK_BYTES = 2 << 20, MAPPED_BYTES = 32 << 20 };

// ---- building ------------------------------------------------------------------------------------------------------------------------

static size_t param_upper_bound(const struct model_config *c)
{
    return (size_t)(c->n_layer * (24 + 3 * (int64_t)c->router.n_expert) + 3);
}

static void build(struct model *m)
{
    const struct model_config *c = &m->config;
    m->params = NEW_N(struct param, param_upper_bound(c));
    m->blocks = NEW_N(struct block, c->n_layer);
    if (c->router.n_expert) {
        m->place = NEW_N(struct place, c->n_layer * c->router.n_expert);
        for (int64_t i = 0; i < c->n_layer * c->router.n_expert; i++)
            m->place[i] = (struct place){.rank = 0, .where = PLACE_DEVICE, .slot = (int)(i % c->router.n_expert)};
    }
    m->embed = param_declare(m, "model.", "embed_tokens.weight", c->n_vocab, c->d_model);
    for (int i = 0; i < c->n_layer; i++) block_build(m, &m->blocks[i], i);
    m->final_norm = param_declare(m, "model.", "norm.weight", c->d_model, 0);
    m->head = c->tied ? m->embed : param_declare(m, "", "lm_head.weight", c->n_vocab, c->d_model);
}

static int64_t n_col(const struct param *p)
{
    return p->rank == 2 ? p->shape[1] : 1;
}

// One-dimensional parameters and the router's gate stay f32: they are small, and choices hang on them.
static bool is_f32(const struct param *p)
{
    size_t n = strlen(p->name);
    return p->rank == 1 || (n > 16 && !strcmp(p->name + n - 16, ".mlp.gate.weight"));
}

// Experts are always packed: grouped products know no other layout.
static bool is_packed(const struct model *m, const struct param *p)
{
    return p->rank == 2 && (m->use == MODEL_GENERATE || strstr(p->name, ".mlp.experts.") || is_f32(p));
}

// Gives every parameter its place in the weights' arena; the same code measures.
static void place_weights(struct model *m)
{
    for (size_t i = 0; i < m->n_param; i++) {
        struct param *p = &m->params[i];
        enum dtype t = is_f32(p) ? DT_F32 : p->in_fp8 ? m->dev->backend->fp8_weight : m->dtype;
        int64_t rows = p->shape[0], cols = p->rank == 2 ? p->shape[1] : 1;
        size_t bytes = is_packed(m, p) ? op_pack_bytes(m->dev, t, rows, cols) : (size_t)(rows * cols) * dtype_size(t);
        void *data = arena_alloc(&m->weights, bytes);
        p->weight = p->rank == 2 ? tensor_2d(data, t, rows, cols) : tensor_1d(data, t, rows);
        if (is_packed(m, p)) p->weight.layout = LAYOUT_PANEL;
        if (!p->in_fp8) continue;
        const int64_t bn = fp8_blocks(rows), bk = fp8_blocks(cols);
        p->scale = tensor_2d(arena_alloc(&m->weights, (size_t)(bn * bk) * sizeof(float)), DT_F32, bn, bk);
    }
    int64_t d_rope = m->config.mla ? m->config.d_rope : m->config.d_head;
    m->inv_freq = tensor_1d(arena_alloc(&m->weights, (size_t)d_rope / 2 * sizeof(float)), DT_F32, d_rope / 2);
}

static void derive(struct model *m)
{
    for (int64_t i = 0; i < m->config.n_layer; i++) {
        struct block *b = &m->blocks[i];
        if (b->attention.kind->derive) b->attention.kind->derive(m, &b->attention);
        if (b->ffn.kind->derive) b->ffn.kind->derive(m, &b->ffn);
    }
}

// ---- checking ------------------------------------------------------------------------------------------------------------------------

static void shape_text(char *out, size_t n, int rank, const int64_t *shape)
{
    size_t at = (size_t)snprintf(out, n, "(");
    for (int i = 0; i < rank && at < n; i++) at += (size_t)snprintf(out + at, n - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (at < n) snprintf(out + at, n - at, ")");
}

// What a parameter is saved as: the dtype it came in, where that is a plain one.
static void note_dtype(struct param *p, const char *found)
{
    bool plain = !strcmp(found, "F32") || !strcmp(found, "BF16") || !strcmp(found, "F16");
    snprintf(p->file_dtype, sizeof p->file_dtype, "%s", plain ? found : "BF16");
}

static enum status match(struct param *p, const struct source *src, const char *dir, struct err *err)
{
    const struct source_tensor *t = source_find(src, p->name);
    char want[80], got[80];
    shape_text(want, sizeof want, p->rank, p->shape);
    if (!t) return err_add(err, ST_BAD_INPUT, "%s: tensor %s: missing, wanted %s", dir, p->name, want);
    note_dtype(p, t->dtype);
    bool same = t->rank == p->rank;
    for (int i = 0; same && i < p->rank; i++) same = t->shape[i] == p->shape[i];
    shape_text(got, sizeof got, t->rank, t->shape);
    if (!same) return err_add(err, ST_BAD_INPUT, "%s: tensor %s: found %s, wanted %s as config.json says", dir, p->name, got, want);
    if (!t->readable) return err_add(err, ST_BAD_INPUT, "%s: tensor %s: dtype %s, wanted %s", dir, p->name, t->dtype, src->kind->dtypes);
    return ST_OK;
}

// Marks what will be multiplied in FP8. The experts of a layer share an op: all of them or none. src NULL: a plan from config.json alone,
// which takes for FP8 what DeepSeek's checkpoints hold so, all linear maps.
static void choose_fp8(struct model *m, const struct source *src, const char *dir, struct err *err)
{
    if (!m->config.fp8.on)
        err_add(err, ST_BAD_INPUT, "%s/config.json: no quantization_config: fp8-activations is for FP8 checkpoints", dir);
    for (size_t i = 0; i < m->n_param; i++) {
        const struct source_tensor *t = src ? source_find(src, m->params[i].name) : NULL;
        m->params[i].in_fp8 = m->params[i].multiplies && (src ? t && t->fp8 : m->config.fp8.on);
    }
    for (int64_t i = 0; i < m->config.n_layer; i++) {
        const struct layer *ffn = &m->blocks[i].ffn;
        for (int k = 0; k < 3 && ffn->kind == &layer_moe; k++) {
            struct param *const *w = ffn->moe.expert_w[k];
            for (int e = 1; e < m->config.router.n_expert; e++)
                if (w[e]->in_fp8 != w[0]->in_fp8)
                    err_add(err, ST_BAD_INPUT, "%s: %s is %s, %s is not: fp8-activations wants all experts of a layer alike", dir,
                            w[0]->name, w[0]->in_fp8 ? "F8_E4M3" : "plain", w[e]->name);
        }
    }
}

static int name_cmp(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// A layer beyond the model's own predicts a token further (multi-token prediction) if it joins hidden state and embedding; else config.json
// has too few layers for this checkpoint.
static bool is_mtp(const struct source *src, long long layer)
{
    char name[64];
    snprintf(name, sizeof name, "model.layers.%lld.eh_proj.weight", layer);
    return source_find(src, name) != NULL;
}

// Tensors of the file that the model has no place for. MTP layers (index n_layer and beyond) and rotary tables of old files are passed
// over.
static void report_unused(const struct model *m, const struct source *src, const char *dir, struct err *err)
{
    size_t n_known = 0;
    for (size_t i = 0; i < m->n_param; i++) n_known += source_find(src, m->params[i].name) != NULL;
    if (n_known == src->n) return;
    const char **known = NEW_N(const char *, m->n_param + 1);
    for (size_t i = 0; i < m->n_param; i++) known[i] = m->params[i].name;
    qsort(known, m->n_param, sizeof *known, name_cmp);
    for (size_t i = 0; i < src->n; i++) {
        const char *name = src->v[i].name;
        long long layer = -1;
        bool fine = sscanf(name, "model.layers.%lld.", &layer) == 1 && layer >= m->config.n_layer && is_mtp(src, layer);
        fine |= strstr(name, "rotary_emb.inv_freq") != NULL || (m->config.tied && !strcmp(name, "lm_head.weight"));
        if (!fine && !bsearch(&name, known, m->n_param, sizeof *known, name_cmp))
            err_add(err, ST_BAD_INPUT, "%s: tensor %s: %s has no place for it", dir, name, m->arch->model_type);
    }
    mem_free(known);
}

// ---- filling -------------------------------------------------------------------------------------------------------------------------

// Rows of a parameter that go to the device at once: whole panels, about `bytes` of f32 a thread.
static int64_t rows_of(const struct model *m, const struct param *p, int64_t bytes)
{
    if (p->rank == 1) return p->shape[0];
    const int64_t n = bytes * m->dev->n_thread / (4 * n_col(p)) / OP_PACK_ROWS * OP_PACK_ROWS;
    return n < OP_PACK_ROWS ? OP_PACK_ROWS : n;
}

static int64_t chunk_rows(const struct model *m, const struct param *p)
{
    return rows_of(m, p, CHUNK_BYTES);
}

// Rows [first, first + n) of p from host memory of dtype t; adds to `bad` (i32) what of them is not finite.
static void put_rows(struct model *m, const struct param *p, int64_t first, int64_t n, const void *host, enum dtype t, struct tensor bad)
{
    size_t mark = dev_mark(m->dev);
    struct tensor from = tensor_2d((void *)(uintptr_t)host, t, n, n_col(p)), to = p->weight;
    if (!m->dev->backend->host_memory) {
        from = dev_2d(m->dev, t, n, n_col(p));
        op_upload(m->dev, from, host);
    }
    if (p->rank == 1) from = tensor_1d(from.data, t, n);
    if (to.layout == LAYOUT_PANEL) {
        to.data = (char *)to.data + op_pack_bytes(m->dev, to.dtype, first, n_col(p));
        to.shape[0] = n;
        op_pack(m->dev, to, from, bad);
    } else {
        op_nonfinite(m->dev, bad, from);
        op_copy(m->dev, tensor_rows(to, first, n), from);
    }
    dev_release(m->dev, mark);
}

// Rows [first, first + n) of t by the source's own conversion, as p's dtype.
static void read_rows(const struct source *src, const struct source_tensor *t, const struct param *p, int64_t first, int64_t n, void *out)
{
    enum { PIECE = 8 };
    const enum dtype type = p->weight.dtype;
    const size_t row = (size_t)n_col(p) * dtype_size(type);
#pragma omp parallel for schedule(static) if (n * (int64_t)row > 1 << 16)
    for (int64_t i = 0; i < n; i += PIECE) {
        const int64_t len = n - i < PIECE ? n - i : PIECE;
        src->kind->rows(src, t, first + i, len, type, (char *)out + (size_t)i * row);
    }
}

// The scales of an FP8 weight, through `host`: far fewer than a chunk has values.
static void put_scales(struct model *m, const struct param *p, const struct fp8_weight *w, float *host)
{
    for (int64_t i = 0; i < tensor_numel(p->scale); i++) host[i] = fp8_weight_scale(w, i);
    op_upload(m->dev, p->scale, host);
}

// Rows [first, first + n) of mapped values of dtype t, and the bytes they take.
static const char *mapped_rows(const void *data, enum dtype t, int64_t first, int64_t n, int64_t cols, size_t *size)
{
    *size = (size_t)(n * cols) * dtype_size(t);
    return (const char *)data + (size_t)(first * cols) * dtype_size(t);
}

// Rows of mapped values that are taken at once: of a small model no more than a twentieth of its weights, which is what loading may take.
static int64_t mapped_step(const struct model *m, const struct param *p)
{
    int64_t bytes = (int64_t)m->weights.used / 20 / m->dev->n_thread;
    if (bytes > MAPPED_BYTES) bytes = MAPPED_BYTES;
    return rows_of(m, p, m->dev->backend->host_memory && bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES);
}

// All of p from where it stands mapped, of dtype t. The disk is kept AHEAD steps in front of us, and what was read leaves our memory.
static void put_mapped(struct model *m, const struct param *p, const void *data, enum dtype t, struct tensor bad)
{
    enum { AHEAD = 4 };
    const int64_t rows = p->shape[0], step = mapped_step(m, p), cols = n_col(p);
    size_t size;
    for (int64_t first = -AHEAD * step; first < rows; first += step) {
        const int64_t next = first + AHEAD * step;
        if (next < rows) {
            const char *soon = mapped_rows(data, t, next, rows - next < step ? rows - next : step, cols, &size);
            file_map_ahead(soon, size);
        }
        if (first < 0) continue;
        const int64_t n = rows - first < step ? rows - first : step;
        const char *from = mapped_rows(data, t, first, n, cols, &size);
        put_rows(m, p, first, n, from, t, bad);
        file_map_forget(from, size);
    }
}

// All of p by the source's conversion, in chunks through `host`, which has room for chunk_rows of f32.
static void put_converted(struct model *m, const struct param *p, const struct source *src, const struct source_tensor *t, void *host,
                          struct tensor bad)
{
    const int64_t rows = p->shape[0], step = chunk_rows(m, p);
    for (int64_t first = 0; first < rows; first += step) {
        const int64_t n = rows - first < step ? rows - first : step;
        read_rows(src, t, p, first, n, host);
        put_rows(m, p, first, n, host, p->weight.dtype, bad);
    }
}

static void put(struct model *m, const struct param *p, const struct source *src, void *host, struct tensor bad)
{
    const struct source_tensor *t = source_find(src, p->name);
    if (p->in_fp8) {
        put_mapped(m, p, t->fp8->code, DT_E4M3, bad);
        put_scales(m, p, t->fp8, host);
    } else if (t->data) {
        put_mapped(m, p, t->data, t->type, bad);
    } else {
        put_converted(m, p, src, t, host, bad);
    }
    if (src->kind->done) src->kind->done(src, t);
}

static void put_random(struct model *m, struct param *p, uint64_t seed, float *host, struct tensor bad)
{
    int64_t n = p->shape[0] * (p->rank == 2 ? p->shape[1] : 1);
    bool norm = p->rank == 1 && strstr(p->name, "norm");
    uint64_t stream = rng_hash(p->name, strlen(p->name));
#pragma omp parallel for schedule(static) if (n > 1 << 14)
    for (int64_t i = 0; i < n; i++) host[i] = p->rank == 1 ? (norm ? 1.0f : 0.0f) : (float)(0.02 * rng_normal(seed, stream, (uint64_t)i));
    snprintf(p->file_dtype, sizeof p->file_dtype, "BF16");
    put_rows(m, p, 0, p->shape[0], host, DT_F32, bad);
}

// The largest chunk (random weights: parameter), and the identity products of mla_derive, bound what loading needs beside the weights.
static size_t stage_bytes(const struct model *m, bool random_init)
{
    const struct model_config *c = &m->config;
    size_t most = 0;
    for (size_t i = 0; i < m->n_param; i++) {
        const struct param *p = &m->params[i];
        const int64_t rows = random_init || chunk_rows(m, p) > p->shape[0] ? p->shape[0] : chunk_rows(m, p);
        size_t n = (size_t)(rows * n_col(p)) * 4;
        if (n > most) most = n;
    }
    size_t r = (size_t)c->kv_lora_rank, span = (size_t)(c->n_head * (c->d_nope + c->d_v));
    size_t mla = c->mla ? 4 * (2 * r * r + 4 * r * span) : 0; // identity twice, kv_b transposed, both halves, GEMM scratch
    return (most > mla ? most : mla) + (1 << 16);
}

static enum status fill(struct model *m, const struct source *src, const struct model_options *opt, struct err *err)
{
    const size_t stage = stage_bytes(m, opt->random_init);
    TRY(dev_reserve(m->dev, stage + m->n_param * sizeof(int32_t), err));
    float *host = mem_alloc(stage);
    struct tensor bad = dev_1d(m->dev, DT_I32, (int64_t)m->n_param); // values that are not finite
    op_zero(m->dev, bad);
    for (size_t i = 0; i < m->n_param; i++) {
        if (opt->random_init)
            put_random(m, &m->params[i], opt->seed, host, tensor_rows(bad, (int64_t)i, 1));
        else
            put(m, &m->params[i], src, host, tensor_rows(bad, (int64_t)i, 1));
    }
    int32_t *n_bad = NEW_N(int32_t, m->n_param);
    op_download(m->dev, n_bad, bad);
    for (size_t i = 0; i < m->n_param; i++)
        if (n_bad[i]) err_add(err, ST_BAD_INPUT, "%s: tensor %s: %d values are NaN or infinite", m->dir, m->params[i].name, n_bad[i]);
    mem_free(n_bad);
    mem_free(host);
    int64_t d_rope = m->config.mla ? m->config.d_rope : m->config.d_head;
    float *inv_freq = NEW_N(float, d_rope / 2), softmax_factor;
    rope_frequencies(&m->config.rope, d_rope, inv_freq, &m->rope_mscale, &softmax_factor);
    op_upload(m->dev, m->inv_freq, inv_freq);
    mem_free(inv_freq);
    if (err->code) return err->code;
    derive(m);
    return dev_check(m->dev, err);
}

static enum status match_all(struct model *m, const struct source *src, const char *dir, struct err *err)
{
    err->code = ST_OK;
    for (size_t i = 0; i < m->n_param; i++) match(&m->params[i], src, dir, err);
    report_unused(m, src, dir, err);
    return err->code;
}

enum status model_check(const struct model_config *config, const struct arch *arch, const struct source *src, const char *dir,
                        struct err *err)
{
    struct model *m = NEW(struct model);
    m->config = *config;
    m->arch = arch;
    build(m);
    enum status st = match_all(m, src, dir, err);
    m->config = (struct model_config){.n_layer = config->n_layer}; // the rest is the caller's
    model_free(m);
    return st;
}

static enum status load(struct model *m, struct source *src, const char *dir, const struct model_options *opt, struct err *err)
{
    TRY(model_config_read(&m->config, &m->arch, dir, opt->archs, err));
    build(m);
    if (!opt->random_init) {
        TRY(source_open(src, dir, &m->config, err));
        match_all(m, src, dir, err);
    }
    if (opt->fp8_activations && (!opt->random_init || opt->plan)) choose_fp8(m, opt->random_init ? NULL : src, dir, err);
    if (err->code) return err->code;
    arena_measure(&m->weights, "weights");
    place_weights(m);
    derive(m);
    if (opt->plan) return dev_check(m->dev, err);
    size_t need = m->weights.peak;
    TRY(dev_arena(m->dev, &m->weights, "weights", need, err));
    place_weights(m);
    return fill(m, src, opt, err);
}

enum status model_load(struct model **out, struct device *dev, const char *dir, const struct model_options *opt, struct err *err)
{
    struct model *m = NEW(struct model);
    m->dev = dev;
    m->use = opt->use;
    m->dtype = opt->dtype;
    m->dir = mem_strdup(dir);
    struct source src = {0};
    err->code = ST_OK;
    enum status st = load(m, &src, dir, opt, err);
    source_close(&src);
    if (st) {
        model_free(m);
        return st;
    }
    *out = m;
    return ST_OK;
}

void model_free(struct model *m)
{
    if (!m) return;
    for (size_t i = 0; i < m->n_param; i++) mem_free(m->params[i].name);
    for (int64_t i = 0; m->blocks && i < m->config.n_layer; i++)
        if (m->blocks[i].ffn.kind == &layer_moe)
            for (int k = 0; k < 3; k++) mem_free(m->blocks[i].ffn.moe.expert_w[k]);
    arena_free(&m->weights);
    model_config_free(&m->config);
    mem_free(m->params);
    mem_free(m->blocks);
    mem_free(m->place);
    mem_free(m->dir);
    mem_free(m);
}
