// Whole models against DeepSeek's own numbers, the equalities that the flat form promises, and files that lie. (Families: test_families.c)
#include "tests/gpu.h"
#include "tests/kernels/edited.h"
#include "tests/kernels/model_fixture.h"

#include <math.h>
#include <stdlib.h>

static const char *const goldens[] = {"qwen2", "qwen2-window", "qwen3", "llama", "llama3", "deepseek_v3", "deepseek_v3-plain"};
static const char *const dense[] = {"qwen2", "qwen2-window", "qwen3", "llama", "llama3"};
enum { N_GOLDEN = sizeof goldens / sizeof *goldens, N_DENSE = sizeof dense / sizeof *dense };

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
        float *got = fixture_values(w->f, out);
        double e = max_diff(got, want, n) / max_abs(want, n);
        mem_free(got);
        ck_assert_msg(e < 1e-4, "%s differs by %g of the largest", name, e);
        w->n_layer_seen++;
        return;
    }
    snprintf(name, sizeof name, "layer%d.gate.indices", layer);
    const int32_t *want = ref_i32(w->f, name, &n);
    snprintf(name, sizeof name, "layer%d.gate.weights", layer);
    const float *want_weight = ref_f32(w->f, name, &n);
    const int64_t k = expert.shape[1];
    float *got_weight = fixture_values(w->f, weight);
    int32_t *got = NEW_N(int32_t, tensor_numel(expert));
    op_download(&w->f->dev, got, expert);
    for (int64_t t = 0; t < expert.shape[0]; t++) {
        int32_t a[16], b[16];
        memcpy(a, got + t * k, (size_t)k * 4);
        memcpy(b, want + t * k, (size_t)k * 4);
        for (int64_t i = 0; i < k; i++) // the order of the chosen is free, the weight belongs to the expert
            for (int64_t j = 0; j < k; j++)
                if (a[i] == b[j]) ck_assert_double_eq_tol((double)got_weight[t * k + i], want_weight[t * k + j], 1e-4);
        qsort(a, (size_t)k, 4, int_cmp);
        qsort(b, (size_t)k, 4, int_cmp);
        ck_assert_msg(!memcmp(a, b, (size_t)k * 4), "layer %d, token %d: other experts", layer, (int)t);
    }
    mem_free(got_weight);
    mem_free(got);
    w->n_routing_seen++;
}

START_TEST(deepseek_v3_reference_logits_layers_and_routing)
{
    const char *dir = test_material("models/deepseek-v3-tiny-random");
    if (!dir) return;
    struct fixture f;
    model_fixture_open(&f, dir, MODEL_GENERATE, DT_F32, test_device());
    int64_t n, n_logit;
    const int32_t *ids = ref_i32(&f, "input_ids", &n);
    const float *want = ref_f32(&f, "logits", &n_logit);
    float *logits = NEW_N(float, n_logit);
    struct layer_watch w = {.f = &f};
    fixture_flat_watched(&f, logits, ids, (int[]){(int)n}, 1, watch_layer, &w);
    double e = max_diff(logits, want, n_logit) / max_abs(want, n_logit);
    ck_assert_msg(e < 1e-4, "logits differ by %g of the largest", e);
    mem_free(logits);
    ck_assert_int_eq(w.n_layer_seen, 4);
    ck_assert_int_eq(w.n_routing_seen, 3);
    model_fixture_close(&f);
}
END_TEST

// Packed documents do not see each other, to the bit.
START_TEST(packed_documents_equal_alone)
{
    struct fixture f;
    model_fixture_open(&f, golden_model(goldens[_i]), MODEL_GENERATE, _i % 2 ? DT_BF16 : DT_F32, test_device());
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

// ---- backward ------------------------------------------------------------------------------------------------------------------------

// Moves each parameter along a direction and compares the loss's slope with the gradient's: independent of PyTorch.
START_TEST(gradients_equal_finite_differences)
{
    struct fixture f;
    struct trained t;
    model_fixture_open(&f, golden_model(dense[_i]), MODEL_TRAIN, DT_F32, test_device());
    trained_open(&t, &f);
    int64_t n, n_g;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    const float *g = ref_f32(&f, "g", &n_g);
    const int length[] = {18, (int)n - 18};
    trained_step(&f, &t, ids, length, 2, g, RECOMPUTE_CHEAP, true);
    for (size_t i = 0; i < f.model->n_param; i++) {
        struct param *p = &f.model->params[i];
        if (p == f.model->head && !f.model->config.tied) continue;
        int64_t size = tensor_numel(p->weight);
        float *grad = fixture_values(&f, p->grad), *was = fixture_values(&f, p->weight), *w = NEW_N(float, size);
        double slope = 0, norm = sqrt(1e-30), loss[2];
        for (int64_t k = 0; k < size; k++) norm += (double)grad[k] * (double)grad[k];
        norm = sqrt(norm);
        const double h = 2e-3;
        for (int side = 0; side < 2; side++) { // along the gradient itself: slope = |grad|
            for (int64_t k = 0; k < size; k++) w[k] = (float)(was[k] + (side ? h : -h) * (double)grad[k] / norm);
            op_upload(&f.dev, p->weight, w);
            loss[side] = trained_step(&f, &t, ids, length, 2, g, RECOMPUTE_NONE, false);
        }
        slope = (loss[1] - loss[0]) / (2 * h);
        op_upload(&f.dev, p->weight, was);
        mem_free(grad);
        mem_free(was);
        mem_free(w);
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
    model_fixture_open(&f, golden_model(dense[_i]), MODEL_TRAIN, _i % 2 ? DT_BF16 : DT_F32, test_device());
    f.model->params[1].frozen = true;
    trained_open(&t, &f);
    ck_assert(tensor_none(f.model->params[1].grad));
    int64_t n, n_g;
    const int32_t *ids = ref_i32(&f, "ids", &n);
    const float *g = ref_f32(&f, "g", &n_g);
    trained_step(&f, &t, ids, (int[]){20, (int)n - 20}, 2, g, RECOMPUTE_NONE, true);
    struct tensor grads = tensor_1d(t.grads.base, DT_U8, (int64_t)t.grads.used);
    uint8_t *want = mem_alloc(t.grads.used), *got = mem_alloc(t.grads.used);
    op_download(&f.dev, want, grads);
    size_t peak[3] = {t.keep.peak};
    for (int r = RECOMPUTE_CHEAP; r <= RECOMPUTE_LAYER; r++) {
        t.keep.peak = 0;
        trained_step(&f, &t, ids, (int[]){20, (int)n - 20}, 2, g, (enum recompute)r, true);
        op_download(&f.dev, got, grads);
        ck_assert_msg(!memcmp(want, got, t.grads.used), "%s: policy %d gives other gradients", dense[_i], r);
        peak[r] = t.keep.peak;
    }
    ck_assert_uint_lt(peak[1], peak[0]);
    ck_assert_uint_lt(peak[2], peak[1]);
    mem_free(want);
    mem_free(got);
    trained_close(&t);
    model_fixture_close(&f);
}
END_TEST

// ---- loading -------------------------------------------------------------------------------------------------------------------------

static const struct {
    const char *file, *from, *to, *message;
} lies[] = {
    {"config.json", "\"qwen3\"", "\"qwen9\"",
     "known architectures: deepseek_v2, deepseek_v3, kimi_k2, qwen3_moe, qwen2, qwen3, llama, mistral"},
    {"config.json", "\"hidden_size\": 36", "\"hidden_size\": \"36\"", "hidden_size"},
    {"config.json", "\"vocab_size\": 61", "\"x\": 61", "vocab_size"},
    {"config.json", "\"head_dim\": 10", "\"head_dim\": 12", "found (40, 36), wanted (48, 36)"},
    {"config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "layer_types: wanted an array of num_hidden_layers = 3 names"},
    {"model.safetensors", "q_norm.weight", "q_nrom.weight", "q_norm.weight: missing"},
    {"model.safetensors", "\"dtype\":\"BF16\"", "\"dtype\":\"BF17\"", "unknown dtype \"BF17\""},
    {"model.safetensors", "\"data_offsets\":[0,", "\"data_offsets\":[1,", "data_offsets"},
};

START_TEST(lying_files_are_refused_by_name)
{
    struct err err = {0};
    struct device dev;
    struct model *m = NULL;
    struct model_options opt = {.archs = all_archs, .use = MODEL_TRAIN, .dtype = DT_F32};
    const char *dir = test_tmpdir();
    copied_folder(golden_model("qwen3"), dir);
    edited_text(dir, lies[_i].file, lies[_i].from, lies[_i].to);
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
    struct model_options opt = {.archs = all_archs, .use = MODEL_TRAIN, .dtype = DT_F32};
    const char *dir = test_tmpdir();
    copied_folder(golden_model("qwen3"), dir);
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
    char *from = path_join(golden_model("qwen3"), "model.safetensors"), *to = path_join(dir, "model.safetensors");
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
    tcase_add_test(t, deepseek_v3_reference_logits_layers_and_routing);
    tcase_add_loop_test(t, packed_documents_equal_alone, 0, N_GOLDEN);
    suite_add_tcase(s, t);
    t = tcase_create("backward");
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
