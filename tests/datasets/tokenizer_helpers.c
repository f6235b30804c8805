// Variants of the shipped tokenizer.
#include "tests/datasets/tokenizer_helpers.h"

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
