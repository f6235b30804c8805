// The filters of Jinja2 (and transformers' tojson) that templates use. A new one is one function and one line in the table below.
#include "datasets/template/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NAMES(...) ((const char *const[]){__VA_ARGS__})

struct value call_arg(const struct call *c, size_t i, const char *name, struct value def)
{
    if (i < c->n) return c->v[i];
    for (size_t k = 0; k < c->n_kw; k++)
        if (strcmp(c->kw[k].name, name) == 0) return c->kw[k].value;
    return def;
}
bool call_has_arg(const struct call *c, size_t i, const char *name)
{
    for (size_t k = 0; k < c->n_kw; k++)
        if (strcmp(c->kw[k].name, name) == 0) return true;
    return i < c->n;
}
int64_t call_arg_int(struct eval *e, const struct call *c, size_t i, const char *name, int64_t def)
{
    struct value v = call_arg(c, i, name, v_int(def));
    if (v.type == V_BOOL) return v.b;
    if (v.type != V_INT) ev_fail(e, "argument '%s' is a %s, wanted an int", name, type_name(v));
    return v.i;
}
struct str call_arg_str(struct eval *e, const struct call *c, size_t i, const char *name)
{
    struct value v = call_arg(c, i, name, v_undefined(name));
    if (v.type != V_STRING) ev_fail(e, "argument '%s' is a %s, wanted a str", name, type_name(v));
    return v.s;
}
void call_check(struct eval *e, const char *what, const struct call *c, size_t n, const char *const *names)
{
    if (c->n > n) ev_fail(e, "%s takes at most %zu arguments, %zu given", what, n, c->n);
    for (size_t k = 0; k < c->n_kw; k++) {
        size_t i = 0;
        while (i < n && (!names || strcmp(names[i], c->kw[k].name) != 0)) i++;
        if (i == n) ev_fail(e, "%s knows no argument '%s'", what, c->kw[k].name);
    }
}

static void want_defined(struct eval *e, struct value v)
{
    if (v.type == V_UNDEFINED) ev_fail(e, "'%s' is undefined", v.s.p ? v.s.p : "the value");
}

// ---- text ----

static struct value f_string(struct eval *e, struct value v, const struct call *c)
{
    return (void)c, to_str(e, v);
}
static struct value f_upper(struct eval *e, struct value v, const struct call *c)
{
    return (void)c, change_case(e, to_str(e, v).s, 'u');
}
static struct value f_lower(struct eval *e, struct value v, const struct call *c)
{
    return (void)c, change_case(e, to_str(e, v).s, 'l');
}
static struct value f_capitalize(struct eval *e, struct value v, const struct call *c)
{
    return (void)c, change_case(e, to_str(e, v).s, 'c');
}
static struct value f_title(struct eval *e, struct value v, const struct call *c)
{
    // Jinja's title: what follows a blank, '-', or an opening bracket begins a word; not Python's.
    struct str s = to_str(e, v).s;
    struct out o = {0};
    (void)c;
    for (size_t i = 0; i < s.n;) {
        size_t k = i;
        for (size_t len; k < s.n; k += len)
            if (strchr("-([{<", s.p[k]) || char_is_space(char_get(s.p + k, s.n - k, &len))) break;
        if (k > i) {
            struct value word = change_case(e, (struct str){s.p + i, k - i}, 'c');
            out_put(e, &o, word.s.p, word.s.n);
        }
        if (k < s.n) {
            size_t len;
            char_get(s.p + k, s.n - k, &len);
            out_put(e, &o, s.p + k, len);
            k += len;
        }
        i = k;
    }
    return v_str(o.n ? o.p : "", o.n);
}
static struct value f_trim(struct eval *e, struct value v, const struct call *c)
{
    struct value chars = call_arg(c, 0, "chars", v_none());
    struct str s = str_strip(to_str(e, v).s, chars.type == V_STRING ? &chars.s : NULL, true, true);
    return v_str(s.p, s.n);
}
static struct value f_replace(struct eval *e, struct value v, const struct call *c)
{
    struct value old = to_str(e, call_arg(c, 0, "old", v_undefined("old"))), to = to_str(e, call_arg(c, 1, "new", v_undefined("new"))),
                 most = call_arg(c, 2, "count", v_none());
    return str_replace(e, to_str(e, v).s, old.s, to.s, most.type == V_INT ? most.i : -1);
}
static struct value plus_newline(struct eval *e, struct str s)
{
    struct out o = {0};
    out_put(e, &o, s.p, s.n);
    out_puts(e, &o, "\n");
    return v_str(o.p, o.n);
}
static struct value f_indent(struct eval *e, struct value v, const struct call *c)
{
    if (v.type != V_STRING) ev_fail(e, "indent of a %s, wanted a str", type_name(v));
    struct str s = v.s;
    struct value width = call_arg(c, 0, "width", v_int(4));
    bool first = is_true(call_arg(c, 1, "first", v_bool(false))), blank = is_true(call_arg(c, 2, "blank", v_bool(false)));
    struct out pad = {0}, o = {0};
    call_check(e, "indent", c, 3, NAMES("width", "first", "blank"));
    if (width.type == V_STRING)
        out_put(e, &pad, width.s.p, width.s.n);
    else
        for (int64_t i = call_arg_int(e, c, 0, "width", 4); i > 0; i--) out_puts(e, &pad, " ");
    const struct value text = plus_newline(e, s);
    const struct list *lines = str_lines(e, text.s, false).list;
    for (size_t i = 0; i < lines->n; i++) {
        const struct str line = lines->v[i].s;
        if (i) out_puts(e, &o, "\n");
        if (i ? line.n > 0 || blank : first) out_put(e, &o, pad.p, pad.n);
        out_put(e, &o, line.p, line.n);
    }
    return v_str(o.n ? o.p : "", o.n);
}
struct value escape_html(struct eval *e, struct value v)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    if (v.type == V_STRING && v.markup) return v;
    struct str s = to_str(e, v).s;
    struct out o = {0};
    for (size_t i = 0; i < s.n; i++) {
        const char *at = s.p[i] ? strchr(from, s.p[i]) : NULL;
        if (at)
            out_puts(e, &o, to[at - from]);
        else
            out_put(e, &o, s.p + i, 1);
    }
    return V(V_STRING, .markup = true, .s = {o.n ? o.p : "", o.n});
}
static struct value f_escape(struct eval *e, struct value v, const struct call *c)
{
    return (void)c, escape_html(e, v);
}
static struct value f_safe(struct eval *e, struct value v, const struct call *c)
{
    (void)c;
    v = to_str(e, v);
    v.markup = true;
    return v;
}
static struct value f_tojson(struct eval *e, struct value v, const struct call *c)
{
    call_check(e, "tojson", c, 4, NAMES("ensure_ascii", "indent", "separators", "sort_keys"));
    struct value indent = call_arg(c, 1, "indent", v_none()), sep = call_arg(c, 2, "separators", v_none());
    struct json_style style = {.indent = -1,
                               .item = ", ",
                               .key = ": ",
                               .ascii = is_true(call_arg(c, 0, "ensure_ascii", v_bool(false))),
                               .sort = is_true(call_arg(c, 3, "sort_keys", v_bool(false)))};
    if (indent.type != V_NONE) {
        int64_t n = call_arg_int(e, c, 1, "indent", 0);
        style.indent = n < 0 ? 0 : n > 64 ? 64 : (int)n;
        style.item = ",";
    }
    if (sep.type == V_LIST && sep.list->n == 2 && sep.list->v[0].type == V_STRING && sep.list->v[1].type == V_STRING) {
        style.item = v_copy(e, sep.list->v[0].s.p, sep.list->v[0].s.n).s.p;
        style.key = v_copy(e, sep.list->v[1].s.p, sep.list->v[1].s.n).s.p;
    } else if (sep.type != V_NONE)
        ev_fail(e, "tojson: separators wants two strings");
    struct out o = {0};
    out_json(e, &o, v, &style, 0);
    return v_str(o.p, o.n);
}

// ---- numbers ----

static struct value f_int(struct eval *e, struct value v, const struct call *c)
{
    struct value def = call_arg(c, 0, "default", v_int(0));
    want_defined(e, v);
    if (v.type == V_BOOL) return v_int(v.b);
    if (v.type == V_INT) return v;
    if (v.type == V_REAL) return fabs(v.r) < 9e18 ? v_int((int64_t)v.r) : def;
    if (v.type != V_STRING) return def;
    struct str s = str_strip(v.s, NULL, true, true);
    char text[64], *end;
    if (!s.n || s.n >= sizeof text) return def;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    long long i = strtoll(text, &end, 10);
    if (!*end) return v_int(i);
    double r = strtod(text, &end);
    return *end || fabs(r) >= 9e18 ? def : v_int((int64_t)r);
}
static struct value f_float(struct eval *e, struct value v, const struct call *c)
{
    struct value def = call_arg(c, 0, "default", v_real(0));
    want_defined(e, v);
    if (is_number(v)) return v_real(as_real(v));
    if (v.type != V_STRING) return def;
    struct str s = str_strip(v.s, NULL, true, true);
    char text[64], *end;
    if (!s.n || s.n >= sizeof text) return def;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    double r = strtod(text, &end);
    return *end ? def : v_real(r);
}
static struct value f_abs(struct eval *e, struct value v, const struct call *c)
{
    (void)c;
    if (!is_number(v)) ev_fail(e, "abs of a %s", type_name(v));
    return v.type == V_REAL                                 ? v_real(fabs(v.r))
           : v.type == V_INT && v.i < 0 && v.i != INT64_MIN ? v_int(-v.i)
           : v.type == V_BOOL                               ? v_int(v.b)
                                                            : v;
}
static struct value f_round(struct eval *e, struct value v, const struct call *c)
{
    const int64_t precision = call_arg_int(e, c, 0, "precision", 0);
    const struct value how = call_arg(c, 1, "method", v_cstr("common"));
    if (!is_number(v)) ev_fail(e, "round of a %s", type_name(v));
    if (!is_str(how, "common") && !is_str(how, "ceil") && !is_str(how, "floor")) ev_fail(e, "round: method must be common, ceil or floor");
    if (precision < -300 || precision > 300) ev_fail(e, "round to %lld digits", (long long)precision);
    const double scale = pow(10, (double)precision);
    if (!is_str(how, "common")) return v_real((is_str(how, "ceil") ? ceil : floor)(as_real(v) * scale) / scale);
    if (v.type != V_REAL && precision >= 0) return v_int(v.type == V_BOOL ? v.b : v.i);
    if (v.type != V_REAL) return v_int((int64_t)(nearbyint(as_real(v) * scale) / scale));
    if (precision < 0 || !isfinite(v.r)) return v_real(nearbyint(v.r * scale) / scale);
    char text[640]; // Python rounds the exact value of the binary fraction, halves to even: so does printf
    snprintf(text, sizeof text, "%.*f", (int)precision, v.r);
    return v_real(strtod(text, NULL));
}

// ---- sequences ----

static struct value f_length(struct eval *e, struct value v, const struct call *c)
{
    return (void)c, v_int(value_length(e, v));
}
static struct value f_list(struct eval *e, struct value v, const struct call *c)
{
    struct value out = v_list(e);
    struct list *l = value_items(e, v);
    (void)c;
    for (size_t i = 0; i < l->n; i++) list_push(e, out.list, l->v[i]);
    return out;
}
static struct value f_first(struct eval *e, struct value v, const struct call *c)
{
    (void)c;
    if (v.type == V_LIST && v.seq == SEQ_GENERATOR && v.list->taken < v.list->n) return v.list->v[v.list->taken++];
    struct list *l = value_items(e, v);
    return l->n ? l->v[0] : v_undefined("the first item of an empty sequence");
}
static struct value f_last(struct eval *e, struct value v, const struct call *c)
{
    (void)c;
    if (v.type == V_LIST && v.seq == SEQ_GENERATOR) ev_fail(e, "a generator cannot be read from its end: put '| list' before it");
    struct list *l = value_items(e, v);
    return l->n ? l->v[l->n - 1] : v_undefined("the last item of an empty sequence");
}
static struct value f_reverse(struct eval *e, struct value v, const struct call *c)
{
    struct list *l = value_items(e, v);
    struct value out = v_seq(e, SEQ_GENERATOR);
    (void)c;
    for (size_t i = l->n; i-- > 0;) list_push(e, out.list, l->v[i]);
    if (v.type != V_STRING) return out;
    struct out o = {0};
    for (size_t i = 0; i < out.list->n; i++) out_put(e, &o, out.list->v[i].s.p, out.list->v[i].s.n);
    return v_str(o.n ? o.p : "", o.n);
}

// "a.b.0" as Jinja's attribute arguments mean it.
static struct value attribute(struct eval *e, struct value v, struct value path)
{
    if (path.type == V_INT) return get_item(e, v, path);
    if (path.type != V_STRING) ev_fail(e, "an attribute's name is a %s, wanted a str", type_name(path));
    struct value parts = str_split(e, path.s, &(struct str){".", 1}, -1, false);
    for (size_t i = 0; i < parts.list->n; i++) {
        struct str s = parts.list->v[i].s;
        bool digits = s.n > 0 && s.n < 10;
        for (size_t k = 0; k < s.n; k++) digits &= s.p[k] >= '0' && s.p[k] <= '9';
        struct value key = digits ? v_int(atoi(v_copy(e, s.p, s.n).s.p)) : v_copy(e, s.p, s.n);
        v = get_item(e, v, key);
    }
    return v;
}

static struct value f_join(struct eval *e, struct value v, const struct call *c)
{
    struct value sep = to_str(e, call_arg(c, 0, "d", v_cstr(""))), by = call_arg(c, 1, "attribute", v_none());
    struct list *l = value_items(e, v);
    struct out o = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (i) out_put(e, &o, sep.s.p, sep.s.n);
        out_value(e, &o, by.type == V_NONE ? l->v[i] : attribute(e, l->v[i], by));
    }
    return v_str(o.n ? o.p : "", o.n);
}
static struct value f_items(struct eval *e, struct value v, const struct call *c)
{
    struct value out = v_seq(e, SEQ_GENERATOR);
    (void)c;
    if (v.type == V_UNDEFINED) return out;
    if (v.type != V_DICT) ev_fail(e, "items of a %s, wanted a dict", type_name(v));
    for (size_t i = 0; i < v.dict->n; i++) list_push(e, out.list, v_tuple(e, 2, v.dict->v[i].key, v.dict->v[i].value));
    return out;
}

// What sort compares: case is ignored in strings unless asked for.
static struct value sort_key(struct eval *e, struct value v, struct value by, bool cased)
{
    if (by.type != V_NONE) v = attribute(e, v, by);
    return v.type == V_STRING && !cased ? change_case(e, v.s, 'l') : v;
}
static void sort_list(struct eval *e, struct list *l, struct value *keys, bool reverse)
{
    struct value *v2 = ev_alloc(e, l->n * sizeof *v2), *k2 = ev_alloc(e, l->n * sizeof *k2);
    for (size_t width = 1; width < l->n; width *= 2) { // merge sort: stable
        for (size_t lo = 0; lo < l->n; lo += 2 * width) {
            size_t mid = lo + width < l->n ? lo + width : l->n, hi = lo + 2 * width < l->n ? lo + 2 * width : l->n, a = lo, b = mid;
            for (size_t k = lo; k < hi; k++) {
                int cmp = a < mid && b < hi && !values_equal(e, keys[a], keys[b]) ? values_order(e, keys[b], keys[a]) : 0;
                bool right = a >= mid || (b < hi && (reverse ? cmp > 0 : cmp < 0));
                size_t from = right ? b++ : a++;
                v2[k] = l->v[from];
                k2[k] = keys[from];
            }
        }
        memcpy(l->v, v2, l->n * sizeof *v2);
        memcpy(keys, k2, l->n * sizeof *k2);
    }
}
static struct value f_sort(struct eval *e, struct value v, const struct call *c)
{
    struct value out = f_list(e, v, c), by = call_arg(c, 2, "attribute", v_none());
    call_check(e, "sort", c, 3, NAMES("reverse", "case_sensitive", "attribute"));
    struct value *keys = ev_alloc(e, out.list->n * sizeof *keys);
    for (size_t i = 0; i < out.list->n; i++)
        keys[i] = sort_key(e, out.list->v[i], by, is_true(call_arg(c, 1, "case_sensitive", v_bool(false))));
    sort_list(e, out.list, keys, is_true(call_arg(c, 0, "reverse", v_bool(false))));
    return out;
}
static struct value f_dictsort(struct eval *e, struct value v, const struct call *c)
{
    want_defined(e, v);
    struct value out = f_list(e, f_items(e, v, c), c), by = v_int(is_str(call_arg(c, 1, "by", v_cstr("key")), "value"));
    call_check(e, "dictsort", c, 3, NAMES("case_sensitive", "by", "reverse"));
    struct value *keys = ev_alloc(e, out.list->n * sizeof *keys);
    for (size_t i = 0; i < out.list->n; i++)
        keys[i] = sort_key(e, out.list->v[i], by, is_true(call_arg(c, 0, "case_sensitive", v_bool(false))));
    sort_list(e, out.list, keys, is_true(call_arg(c, 2, "reverse", v_bool(false))));
    return out;
}
static struct value f_unique(struct eval *e, struct value v, const struct call *c)
{
    struct list *l = value_items(e, v);
    struct value out = v_seq(e, SEQ_GENERATOR), seen = v_list(e), by = call_arg(c, 1, "attribute", v_none());
    for (size_t i = 0; i < l->n; i++) {
        struct value key = sort_key(e, l->v[i], by, is_true(call_arg(c, 0, "case_sensitive", v_bool(false))));
        if (value_contains(e, key, seen)) continue;
        list_push(e, seen.list, key);
        list_push(e, out.list, l->v[i]);
    }
    return out;
}
static struct value extreme(struct eval *e, struct value v, const struct call *c, int sign)
{
    struct list *l = value_items(e, v);
    struct value best = v_undefined("an extreme of an empty sequence"), best_key = best, by = call_arg(c, 1, "attribute", v_none());
    for (size_t i = 0; i < l->n; i++) {
        struct value key = sort_key(e, l->v[i], by, is_true(call_arg(c, 0, "case_sensitive", v_bool(false))));
        if (i && values_order(e, key, best_key) * sign <= 0) continue;
        best = l->v[i];
        best_key = key;
    }
    return best;
}
static struct value f_min(struct eval *e, struct value v, const struct call *c)
{
    return extreme(e, v, c, -1);
}
static struct value f_max(struct eval *e, struct value v, const struct call *c)
{
    return extreme(e, v, c, 1);
}
static struct value f_sum(struct eval *e, struct value v, const struct call *c)
{
    struct list *l = value_items(e, v);
    struct value by = call_arg(c, 0, "attribute", v_none()), total = call_arg(c, 1, "start", v_int(0));
    for (size_t i = 0; i < l->n; i++) {
        struct value x = by.type == V_NONE ? l->v[i] : attribute(e, l->v[i], by);
        if (!is_number(x) || !is_number(total)) ev_fail(e, "sum over a %s", type_name(x));
        if (x.type == V_REAL || total.type == V_REAL)
            total = v_real(as_real(total) + as_real(x));
        else
            total = v_int((int64_t)((uint64_t)(int64_t)as_real(total) + (uint64_t)(x.type == V_BOOL ? x.b : x.i)));
    }
    return total;
}

// select, reject, selectattr, rejectattr: items for which a test (truth, if none is named) says `wanted`.
static struct value choose(struct eval *e, struct value v, const struct call *c, bool by_attribute, bool wanted)
{
    struct value out = v_seq(e, SEQ_GENERATOR);
    if (!is_true(v)) return out; // be it none or 0, as in Jinja
    struct list *l = value_items(e, v);
    size_t at = by_attribute;
    if (by_attribute && c->n == 0) ev_fail(e, "selectattr and rejectattr want an attribute's name");
    const struct test *t = NULL;
    if (c->n > at) {
        struct str name = call_arg_str(e, c, at, "test");
        t = test_find(v_copy(e, name.p, name.n).s.p);
        if (!t) ev_fail(e, "test '%.*s' is not known", (int)name.n, name.p);
    }
    struct call rest = {.v = c->n > at + 1 ? c->v + at + 1 : NULL, .n = c->n > at + 1 ? c->n - at - 1 : 0};
    for (size_t i = 0; i < l->n; i++) {
        struct value x = by_attribute ? attribute(e, l->v[i], c->v[0]) : l->v[i];
        if ((t ? test_call(e, t, x, &rest) : is_true(x)) == wanted) list_push(e, out.list, l->v[i]);
        ev_step(e, 1);
    }
    return out;
}
static struct value f_select(struct eval *e, struct value v, const struct call *c)
{
    return choose(e, v, c, false, true);
}
static struct value f_reject(struct eval *e, struct value v, const struct call *c)
{
    return choose(e, v, c, false, false);
}
static struct value f_selectattr(struct eval *e, struct value v, const struct call *c)
{
    return choose(e, v, c, true, true);
}
static struct value f_rejectattr(struct eval *e, struct value v, const struct call *c)
{
    return choose(e, v, c, true, false);
}

static struct value f_map(struct eval *e, struct value v, const struct call *c)
{
    struct value out = v_seq(e, SEQ_GENERATOR), by = call_arg(c, SIZE_MAX, "attribute", v_none()),
                 def = call_arg(c, SIZE_MAX, "default", v_undefined("attribute"));
    if (!is_true(v)) return out;
    struct list *l = value_items(e, v);
    if (by.type != V_NONE) {
        for (size_t i = 0; i < l->n; i++) {
            struct value x = attribute(e, l->v[i], by);
            list_push(e, out.list, x.type == V_UNDEFINED ? def : x);
        }
        return out;
    }
    if (!c->n) ev_fail(e, "map wants a filter's name, or attribute=");
    struct str name = call_arg_str(e, c, 0, "filter");
    const struct filter *f = filter_find(v_copy(e, name.p, name.n).s.p);
    if (!f) ev_fail(e, "filter '%.*s' is not known", (int)name.n, name.p);
    struct call rest = *c;
    rest.v++;
    rest.n--;
    for (size_t i = 0; i < l->n; i++) list_push(e, out.list, f->fn(e, l->v[i], &rest));
    return out;
}
static struct value f_default(struct eval *e, struct value v, const struct call *c)
{
    (void)e;
    bool falsy = is_true(call_arg(c, 1, "boolean", v_bool(false)));
    return v.type == V_UNDEFINED || (falsy && !is_true(v)) ? call_arg(c, 0, "default_value", v_cstr("")) : v;
}
static struct value f_attr(struct eval *e, struct value v, const struct call *c)
{
    struct str name = call_arg_str(e, c, 0, "name");
    want_defined(e, v);
    return get_attr(e, v, v_copy(e, name.p, name.n).s.p);
}
static struct value f_wordcount(struct eval *e, struct value v, const struct call *c)
{
    const struct str s = to_str(e, v).s;
    int64_t n = 0;
    bool inside = false;
    (void)c;
    for (size_t i = 0, len; i < s.n; i += len) {
        const bool word = char_is_word(char_get(s.p + i, s.n - i, &len));
        n += word && !inside;
        inside = word;
    }
    ev_step(e, (int64_t)s.n / 16);
    return v_int(n);
}

const struct filter *filter_find(const char *name)
{
    static const struct filter filters[] = {
        {"abs", f_abs},           {"attr", f_attr},       {"capitalize", f_capitalize},
        {"count", f_length},      {"d", f_default},       {"default", f_default},
        {"dictsort", f_dictsort}, {"e", f_escape},        {"escape", f_escape},
        {"first", f_first},       {"float", f_float},     {"indent", f_indent},
        {"int", f_int},           {"items", f_items},     {"join", f_join},
        {"last", f_last},         {"length", f_length},   {"list", f_list},
        {"lower", f_lower},       {"map", f_map},         {"max", f_max},
        {"min", f_min},           {"reject", f_reject},   {"rejectattr", f_rejectattr},
        {"replace", f_replace},   {"reverse", f_reverse}, {"round", f_round},
        {"safe", f_safe},         {"select", f_select},   {"selectattr", f_selectattr},
        {"sort", f_sort},         {"string", f_string},   {"sum", f_sum},
        {"title", f_title},       {"tojson", f_tojson},   {"trim", f_trim},
        {"unique", f_unique},     {"upper", f_upper},     {"wordcount", f_wordcount},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (strcmp(filters[i].name, name) == 0) return &filters[i];
    return NULL;
}
