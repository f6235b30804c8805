// Values of the template language: Python's None, bool, int, float, str, list, dict, and Jinja's undefined; made from JSON, compared,
// looked into.
#include "datasets/template/internal.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

struct value v_cstr(const char *s)
{
    return v_str(s, strlen(s));
}
struct value v_undefined(const char *name)
{
    return V(V_UNDEFINED, .s = {name, name ? strlen(name) : 0});
}
struct value v_copy(struct eval *e, const char *p, size_t n)
{
    char *s = ev_alloc(e, n + 1);
    if (n) memcpy(s, p, n);
    return v_str(s, n);
}
struct value v_list(struct eval *e)
{
    return V(V_LIST, .list = ev_alloc(e, sizeof(struct list)));
}
struct value v_seq(struct eval *e, enum seq seq)
{
    struct value v = v_list(e);
    v.seq = seq;
    return v;
}
struct value v_dict(struct eval *e)
{
    return V(V_DICT, .dict = ev_alloc(e, sizeof(struct dict)));
}
struct value v_tuple(struct eval *e, size_t n, ...)
{
    struct value t = v_seq(e, SEQ_TUPLE);
    va_list ap;
    va_start(ap, n);
    for (size_t i = 0; i < n; i++) list_push(e, t.list, va_arg(ap, struct value));
    va_end(ap);
    return t;
}

void list_push(struct eval *e, struct list *l, struct value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        struct value *bigger = ev_alloc(e, cap * sizeof *bigger);
        if (l->n) memcpy(bigger, l->v, l->n * sizeof *bigger);
        l->v = bigger;
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

static bool same_key(struct value a, struct value b)
{
    if (a.type == V_STRING || b.type == V_STRING) return a.type == b.type && a.s.n == b.s.n && memcmp(a.s.p, b.s.p, a.s.n) == 0;
    if (is_number(a) && is_number(b)) return as_real(a) == as_real(b);
    return a.type == V_NONE && b.type == V_NONE;
}

struct value *dict_find(const struct dict *d, struct value key)
{
    for (size_t i = 0; i < d->n; i++)
        if (same_key(d->v[i].key, key)) return &d->v[i].value;
    return NULL;
}
struct value *dict_find_str(const struct dict *d, const char *key)
{
    return dict_find(d, v_cstr(key));
}

static void dict_append(struct eval *e, struct dict *d, struct value key, struct value v)
{
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 8;
        struct entry *bigger = ev_alloc(e, cap * sizeof *bigger);
        if (d->n) memcpy(bigger, d->v, d->n * sizeof *bigger);
        d->v = bigger;
        d->cap = cap;
    }
    d->v[d->n++] = (struct entry){key, v};
}

void dict_set(struct eval *e, struct dict *d, struct value key, struct value v)
{
    if (key.type != V_STRING && key.type != V_NONE && !is_number(key)) ev_fail(e, "a %s cannot be a key of a dict here", type_name(key));
    ev_step(e, (int64_t)d->n / 8);
    struct value *at = dict_find(d, key);
    if (at)
        *at = v;
    else
        dict_append(e, d, key, v);
}

struct value value_from_json(struct eval *e, const json_t *j)
{
    if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "the messages are nested more than %d deep", MAX_EVAL_DEPTH);
    ev_step(e, 1);
    struct value v = v_none();
    switch (json_typeof(j)) {
    case JSON_OBJECT: {
        json_t *object = (json_t *)(uintptr_t)j; // Jansson's iterators want it mutable; nothing is changed
        v = v_dict(e);
        for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
            const char *key = json_object_iter_key(it);
            dict_append(e, v.dict, v_copy(e, key, strlen(key)),
                        value_from_json(e, json_object_iter_value(it))); // JSON's keys differ already
        }
        break;
    }
    case JSON_ARRAY:
        v = v_list(e);
        for (size_t i = 0; i < json_array_size(j); i++) list_push(e, v.list, value_from_json(e, json_array_get(j, i)));
        break;
    case JSON_STRING:
        v = v_copy(e, json_string_value(j), json_string_length(j));
        break;
    case JSON_INTEGER:
        v = v_int(json_integer_value(j));
        break;
    case JSON_REAL:
        v = v_real(json_real_value(j));
        break;
    case JSON_TRUE:
        v = v_bool(true);
        break;
    case JSON_FALSE:
        v = v_bool(false);
        break;
    case JSON_NULL:
        break;
    }
    e->depth--;
    return v;
}

bool is_number(struct value v)
{
    return v.type == V_INT || v.type == V_REAL || v.type == V_BOOL;
}
double as_real(struct value v)
{
    return v.type == V_REAL ? v.r : v.type == V_BOOL ? v.b : (double)v.i;
}
bool is_str(struct value v, const char *s)
{
    return v.type == V_STRING && v.s.n == strlen(s) && memcmp(v.s.p, s, v.s.n) == 0;
}

bool is_true(struct value v)
{
    switch (v.type) {
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.b;
    case V_INT:
        return v.i != 0;
    case V_REAL:
        return v.r != 0;
    case V_STRING:
        return v.s.n > 0;
    case V_LIST:
        return v.list->n > 0 || v.seq == SEQ_GENERATOR;
    case V_DICT:
        return v.dict->n > 0;
    default:
        return true;
    }
}

const char *type_name(struct value v)
{
    static const char *const names[] = {"Undefined", "NoneType",  "bool",        "int",      "float", "str",   "list",
                                        "dict",      "Namespace", "LoopContext", "function", "Macro", "method"};
    static const char *const seqs[] = {"list", "tuple", "range", "generator", "dict_keys", "dict_values", "dict_items"};
    return v.type == V_LIST ? seqs[v.seq] : names[v.type];
}

bool has_places(struct value v)
{
    return v.type == V_LIST && v.seq <= SEQ_RANGE;
}

bool values_equal(struct eval *e, struct value a, struct value b)
{
    ev_step(e, 1);
    if (is_number(a) && is_number(b))
        return a.type != V_REAL && b.type != V_REAL ? (a.type == V_BOOL ? a.b : a.i) == (b.type == V_BOOL ? b.b : b.i)
                                                    : as_real(a) == as_real(b);
    if (a.type != b.type) return false;
    switch (a.type) {
    case V_UNDEFINED:
    case V_NONE:
        return true;
    case V_STRING:
        return a.s.n == b.s.n && memcmp(a.s.p, b.s.p, a.s.n) == 0;
    case V_LIST:
        if (a.list == b.list) return true;
        if (a.seq != b.seq || a.seq == SEQ_GENERATOR || a.seq == SEQ_VALUES || a.list->n != b.list->n) return false;
        if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "values nested too deeply to compare");
        for (size_t i = 0; i < a.list->n; i++)
            if (!values_equal(e, a.list->v[i], b.list->v[i])) return e->depth--, false;
        return e->depth--, true;
    case V_DICT:
        if (a.dict->n != b.dict->n) return false;
        if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "values nested too deeply to compare");
        for (size_t i = 0; i < a.dict->n; i++) {
            struct value *other = dict_find(b.dict, a.dict->v[i].key);
            if (!other || !values_equal(e, a.dict->v[i].value, *other)) return e->depth--, false;
        }
        return e->depth--, true;
    case V_NAMESPACE:
        return a.dict == b.dict;
    case V_LOOP:
        return a.loop == b.loop;
    case V_FUNCTION:
        return a.function == b.function;
    case V_MACRO:
        return a.macro == b.macro;
    default:
        return false;
    }
}

int values_order(struct eval *e, struct value a, struct value b)
{
    ev_step(e, 1);
    if (is_number(a) && is_number(b)) {
        if (a.type != V_REAL && b.type != V_REAL) {
            int64_t x = a.type == V_BOOL ? a.b : a.i, y = b.type == V_BOOL ? b.b : b.i;
            return (x > y) - (x < y);
        }
        double x = as_real(a), y = as_real(b);
        return (x > y) - (x < y);
    }
    if (a.type == V_STRING && b.type == V_STRING) { // UTF-8 sorts as code points do
        int c = memcmp(a.s.p, b.s.p, a.s.n < b.s.n ? a.s.n : b.s.n);
        return c ? c : (a.s.n > b.s.n) - (a.s.n < b.s.n);
    }
    if (a.type == V_LIST && b.type == V_LIST && a.seq == b.seq && a.seq <= SEQ_TUPLE) {
        if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "values nested too deeply to compare");
        for (size_t i = 0; i < a.list->n && i < b.list->n; i++)
            if (!values_equal(e, a.list->v[i], b.list->v[i])) {
                int c = values_order(e, a.list->v[i], b.list->v[i]);
                return e->depth--, c;
            }
        e->depth--;
        return (a.list->n > b.list->n) - (a.list->n < b.list->n);
    }
    ev_fail(e, "'%s' and '%s' cannot be ordered", type_name(a), type_name(b));
}

bool value_contains(struct eval *e, struct value item, struct value in)
{
    switch (in.type) {
    case V_STRING:
        if (item.type != V_STRING) ev_fail(e, "'in <string>' wants a string on its left, not '%s'", type_name(item));
        ev_step(e, (int64_t)(in.s.n / 64));
        return str_find(in.s, item.s) != NULL;
    case V_LIST:
        for (size_t i = in.list->taken; i < in.list->n; i++) {
            if (in.seq == SEQ_GENERATOR) in.list->taken = i + 1;
            if (values_equal(e, in.list->v[i], item)) return true;
        }
        return false;
    case V_DICT:
        ev_step(e, (int64_t)in.dict->n / 8);
        if (item.type == V_DICT || (item.type == V_LIST && item.seq == SEQ_LIST)) ev_fail(e, "a %s is no key of a dict", type_name(item));
        return dict_find(in.dict, item) != NULL;
    case V_UNDEFINED:
        return false; // it iterates as empty
    default:
        ev_fail(e, "a '%s' holds nothing to look for with 'in'", type_name(in));
    }
}

struct list *value_items(struct eval *e, struct value v)
{
    struct value out;
    switch (v.type) {
    case V_LIST:
        if (v.seq != SEQ_GENERATOR) return v.list;
        out = v_list(e);
        if (v.list->taken == v.list->n) return out.list;
        *out.list = (struct list){.v = v.list->v + v.list->taken, .n = v.list->n - v.list->taken};
        v.list->taken = v.list->n;
        return out.list;
    case V_UNDEFINED:
        return v_list(e).list;
    case V_DICT:
        out = v_list(e);
        for (size_t i = 0; i < v.dict->n; i++) list_push(e, out.list, v.dict->v[i].key);
        return out.list;
    case V_STRING:
        out = v_list(e);
        ev_step(e, (int64_t)v.s.n);
        for (size_t i = 0, len; i < v.s.n; i += len) {
            char_get(v.s.p + i, v.s.n - i, &len);
            list_push(e, out.list, v_str(v.s.p + i, len));
        }
        return out.list;
    default:
        ev_fail(e, "a '%s' cannot be iterated over", type_name(v));
    }
}

int64_t value_length(struct eval *e, struct value v)
{
    switch (v.type) {
    case V_UNDEFINED:
        return 0;
    case V_STRING:
        return (int64_t)n_chars(v.s);
    case V_LIST:
        if (v.seq == SEQ_GENERATOR) ev_fail(e, "a generator has no length: put '| list' before it");
        return (int64_t)v.list->n;
    case V_DICT:
        return (int64_t)v.dict->n;
    default:
        ev_fail(e, "a '%s' has no length", type_name(v));
    }
}
