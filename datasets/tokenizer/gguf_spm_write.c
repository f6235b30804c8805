// tokenizer.json of SentencePiece's kind → tokenizer.ggml.* of model "llama". See gguf_parts.h.
//
// llama.cpp joins two neighbours wherever their text together is a token, the highest score first and the leftmost of equals. So merges can
// be said as scores if (1) every split of a token is a merge, and (2) the merges that make one token stand together; tokens whose merges
// stand mixed get one score, if they are mixed as equal scores mix them. What is left to differ is only the order in which places of one
// token (or score) are joined.
#include "datasets/tokenizer/gguf_parts.h"

#include <string.h>

// ---- the parts around BPE ----

enum prefix { NEVER, ALWAYS, FIRST, PREPEND }; // where a space is put in front; the first three are a Metaspace's

bool spm_is(const json_t *root)
{
    json_t *steps = gguf_flatten(json_object_get(root, "pre_tokenizer"), "pretokenizers"), *one;
    bool byte_level = false;
    size_t i;
    json_array_foreach(steps, i, one) if (gguf_text_is(one, "type", "ByteLevel")) byte_level = true;
    json_decref(steps);
    return !byte_level && gguf_flag(json_object_get(root, "model"), "byte_fallback", false);
}

static bool is_replace(const json_t *step, const char *from, const char *to)
{
    return gguf_text_is(step, "type", "Replace") && gguf_text_is(json_object_get(step, "pattern"), "String", from) &&
           gguf_text_is(step, "content", to);
}

// Prepend and Replace, or a Metaspace that does not split.
static bool read_prefix(enum prefix *out, const json_t *norms, const json_t *steps)
{
    static const char *const schemes[] = {"never", "always", "first"};
    const size_t n = json_array_size(norms);
    if (!json_array_size(steps)) {
        *out = n == 2 ? PREPEND : NEVER;
        if (n == 2 &&
            (!gguf_text_is(json_array_get(norms, 0), "type", "Prepend") || !gguf_text_is(json_array_get(norms, 0), "prepend", SPM_SPACE)))
            return false;
        return n >= 1 && n <= 2 && is_replace(json_array_get(norms, n - 1), " ", SPM_SPACE);
    }
    const json_t *meta = json_array_get(steps, 0), *space = json_object_get(meta, "replacement");
    if (n || json_array_size(steps) != 1 || !gguf_text_is(meta, "type", "Metaspace") || gguf_flag(meta, "split", true)) return false;
    if (space && !gguf_text_is(meta, "replacement", SPM_SPACE)) return false;
    const char *scheme = json_string_value(json_object_get(meta, "prepend_scheme"));
    if (!scheme) scheme = gguf_flag(meta, "add_prefix_space", true) ? "always" : "never"; // as older files say it
    for (int i = 0; i < 3; i++)
        if (!strcmp(scheme, schemes[i])) return *out = (enum prefix)i, true;
    return false;
}

static bool is_decoder(const json_t *steps, bool strip)
{
    const json_t *last = json_array_get(steps, 3);
    return json_array_size(steps) == (strip ? 4 : 3) && is_replace(json_array_get(steps, 0), SPM_SPACE, " ") &&
           gguf_text_is(json_array_get(steps, 1), "type", "ByteFallback") && gguf_text_is(json_array_get(steps, 2), "type", "Fuse") &&
           (!strip || (gguf_text_is(last, "type", "Strip") && gguf_text_is(last, "content", " ") &&
                       json_integer_value(json_object_get(last, "start")) == 1 && !json_integer_value(json_object_get(last, "stop"))));
}

static enum status find_prefix(enum prefix *out, const json_t *root, const char *path, struct err *err)
{
    json_t *norms = gguf_flatten(json_object_get(root, "normalizer"), "normalizers"),
           *steps = gguf_flatten(json_object_get(root, "pre_tokenizer"), "pretokenizers"),
           *decoders = gguf_flatten(json_object_get(root, "decoder"), "decoders");
    const bool ignore_merges = gguf_flag(json_object_get(root, "model"), "ignore_merges", false);
    enum status st = ST_OK;
    if (ignore_merges || !read_prefix(out, norms, steps) || !is_decoder(decoders, *out != NEVER)) {
        json_t *shown = json_pack("{s:O, s:O, s:O, s:b}", "normalizer", norms, "pre_tokenizer", steps, "decoder", decoders, "ignore_merges",
                                  ignore_merges);
        struct buf text = {0};
        json_append_line(&text, shown);
        st = err_set(
            err, ST_BAD_INPUT,
            "%s: llama.cpp treats a vocabulary of characters and bytes as SentencePiece does (Prepend and Replace, or a Metaspace that "
            "does not split; Replace, ByteFallback, Fuse and Strip back), and this one is not exactly so: %.*s",
            path, (int)(text.size > 900 ? 900 : text.size - 1), text.data);
        buf_free(&text);
        json_decref(shown);
    }
    json_decref(norms);
    json_decref(steps);
    json_decref(decoders);
    return st;
}

static bool any_normalized(const struct tokenizer *t)
{
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].normalized) return true;
    return false;
}

static const char *find_prefix_note(enum prefix prefix, const struct tokenizer *t)
{
    if (prefix == FIRST)
        return "llama.cpp puts a space before the text behind every special token and before text that begins with one; this tokenizer "
               "only at the very start, and not where one stands: such texts get other ids there";
    if (prefix == ALWAYS)
        return "llama.cpp puts a space in front of every text; this tokenizer not where one stands: such texts get other ids there";
    if (prefix == PREPEND && any_normalized(t))
        return "added tokens with \"normalized\": true are found by this tokenizer only at the start of a text and behind a space, by "
               "llama.cpp everywhere";
    return NULL;
}

// ---- types ----

// All bytes are there: llama.cpp stops at text that it cannot spell.
static enum status find_types(struct gguf_tokens *t, const struct tokenizer *tok, const char *path, struct err *err)
{
    for (int b = 0; b < 256; b++)
        if (tok->vocab.byte_id[b] < 0)
            return err_set(err, ST_BAD_INPUT, "%s: byte 0x%02X has no token <0x%02X>, and llama.cpp gives up on text it cannot spell", path,
                           (unsigned)b, (unsigned)b);
    for (int b = 0; b < 256; b++) t->type[tok->vocab.byte_id[b]] = TOKEN_BYTE;
    if (t->unknown >= 0) t->type[t->unknown] = TOKEN_UNKNOWN;
    return ST_OK;
}

// ---- merges → scores ----

struct scoring {
    const struct gguf_tokens *t;
    const struct vocab *v;
    struct spm_merge *own, *made; // the tokenizer's, by rank; those that the scores amount to
    size_t n_own, n_made;
    double *score; // (t->n)
    bool *tied;    // (n_own) within a group of several tokens
    const char *path;
};

static int by_rank(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static void read_own(struct scoring *x)
{
    struct merge *m = NEW_N(struct merge, x->v->merge_mask + 1);
    for (size_t i = 0; i <= x->v->merge_mask; i++)
        if (x->v->merge[i].pair != MERGE_EMPTY) m[x->n_own++] = x->v->merge[i];
    qsort(m, x->n_own, sizeof *m, by_rank);
    x->own = NEW_N(struct spm_merge, x->n_own + 1);
    for (size_t i = 0; i < x->n_own; i++)
        x->own[i] = (struct spm_merge){.left = (int32_t)(m[i].pair >> 32), .right = (int32_t)(uint32_t)m[i].pair, .id = m[i].id};
    mem_free(m);
}

// Tokens in the order in which they are made; those whose merges stand mixed form a group of one score. A score is how many tokens stand
// before, negative, as SentencePiece numbers them; what is never made comes behind, what is no piece of text keeps llama.cpp's values.
static void give_scores(struct scoring *x)
{
    const size_t n = (size_t)x->t->n;
    size_t *last = NEW_N(size_t, n), group = 0, end = 0, n_before = 0, n_group = 0;
    bool *seen = NEW_N(bool, n);
    for (size_t i = 0; i < x->n_own; i++) last[x->own[i].id] = i;
    for (size_t i = 0; i < x->n_own; i++) {
        const int32_t id = x->own[i].id;
        if (i > end || !i) group = i, end = i, n_before += n_group, n_group = 0;
        if (last[id] > end) end = last[id];
        if (!seen[id]) n_group++, x->score[id] = -(double)n_before, seen[id] = true;
        if (i == end)
            for (size_t k = group; k <= end; k++) x->tied[k] = n_group > 1;
    }
    n_before += n_group;
    for (size_t id = 0; id < n; id++) {
        if (seen[id]) continue;
        const int32_t type = x->t->type[id];
        x->score[id] = type == TOKEN_NORMAL ? -(double)n_before++ : type == TOKEN_USER_DEFINED ? -1000 : type == TOKEN_UNUSED ? -10000 : 0;
    }
    mem_free(last);
    mem_free(seen);
}

static const char *text_of(const struct scoring *x, int32_t id)
{
    return x->t->text[id].s;
}

static bool is_text(const struct scoring *x, int32_t id)
{
    return x->t->type[id] == TOKEN_NORMAL;
}

// What is cut out of the text before is never made.
static bool can_be_made(const struct scoring *x, int32_t id)
{
    const int32_t type = x->t->type[id];
    return type != TOKEN_UNKNOWN && type != TOKEN_CONTROL && type != TOKEN_USER_DEFINED;
}

// Whether llama.cpp makes a token of two parts of which one is a character without a token. (In the tokenizer such characters are bytes.)
static bool joins_unknown(const struct vocab *v, const struct gguf_text *t)
{
    const size_t first = utf8_len((uint8_t)t->s[0]);
    size_t last = t->n - 1;
    while (last && ((uint8_t)t->s[last] & 0xC0) == 0x80) last--;
    if (!last) return false; // one character
    const bool rest = first == last || vocab_find(v, t->s + first, t->n - first) >= 0,
               start = first == last || vocab_find(v, t->s, last) >= 0;
    return (vocab_find(v, t->s, first) < 0 && rest) || (vocab_find(v, t->s + last, t->n - last) < 0 && start);
}

// (1) of the head of this file.
static enum status check_complete(const struct scoring *x, struct err *err)
{
    for (size_t i = 0; i < x->n_made; i++) {
        const struct spm_merge *m = &x->made[i];
        if (is_text(x, m->left) && is_text(x, m->right) && can_be_made(x, m->id) && !merge_find(x->v, m->left, m->right))
            return err_set(err, ST_BAD_INPUT, "%s: model.merges do not join \"%s\" and \"%s\", but \"%s\" is a token, so llama.cpp would",
                           x->path, text_of(x, m->left), text_of(x, m->right), text_of(x, m->id));
    }
    for (int32_t id = 0; id < x->t->n; id++)
        if (is_text(x, id) && x->t->text[id].n && joins_unknown(x->v, &x->t->text[id]))
            return err_set(err, ST_BAD_INPUT,
                           "%s: token \"%s\" begins or ends with a character that is no token: no merge makes it, but llama.cpp would",
                           x->path, text_of(x, id));
    return ST_OK;
}

// (2): the tokenizer's merges are those of the scores in their order, but for the order within a token. *same: in that, too.
static enum status check_order(const struct scoring *x, bool *same, struct err *err)
{
    size_t k = 0;
    *same = x->n_own == x->n_made;
    for (size_t i = 0; i < x->n_own; i++, k++) {
        while (k < x->n_made && !merge_find(x->v, x->made[k].left, x->made[k].right)) k++;
        const struct spm_merge *own = &x->own[i], *made = k < x->n_made ? &x->made[k] : own;
        if (own->left == made->left && own->right == made->right) continue;
        *same = false;
        if (x->tied[i])
            return err_set(
                err, ST_BAD_INPUT,
                "%s: model.merges make \"%s\" partly before and partly behind other tokens (\"%s\"), which no score of llama.cpp says",
                x->path, text_of(x, own->id), text_of(x, made->id));
    }
    return ST_OK;
}

// Whether the merges from..to make the runs of one character (Llama 2's spaces), a token for each length: by either order the leftmost
// grows.
static bool is_run(const struct scoring *x, size_t from, size_t to)
{
    const struct gguf_text *first = &x->t->text[x->own[from].id];
    const size_t n_char = utf8_len((uint8_t)first->s[0]);
    size_t shortest = SIZE_MAX, longest = 0, n_grown = 0; // n_grown: tokens that are one character and another token
    for (size_t k = from; k < to; k++) {
        const struct gguf_text *t = &x->t->text[x->own[k].id];
        for (size_t i = 0; i < t->n; i += n_char)
            if (t->n % n_char || memcmp(t->s + i, first->s, n_char)) return false;
        if (t->n / n_char < shortest) shortest = t->n / n_char;
        if (t->n / n_char > longest) longest = t->n / n_char;
        n_grown += x->t->text[x->own[k].left].n == n_char;
    }
    return n_grown == longest - shortest + 1;
}

static const char *find_tie_note(const struct scoring *x)
{
    for (size_t from = 0, to; from < x->n_own; from = to) {
        for (to = from; to < x->n_own && x->score[x->own[to].id] == x->score[x->own[from].id];) to++;
        if (x->tied[from] && !is_run(x, from, to))
            return "several tokens have one score: llama.cpp makes the leftmost of them first, this tokenizer that of the longer parts: "
                   "some texts get other ids there";
    }
    return NULL;
}

// The merges too, where the scores do not give them back in their order. No text has a space when it comes to merging.
static void put_merges(struct gguf_writer *w, const struct scoring *x)
{
    struct buf *joined = NEW_N(struct buf, x->n_own + 1);
    struct gguf_text *text = NEW_N(struct gguf_text, x->n_own + 1);
    size_t n = 0;
    for (size_t i = 0; i < x->n_own; i++) {
        const char *left = text_of(x, x->own[i].left), *right = text_of(x, x->own[i].right);
        if (strchr(left, ' ') || strchr(right, ' ')) continue;
        buf_printf(&joined[n], "%s %s", left, right);
        text[n] = (struct gguf_text){joined[n].data, joined[n].size};
        n++;
    }
    gguf_put_strings(w, "tokenizer.ggml.merges", text, n);
    for (size_t i = 0; i < n; i++) buf_free(&joined[i]);
    mem_free(joined);
    mem_free(text);
}

static enum status put_scores(struct gguf_writer *w, const struct gguf_tokens *t, const struct vocab *v, const char **note,
                              const char *path, struct err *err)
{
    const size_t n = (size_t)t->n;
    struct scoring x = {.t = t, .v = v, .path = path, .score = NEW_N(double, n)};
    float *score = NEW_N(float, n);
    bool same = false;
    read_own(&x);
    x.tied = NEW_N(bool, x.n_own + 1);
    give_scores(&x);
    enum status st = spm_merges(&x.made, &x.n_made, t->text, x.score, n, path, err);
    if (!st) st = check_complete(&x, err);
    if (!st) st = check_order(&x, &same, err);
    if (!st && !same) put_merges(w, &x);
    if (!st) *note = find_tie_note(&x);
    for (size_t id = 0; id < n; id++) score[id] = (float)x.score[id];
    if (!st) gguf_put_f32s(w, "tokenizer.ggml.scores", score, n);
    mem_free(score);
    mem_free(x.score);
    mem_free(x.tied);
    mem_free(x.own);
    mem_free(x.made);
    return st;
}

enum status spm_put(struct gguf_writer *w, const struct tokenizer *t, const json_t *root, struct gguf_tokens *tokens, const char **note,
                    const char *path, struct err *err)
{
    enum prefix prefix = NEVER;
    TRY(find_prefix(&prefix, root, path, err));
    TRY(find_types(tokens, t, path, err));
    TRY(put_scores(w, tokens, &t->vocab, note, path, err));
    gguf_put_string(w, "tokenizer.ggml.model", "llama");
    gguf_put_string(w, "tokenizer.ggml.pre", "default");
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", prefix != NEVER);
    if (prefix == ALWAYS || prefix == FIRST) gguf_put_string(w, GGUF_PREPEND_SCHEME, prefix == FIRST ? "first" : "always");
    const char *on_prefix = find_prefix_note(prefix, t); // the more frequent one
    if (on_prefix) *note = on_prefix;
    return ST_OK;
}
