// tokenizer.ggml.* → tokenizer.json and tokenizer_config.json. See gguf.h.
#include "datasets/tokenizer/gguf.h"

#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 };

static enum status find_pre(const struct gguf_pre **out, const json_t *keys, const char *path, struct err *err)
{
    const char *model = json_get_str(keys, "tokenizer.ggml.model", "", true, path, err);
    const char *pre = json_get_str(keys, "tokenizer.ggml.pre", "", true, path, err);
    if (err->code) return err->code;
    if (strcmp(model, "gpt2"))
        return err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.model: \"%s\" is not known (known: gpt2, which is byte-level BPE)", path,
                       model);
    struct buf known = {0};
    for (*out = gguf_pres; (*out)->name && strcmp((*out)->name, pre); (*out)++)
        buf_printf(&known, "%s%s", known.size ? ", " : "", (*out)->name);
    if (!(*out)->name) err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.pre: \"%s\" is not known (known: %s)", path, pre, known.data);
    buf_free(&known);
    return err->code;
}

static const json_t *want_array(const json_t *keys, const char *key, size_t n, const char *path, struct err *err)
{
    const json_t *v = json_object_get(keys, key);
    if (json_is_array(v) && (!n || json_array_size(v) == n)) return v;
    if (json_is_array(v))
        err_add(err, ST_BAD_INPUT, "%s: %s: %zu items, wanted %zu, one a token", path, key, json_array_size(v), n);
    else
        err_add(err, ST_BAD_INPUT, "%s: %s: %s, wanted an array", path, key, v ? "no array" : "missing");
    return NULL;
}

static json_t *added_token(size_t id, json_t *content, bool special)
{
    return json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content", content, "single_word", 0, "lstrip", 0,
                     "rstrip", 0, "normalized", 0, "special", special);
}

// Tokens by their type: vocabulary, added tokens, or neither.
static enum status sort_tokens(json_t *vocab, json_t *added, const json_t *tokens, const json_t *types, const char *path, struct err *err)
{
    json_t *text;
    size_t id;
    json_array_foreach(tokens, id, text)
    {
        const json_t *type = json_array_get(types, id);
        const char *s = json_string_value(text);
        json_int_t t = json_integer_value(type);
        if (!s || !json_is_integer(type) || strlen(s) != json_string_length(text))
            return err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.tokens: token %zu: wanted text in UTF-8 without NUL, and its type", path,
                           id);
        if (t == UNUSED || !*s) continue;
        if (t != NORMAL && t != UNKNOWN && t != CONTROL && t != USER_DEFINED)
            return err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.token_type: token %zu has type %lld; known are 1 to 5", path, id,
                           (long long)t);
        if (t != NORMAL) {
            json_array_append_new(added, added_token(id, text, t != USER_DEFINED));
            continue;
        }
        const json_t *other = json_object_get(vocab, s);
        if (other)
            return err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.tokens: tokens %lld and %zu are both \"%s\"", path,
                           (long long)json_integer_value(other), id, s);
        json_object_set_new_nocheck(vocab, s, json_integer((json_int_t)id));
    }
    return ST_OK;
}

// The tokens' text by their role, as tokenizer_config.json has it.
static json_t *make_config(const json_t *keys, const json_t *tokens, const json_t *all)
{
    static const char *const roles[][2] = {
        {"bos_token", "bos_token_id"}, {"eos_token", "eos_token_id"}, {"pad_token", "padding_token_id"}, {"unk_token", "unknown_token_id"}};
    json_t *config = json_pack("{s:s}", "tokenizer_class", "PreTrainedTokenizerFast");
    char key[64];
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        snprintf(key, sizeof key, "tokenizer.ggml.%s", roles[i][1]);
        json_t *id = json_object_get(keys, key),
               *text = json_is_integer(id) ? json_array_get(tokens, (size_t)json_integer_value(id)) : NULL;
        json_object_set(config, roles[i][0], text ? text : json_null());
    }
    json_t *add_bos = json_object_get(keys, "tokenizer.ggml.add_bos_token"), *template = json_object_get(all, "tokenizer.chat_template");
    if (json_is_boolean(add_bos)) json_object_set(config, "add_bos_token", add_bos);
    if (json_is_string(template)) json_object_set(config, "chat_template", template);
    json_object_set_new(config, "clean_up_tokenization_spaces", json_false());
    return config;
}

enum status gguf_tokenizer_json(json_t **tokenizer, json_t **config, const struct gguf *g, struct err *err)
{
    const char *path = g->map.path;
    json_t *keys = gguf_json(g, "tokenizer."), *vocab = json_object(), *added = json_array();
    const struct gguf_pre *pre = NULL;
    *tokenizer = *config = NULL;
    err->code = ST_OK;
    const json_t *tokens = want_array(keys, "tokenizer.ggml.tokens", 0, path, err);
    const json_t *types = want_array(keys, "tokenizer.ggml.token_type", json_array_size(tokens), path, err);
    json_t *merges = (json_t *)(uintptr_t)want_array(keys, "tokenizer.ggml.merges", 0, path, err);
    if (!err->code) find_pre(&pre, keys, path, err);
    if (!err->code) sort_tokens(vocab, added, tokens, types, path, err);
    if (!err->code) {
        json_t *model = json_pack("{s:s, s:n, s:b, s:b, s:b, s:O, s:O}", "type", "BPE", "unk_token", "fuse_unk", 0, "byte_fallback", 0,
                                  "ignore_merges", pre->ignore_merges, "vocab", vocab, "merges", merges);
        *tokenizer = json_pack("{s:s, s:n, s:n, s:O, s:o, s:o, s:n, s:{s:s, s:b, s:b, s:b}, s:o}", "version", "1.0", "truncation",
                               "padding", "added_tokens", added, "normalizer", gguf_pre_normalizer(pre), "pre_tokenizer",
                               gguf_pre_tokenizer(pre), "post_processor", "decoder", "type", "ByteLevel", "add_prefix_space", 0,
                               "trim_offsets", 0, "use_regex", 0, "model", model);
        *config = make_config(keys, tokens, keys);
    }
    json_decref(keys);
    json_decref(vocab);
    json_decref(added);
    return err->code;
}

static void identify(char sha256[65], const struct gguf *g, const json_t *tokenizer)
{
    json_t *own = gguf_json(g, GGUF_TOKENIZER_SHA256);
    const char *s = json_string_value(json_object_get(own, GGUF_TOKENIZER_SHA256));
    if (s && strlen(s) == 64) {
        snprintf(sha256, 65, "%s", s);
    } else {
        struct buf text = {0};
        json_append_line(&text, tokenizer);
        sha256_hex(text.data, text.size, sha256);
        buf_free(&text);
    }
    json_decref(own);
}

enum status tokenizer_load_gguf(struct tokenizer **out, const char *path, struct err *err)
{
    struct gguf g;
    json_t *tokenizer, *config;
    *out = NULL;
    TRY(gguf_open(&g, path, err));
    enum status st = gguf_tokenizer_json(&tokenizer, &config, &g, err);
    char sha256[65];
    if (!st) identify(sha256, &g, tokenizer);
    gguf_close(&g);
    if (st) return st;
    st = tokenizer_from_json(out, &(struct tokenizer_source){.tokenizer = tokenizer, .config = config, .where = path, .sha256 = sha256},
                             err);
    json_decref(tokenizer);
    json_decref(config);
    return st;
}
