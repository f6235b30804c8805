// Strings as Python sees them: sequences of code points, with its idea of white space and case.
#include "datasets/template/internal.h"

#include <string.h>
#include <utf8proc.h>

bool char_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool char_is_word(uint32_t c)
{
    const utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

uint32_t char_get(const char *p, size_t n, size_t *len)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t k = (uint8_t)*p < 0x80 ? 0 : utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &c);
    if (k <= 0) return *len = 1, (uint8_t)*p;
    *len = (size_t)k;
    return (uint32_t)c;
}

size_t n_chars(struct str s)
{
    size_t n = 0;
    for (size_t i = 0, len; i < s.n; i += len, n++) char_get(s.p + i, s.n - i, &len);
    return n;
}

size_t char_offset(struct str s, size_t chars)
{
    size_t i = 0;
    for (size_t len; i < s.n && chars; i += len, chars--) char_get(s.p + i, s.n - i, &len);
    return i;
}

static bool in_set(uint32_t c, const struct str *chars)
{
    if (!chars) return char_is_space(c);
    for (size_t i = 0, len; i < chars->n; i += len)
        if (char_get(chars->p + i, chars->n - i, &len) == c) return true;
    return false;
}

struct str str_strip(struct str s, const struct str *chars, bool left, bool right)
{
    size_t len;
    while (left && s.n && in_set(char_get(s.p, s.n, &len), chars)) s.p += len, s.n -= len;
    while (right && s.n) {
        size_t i = s.n - 1;
        while (i > 0 && s.n - i < 4 && ((uint8_t)s.p[i] & 0xC0) == 0x80) i--;
        if (!in_set(char_get(s.p + i, s.n - i, &len), chars)) break;
        s.n = i;
    }
    return s;
}

struct value change_case(struct eval *e, struct str s, char how)
{
    char *out = ev_alloc(e, s.n * 3 + 1), *o = out; // ẞ and a few others grow
    bool start = true;
    ev_step(e, (int64_t)s.n / 16);
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t c = char_get(s.p + i, s.n - i, &len);
        if (len == 1 && c >= 0x80) { // a stray byte
            *o++ = (char)c;
            continue;
        }
        bool up = how == 's' ? utf8proc_islower((utf8proc_int32_t)c) : how == 'u' || (start && how != 'l');
        if (up && c == 0xDF) { // ß
            *o++ = 'S';
            *o++ = how == 'u' ? 'S' : 's';
        } else {
            utf8proc_int32_t to = up ? (how == 'u' ? utf8proc_toupper((utf8proc_int32_t)c) : utf8proc_totitle((utf8proc_int32_t)c))
                                     : utf8proc_tolower((utf8proc_int32_t)c);
            o += utf8proc_encode_char(to, (utf8proc_uint8_t *)o);
        }
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
        start = how == 't' ? !(k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LT) : false;
    }
    return v_str(out, (size_t)(o - out));
}

const char *str_find(struct str s, struct str needle)
{
    return needle.n == 0 ? s.p : memmem(s.p, s.n, needle.p, needle.n);
}

const char *str_find_last(struct str s, struct str needle)
{
    for (size_t i = s.n >= needle.n ? s.n - needle.n + 1 : 0; i-- > 0;)
        if (memcmp(s.p + i, needle.p, needle.n) == 0) return s.p + i;
    return NULL;
}

struct value str_replace(struct eval *e, struct str s, struct str from, struct str to, int64_t most)
{
    struct out o = {0};
    const char *at = s.p, *end = s.p + s.n, *hit;
    if (from.n == 0) { // before every character and at the end
        for (size_t len; most != 0 && at < end; at += len, most--) {
            char_get(at, (size_t)(end - at), &len);
            out_put(e, &o, to.p, to.n);
            out_put(e, &o, at, len);
            ev_step(e, 1);
        }
        out_put(e, &o, at, (size_t)(end - at));
        if (most != 0) out_put(e, &o, to.p, to.n);
        return v_str(o.n ? o.p : "", o.n);
    }
    for (; most != 0 && (hit = memmem(at, (size_t)(end - at), from.p, from.n)); at = hit + from.n, most--) {
        out_put(e, &o, at, (size_t)(hit - at));
        out_put(e, &o, to.p, to.n);
        ev_step(e, 1);
    }
    out_put(e, &o, at, (size_t)(end - at));
    return v_str(o.n ? o.p : "", o.n);
}

// Where Python's splitlines cuts.
static bool ends_line(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}
struct value str_lines(struct eval *e, struct str s, bool keep)
{
    struct value out = v_list(e);
    for (size_t i = 0, len = 0; i < s.n;) {
        size_t k = i;
        while (k < s.n && !ends_line(char_get(s.p + k, s.n - k, &len))) k += len;
        size_t end = k < s.n ? k + len : k;
        if (end < s.n && s.p[k] == '\r' && s.p[end] == '\n') end++;
        list_push(e, out.list, v_str(s.p + i, (keep ? end : k) - i));
        i = end;
    }
    ev_step(e, (int64_t)s.n / 64);
    return out;
}

static struct value split_space(struct eval *e, struct str s, int64_t most, bool right)
{
    struct value out = v_list(e);
    size_t len;
    for (s = str_strip(s, NULL, !right, right); s.n; most--) {
        struct str word = s;
        if (most == 0) {
            list_push(e, out.list, v_str(s.p, s.n));
            break;
        }
        if (right) {
            size_t i = s.n, from = 0;
            for (size_t k = 0; k < s.n; k += len)
                if (char_is_space(char_get(s.p + k, s.n - k, &len))) from = k + len;
            word = (struct str){s.p + from, i - from};
            s.n = from;
        } else {
            size_t k = 0;
            while (k < s.n && !char_is_space(char_get(s.p + k, s.n - k, &len))) k += len;
            word.n = k;
            s.p += k;
            s.n -= k;
        }
        list_push(e, out.list, v_str(word.p, word.n));
        s = str_strip(s, NULL, !right, right);
        ev_step(e, 1 + (right ? (int64_t)s.n / 64 : 0));
    }
    return out;
}

struct value str_split(struct eval *e, struct str s, const struct str *sep, int64_t most, bool right)
{
    struct value out;
    if (!sep)
        out = split_space(e, s, most, right);
    else {
        if (!sep->n) ev_fail(e, "split by an empty separator");
        out = v_list(e);
        while (most-- != 0) {
            const char *hit = right ? str_find_last(s, *sep) : str_find(s, *sep);
            if (!hit) break;
            ev_step(e, 1);
            if (right) {
                list_push(e, out.list, v_str(hit + sep->n, (size_t)(s.p + s.n - hit) - sep->n));
                s.n = (size_t)(hit - s.p);
            } else {
                list_push(e, out.list, v_str(s.p, (size_t)(hit - s.p)));
                s.n -= (size_t)(hit - s.p) + sep->n;
                s.p = hit + sep->n;
            }
        }
        list_push(e, out.list, v_str(s.p, s.n));
    }
    struct list *l = out.list;
    for (size_t i = 0; right && i < l->n / 2; i++) {
        struct value t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    return out;
}
