// distill train on real text against PyTorch: GSM8K rows, the real tokenizer and chat template of Qwen2.5, its vocabulary of 151,936, and a
// small random model, in f32 with clipping, warm-up and weight decay (tests/golden/train_gsm8k.py). The command runs as a user's would;
// what it writes to metrics.jsonl is compared step by step, and its rows token by token.
#include "datasets/rows.h"
#include "distill/command.h"
#include "kernels/model/safetensors.h"
#include "tests/datasets/chat_helpers.h"

#include <math.h>

extern const struct command command_train;

// The golden's formula: n values in [-1, 1), FNV-1a of the name plus the index, mixed as MurmurHash3 ends.
static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCDu;
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53u;
    return h ^ h >> 33;
}
static float *formula(const char *name, int64_t n)
{
    uint64_t seed = 14695981039346656037u;
    for (const char *c = name; *c; c++) seed = (seed ^ (uint8_t)*c) * 1099511628211u;
    float *v = NEW_N(float, n);
    for (int64_t i = 0; i < n; i++) {
        const float u = (float)((int64_t)(mix(seed + (uint64_t)i) >> 40) - (1 << 23)) / (1 << 23);
        v[i] = strstr(name, "norm") ? 1 + u / 8 : u / 8;
    }
    return v;
}

struct weight {
    char name[64];
    int64_t dim[2]; // dim[1] 0: one dimension
};

// The parameters of a Qwen2 with tied embeddings.
static int list_weights(struct weight *w, const json_t *config)
{
#define GET(key) json_integer_value(json_object_get(config, key))
    const int64_t d = GET("hidden_size"), ff = GET("intermediate_size"), kv = d / GET("num_attention_heads") * GET("num_key_value_heads");
    const struct weight layer[] = {
        {"self_attn.q_proj.weight", {d, d}}, {"self_attn.k_proj.weight", {kv, d}}, {"self_attn.v_proj.weight", {kv, d}},
        {"self_attn.o_proj.weight", {d, d}}, {"self_attn.q_proj.bias", {d}},       {"self_attn.k_proj.bias", {kv}},
        {"self_attn.v_proj.bias", {kv}},     {"mlp.gate_proj.weight", {ff, d}},    {"mlp.up_proj.weight", {ff, d}},
        {"mlp.down_proj.weight", {d, ff}},   {"input_layernorm.weight", {d}},      {"post_attention_layernorm.weight", {d}}};
    int n = 0;
    w[n++] = (struct weight){"model.embed_tokens.weight", {GET("vocab_size"), d}};
    w[n++] = (struct weight){"model.norm.weight", {d}};
    for (int l = 0; l < GET("num_hidden_layers"); l++)
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++, n++) {
            w[n] = layer[i];
            ck_assert_int_lt(snprintf(w[n].name, sizeof w[n].name, "model.layers.%d.%s", l, layer[i].name), (int)sizeof w[n].name);
        }
    return n;
#undef GET
}

static void write_weights(const char *dir, const json_t *config)
{
    struct err err = {0};
    struct weight w[32];
    struct st_writer *out;
    char *path = path_join(dir, "model.safetensors");
    const int n = list_weights(w, config);
    ck_ok(st_create(&out, path, &err));
    for (int i = 0; i < n; i++) st_declare(out, w[i].name, "F32", w[i].dim[1] ? 2 : 1, w[i].dim);
    ck_ok(st_begin(out, &err));
    for (int i = 0; i < n; i++) {
        const int64_t n_el = w[i].dim[0] * (w[i].dim[1] ? w[i].dim[1] : 1);
        float *v = formula(w[i].name, n_el);
        ck_ok(st_put(out, v, (size_t)n_el * sizeof *v, &err));
        mem_free(v);
    }
    ck_ok(st_finish(out, &err));
    mem_free(path);
}

static const char *make_student(const json_t *config)
{
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    struct err err = {0};
    const char *dir = test_tmpdir(), *tokenizer = test_material("tokenizers/qwen2_5");
    for (int i = 0; i < 2; i++) {
        char *from = path_join(tokenizer, files[i]), *to = path_join(dir, files[i]);
        ck_ok(file_copy(from, to, &err));
        mem_free(from);
        mem_free(to);
    }
    char *path = path_join(dir, "config.json");
    ck_ok(json_write_atomic(config, path, &err));
    mem_free(path);
    write_weights(dir, config);
    return dir;
}

// The first n problems as conversations.
static char *make_data(size_t n)
{
    struct err err = {0};
    struct buf text = {0}, out = {0};
    char *path = path_join(test_tmpdir(), "gsm8k.jsonl");
    ck_ok(file_read(&text, test_material("datasets/gsm8k/train.jsonl"), 64 << 20, &err));
    const char *at = text.data;
    for (size_t i = 0; i < n; i++) {
        const char *end = strchr(at, '\n');
        json_t *row;
        ck_ok(json_parse(&row, at, (size_t)(end - at), "gsm8k", (long)i + 1, &err));
        json_t *chat = json_pack("{s:[{s:s, s:O}, {s:s, s:O}]}", "messages", "role", "user", "content", json_object_get(row, "question"),
                                 "role", "assistant", "content", json_object_get(row, "answer"));
        json_append_line(&out, chat);
        json_decref(chat);
        json_decref(row);
        at = end + 1;
    }
    ck_ok(file_write_atomic(path, out.data, out.size, &err));
    buf_free(&text);
    buf_free(&out);
    return path;
}

static void check_rows(const char *student, const char *data, const json_t *wanted)
{
    struct err err = {0};
    struct chat_fixture f = {0};
    struct rows rows;
    const json_t *w;
    size_t i;
    ck_ok(tokenizer_load(&f.tok, student, &err));
    ck_ok(chat_open(&f.chat, f.tok, &err));
    const struct rows_options opt = {.max_len = 1024, .n_vocab = 151936, .tokenizer = f.tok, .chat = f.chat};
    ck_ok(rows_load(&rows, data, &opt, &err));
    ck_assert_uint_eq(rows.n, json_array_size(wanted));
    json_array_foreach(wanted, i, w)
    {
        const struct row *r = &rows.v[i];
        const struct buf bytes = {.data = (char *)r->ids, .size = (size_t)r->n_tok * sizeof *r->ids};
        const json_t *loss = json_object_get(w, "loss");
        ck_assert_int_eq(r->n_tok, (int)json_integer_value(json_object_get(w, "n")));
        ck_assert_uint_eq(crc32_of(&bytes), (uint32_t)json_integer_value(json_object_get(w, "crc32")));
        for (int k = 0; k < r->n_tok; k++)
            ck_assert_msg(r->mask[k] ==
                              (k >= json_integer_value(json_array_get(loss, 0)) && k < json_integer_value(json_array_get(loss, 1))),
                          "row %zu, token %d: mask %d", i, k, r->mask[k]);
    }
    rows_free(&rows);
    chat_fixture_close(&f);
}

static void train(const char *student, const char *data, const char *out, const json_t *golden, const char *micro_tokens)
{
    struct err err = {0};
    struct options *o;
    char value[6][32];
    static const char *const keys[] = {"n_step", "batch_tokens", "warmup", "lr", "weight_decay", "clip"};
    for (int i = 0; i < 6; i++) snprintf(value[i], sizeof value[i], "%.9g", json_number_value(json_object_get(golden, keys[i])));
    const char *argv[] = {"--student",      student,  "--data",         data,         "--out",   out,      "--steps",        value[0],
                          "--batch-tokens", value[1], "--warmup",       value[2],     "--lr",    value[3], "--weight-decay", value[4],
                          "--clip",         value[5], "--micro-tokens", micro_tokens, "--dtype", "f32",    "--device",       "cpu",
                          "--schedule",     "cosine", "--no-shuffle",   "--quiet"};
    ck_ok(options_parse(&o, &command_train, sizeof argv / sizeof *argv, (char **)(uintptr_t)argv, &err));
    ck_ok(command_train.run(o, &err));
    options_free(o);
}

static void near(int step, const char *what, const json_t *got, const json_t *want, double rel)
{
    const double a = json_number_value(json_object_get(got, what)), b = json_number_value(json_object_get(want, what));
    ck_assert_msg(fabs(a - b) <= rel * fabs(b), "step %d: %s %.8g, PyTorch has %.8g: off by %.2g", step, what, a, b, fabs(a - b) / fabs(b));
}

START_TEST(training_on_gsm8k_follows_pytorch)
{
    struct err err = {0};
    struct buf text = {0};
    json_t *golden;
    if (!test_material("datasets/gsm8k/train.jsonl") || !test_material("tokenizers/qwen2_5")) return;
    ck_ok(json_read(&golden, test_golden("train/gsm8k.json"), &err));
    const json_t *steps = json_object_get(golden, "steps");
    const char *student = make_student(json_object_get(golden, "config"));
    char *data = make_data(json_array_size(json_object_get(golden, "rows"))), *out = path_join(test_tmpdir(), "out"),
         *metrics = path_join(out, "metrics.jsonl");
    check_rows(student, data, json_object_get(golden, "rows"));
    train(student, data, out, golden, "400"); // several micro-batches a step
    ck_ok(file_read(&text, metrics, 1 << 20, &err));
    char *at = text.data;
    for (size_t s = 0; s < json_array_size(steps); s++) {
        char *end = strchr(at, '\n');
        ck_assert_msg(end != NULL, "metrics.jsonl has %zu lines", s);
        json_t *got;
        const json_t *want = json_array_get(steps, s);
        ck_ok(json_parse(&got, at, (size_t)(end - at), metrics, (long)s + 1, &err));
        near((int)s + 1, "n_tok", got, want, 0);
        near((int)s + 1, "n_loss", got, want, 0);
        near((int)s + 1, "lr", got, want, 1e-9);
        near((int)s + 1, "loss", got, want, 2e-4);
        near((int)s + 1, "grad_norm", got, want, 2e-3);
        json_decref(got);
        at = end + 1;
    }
    ck_assert_str_eq(at, "");
    ck_assert_uint_ge(json_array_size(steps), 10);
    json_decref(golden);
    buf_free(&text);
    mem_free(data);
    mem_free(out);
    mem_free(metrics);
}
END_TEST

Suite *suite_train_gsm8k(void)
{
    Suite *s = suite_create("train_gsm8k");
    TCase *c = tcase_create("train_gsm8k");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, training_on_gsm8k_follows_pytorch);
    suite_add_tcase(s, c);
    return s;
}
