// Decoders: ids back to bytes, one token after the other, so that a whole text and a stream go through the same steps.
//
// The steps of the file are run as a chain: each takes tokens and gives tokens to the next. Up to the first Fuse (or ByteLevel, which
// fuses) a step sees one token at a time; behind it there is only one long token, and a step keeps what it may still have to change until
// the text ends: Strip at the end, the beginning of what Replace looks for. Bytes are given back as they are: what is not UTF-8 stays so,
// where Hugging Face's library puts U+FFFD.
#include "datasets/tokenizer/internal.h"

#include <string.h>

enum kind { REPLACE, REPLACE_REGEX, BYTE_FALLBACK, STRIP, METASPACE, SPACED };
struct step {
    enum kind kind;
    bool fused; // stands behind a Fuse
    char *from, *to;
    size_t n_from, n_to;
    struct normalizer *replace; // REPLACE_REGEX
    size_t start, stop;         // STRIP: how many of `from` at most
    bool prefixed;              // METASPACE: those of the first token are dropped
};
struct decoder {
    struct step *v;
    size_t n;
    bool fused; // while loading: a Fuse or ByteLevel has been seen
    bool byte_level;
};

// ---- loading ---------------------------------------------------------------------------------------------------------------------------

static struct step *step_new(struct decoder *d, enum kind kind)
{
    d->v = mem_realloc(d->v, (d->n + 1) * sizeof *d->v);
    d->v[d->n] = (struct step){.kind = kind, .fused = d->fused};
    return &d->v[d->n++];
}

static enum status load_replace(struct decoder *d, const json_t *spec, const char *where, struct err *err)
{
    const json_t *pattern = json_object_get(spec, "pattern"), *content = json_object_get(spec, "content");
    const json_t *text = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    bool literal = json_is_string(text) && json_string_length(text) > 0;
    if (!json_is_string(content) || (!literal && !json_is_string(regex)))
        return err_set(err, ST_BAD_INPUT,
                       "%s: decoder Replace: wanted a \"content\" and a pattern {\"String\":…} or {\"Regex\":…} that is not empty", where);
    if (!literal && d->fused)
        return err_set(err, ST_BAD_INPUT, "%s: decoder Replace with a Regex behind Fuse: distill knows it only before", where);
    struct step *s = step_new(d, literal ? REPLACE : REPLACE_REGEX);
    s->to = mem_strndup(json_string_value(content), s->n_to = json_string_length(content));
    if (literal) return s->from = mem_strndup(json_string_value(text), s->n_from = json_string_length(text)), ST_OK;
    return normalizer_load(&s->replace, spec, where, err); // the same part, there for text and here for tokens
}

static enum status load_strip(struct decoder *d, const json_t *spec, const char *where, struct err *err)
{
    const json_t *content = json_object_get(spec, "content"), *start = json_object_get(spec, "start"),
                 *stop = json_object_get(spec, "stop");
    size_t n = json_string_length(content);
    if (!n || utf8_len((uint8_t)json_string_value(content)[0]) != n || !json_is_integer(start) || !json_is_integer(stop) ||
        json_integer_value(start) < 0 || json_integer_value(stop) < 0)
        return err_set(err, ST_BAD_INPUT, "%s: decoder Strip: wanted a \"content\" of one character, \"start\" and \"stop\"", where);
    struct step *s = step_new(d, STRIP);
    s->from = mem_strndup(json_string_value(content), s->n_from = n);
    s->start = (size_t)json_integer_value(start);
    s->stop = (size_t)json_integer_value(stop);
    return ST_OK;
}

static enum status load_metaspace(struct decoder *d, const json_t *spec, const char *where, struct err *err)
{
    char space[4];
    size_t n;
    TRY(metaspace_character(spec, "decoder", space, &n, where, err));
    const char *scheme = json_string_value(json_object_get(spec, "prepend_scheme"));
    struct step *s = step_new(d, METASPACE);
    s->from = mem_strndup(space, s->n_from = n);
    s->to = mem_strndup(" ", s->n_to = 1);
    s->prefixed = scheme ? strcmp(scheme, "never") != 0 : !json_is_false(json_object_get(spec, "add_prefix_space"));
    return ST_OK;
}

static enum status load_step(struct decoder *d, const json_t *spec, const char *where, struct err *err)
{
    const char *type = part_type(spec);
    static const char *const known[] = {"ByteLevel", "ByteFallback", "Fuse", "Strip", "Replace", "Metaspace"};
    size_t k = 0;
    while (k < sizeof known / sizeof *known && strcmp(type, known[k]) != 0) k++;
    if (k == sizeof known / sizeof *known)
        return err_set(err, ST_BAD_INPUT,
                       "%s: decoder %s is not known; distill knows ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, Sequence",
                       where, type);
    const bool bytes = k == 0;
    if (d->byte_level != bytes && !d->fused)
        return err_set(err, ST_BAD_INPUT, "%s: decoder %s: the pre_tokenizer has %s ByteLevel, so the decoder must %sbegin with one", where,
                       type, d->byte_level ? "a" : "no", d->byte_level ? "" : "not ");
    if (bytes || strcmp(type, "Fuse") == 0) return d->fused = true, ST_OK;
    if (strcmp(type, "Replace") == 0) return load_replace(d, spec, where, err);
    if (strcmp(type, "Strip") == 0) return load_strip(d, spec, where, err);
    if (strcmp(type, "Metaspace") == 0) return load_metaspace(d, spec, where, err);
    if (!d->fused) step_new(d, BYTE_FALLBACK); // behind a Fuse there are no tokens to look at
    return ST_OK;
}

enum status decoder_load(struct decoder **out, const json_t *spec, bool byte_level, const char *where, struct err *err)
{
    struct decoder *d = *out = NEW(struct decoder);
    d->byte_level = byte_level;
    json_t *list, *one;
    size_t i;
    enum status st = part_list(&list, spec, "decoder", "decoders", where, err);
    json_array_foreach(list, i, one) if (!st) st = load_step(d, one, where, err);
    json_decref(list);
    if ((!spec || json_is_null(spec)) && !byte_level) step_new(d, SPACED); // as Hugging Face's library joins tokens then
    return st;
}

void decoder_free(struct decoder *d)
{
    if (!d) return;
    for (size_t i = 0; i < d->n; i++) {
        mem_free(d->v[i].from);
        mem_free(d->v[i].to);
        normalizer_free(d->v[i].replace);
    }
    mem_free(d->v);
    mem_free(d);
}

// ---- running ---------------------------------------------------------------------------------------------------------------------------

struct decoding {
    const struct decoder *d;
    struct decode_state {
        struct buf held; // BYTE_FALLBACK: the beginning of a character; behind a Fuse: what may still change
        struct buf made; // scratch
        size_t n_token;  // seen so far
        size_t n_cut;    // STRIP behind a Fuse: characters taken from the start
        bool begun;      // STRIP behind a Fuse: all is stripped from the start; BYTE_FALLBACK: some of this run has been given on
    } * state;
};

struct decoding *decoding_new(const struct decoder *d)
{
    struct decoding *g = NEW(struct decoding);
    g->d = d;
    g->state = NEW_N(struct decode_state, d->n + 1);
    return g;
}

void decoding_free(struct decoding *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->d->n; i++) buf_free(&g->state[i].held), buf_free(&g->state[i].made);
    mem_free(g->state);
    mem_free(g);
}

// Passes a token on through the steps from k on. joins: it belongs to the token before (as the characters of one run of bytes do).
static void run(struct decoding *g, size_t k, const char *s, size_t n, bool joins, struct buf *out);

static void hand_on(struct decoding *g, size_t k, const struct buf *b, bool joins, struct buf *out)
{
    if (b->size) run(g, k + 1, b->data, b->size, joins, out);
}

// How many characters of a Strip stand at one end of s, at most `most`.
static size_t count(const struct step *step, const char *s, size_t n, size_t most, bool at_end)
{
    size_t k = 0;
    for (; k < most && (k + 1) * step->n_from <= n; k++)
        if (memcmp(s + (at_end ? n - (k + 1) * step->n_from : k * step->n_from), step->from, step->n_from) != 0) break;
    return k;
}

static void replace(const struct step *step, const char *s, size_t n, bool drop, struct buf *out)
{
    const char *end = s + n, *hit;
    for (; (hit = memmem(s, (size_t)(end - s), step->from, step->n_from)); s = hit + step->n_from) {
        buf_put(out, s, (size_t)(hit - s));
        if (!drop) buf_put(out, step->to, step->n_to);
    }
    buf_put(out, s, (size_t)(end - s));
}

static void replace_regex(const struct step *step, const char *s, size_t n, struct buf *out)
{
    struct normalized z = {0};
    // A lone byte of ByteFallback is no text, and no pattern can mean it.
    if (utf8_check(s, n) == n && normalizer_run(step->replace, s, n, &z))
        buf_put(out, z.text.data ? z.text.data : "", z.text.size);
    else
        buf_put(out, s, n);
    normalized_free(&z);
}

// Behind a Fuse: gives on what of the held text cannot change any more, all of it when the text ends.
static void release(struct decoding *g, size_t k, bool ends, struct buf *out)
{
    const struct step *step = &g->d->v[k];
    struct decode_state *x = &g->state[k];
    const char *s = x->held.data;
    size_t n = x->held.size, cut = 0, keep = 0, tail = 0;
    if (!n) return;
    buf_clear(&x->made);
    if (step->kind == STRIP) {
        if (!x->begun) {
            size_t now = count(step, s, n, step->start - x->n_cut, false);
            x->n_cut += now;
            cut = now * step->n_from;
            // The beginning of such a character may still become one.
            x->begun = x->n_cut == step->start || (n > cut && (n - cut >= step->n_from || memcmp(s + cut, step->from, n - cut) != 0));
        }
        keep = x->begun && step->stop * step->n_from < n - cut ? step->stop * step->n_from : n - cut;
        if (ends) keep = 0, tail = count(step, s + cut, n - cut, step->stop, true) * step->n_from;
        buf_put(&x->made, s + cut, n - cut - keep - tail);
    } else { // what follows the last match and could begin another
        size_t from = 0;
        for (const char *hit; (hit = memmem(s + from, n - from, step->from, step->n_from));) from = (size_t)(hit - s) + step->n_from;
        keep = ends ? 0 : n - from < step->n_from ? n - from : step->n_from - 1;
        while (keep && memcmp(s + n - keep, step->from, keep) != 0) keep--;
        replace(step, s, n - keep, step->prefixed, &x->made);
    }
    memmove(x->held.data, x->held.data + n - keep, keep);
    x->held.size = keep;
    hand_on(g, k, &x->made, true, out);
}

// The byte that a token of the form <0x0A> stands for, -1 if it is another.
static int byte_of_token(const char *s, size_t n)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || !s[3] || !s[4]) return -1;
    const char *a = strchr(digits, s[3]), *b = strchr(digits, s[4]);
    return a && b ? (int)((a - digits) % 16 * 16 + (b - digits) % 16) : -1;
}

static void end_of_run(struct decoding *g, size_t k, struct buf *out)
{
    struct decode_state *x = &g->state[k];
    hand_on(g, k, &x->held, x->begun, out);
    buf_clear(&x->held);
    x->begun = false;
}

static void byte_fallback(struct decoding *g, size_t k, const char *s, size_t n, struct buf *out)
{
    struct decode_state *x = &g->state[k];
    int byte = byte_of_token(s, n);
    if (byte < 0) {
        end_of_run(g, k, out);
        run(g, k + 1, s, n, false, out);
        return;
    }
    buf_putc(&x->held, (char)byte);
    if (utf8_unfinished(x->held.data, x->held.size)) return;
    end_of_run(g, k, out); // a character, or what can never be one
    x->begun = true;
}

static void run(struct decoding *g, size_t k, const char *s, size_t n, bool joins, struct buf *out)
{
    if (k == g->d->n) {
        buf_put(out, s, n);
        return;
    }
    const struct step *step = &g->d->v[k];
    struct decode_state *x = &g->state[k];
    size_t lo, hi;
    if (step->kind == BYTE_FALLBACK) {
        byte_fallback(g, k, s, n, out);
        return;
    }
    if (step->fused) {
        buf_put(&x->held, s, n);
        release(g, k, false, out);
        return;
    }
    x->n_token += !joins;
    buf_clear(&x->made);
    switch (step->kind) {
    case STRIP:
        lo = count(step, s, n, step->start, false) * step->n_from;
        hi = n - count(step, s + lo, n - lo, step->stop, true) * step->n_from;
        buf_put(&x->made, s + lo, hi - lo);
        break;
    case SPACED:
        if (x->n_token > 1) buf_putc(&x->made, ' ');
        buf_put(&x->made, s, n);
        break;
    case REPLACE_REGEX:
        replace_regex(step, s, n, &x->made);
        break;
    case METASPACE:
    case REPLACE:
        replace(step, s, n, step->prefixed && x->n_token == 1, &x->made);
        break;
    case BYTE_FALLBACK:
        BUG("decoder: a run of bytes is not handled here");
    }
    run(g, k + 1, x->made.data ? x->made.data : "", x->made.size, joins, out); // an empty token counts as one
}

void decoding_put(struct decoding *g, const char *token, size_t n, struct buf *out)
{
    run(g, 0, token, n, false, out);
}

void decoding_end(struct decoding *g, struct buf *out)
{
    for (size_t k = 0; k < g->d->n; k++) {
        if (g->d->v[k].kind == BYTE_FALLBACK)
            end_of_run(g, k, out);
        else if (g->d->v[k].fused)
            release(g, k, true, out);
    }
}

// ---- streams ---------------------------------------------------------------------------------------------------------------------------

struct decode_stream {
    const struct tokenizer *t;
    bool skip_special;
    struct decoding *decoding;
    struct buf bytes; // decoded, but no whole character yet
};

struct decode_stream *decode_stream_new(const struct tokenizer *t, bool skip_special)
{
    struct decode_stream *d = NEW(struct decode_stream);
    *d = (struct decode_stream){t, skip_special, decoding_new(t->decoder), {0}};
    return d;
}

void decode_stream_free(struct decode_stream *d)
{
    if (!d) return;
    decoding_free(d->decoding);
    buf_free(&d->bytes);
    mem_free(d);
}

static void give_out(struct decode_stream *d, bool more, struct buf *out)
{
    if (!d->bytes.size) return;
    size_t used = utf8_mend(out, d->bytes.data, d->bytes.size, more);
    memmove(d->bytes.data, d->bytes.data + used, d->bytes.size - used);
    d->bytes.size -= used;
}

enum status decode_stream_put(struct decode_stream *d, int32_t id, struct buf *out, struct err *err)
{
    const char *s;
    size_t n;
    bool special;
    if (!tokenizer_piece(d->t, id, &s, &n, &special))
        return err_set(err, ST_BAD_INPUT, "id %d is outside the vocabulary (%d ids)", id, tokenizer_n_vocab(d->t));
    if (special && d->skip_special) return ST_OK;
    decoding_put(d->decoding, s, n, &d->bytes);
    give_out(d, true, out);
    return ST_OK;
}

void decode_stream_end(struct decode_stream *d, struct buf *out)
{
    decoding_end(d->decoding, &d->bytes);
    give_out(d, false, out);
}
