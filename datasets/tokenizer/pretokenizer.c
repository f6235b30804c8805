// Pre-tokenizers: how text is split into the pieces that BPE works on. Each step splits every piece of the step before; a step hands its
// pieces straight to the next one, so a piece is encoded while its bytes are warm and no list of pieces is ever built.
#include "datasets/tokenizer/internal.h"

#include <string.h>

enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum kind { SPLIT, PREFIX_SPACE, METASPACE };
enum scheme { ALWAYS, FIRST, NEVER };
struct step {
    enum kind kind;
    int regex; // SPLIT
    enum behavior behavior;
    bool invert;
    enum scheme scheme; // METASPACE: where one is put in front
    char space[4];      // METASPACE: what stands for a space
    size_t n_space;
};
struct pretokenizer {
    struct step *v;
    size_t n;
    bool uses_regex, byte_level;
};

static void add_step(struct pretokenizer *p, const struct step *step)
{
    p->v = mem_realloc(p->v, (p->n + 1) * sizeof *p->v);
    p->v[p->n++] = *step;
}

static enum status add_split(struct pretokenizer *p, int regex, enum behavior behavior, bool invert)
{
    if (regex == -1) return ST_BAD_INPUT; // err is filled
    add_step(p, &(struct step){.kind = SPLIT, .regex = regex, .behavior = behavior, .invert = invert});
    p->uses_regex = true;
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

enum status metaspace_character(const json_t *spec, const char *part, char *out, size_t *n, const char *where, struct err *err)
{
    const json_t *space = json_object_get(spec, "replacement");
    const char *s = space ? json_string_value(space) : "\xE2\x96\x81";
    *n = s ? space ? json_string_length(space) : 3 : 0;
    if (!*n || *n > 4 || utf8_check(s, *n) < *n || utf8_len((uint8_t)s[0]) != *n)
        return err_set(err, ST_BAD_INPUT, "%s: %s Metaspace: replacement is not one character", where, part);
    memcpy(out, s, *n);
    return ST_OK;
}

// Metaspace: every space becomes another character, one is put in front, and (unless split is false) pieces begin at each.
static enum status load_metaspace(struct pretokenizer *p, struct regexes *re, const json_t *spec, const char *where, struct err *err)
{
    static const char *const names[] = {"always", "first", "never"};
    struct step step = {.kind = METASPACE};
    TRY(metaspace_character(spec, "pre_tokenizer", step.space, &step.n_space, where, err));
    const char *scheme = json_string_value(json_object_get(spec, "prepend_scheme"));
    bool prefix = flag(spec, "add_prefix_space", true); // how older files say "never"
    if (!scheme) scheme = prefix ? "always" : "never";
    int k = 0;
    while (k < 3 && strcmp(scheme, names[k]) != 0) k++;
    if (k == 3 || (!prefix && k != NEVER))
        return err_set(err, ST_BAD_INPUT, "%s: pre_tokenizer Metaspace: prepend_scheme is %s%s; known are always, first, never", where,
                       scheme, k < 3 ? ", but add_prefix_space is false" : "");
    step.scheme = (enum scheme)k;
    add_step(p, &step);
    if (!flag(spec, "split", true)) return ST_OK;
    return add_split(p, regexes_add_literal(re, step.space, step.n_space, where, err), MERGED_WITH_NEXT, false);
}

static enum status load_step(struct pretokenizer *p, struct regexes *re, const json_t *spec, const char *where, struct err *err)
{
    const char *type = part_type(spec);
    if (p->byte_level)
        return err_set(err, ST_BAD_INPUT, "%s: pre_tokenizer: %s stands after ByteLevel; distill knows ByteLevel only as the last", where,
                       type);
    if (strcmp(type, "ByteLevel") == 0) {
        static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
        p->byte_level = true;
        if (flag(spec, "add_prefix_space", true)) add_step(p, &(struct step){.kind = PREFIX_SPACE});
        if (flag(spec, "use_regex", true)) TRY(add_split(p, regexes_add(re, gpt2, sizeof gpt2 - 1, where, err), ISOLATED, false));
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
        return add_split(p, number, b, flag(spec, "invert", false));
    }
    if (strcmp(type, "Digits") == 0)
        return add_split(p, regexes_add_rust(re, "\\p{N}", where, err), flag(spec, "individual_digits", false) ? ISOLATED : CONTIGUOUS,
                         false);
    if (strcmp(type, "Punctuation") == 0) {
        enum behavior b = ISOLATED;
        if (json_object_get(spec, "behavior")) TRY(read_behavior(&b, spec, where, err));
        return add_split(p, regexes_add_rust(re, "\\p{P}", where, err), b, false);
    }
    if (strcmp(type, "Whitespace") == 0) return add_split(p, regexes_add_rust(re, "\\w+|[^\\w\\s]+", where, err), REMOVED, true);
    if (strcmp(type, "WhitespaceSplit") == 0) return add_split(p, regexes_add(re, "\\s", 2, where, err), REMOVED, false);
    if (strcmp(type, "Metaspace") == 0) return load_metaspace(p, re, spec, where, err);
    return err_set(
        err, ST_BAD_INPUT,
        "%s: pre_tokenizer %s is not known; distill knows Split, ByteLevel, Digits, Metaspace, Punctuation, Whitespace, WhitespaceSplit, "
        "Sequence",
        where, type);
}

enum status pretokenizer_load(struct pretokenizer **out, struct regexes *re, const json_t *spec, bool *byte_level, const char *where,
                              struct err *err)
{
    struct pretokenizer *p = NEW(struct pretokenizer);
    json_t *list, *one;
    size_t i;
    enum status st = part_list(&list, spec, "pre_tokenizer", "pretokenizers", where, err);
    json_array_foreach(list, i, one) if (!st) st = load_step(p, re, one, where, err);
    json_decref(list);
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
    struct piece_walk walk;
    struct span held; // not yet handed on: the next may join it
    bool holds, last_hit;
};

static enum status run_from(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece);

static enum status hand_on(struct splitter *x, const struct span *s)
{
    const struct piece *p = x->piece;
    struct piece sub = *p;
    sub.s += s->b0;
    sub.n = s->b1 - s->b0;
    if (sub.cls) sub.cls += s->c0;
    sub.n_char = s->c1 - s->c0;
    sub.base = piece_base(x->e, p, &x->walk, s->b0);
    sub.pre = s->b0 >= p->pre ? 0 : p->pre - s->b0 < sub.n ? p->pre - s->b0 : sub.n;
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
    struct splitter x = {.p = p, .e = e, .piece = piece, .step = k, .walk = {0, piece->base}};
    struct regex_walk w = {0};
    size_t c = 0, b = 0;
    int got;
    while ((got = regex_next(e->t->regexes, step->regex, e->match, piece->cls, piece->n_char, &w)) > 0) {
        if (w.lo > c) {
            size_t b1 = advance(piece, c, b, w.lo);
            TRY(take(&x, &(struct span){c, b, w.lo, b1, step->invert}));
            c = w.lo, b = b1;
        }
        size_t b1 = advance(piece, c, b, w.hi);
        TRY(take(&x, &(struct span){c, b, w.hi, b1, !step->invert}));
        c = w.hi, b = b1;
    }
    if (got < 0) return err_set(e->err, ST_BAD_INPUT, "the tokenizer's pattern %d needs too many steps on this text", step->regex);
    if (c < piece->n_char) TRY(take(&x, &(struct span){c, b, piece->n_char, piece->n, step->invert}));
    return x.holds ? hand_on(&x, &x.held) : ST_OK;
}

// The piece with n_more bytes (one character) in front.
static struct piece with_prefix(const struct encoder *e, const struct piece *piece, const char *more, size_t n_more, char **s,
                                uint8_t **cls)
{
    struct piece longer = *piece;
    *s = mem_alloc(piece->n + n_more);
    *cls = piece->cls ? mem_alloc(piece->n_char + 1) : NULL;
    memcpy(*s, more, n_more);
    memcpy(*s + n_more, piece->s, piece->n);
    if (*cls) regexes_classes(e->t->regexes, more, n_more, *cls), memcpy(*cls + 1, piece->cls, piece->n_char);
    longer.s = *s;
    longer.cls = *cls;
    longer.n += n_more;
    longer.n_char += 1;
    longer.pre += n_more;
    return longer;
}

static enum status prefix_space(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece)
{
    if (piece->s[0] == ' ') return run_from(p, e, k + 1, piece);
    char *s;
    uint8_t *cls;
    struct piece longer = with_prefix(e, piece, " ", 1, &s, &cls);
    enum status st = run_from(p, e, k + 1, &longer);
    mem_free(s);
    mem_free(cls);
    return st;
}

static enum status metaspace(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece)
{
    const struct step *step = &p->v[k];
    struct piece out = *piece, longer;
    size_t n_space = 0;
    for (size_t i = 0; i < piece->n; i++) n_space += piece->s[i] == ' ';
    char *s = mem_alloc(piece->n + n_space * step->n_space + 1), *s2 = NULL;
    uint8_t *cls = piece->cls ? mem_alloc(piece->n_char + 1) : NULL, *cls2 = NULL, own = 0;
    out.s = s;
    out.cls = cls;
    out.n = 0;
    out.respaced = true;
    for (size_t i = 0; i < piece->n; i++)
        if (piece->s[i] == ' ')
            memcpy(s + out.n, step->space, step->n_space), out.n += step->n_space;
        else
            s[out.n++] = piece->s[i];
    if (cls) {
        regexes_classes(e->t->regexes, step->space, step->n_space, &own);
        for (size_t i = 0; i < piece->n_char; i++) cls[i] = piece->cls[i] == ' ' ? own : piece->cls[i];
    } else
        out.n_char = out.n;
    bool starts = out.n >= step->n_space && memcmp(s, step->space, step->n_space) == 0;
    bool first = e->section + (e->norm ? normalized_orig(e->norm, piece->base) : piece->base) == 0;
    bool put = !starts && (step->scheme == ALWAYS || (step->scheme == FIRST && first));
    if (put) longer = with_prefix(e, &out, step->space, step->n_space, &s2, &cls2);
    enum status st = run_from(p, e, k + 1, put ? &longer : &out);
    mem_free(s);
    mem_free(cls);
    mem_free(s2);
    mem_free(cls2);
    return st;
}

static enum status run_from(const struct pretokenizer *p, struct encoder *e, size_t k, const struct piece *piece)
{
    if (k == p->n) return encode_piece(e, piece);
    switch (p->v[k].kind) {
    case SPLIT:
        return split(p, e, k, piece);
    case PREFIX_SPACE:
        return prefix_space(p, e, k, piece);
    case METASPACE:
        return metaspace(p, e, k, piece);
    }
    return ST_OK;
}

enum status pretokenizer_run(const struct pretokenizer *p, struct encoder *e, const struct piece *piece)
{
    return piece->n ? run_from(p, e, 0, piece) : ST_OK;
}

size_t piece_base(const struct encoder *e, const struct piece *p, struct piece_walk *w, size_t at)
{
    if (at <= p->pre) return p->base;
    if (!p->respaced) return p->base + at - p->pre;
    if (w->at < p->pre) w->at = p->pre;
    while (w->at < at) {
        size_t now = utf8_len((uint8_t)p->s[w->at]), then = utf8_len((uint8_t)e->text[w->base]);
        if (w->at + now > at) return w->base + (at - w->at < then ? at - w->at : then); // within a character
        w->at += now;
        w->base += then;
    }
    return w->base;
}
