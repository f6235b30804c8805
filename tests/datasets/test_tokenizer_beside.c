// What stands beside tokenizer.json, against what transformers makes of the same folders (golden/text/tokenizer_files.py).
#include "datasets/chat.h"
#include "tests/datasets/chat_helpers.h"
#include "tests/datasets/tokenizer_helpers.h"

#include <string.h>

static void write_text(const char *dir, const char *name, const json_t *text)
{
    struct err err = {0};
    char *path = path_join(dir, name), *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
    ck_ok(dir_make(folder, &err));
    ck_ok(file_write_atomic(path, json_string_value(text), json_string_length(text), &err));
    mem_free(folder);
    mem_free(path);
}

// The shipped tokenizer.json with `spec` over it, and the files beside it, in a folder of their own.
static const char *folder_of(const json_t *spec, json_t *files)
{
    struct err err = {0};
    const char *dir = test_tmpdir(), *name;
    char *from = path_join(TINY_TOKENIZER, "tokenizer.json"), *to = path_join(dir, "tokenizer.json");
    json_t *root, *text;
    ck_ok(json_read(&root, from, &err));
    json_object_update(root, (json_t *)(uintptr_t)spec);
    ck_ok(json_write_atomic(root, to, &err));
    json_object_foreach(files, name, text) write_text(dir, name, text);
    json_decref(root);
    mem_free(from);
    mem_free(to);
    return dir;
}

static void same_texts(const struct tokenizer *t, const char *name, const json_t *texts)
{
    struct err err = {0};
    const json_t *one;
    size_t k;
    json_array_foreach(texts, k, one)
    {
        const json_t *text = json_array_get(one, 0), *ids = json_array_get(one, 1);
        struct ids got = {0};
        struct buf back = {0};
        ck_encodes(t, name, text, ids);
        ck_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), &got, &err));
        ck_ok(tokenizer_decode(t, got.v, got.n, true, &back, &err));
        ck_assert_msg(!strcmp(back.data ? back.data : "", json_string_value(json_array_get(one, 2))), "%s: \"%s\" became \"%s\"", name,
                      json_string_value(text), back.data);
        ids_free(&got);
        buf_free(&back);
    }
}

static void same_special(const struct tokenizer *t, const char *name, const json_t *special)
{
    struct err err = {0};
    size_t n = 0;
    for (int32_t id = 0; id < tokenizer_n_vocab(t); id++) {
        struct buf text = {0};
        ck_ok(tokenizer_decode(t, &id, 1, true, &text, &err));
        if (!text.size)
            ck_assert_msg(id == json_integer_value(json_array_get(special, n++)), "%s: id %d is passed over as special", name, id);
        buf_free(&text);
    }
    ck_assert_msg(n == json_array_size(special), "%s: %zu special tokens, wanted %zu", name, n, json_array_size(special));
}

static void same_chats(const struct tokenizer *t, const char *name, const json_t *chats)
{
    struct err err = {0};
    const json_t *one;
    size_t k;
    json_array_foreach(chats, k, one)
    {
        struct chat *c = NULL;
        struct buf text = {0};
        enum status st = chat_open(&c, t, &err);
        if (!st) st = chat_render(c, json_array_get(one, 0), &text, NULL, &err);
        const char *want = json_string_value(json_array_get(one, 1));
        ck_assert_msg(want ? !st && !strcmp(text.data ? text.data : "", want) : st == ST_BAD_INPUT, "%s: request %zu: %s", name, k,
                      st ? err.text : text.data);
        chat_free(c);
        buf_free(&text);
    }
}

START_TEST(files_beside_tokenizer_json_are_read_as_transformers_reads_them)
{
    struct err err = {0};
    json_t *cases = golden("text/tokenizer_files.json"), *one;
    size_t i;
    json_array_foreach(cases, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        struct tokenizer *t;
        ck_ok(tokenizer_load(&t, folder_of(json_object_get(one, "tokenizer"), json_object_get(one, "files")), &err));
        const int32_t roles[] = {tokenizer_bos(t), tokenizer_eos(t), tokenizer_pad(t)};
        ck_assert_msg(tokenizer_n_vocab(t) == json_integer_value(json_object_get(one, "n")), "%s: %d ids", name, tokenizer_n_vocab(t));
        for (size_t k = 0; k < 3; k++)
            ck_assert_msg(roles[k] == json_integer_value(json_array_get(json_object_get(one, "roles"), k)), "%s: role %zu is %d", name, k,
                          roles[k]);
        same_texts(t, name, json_object_get(one, "texts"));
        same_special(t, name, json_object_get(one, "special"));
        same_chats(t, name, json_object_get(one, "chats"));
        tokenizer_free(t);
    }
    json_decref(cases);
}
END_TEST

// ---- what the golden cannot say
// ----------------------------------------------------------------------------------------------------------

static enum status load_with(struct tokenizer **t, const char *config, struct err *err)
{
    json_t *files = json_pack("{s:s}", "tokenizer_config.json", config);
    enum status st = tokenizer_load(t, folder_of(NULL, files), err);
    json_decref(files);
    return st;
}

START_TEST(added_tokens_that_do_not_fit_are_refused)
{
    static const struct {
        const char *decoder, *message;
    } bad[] = {
        {"{\"600\":{\"content\":\"<x>\"}}", "gives \"<x>\" the id 600, where tokenizer.json has no such token and 512 would be next"},
        {"{\"513\":{\"content\":\"<y>\"},\"512\":{\"content\":\"<x>\"},\"510\":{\"content\":\"<z>\"}}", "gives \"<z>\" the id 510"},
        {"{\"x\":{\"content\":\"<x>\"}}", "\"x\": wanted an id"},
        {"{\"-1\":{\"content\":\"<x>\"}}", "\"-1\": wanted an id"},
        {"{\"99999999\":{\"content\":\"<x>\"}}", "\"99999999\": wanted an id"},
        {"{\"512\":\"<x>\"}", "an object with a \"content\""},
        {"[]", "is no object"},
    };
    struct err err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tokenizer *t;
        char *config = mem_printf("{\"added_tokens_decoder\":%s}", bad[i].decoder);
        ck_fails(load_with(&t, config, &err), ST_BAD_INPUT, bad[i].message);
        ck_assert_ptr_null(t);
        mem_free(config);
    }
}
END_TEST

START_TEST(a_role_that_no_token_has_is_none) // transformers gives it an id of its own, for which the model has no row
{
    struct err err = {0};
    struct tokenizer *t;
    ck_ok(load_with(&t, "{\"pad_token\":\"[PAD]\"}", &err));
    ck_assert_int_eq(tokenizer_n_vocab(t), 512);
    ck_assert_int_eq(tokenizer_pad(t), -1);
    tokenizer_free(t);
}
END_TEST

START_TEST(the_identity_changes_with_the_added_tokens_only)
{
    static const char *const configs[] = {"{}", "{\"eos_token\":\"<|im_end|>\",\"chat_template\":\"x\"}",
                                          "{\"added_tokens_decoder\":{\"510\":{\"content\":\"<think>\",\"normalized\":false}}}",
                                          "{\"added_tokens_decoder\":{\"510\":{\"content\":\"<think>\",\"special\":true}}}",
                                          "{\"added_tokens_decoder\":{\"512\":{\"content\":\"<x>\"}}}"};
    enum { N = sizeof configs / sizeof *configs, N_SAME = 3 };
    struct err err = {0};
    struct tokenizer *t[N];
    for (int i = 0; i < N; i++) ck_ok(load_with(&t[i], configs[i], &err));
    for (int i = 1; i < N; i++) ck_assert_int_eq(!strcmp(tokenizer_sha256(t[0]), tokenizer_sha256(t[i])), i < N_SAME);
    ck_assert_str_ne(tokenizer_sha256(t[3]), tokenizer_sha256(t[4]));
    for (int i = 0; i < N; i++) tokenizer_free(t[i]);
}
END_TEST

START_TEST(broken_files_are_named)
{
    static const struct {
        const char *name, *text, *message;
    } bad[] = {
        {"special_tokens_map.json", "[]", "special_tokens_map.json: wanted a JSON object"},
        {"special_tokens_map.json", "{", "special_tokens_map.json:1"},
        {"added_tokens.json", "[]", "added_tokens.json: wanted a JSON object"},
        {"added_tokens.json", "{\"<x>\":\"512\",\"<y>\":-1}", "added_tokens.json: \"<x>\": wanted an id from 0 to 16777215"},
        {"added_tokens.json", "{\"<x>\":\"512\",\"<y>\":-1}", "added_tokens.json: \"<y>\": wanted an id"},
        {"added_tokens.json", "{\"<x>\":513}",
         "added_tokens.json gives \"<x>\" the id 513, where tokenizer.json has no such token and 512"},
        {"tokenizer_config.json", "7", "tokenizer_config.json: wanted a JSON object"},
    };
    struct err err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tokenizer *t;
        json_t *files = json_pack("{s:s}", bad[i].name, bad[i].text);
        ck_fails(tokenizer_load(&t, folder_of(NULL, files), &err), ST_BAD_INPUT, bad[i].message);
        json_decref(files);
    }
    struct tokenizer *t;
    json_t *files = json_pack("{s:s}", "additional_chat_templates/rag.jinja", "x");
    const char *dir = folder_of(NULL, files);
    char *path = path_join(dir, "additional_chat_templates/rag.jinja");
    ck_ok(file_write_atomic(path, "ab\xFF", 3, &err));
    ck_fails(tokenizer_load(&t, dir, &err), ST_BAD_INPUT, "rag.jinja: not valid UTF-8 at byte 2");
    json_decref(files);
    mem_free(path);
}
END_TEST

START_TEST(templates_without_a_default_are_named)
{
    struct err err = {0};
    struct tokenizer *t;
    struct chat *c;
    ck_ok(load_with(&t, "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"r\"},{\"name\":\"short\",\"template\":\"s\"}]}", &err));
    ck_fails(chat_open(&c, t, &err), ST_BAD_INPUT, "by name (rag, short), none of them \"default\"");
    tokenizer_free(t);
}
END_TEST

Suite *suite_tokenizer_beside(void)
{
    Suite *s = suite_create("tokenizer_beside");
    TCase *c = tcase_create("all");
    tcase_add_test(c, files_beside_tokenizer_json_are_read_as_transformers_reads_them);
    tcase_add_test(c, added_tokens_that_do_not_fit_are_refused);
    tcase_add_test(c, a_role_that_no_token_has_is_none);
    tcase_add_test(c, the_identity_changes_with_the_added_tokens_only);
    tcase_add_test(c, broken_files_are_named);
    tcase_add_test(c, templates_without_a_default_are_named);
    suite_add_tcase(s, c);
    return s;
}
