#include "tests/kernels/model_fixture.h"

#include "tests/kernels/on_device.h"

#include <math.h>
#include <stdlib.h>

const char *golden_model(const char *name)
{
    char sub[64];
    snprintf(sub, sizeof sub, "models/%s", name);
    return test_golden(sub);
}

void model_fixture_open(struct fixture *f, const char *dir, enum model_use use, enum dtype dtype, const char *device)
{
    struct err err = {0};
    struct model_options opt = {.archs = all_archs, .use = use, .dtype = dtype};
    *f = (struct fixture){0};
    ck_ok(dev_open(&f->dev, device, 2, &err));
    ck_ok(model_load(&f->model, &f->dev, dir, &opt, &err));
    ck_ok(dev_reserve(&f->dev, (size_t)64 << 20, &err));
    char *path = path_join(dir, "reference.safetensors");
    if (file_exists(path)) ck_ok(st_open(&f->ref, path, &err));
    mem_free(path);
}

void model_fixture_close(struct fixture *f)
{
    st_close(&f->ref);
    model_free(f->model);
    dev_close(&f->dev);
}

static const void *ref_find(const struct fixture *f, const char *name, const char *dtype, int64_t *n)
{
    const struct st_tensor *t = st_find(&f->ref, name);
    if (!t) return NULL;
    ck_assert_str_eq(t->dtype, dtype);
    *n = (int64_t)(t->size_bytes / 4);
    return t->data;
}
const float *ref_f32(const struct fixture *f, const char *name, int64_t *n)
{
    return ref_find(f, name, "F32", n);
}
const int32_t *ref_i32(const struct fixture *f, const char *name, int64_t *n)
{
    return ref_find(f, name, "I32", n);
}

static struct tensor lend_ints(struct lent *l, const int32_t *v, int64_t n)
{
    return lend_tensor(l, tensor_1d((void *)(uintptr_t)v, DT_I32, n));
}
// The logits of n rows of hidden, to the host's memory. Gives back what was lent.
static void logits_of(struct fixture *f, float *logits, struct tensor hidden, struct lent *l)
{
    model_logits(f->model, &f->dev, lend_out(l, tensor_2d(logits, DT_F32, hidden.shape[0], f->model->config.n_vocab)), hidden);
    lent_back(l);
}

// Documents one after the other; start (n_doc + 1) and pos (their sum) are the caller's memory.
static struct segments packed(int32_t *start, int32_t *pos, const int *length, int n_doc)
{
    struct segments seg = {.n_seg = n_doc, .start = start, .pos = pos};
    for (int s = 0, r = 0; s < n_doc; s++) {
        start[s + 1] = start[s] + length[s];
        if (length[s] > seg.max_len) seg.max_len = seg.max_pos = length[s];
        for (int i = 0; i < length[s]; i++) pos[r++] = i;
    }
    seg.n_tok = start[n_doc];
    return seg;
}

void fixture_flat(struct fixture *f, float *logits, const int32_t *ids, const int *length, int n_doc)
{
    fixture_flat_watched(f, logits, ids, length, n_doc, NULL, NULL);
}

void fixture_flat_watched(struct fixture *f, float *logits, const int32_t *ids, const int *length, int n_doc, layer_watch_fn *watch,
                          void *arg)
{
    struct err err = {0};
    int32_t start[65] = {0}, pos[4096];
    struct segments seg = packed(start, pos, length, n_doc);
    size_t mark = dev_mark(&f->dev);
    struct lent l = {.dev = &f->dev};
    seg.start = lend_ints(&l, start, n_doc + 1).data;
    seg.pos = lend_ints(&l, pos, seg.n_tok).data;
    struct tensor hidden = dev_2d(&f->dev, f->model->dtype, seg.n_tok, f->model->config.d_model);
    struct run run = {.dev = &f->dev, .mode = RUN_FLAT, .seg = &seg, .on_layer = watch, .on_layer_arg = arg};
    model_forward(f->model, &run, hidden, lend_ints(&l, ids, seg.n_tok));
    logits_of(f, logits, hidden, &l);
    dev_release(&f->dev, mark);
    ck_ok(dev_check(&f->dev, &err));
}

void fixture_cached(struct fixture *f, float *logits, const int32_t *ids, int n, int chunk, int n_prefill)
{
    struct err err = {0};
    struct kv_cache kv;
    enum { PAGE = 8 };
    ck_ok(kv_open(&kv, f->model, n / PAGE + 2, PAGE, &err));
    int32_t page[512] = {0}, pos[4096];
    for (int i = 0; i < n / PAGE + 2; i++) page[i] = n / PAGE + 1 - i; // not in order of memory
    for (int at = 0; at < n;) {
        bool decode = at >= n_prefill;
        int len = decode ? 1 : n_prefill - at < chunk ? n_prefill - at : chunk;
        int32_t start[2] = {0, len}, k_start[2] = {0, at + len};
        for (int i = 0; i < len; i++) pos[i] = at + i;
        size_t mark = dev_mark(&f->dev);
        struct lent l = {.dev = &f->dev};
        struct segments seg = {.n_seg = 1,
                               .n_tok = len,
                               .max_len = len,
                               .max_pos = at + len,
                               .start = lend_ints(&l, start, 2).data,
                               .pos = lend_ints(&l, pos, len).data,
                               .page = lend_ints(&l, page, 512).data,
                               .max_page = 512,
                               .page_len = PAGE};
        struct run run = {.dev = &f->dev,
                          .mode = decode ? RUN_DECODE : RUN_PREFILL,
                          .seg = &seg,
                          .kv = &kv,
                          .k_start = lend_ints(&l, k_start, 2).data,
                          .n_key = at + len};
        struct tensor hidden = dev_2d(&f->dev, f->model->dtype, len, f->model->config.d_model);
        model_forward(f->model, &run, hidden, lend_ints(&l, ids + at, len));
        logits_of(f, logits + (int64_t)at * f->model->config.n_vocab, hidden, &l);
        dev_release(&f->dev, mark);
        at += len;
    }
    kv_close(&kv);
    ck_ok(dev_check(&f->dev, &err));
}

double max_abs(const float *x, int64_t n)
{
    double m = 0;
    for (int64_t i = 0; i < n; i++) m = fmax(m, fabs((double)x[i]));
    return m;
}

double max_diff(const float *a, const float *b, int64_t n)
{
    double m = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= m)) m = d; // a NaN stays
    }
    return m;
}

float *fixture_values(struct fixture *f, struct tensor x)
{
    float *v = NEW_N(float, tensor_numel(x));
    op_download(&f->dev, v, x);
    return v;
}

// ---- training ------------------------------------------------------------------------------------------------------------------------

double trained_step(struct fixture *f, struct trained *t, const int32_t *ids, const int *length, int n_doc, const float *g,
                    enum recompute recompute, bool backward)
{
    struct err err = {0};
    struct model *m = f->model;
    int32_t start[8] = {0}, pos[256];
    struct segments seg = packed(start, pos, length, n_doc);
    int64_t n = seg.n_tok, d = m->config.d_model;
    size_t mark = dev_mark(&f->dev), kept = arena_mark(&t->keep);
    struct lent l = {.dev = &f->dev};
    seg.start = lend_ints(&l, start, n_doc + 1).data;
    seg.pos = lend_ints(&l, pos, n).data;
    struct tensor id = lend_ints(&l, ids, n);
    struct run run = {
        .dev = &f->dev, .mode = RUN_FLAT, .seg = &seg, .keep = &t->keep, .saved = backward ? t->saved : NULL, .recompute = recompute};
    struct tensor hidden = dev_2d(&f->dev, m->dtype, n, d), wide = dev_2d(&f->dev, DT_F32, n, d);
    model_forward(m, &run, hidden, id);
    op_copy(&f->dev, wide, hidden);
    float *out = fixture_values(f, wide);
    double loss = 0;
    for (int64_t i = 0; i < n * d; i++) loss += (double)out[i] * (double)g[i];
    mem_free(out);
    if (backward) {
        op_zero(&f->dev, tensor_1d(t->grads.base, DT_U8, (int64_t)t->grads.used));
        op_upload(&f->dev, wide, g);
        op_copy(&f->dev, hidden, wide);
        model_backward(m, &run, hidden, id);
    }
    lent_back(&l);
    arena_release(&t->keep, kept);
    dev_release(&f->dev, mark);
    ck_ok(dev_check(&f->dev, &err));
    return loss;
}

void trained_open(struct trained *t, struct fixture *f)
{
    struct err err = {0};
    ck_ok(dev_arena(&f->dev, &t->grads, "gradients", 1 << 20, &err));
    ck_ok(dev_arena(&f->dev, &t->keep, "kept", 8 << 20, &err));
    model_alloc_grads(f->model, &t->grads);
    t->saved = model_saved_alloc(f->model);
}

void trained_close(struct trained *t)
{
    arena_free(&t->grads);
    arena_free(&t->keep);
    mem_free(t->saved);
}
