// Normalizers: what rewrites text before it is split. NFC and its relatives are utf8proc's work; text is passed to it only around the
// characters that could change, so that plain text costs one scan, and the map from new to old offsets stays fine-grained.
#include "datasets/tokenizer/internal.h"

#include <string.h>
#include <utf8proc.h>

enum kind { FORM, LOWERCASE, STRIP, PREPEND, REPLACE, REPLACE_REGEX };
struct step {
    enum kind kind;
    int options;      // FORM: utf8proc's
    uint8_t *unsafe;  // FORM: (0x110000) CHAR_NFC_UNSAFE and CHAR_BARRIER of each code point, for this form
    uint32_t plain;   // FORM: bytes below this belong to characters that the form leaves alone and that join nothing before them
    bool left, right; // STRIP
    char *from, *to;  // REPLACE; PREPEND and REPLACE_REGEX have only to
    size_t n_from, n_to;
    struct regexes *regexes; // REPLACE_REGEX: its pattern, number 0
};
struct normalizer {
    struct step *v;
    size_t n;
};

static struct step *step_new(struct normalizer *z, enum kind kind)
{
    z->v = mem_realloc(z->v, (z->n + 1) * sizeof *z->v);
    z->v[z->n] = (struct step){.kind = kind};
    return &z->v[z->n++];
}

static const struct form {
    const char *name;
    int options;
} forms[] = {{"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
             {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
             {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
             {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};

static void load_form(struct normalizer *z, int options)
{
    struct step *s = step_new(z, FORM);
    const bool nfc = options == forms[0].options, compat = options & UTF8PROC_COMPAT;
    s->options = options;
    s->unsafe = mem_alloc(0x110000);
    s->plain = nfc ? 0xCC : compat ? 0xC2 : 0xC3; // the lead bytes of U+0300, U+0080, U+00C0
    for (uint32_t c = 0x80; c < 0x110000; c++) {
        if (c == 0x3400) c = 0xA000;        // Han: stable; a third of all characters, skipped for speed
        if (c == 0xAC00 && nfc) c = 0xD7A4; // Hangul syllables too
        if (c == 0x20000) c = 0x2A6E0;
        s->unsafe[c] = char_bits(c) & (CHAR_NFC_UNSAFE | CHAR_BARRIER);
        if (nfc || (s->unsafe[c] & CHAR_BARRIER) || (c >= 0xD800 && c < 0xE000)) continue;
        utf8proc_int32_t parts[32];
        int boundary = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, parts, 32,
                                                     (utf8proc_option_t)(UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0)), &boundary);
        if (n != 1 || parts[0] != (utf8proc_int32_t)c) s->unsafe[c] |= CHAR_NFC_UNSAFE;
    }
}

static enum status load_text_step(struct normalizer *z, const json_t *spec, bool replace, const char *where, struct err *err)
{
    const json_t *to = json_object_get(spec, replace ? "content" : "prepend"), *pattern = json_object_get(spec, "pattern");
    const json_t *text = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    if (!json_is_string(to))
        return err_set(err, ST_BAD_INPUT, "%s: normalizer %s: no string \"%s\"", where, replace ? "Replace" : "Prepend",
                       replace ? "content" : "prepend");
    if (replace && !json_is_string(text) && !json_is_string(regex))
        return err_set(err, ST_BAD_INPUT, "%s: normalizer Replace: wanted a pattern {\"String\":…} or {\"Regex\":…}", where);
    const bool literal = replace && json_string_length(text) > 0;
    struct step *s = step_new(z, literal ? REPLACE : replace ? REPLACE_REGEX : PREPEND);
    s->to = mem_strndup(json_string_value(to), s->n_to = json_string_length(to));
    if (literal) s->from = mem_strndup(json_string_value(text), s->n_from = json_string_length(text));
    if (!replace || literal) return ST_OK;
    s->regexes = regexes_new(); // an empty String is found everywhere, as an empty Regex is
    if (regexes_add(s->regexes, regex ? json_string_value(regex) : "", json_string_length(regex), where, err) < 0) return ST_BAD_INPUT;
    return regexes_compile(s->regexes, where, err);
}

static enum status load_step(struct normalizer *z, const json_t *spec, const char *where, struct err *err)
{
    const char *type = part_type(spec);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(type, forms[i].name) == 0) return load_form(z, forms[i].options), ST_OK;
    if (strcmp(type, "Lowercase") == 0) return step_new(z, LOWERCASE), ST_OK;
    if (strcmp(type, "Strip") == 0) {
        struct step *s = step_new(z, STRIP);
        s->left = json_is_true(json_object_get(spec, "strip_left"));
        s->right = json_is_true(json_object_get(spec, "strip_right"));
        return ST_OK;
    }
    if (strcmp(type, "Prepend") == 0 || strcmp(type, "Replace") == 0) return load_text_step(z, spec, type[0] == 'R', where, err);
    return err_set(err, ST_BAD_INPUT,
                   "%s: normalizer %s is not known; distill knows NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, Sequence",
                   where, type);
}

enum status normalizer_load(struct normalizer **out, const json_t *spec, const char *where, struct err *err)
{
    struct normalizer *z = NEW(struct normalizer);
    json_t *list, *one;
    size_t i;
    enum status st = part_list(&list, spec, "normalizer", "normalizers", where, err);
    json_array_foreach(list, i, one) if (!st) st = load_step(z, one, where, err);
    json_decref(list);
    *out = NULL;
    if (st || !z->n)
        normalizer_free(z);
    else
        *out = z;
    return st;
}

void normalizer_free(struct normalizer *z)
{
    if (!z) return;
    for (size_t i = 0; i < z->n; i++) {
        mem_free(z->v[i].unsafe);
        mem_free(z->v[i].from);
        mem_free(z->v[i].to);
        regexes_free(z->v[i].regexes);
    }
    mem_free(z->v);
    mem_free(z);
}

static void add_point(struct normalized *o, size_t orig)
{
    if (o->n_map == o->cap_map) o->map = mem_realloc(o->map, (o->cap_map = o->cap_map ? o->cap_map * 2 : 16) * sizeof *o->map);
    o->map[o->n_map++] = (struct norm_point){o->text.size, orig};
}

// Appends what a form of Unicode makes of s. utf8proc fails only on invalid UTF-8 (checked before) and on running out of memory.
static void put_form(struct normalized *o, const char *s, size_t n, int options)
{
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t n_made = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &made, (utf8proc_option_t)options);
    if (n_made < 0) BUG("utf8proc: %s", utf8proc_errmsg(n_made));
    buf_put(&o->text, made, (size_t)n_made);
    free(made);
}

static bool run_form(const struct step *f, const char *s, size_t n, struct normalized *o)
{
    size_t done = 0, start = 0; // copied so far; start of the last character that nothing before it can join
    bool changed = false;
    for (size_t i = 0; i < n;) {
        if ((uint8_t)s[i] < f->plain) {
            start = i;
            i += (uint8_t)s[i] < 0x80 ? 1 : 2;
            continue;
        }
        size_t len;
        uint8_t bits = f->unsafe[utf8_get(s + i, &len)];
        if (!(bits & CHAR_NFC_UNSAFE)) {
            start = bits & CHAR_BARRIER ? i + len : i;
            i += len;
            continue;
        }
        while (i < n && (uint8_t)s[i] >= f->plain && (f->unsafe[utf8_get(s + i, &len)] & CHAR_NFC_UNSAFE)) i += len;
        buf_put(&o->text, s + done, start - done);
        size_t at = o->text.size;
        add_point(o, start);
        put_form(o, s + start, i - start, f->options);
        add_point(o, i);
        if (o->text.size - at != i - start || memcmp(o->text.data + at, s + start, i - start) != 0) changed = true;
        done = start = i;
    }
    if (!changed) return false;
    buf_put(&o->text, s + done, n - done);
    add_point(o, n);
    return true;
}

// Puts `to` where something was found.
static void put_replaced(struct normalized *o, const struct step *step, const char *s, size_t from, size_t lo, size_t hi)
{
    buf_put(&o->text, s + from, lo - from);
    add_point(o, lo);
    buf_put(&o->text, step->to, step->n_to);
    add_point(o, hi);
}

static bool replace_literal(const struct step *step, const char *s, size_t n, struct normalized *o)
{
    const char *at = s, *end = s + n, *hit;
    for (; (hit = memmem(at, (size_t)(end - at), step->from, step->n_from)); at = hit + step->n_from)
        put_replaced(o, step, s, (size_t)(at - s), (size_t)(hit - s), (size_t)(hit - s) + step->n_from);
    if (at == s) return false;
    buf_put(&o->text, at, (size_t)(end - at));
    return true;
}

// A pattern that the engine gives up on finds nothing more.
static bool replace_regex(const struct step *step, const char *s, size_t n, struct normalized *o)
{
    uint8_t *cls = mem_alloc(n + 1);
    struct regex_match *m = regex_match_new();
    struct regex_walk w = {0};
    size_t n_char = regexes_classes(step->regexes, s, n, cls), c = 0, b = 0;
    while (n && regex_next(step->regexes, 0, m, cls, n_char, &w) > 0) {
        size_t lo = b;
        for (; c < w.lo; c++) lo += utf8_len((uint8_t)s[lo]);
        size_t hi = lo;
        for (; c < w.hi; c++) hi += utf8_len((uint8_t)s[hi]);
        put_replaced(o, step, s, b, lo, hi);
        b = hi;
    }
    regex_match_free(m);
    mem_free(cls);
    if (!w.any) return false;
    buf_put(&o->text, s + b, n - b);
    return true;
}

static size_t space_at_start(const char *s, size_t n)
{
    size_t i = 0;
    for (size_t len; i < n && (char_bits(utf8_get(s + i, &len)) & CHAR_SPACE); i += len) {
    }
    return i;
}

static bool run_step(const struct step *step, const char *s, size_t n, struct normalized *o)
{
    switch (step->kind) {
    case FORM:
        return run_form(step, s, n, o);
    case LOWERCASE:
        for (size_t i = 0, len; i < n; i += len) {
            uint32_t c = utf8_get(s + i, &len), low = char_lower(c);
            char out[8];
            if (c == 0x130)
                buf_puts(&o->text, "i\xCC\x87"); // the one character whose lower case is two
            else
                buf_put(&o->text, out, utf8_put(out, low));
            if (low != c) add_point(o, i + len);
        }
        break;
    case STRIP: {
        size_t lo = step->left ? space_at_start(s, n) : 0, hi = n;
        for (size_t i = hi; step->right && i > lo; hi = i) {
            size_t len;
            do i--;
            while (((uint8_t)s[i] & 0xC0) == 0x80);
            if (!(char_bits(utf8_get(s + i, &len)) & CHAR_SPACE)) break;
        }
        add_point(o, lo);
        buf_put(&o->text, s + lo, hi - lo);
        break;
    }
    case PREPEND:
        if (!n) return false;
        buf_put(&o->text, step->to, step->n_to);
        add_point(o, 0);
        buf_put(&o->text, s, n);
        break;
    case REPLACE:
        if (!replace_literal(step, s, n, o)) return false;
        break;
    case REPLACE_REGEX:
        if (!replace_regex(step, s, n, o)) return false;
        break;
    }
    add_point(o, n);
    return true;
}

bool normalizer_run(const struct normalizer *z, const char *s, size_t n, struct normalized *out)
{
    bool changed = false;
    for (size_t i = 0; z && i < z->n; i++) {
        struct normalized next = {0};
        bool did =
            changed ? run_step(&z->v[i], out->text.data ? out->text.data : "", out->text.size, &next) : run_step(&z->v[i], s, n, &next);
        if (!did) {
            normalized_free(&next);
            continue;
        }
        if (changed)
            for (size_t k = 0; k < next.n_map; k++) next.map[k].orig = normalized_orig(out, next.map[k].orig);
        normalized_free(out);
        *out = next;
        changed = true;
    }
    return changed;
}

size_t normalized_orig(const struct normalized *z, size_t norm)
{
    size_t lo = 0, hi = z->n_map;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (z->map[mid].norm < norm)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == z->n_map) return lo ? z->map[lo - 1].orig : norm;
    struct norm_point next = z->map[lo], last = lo ? z->map[lo - 1] : (struct norm_point){0, 0};
    // Where several points share a norm offset the last one ends furthest: what was deleted belongs to what stands before it.
    if (next.norm == norm) {
        while (lo + 1 < z->n_map && z->map[lo + 1].norm == norm) lo++;
        return z->map[lo].orig;
    }
    if (norm == 0) return 0; // nothing was deleted in front
    bool copied = next.norm - last.norm == next.orig - last.orig;
    return copied ? last.orig + (norm - last.norm) : next.orig;
}

void normalized_free(struct normalized *z)
{
    buf_free(&z->text);
    mem_free(z->map);
    *z = (struct normalized){0};
}
