// Pre-tokenizers: how text is split into the pieces that BPE works on. Each step splits every piece of the step before; a step hands its
// pieces straight to the next one, so a piece is encoded while its bytes are warm and no list of pieces is ever built.
#include "datasets/tokenizer/internal.h"

#include <string.h>

enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
struct step {
    int regex; // -1: does not split
    enum behavior behavior;
    bool invert, prefix_space;
};
struct pretokenizer {
    struct step *v;
    size_t n;
    bool uses_regex, byte_level;
};

static enum status add_split(struct pretokenizer *p, int regex, enum behavior behavior, bool invert, bool prefix_space)
{
    if (regex == -1 && !prefix_space) return ST_BAD_INPUT; // err is filled
    p->v = mem_realloc(p->v, (p->n + 1) * sizeof *p->v);
    p->v[p->n++] = (struct step){regex, behavior, invert, prefix_space};
    p->uses_regex |= regex >= 0;
    return ST_OK;
}

static enum status read_behavior(enum behavior *out, const json_t *spec, const char *where, struct err *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *s = json_string_value(json_object_get(spec, "behavior"));
    for (int i = 0; s && i < 5; i++)
        if (strcmp(s, names[i]) == 0) return *out = (enum behavior)i, ST_OK;
    return err_set(err, ST_BAD_INPUT,
                   "%s: pre_tokenizer: behavior is %s; known are Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous", where,
                   s ? s : "missing");
}

static bool flag(const json_t *spec, const char *key, bool def)
{
    const json_t *v = json_object_get(spec, key);
    return json_is_boolean(v) ? json_is_true(v) : def;
}

static enum status load_step(struct pretokenizer *p, struct regexes *re, const json_t *spec, int depth, const char *where, struct err *err)
{
    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type || depth > 8) return err_set(err, ST_BAD_INPUT, "%s: pre_tokenizer: %s", where, type ? "nested too deeply" : "no type");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "pretokenizers"), *one;
        size_t i;
        if (!json_is_array(list))
            return err_set(err, ST_BAD_INPUT, "%s: pre_tokenizer: a Sequence without an array \"pretokenizers\"", where);
        json_array_foreach(list, i, one) TRY(load_step(p, re, one, depth + 1, where, err));
        return ST_OK;
    }
    if (p->byte_level)
        return err_set(err, ST_BAD_INPUT, "%s: pre_tokenizer: %s stands after ByteLevel; distill knows ByteLevel only as the last", where,
                       type);
    if (strcmp(type, "ByteLevel") == 0) {
        static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
        p->byte_level = true;
        if (flag(spec, "add_prefix_space", true)) TRY(add_split(p, -1, ISOLATED, false, true));
        if (flag(spec, "use_regex", true)) TRY(add_split(p, regexes_add(re, gpt2, sizeof gpt2 - 1, where, err), ISOLATED, false, false));
        return ST_OK;
    }
    if (strcmp(type, "Split") == 0) {
        const json_t *pattern = json_object_get(spec, "pattern"), *regex = json_object_get(pattern, "Regex"),
                     *text = json_object_get(pattern, "String");
        enum behavior b;
        TRY(read_behavior(&b, spec, where, err));
        if (!json_is_string(regex) && !json_is_string(text))
            return err_set(err, ST_BAD_INPUT, "%s: pre_tokenizer: Split without a pattern {\"Regex\":…} or {\"String\":…}", where);
        int number = json_is_string(regex) ? regexes_add(re, json_string_value(regex), json_string_length(regex), where, err)
                                           : regexes_add_literal(re, json_string_value(text), json_string_length(text), where, err);
        return add_split(p, number, b, flag(spec, "invert", false), false);
    }
    if (strcmp(type, "Digits") == 0)
        return add_split(p, regexes_add(re, "\\p{N}", 5, where, err), flag(spec, "individual_digits", false) ? ISOLATED : CONTIGUOUS, false,
                         false);
    if (strcmp(type, "Punctuation") == 0) {
        static const char punctuation[] = "[!-/:-@\\[-`{-~\\p{P}]";
        enum behavior b = ISOLATED;
        if (json_object_get(spec, "behavior")) TRY(read_behavior(&b, spec, where, err));
        return add_split(p, regexes_add(re, punctuation, sizeof punctuation - 1, where, err), b, false, false);
    }
    if (strcmp(type, "Whitespace") == 0) return add_split(p, regexes_add(re, "\\w+|[^\\w\\s]+", 12, where, err), REMOVED, true, false);
    if (strcmp(type, "WhitespaceSplit") == 0) return add_split(p, regexes_add(re, "\\s", 2, where, err), REMOVED, false, false);
    return err_set(
        err, ST_BAD_INPUT,
        "%s: pre_tokenizer %s is not known; distill knows Split, ByteLevel, Digits, Punctuation, Whitespace, WhitespaceSplit, Sequence",
        where, type);
}

enum status pretokenizer_load(struct pretokenizer **out, struct regexes *re, const json_t *spec, bool *byte_level, const char *where,
                              struct err *err)
{
    struct pretokenizer *p = NEW(struct pretokenizer);
    enum status st = !spec || json_is_null(spec) ? ST_OK : load_step(p, re, spec, 0, where, err);
    *byte_level = p->byte_level;
    *out = p;
    return st;
}

void pretokenizer_free(struct pretokenizer *p)
{
    if (!p) return;
    mem_free(p->v);
    mem_free(p);
}

bool pretokenizer_uses_regex(const struct pretokenizer *p)
{
    return p->uses_regex;
}

struct span { // of a piece, in characters and bytes
    size_t c0, b0, c1, b1;
    bool hit; // the pattern matched here (after invert)
};
struct splitter {
    const struct pretokenizer *p;
    struct encoder *e;
    const struct piece *piece;
    size_t step;
    struct span held; // not yet handed on: the next may join it
    bool holds, last_hit;
};

static enum status run_from(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece);

static enum status hand_on(struct splitter *x, const struct span *s)
{
    const struct piece *p = x->piece;
    struct piece sub = {p->s + s->b0, s->b1 - s->b0, p->cls + s->c0, s->c1 - s->c0, p->base, 0};
    if (s->b0 < p->pre)
        sub.pre = p->pre - s->b0 < sub.n ? p->pre - s->b0 : sub.n;
    else
        sub.base += s->b0 - p->pre;
    return sub.n ? run_from(x->p, x->e, x->step + 1, &sub) : ST_OK;
}

// Takes the next stretch of the piece, a match or a gap, and hands on what can no longer change.
static enum status take(struct splitter *x, const struct span *s)
{
    enum behavior b = x->p->v[x->step].behavior;
    if (b == ISOLATED) return hand_on(x, s);
    if (b == REMOVED) return s->hit ? ST_OK : hand_on(x, s);
    bool joins = x->holds && (b == CONTIGUOUS             ? s->hit == x->last_hit
                              : b == MERGED_WITH_PREVIOUS ? s->hit && !x->last_hit
                                                          : x->last_hit && !s->hit);
    x->last_hit = s->hit;
    if (joins) {
        x->held.c1 = s->c1;
        x->held.b1 = s->b1;
        return ST_OK;
    }
    struct span out = x->held;
    bool any = x->holds;
    x->held = *s;
    x->holds = true;
    return any ? hand_on(x, &out) : ST_OK;
}

static size_t advance(const struct piece *p, size_t c0, size_t b0, size_t c1)
{
    if (p->n == p->n_char) return c1;
    for (; c0 < c1; c0++) b0 += utf8_len((uint8_t)p->s[b0]);
    return b0;
}

static enum status split(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece)
{
    const struct step *step = &p->v[k];
    struct splitter x = {.p = p, .e = e, .piece = piece, .step = k};
    size_t c = 0, b = 0, from = 0, last_end = SIZE_MAX;
    while (from <= piece->n_char) {
        size_t lo, hi;
        int got = regex_find(e->t->regexes, step->regex, e->match, piece->cls, piece->n_char, from, &lo, &hi);
        if (got < 0) return err_set(e->err, ST_BAD_INPUT, "the tokenizer's pattern %d needs too many steps on this text", step->regex);
        if (!got) break;
        if (lo == hi && hi == last_end) { // an empty match right after a match is passed over, as Hugging Face's library does
            from++;
            continue;
        }
        from = last_end = hi;
        if (lo > c) {
            size_t b1 = advance(piece, c, b, lo);
            TRY(take(&x, &(struct span){c, b, lo, b1, step->invert}));
            c = lo, b = b1;
        }
        size_t b1 = advance(piece, c, b, hi);
        TRY(take(&x, &(struct span){c, b, hi, b1, !step->invert}));
        c = hi, b = b1;
    }
    if (c < piece->n_char) TRY(take(&x, &(struct span){c, b, piece->n_char, piece->n, step->invert}));
    return x.holds ? hand_on(&x, &x.held) : ST_OK;
}

static enum status prefix_space(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece)
{
    if (piece->s[0] == ' ') return run_from(p, e, k + 1, piece);
    char *s = mem_alloc(piece->n + 1);
    uint8_t *cls = piece->cls ? mem_alloc(piece->n_char + 1) : NULL;
    s[0] = ' ';
    memcpy(s + 1, piece->s, piece->n);
    if (cls) cls[0] = ' ', memcpy(cls + 1, piece->cls, piece->n_char);
    struct piece longer = {s, piece->n + 1, cls, piece->n_char + 1, piece->base, piece->pre + 1};
    enum status st = run_from(p, e, k + 1, &longer);
    mem_free(s);
    mem_free(cls);
    return st;
}

static enum status run_from(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece)
{
    if (k == p->n) return encode_piece(e, piece);
    return p->v[k].prefix_space ? prefix_space(p, e, k, piece) : split(p, e, k, piece);
}

enum status pretokenizer_run(const struct pretokenizer *p, struct encoder *e, const struct piece *piece)
{
    return piece->n ? run_from(p, e, 0, piece) : ST_OK;
}
