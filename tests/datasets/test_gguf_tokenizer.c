// Tokenizers through GGUF and back: the ids stay Hugging Face's (tests/golden/text/tokenizer.py), and what GGUF cannot say exactly is
// refused.
#include "tests/datasets/gguf_helpers.h"
#include "tests/datasets/tokenizer_helpers.h"

static const char TINY[] = "teacher/tiny/base";

// With nothing to say: the ids are the same.
static const char *exported(const char *dir, int32_t n_vocab)
{
    const char *note, *file = exported_tokenizer(dir, n_vocab, &note);
    ck_assert_ptr_null(note);
    return file;
}

START_TEST(the_shipped_tokenizer_comes_back)
{
    struct err err = {0};
    struct tokenizer *t, *of_dir;
    json_t *cases = golden("text/tokenizer_tiny.json"), *c;
    size_t i;
    ck_ok(tokenizer_load(&of_dir, TINY, &err));
    ck_ok(tokenizer_load(&t, exported(TINY, 520), &err)); // 8 rows of padding
    json_array_foreach(cases, i, c) ck_encodes(t, "tiny", json_object_get(c, "text"), json_object_get(c, "ids"));
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
    json_array_foreach(json_object_get(root, "texts"), i, text) ck_encodes(t, REAL[_i].name, text, json_array_get(ids, i));
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
    static const struct gguf_text tokens[] = {{"a", 1}, {"1", 1}, {"11", 2}, {"<s>", 3}}, merge = {"1 1", 3};
    for (const struct gguf_pre *p = gguf_pres; p->name; p++) {
        struct tokenizer *t;
        struct ids ids = {0};
        const struct tokenizer_keys k = {.model = "gpt2",
                                         .pre = p->name,
                                         .tokens = tokens,
                                         .n_token = 4,
                                         .types = (int32_t[]){1, 1, 1, 3},
                                         .n_type = 4,
                                         .merges = &merge,
                                         .n_merge = 1};
        ck_ok(tokenizer_load(&t, file_of_keys(&k), &err));
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
    char *from = path_join(TINY, "tokenizer.json");
    json_t *root;
    ck_ok(json_read(&root, from, &err));
    mem_free(from);
    return tokenizer_folder(root, changes, NULL);
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
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) ck_export_refused(variant(cases[i].changes), cases[i].part);
    ck_export_refused(beside("added_tokens.json", "{\"<x>\": 512}"), "\"<x>\" has id 512, but the model has 512 rows");
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
                                  bytes[] = {{"a", 1}, {"\xff", 1}, {"ab", 2}}, merge = {"a b", 3};
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
        const struct tokenizer_keys k = {.model = c->model,
                                         .pre = c->pre,
                                         .tokens = c->tokens,
                                         .n_token = c->tokens ? 3 : 0,
                                         .types = c->types,
                                         .n_type = c->n_type,
                                         .merges = &merge,
                                         .n_merge = c->merges};
        struct err err = {0};
        struct tokenizer *t;
        ck_fails(tokenizer_load(&t, file_of_keys(&k), &err), ST_BAD_INPUT, c->part);
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
