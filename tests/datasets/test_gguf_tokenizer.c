// Tokenizers through GGUF and back: the ids stay Hugging Face's (tests/golden/text/tokenizer.py), and what GGUF cannot say exactly is
// refused.
#include "datasets/tokenizer/gguf.h"
#include "tests/test.h"

static const char TINY[] = "teacher/tiny/base";

static json_t *golden(const char *name)
{
    struct err err = {0};
    json_t *root;
    ck_ok(json_read(&root, test_golden(name), &err));
    return root;
}

// A GGUF file with the tokenizer of `dir` and nothing else.
static const char *exported(const char *dir, int32_t n_vocab)
{
    static char path[256];
    struct err err = {0};
    struct gguf_writer *w;
    const char *note;
    snprintf(path, sizeof path, "%s/tokenizer.gguf", test_tmpdir());
    ck_ok(gguf_create(&w, path, &err));
    ck_ok(gguf_put_tokenizer(w, dir, n_vocab, -1, NULL, 0, &note, &err));
    ck_assert_ptr_null(note); // nothing to say: the ids are the same
    ck_ok(gguf_begin(w, &err));
    ck_ok(gguf_finish(w, &err));
    return path;
}

static void check(const struct tokenizer *t, const char *name, const json_t *text, const json_t *wanted)
{
    struct err err = {0};
    struct ids ids = {0};
    ck_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids, &err));
    bool same = ids.n == json_array_size(wanted);
    for (size_t i = 0; same && i < ids.n; i++) same = ids.v[i] == json_integer_value(json_array_get(wanted, i));
    if (!same) ck_abort_msg("%s: \"%s\" has other ids", name, json_string_value(text));
    ids_free(&ids);
}

START_TEST(the_shipped_tokenizer_comes_back)
{
    struct err err = {0};
    struct tokenizer *t, *of_dir;
    json_t *cases = golden("text/tokenizer_tiny.json"), *c;
    size_t i;
    ck_ok(tokenizer_load(&of_dir, TINY, &err));
    ck_ok(tokenizer_load(&t, exported(TINY, 520), &err)); // 8 rows of padding
    json_array_foreach(cases, i, c) check(t, "tiny", json_object_get(c, "text"), json_object_get(c, "ids"));
    ck_assert_int_eq(tokenizer_n_vocab(t), 512);
    ck_assert_int_eq(tokenizer_eos(t), tokenizer_eos(of_dir));
    ck_assert_int_eq(tokenizer_pad(t), tokenizer_pad(of_dir));
    ck_assert_int_eq(tokenizer_bos(t), -1);
    ck_assert_str_eq(tokenizer_chat_template(t), tokenizer_chat_template(of_dir));
    ck_assert_str_eq(tokenizer_sha256(t), tokenizer_sha256(of_dir)); // so that a store of the one fits the other
    for (int32_t id = 0; id < 512; id++) ck_assert_int_eq(tokenizer_is_special(t, id), tokenizer_is_special(of_dir, id));
    json_decref(cases);
    tokenizer_free(t);
    tokenizer_free(of_dir);
}
END_TEST

static const struct {
    const char *name, *pre;
    int32_t n_vocab;
    bool add_bos;
} REAL[] = {{"qwen2_5", "qwen2", 151936, false},
            {"qwen3", "qwen2", 151936, false},
            {"llama3", "llama-bpe", 128256, false},
            {"deepseek_v3", "deepseek-v3", 129280, true}};

START_TEST(real_tokenizers_come_back)
{
    struct err err = {0};
    const char *dir = test_material("tokenizers");
    if (!dir) return;
    json_t *root = golden("text/tokenizer_real.json"), *text, *keys;
    const json_t *ids = json_object_get(json_object_get(root, "ids"), REAL[_i].name);
    char *path = path_join(dir, REAL[_i].name);
    struct tokenizer *t, *of_dir;
    struct gguf g;
    size_t i;
    const char *file = exported(path, REAL[_i].n_vocab);
    ck_ok(gguf_open(&g, file, &err));
    keys = gguf_json(&g, "tokenizer.ggml.");
    ck_assert_str_eq(json_string_value(json_object_get(keys, "tokenizer.ggml.pre")), REAL[_i].pre);
    ck_assert_int_eq(json_is_true(json_object_get(keys, "tokenizer.ggml.add_bos_token")), REAL[_i].add_bos);
    ck_assert_uint_eq(json_array_size(json_object_get(keys, "tokenizer.ggml.tokens")), (size_t)REAL[_i].n_vocab);
    json_decref(keys);
    gguf_close(&g);
    ck_ok(tokenizer_load(&t, file, &err));
    ck_ok(tokenizer_load(&of_dir, path, &err));
    json_array_foreach(json_object_get(root, "texts"), i, text) check(t, REAL[_i].name, text, json_array_get(ids, i));
    ck_assert_int_eq(tokenizer_n_vocab(t), tokenizer_n_vocab(of_dir));
    ck_assert_int_eq(tokenizer_eos(t), tokenizer_eos(of_dir));
    ck_assert_int_eq(tokenizer_bos(t), tokenizer_bos(of_dir));
    tokenizer_free(t);
    tokenizer_free(of_dir);
    mem_free(path);
    json_decref(root);
}
END_TEST

// Every name's regexes are ones that we know, also those that no tokenizer here has.
START_TEST(every_name_of_a_pre_tokenizer_can_be_loaded)
{
    struct err err = {0};
    struct gguf_writer *w;
    for (const struct gguf_pre *p = gguf_pres; p->name; p++) {
        char path[256];
        struct tokenizer *t;
        struct ids ids = {0};
        snprintf(path, sizeof path, "%s/pre.gguf", test_tmpdir());
        ck_ok(gguf_create(&w, path, &err));
        gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
        gguf_put_string(w, "tokenizer.ggml.pre", p->name);
        gguf_put_strings(w, "tokenizer.ggml.tokens", (struct gguf_text[]){{"a", 1}, {"1", 1}, {"11", 2}, {"<s>", 3}}, 4);
        gguf_put_i32s(w, "tokenizer.ggml.token_type", (int32_t[]){1, 1, 1, 3}, 4);
        gguf_put_strings(w, "tokenizer.ggml.merges", (struct gguf_text[]){{"1 1", 3}}, 1);
        ck_ok(gguf_begin(w, &err));
        ck_ok(gguf_finish(w, &err));
        ck_ok(tokenizer_load(&t, path, &err));
        ck_ok(tokenizer_encode(t, "a11<s>", 6, &ids, &err));
        ck_assert_int_eq(ids.v[0], 0);
        ck_assert_int_eq(ids.v[ids.n - 1], 3);
        ck_assert_uint_eq(ids.n, p->nfc ? 4 : 3); // Qwen takes digits one by one
        ids_free(&ids);
        tokenizer_free(t);
    }
}
END_TEST

// ---- what is refused ----

// A folder with the tiny tokenizer.json in which some keys are others.
static const char *variant(const char *changes)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *from = path_join(TINY, "tokenizer.json"), *to = path_join(dir, "tokenizer.json");
    json_t *root, *patch;
    ck_ok(json_read(&root, from, &err));
    ck_ok(json_parse(&patch, changes, strlen(changes), "patch", 0, &err));
    json_object_update_recursive(root, patch);
    ck_ok(json_write_atomic(root, to, &err));
    json_decref(root);
    json_decref(patch);
    mem_free(from);
    mem_free(to);
    return dir;
}

// A variant with a file beside it.
static const char *beside(const char *name, const char *text)
{
    struct err err = {0};
    const char *dir = variant("{}");
    char *path = path_join(dir, name);
    ck_ok(file_write_atomic(path, text, strlen(text), &err));
    mem_free(path);
    return dir;
}

// What is added and how as transformers makes of the same files: golden/text/tokenizer_files.py.
START_TEST(added_tokens_of_the_files_beside_tokenizer_json_are_there_too)
{
    static const struct {
        const char *name, *text;
        int type[2];
    } cases[] = {
        {"tokenizer_config.json",
         "{\"added_tokens_decoder\": {\"512\": {\"content\": \"<x>\", \"special\": true}, \"513\": {\"content\": \"<y>\"}, \"510\": "
         "{\"content\": "
         "\"<think>\", \"special\": true}}}",
         {3, 4}},
        {"added_tokens.json", "{\"<x>\": 512, \"<y>\": 513}", {4, 4}},
        {"tokenizer_config.json", "{\"eos_token\": \"in\"}", {5, 5}}, // a token of the vocabulary with a role
    };
    struct err err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *dir = beside(cases[i].name, cases[i].text), *file = exported(dir, 520);
        struct tokenizer *t, *of_dir;
        struct gguf g;
        ck_ok(gguf_open(&g, file, &err));
        json_t *keys = gguf_json(&g, "tokenizer.ggml."), *types = json_object_get(keys, "tokenizer.ggml.token_type");
        for (size_t k = 0; k < 2; k++) ck_assert_int_eq(json_integer_value(json_array_get(types, 512 + k)), cases[i].type[k]);
        json_decref(keys);
        gguf_close(&g);
        ck_ok(tokenizer_load(&t, file, &err));
        ck_ok(tokenizer_load(&of_dir, dir, &err));
        ck_assert_int_eq(tokenizer_n_vocab(t), tokenizer_n_vocab(of_dir));
        ck_assert_str_eq(tokenizer_sha256(t), tokenizer_sha256(of_dir));
        for (int32_t id = 0; id < tokenizer_n_vocab(t); id++)
            ck_assert_msg(tokenizer_is_special(t, id) == tokenizer_is_special(of_dir, id), "case %zu: id %d", i, id);
        struct ids a = {0}, b = {0};
        ck_ok(tokenizer_encode(t, "in<x> <y><think>", 16, &a, &err));
        ck_ok(tokenizer_encode(of_dir, "in<x> <y><think>", 16, &b, &err));
        ck_assert(a.n == b.n && !memcmp(a.v, b.v, a.n * sizeof *a.v));
        ids_free(&a);
        ids_free(&b);
        tokenizer_free(t);
        tokenizer_free(of_dir);
    }
}
END_TEST

START_TEST(a_tokenizer_that_gguf_cannot_say_is_refused)
{
    static const struct {
        const char *changes, *part;
    } cases[] = {
        {"{\"normalizer\": null}", "no pre-tokenizer of llama.cpp"},
        {"{\"normalizer\": {\"type\": \"NFKC\"}}", "NFKC"},
        {"{\"model\": {\"ignore_merges\": true}}", "\"ignore_merges\":true"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": true}}", "\"add_prefix_space\":true"},
        {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, {\"type\": \"ByteLevel\", "
         "\"add_prefix_space\": false}]}}",
         "\"Digits\""},
        {"{\"added_tokens\": [{\"id\": 510, \"content\": \"<think>\", \"lstrip\": true}]}", "\"<think>\" has lstrip"},
        {"{\"added_tokens\": [{\"id\": 600, \"content\": \"<far>\"}]}", "\"<far>\" has id 600, but the model has 512 rows"},
        {"{\"added_tokens\": [{\"id\": 510, \"content\": \"[PAD511]\"}]}", "the same text \"[PAD511]\""},
        {"{\"model\": {\"merges\": [[\"a\", \"b c\"]], \"vocab\": {\"b c\": 600}}}", ""},
    };
    struct err err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_writer *w;
        const char *note;
        char path[256];
        snprintf(path, sizeof path, "%s/no.gguf", test_tmpdir());
        ck_ok(gguf_create(&w, path, &err));
        ck_fails(gguf_put_tokenizer(w, variant(cases[i].changes), 512, -1, NULL, 0, &note, &err), ST_BAD_INPUT, cases[i].part);
        gguf_abort(w);
    }
    struct gguf_writer *w;
    const char *note, *dir = beside("added_tokens.json", "{\"<x>\": 512}");
    char *path = path_join(dir, "no.gguf");
    ck_ok(gguf_create(&w, path, &err));
    ck_fails(gguf_put_tokenizer(w, dir, 512, -1, NULL, 0, &note, &err), ST_BAD_INPUT, "\"<x>\" has id 512, but the model has 512 rows");
    gguf_abort(w);
    mem_free(path);
}
END_TEST

struct broken {
    const char *model, *pre, *part;
    const struct gguf_text *tokens;
    int32_t types[3];
    size_t n_type;
    bool merges;
};

START_TEST(keys_that_make_no_tokenizer_are_refused_by_name)
{
    static const struct gguf_text good[] = {{"a", 1}, {"b", 1}, {"ab", 2}}, twice[] = {{"a", 1}, {"b", 1}, {"a", 1}},
                                  bytes[] = {{"a", 1}, {"\xff", 1}, {"ab", 2}};
    static const struct broken cases[] = {
        {"t5", "qwen2", "tokenizer.ggml.model: \"t5\" is not known", good, {1, 1, 1}, 3, true},
        {NULL, "qwen2", "tokenizer.ggml.model: missing", good, {1, 1, 1}, 3, true},
        {"gpt2", NULL, "tokenizer.ggml.pre: missing", good, {1, 1, 1}, 3, true},
        {"gpt2", "kimi-k2", "\"kimi-k2\" is not known (known: llama-bpe,", good, {1, 1, 1}, 3, true},
        {"gpt2", "qwen2", "tokenizer.ggml.token_type: 2 items, wanted 3", good, {1, 1}, 2, true},
        {"gpt2", "qwen2", "tokenizer.ggml.token_type: missing", good, {0}, 0, true},
        {"gpt2", "qwen2", "tokenizer.ggml.tokens: missing", NULL, {0}, 0, true},
        {"gpt2", "qwen2", "tokenizer.ggml.merges: missing", good, {1, 1, 1}, 3, false},
        {"gpt2", "qwen2", "tokens 0 and 2 are both \"a\"", twice, {1, 1, 1}, 3, true},
        {"gpt2", "qwen2", "token 1: wanted text in UTF-8", bytes, {1, 1, 1}, 3, true},
        {"gpt2", "qwen2", "token 1 has type 9", good, {1, 9, 1}, 3, true},
        {"gpt2", "qwen2", "model.merges", twice, {1, 1, 5}, 3, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct broken *c = &cases[i];
        struct err err = {0};
        struct gguf_writer *w;
        struct tokenizer *t;
        char path[256];
        snprintf(path, sizeof path, "%s/broken.gguf", test_tmpdir());
        ck_ok(gguf_create(&w, path, &err));
        if (c->model) gguf_put_string(w, "tokenizer.ggml.model", c->model);
        if (c->pre) gguf_put_string(w, "tokenizer.ggml.pre", c->pre);
        if (c->tokens) gguf_put_strings(w, "tokenizer.ggml.tokens", c->tokens, 3);
        if (c->n_type) gguf_put_i32s(w, "tokenizer.ggml.token_type", c->types, c->n_type);
        if (c->merges) gguf_put_strings(w, "tokenizer.ggml.merges", (struct gguf_text[]){{"a b", 3}}, 1);
        ck_ok(gguf_begin(w, &err));
        ck_ok(gguf_finish(w, &err));
        ck_fails(tokenizer_load(&t, path, &err), ST_BAD_INPUT, c->part);
    }
}
END_TEST

Suite *suite_gguf_tokenizer(void)
{
    Suite *s = suite_create("gguf tokenizer");
    TCase *t = tcase_create("there and back");
    tcase_add_test(t, the_shipped_tokenizer_comes_back);
    tcase_add_loop_test(t, real_tokenizers_come_back, 0, sizeof REAL / sizeof *REAL);
    tcase_add_test(t, every_name_of_a_pre_tokenizer_can_be_loaded);
    tcase_add_test(t, added_tokens_of_the_files_beside_tokenizer_json_are_there_too);
    tcase_add_test(t, a_tokenizer_that_gguf_cannot_say_is_refused);
    tcase_add_test(t, keys_that_make_no_tokenizer_are_refused_by_name);
    suite_add_tcase(s, t);
    return s;
}
