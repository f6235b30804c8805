// tokenizer.ggml.* of model "llama" → tokenizer.json, as transformers converts a SentencePiece model of Llama: see gguf_parts.h.
//
// GGUF does not say whether the space in front is a normalizer's (Llama 2, Mistral 7B v0.1, TinyLlama: before the text behind every special
// token, and where the text has one already) or a Metaspace's. llama.cpp does the former, and so do we unless our own key says otherwise.
#include "datasets/tokenizer/gguf_parts.h"

#include <string.h>

enum status spm_defaults(json_t *keys, size_t n_token, const char *path, struct err *err)
{
    static const struct {
        const char *key;
        json_int_t id; // -1: none
    } roles[] = {{"tokenizer.ggml.unknown_token_id", 0},
                 {"tokenizer.ggml.bos_token_id", 1},
                 {"tokenizer.ggml.eos_token_id", 2},
                 {"tokenizer.ggml.padding_token_id", -1}};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const json_t *id = json_object_get(keys, roles[i].key);
        if (id && (!json_is_integer(id) || json_integer_value(id) < 0 || (size_t)json_integer_value(id) >= n_token))
            err_add(err, ST_BAD_INPUT, "%s: %s: wanted the id of one of the %zu tokens", path, roles[i].key, n_token);
        if (!id && roles[i].id >= 0 && (size_t)roles[i].id < n_token)
            json_object_set_new_nocheck(keys, roles[i].key, json_integer(roles[i].id));
    }
    static const struct {
        const char *key;
        bool value;
    } flags[] = {
        {"tokenizer.ggml.add_bos_token", true}, {"tokenizer.ggml.add_eos_token", false}, {"tokenizer.ggml.add_space_prefix", true}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const json_t *v = json_object_get(keys, flags[i].key);
        if (v && !json_is_boolean(v)) err_add(err, ST_BAD_INPUT, "%s: %s: wanted true or false", path, flags[i].key);
        if (!v) json_object_set_new_nocheck(keys, flags[i].key, json_boolean(flags[i].value));
    }
    return err->code;
}

// The merges as pairs, which borrow the tokens' text.
static enum status make_merges(json_t **merges, const json_t *keys, const json_t *vocab, const char *path, struct err *err)
{
    const json_t *tokens = json_object_get(keys, "tokenizer.ggml.tokens");
    const size_t n = json_array_size(tokens);
    const json_t *scores = gguf_want_array(keys, "tokenizer.ggml.scores", n, path, err);
    if (!scores) return err->code;
    struct gguf_text *text = NEW_N(struct gguf_text, n + 1);
    double *score = NEW_N(double, n + 1);
    struct spm_merge *found = NULL;
    size_t n_found = 0;
    enum status st = ST_OK;
    for (size_t id = 0; id < n && !st; id++) {
        const json_t *s = json_array_get(scores, id), *token = json_array_get(tokens, id);
        score[id] = json_number_value(s);
        if (!json_is_number(s)) st = err_set(err, ST_BAD_INPUT, "%s: tokenizer.ggml.scores: token %zu: wanted a finite number", path, id);
        if (json_object_get(vocab, json_string_value(token)))
            text[id] = (struct gguf_text){json_string_value(token), json_string_length(token)};
    }
    if (!st) st = spm_merges(&found, &n_found, text, score, n, path, err);
    if (!st) *merges = json_array();
    for (size_t i = 0; i < n_found; i++)
        json_array_append_new(
            *merges, json_pack("[O, O]", json_array_get(tokens, (size_t)found[i].left), json_array_get(tokens, (size_t)found[i].right)));
    mem_free(found);
    mem_free(score);
    mem_free(text);
    return st;
}

// The text of a role's token if the vocabulary has it; else NULL.
static const char *role_text(const json_t *keys, const char *role, const json_t *vocab)
{
    const json_t *id = json_object_get(keys, role);
    const char *s = json_string_value(json_array_get(json_object_get(keys, "tokenizer.ggml.tokens"), (size_t)json_integer_value(id)));
    return id && s && json_object_get(vocab, s) ? s : NULL;
}

// ---- the parts around BPE ----

static json_t *make_normalizer(bool prepend)
{
    json_t *steps = json_array();
    if (prepend) json_array_append_new(steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", SPM_SPACE));
    json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", SPM_SPACE));
    return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps);
}

static json_t *make_metaspace(const char *scheme)
{
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", SPM_SPACE, "prepend_scheme", scheme, "split", 0);
}

static json_t *make_decoder(bool strip)
{
    json_t *steps = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String", SPM_SPACE, "content", " ",
                              "type", "ByteFallback", "type", "Fuse");
    if (strip) json_array_append_new(steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

static void put_sequence(json_t *pieces, const char *bos, const char *name, const char *eos, int type_id)
{
    if (bos) json_array_append_new(pieces, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", bos, "type_id", type_id));
    json_array_append_new(pieces, json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type_id));
    if (eos) json_array_append_new(pieces, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", eos, "type_id", type_id));
}

static void put_special(json_t *special, const char *token, const json_t *vocab)
{
    if (!token) return;
    json_object_set_new(special, token,
                        json_pack("{s:s, s:[O], s:[s]}", "id", token, "ids", json_object_get(vocab, token), "tokens", token));
}

static json_t *make_processor(const json_t *keys, const json_t *vocab)
{
    const bool add_bos = json_is_true(json_object_get(keys, "tokenizer.ggml.add_bos_token")),
               add_eos = json_is_true(json_object_get(keys, "tokenizer.ggml.add_eos_token"));
    const char *bos = add_bos ? role_text(keys, "tokenizer.ggml.bos_token_id", vocab) : NULL,
               *eos = add_eos ? role_text(keys, "tokenizer.ggml.eos_token_id", vocab) : NULL;
    if (!bos && !eos) return json_null();
    json_t *single = json_array(), *pair = json_array(), *special = json_object();
    put_sequence(single, bos, "A", eos, 0);
    put_sequence(pair, bos, "A", eos, 0);
    put_sequence(pair, bos, "B", eos, 1);
    put_special(special, bos, vocab);
    put_special(special, eos, vocab);
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair, "special_tokens", special);
}

static bool has_bytes(const json_t *keys)
{
    const json_t *types = json_object_get(keys, "tokenizer.ggml.token_type"), *type;
    size_t id;
    json_array_foreach(types, id, type) if (json_integer_value(type) == TOKEN_BYTE) return true;
    return false;
}

enum status spm_tokenizer_json(json_t **tokenizer, const json_t *keys, const char *scheme, json_t *vocab, json_t *added, const char *path,
                               struct err *err)
{
    json_t *merges = NULL;
    if (scheme && strcmp(scheme, "always") && strcmp(scheme, "first"))
        return err_set(err, ST_BAD_INPUT, "%s: " GGUF_PREPEND_SCHEME ": \"%s\" is not known (known: always, first)", path, scheme);
    // Files made of a tokenizer.json (TinyLlama's) may have its merges, and then often no true scores.
    if (json_object_get(keys, "tokenizer.ggml.merges"))
        merges = json_incref(gguf_want_array(keys, "tokenizer.ggml.merges", 0, path, err));
    else
        make_merges(&merges, keys, vocab, path, err);
    if (err->code) return err->code;
    const bool prefix = scheme || json_is_true(json_object_get(keys, "tokenizer.ggml.add_space_prefix"));
    json_t *model = json_pack("{s:s, s:n, s:s?, s:n, s:n, s:b, s:b, s:b, s:O, s:o}", "type", "BPE", "dropout", "unk_token",
                              role_text(keys, "tokenizer.ggml.unknown_token_id", vocab), "continuing_subword_prefix", "end_of_word_suffix",
                              "fuse_unk", 1, "byte_fallback", has_bytes(keys), "ignore_merges", 0, "vocab", vocab, "merges", merges);
    *tokenizer = json_pack("{s:s, s:n, s:n, s:O, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens",
                           added, "normalizer", scheme ? json_null() : make_normalizer(prefix), "pre_tokenizer",
                           scheme ? make_metaspace(scheme) : json_null(), "post_processor", make_processor(keys, vocab), "decoder",
                           make_decoder(prefix), "model", model);
    return ST_OK;
}
