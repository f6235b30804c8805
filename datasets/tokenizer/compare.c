// Comparing two tokenizers: tokens id by id, merges by pair and rank, and what no table tells (normalizer, regexes) by cutting texts.
#include "datasets/tokenizer/compare.h"

#include "datasets/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

// Where normalizers and pre-tokenizers are known to differ: contractions, runs of digits and of white space, line ends, scripts without
// spaces, combining marks, emoji, code.
static const char *const texts[] = {
    "Don't we'LL I've it's THEY'RE",
    "1 12 123 1234 1234567890 3.14159 1,000,000",
    "a  b   c\td \t e    \n  f",
    "one\r\ntwo\n\n\nthree \n",
    "e\xCC\x81t\xC3\xA9 na\xC3\xAFve stra\xC3\x9F"
    "e",
    "\xE4\xB8\xAD\xE6\x96\x87\xE5\x88\x86\xE8\xAF\x8D\xE3\x80\x82\xE3\x81\xB2\xE3\x82\x89\xE3\x81\x8C\xE3\x81\xAA\xE3\x82\xAB\xE3\x82\xBF",
    "\xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4 \xD0\xBF\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 \xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7",
    "\xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8\xE0\xA5\x8D\xE0\xA4\xA4\xE0\xA5\x87 \xE0\xB8\xAA\xE0\xB8\xA7\xE0\xB8\xB1\xE0\xB8\xAA",
    "\xF0\x9F\x98\x80\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xE2\x88\x91\xE2\x82\xAC $x^2 + y_i \\geq "
    "\\frac{1}{2}$",
    "def f(x):\n    if x >= 0:\n\treturn {'a': [x]*2}  # !!",
    "https://example.org/a_b?c=d&e=%20f",
    " leading and trailing ",
    "ALLCAPS camelCase snake_case"};

// The bytes of an id's token; false if it has none.
static bool token_of(const struct tokenizer *t, int32_t id, const char **s, size_t *n, bool *special)
{
    *special = false;
    if (id >= t->n_vocab) return false;
    if (t->added_of[id] >= 0) {
        const struct added *a = &t->added[t->added_of[id]];
        *s = a->content;
        *n = a->n;
        *special = a->special;
        return true;
    }
    if (id >= t->vocab.n || !t->vocab.present[id]) return false;
    *s = t->vocab.pool + t->vocab.begin[id];
    *n = t->vocab.size[id];
    return true;
}

static void count(int32_t *n, int32_t *examples, int32_t id)
{
    if (*n < TOKENIZER_EXAMPLES) examples[*n] = id;
    ++*n;
}

static void compare_tokens(struct tokenizer_diff *d, const struct tokenizer *a, const struct tokenizer *b)
{
    for (int32_t id = 0; id < (a->n_vocab > b->n_vocab ? a->n_vocab : b->n_vocab); id++) {
        const char *s[2];
        size_t n[2];
        bool special[2], in_a = token_of(a, id, &s[0], &n[0], &special[0]), in_b = token_of(b, id, &s[1], &n[1], &special[1]);
        if (in_a && in_b && (n[0] != n[1] || memcmp(s[0], s[1], n[0]) != 0))
            count(&d->n_differ, d->differ, id);
        else if (in_a && in_b) {
            d->n_agree++;
            if (special[0] != special[1]) count(&d->n_flag, d->flag, id);
        } else if (in_a)
            count(&d->n_only_a, d->only_a, id);
        else if (in_b)
            count(&d->n_only_b, d->only_b, id);
    }
}

// The id that b has for the bytes of a's token; -1: none.
static int32_t same_bytes(const struct vocab *a, const struct vocab *b, int32_t id)
{
    return vocab_find(b, a->pool + a->begin[id], a->size[id]);
}

// Merges of a that b has not, by the bytes they join, or ranks otherwise (`ranks`: counted once, from one side).
static int64_t lacking(const struct vocab *a, const struct vocab *b, bool ranks)
{
    int64_t n = 0;
    for (uint32_t i = 0; a->merge && i <= a->merge_mask; i++) {
        const struct merge *m = &a->merge[i];
        if (m->pair == MERGE_EMPTY) continue;
        const int32_t left = same_bytes(a, b, (int32_t)(m->pair >> 32)), right = same_bytes(a, b, (int32_t)(uint32_t)m->pair);
        const struct merge *other = b->merge && left >= 0 && right >= 0 ? merge_find(b, left, right) : NULL;
        n += !other || (ranks && other->rank != m->rank);
    }
    return n;
}

static bool cut_alike(const struct tokenizer *a, const struct tokenizer *b, const char *text)
{
    struct ids x = {0}, y = {0};
    struct err ignored = {0};
    bool same = !tokenizer_encode(a, text, strlen(text), &x, &ignored) && !tokenizer_encode(b, text, strlen(text), &y, &ignored) &&
                x.n == y.n && (!x.n || !memcmp(x.v, y.v, x.n * sizeof *x.v));
    ids_free(&x);
    ids_free(&y);
    return same;
}

void tokenizer_compare(struct tokenizer_diff *d, const struct tokenizer *a, const struct tokenizer *b)
{
    *d = (struct tokenizer_diff){.same_file = !strcmp(tokenizer_sha256(a), tokenizer_sha256(b)), .n_a = a->n_vocab, .n_b = b->n_vocab};
    compare_tokens(d, a, b);
    d->n_merge = lacking(&a->vocab, &b->vocab, true) + lacking(&b->vocab, &a->vocab, false);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++, d->n_text++) d->n_text_differ += !cut_alike(a, b, texts[i]);
}

bool tokenizer_compatible(const struct tokenizer_diff *d)
{
    return !d->n_differ && !d->n_merge && !d->n_text_differ;
}

void tokenizer_show(const struct tokenizer *t, int32_t id, struct buf *out)
{
    const char *s;
    size_t n;
    bool special;
    if (id < 0 || !token_of(t, id, &s, &n, &special)) {
        buf_printf(out, "(%d, no token)", (int)id);
        return;
    }
    json_t *text = utf8_json(s, n);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    buf_printf(out, "%s (%d)", quoted ? quoted : "\"\"", (int)id);
    free(quoted);
    json_decref(text);
}

enum status tokenizer_fits(const struct tokenizer *t, int64_t n_row, const char *path, struct err *err)
{
    const int32_t n = tokenizer_n_vocab(t);
    if (n <= n_row) return ST_OK;
    struct buf token = {0};
    tokenizer_show(t, n - 1, &token);
    err_set(err, ST_BAD_INPUT,
            "%s: the tokenizer has ids up to %d, %s, but the embedding only %lld rows (vocab_size): they do not belong together; take the "
            "tokenizer that came with the weights, or resize the embedding where the tokens were added",
            path, (int)n - 1, token.data, (long long)n_row);
    buf_free(&token);
    return ST_BAD_INPUT;
}
