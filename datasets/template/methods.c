// Methods of strings and dicts, attributes, subscripts and slices, as Python has them; and Jinja's global functions. What would change a
// list or dict in place is refused, as in the sandbox that transformers uses.
#include "datasets/template/internal.h"

#include <string.h>
#include <time.h>

// ---- attributes, subscripts, slices ----

static const char *const string_methods[] = {"capitalize", "count",        "endswith",     "find",       "isalpha",    "isdigit", "islower",
                                             "isspace",    "isupper",      "join",         "lower",      "lstrip",     "replace", "rfind",
                                             "rsplit",     "rstrip",       "split",        "splitlines", "startswith", "strip",   "title",
                                             "upper",      "removeprefix", "removesuffix", "isalnum",    "isnumeric",  NULL};
static const char *const dict_methods[] = {"clear",   "copy",       "get",    "items",  "keys", "pop",
                                           "popitem", "setdefault", "update", "values", NULL};
static const char *const list_methods[] = {"append", "clear",  "count",   "extend", "index", "insert",
                                           "pop",    "remove", "reverse", "sort",   NULL};
// Those of them that would change the value in place.
static const char *const changing[] = {"append", "clear",   "extend",     "insert", "pop",    "popitem",
                                       "remove", "reverse", "setdefault", "sort",   "update", NULL};

static bool among(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(*list, name) == 0) return true;
    return false;
}
bool method_exists(struct value self, const char *name)
{
    switch (self.type) {
    case V_STRING:
        return among(name, string_methods);
    case V_DICT:
        return among(name, dict_methods);
    case V_LIST:
        return among(name, list_methods) && (!self.tuple || !among(name, changing));
    default:
        return false;
    }
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
    return v_undefined(name);
}

struct value get_item(struct eval *e, struct value v, struct value key)
{
    struct value *at;
    if (v.type == V_UNDEFINED) ev_fail(e, "'%s' is undefined: nothing can be looked up in it", v.s.p ? v.s.p : "a value");
    if (v.type == V_DICT && (ev_step(e, (int64_t)v.dict->n / 8), at = dict_find(v.dict, key))) return *at;
    if (key.type == V_STRING) return get_attr(e, v, v_copy(e, key.s.p, key.s.n).s.p);
    if (v.type == V_DICT || (key.type != V_INT && key.type != V_BOOL)) return v_undefined("the item");
    int64_t i = key.type == V_BOOL ? key.b : key.i, n = v.type == V_LIST || v.type == V_STRING ? value_length(e, v) : 0;
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
    if (v.type != V_LIST && v.type != V_STRING) {
        if (v.type == V_UNDEFINED) ev_fail(e, "'%s' is undefined: it cannot be sliced", v.s.p ? v.s.p : "a value");
        ev_fail(e, "a %s cannot be sliced", type_name(v));
    }
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
    struct value out = v_list(e);
    out.tuple = v.tuple;
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
static bool affixed(struct eval *e, struct str s, const struct call *c, bool end)
{
    struct value what = call_arg(c, 0, "prefix", v_undefined("prefix"));
    if (c->n > 1) ev_fail(e, "startswith and endswith are known with one argument");
    if (what.type == V_LIST && what.tuple) {
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
        if (strcmp(kind, "isdigit") == 0 || strcmp(kind, "isnumeric") == 0) {
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

static struct value split_lines(struct eval *e, struct str s, bool keep)
{
    struct value out = v_list(e);
    for (size_t i = 0; i < s.n;) {
        size_t k = i;
        while (k < s.n && s.p[k] != '\n' && s.p[k] != '\r') k++;
        size_t end = k < s.n ? k + 1 + (s.p[k] == '\r' && k + 1 < s.n && s.p[k + 1] == '\n') : k;
        list_push(e, out.list, v_str(s.p + i, (keep ? end : k) - i));
        i = end;
    }
    return out;
}

static struct value find_index(struct eval *e, struct str s, const struct call *c, bool last)
{
    struct str what = call_arg_str(e, c, 0, "sub");
    const char *hit = NULL;
    if (!last)
        hit = str_find(s, what);
    else
        for (size_t i = s.n >= what.n ? s.n - what.n + 1 : 0; i-- > 0 && !hit;)
            if (memcmp(s.p + i, what.p, what.n) == 0) hit = s.p + i;
    return v_int(hit ? (int64_t)n_chars((struct str){s.p, (size_t)(hit - s.p)}) : -1);
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
    if (strcmp(name, "splitlines") == 0) return split_lines(e, s, is_true(call_arg(c, 0, "keepends", v_bool(false))));
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
    if (strcmp(name, "find") == 0 || strcmp(name, "rfind") == 0) return find_index(e, s, c, name[0] == 'r');
    if (strcmp(name, "count") == 0) {
        struct str what = call_arg_str(e, c, 0, "sub");
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
    return change_case(e, s, strcmp(name, "upper") == 0 ? 'u' : strcmp(name, "lower") == 0 ? 'l' : strcmp(name, "title") == 0 ? 't' : 'c');
}

static struct value dict_method(struct eval *e, struct dict *d, const char *name, const struct call *c)
{
    if (strcmp(name, "get") == 0) {
        struct value *at = dict_find(d, call_arg(c, 0, "key", v_undefined("key")));
        ev_step(e, (int64_t)d->n / 8);
        return at ? *at : call_arg(c, 1, "default", v_none());
    }
    struct value out = strcmp(name, "copy") == 0 ? v_dict(e) : v_list(e);
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
    if (self.type == V_STRING) return string_method(e, self.s, m->name, c);
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
    struct value out = v_list(e);
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
static struct value g_namespace(struct eval *e, const struct call *c)
{
    struct value out = dict_from(e, c);
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
