// Normalizers: what rewrites text before it is split. NFC and its relatives are utf8proc's work; text is passed to it only around the
// characters that could change, so that plain text costs one scan, and the map from new to old offsets stays fine-grained.
#include "datasets/tokenizer/internal.h"

#include <string.h>
#include <utf8proc.h>

enum kind { NFC, FORM, LOWERCASE, STRIP, PREPEND, REPLACE };
struct step {
    enum kind kind;
    int options;      // FORM: utf8proc's
    bool left, right; // STRIP
    char *from, *to;  // REPLACE; PREPEND has only to
    size_t n_from, n_to;
};
struct normalizer {
    struct step *v;
    size_t n;
    uint8_t *nfc; // (0x110000) NFC only: CHAR_NFC_UNSAFE and CHAR_NFC_BARRIER of each code point
};

static struct step *step_new(struct normalizer *z, enum kind kind)
{
    z->v = mem_realloc(z->v, (z->n + 1) * sizeof *z->v);
    z->v[z->n] = (struct step){.kind = kind};
    return &z->v[z->n++];
}

static enum status load_step(struct normalizer *z, const json_t *spec, int depth, const char *where, struct err *err)
{
    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type || depth > 8) return err_set(err, ST_BAD_INPUT, "%s: normalizer: %s", where, type ? "nested too deeply" : "no type");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "normalizers"), *one;
        size_t i;
        if (!json_is_array(list)) return err_set(err, ST_BAD_INPUT, "%s: normalizer: a Sequence without an array \"normalizers\"", where);
        json_array_foreach(list, i, one) TRY(load_step(z, one, depth + 1, where, err));
        return ST_OK;
    }
    static const struct {
        const char *name;
        int options;
    } forms[] = {{"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    for (size_t i = 0; i < 3; i++)
        if (strcmp(type, forms[i].name) == 0) {
            step_new(z, FORM)->options = forms[i].options;
            return ST_OK;
        }
    if (strcmp(type, "NFC") == 0) {
        step_new(z, NFC);
        if (z->nfc) return ST_OK;
        z->nfc = mem_alloc(0x110000);
        for (uint32_t c = 0x300; c < 0x110000; c++) { // nothing changes below
            if (c == 0x3400 || c == 0x20000)
                c = c == 0x3400 ? 0xA000 : 0x2A6E0; // Han: stable; a third of all characters, skipped for speed
            if (c == 0xAC00) c = 0xD7A4;            // Hangul syllables too
            z->nfc[c] = char_bits(c) & (CHAR_NFC_UNSAFE | CHAR_NFC_BARRIER);
        }
        return ST_OK;
    }
    if (strcmp(type, "Lowercase") == 0) return step_new(z, LOWERCASE), ST_OK;
    if (strcmp(type, "Strip") == 0) {
        struct step *s = step_new(z, STRIP);
        s->left = json_is_true(json_object_get(spec, "strip_left"));
        s->right = json_is_true(json_object_get(spec, "strip_right"));
        return ST_OK;
    }
    if (strcmp(type, "Prepend") == 0 || strcmp(type, "Replace") == 0) {
        bool replace = type[0] == 'R';
        const json_t *to = json_object_get(spec, replace ? "content" : "prepend");
        const json_t *from = json_object_get(json_object_get(spec, "pattern"), "String");
        if (!json_is_string(to)) return err_set(err, ST_BAD_INPUT, "%s: normalizer %s: no text to put", where, type);
        if (replace && (!json_is_string(from) || json_string_length(from) == 0))
            return err_set(err, ST_BAD_INPUT, "%s: normalizer Replace: distill knows only a pattern {\"String\": …} that is not empty",
                           where);
        struct step *s = step_new(z, replace ? REPLACE : PREPEND);
        s->to = mem_strndup(json_string_value(to), s->n_to = json_string_length(to));
        if (replace) s->from = mem_strndup(json_string_value(from), s->n_from = json_string_length(from));
        return ST_OK;
    }
    return err_set(err, ST_BAD_INPUT,
                   "%s: normalizer %s is not known; distill knows NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, Sequence",
                   where, type);
}

enum status normalizer_load(struct normalizer **out, const json_t *spec, const char *where, struct err *err)
{
    *out = NULL;
    if (!spec || json_is_null(spec)) return ST_OK;
    struct normalizer *z = NEW(struct normalizer);
    enum status st = load_step(z, spec, 0, where, err);
    if (st || !z->n)
        normalizer_free(z);
    else
        *out = z;
    return st;
}

void normalizer_free(struct normalizer *z)
{
    if (!z) return;
    for (size_t i = 0; i < z->n; i++) mem_free(z->v[i].from), mem_free(z->v[i].to);
    mem_free(z->v);
    mem_free(z->nfc);
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

static bool run_nfc(const struct normalizer *z, const char *s, size_t n, struct normalized *o)
{
    size_t done = 0, start = 0; // copied so far; start of the last character that nothing before it can join
    bool changed = false;
    for (size_t i = 0; i < n;) {
        if ((uint8_t)s[i] < 0xCC) { // below U+0300
            start = i;
            i += (uint8_t)s[i] < 0x80 ? 1 : 2;
            continue;
        }
        size_t len;
        uint8_t bits = z->nfc[utf8_get(s + i, &len)];
        if (!(bits & CHAR_NFC_UNSAFE)) {
            start = bits & CHAR_NFC_BARRIER ? i + len : i;
            i += len;
            continue;
        }
        while (i < n && (uint8_t)s[i] >= 0xCC && (z->nfc[utf8_get(s + i, &len)] & CHAR_NFC_UNSAFE)) i += len;
        buf_put(&o->text, s + done, start - done);
        size_t at = o->text.size;
        add_point(o, start);
        put_form(o, s + start, i - start, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        add_point(o, i);
        if (o->text.size - at != i - start || memcmp(o->text.data + at, s + start, i - start) != 0) changed = true;
        done = start = i;
    }
    if (!changed) return false;
    buf_put(&o->text, s + done, n - done);
    add_point(o, n);
    return true;
}

static size_t space_at_start(const char *s, size_t n)
{
    size_t i = 0;
    for (size_t len; i < n && (char_bits(utf8_get(s + i, &len)) & CHAR_SPACE); i += len) {
    }
    return i;
}

static bool run_step(const struct normalizer *z, const struct step *step, const char *s, size_t n, struct normalized *o)
{
    switch (step->kind) {
    case NFC:
        return run_nfc(z, s, n, o);
    case FORM:
        put_form(o, s, n, step->options);
        break;
    case LOWERCASE:
        for (size_t i = 0, len; i < n; i += len) {
            uint32_t c = utf8_get(s + i, &len), low = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
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
    case REPLACE: {
        const char *at = s, *end = s + n, *hit;
        for (; (hit = memmem(at, (size_t)(end - at), step->from, step->n_from)); at = hit + step->n_from) {
            buf_put(&o->text, at, (size_t)(hit - at));
            add_point(o, (size_t)(hit - s));
            buf_put(&o->text, step->to, step->n_to);
            add_point(o, (size_t)(hit - s) + step->n_from);
        }
        buf_put(&o->text, at, (size_t)(end - at));
        break;
    }
    }
    add_point(o, n);
    return true;
}

bool normalizer_run(const struct normalizer *z, const char *s, size_t n, struct normalized *out)
{
    bool changed = false;
    for (size_t i = 0; z && i < z->n; i++) {
        struct normalized next = {0};
        bool did = changed ? run_step(z, &z->v[i], out->text.data ? out->text.data : "", out->text.size, &next)
                           : run_step(z, &z->v[i], s, n, &next);
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
    bool copied = next.norm - last.norm == next.orig - last.orig;
    return copied ? last.orig + (norm - last.norm) : next.orig;
}

void normalized_free(struct normalized *z)
{
    buf_free(&z->text);
    mem_free(z->map);
    *z = (struct normalized){0};
}
