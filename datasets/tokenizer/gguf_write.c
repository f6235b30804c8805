// tokenizer.json and tokenizer_config.json → tokenizer.ggml.*. See gguf.h.
#include "datasets/tokenizer/gguf_parts.h"

#include <string.h>

// ---- which pre-tokenizer ----

bool gguf_flag(const json_t *spec, const char *key, bool def)
{
    const json_t *v = json_object_get(spec, key);
    return json_is_boolean(v) ? json_is_true(v) : def;
}
bool gguf_text_is(const json_t *spec, const char *key, const char *wanted)
{
    const char *s = json_string_value(json_object_get(spec, key));
    return s && !strcmp(s, wanted);
}

static void flatten(json_t *steps, const json_t *spec, const char *members)
{
    const json_t *one;
    size_t i;
    if (!json_is_object(spec)) return;
    if (!gguf_text_is(spec, "type", "Sequence")) {
        json_array_append(steps, (json_t *)(uintptr_t)spec);
        return;
    }
    json_array_foreach(json_object_get(spec, members), i, one) flatten(steps, one, members);
}
json_t *gguf_flatten(const json_t *spec, const char *members)
{
    json_t *steps = json_array();
    flatten(steps, spec, members);
    return steps;
}

static bool is_pre(const struct gguf_pre *p, const json_t *norms, const json_t *steps, bool ignore_merges)
{
    if (p->ignore_merges != ignore_merges || json_array_size(norms) != (size_t)p->nfc) return false;
    if (p->nfc && !gguf_text_is(json_array_get(norms, 0), "type", "NFC")) return false;
    size_t n = 0;
    for (; n < 4 && p->split[n]; n++) {
        const json_t *s = json_array_get(steps, n);
        if (!gguf_text_is(s, "type", "Split") || !gguf_text_is(s, "behavior", "Isolated") || gguf_flag(s, "invert", false) ||
            !gguf_text_is(json_object_get(s, "pattern"), "Regex", p->split[n]))
            return false;
    }
    const json_t *last = json_array_get(steps, n);
    return json_array_size(steps) == n + 1 && gguf_text_is(last, "type", "ByteLevel") && !gguf_flag(last, "add_prefix_space", true) &&
           gguf_flag(last, "use_regex", true) == p->gpt2_regex;
}

static enum status find_pre(const struct gguf_pre **out, const json_t *root, const char *path, struct err *err)
{
    json_t *norms = gguf_flatten(json_object_get(root, "normalizer"), "normalizers"),
           *steps = gguf_flatten(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    bool ignore_merges = json_is_true(json_object_get(json_object_get(root, "model"), "ignore_merges"));
    for (*out = gguf_pres; (*out)->name && !is_pre(*out, norms, steps, ignore_merges); (*out)++) {
    }
    if (!(*out)->name) {
        json_t *shown = json_pack("{s:O, s:O, s:b}", "normalizer", norms, "pre_tokenizer", steps, "ignore_merges", ignore_merges);
        struct buf text = {0};
        json_append_line(&text, shown);
        err_set(err, ST_BAD_INPUT,
                "%s: no pre-tokenizer of llama.cpp that distill knows (llama-bpe, qwen2, deepseek-v3, gpt-2) is exactly this one, and with "
                "another "
                "the model would see other tokens: %.*s",
                path, (int)(text.size > 900 ? 900 : text.size - 1), text.data);
        buf_free(&text);
        json_decref(shown);
    }
    json_decref(norms);
    json_decref(steps);
    return (*out)->name ? ST_OK : ST_BAD_INPUT;
}

// ---- tokens ----

static bool begins_and_ends(const char *s, size_t n, const char *begin, const char *end)
{
    size_t b = strlen(begin), e = strlen(end);
    return n >= b && n >= e && !memcmp(s, begin, b) && !memcmp(s + n - e, end, e);
}

// Some makers leave tokens that steer the model unmarked; llama.cpp must know them as such.
static bool looks_special(const char *s, size_t n)
{
    return begins_and_ends(s, n, "<|", "|>") || begins_and_ends(s, n, "<｜", "｜>");
}

static enum status put_token(struct gguf_tokens *t, json_int_t id, const char *s, size_t n, int32_t type, const char *path, struct err *err)
{
    if (id < 0 || id >= t->n)
        return err_set(err, ST_BAD_INPUT, "%s: token \"%s\" has id %lld, but the model has %d rows (vocab_size)", path, s, (long long)id,
                       t->n);
    t->text[id] = (struct gguf_text){s, n};
    t->type[id] = type;
    return ST_OK;
}

// The vocabulary of tokenizer.json, and over it the added tokens of all files.
static enum status gather(struct gguf_tokens *t, const struct tokenizer *tok, const json_t *root, const char *path, struct err *err)
{
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab"), *v;
    const char *text;
    json_object_foreach(vocab, text, v) TRY(put_token(t, json_integer_value(v), text, strlen(text), TOKEN_NORMAL, path, err));
    for (size_t i = 0; i < tok->n_added; i++) {
        const struct added *a = &tok->added[i];
        const char *flag = a->lstrip ? "lstrip" : a->rstrip ? "rstrip" : a->single_word ? "single_word" : NULL;
        if (flag) return err_set(err, ST_BAD_INPUT, "%s: added token \"%s\" has %s, which GGUF cannot say", path, a->content, flag);
        const bool control = a->special || looks_special(a->content, a->n);
        TRY(put_token(t, a->id, a->content, a->n, control ? TOKEN_CONTROL : TOKEN_USER_DEFINED, path, err));
    }
    return ST_OK;
}

// llama.cpp wants every token's text once.
static enum status check_unique(const struct gguf_tokens *t, const char *path, struct err *err)
{
    json_t *seen = json_object();
    enum status st = ST_OK;
    for (int32_t id = 0; !st && id < t->n; id++) {
        const json_t *other = json_object_get(seen, t->text[id].s);
        if (other)
            st = err_set(err, ST_BAD_INPUT, "%s: ids %lld and %d have the same text \"%s\", which llama.cpp does not load", path,
                         (long long)json_integer_value(other), id, t->text[id].s);
        else
            json_object_set_new_nocheck(seen, t->text[id].s, json_integer(id));
    }
    json_decref(seen);
    return st;
}

// All n_vocab tokens, those that the tokenizer does not have as [PAD…].
static enum status read_tokens(struct gguf_tokens *t, const struct tokenizer *tok, const json_t *root, int32_t n_vocab, const char *path,
                               struct err *err)
{
    *t =
        (struct gguf_tokens){.text = NEW_N(struct gguf_text, n_vocab), .type = NEW_N(int32_t, n_vocab), .n = n_vocab, .pads = json_array()};
    TRY(gather(t, tok, root, path, err));
    for (int32_t id = 0; id < n_vocab; id++) {
        if (t->text[id].s) continue;
        char name[24];
        snprintf(name, sizeof name, "[PAD%d]", id);
        json_array_append_new(t->pads, json_string(name));
        const json_t *last = json_array_get(t->pads, json_array_size(t->pads) - 1);
        t->text[id] = (struct gguf_text){json_string_value(last), json_string_length(last)};
        t->type[id] = TOKEN_UNUSED;
    }
    return check_unique(t, path, err);
}

static void tokens_free(struct gguf_tokens *t)
{
    mem_free(t->text);
    mem_free(t->type);
    json_decref(t->pads);
}

// "a b", or ["a", "b"].
static enum status put_merges(struct gguf_writer *w, const json_t *root, const char *path, struct err *err)
{
    const json_t *merges = json_object_get(json_object_get(root, "model"), "merges"), *m;
    size_t n = json_array_size(merges), i, n_text = 0;
    struct gguf_text *text = NEW_N(struct gguf_text, n + 1);
    struct buf *joined = NEW_N(struct buf, n + 1);
    enum status st = ST_OK;
    json_array_foreach(merges, i, m)
    {
        const char *a = json_string_value(json_array_get(m, 0)), *b = json_string_value(json_array_get(m, 1));
        if (json_is_string(m) && !strncmp(json_string_value(m), "#version", 8)) continue;
        if (a && b) {
            if (strchr(a, ' ') || strchr(b, ' ')) {
                st = err_set(err, ST_BAD_INPUT, "%s: model.merges: merge %zu has a space within \"%s\" or \"%s\", which GGUF cannot say",
                             path, i, a, b);
                break;
            }
            buf_printf(&joined[i], "%s %s", a, b);
            text[n_text++] = (struct gguf_text){joined[i].data, joined[i].size};
        } else {
            text[n_text++] = (struct gguf_text){json_string_value(m), json_string_length(m)};
        }
    }
    if (!st) gguf_put_strings(w, "tokenizer.ggml.merges", text, n_text);
    for (i = 0; i < n; i++) buf_free(&joined[i]);
    mem_free(joined);
    mem_free(text);
    return st;
}

// ---- roles ----

// Whether the post-processor puts a special token before (or behind) every text.
static bool template_adds(const json_t *post, bool behind)
{
    const json_t *inner = json_object_get(post, "processors"), *single = json_object_get(post, "single"), *one;
    const size_t n = json_array_size(single);
    size_t i;
    json_array_foreach(inner, i, one) if (template_adds(one, behind)) return true;
    return n && json_object_get(json_array_get(single, behind ? n - 1 : 0), "SpecialToken") != NULL;
}

// The model's, else tokenizer_config.json's: text, or an added token as an object.
static int32_t find_unknown(const struct tokenizer *t, const json_t *root)
{
    const json_t *unk = json_object_get(json_object_get(root, "model"), "unk_token");
    if (!json_is_string(unk)) unk = json_object_get(tokenizer_config(t), "unk_token");
    if (json_is_object(unk)) unk = json_object_get(unk, "content");
    return json_is_string(unk) ? tokenizer_id(t, json_string_value(unk)) : -1;
}

static void put_roles(struct gguf_writer *w, const struct tokenizer *t, const json_t *root, int32_t bos, const int32_t *eos, int n_eos)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    int n_end = 0;
    const json_t *config = tokenizer_config(t);
    if (tokenizer_bos(t) >= 0) bos = tokenizer_bos(t);
    const int32_t own = tokenizer_eos(t);
    if (bos >= 0) gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    if (own >= 0) gguf_put_u32(w, ends[n_end++], (uint32_t)own);
    for (int i = 0; i < n_eos && n_end < 3; i++)
        if (eos[i] != own) gguf_put_u32(w, ends[n_end++], (uint32_t)eos[i]);
    if (tokenizer_pad(t) >= 0) gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)tokenizer_pad(t));
    const json_t *post = json_object_get(root, "post_processor");
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", bos >= 0 && (template_adds(post, false) || gguf_flag(config, "add_bos_token", false)));
    gguf_put_bool(w, "tokenizer.ggml.add_eos_token", n_end && (template_adds(post, true) || gguf_flag(config, "add_eos_token", false)));
    if (tokenizer_chat_template(t)) gguf_put_string(w, "tokenizer.chat_template", tokenizer_chat_template(t));
}

// tokenizer.json's content, from wherever it is.
static enum status read_root(json_t **root, const char *path, struct err *err)
{
    if (gguf_is(path)) {
        struct gguf g;
        json_t *config;
        TRY(gguf_open(&g, path, err));
        enum status st = gguf_tokenizer_json(root, &config, &g, err);
        gguf_close(&g);
        json_decref(config);
        return st;
    }
    char *file = path_join(path, "tokenizer.json");
    enum status st = json_read(root, file, err);
    mem_free(file);
    return st;
}

// What the byte-level kind has beside tokens and types.
static enum status byte_level_put(struct gguf_writer *w, const json_t *root, const char *path, struct err *err)
{
    const struct gguf_pre *pre;
    TRY(find_pre(&pre, root, path, err));
    gguf_put_string(w, "tokenizer.ggml.model", "gpt2");
    gguf_put_string(w, "tokenizer.ggml.pre", pre->name);
    return put_merges(w, root, path, err);
}

enum status gguf_put_tokenizer(struct gguf_writer *w, const char *path, int32_t n_vocab, int32_t bos, const int32_t *eos, int n_eos,
                               const char **note, struct err *err)
{
    struct tokenizer *t;
    struct gguf_tokens tokens = {0};
    json_t *root = NULL;
    *note = NULL;
    TRY(tokenizer_load(&t, path, err)); // checks the files
    enum status st = read_root(&root, path, err);
    if (!st) st = read_tokens(&tokens, t, root, n_vocab, path, err);
    if (!st) tokens.unknown = find_unknown(t, root);
    if (!st) st = spm_is(root) ? spm_put(w, t, root, &tokens, note, path, err) : byte_level_put(w, root, path, err);
    if (!st) {
        gguf_put_strings(w, "tokenizer.ggml.tokens", tokens.text, (size_t)n_vocab);
        gguf_put_i32s(w, "tokenizer.ggml.token_type", tokens.type, (size_t)n_vocab);
        if (tokens.unknown >= 0) gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)tokens.unknown);
        put_roles(w, t, root, bos, eos, n_eos);
        gguf_put_string(w, GGUF_TOKENIZER_SHA256, tokenizer_sha256(t));
    }
    tokens_free(&tokens);
    json_decref(root);
    tokenizer_free(t);
    return st;
}
