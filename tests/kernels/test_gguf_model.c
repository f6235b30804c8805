// Models through GGUF and back: the numbers that transformers' goldens have stay as they are, and what llama.cpp would compute otherwise is
// refused.
#include "kernels/model/gguf.h"
#include "kernels/model/source.h"
#include "tests/kernels/model_fixture.h"

#include <math.h>

// ---- writing and comparing ----

static enum status write_model(const char *path, const char *dir, enum ggml_type type, struct err *out)
{
    struct err err = {0};
    struct model_config c;
    const struct arch *arch;
    const char *note;
    struct source src;
    struct gguf_writer *w;
    ck_ok(model_config_read(&c, &arch, dir, all_archs, &err));
    ck_ok(source_open(&src, dir, &c, &err));
    ck_ok(model_check(&c, arch, &src, dir, &err));
    ck_ok(gguf_create(&w, path, &err));
    enum status st = gguf_put_config(w, &c, type, &note, dir, &err);
    struct gguf_plan *plan = NULL;
    if (!st) {
        plan = gguf_plan_tensors(w, &src, &c, type);
        st = gguf_begin(w, &err);
    }
    if (!st) st = gguf_write_tensors(w, plan, NULL, NULL, &err);
    if (st)
        gguf_abort(w);
    else
        ck_ok(gguf_finish(w, &err));
    gguf_plan_free(plan);
    source_close(&src);
    model_config_free(&c);
    *out = err;
    return st;
}

static const char *exported(const char *dir, enum ggml_type type)
{
    static char path[256];
    struct err err = {0};
    snprintf(path, sizeof path, "%s/model.gguf", test_tmpdir());
    ck_ok(write_model(path, dir, type, &err));
    return path;
}

static int64_t numel(const struct source_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

static float *values(const struct source *s, const struct source_tensor *t)
{
    float *out = NEW_N(float, numel(t));
    s->kind->rows(s, t, 0, t->shape[0], DT_F32, out);
    return out;
}

// The largest that a rounding of v may be off, in a block whose largest magnitude is `most`.
static double rounding(enum ggml_type type, double v, double most)
{
    if (type == GGML_F32) return 0;
    if (type == GGML_BF16) return fabs(v) * 0x1p-8 / 2 * 1.001;
    if (type == GGML_F16) return fabs(v) * 0x1p-11 + 0x1p-25;
    return most / 127 * (0.5 + 127 * 0x1p-11); // half a step, and the scale's own rounding
}

static void compare(const struct source_tensor *t, const float *a, const float *b, enum ggml_type type)
{
    int64_t n = numel(t), n_col = t->rank > 1 ? t->shape[t->rank - 1] : n;
    bool f32 = t->rank == 1 || strstr(t->name, ".mlp.gate.weight");
    if (type == GGML_Q8_0 && n_col % 32 && !strstr(t->name, "kv_b_proj")) type = GGML_F16;
    if (f32) type = GGML_F32;
    double most = max_abs(a, n);
    for (int64_t i = 0; i < n; i++) // one comparison a value, without Check's own writes
        if (!(fabs((double)a[i] - (double)b[i]) <= rounding(type, (double)a[i], most)))
            ck_abort_msg("%s[%lld]: %g became %g", t->name, (long long)i, (double)a[i], (double)b[i]);
}

static void same_weights(const char *dir, const char *path, enum ggml_type type)
{
    struct err err = {0};
    struct model_config c, of_dir;
    const struct arch *arch;
    struct source a, b;
    ck_ok(model_config_read(&of_dir, &arch, dir, all_archs, &err));
    ck_ok(model_config_read(&c, &arch, path, all_archs, &err));
    ck_ok(source_open(&a, dir, &of_dir, &err));
    ck_ok(source_open(&b, path, &c, &err));
    ck_ok(model_check(&c, arch, &b, path, &err));
    for (size_t i = 0; i < b.n; i++) {
        const struct source_tensor *t = source_find(&a, b.v[i].name);
        ck_assert_msg(t != NULL, "%s", b.v[i].name);
        float *va = values(&a, t), *vb = values(&b, &b.v[i]);
        compare(t, va, vb, type);
        // As bf16 too: what training reads.
        bf16 *half = NEW_N(bf16, numel(t));
        b.kind->rows(&b, &b.v[i], 0, t->shape[0], DT_BF16, half);
        for (int64_t k = 0; k < numel(t); k++)
            if (half[k] != f32_to_bf16(vb[k])) ck_abort_msg("%s[%lld] as bf16", t->name, (long long)k);
        mem_free(half);
        mem_free(va);
        mem_free(vb);
    }
    source_close(&a);
    source_close(&b);
    model_config_free(&of_dir);
    model_config_free(&c);
}

enum { N_TOK = 24 };

static float *logits(const char *path, int64_t *n_vocab)
{
    struct fixture f;
    int32_t ids[N_TOK];
    model_fixture_open(&f, path, MODEL_GENERATE, DT_F32, "cpu");
    *n_vocab = f.model->config.n_vocab;
    for (int i = 0; i < N_TOK; i++) ids[i] = (int32_t)((i * 7 + i * i) % *n_vocab);
    float *out = NEW_N(float, N_TOK **n_vocab);
    fixture_flat(&f, out, ids, (int[]){N_TOK}, 1);
    model_fixture_close(&f);
    return out;
}

// Largest difference of a logit, as a share of the largest.
static double logits_error(const char *dir, const char *path)
{
    int64_t n_a, n_b;
    float *a = logits(dir, &n_a), *b = logits(path, &n_b);
    ck_assert_int_eq(n_a, n_b);
    double e = max_diff(a, b, N_TOK * n_a) / max_abs(a, N_TOK * n_a);
    mem_free(a);
    mem_free(b);
    return e;
}

// ---- tests ----

static const char *const models[] = {"llama",     "llama3",        "llama32",           "llama-linear", "llama-window",
                                     "mistral",   "mistral-plain", "mistral-yarn",      "qwen2",        "qwen3",
                                     "qwen3_moe", "deepseek_v2",   "deepseek_v3-plain", "kimi_k2"};
enum { N_MODEL = sizeof models / sizeof *models };

START_TEST(f32_gives_the_same_weights_and_logits)
{
    const char *dir = golden_model(models[_i]), *path = exported(dir, GGML_F32);
    same_weights(dir, path, GGML_F32);
    // Numbers are the same to the bit, but YaRN's attention_factor goes through a quotient in f32.
    double limit = !strcmp(models[_i], "mistral-yarn") ? 1e-6 : 0;
    double e = logits_error(dir, path);
    ck_assert_msg(e <= limit, "%s: logits differ by %g", models[_i], e);
}
END_TEST

START_TEST(other_types_are_within_their_rounding)
{
    static const enum ggml_type types[] = {GGML_F16, GGML_BF16, GGML_Q8_0};
    const char *dir = golden_model(models[_i]);
    for (int k = 0; k < 3; k++) same_weights(dir, exported(dir, types[k]), types[k]);
}
END_TEST

// A copy of a golden with some of config.json's keys replaced.
static const char *with_config(const char *name, const char *changes)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    struct err err = {0};
    json_t *root, *patch;
    const char *dir = test_tmpdir(), *from = golden_model(name);
    char *path[2];
    for (int i = 0; i < 2; i++) {
        char *source = path_join(from, files[i]);
        path[i] = path_join(dir, files[i]);
        ck_ok(file_copy(source, path[i], &err));
        mem_free(source);
    }
    ck_ok(json_read(&root, path[0], &err));
    ck_ok(json_parse(&patch, changes, strlen(changes), "patch", 0, &err));
    json_object_update(root, patch);
    ck_ok(json_write_atomic(root, path[0], &err));
    json_decref(root);
    json_decref(patch);
    for (int i = 0; i < 2; i++) mem_free(path[i]);
    return dir;
}

START_TEST(groups_of_experts_and_yarn_of_deepseek_come_back)
{
    const char *dir =
        with_config("deepseek_v3", "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10000.0, \"factor\": 4.0, "
                                   "\"original_max_position_embeddings\": 16, \"mscale\": 0.7, \"mscale_all_dim\": 0.7}}");
    const char *path = exported(dir, GGML_F32);
    same_weights(dir, path, GGML_F32);
    ck_assert_double_eq(logits_error(dir, path), 0);
}
END_TEST

START_TEST(an_fp8_checkpoint_is_exported_dequantised)
{
    const char *dir = test_golden("fp8"), *path = exported(dir, GGML_F32);
    same_weights(dir, path, GGML_F32);
    ck_assert_double_eq(logits_error(dir, path), 0);
}
END_TEST

START_TEST(q8_0_of_whole_blocks_takes_kv_b_apart_and_together_again)
{
    // A model whose sizes are blocks of 32, so that attn_k_b, transposed, is Q8_0 too.
    const char *dir = "teacher/tiny/moe";
    const char *path = exported(dir, GGML_Q8_0);
    struct gguf g;
    struct err err = {0};
    ck_ok(gguf_open(&g, path, &err));
    ck_assert_uint_eq(gguf_find_tensor(&g, "blk.0.attn_k_b.weight")->type, GGML_Q8_0);
    ck_assert_uint_eq(gguf_find_tensor(&g, "blk.1.ffn_gate_inp.weight")->type, GGML_F32);
    ck_assert_uint_eq(gguf_find_tensor(&g, "blk.1.exp_probs_b.bias")->type, GGML_F32);
    gguf_close(&g);
    same_weights(dir, path, GGML_Q8_0);
}
END_TEST

START_TEST(what_llama_cpp_computes_otherwise_is_refused)
{
    static const struct {
        const char *model, *part;
    } cases[] = {
        {"deepseek_v3", "mscale 0.7, mscale_all_dim 1"},
        {"deepseek_v3-bias", "attention_bias"},
        {"deepseek_v2-plain", "attention_bias"},
        {"qwen2-window", "sliding_window 7; llama.cpp's qwen2 attends to everything"},
        {"qwen3-bias", "attention_bias"},
        {"qwen3-yarn", "truncate: false"},
        {"qwen3_moe-sparse", "layer 0 is dense"},
        {"qwen3_moe-sparse", "norm_topk_prob"},
        {"qwen3_moe-window", "sliding_window 6"},
    };
    struct err err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/no.gguf", test_tmpdir());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_fails(write_model(path, golden_model(cases[i].model), GGML_F32, &err), ST_BAD_INPUT, cases[i].part);
        ck_assert(!file_exists(path));
    }
}
END_TEST

START_TEST(values_that_a_type_cannot_hold_are_refused)
{
    uint8_t out[128];
    float v[32] = {1, -70000};
    ck_assert(gguf_encode(out, GGML_BF16, v, 2) && gguf_encode(out, GGML_F32, v, 2));
    ck_assert(!gguf_encode(out, GGML_F16, v, 2));
    v[1] = NAN;
    ck_assert(!gguf_encode(out, GGML_F32, v, 2));
    v[1] = 127 * 70000.0f;
    ck_assert(!gguf_encode(out, GGML_Q8_0, v, 32));
}
END_TEST

START_TEST(a_llama3_table_gives_its_numbers_back)
{
    static const struct rope_config cases[] = {
        {.theta = 500000, .scaling = ROPE_LLAMA3, .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position = 8192},
        {.theta = 500000, .scaling = ROPE_LLAMA3, .factor = 32, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position = 8192},
        {.theta = 1e6, .scaling = ROPE_LLAMA3, .factor = 5, .low_freq_factor = 1.3, .high_freq_factor = 7, .original_max_position = 3000},
    };
    float divisor[64], again[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct rope_config back;
        gguf_llama3_divisors(&cases[i], 128, divisor);
        ck_assert(divisor[0] == 1 && (double)divisor[63] == cases[i].factor);
        json_t *root =
            json_pack("{s:f, s:o}", "rope_theta", cases[i].theta, "rope_scaling", gguf_llama3_config(divisor, 128, cases[i].theta));
        ck_assert(root != NULL);
        rope_config_read(&back, root, "table", &err);
        ck_assert_msg(!err.code, "%s", err.text);
        if (i < 2) ck_assert_int_eq(back.original_max_position, 8192);
        gguf_llama3_divisors(&back, 128, again);
        for (int k = 0; k < 64; k++) ck_assert_double_le(fabs((double)(again[k] - divisor[k])), 1e-5 * (double)divisor[k]);
        json_decref(root);
    }
    divisor[40] *= 1.01f;
    ck_assert(gguf_llama3_config(divisor, 128, 1e6) == NULL);
}
END_TEST

// ---- files of others: what is wrong in them is named ----

static const char *patched(void (*keys)(struct gguf_writer *w), void (*tensors)(struct gguf_writer *w))
{
    static char path[256];
    struct err err = {0};
    struct gguf_writer *w;
    static const float zero[4096];
    snprintf(path, sizeof path, "%s/other.gguf", test_tmpdir());
    ck_ok(gguf_create(&w, path, &err));
    keys(w);
    tensors(w);
    ck_ok(gguf_begin(w, &err));
    ck_ok(gguf_put(w, zero, 4 * 64, &err));
    ck_ok(gguf_finish(w, &err));
    return path;
}
static void embed_only(struct gguf_writer *w)
{
    gguf_declare(w, "token_embd.weight", GGML_F32, 2, (int64_t[]){4, 16});
}
static void unknown_arch(struct gguf_writer *w)
{
    gguf_put_string(w, "general.architecture", "mamba");
}
static void no_arch(struct gguf_writer *w)
{
    gguf_put_u32(w, "general.architecture", 3);
}
static void few_keys(struct gguf_writer *w)
{
    gguf_put_string(w, "general.architecture", "llama");
    gguf_put_string(w, "llama.block_count", "two");
}
static void mixtral(struct gguf_writer *w)
{
    few_keys(w);
    gguf_put_u32(w, "llama.expert_count", 8);
}
static void small_llama(struct gguf_writer *w)
{
    gguf_put_string(w, "general.architecture", "llama");
    gguf_put_u32(w, "llama.block_count", 1);
    gguf_put_u32(w, "llama.embedding_length", 16);
    gguf_put_u32(w, "llama.feed_forward_length", 8);
    gguf_put_u32(w, "llama.attention.head_count", 2);
    gguf_put_u32(w, "llama.context_length", 32);
    gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}
static void split(struct gguf_writer *w)
{
    small_llama(w);
    gguf_put_u32(w, "split.count", 3);
}
static void partial_rope(struct gguf_writer *w)
{
    small_llama(w);
    gguf_put_u32(w, "llama.rope.dimension_count", 4);
}

START_TEST(files_that_distill_does_not_know_are_refused_by_key)
{
    static const struct {
        void (*keys)(struct gguf_writer *w);
        const char *part;
    } cases[] = {
        {unknown_arch, "general.architecture: \"mamba\" is not known (known: llama, qwen2, qwen3, qwen3moe, deepseek2)"},
        {no_arch, "general.architecture: wanted a string, found 3"},
        {few_keys, "block_count: wanted an integer, found \"two\""},
        {few_keys, "embedding_length: missing"},
        {mixtral, "expert_count"},
        {split, "one of 3 parts"},
        {partial_rope, "rope.dimension_count 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct model_config c;
        const struct arch *arch;
        ck_fails(model_config_read(&c, &arch, patched(cases[i].keys, embed_only), all_archs, &err), ST_BAD_INPUT, cases[i].part);
    }
}
END_TEST

START_TEST(tensors_that_are_missing_or_of_an_unknown_type_are_named)
{
    struct err err = {0};
    struct model *m;
    struct device dev;
    struct model_options opt = {.archs = all_archs, .use = MODEL_GENERATE, .dtype = DT_F32};
    ck_ok(dev_open(&dev, "cpu", 1, &err));
    const char *path = patched(small_llama, embed_only);
    ck_fails(model_load(&m, &dev, path, &opt, &err), ST_BAD_INPUT,
             "tensor model.layers.0.self_attn.q_proj.weight: missing, wanted (16, 16)");
    // A norm's type becomes one of the same size that no weight has.
    struct buf b = {0};
    path = exported("teacher/tiny/base", GGML_BF16);
    ck_ok(file_read(&b, path, 1 << 24, &err));
    char *name = memmem(b.data, b.size, "blk.0.attn_norm.weight", 22);
    ck_assert(name != NULL);
    uint32_t i32 = 26;
    memcpy(name + 22 + 4 + 8, &i32, 4); // F32 → I32, of the same size
    ck_ok(file_write_atomic(path, b.data, b.size, &err));
    ck_fails(model_load(&m, &dev, path, &opt, &err), ST_BAD_INPUT,
             "tensor model.layers.0.input_layernorm.weight: dtype I32, wanted F32, F16, BF16 or Q8_0");
    buf_free(&b);
    dev_close(&dev);
}
END_TEST

Suite *suite_gguf_model(void)
{
    Suite *s = suite_create("gguf model");
    TCase *t = tcase_create("there and back");
    tcase_add_loop_test(t, f32_gives_the_same_weights_and_logits, 0, N_MODEL);
    tcase_add_loop_test(t, other_types_are_within_their_rounding, 0, N_MODEL);
    tcase_add_test(t, groups_of_experts_and_yarn_of_deepseek_come_back);
    tcase_add_test(t, an_fp8_checkpoint_is_exported_dequantised);
    tcase_add_test(t, q8_0_of_whole_blocks_takes_kv_b_apart_and_together_again);
    tcase_add_test(t, what_llama_cpp_computes_otherwise_is_refused);
    tcase_add_test(t, values_that_a_type_cannot_hold_are_refused);
    tcase_add_test(t, a_llama3_table_gives_its_numbers_back);
    tcase_add_test(t, files_that_distill_does_not_know_are_refused_by_key);
    tcase_add_test(t, tensors_that_are_missing_or_of_an_unknown_type_are_named);
    suite_add_tcase(s, t);
    return s;
}
