// tokenizer.ggml.* → tokenizer.json and tokenizer_config.json. See gguf.h.
#include "datasets/tokenizer/gguf_parts.h"

#include <string.h>

static enum status find_pre(const struct gguf_pre **out, const json_t *keys, const char *path, struct err *err)
{
    const char *pre = json_get_str(keys, "tokenizer.ggml.pre", "", true, path, err);
    if (err->code) return err->code;
    struct buf known = {0};
    for (*out = gguf_pres; (*out)->name && strcmp((*out)->name, pre); (*out)++)
        buf_printf(&known, "%s%s", known.size ? ", " : "", (*out)->name);
    if (!(*out)->name) err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.pre: \"%s\" is not known (known: %s)", path, pre, known.data);
    buf_free(&known);
    return err->code;
}

json_t *gguf_want_array(const json_t *keys, const char *key, size_t n, const char *path, struct err *err)
{
    json_t *v = json_object_get(keys, key);
    if (json_is_array(v) && (!n || json_array_size(v) == n)) return v;
    if (json_is_array(v))
        err_add(err, ST_BAD_INPUT, "%s: %s: %zu items, wanted %zu, one a token", path, key, json_array_size(v), n);
    else
        err_add(err, ST_BAD_INPUT, "%s: %s: %s, wanted an array", path, key, v ? "no array" : "missing");
    return NULL;
}

bool gguf_is_padding(const char *s, size_t id)
{
    char name[32];
    snprintf(name, sizeof name, "[PAD%zu]", id);
    return !strcmp(s, name);
}

bool gguf_is_byte_name(const char *s)
{
    char name[8];
    unsigned byte;
    if (strlen(s) != 6 || sscanf(s, "<0x%2X>", &byte) != 1) return false;
    snprintf(name, sizeof name, "<0x%02X>", byte);
    return !strcmp(s, name);
}

static json_t *added_token(size_t id, json_t *content, bool special)
{
    return json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content", content, "single_word", 0, "lstrip", 0,
                     "rstrip", 0, "normalized", 0, "special", special);
}

// One token by its type: vocabulary, added tokens, both, or neither. spm: SentencePiece's kind, whose vocabulary has all tokens.
static enum status sort_token(json_t *vocab, json_t *added, size_t id, json_t *text, json_int_t type, bool spm, const char *path,
                              struct err *err)
{
    const char *s = json_string_value(text);
    if (!*s || (type == TOKEN_UNUSED && (!spm || gguf_is_padding(s, id)))) return ST_OK;
    if (type < TOKEN_NORMAL || type > (spm ? TOKEN_BYTE : TOKEN_UNUSED))
        return err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.token_type: token %zu has type %lld; known are 1 to %d", path, id,
                       (long long)type, spm ? TOKEN_BYTE : TOKEN_UNUSED);
    if (type == TOKEN_BYTE && !gguf_is_byte_name(s))
        return err_set(err, ST_BAD_INPUT,
                       "%s: tokenizer.ggml.tokens: token %zu has the type of a byte, and the text \"%s\"; wanted <0x00> to <0xFF>", path,
                       id, s);
    const bool cut_out = type == TOKEN_UNKNOWN || type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED;
    if (cut_out) json_array_append_new(added, added_token(id, text, type != TOKEN_USER_DEFINED));
    if (cut_out && !spm) return ST_OK;
    const json_t *other = json_object_get(vocab, s);
    if (other)
        return err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.tokens: tokens %lld and %zu are both \"%s\"", path,
                       (long long)json_integer_value(other), id, s);
    json_object_set_new_nocheck(vocab, s, json_integer((json_int_t)id));
    return ST_OK;
}

static enum status sort_tokens(json_t *vocab, json_t *added, const json_t *tokens, const json_t *types, bool spm, const char *path,
                               struct err *err)
{
    json_t *text;
    size_t id;
    json_array_foreach(tokens, id, text)
    {
        const json_t *type = json_array_get(types, id);
        const char *s = json_string_value(text);
        if (!s || !json_is_integer(type) || strlen(s) != json_string_length(text))
            return err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.tokens: token %zu: wanted text in UTF-8 without NUL, and its type", path,
                           id);
        TRY(sort_token(vocab, added, id, text, json_integer_value(type), spm, path, err));
    }
    return ST_OK;
}

// The tokens' text by their role, as tokenizer_config.json has it.
static json_t *make_config(const json_t *keys, const json_t *tokens)
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
    json_t *add_bos = json_object_get(keys, "tokenizer.ggml.add_bos_token"),
           *add_eos = json_object_get(keys, "tokenizer.ggml.add_eos_token"), *template = json_object_get(keys, "tokenizer.chat_template");
    if (json_is_boolean(add_bos)) json_object_set(config, "add_bos_token", add_bos);
    if (json_is_boolean(add_eos)) json_object_set(config, "add_eos_token", add_eos);
    if (json_is_string(template)) json_object_set(config, "chat_template", template);
    json_object_set_new(config, "clean_up_tokenization_spaces", json_false());
    return config;
}

// A token cut out of text may be one that merges make or join, too (of the vocabulary, with a role): then it stays in the vocabulary.
static void keep_merged(json_t *vocab, const json_t *added, const json_t *merges)
{
    json_t *cut = json_object(), *one;
    struct buf left = {0}, whole = {0};
    size_t i;
    json_array_foreach(added, i, one) json_object_set(cut, json_string_value(json_object_get(one, "content")), json_object_get(one, "id"));
    json_array_foreach(merges, i, one)
    {
        const char *s = json_string_value(one), *space = s && *s ? strchr(s + 1, ' ') : NULL;
        if (!space) continue;
        buf_clear(&left), buf_clear(&whole);
        buf_printf(&left, "%.*s", (int)(space - s), s);
        buf_printf(&whole, "%s%s", left.data, space + 1);
        const char *const tokens[] = {left.data, space + 1, whole.data};
        for (int k = 0; k < 3; k++) {
            json_t *id = json_object_get(cut, tokens[k]);
            if (id && !json_object_get(vocab, tokens[k])) json_object_set(vocab, tokens[k], id);
        }
    }
    json_decref(cut);
    buf_free(&left);
    buf_free(&whole);
}

static enum status byte_level_json(json_t **tokenizer, const json_t *keys, json_t *vocab, json_t *added, const char *path, struct err *err)
{
    const struct gguf_pre *pre;
    json_t *merges = gguf_want_array(keys, "tokenizer.ggml.merges", 0, path, err);
    if (err->code || find_pre(&pre, keys, path, err)) return err->code;
    keep_merged(vocab, added, merges);
    json_t *model = json_pack("{s:s, s:n, s:b, s:b, s:b, s:O, s:O}", "type", "BPE", "unk_token", "fuse_unk", 0, "byte_fallback", 0,
                              "ignore_merges", pre->ignore_merges, "vocab", vocab, "merges", merges);
    *tokenizer =
        json_pack("{s:s, s:n, s:n, s:O, s:o, s:o, s:n, s:{s:s, s:b, s:b, s:b}, s:o}", "version", "1.0", "truncation", "padding",
                  "added_tokens", added, "normalizer", gguf_pre_normalizer(pre), "pre_tokenizer", gguf_pre_tokenizer(pre), "post_processor",
                  "decoder", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex", 0, "model", model);
    return ST_OK;
}

// Which kind: *spm for SentencePiece's BPE.
static enum status find_model(bool *spm, const json_t *keys, const char *path, struct err *err)
{
    const char *model = json_get_str(keys, "tokenizer.ggml.model", "", true, path, err);
    *spm = !strcmp(model, "llama");
    if (!err->code && !*spm && strcmp(model, "gpt2"))
        err_set(
            err, ST_BAD_INPUT,
            "%s: tokenizer.ggml.model: \"%s\" is not known (known: gpt2, which is byte-level BPE, and llama, which is SentencePiece's BPE)",
            path, model);
    return err->code;
}

enum status gguf_tokenizer_json(json_t **tokenizer, json_t **config, const struct gguf *g, struct err *err)
{
    const char *path = g->map.path;
    json_t *keys = gguf_json(g, "tokenizer."), *own = gguf_json(g, GGUF_PREPEND_SCHEME), *vocab = json_object(), *added = json_array();
    const char *scheme = json_string_value(json_object_get(own, GGUF_PREPEND_SCHEME));
    bool spm = false;
    *tokenizer = *config = NULL;
    err->code = ST_OK;
    json_t *tokens = gguf_want_array(keys, "tokenizer.ggml.tokens", 0, path, err);
    json_t *types = gguf_want_array(keys, "tokenizer.ggml.token_type", json_array_size(tokens), path, err);
    if (!err->code) find_model(&spm, keys, path, err);
    if (!err->code && spm) spm_defaults(keys, json_array_size(tokens), path, err);
    if (!err->code) sort_tokens(vocab, added, tokens, types, spm, path, err);
    if (!err->code && spm)
        spm_tokenizer_json(tokenizer, keys, scheme, vocab, added, path, err);
    else if (!err->code)
        byte_level_json(tokenizer, keys, vocab, added, path, err);
    if (!err->code) *config = make_config(keys, tokens);
    json_decref(keys);
    json_decref(own);
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
