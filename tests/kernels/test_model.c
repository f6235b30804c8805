// Whole models against transformers' and DeepSeek's own numbers, and the equalities that the flat form promises.
#include "tests/kernels/model_fixture.h"

#include <math.h>
#include <stdlib.h>

static const char *const goldens[] = {"qwen2", "qwen2-window", "qwen3", "llama", "llama3", "deepseek_v3", "deepseek_v3-plain"};
static const char *const dense[] = {"qwen2", "qwen2-window", "qwen3", "llama", "llama3"};
enum { N_GOLDEN = sizeof goldens / sizeof *goldens, N_DENSE = sizeof dense / sizeof *dense };

static const char *golden_dir(const char *name)
{
    char sub[64];
    snprintf(sub, sizeof sub, "models/%s", name);
    return test_golden(sub);
}

static int double_cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return isnan(x) ? 1 : isnan(y) ? -1 : (x > y) - (x < y);
}

// The largest difference of a row, as a share of the largest logit: of the worst row, or of the row at `quantile` of all rows.
static double logits_error_at(const char *dir, enum model_use use, enum dtype dtype, const char *device, double quantile)
{
    struct fixture f;
    model_fixture_open(&f, dir, use, dtype, device);
    int64_t n, n_logit;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    if (!ids) ids = ref_i32(&f, "input_ids", &n);
    const float *want = ref_f32(&f, "logits", &n_logit);
    float *got = NEW_N(float, n_logit);
    fixture_flat(&f, got, ids, (int[]){(int)n}, 1);
    const int64_t v = f.model->config.n_vocab;
    double *row = NEW_N(double, n);
    for (int64_t i = 0; i < n; i++) row[i] = max_diff(got + i * v, want + i * v, v) / max_abs(want, n_logit);
    qsort(row, (size_t)n, sizeof *row, double_cmp);
    double e = row[(int64_t)(quantile * (double)(n - 1))];
    mem_free(row);
    mem_free(got);
    model_fixture_close(&f);
    return e;
}

static double logits_error(const char *dir, enum model_use use, enum dtype dtype, const char *device)
{
    return logits_error_at(dir, use, dtype, device, 1);
}

START_TEST(logits_equal_transformers_f32)
{
    double e = logits_error(golden_dir(goldens[_i]), MODEL_GENERATE, DT_F32, "cpu");
    ck_assert_msg(e < 1e-5, "%s: packed f32 logits differ by %g of the largest", goldens[_i], e);
    if (_i >= N_DENSE) return;
    e = logits_error(golden_dir(goldens[_i]), MODEL_TRAIN, DT_F32, "cpu");
    ck_assert_msg(e < 1e-5, "%s: plain f32 logits differ by %g of the largest", goldens[_i], e);
    e = logits_error(golden_dir(goldens[_i]), MODEL_GENERATE, DT_F32, "cpu:generic");
    ck_assert_msg(e < 1e-5, "%s: generic f32 logits differ by %g of the largest", goldens[_i], e);
}
END_TEST

// bf16 keeps 8 bits: 2^-8 a rounding, some ten roundings of the residual stream that add up like a random walk. In a random MoE a rounding
// may flip the choice of an expert and with it the row, hence a quantile there.
START_TEST(logits_close_to_transformers_bf16)
{
    double e = logits_error_at(golden_dir(goldens[_i]), MODEL_GENERATE, DT_BF16, "cpu", _i < N_DENSE ? 1 : 0.7);
    ck_assert_msg(e < 0.06, "%s: bf16 logits differ by %g of the largest", goldens[_i], e);
}
END_TEST

struct layer_watch {
    struct fixture *f;
    int n_layer_seen, n_routing_seen;
};

static int int_cmp(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

static void watch_layer(void *arg, int layer, struct tensor out, struct tensor expert, struct tensor weight)
{
    struct layer_watch *w = arg;
    char name[64];
    int64_t n;
    if (!tensor_none(out)) {
        snprintf(name, sizeof name, "layer%d.out", layer);
        const float *want = ref_f32(w->f, name, &n);
        if (!want) return;
        double e = max_diff(out.data, want, n) / max_abs(want, n);
        ck_assert_msg(e < 1e-4, "%s differs by %g of the largest", name, e);
        w->n_layer_seen++;
        return;
    }
    snprintf(name, sizeof name, "layer%d.gate.indices", layer);
    const int32_t *want = ref_i32(w->f, name, &n);
    snprintf(name, sizeof name, "layer%d.gate.weights", layer);
    const float *want_weight = ref_f32(w->f, name, &n);
    const int64_t k = expert.shape[1];
    for (int64_t t = 0; t < expert.shape[0]; t++) {
        int32_t a[16], b[16];
        memcpy(a, (int32_t *)expert.data + t * k, (size_t)k * 4);
        memcpy(b, want + t * k, (size_t)k * 4);
        for (int64_t i = 0; i < k; i++) // the order of the chosen is free, the weight belongs to the expert
            for (int64_t j = 0; j < k; j++)
                if (a[i] == b[j]) ck_assert_double_eq_tol(((float *)weight.data)[t * k + i], want_weight[t * k + j], 1e-4);
        qsort(a, (size_t)k, 4, int_cmp);
        qsort(b, (size_t)k, 4, int_cmp);
        ck_assert_msg(!memcmp(a, b, (size_t)k * 4), "layer %d, token %d: other experts", layer, (int)t);
    }
    w->n_routing_seen++;
}

START_TEST(deepseek_v3_reference_logits_layers_and_routing)
{
    const char *dir = test_material("models/deepseek-v3-tiny-random");
    if (!dir) return;
    double e = logits_error(dir, MODEL_GENERATE, DT_F32, "cpu");
    ck_assert_msg(e < 1e-4, "logits differ by %g of the largest", e);
    struct fixture f;
    model_fixture_open(&f, dir, MODEL_GENERATE, DT_F32, "cpu");
    int64_t n;
    const int32_t *ids = ref_i32(&f, "input_ids", &n);
    int32_t start[2] = {0, (int32_t)n}, pos[256];
    for (int i = 0; i < n; i++) pos[i] = i;
    struct segments seg = {.n_seg = 1, .n_tok = (int)n, .max_len = (int)n, .max_pos = (int)n, .start = start, .pos = pos};
    struct layer_watch w = {.f = &f};
    struct run run = {.dev = &f.dev, .mode = RUN_FLAT, .seg = &seg, .on_layer = watch_layer, .on_layer_arg = &w};
    model_forward(f.model, &run, dev_2d(&f.dev, DT_F32, n, f.model->config.d_model), tensor_1d((void *)ids, DT_I32, n));
    ck_assert_int_eq(w.n_layer_seen, 4);
    ck_assert_int_eq(w.n_routing_seen, 3);
    model_fixture_close(&f);
}
END_TEST

// Packed documents do not see each other, to the bit.
START_TEST(packed_documents_equal_alone)
{
    struct fixture f;
    model_fixture_open(&f, golden_dir(goldens[_i]), MODEL_GENERATE, _i % 2 ? DT_BF16 : DT_F32, "cpu");
    int64_t n, v = f.model->config.n_vocab;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    const int length[] = {1, 17, 2, 25};
    float *packed = NEW_N(float, n *v), *alone = NEW_N(float, n *v);
    fixture_flat(&f, packed, ids, length, 4);
    for (int s = 0, at = 0; s < 4; at += length[s++]) fixture_flat(&f, alone + at * v, ids + at, &length[s], 1);
    ck_assert_msg(!memcmp(packed, alone, (size_t)(n * v) * 4), "%s: packed and alone differ by %g", goldens[_i],
                  max_diff(packed, alone, n * v));
    mem_free(packed);
    mem_free(alone);
    model_fixture_close(&f);
}
END_TEST

START_TEST(prefill_in_chunks_equals_at_once_and_decode_equals_prefill)
{
    struct fixture f;
    model_fixture_open(&f, golden_dir(goldens[_i]), MODEL_GENERATE, DT_F32, "cpu");
    int64_t n, n_logit, v = f.model->config.n_vocab;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    const float *want = ref_f32(&f, "logits", &n_logit);
    float *once = NEW_N(float, n *v), *chunks = NEW_N(float, n *v), *decoded = NEW_N(float, n *v);
    fixture_cached(&f, once, ids, (int)n, (int)n, (int)n);
    fixture_cached(&f, chunks, ids, (int)n, 7, (int)n);
    fixture_cached(&f, decoded, ids, (int)n, 4, 9); // MLA: expanded for 9, absorbed for the rest
    double scale = max_abs(want, n_logit);
    ck_assert_msg(max_diff(once, want, n_logit) < 1e-5 * scale, "%s: prefill differs by %g", goldens[_i],
                  max_diff(once, want, n_logit) / scale);
    ck_assert_msg(!memcmp(once, chunks, (size_t)(n * v) * 4), "%s: chunks differ by %g", goldens[_i], max_diff(once, chunks, n * v));
    ck_assert_msg(max_diff(decoded, want, n_logit) < 2e-5 * scale, "%s: decode differs by %g", goldens[_i],
                  max_diff(decoded, want, n_logit) / scale);
    mem_free(once);
    mem_free(chunks);
    mem_free(decoded);
    model_fixture_close(&f);
}
END_TEST

// ---- backward
// -----------------------------------------------------------------------------------------------------------------------------

struct trained {
    struct arena grads, keep;
    struct saved *saved;
    size_t n_bytes;
};

// One forward and backward of loss = sum(hidden * g) over two packed halves or one document; gradients afterwards in the params.
static double step(struct fixture *f, struct trained *t, const int32_t *ids, const int *length, int n_doc, const float *g,
                   enum recompute recompute, bool backward)
{
    struct err err = {0};
    struct model *m = f->model;
    int32_t start[8] = {0}, pos[256];
    struct segments seg = {.n_seg = n_doc, .start = start, .pos = pos};
    for (int s = 0, r = 0; s < n_doc; s++) {
        start[s + 1] = start[s] + length[s];
        if (length[s] > seg.max_len) seg.max_len = seg.max_pos = length[s];
        for (int i = 0; i < length[s]; i++) pos[r++] = i;
    }
    seg.n_tok = start[n_doc];
    int64_t n = seg.n_tok, d = m->config.d_model;
    struct tensor id = tensor_1d((void *)ids, DT_I32, n);
    struct run run = {
        .dev = &f->dev, .mode = RUN_FLAT, .seg = &seg, .keep = &t->keep, .saved = backward ? t->saved : NULL, .recompute = recompute};
    size_t mark = dev_mark(&f->dev), kept = arena_mark(&t->keep);
    struct tensor hidden = dev_2d(&f->dev, m->dtype, n, d), wide = dev_2d(&f->dev, DT_F32, n, d);
    model_forward(m, &run, hidden, id);
    op_copy(&f->dev, wide, hidden);
    double loss = 0;
    for (int64_t i = 0; i < n * d; i++) loss += (double)((float *)wide.data)[i] * (double)g[i];
    if (backward) {
        memset(t->grads.base, 0, t->grads.used);
        op_copy(&f->dev, hidden, tensor_2d((void *)g, DT_F32, n, d));
        model_backward(m, &run, hidden, id);
    }
    arena_release(&t->keep, kept);
    dev_release(&f->dev, mark);
    ck_ok(dev_check(&f->dev, &err));
    return loss;
}

static void trained_open(struct trained *t, struct fixture *f)
{
    struct err err = {0};
    ck_ok(arena_init(&t->grads, "gradients", 1 << 20, &err));
    ck_ok(arena_init(&t->keep, "kept", 8 << 20, &err));
    model_alloc_grads(f->model, &t->grads);
    t->saved = model_saved_alloc(f->model);
}

static void trained_close(struct trained *t)
{
    arena_free(&t->grads);
    arena_free(&t->keep);
    mem_free(t->saved);
}

START_TEST(gradients_equal_pytorch)
{
    struct fixture f;
    struct trained t;
    model_fixture_open(&f, golden_dir(dense[_i]), MODEL_TRAIN, DT_F32, "cpu");
    trained_open(&t, &f);
    int64_t n, n_g;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    step(&f, &t, ids, (int[]){(int)n}, 1, ref_f32(&f, "g", &n_g), RECOMPUTE_NONE, true);
    for (size_t i = 0; i < f.model->n_param; i++) {
        struct param *p = &f.model->params[i];
        char name[128];
        int64_t size;
        snprintf(name, sizeof name, "grad.%s", p->name);
        const float *want = ref_f32(&f, name, &size);
        if (p == f.model->head && !f.model->config.tied) {
            ck_assert_ptr_null(want); // the loss is on hidden: the head is not asked
            continue;
        }
        ck_assert_msg(want != NULL, "%s: no golden", name);
        double e = max_diff(p->grad.data, want, size) / (max_abs(want, size) + 1e-12);
        // A key's bias moves all of a query's scores alike: its true gradient is 0, what is left is rounding.
        bool vanishes = strstr(name, "k_proj.bias") != NULL;
        ck_assert_msg(e < 5e-5 || (vanishes && max_diff(p->grad.data, want, size) < 1e-3), "%s: %s differs by %g of the largest", dense[_i],
                      name, e);
    }
    trained_close(&t);
    model_fixture_close(&f);
}
END_TEST

// Moves each parameter along a direction and compares the loss's slope with the gradient's: independent of PyTorch.
START_TEST(gradients_equal_finite_differences)
{
    struct fixture f;
    struct trained t;
    model_fixture_open(&f, golden_dir(dense[_i]), MODEL_TRAIN, DT_F32, "cpu");
    trained_open(&t, &f);
    int64_t n, n_g;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    const float *g = ref_f32(&f, "g", &n_g);
    const int length[] = {18, (int)n - 18};
    step(&f, &t, ids, length, 2, g, RECOMPUTE_CHEAP, true);
    for (size_t i = 0; i < f.model->n_param; i++) {
        struct param *p = &f.model->params[i];
        if (p == f.model->head && !f.model->config.tied) continue;
        int64_t size = tensor_numel(p->weight);
        float *w = p->weight.data, *grad = p->grad.data, *was = NEW_N(float, size);
        memcpy(was, w, (size_t)size * 4);
        double slope = 0, norm = sqrt(1e-30), loss[2];
        for (int64_t k = 0; k < size; k++) norm += (double)grad[k] * (double)grad[k];
        norm = sqrt(norm);
        const double h = 2e-3;
        for (int side = 0; side < 2; side++) { // along the gradient itself: slope = |grad|
            for (int64_t k = 0; k < size; k++) w[k] = (float)(was[k] + (side ? h : -h) * (double)grad[k] / norm);
            loss[side] = step(&f, &t, ids, length, 2, g, RECOMPUTE_NONE, false);
        }
        slope = (loss[1] - loss[0]) / (2 * h);
        memcpy(w, was, (size_t)size * 4);
        mem_free(was);
        if (strstr(p->name, "k_proj.bias")) continue; // 0 but for rounding
        ck_assert_msg(fabs(slope - norm) < 5e-3 * norm + 2e-3, "%s: %s: slope %g, gradient %g", dense[_i], p->name, slope, norm);
    }
    trained_close(&t);
    model_fixture_close(&f);
}
END_TEST

START_TEST(recompute_gives_the_same_bits)
{
    struct fixture f;
    struct trained t;
    model_fixture_open(&f, golden_dir(dense[_i]), MODEL_TRAIN, _i % 2 ? DT_BF16 : DT_F32, "cpu");
    f.model->params[1].frozen = true;
    trained_open(&t, &f);
    ck_assert(tensor_none(f.model->params[1].grad));
    int64_t n, n_g;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    const float *g = ref_f32(&f, "g", &n_g);
    step(&f, &t, ids, (int[]){20, (int)n - 20}, 2, g, RECOMPUTE_NONE, true);
    uint8_t *want = mem_alloc(t.grads.used);
    memcpy(want, t.grads.base, t.grads.used);
    size_t peak[3] = {t.keep.peak};
    for (int r = RECOMPUTE_CHEAP; r <= RECOMPUTE_LAYER; r++) {
        t.keep.peak = 0;
        step(&f, &t, ids, (int[]){20, (int)n - 20}, 2, g, (enum recompute)r, true);
        ck_assert_msg(!memcmp(want, t.grads.base, t.grads.used), "%s: policy %d gives other gradients", dense[_i], r);
        peak[r] = t.keep.peak;
    }
    ck_assert_uint_lt(peak[1], peak[0]);
    ck_assert_uint_lt(peak[2], peak[1]);
    mem_free(want);
    trained_close(&t);
    model_fixture_close(&f);
}
END_TEST

// ---- loading
// ------------------------------------------------------------------------------------------------------------------------------

static void copy_model(const char *from, const char *to)
{
    struct err err = {0};
    static const char *const names[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char *a = path_join(from, names[i]), *b = path_join(to, names[i]);
        ck_ok(file_copy(a, b, &err));
        mem_free(a);
        mem_free(b);
    }
}

static void edit(const char *dir, const char *file, const char *from, const char *to)
{
    struct err err = {0};
    struct buf b = {0}, out = {0};
    char *path = path_join(dir, file);
    ck_ok(file_read(&b, path, 1 << 24, &err));
    char *at = memmem(b.data, b.size, from, strlen(from));
    ck_assert_msg(at != NULL, "%s holds no %s", file, from);
    buf_put(&out, b.data, (size_t)(at - b.data));
    buf_puts(&out, to);
    buf_put(&out, at + strlen(from), b.size - (size_t)(at - b.data) - strlen(from));
    ck_ok(file_write_atomic(path, out.data, out.size, &err));
    buf_free(&b);
    buf_free(&out);
    mem_free(path);
}

static const struct {
    const char *file, *from, *to, *message;
} lies[] = {
    {"config.json", "\"qwen3\"", "\"qwen9\"", "known architectures: deepseek_v3, qwen2, qwen3, llama"},
    {"config.json", "\"hidden_size\": 36", "\"hidden_size\": \"36\"", "hidden_size"},
    {"config.json", "\"vocab_size\": 61", "\"x\": 61", "vocab_size"},
    {"config.json", "\"head_dim\": 10", "\"head_dim\": 12", "found (40, 36), wanted (48, 36)"},
    {"config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2.input_layernorm.weight: missing"},
    {"model.safetensors", "q_norm.weight", "q_nrom.weight", "q_norm.weight: missing"},
    {"model.safetensors", "\"dtype\":\"BF16\"", "\"dtype\":\"BF17\"", "unknown dtype \"BF17\""},
    {"model.safetensors", "\"data_offsets\":[0,", "\"data_offsets\":[1,", "data_offsets"},
};

START_TEST(lying_files_are_refused_by_name)
{
    struct err err = {0};
    struct device dev;
    struct model *m = NULL;
    struct model_options opt = {.archs = fixture_archs, .use = MODEL_TRAIN, .dtype = DT_F32};
    const char *dir = test_tmpdir();
    copy_model(golden_dir("qwen3"), dir);
    edit(dir, lies[_i].file, lies[_i].from, lies[_i].to);
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    ck_fails(model_load(&m, &dev, dir, &opt, &err), ST_BAD_INPUT, lies[_i].message);
    dev_close(&dev);
}
END_TEST

START_TEST(nan_in_weights_is_refused_with_the_tensor)
{
    struct err err = {0};
    struct device dev;
    struct model *m = NULL;
    struct model_options opt = {.archs = fixture_archs, .use = MODEL_TRAIN, .dtype = DT_F32};
    const char *dir = test_tmpdir();
    copy_model(golden_dir("qwen3"), dir);
    char *path = path_join(dir, "model.safetensors");
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    fseek(file, -2, SEEK_END);
    fwrite("\xc0\x7f", 1, 2, file);
    fclose(file);
    mem_free(path);
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    ck_fails(model_load(&m, &dev, dir, &opt, &err), ST_BAD_INPUT, "NaN");
    dev_close(&dev);
}
END_TEST

// A truncation at any byte, and a header that claims more than there is, are told from the file alone.
START_TEST(truncated_checkpoints_are_refused)
{
    struct err err = {0};
    struct buf b = {0};
    const char *dir = test_tmpdir();
    char *from = path_join(golden_dir("qwen3"), "model.safetensors"), *to = path_join(dir, "model.safetensors");
    ck_ok(file_read(&b, from, 1 << 24, &err));
    struct st_set s;
    for (size_t n = 0; n < b.size; n += n < 64 ? 1 : 997) {
        ck_ok(file_write_atomic(to, b.data, n, &err));
        ck_assert_msg(st_open(&s, to, &err) == ST_BAD_INPUT, "%zu bytes were accepted", n);
    }
    ck_ok(file_write_atomic(to, "\x00\xe4\x0b\x54\x02\x00\x00\x00{}", 10, &err)); // a header of 10 GB
    ck_fails(st_open(&s, to, &err), ST_BAD_INPUT, "header of 10000000000 bytes");
    buf_free(&b);
    mem_free(from);
    mem_free(to);
}
END_TEST

Suite *suite_model(void)
{
    Suite *s = suite_create("model");
    TCase *t = tcase_create("forward");
    tcase_add_loop_test(t, logits_equal_transformers_f32, 0, N_GOLDEN);
    tcase_add_loop_test(t, logits_close_to_transformers_bf16, 0, N_GOLDEN);
    tcase_add_test(t, deepseek_v3_reference_logits_layers_and_routing);
    tcase_add_loop_test(t, packed_documents_equal_alone, 0, N_GOLDEN);
    tcase_add_loop_test(t, prefill_in_chunks_equals_at_once_and_decode_equals_prefill, 0, N_GOLDEN);
    suite_add_tcase(s, t);
    t = tcase_create("backward");
    tcase_add_loop_test(t, gradients_equal_pytorch, 0, N_DENSE);
    tcase_add_loop_test(t, gradients_equal_finite_differences, 0, N_DENSE);
    tcase_add_loop_test(t, recompute_gives_the_same_bits, 0, N_DENSE);
    suite_add_tcase(s, t);
    t = tcase_create("loading");
    tcase_add_loop_test(t, lying_files_are_refused_by_name, 0, sizeof lies / sizeof *lies);
    tcase_add_test(t, nan_in_weights_is_refused_with_the_tensor);
    tcase_add_test(t, truncated_checkpoints_are_refused);
    suite_add_tcase(s, t);
    return s;
}
