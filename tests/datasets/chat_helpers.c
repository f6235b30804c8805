// See chat_helpers.h.
#include "tests/datasets/chat_helpers.h"

#include "datasets/chat_internal.h"

#include <stdlib.h>

json_t *test_json(const char *text)
{
    struct err err = {0};
    json_t *root;
    ck_ok(json_parse(&root, text, strlen(text), "test", 0, &err));
    return root;
}

static void copy_renamed(const char *from, const char *to, const struct token_name *rename)
{
    json_error_t why;
    size_t i;
    json_t *root = json_load_file(from, JSON_ALLOW_NUL, &why), *token;
    ck_assert_msg(root != NULL, "%s: %s", from, why.text);
    json_array_foreach(json_object_get(root, "added_tokens"), i,
                       token) for (const struct token_name *n = rename; n->name;
                                   n++) if (json_integer_value(json_object_get(token, "id")) == n->id)
        json_object_set_new(token, "content", json_string(n->name));
    ck_assert_int_eq(json_dump_file(root, to, JSON_COMPACT), 0);
    json_decref(root);
}

void chat_fixture_open(struct chat_fixture *f, const char *name, const struct token_name *rename)
{
    struct err err = {0};
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    const char *dir = test_tmpdir();
    char *from = path_join(test_material("tokenizers"), name);
    for (int i = 0; i < 2; i++) {
        char *a = path_join(from, files[i]), *b = path_join(dir, files[i]);
        if (rename && !i)
            copy_renamed(a, b, rename);
        else if (!rename)
            ck_ok(file_copy(a, b, &err));
        mem_free(a);
        mem_free(b);
    }
    if (rename) { // bos and eos by their new names: the first two of the list
        char *config = path_join(dir, files[1]);
        json_t *o = json_pack("{s:s, s:s}", "bos_token", rename[0].name, "eos_token", rename[1].name);
        ck_assert_int_eq(json_dump_file(o, config, 0), 0);
        json_decref(o);
        mem_free(config);
    }
    ck_ok(tokenizer_load(&f->tok, dir, &err));
    mem_free(from);
}

void chat_fixture_template(struct chat_fixture *f, const char *path)
{
    struct err err = {0};
    struct buf text = {0};
    char *jinja = path_join(test_material("chat-templates"), path);
    chat_free(f->chat);
    f->chat = NEW(struct chat);
    f->chat->tok = f->tok;
    ck_ok(file_read(&text, jinja, 1 << 20, &err));
    ck_ok(template_parse(&f->chat->template, text.data, text.size, &err));
    buf_free(&text);
    mem_free(jinja);
}

void chat_fixture_close(struct chat_fixture *f)
{
    chat_free(f->chat);
    tokenizer_free(f->tok);
    *f = (struct chat_fixture){0};
}

enum status masked_text(const struct chat_fixture *f, const json_t *row, struct buf *out, struct err *err)
{
    struct ids ids = {0}, whole = {0};
    uint8_t *mask = NULL;
    bool added = false;
    enum status st = chat_training_row(f->chat, row, &ids, &mask, &added, err);
    json_t *request = st ? NULL : chat_row_vars(row);
    if (!st) {
        json_object_set(request, "messages", json_object_get(row, "messages"));
        ck_assert_int_eq(chat_render(f->chat, request, NULL, &whole, err), ST_OK);
        if (!added) {
            ck_assert_uint_eq(ids.n, whole.n);
            ck_assert(memcmp(ids.v, whole.v, ids.n * sizeof *ids.v) == 0);
        }
        for (size_t i = 0; i < ids.n; i++) {
            if (mask[i] != (i ? mask[i - 1] : 0)) buf_putc(out, '|');
            ck_assert_int_eq(tokenizer_decode(f->tok, ids.v + i, 1, false, out, err), ST_OK);
        }
        if (ids.n && mask[ids.n - 1]) buf_putc(out, '|');
    }
    json_decref(request);
    ids_free(&ids);
    ids_free(&whole);
    mem_free(mask);
    return st;
}

uint32_t crc32_of(const struct buf *b)
{
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < b->size; i++) {
        crc ^= (uint8_t)b->data[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}
