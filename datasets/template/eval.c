// Expressions of the tree to values, with Python's arithmetic and comparisons.
#include "datasets/template/eval.h"

#include "datasets/template/internal.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

void ev_fail(struct eval *e, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(e->err, ST_BAD_INPUT, "chat template, line %d: %s", e->line, text);
    longjmp(e->bail, 1);
}

void *ev_alloc(struct eval *e, size_t n)
{
    if (n > MAX_POOL || e->pool.total + n > MAX_POOL) ev_fail(e, "rendering needs more than %zu MB of memory", MAX_POOL >> 20);
    return pool_alloc(&e->pool, n);
}

void ev_step(struct eval *e, int64_t n)
{
    e->steps += n;
    if (e->steps > MAX_STEPS) ev_fail(e, "rendering needs more than %d steps", MAX_STEPS);
}

struct scope *scope_push(struct eval *e)
{
    struct scope *s = ev_alloc(e, sizeof *s), *old = e->scope;
    s->parent = old;
    e->scope = s;
    return old;
}

void scope_set(struct eval *e, struct scope *s, const char *name, struct value v)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->v[i].name, name) == 0) {
            s->v[i].value = v;
            return;
        }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 8;
        struct binding *bigger = ev_alloc(e, cap * sizeof *bigger);
        if (s->n) memcpy(bigger, s->v, s->n * sizeof *bigger);
        s->v = bigger;
        s->cap = cap;
    }
    s->v[s->n++] = (struct binding){name, v};
}

static struct value lookup(struct eval *e, const char *name)
{
    for (struct scope *s = e->scope; s; s = s->parent)
        for (size_t i = 0; i < s->n; i++)
            if (strcmp(s->v[i].name, name) == 0) return s->v[i].value;
    for (const struct function *f = template_functions; f->name; f++)
        if (strcmp(f->name, name) == 0) return V(V_FUNCTION, .function = f);
    return v_undefined(name);
}

// ---- operators ----

static int64_t as_int(struct value v)
{
    return v.type == V_BOOL ? v.b : v.i;
}

static void no_operator(struct eval *e, const char *op, struct value a, struct value b)
{
    if (a.type == V_UNDEFINED || b.type == V_UNDEFINED) {
        struct str name = a.type == V_UNDEFINED ? a.s : b.s;
        ev_fail(e, "'%s' is undefined and cannot be used with '%s'", name.p ? name.p : "a value", op);
    }
    ev_fail(e, "'%s' is not possible between %s and %s", op, type_name(a), type_name(b));
}

static bool can_repeat(struct value v)
{
    return v.type == V_STRING || (v.type == V_LIST && v.seq <= SEQ_TUPLE);
}
static struct value repeat(struct eval *e, struct value v, int64_t n)
{
    struct value out = v.type == V_STRING ? v_str("", 0) : v_seq(e, v.seq);
    if (n <= 0) return out;
    if (v.type == V_LIST) {
        for (int64_t i = 0; i < n; i++) {
            ev_step(e, 1 + (int64_t)v.list->n);
            for (size_t k = 0; k < v.list->n; k++) list_push(e, out.list, v.list->v[k]);
        }
        return out;
    }
    if (v.s.n && (uint64_t)n > MAX_POOL / v.s.n) ev_fail(e, "a string repeated %lld times is too long", (long long)n);
    char *p = ev_alloc(e, v.s.n * (size_t)n + 1);
    for (int64_t i = 0; v.s.n && i < n; i++) memcpy(p + (size_t)i * v.s.n, v.s.p, v.s.n);
    return v_str(p, v.s.n * (size_t)n);
}

static struct value plus(struct eval *e, struct value a, struct value b)
{
    if (a.type == V_STRING && b.type == V_STRING && a.markup != b.markup) // what is not known to be safe is escaped before it joins
        return plus(e, escape_html(e, a), escape_html(e, b));
    if (a.type == V_STRING && b.type == V_STRING) {
        char *p = ev_alloc(e, a.s.n + b.s.n + 1);
        if (a.s.n) memcpy(p, a.s.p, a.s.n);
        if (b.s.n) memcpy(p + a.s.n, b.s.p, b.s.n);
        ev_step(e, (int64_t)((a.s.n + b.s.n) / 256));
        return V(V_STRING, .markup = a.markup, .s = {p, a.s.n + b.s.n});
    }
    if (a.type == V_LIST && b.type == V_LIST && a.seq == b.seq && a.seq <= SEQ_TUPLE) {
        struct value out = v_seq(e, a.seq);
        for (size_t i = 0; i < a.list->n; i++) list_push(e, out.list, a.list->v[i]);
        for (size_t i = 0; i < b.list->n; i++) list_push(e, out.list, b.list->v[i]);
        ev_step(e, (int64_t)out.list->n);
        return out;
    }
    no_operator(e, "+", a, b);
    return v_none();
}

// "%s and %d" % values, the part of it that templates use.
static struct value format(struct eval *e, struct str s, struct value args)
{
    struct out o = {0};
    size_t used = 0;
    const bool many = args.type == V_LIST && args.seq == SEQ_TUPLE;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            out_put(e, &o, s.p + i, 1);
            continue;
        }
        char kind = ++i < s.n ? s.p[i] : 0;
        if (kind == '%') {
            out_puts(e, &o, "%");
            continue;
        }
        if (kind != 's' && kind != 'd') ev_fail(e, "'%%%c' in a format is not known", kind ? kind : ' ');
        struct value v = !many ? (used ? v_undefined(NULL) : args) : used < args.list->n ? args.list->v[used] : v_undefined(NULL);
        if (v.type == V_UNDEFINED) ev_fail(e, "not enough values for a format");
        used++;
        if (kind == 'd' && !is_number(v)) ev_fail(e, "'%%d' wants a number, not a %s", type_name(v));
        out_value(e, &o, kind == 's' ? v : v_int(v.type == V_REAL ? (int64_t)v.r : as_int(v)));
    }
    // Python lets a dict or list stand unused, for formats that look names up in it.
    if (many ? used < args.list->n : !used && args.type != V_DICT && (args.type != V_LIST || !has_places(args)))
        ev_fail(e, "a format has fewer places than values");
    return v_str(o.n ? o.p : "", o.n);
}

static struct value integers(struct eval *e, enum expr_kind kind, int64_t x, int64_t y)
{
    int64_t r = 0;
    bool over = false;
    switch (kind) {
    case X_ADD:
        over = __builtin_add_overflow(x, y, &r);
        break;
    case X_SUB:
        over = __builtin_sub_overflow(x, y, &r);
        break;
    case X_MUL:
        over = __builtin_mul_overflow(x, y, &r);
        break;
    case X_POW:
        if (y < 0 && x == 0) ev_fail(e, "division by zero");
        if (y < 0) return v_real(pow((double)x, (double)y));
        r = 1;
        for (int64_t i = 0; i < y && !over && (i < 64 || (r != 0 && r != 1 && r != -1)); i++) over = __builtin_mul_overflow(r, x, &r);
        if (y > 64 && r == -1 && y % 2 == 0) r = 1;
        break;
    default: // X_FLOORDIV, X_MOD: rounded towards minus infinity
        if (y == 0) ev_fail(e, "division by zero");
        if (y == -1) {
            over = kind == X_FLOORDIV && x == INT64_MIN;
            r = kind == X_FLOORDIV && !over ? -x : 0;
            break;
        }
        r = kind == X_MOD ? x % y : x / y;
        if (x % y != 0 && (x % y < 0) != (y < 0)) r += kind == X_MOD ? y : -1;
    }
    if (over) ev_fail(e, "an integer beyond 64 bits");
    return v_int(r);
}

static struct value reals(struct eval *e, enum expr_kind kind, double x, double y)
{
    if (y == 0 && (kind == X_DIV || kind == X_FLOORDIV || kind == X_MOD)) ev_fail(e, "division by zero");
    switch (kind) {
    case X_ADD:
        return v_real(x + y);
    case X_SUB:
        return v_real(x - y);
    case X_MUL:
        return v_real(x * y);
    case X_DIV:
        return v_real(x / y);
    case X_FLOORDIV:
        return v_real(floor(x / y));
    case X_POW:
        if (x == 0 && y < 0) ev_fail(e, "division by zero");
        if (x < 0 && y != floor(y)) ev_fail(e, "a root of a negative number");
        return v_real(pow(x, y));
    default:
        return v_real(x - floor(x / y) * y);
    }
}

static struct value arithmetic(struct eval *e, enum expr_kind kind, struct value a, struct value b)
{
    static const char *const names[] = {
        [X_ADD] = "+", [X_SUB] = "-", [X_MUL] = "*", [X_DIV] = "/", [X_FLOORDIV] = "//", [X_MOD] = "%", [X_POW] = "**"};
    if (is_number(a) && is_number(b))
        return kind == X_DIV || a.type == V_REAL || b.type == V_REAL ? reals(e, kind, as_real(a), as_real(b))
                                                                     : integers(e, kind, as_int(a), as_int(b));
    if (kind == X_ADD) return plus(e, a, b);
    if (kind == X_MOD && a.type == V_STRING) return format(e, a.s, b);
    if (kind == X_MUL && can_repeat(a) && (b.type == V_INT || b.type == V_BOOL)) return repeat(e, a, as_int(b));
    if (kind == X_MUL && can_repeat(b) && (a.type == V_INT || a.type == V_BOOL)) return repeat(e, b, as_int(a));
    no_operator(e, names[kind], a, b);
    return v_none();
}

static bool compare(struct eval *e, enum compare c, struct value a, struct value b)
{
    switch (c) {
    case C_EQ:
        return values_equal(e, a, b);
    case C_NE:
        return !values_equal(e, a, b);
    case C_LT:
        return values_order(e, a, b) < 0;
    case C_LE:
        return values_order(e, a, b) <= 0;
    case C_GT:
        return values_order(e, a, b) > 0;
    case C_GE:
        return values_order(e, a, b) >= 0;
    case C_IN:
        return value_contains(e, a, b);
    default:
        return !value_contains(e, a, b);
    }
}

// ---- expressions ----

struct call ev_args(struct eval *e, const struct args *a)
{
    struct call c = {0};
    struct list *rest = a->rest ? value_items(e, ev_expr(e, a->rest)) : NULL;
    struct value rest_kw = a->rest_kw ? ev_expr(e, a->rest_kw) : v_none();
    if (a->rest_kw && rest_kw.type != V_DICT) ev_fail(e, "** wants a dict, not a %s", type_name(rest_kw));
    c.v = ev_alloc(e, (a->n + (rest ? rest->n : 0)) * sizeof *c.v);
    c.kw = ev_alloc(e, (a->n_kw + (a->rest_kw ? rest_kw.dict->n : 0) + 1) * sizeof *c.kw); // one more for `caller`
    for (; c.n < a->n; c.n++) c.v[c.n] = ev_expr(e, a->v[c.n]);
    for (size_t i = 0; rest && i < rest->n; i++) c.v[c.n++] = rest->v[i];
    for (; c.n_kw < a->n_kw; c.n_kw++) {
        c.kw[c.n_kw].name = a->kw[c.n_kw].name;
        c.kw[c.n_kw].value = ev_expr(e, a->kw[c.n_kw].value);
    }
    for (size_t i = 0; a->rest_kw && i < rest_kw.dict->n; i++) {
        if (rest_kw.dict->v[i].key.type != V_STRING) ev_fail(e, "** wants names as keys");
        struct str name = rest_kw.dict->v[i].key.s;
        c.kw[c.n_kw].name = v_copy(e, name.p, name.n).s.p;
        c.kw[c.n_kw++].value = rest_kw.dict->v[i].value;
    }
    return c;
}

static struct value comparisons(struct eval *e, const struct expr *x) // a < b < c: each pair must hold
{
    struct value left = ev_expr(e, x->a);
    for (size_t i = 0; i < x->args.n; i++) {
        struct value right = ev_expr(e, x->args.v[i]);
        if (!compare(e, x->ops[i], left, right)) return v_bool(false);
        left = right;
    }
    return v_bool(true);
}

static struct value sign(struct eval *e, const struct expr *x)
{
    struct value v = ev_expr(e, x->a);
    if (!is_number(v)) ev_fail(e, "a sign before a %s", type_name(v));
    if (x->kind == X_POS) return v.type == V_BOOL ? v_int(v.b) : v;
    return v.type == V_REAL ? v_real(-v.r) : integers(e, X_SUB, 0, as_int(v));
}

static struct value apply_filter(struct eval *e, const struct expr *x, struct value v, const struct call *c)
{
    if (!x->builtin) ev_fail(e, "filter '%s' is not known", x->name);
    return ((const struct filter *)x->builtin)->fn(e, v, c);
}

static struct value eval_kind(struct eval *e, const struct expr *x)
{
    struct value v;
    switch (x->kind) {
    case X_CONST:
        return x->value;
    case X_NAME:
        return lookup(e, x->name);
    case X_LIST:
    case X_TUPLE:
        v = v_seq(e, x->kind == X_TUPLE ? SEQ_TUPLE : SEQ_LIST);
        for (size_t i = 0; i < x->args.n; i++) list_push(e, v.list, ev_expr(e, x->args.v[i]));
        return v;
    case X_DICT:
        v = v_dict(e);
        for (size_t i = 0; i < x->args.n; i += 2) {
            struct value key = ev_expr(e, x->args.v[i]);
            dict_set(e, v.dict, key, ev_expr(e, x->args.v[i + 1]));
        }
        return v;
    case X_COND:
        if (is_true(ev_expr(e, x->b))) return ev_expr(e, x->a);
        return x->c ? ev_expr(e, x->c) : v_undefined("an if without else");
    case X_OR:
        return is_true(v = ev_expr(e, x->a)) ? v : ev_expr(e, x->b);
    case X_AND:
        return is_true(v = ev_expr(e, x->a)) ? ev_expr(e, x->b) : v;
    case X_NOT:
        return v_bool(!is_true(ev_expr(e, x->a)));
    case X_COMPARE:
        return comparisons(e, x);
    case X_CONCAT: {
        struct out o = {0};
        out_value(e, &o, ev_expr(e, x->a));
        out_value(e, &o, ev_expr(e, x->b));
        return v_str(o.n ? o.p : "", o.n);
    }
    case X_NEG:
    case X_POS:
        return sign(e, x);
    case X_ATTR:
        v = ev_expr(e, x->a);
        e->line = x->line;
        return get_attr(e, v, x->name);
    case X_ITEM: {
        v = ev_expr(e, x->a);
        struct value key = ev_expr(e, x->b);
        e->line = x->line;
        return get_item(e, v, key);
    }
    case X_SLICE: {
        v = ev_expr(e, x->a);
        struct value lo = x->b ? ev_expr(e, x->b) : v_none(), hi = x->c ? ev_expr(e, x->c) : v_none(),
                     step = x->d ? ev_expr(e, x->d) : v_none();
        return get_slice(e, v, lo, hi, step);
    }
    case X_CALL: {
        v = ev_expr(e, x->a);
        struct call c = ev_args(e, &x->args);
        e->line = x->line;
        return call_value(e, v, &c);
    }
    case X_FILTER: {
        v = ev_expr(e, x->a);
        struct call c = ev_args(e, &x->args);
        e->line = x->line;
        return apply_filter(e, x, v, &c);
    }
    case X_TEST: {
        v = ev_expr(e, x->a);
        struct call c = ev_args(e, &x->args);
        e->line = x->line;
        if (!x->builtin) ev_fail(e, "test '%s' is not known", x->name);
        return v_bool(test_call(e, x->builtin, v, &c) != x->negate);
    }
    default: {
        v = ev_expr(e, x->a);
        struct value b = ev_expr(e, x->b);
        e->line = x->line;
        return arithmetic(e, x->kind, v, b);
    }
    }
}

struct value ev_expr(struct eval *e, const struct expr *x)
{
    ev_step(e, 1);
    e->line = x->line;
    if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "nested more than %d deep", MAX_EVAL_DEPTH);
    struct value v = eval_kind(e, x);
    e->depth--;
    return v;
}

struct value call_value(struct eval *e, struct value f, const struct call *c)
{
    switch (f.type) {
    case V_FUNCTION:
        return f.function->fn(e, c);
    case V_METHOD:
        return method_call(e, f.method, c);
    case V_MACRO:
        return macro_call(e, f.macro, c);
    case V_UNDEFINED:
        ev_fail(e, "'%s' is undefined and cannot be called", f.s.p ? f.s.p : "a value");
    default:
        ev_fail(e, "a %s cannot be called", type_name(f));
    }
}

// filters with the innermost operand given: {% filter a|b %}
struct value ev_filters(struct eval *e, const struct expr *x, struct value v)
{
    if (!x) return v;
    v = ev_filters(e, x->a, v);
    struct call c = ev_args(e, &x->args);
    e->line = x->line;
    return apply_filter(e, x, v, &c);
}
