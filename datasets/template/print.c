// Values as text: Python's str() and repr(), and json.dumps.
#include "datasets/template/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void out_put(struct eval *e, struct out *o, const char *p, size_t n)
{
    if (o->cap - o->n < n) {
        size_t cap = o->cap ? o->cap * 2 : 256;
        while (cap - o->n < n) cap *= 2;
        char *bigger = ev_alloc(e, cap);
        if (o->n) memcpy(bigger, o->p, o->n);
        o->p = bigger;
        o->cap = cap;
    }
    if (n) memcpy(o->p + o->n, p, n);
    o->n += n;
}
void out_puts(struct eval *e, struct out *o, const char *s)
{
    out_put(e, o, s, strlen(s));
}

// The shortest digits that read back as r, laid out as Python's repr does.
static void put_real(struct eval *e, struct out *o, double r, bool json)
{
    char text[40], digits[24];
    if (isnan(r) || isinf(r)) {
        out_puts(e, o, isnan(r) ? (json ? "NaN" : "nan") : r > 0 ? (json ? "Infinity" : "inf") : (json ? "-Infinity" : "-inf"));
        return;
    }
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, r);
        if (strtod(text, NULL) == r) break;
    }
    int exponent = atoi(strchr(text, 'e') + 1), n = 0;
    for (char *c = text; *c != 'e'; c++)
        if (*c >= '0' && *c <= '9') digits[n++] = *c;
    digits[n] = 0;
    if (text[0] == '-') out_puts(e, o, "-");
    if (exponent < -4 || exponent >= 16) {
        out_put(e, o, digits, 1);
        if (n > 1) out_puts(e, o, "."), out_puts(e, o, digits + 1);
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        out_puts(e, o, text);
    } else if (exponent < 0) {
        out_puts(e, o, "0.");
        for (int i = -1; i > exponent; i--) out_puts(e, o, "0");
        out_puts(e, o, digits);
    } else {
        for (int i = 0; i <= exponent; i++) out_put(e, o, i < n ? &digits[i] : "0", 1);
        out_puts(e, o, ".");
        out_puts(e, o, n > exponent + 1 ? digits + exponent + 1 : "0");
    }
}

static void put_int(struct eval *e, struct out *o, int64_t i)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)i);
    out_puts(e, o, text);
}

static bool printable(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

static void put_repr_string(struct eval *e, struct out *o, struct str s)
{
    char quote = memchr(s.p, '\'', s.n) && !memchr(s.p, '"', s.n) ? '"' : '\'', text[16];
    out_put(e, o, &quote, 1);
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t c = char_get(s.p + i, s.n - i, &len);
        if (c == '\\' || c == (uint32_t)quote)
            snprintf(text, sizeof text, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (printable(c)) {
            out_put(e, o, s.p + i, len);
            continue;
        } else
            snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        out_puts(e, o, text);
    }
    out_put(e, o, &quote, 1);
}

static void put(struct eval *e, struct out *o, struct value v, bool repr)
{
    ev_step(e, 1);
    if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "a value nested too deeply to print");
    switch (v.type) {
    case V_UNDEFINED:
        if (repr) out_puts(e, o, "Undefined");
        break;
    case V_NONE:
        out_puts(e, o, "None");
        break;
    case V_BOOL:
        out_puts(e, o, v.b ? "True" : "False");
        break;
    case V_INT:
        put_int(e, o, v.i);
        break;
    case V_REAL:
        put_real(e, o, v.r, false);
        break;
    case V_STRING:
        if (repr)
            put_repr_string(e, o, v.s);
        else
            out_put(e, o, v.s.p, v.s.n);
        break;
    case V_LIST:
        if (v.seq == SEQ_GENERATOR || v.seq == SEQ_RANGE) ev_fail(e, "a %s is printed", type_name(v));
        if (v.seq >= SEQ_KEYS) out_puts(e, o, type_name(v)), out_puts(e, o, "(");
        out_puts(e, o, v.seq == SEQ_TUPLE ? "(" : "[");
        for (size_t i = 0; i < v.list->n; i++) {
            if (i) out_puts(e, o, ", ");
            put(e, o, v.list->v[i], true);
        }
        out_puts(e, o, v.seq != SEQ_TUPLE ? "]" : v.list->n == 1 ? ",)" : ")");
        if (v.seq >= SEQ_KEYS) out_puts(e, o, ")");
        break;
    case V_DICT:
    case V_NAMESPACE:
        if (v.type == V_NAMESPACE) out_puts(e, o, "<Namespace ");
        out_puts(e, o, "{");
        for (size_t i = 0; i < v.dict->n; i++) {
            if (i) out_puts(e, o, ", ");
            put(e, o, v.dict->v[i].key, true);
            out_puts(e, o, ": ");
            put(e, o, v.dict->v[i].value, true);
        }
        out_puts(e, o, v.type == V_NAMESPACE ? "}>" : "}");
        break;
    default:
        ev_fail(e, "a %s is printed", type_name(v)); // Python would print an address
    }
    e->depth--;
}

void out_value(struct eval *e, struct out *o, struct value v)
{
    put(e, o, v, false);
}

struct value to_str(struct eval *e, struct value v)
{
    if (v.type == V_STRING) return v;
    struct out o = {0};
    put(e, &o, v, false);
    return v_str(o.n ? o.p : "", o.n);
}

// ---- JSON ----

static void put_json_string(struct eval *e, struct out *o, struct str s, bool ascii)
{
    static const char named[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
    char text[16];
    out_puts(e, o, "\"");
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t c = char_get(s.p + i, s.n - i, &len);
        const char *at = c && c < 128 ? strchr(named, (int)c) : NULL;
        if (at)
            snprintf(text, sizeof text, "\\%c", letter[at - named]);
        else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000 && c != 0x7F))
            snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        else if (ascii && c >= 0x10000)
            snprintf(text, sizeof text, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((c - 0x10000) >> 10)),
                     (unsigned)(0xDC00 + ((c - 0x10000) & 0x3FF)));
        else {
            out_put(e, o, s.p + i, len);
            continue;
        }
        out_puts(e, o, text);
    }
    out_puts(e, o, "\"");
}

static void new_line(struct eval *e, struct out *o, const struct json_style *style, int level)
{
    if (style->indent < 0) return;
    out_puts(e, o, "\n");
    ev_step(e, level);
    for (int64_t i = 0; i < (int64_t)style->indent * level; i++) out_puts(e, o, " ");
}

static void put_json_key(struct eval *e, struct out *o, struct value key, const struct json_style *style)
{
    if (key.type == V_STRING) {
        put_json_string(e, o, key.s, style->ascii);
        return;
    }
    out_puts(e, o, "\""); // other keys become their JSON text as a string
    out_json(e, o, key, style, 0);
    out_puts(e, o, "\"");
}

static void put_json_dict(struct eval *e, struct out *o, const struct dict *d, const struct json_style *style, int level)
{
    size_t *at = ev_alloc(e, d->n * sizeof *at);
    for (size_t i = 0; i < d->n; i++) at[i] = i;
    if (style->sort)
        for (size_t i = 1; i < d->n; i++) // by insertion: few keys, and stable
            for (size_t k = i; k > 0 && values_order(e, d->v[at[k]].key, d->v[at[k - 1]].key) < 0; k--) {
                size_t t = at[k];
                at[k] = at[k - 1];
                at[k - 1] = t;
            }
    out_puts(e, o, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) out_puts(e, o, style->item);
        new_line(e, o, style, level + 1);
        put_json_key(e, o, d->v[at[i]].key, style);
        out_puts(e, o, style->key);
        out_json(e, o, d->v[at[i]].value, style, level + 1);
    }
    if (d->n) new_line(e, o, style, level);
    out_puts(e, o, "}");
}

void out_json(struct eval *e, struct out *o, struct value v, const struct json_style *style, int level)
{
    ev_step(e, 1);
    if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "a value nested too deeply for tojson");
    switch (v.type) {
    case V_NONE:
        out_puts(e, o, "null");
        break;
    case V_BOOL:
        out_puts(e, o, v.b ? "true" : "false");
        break;
    case V_INT:
        put_int(e, o, v.i);
        break;
    case V_REAL:
        put_real(e, o, v.r, true);
        break;
    case V_STRING:
        put_json_string(e, o, v.s, style->ascii);
        break;
    case V_LIST:
        if (v.seq > SEQ_TUPLE) ev_fail(e, "a %s cannot be written as JSON: put '| list' before it", type_name(v));
        out_puts(e, o, "[");
        for (size_t i = 0; i < v.list->n; i++) {
            if (i) out_puts(e, o, style->item);
            new_line(e, o, style, level + 1);
            out_json(e, o, v.list->v[i], style, level + 1);
        }
        if (v.list->n) new_line(e, o, style, level);
        out_puts(e, o, "]");
        break;
    case V_DICT:
        put_json_dict(e, o, v.dict, style, level);
        break;
    default:
        ev_fail(e, "a value of type %s is not JSON serializable", type_name(v));
    }
    e->depth--;
}
