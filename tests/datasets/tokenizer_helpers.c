// See tokenizer_helpers.h.
#include "tests/datasets/tokenizer_helpers.h"

json_t *golden(const char *name)
{
    struct err err = {0};
    json_t *root;
    ck_ok(json_read(&root, test_golden(name), &err));
    return root;
}

void ck_encodes(const struct tokenizer *t, const char *name, const json_t *text, const json_t *ids)
{
    struct err err = {0};
    struct ids got = {0};
    ck_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), &got, &err));
    ck_assert_msg(got.n == json_array_size(ids), "%s: \"%s\": %zu ids, wanted %zu", name, json_string_value(text), got.n,
                  json_array_size(ids));
    for (size_t i = 0; i < got.n; i++)
        ck_assert_msg(got.v[i] == json_integer_value(json_array_get(ids, i)), "%s: \"%s\": id %zu is %d, wanted %d", name,
                      json_string_value(text), i, got.v[i], (int)json_integer_value(json_array_get(ids, i)));
    ids_free(&got);
}

enum status tokenizer_variant(struct tokenizer **t, const json_t *spec, struct err *why)
{
    struct err err = {0};
    char *from = path_join(TINY_TOKENIZER, "tokenizer.json");
    json_t *root;
    ck_ok(json_read(&root, from, &err));
    json_object_update(root, (json_t *)(uintptr_t)spec);
    enum status st = tokenizer_from_json(t, &(struct tokenizer_source){.tokenizer = root, .where = "variant", .sha256 = "-"}, why);
    json_decref(root);
    mem_free(from);
    return st;
}
