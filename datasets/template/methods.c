// Methods of strings and dicts, attributes, subscripts and slices, as Python has them; and Jinja's global functions. What would change a
// list or dict in place is refused, as in the sandbox that transformers uses.
#include "datasets/template/internal.h"

#include <string.h>
#include <time.h>

// ---- attributes, subscripts, slices ----

struct method_kind {
    const char *name;
    size_t min, max; // arguments
};
static const struct method_kind string_methods[] = {{"capitalize", 0, 0},   {"center", 1, 2},
                                                    {"count", 1, 3},        {"endswith", 1, 3},
                                                    {"find", 1, 3},         {"index", 1, 3},
                                                    {"isalnum", 0, 0},      {"isalpha", 0, 0},
                                                    {"isascii", 0, 0},      {"isdecimal", 0, 0},
                                                    {"isdigit", 0, 0},      {"islower", 0, 0},
                                                    {"isnumeric", 0, 0},    {"isspace", 0, 0},
                                                    {"isupper", 0, 0},      {"join", 1, 1},
                                                    {"ljust", 1, 2},        {"lower", 0, 0},
                                                    {"lstrip", 0, 1},       {"partition", 1, 1},
                                                    {"removeprefix", 1, 1}, {"removesuffix", 1, 1},
                                                    {"replace", 2, 3},      {"rfind", 1, 3},
                                                    {"rindex", 1, 3},       {"rjust", 1, 2},
                                                    {"rpartition", 1, 1},   {"rsplit", 0, 2},
                                                    {"rstrip", 0, 1},       {"split", 0, 2},
                                                    {"splitlines", 0, 1},   {"startswith", 1, 3},
                                                    {"strip", 0, 1},        {"swapcase", 0, 0},
                                                    {"title", 0, 0},        {"upper", 0, 0},
                                                    {"zfill", 1, 1},        {0}};
// Those of Python's that are not known here: named when used, for a template that asks for one must not go on without it.
static const char *const unknown_methods[] = {"casefold",    "encode",  "expandtabs", "format",    "format_map", "isidentifier",
                                              "isprintable", "istitle", "maketrans",  "translate", "fromkeys",   NULL};
static const struct method_kind dict_methods[] = {{"clear", 0, 0},
                                                  {"copy", 0, 0},
                                                  {"get", 1, 2},
                                                  {"items", 0, 0},
                                                  {"keys", 0, 0},
                                                  {"pop", 1, 2},
                                                  {"popitem", 0, 0},
                                                  {"setdefault", 1, 2},
                                                  {"update", 0, 1},
                                                  {"values", 0, 0},
                                                  {0}};
static const struct method_kind list_methods[] = {{"append", 1, 1}, {"clear", 0, 0},   {"copy", 0, 0},   {"count", 1, 1},
                                                  {"extend", 1, 1}, {"index", 1, 1},   {"insert", 2, 2}, {"pop", 0, 1},
                                                  {"remove", 1, 1}, {"reverse", 0, 0}, {"sort", 0, 0},   {0}};
// Those of them that would change the value in place.
static const char *const changing[] = {"append", "clear",   "extend",     "insert", "pop",    "popitem",
                                       "remove", "reverse", "setdefault", "sort",   "update", NULL};

static bool among(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(*list, name) == 0) return true;
    return false;
}
static const struct method_kind *method_find(struct value self, const char *name)
{
    const struct method_kind *m = self.type == V_STRING ? string_methods
                                  : self.type == V_DICT ? dict_methods
                                  : has_places(self)    ? list_methods
                                                        : NULL;
    while (m && m->name && strcmp(m->name, name) != 0) m++;
    if (!m || !m->name) return NULL;
    return self.type == V_LIST && self.seq != SEQ_LIST && strcmp(name, "count") != 0 && strcmp(name, "index") != 0 ? NULL : m;
}
bool method_exists(struct value self, const char *name)
{
    return method_find(self, name) != NULL;
}

static struct value loop_attr(struct eval *e, struct loop *l, const char *name)
{
    int64_t n = (int64_t)l->items->n, i = (int64_t)l->at;
    if (strcmp(name, "index") == 0) return v_int(i + 1);
    if (strcmp(name, "index0") == 0) return v_int(i);
    if (strcmp(name, "revindex") == 0) return v_int(n - i);
    if (strcmp(name, "revindex0") == 0) return v_int(n - i - 1);
    if (strcmp(name, "first") == 0) return v_bool(i == 0);
    if (strcmp(name, "last") == 0) return v_bool(i == n - 1);
    if (strcmp(name, "length") == 0) return v_int(n);
    if (strcmp(name, "depth") == 0) return v_int(1); // counts recursive loops only
    if (strcmp(name, "depth0") == 0) return v_int(0);
    if (strcmp(name, "previtem") == 0) return i > 0 ? l->items->v[i - 1] : v_undefined("there is no previous item");
    if (strcmp(name, "nextitem") == 0) return i + 1 < n ? l->items->v[i + 1] : v_undefined("there is no next item");
    if (strcmp(name, "cycle") == 0 || strcmp(name, "changed") == 0) {
        struct method *m = ev_alloc(e, sizeof *m);
        *m = (struct method){name, V(V_LOOP, .loop = l)};
        return V(V_METHOD, .method = m);
    }
    return v_undefined(name);
}

struct value get_attr(struct eval *e, struct value v, const char *name)
{
    struct value *at;
    switch (v.type) {
    case V_UNDEFINED:
        ev_fail(e, "'%s' is undefined: it has no attribute '%s'", v.s.p ? v.s.p : "a value", name);
    case V_LOOP:
        return loop_attr(e, v.loop, name);
    case V_NAMESPACE:
        return (at = dict_find_str(v.dict, name)) ? *at : v_undefined(name);
    case V_MACRO:
        return strcmp(name, "name") == 0 ? v_cstr(v.macro->name) : v_undefined(name);
    default:
        break;
    }
    if (method_exists(v, name)) { // before keys of the same name: d.items is the method, d['items'] the key
        struct method *m = ev_alloc(e, sizeof *m);
        *m = (struct method){name, v};
        return V(V_METHOD, .method = m);
    }
    if (v.type == V_DICT && (at = dict_find_str(v.dict, name))) return *at;
    if ((v.type == V_STRING || v.type == V_DICT) && among(name, unknown_methods) && (v.type == V_STRING) == (strcmp(name, "fromkeys") != 0))
        ev_fail(e, "method '%s' of a %s is not known", name, type_name(v));
    return v_undefined(name);
}

struct value get_item(struct eval *e, struct value v, struct value key)
{
    struct value *at;
    if (v.type == V_UNDEFINED) ev_fail(e, "'%s' is undefined: nothing can be looked up in it", v.s.p ? v.s.p : "a value");
    if (v.type == V_DICT && (ev_step(e, (int64_t)v.dict->n / 8), at = dict_find(v.dict, key))) return *at;
    if (key.type == V_STRING) return get_attr(e, v, v_copy(e, key.s.p, key.s.n).s.p);
    if (v.type == V_DICT || (key.type != V_INT && key.type != V_BOOL)) return v_undefined("the item");
    int64_t i = key.type == V_BOOL ? key.b : key.i, n = has_places(v) || v.type == V_STRING ? value_length(e, v) : 0;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return v_undefined("an item past the end");
    if (v.type == V_LIST) return v.list->v[i];
    ev_step(e, n / 64);
    size_t from = char_offset(v.s, (size_t)i), len;
    char_get(v.s.p + from, v.s.n - from, &len);
    return v_str(v.s.p + from, len);
}

static int64_t bound(struct eval *e, struct value v, int64_t def, int64_t n, int64_t low, int64_t high)
{
    if (v.type == V_NONE) return def;
    if (v.type != V_INT && v.type != V_BOOL) ev_fail(e, "a slice by a %s, wanted an int", type_name(v));
    int64_t i = v.type == V_BOOL ? v.b : v.i;
    if (i < 0) i = i < -n ? low : i + n;
    return i < low ? low : i > high ? high : i;
}

struct value get_slice(struct eval *e, struct value v, struct value lo, struct value hi, struct value step)
{
    if (v.type == V_UNDEFINED) ev_fail(e, "'%s' is undefined: it cannot be sliced", v.s.p ? v.s.p : "a value");
    if (!has_places(v) && v.type != V_STRING) ev_fail(e, "a %s cannot be sliced", type_name(v));
    int64_t n = value_length(e, v), by = step.type == V_NONE ? 1 : bound(e, step, 1, 0, INT64_MIN / 2, INT64_MAX / 2);
    if (step.type == V_INT) by = step.i;
    if (by == 0) ev_fail(e, "a slice's step is zero");
    if (by > n + 1) by = n + 1;
    if (by < -n - 1) by = -n - 1;
    int64_t from = by > 0 ? bound(e, lo, 0, n, 0, n) : bound(e, lo, n - 1, n, -1, n - 1);
    int64_t to = by > 0 ? bound(e, hi, n, n, 0, n) : bound(e, hi, -1, n, -1, n - 1);
    if (v.type == V_STRING && by == 1) {
        if (to <= from) return v_str("", 0);
        ev_step(e, n / 64);
        size_t a = char_offset(v.s, (size_t)from), b = a + char_offset((struct str){v.s.p + a, v.s.n - a}, (size_t)(to - from));
        return v_str(v.s.p + a, b - a);
    }
    struct list *l = value_items(e, v);
    struct value out = v_seq(e, v.type == V_LIST ? v.seq : SEQ_LIST);
    for (int64_t i = from; by > 0 ? i < to : i > to; i += by) list_push(e, out.list, l->v[i]);
    if (v.type == V_LIST) return out;
    struct out o = {0};
    for (size_t i = 0; i < out.list->n; i++) out_put(e, &o, out.list->v[i].s.p, out.list->v[i].s.n);
    return v_str(o.n ? o.p : "", o.n);
}

// ---- methods ----

static bool has_affix(struct str s, struct str affix, bool end)
{
    return s.n >= affix.n && memcmp(end ? s.p + s.n - affix.n : s.p, affix.p, affix.n) == 0;
}
// What (start, end), the arguments after the first of Python's searching methods, leave of s. False: nothing, not even the empty string.
static bool part_of(struct eval *e, struct str *s, const struct call *c, int64_t *n_before)
{
    *n_before = 0;
    if (c->n < 2) return true;
    const int64_t n = (int64_t)n_chars(*s);
    const int64_t from = bound(e, c->v[1], 0, n, 0, n + 1), to = c->n > 2 ? bound(e, c->v[2], n, n, 0, n) : n;
    if (from > to) return false;
    *n_before = from;
    const size_t a = char_offset(*s, (size_t)from), b = a + char_offset((struct str){s->p + a, s->n - a}, (size_t)(to - from));
    *s = (struct str){s->p + a, b - a};
    return true;
}

static bool affixed(struct eval *e, struct str s, const struct call *c, bool end)
{
    struct value what = call_arg(c, 0, "prefix", v_undefined("prefix"));
    int64_t ignored;
    if (!part_of(e, &s, c, &ignored)) return false;
    if (what.type == V_LIST && what.seq == SEQ_TUPLE) {
        for (size_t i = 0; i < what.list->n; i++)
            if (what.list->v[i].type == V_STRING && has_affix(s, what.list->v[i].s, end)) return true;
        return false;
    }
    return has_affix(s, call_arg_str(e, c, 0, "prefix"), end);
}

static bool all_chars(struct str s, const char *kind)
{
    bool letter = false;
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t ch = char_get(s.p + i, s.n - i, &len);
        bool digit = ch >= '0' && ch <= '9', low = ch >= 'a' && ch <= 'z', up = ch >= 'A' && ch <= 'Z', beyond = ch >= 0x80;
        if (strcmp(kind, "isascii") == 0) {
            if (beyond) return false;
        } else if (strcmp(kind, "isdigit") == 0 || strcmp(kind, "isnumeric") == 0 || strcmp(kind, "isdecimal") == 0) {
            if (!digit) return false;
        } else if (strcmp(kind, "isalpha") == 0) {
            if (!low && !up && !beyond) return false;
        } else if (strcmp(kind, "isalnum") == 0) {
            if (!low && !up && !digit && !beyond) return false;
        } else if (strcmp(kind, "isspace") == 0) {
            if (!char_is_space(ch)) return false;
        } else if (strcmp(kind, "islower") == 0) {
            if (up) return false;
            letter |= low;
            continue;
        } else {
            if (low) return false;
            letter |= up;
            continue;
        }
        letter = true;
    }
    return letter;
}

static struct value find_index(struct eval *e, struct str s, const struct call *c, bool last, bool must)
{
    const struct str what = call_arg_str(e, c, 0, "sub");
    int64_t n_before;
    const char *hit = !part_of(e, &s, c, &n_before) ? NULL : last ? str_find_last(s, what) : str_find(s, what);
    if (!hit && must) ev_fail(e, "%s: substring not found", last ? "rindex" : "index");
    return v_int(hit ? n_before + (int64_t)n_chars((struct str){s.p, (size_t)(hit - s.p)}) : -1);
}

// partition, rpartition: what stands before the separator, it, and what stands behind.
static struct value partition(struct eval *e, struct str s, struct str sep, bool last)
{
    if (!sep.n) ev_fail(e, "partition by an empty separator");
    const char *hit = last ? str_find_last(s, sep) : str_find(s, sep);
    if (!hit)
        return last ? v_tuple(e, 3, v_str("", 0), v_str("", 0), v_str(s.p, s.n))
                    : v_tuple(e, 3, v_str(s.p, s.n), v_str("", 0), v_str("", 0));
    const size_t before = (size_t)(hit - s.p);
    return v_tuple(e, 3, v_str(s.p, before), v_str(hit, sep.n), v_str(hit + sep.n, s.n - before - sep.n));
}

// ljust, rjust, center, zfill: filled up to a width.
static struct value justify(struct eval *e, struct str s, const char *name, const struct call *c)
{
    const bool zeros = name[0] == 'z';
    const struct value fill = call_arg(c, 1, "fillchar", v_cstr(zeros ? "0" : " "));
    const int64_t width = call_arg_int(e, c, 0, "width", 0), n = (int64_t)n_chars(s), lack = width > n ? width - n : 0;
    if (fill.type != V_STRING || n_chars(fill.s) != 1) ev_fail(e, "%s: the fill must be one character", name);
    if ((uint64_t)lack > MAX_POOL / 4) ev_fail(e, "%s to %lld characters", name, (long long)width);
    const int64_t left = name[0] == 'l' ? 0 : name[0] == 'c' ? lack / 2 + (lack & width & 1) : lack;
    struct out o = {0};
    if (zeros && lack && s.n && (*s.p == '+' || *s.p == '-')) out_put(e, &o, s.p, 1), s.p++, s.n--; // the sign stays in front
    for (int64_t i = 0; i < left; i++) out_put(e, &o, fill.s.p, fill.s.n);
    out_put(e, &o, s.p, s.n);
    for (int64_t i = left; i < lack; i++) out_put(e, &o, fill.s.p, fill.s.n);
    return v_str(o.n ? o.p : "", o.n);
}

static struct value string_method(struct eval *e, struct str s, const char *name, const struct call *c)
{
    struct value first = call_arg(c, 0, "chars", v_none());
    ev_step(e, (int64_t)(s.n / 64));
    if (strstr(name, "strip")) {
        if (first.type != V_NONE && first.type != V_STRING) ev_fail(e, "%s wants a str", name);
        s = str_strip(s, first.type == V_STRING ? &first.s : NULL, name[0] != 'r', name[0] != 'l');
        return v_str(s.p, s.n);
    }
    if (strcmp(name, "split") == 0 || strcmp(name, "rsplit") == 0) {
        struct value sep = call_arg(c, 0, "sep", v_none());
        if (sep.type != V_NONE && sep.type != V_STRING) ev_fail(e, "%s wants a str", name);
        return str_split(e, s, sep.type == V_STRING ? &sep.s : NULL, call_arg_int(e, c, 1, "maxsplit", -1), name[0] == 'r');
    }
    if (strcmp(name, "splitlines") == 0) return str_lines(e, s, is_true(call_arg(c, 0, "keepends", v_bool(false))));
    if (strcmp(name, "startswith") == 0) return v_bool(affixed(e, s, c, false));
    if (strcmp(name, "endswith") == 0) return v_bool(affixed(e, s, c, true));
    if (strcmp(name, "removeprefix") == 0 || strcmp(name, "removesuffix") == 0) {
        struct str affix = call_arg_str(e, c, 0, "prefix");
        bool end = name[6] == 's';
        if (has_affix(s, affix, end)) s.p += end ? 0 : affix.n, s.n -= affix.n;
        return v_str(s.p, s.n);
    }
    if (strcmp(name, "replace") == 0)
        return str_replace(e, s, call_arg_str(e, c, 0, "old"), call_arg_str(e, c, 1, "new"), call_arg_int(e, c, 2, "count", -1));
    if (strstr(name, "find") || strstr(name, "index")) return find_index(e, s, c, name[0] == 'r', !strstr(name, "find"));
    if (strstr(name, "partition")) return partition(e, s, call_arg_str(e, c, 0, "sep"), name[0] == 'r');
    if (strcmp(name, "center") == 0 || strcmp(name, "zfill") == 0 || strstr(name, "just")) return justify(e, s, name, c);
    if (strcmp(name, "count") == 0) {
        struct str what = call_arg_str(e, c, 0, "sub");
        int64_t n_before;
        if (!part_of(e, &s, c, &n_before)) return v_int(0);
        return what.n ? v_int((int64_t)str_split(e, s, &what, -1, false).list->n - 1) : v_int((int64_t)n_chars(s) + 1);
    }
    if (strcmp(name, "join") == 0) {
        struct list *l = value_items(e, call_arg(c, 0, "iterable", v_undefined("iterable")));
        struct out o = {0};
        for (size_t i = 0; i < l->n; i++) {
            if (l->v[i].type != V_STRING) ev_fail(e, "join: item %zu is a %s, wanted a str", i, type_name(l->v[i]));
            if (i) out_put(e, &o, s.p, s.n);
            out_put(e, &o, l->v[i].s.p, l->v[i].s.n);
        }
        return v_str(o.n ? o.p : "", o.n);
    }
    if (name[0] == 'i' && name[1] == 's') return v_bool(all_chars(s, name));
    return change_case(e, s,
                       strcmp(name, "upper") == 0         ? 'u'
                       : strcmp(name, "lower") == 0       ? 'l'
                       : name[0] == 't' || name[0] == 's' ? name[0]
                                                          : 'c');
}

static struct value dict_method(struct eval *e, struct dict *d, const char *name, const struct call *c)
{
    if (strcmp(name, "get") == 0) {
        struct value *at = dict_find(d, call_arg(c, 0, "key", v_undefined("key")));
        ev_step(e, (int64_t)d->n / 8);
        return at ? *at : call_arg(c, 1, "default", v_none());
    }
    struct value out = name[0] == 'c' ? v_dict(e) : v_seq(e, name[0] == 'k' ? SEQ_KEYS : name[0] == 'v' ? SEQ_VALUES : SEQ_ITEMS);
    for (size_t i = 0; i < d->n; i++) {
        struct value key = d->v[i].key, v = d->v[i].value;
        if (name[0] == 'c')
            dict_set(e, out.dict, key, v);
        else
            list_push(e, out.list, name[0] == 'k' ? key : name[0] == 'v' ? v : v_tuple(e, 2, key, v));
    }
    return out;
}

struct value method_call(struct eval *e, const struct method *m, const struct call *c)
{
    struct value self = m->self;
    const struct method_kind *kind = method_find(self, m->name);
    if (kind) { // split, rsplit and splitlines alone take names
        const bool named = self.type == V_STRING && strstr(m->name, "split");
        if (c->n_kw && !named) ev_fail(e, "%s.%s() takes no name=value", type_name(self), m->name);
        if (c->n + c->n_kw < kind->min || c->n > kind->max)
            ev_fail(e, "%s.%s() takes %zu to %zu arguments, %zu given", type_name(self), m->name, kind->min, kind->max, c->n);
    }
    if (self.type == V_STRING) {
        struct value out = string_method(e, self.s, m->name, c);
        out.markup = out.type == V_STRING && self.markup;
        return out;
    }
    if (self.type == V_LOOP) {
        struct loop *l = self.loop;
        if (strcmp(m->name, "cycle") == 0) {
            if (!c->n) ev_fail(e, "cycle wants values");
            return c->v[l->at % c->n];
        }
        struct value now = v_list(e);
        for (size_t i = 0; i < c->n; i++) list_push(e, now.list, c->v[i]);
        bool changed = !l->last_changed || !values_equal(e, V(V_LIST, .list = l->last_changed), now);
        l->last_changed = now.list;
        return v_bool(changed);
    }
    if (among(m->name, changing)) ev_fail(e, "%s.%s() would change a value in place, which templates may not", type_name(self), m->name);
    if (self.type == V_DICT) return dict_method(e, self.dict, m->name, c);
    if (strcmp(m->name, "copy") == 0) {
        struct value copy = v_list(e);
        for (size_t i = 0; i < self.list->n; i++) list_push(e, copy.list, self.list->v[i]);
        return copy;
    }
    int64_t n = 0; // list.index, list.count
    for (size_t i = 0; i < self.list->n; i++) {
        if (!values_equal(e, self.list->v[i], call_arg(c, 0, "value", v_undefined("value")))) continue;
        if (m->name[0] == 'i') return v_int((int64_t)i);
        n++;
    }
    if (m->name[0] == 'i') ev_fail(e, "list.index: no such item");
    return v_int(n);
}

// ---- global functions ----

static struct value g_raise(struct eval *e, const struct call *c)
{
    struct value message = to_str(e, call_arg(c, 0, "message", v_cstr("")));
    ev_fail(e, "the template refuses the conversation: %.*s", (int)(message.s.n < 400 ? message.s.n : 400), message.s.p);
}
static struct value g_range(struct eval *e, const struct call *c)
{
    int64_t lo = c->n > 1 ? call_arg_int(e, c, 0, "start", 0) : 0, hi = call_arg_int(e, c, c->n > 1 ? 1 : 0, "stop", 0),
            step = call_arg_int(e, c, 2, "step", 1);
    if (step == 0) ev_fail(e, "range with a step of zero");
    struct value out = v_seq(e, SEQ_RANGE);
    __int128 i = lo;
    for (; step > 0 ? i < hi : i > hi; i += step) {
        if (out.list->n >= 100000) ev_fail(e, "a range of more than 100000 numbers"); // Jinja's sandbox has this limit
        list_push(e, out.list, v_int((int64_t)i));
    }
    return out;
}
static struct value dict_from(struct eval *e, const struct call *c)
{
    struct value out = v_dict(e);
    for (size_t i = 0; i < c->n; i++) {
        if (c->v[i].type != V_DICT) ev_fail(e, "dict of a %s is not known", type_name(c->v[i]));
        for (size_t k = 0; k < c->v[i].dict->n; k++) dict_set(e, out.dict, c->v[i].dict->v[k].key, c->v[i].dict->v[k].value);
    }
    for (size_t i = 0; i < c->n_kw; i++) dict_set(e, out.dict, v_cstr(c->kw[i].name), c->kw[i].value);
    return out;
}
void namespace_check(struct eval *e, struct value name)
{
    if (name.type == V_STRING && name.s.n && *name.s.p == '_')
        ev_fail(e, "'%.*s': a namespace takes no names that begin with '_'", (int)name.s.n, name.s.p);
}
static struct value g_namespace(struct eval *e, const struct call *c)
{
    struct value out = dict_from(e, c);
    for (size_t i = 0; i < out.dict->n; i++) namespace_check(e, out.dict->v[i].key);
    out.type = V_NAMESPACE;
    return out;
}
static struct value g_strftime(struct eval *e, const struct call *c)
{
    struct str format = call_arg_str(e, c, 0, "format");
    char text[512];
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    size_t n = strftime(text, sizeof text, v_copy(e, format.p, format.n).s.p, &tm);
    return v_copy(e, text, n);
}

const struct function template_functions[] = {{"raise_exception", g_raise}, {"range", g_range},           {"dict", dict_from},
                                              {"namespace", g_namespace},   {"strftime_now", g_strftime}, {0}};
