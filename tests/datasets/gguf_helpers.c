// See gguf_helpers.h.
#include "tests/datasets/gguf_helpers.h"

static char *path; // of the file in hand; the one before it may be what it is made of

static struct gguf_writer *begin_file(void)
{
    static char paths[2][256];
    static int n;
    struct err err = {0};
    struct gguf_writer *w;
    path = paths[n++ % 2];
    snprintf(path, sizeof paths[0], "%s/tokenizer.gguf", test_tmpdir());
    ck_ok(gguf_create(&w, path, &err));
    return w;
}

static const char *end_file(struct gguf_writer *w)
{
    struct err err = {0};
    ck_ok(gguf_begin(w, &err));
    ck_ok(gguf_finish(w, &err));
    return path;
}

const char *tokenizer_folder(json_t *root, const char *changes, void (*edit)(json_t *merges))
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *to = path_join(dir, "tokenizer.json");
    json_t *patch;
    ck_ok(json_parse(&patch, changes, strlen(changes), "patch", 0, &err));
    json_object_update_recursive(root, patch);
    if (edit) edit(json_object_get(json_object_get(root, "model"), "merges"));
    ck_ok(json_write_atomic(root, to, &err));
    json_decref(root);
    json_decref(patch);
    mem_free(to);
    return dir;
}

const char *exported_tokenizer(const char *dir, int32_t n_vocab, const char **note)
{
    struct err err = {0};
    struct gguf_writer *w = begin_file();
    ck_ok(gguf_put_tokenizer(w, dir, n_vocab, -1, NULL, 0, note, &err));
    return end_file(w);
}

void ck_export_refused(const char *dir, const char *part)
{
    struct err err = {0};
    const char *note;
    struct gguf_writer *w = begin_file();
    ck_fails(gguf_put_tokenizer(w, dir, 512, -1, NULL, 0, &note, &err), ST_BAD_INPUT, part);
    gguf_abort(w);
}

const char *file_of_keys(const struct tokenizer_keys *k)
{
    struct gguf_writer *w = begin_file();
    if (k->model) gguf_put_string(w, "tokenizer.ggml.model", k->model);
    if (k->pre) gguf_put_string(w, "tokenizer.ggml.pre", k->pre);
    if (k->n_token) gguf_put_strings(w, "tokenizer.ggml.tokens", k->tokens, k->n_token);
    if (k->n_type) gguf_put_i32s(w, "tokenizer.ggml.token_type", k->types, k->n_type);
    if (k->n_score) gguf_put_f32s(w, "tokenizer.ggml.scores", k->scores, k->n_score);
    if (k->n_merge) gguf_put_strings(w, "tokenizer.ggml.merges", k->merges, k->n_merge);
    if (k->bos) gguf_put_u32(w, "tokenizer.ggml.bos_token_id", k->bos);
    if (k->scheme) gguf_put_string(w, "distill.tokenizer.prepend_scheme", k->scheme);
    return end_file(w);
}
