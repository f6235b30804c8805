// Loading: every conversion gives the values of the file, memory stays what was promised, and shards that do not belong together are
// refused before anything is computed.
#include "kernels/base/rng.h"
#include "tests/kernels/edited.h"
#include "tests/kernels/model_fixture.h"

#include <stdlib.h>
#include <unistd.h>

// ---- a checkpoint of several chunks --------------------------------------------------------------------------------------------------

static const char config[] =
    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"model_type\": \"qwen3\", \"vocab_size\": 17001, \"hidden_size\": 512, "
    "\"intermediate_size\": 1200, \"num_hidden_layers\": 2, \"num_attention_heads\": 8, \"num_key_value_heads\": 2, \"head_dim\": 64, "
    "\"max_position_embeddings\": 512, \"tie_word_embeddings\": true}\n";

static const struct part {
    const char *name;
    int64_t rows, cols; // cols 0: one-dimensional
} parts[] = {{"input_layernorm.weight", 512, 0},    {"self_attn.q_proj.weight", 512, 512},       {"self_attn.k_proj.weight", 128, 512},
             {"self_attn.v_proj.weight", 128, 512}, {"self_attn.o_proj.weight", 512, 512},       {"self_attn.q_norm.weight", 64, 0},
             {"self_attn.k_norm.weight", 64, 0},    {"post_attention_layernorm.weight", 512, 0}, {"mlp.gate_proj.weight", 1200, 512},
             {"mlp.up_proj.weight", 1200, 512},     {"mlp.down_proj.weight", 512, 1200}},
  ends[] = {{"model.embed_tokens.weight", 17001, 512}, {"model.norm.weight", 512, 0}};
enum { N_PART = sizeof parts / sizeof *parts, N_ALL = 2 * N_PART + 2 };

static const struct part *part_at(int i, char name[96])
{
    const struct part *p = i < 2 ? &ends[i] : &parts[(i - 2) % N_PART];
    if (i < 2)
        snprintf(name, 96, "%s", p->name);
    else
        snprintf(name, 96, "model.layers.%d.%s", (i - 2) / N_PART, p->name);
    return p;
}

static int64_t part_len(const struct part *p)
{
    return p->rows * (p->cols ? p->cols : 1);
}

// Value i of a part, as it stands in the file: bits that are a finite number of the dtype.
static uint32_t bits_of(enum dtype t, int part, int64_t i)
{
    const uint32_t r = (uint32_t)((uint64_t)(i + 1) * 0x9E3779B97F4A7C15u >> 32) + (uint32_t)part * 77;
    return t == DT_F32 ? r & 0xbfffffff : t == DT_BF16 ? r >> 16 & 0xbfff : r & 0xbfff;
}
static float value_of(enum dtype t, uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return t == DT_F32 ? f : t == DT_BF16 ? bf16_to_f32((bf16)bits) : f16_to_f32((f16)bits);
}

static void write_checkpoint(const char *dir, enum dtype t)
{
    static const char *const names[] = {[DT_F32] = "F32", [DT_BF16] = "BF16", [DT_F16] = "F16"};
    struct err err = {0};
    struct st_writer *w;
    char name[96], *path = path_join(dir, "model.safetensors"), *config_path = path_join(dir, "config.json");
    ck_ok(file_write_atomic(config_path, config, strlen(config), &err));
    ck_ok(st_create(&w, path, &err));
    for (int i = 0; i < N_ALL; i++) {
        const struct part *p = part_at(i, name);
        st_declare(w, name, names[t], p->cols ? 2 : 1, (const int64_t[]){p->rows, p->cols});
    }
    ck_ok(st_begin(w, &err));
    const size_t size = dtype_size(t);
    char *data = mem_alloc((size_t)17001 * 512 * 4);
    for (int i = 0; i < N_ALL; i++) {
        const int64_t n = part_len(part_at(i, name));
        for (int64_t k = 0; k < n; k++) {
            const uint32_t bits = bits_of(t, i, k);
            memcpy(data + (size_t)k * size, &bits, size);
        }
        ck_ok(st_put(w, data, (size_t)n * size, &err));
    }
    ck_ok(st_finish(w, &err));
    mem_free(data);
    mem_free(path);
    mem_free(config_path);
}

// The values of a parameter through the device's own way of reading rows.
static void check_values(struct model *m, struct device *dev, enum dtype file)
{
    char name[96];
    float *got = NEW_N(float, 17001 * 512);
    int32_t *ids = NEW_N(int32_t, 17001);
    for (int32_t i = 0; i < 17001; i++) ids[i] = i;
    for (int i = 0; i < N_ALL; i++) {
        const struct part *p = part_at(i, name);
        const struct param *param = model_param(m, name);
        if (p->cols)
            op_embed(dev, tensor_2d(got, DT_F32, p->rows, p->cols), param->weight, tensor_1d(ids, DT_I32, p->rows));
        else
            op_download(dev, got, param->weight);
        for (int64_t k = 0; k < part_len(p); k++) {
            float want = value_of(file, bits_of(file, i, k));
            if (param->weight.dtype == DT_BF16) want = bf16_to_f32(f32_to_bf16(want));
            if (memcmp(&got[k], &want, 4)) ck_abort_msg("%s: value %lld is %g, wanted %g", name, (long long)k, got[k], want);
        }
    }
    mem_free(got);
    mem_free(ids);
}

// A field of /proc/self/status, in bytes; 0: not there.
static size_t status_bytes(const char *field)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[200];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, strlen(field))) kib = strtoull(line + strlen(field), NULL, 10);
    if (f) fclose(f);
    return (size_t)kib << 10;
}

// From here on VmHWM is the largest resident set since now; false: this system cannot.
static bool peak_reset(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    const bool ok = f && fputs("5", f) >= 0;
    return (f ? fclose(f) == 0 : false) && ok;
}

// Weights in their run dtype, a twentieth more, and the largest tensor as f32; the threads' stacks and the like on top.
static void check_memory(const struct model *m, size_t before, const char *what)
{
    size_t weights = 0, largest = 0;
    for (size_t i = 0; i < m->n_param; i++) {
        const size_t n = tensor_bytes(m->params[i].weight);
        weights += n;
        if (n > largest) largest = n;
    }
    const size_t peak = status_bytes("VmHWM:") - before, bound = weights + weights / 20 + largest;
    ck_assert_msg(m->weights.used <= weights + weights / 20, "%s: the arena takes %zu bytes for weights of %zu", what, m->weights.used,
                  weights);
#ifndef __SANITIZE_ADDRESS__
    ck_assert_msg(peak <= bound, "%s: loading took %zu bytes, weights are %zu, the largest %zu", what, peak, weights, largest);
#else
    (void)peak, (void)bound;
#endif
}

// Rows of 512 (17001 of them are no multiple of anything) from every dtype of a file to every way they are kept.
START_TEST(every_conversion_gives_the_values_of_the_file_within_the_memory_promised) // _i: dtype of the file
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    write_checkpoint(dir, (enum dtype)_i);
    for (int way = 0; way < 4; way++) {
        struct device dev;
        struct model *m = NULL;
        struct model_options opt = {.archs = all_archs, .use = way % 2 ? MODEL_TRAIN : MODEL_GENERATE, .dtype = way / 2 ? DT_BF16 : DT_F32};
        ck_ok(dev_open(&dev, "cpu", 2, &err));
        const bool measured = peak_reset();
        const size_t before = status_bytes("VmRSS:");
        ck_ok(model_load(&m, &dev, dir, &opt, &err));
        char what[64];
        snprintf(what, sizeof what, "%s to %s %s", dtype_name((enum dtype)_i), dtype_name(opt.dtype), way % 2 ? "rows" : "panels");
        if (measured) check_memory(m, before, what);
        check_values(m, &dev, (enum dtype)_i);
        model_free(m);
        dev_close(&dev);
    }
}
END_TEST

// A header may have any length, and then no value is aligned.
START_TEST(data_at_an_odd_byte_is_the_same_data)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    write_checkpoint(dir, (enum dtype)_i);
    struct buf b = {0}, moved = {0};
    char *path = path_join(dir, "model.safetensors");
    ck_ok(file_read(&b, path, (size_t)1 << 30, &err));
    uint64_t n;
    memcpy(&n, b.data, 8);
    const uint64_t longer = n + 1;
    buf_put(&moved, &longer, 8);
    buf_put(&moved, b.data + 8, n);
    buf_putc(&moved, ' ');
    buf_put(&moved, b.data + 8 + n, b.size - 8 - n);
    ck_ok(file_write_atomic(path, moved.data, moved.size, &err));
    buf_free(&b);
    buf_free(&moved);
    mem_free(path);
    struct device dev;
    struct model *m = NULL;
    struct model_options opt = {.archs = all_archs, .use = MODEL_GENERATE, .dtype = DT_BF16};
    ck_ok(dev_open(&dev, "cpu", 2, &err));
    ck_ok(model_load(&m, &dev, dir, &opt, &err));
    check_values(m, &dev, (enum dtype)_i);
    model_free(m);
    dev_close(&dev);
}
END_TEST

// ---- shards --------------------------------------------------------------------------------------------------------------------------

static enum status open_shards(const char *dir, struct err *err)
{
    struct st_set s;
    enum status st = st_open_dir(&s, dir, err);
    if (!st) st_close(&s);
    return st;
}

static void remove_file(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    ck_assert_int_eq(unlink(path), 0);
    mem_free(path);
}

START_TEST(missing_shards_are_all_named)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    copied_folder(test_golden("fp8"), dir);
    ck_ok(open_shards(dir, &err));
    remove_file(dir, "model-00001-of-00002.safetensors");
    remove_file(dir, "model-00002-of-00002.safetensors");
    ck_assert_int_eq(open_shards(dir, &err), ST_BAD_INPUT);
    ck_assert_int_eq(err.n_line, 2);
    ck_assert_msg(strstr(err.text, "model-00001-of") && strstr(err.text, "model-00002-of"), "%s", err.text);
}
END_TEST

// 482287 values at two bytes each: DeepSeek's own index of FP8 shards counts so.
START_TEST(an_index_of_fp8_may_count_its_values_as_bf16)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    copied_folder(test_golden("fp8"), dir);
    edited_text(dir, "model.safetensors.index.json", "\"total_size\": 500698", "\"total_size\": 964574");
    ck_ok(open_shards(dir, &err));
    edited_text(dir, "model.safetensors.index.json", "\"total_size\": 964574", "\"total_size\": 964576");
    ck_fails(open_shards(dir, &err), ST_BAD_INPUT, "metadata.total_size: found 964576, but the tensors of its shards have 500698 bytes");
}
END_TEST

static const struct {
    const char *from, *to, *message;
} index_lies[] = {
    {"\"total_size\": ", "\"total_size\": 1", "metadata.total_size: found 1500698, but the tensors of its shards have 500698 bytes"},
    {"\"model.norm.weight\": \"model-00002", "\"model.norm.weight\": \"model-00001",
     "model.norm.weight: wanted in model-00001-of-00002.safetensors, found in"},
    {"\"model.norm.weight\"", "\"model.morn.weight\"", "model.morn.weight: wanted in model-00002-of-00002.safetensors, not there"},
    {"\"model-00001-of-00002.safetensors\"", "\"../model-00001-of-00002.safetensors\"", "wanted the name of a file in the same folder"},
    {"\"model-00001-of-00002.safetensors\"", "\"model-00003-of-00002.safetensors\"", "model-00003-of-00002.safetensors"},
};

START_TEST(an_index_that_lies_is_refused_by_name)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    copied_folder(test_golden("fp8"), dir);
    edited_text(dir, "model.safetensors.index.json", index_lies[_i].from, index_lies[_i].to);
    ck_fails(open_shards(dir, &err), ST_BAD_INPUT, index_lies[_i].message);
}
END_TEST

START_TEST(a_tensor_in_two_shards_is_refused_with_both)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    copied_folder(test_golden("fp8"), dir);
    char *a = path_join(dir, "model-00001-of-00002.safetensors"), *b = path_join(dir, "again.safetensors");
    ck_ok(file_copy(a, b, &err));
    edited_text(dir, "model.safetensors.index.json", "\"lm_head.weight\": \"model-00001-of-00002.safetensors\"",
                "\"lm_head.weight\": \"again.safetensors\"");
    ck_fails(open_shards(dir, &err), ST_BAD_INPUT, "tensor lm_head.weight stands in two shards: ");
    mem_free(a);
    mem_free(b);
}
END_TEST

Suite *suite_load(void)
{
    Suite *s = suite_create("load");
    TCase *t = tcase_create("values");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_conversion_gives_the_values_of_the_file_within_the_memory_promised, DT_F32, DT_F16 + 1);
    tcase_add_loop_test(t, data_at_an_odd_byte_is_the_same_data, DT_F32, DT_F16 + 1);
    suite_add_tcase(s, t);
    t = tcase_create("shards");
    tcase_add_test(t, missing_shards_are_all_named);
    tcase_add_test(t, an_index_of_fp8_may_count_its_values_as_bf16);
    tcase_add_loop_test(t, an_index_that_lies_is_refused_by_name, 0, sizeof index_lies / sizeof *index_lies);
    tcase_add_test(t, a_tensor_in_two_shards_is_refused_with_both);
    suite_add_tcase(s, t);
    return s;
}
