// The tests of Jinja2: what may stand after `is`.
#include "datasets/template/internal.h"

#include <math.h>
#include <string.h>

#define TEST(name, expr)                                                                                                                   \
    static bool name(struct eval *e, struct value v, const struct call *c)                                                                 \
    {                                                                                                                                      \
        (void)e, (void)c;                                                                                                                  \
        return expr;                                                                                                                       \
    }
static struct value first(struct eval *e, const struct call *c)
{
    if (!c->n) ev_fail(e, "a test lacks its argument");
    return c->v[0];
}
static int64_t whole(struct eval *e, struct value v)
{
    if (v.type == V_BOOL) return v.b;
    if (v.type != V_INT) ev_fail(e, "a test on a %s, wanted an int", type_name(v));
    return v.i;
}
static bool divides(struct eval *e, int64_t n, int64_t by)
{
    if (by == 0) ev_fail(e, "division by zero");
    return by == -1 || n % by == 0;
}
static bool is_name(struct eval *e, struct value v)
{
    if (v.type == V_LIST || v.type == V_DICT) ev_fail(e, "a %s is no name of a filter or test", type_name(v));
    return v.type == V_STRING;
}
static bool cased(struct eval *e, struct value v, char how)
{
    struct str s = to_str(e, v).s, same = change_case(e, s, how).s, other = change_case(e, s, how == 'u' ? 'l' : 'u').s;
    return s.n == same.n && memcmp(s.p, same.p, s.n) == 0 && (s.n != other.n || memcmp(s.p, other.p, s.n) != 0);
}
TEST(t_defined, v.type != V_UNDEFINED)
TEST(t_undefined, v.type == V_UNDEFINED)
TEST(t_none, v.type == V_NONE)
TEST(t_boolean, v.type == V_BOOL)
TEST(t_true, v.type == V_BOOL && v.b)
TEST(t_false, v.type == V_BOOL && !v.b)
TEST(t_integer, v.type == V_INT)
TEST(t_float, v.type == V_REAL)
TEST(t_number, is_number(v))
TEST(t_escaped, v.type == V_STRING && v.markup)
TEST(t_string, v.type == V_STRING)
TEST(t_mapping, v.type == V_DICT)
TEST(t_sequence, v.type == V_STRING || has_places(v) || v.type == V_DICT || v.type == V_UNDEFINED)
TEST(t_iterable, v.type == V_STRING || v.type == V_LIST || v.type == V_DICT || v.type == V_UNDEFINED || v.type == V_LOOP)
TEST(t_callable, v.type == V_FUNCTION || v.type == V_MACRO || v.type == V_METHOD || v.type == V_UNDEFINED) // as Python says of it
TEST(t_eq, values_equal(e, v, first(e, c)))
TEST(t_ne, !values_equal(e, v, first(e, c)))
TEST(t_lt, values_order(e, v, first(e, c)) < 0)
TEST(t_le, values_order(e, v, first(e, c)) <= 0)
TEST(t_gt, values_order(e, v, first(e, c)) > 0)
TEST(t_ge, values_order(e, v, first(e, c)) >= 0)
TEST(t_in, value_contains(e, v, first(e, c)))
TEST(t_odd, v.type == V_REAL ? fabs(v.r - floor(v.r / 2) * 2) == 1 : !divides(e, whole(e, v), 2))
TEST(t_even, v.type == V_REAL ? fabs(v.r - floor(v.r / 2) * 2) == 0 : divides(e, whole(e, v), 2))
TEST(t_divisibleby, divides(e, whole(e, v), whole(e, first(e, c))))
TEST(t_sameas, v.type == first(e, c).type && values_equal(e, v, first(e, c)))
TEST(t_upper, cased(e, v, 'u'))
TEST(t_lower, cased(e, v, 'l'))
TEST(t_filter, is_name(e, v) && filter_find(v_copy(e, v.s.p, v.s.n).s.p) != NULL)
TEST(t_test, is_name(e, v) && test_find(v_copy(e, v.s.p, v.s.n).s.p) != NULL)

const struct test *test_find(const char *name)
{
    static const struct test tests[] = {
        {"!=", t_ne, 1},
        {"<", t_lt, 1},
        {"<=", t_le, 1},
        {"==", t_eq, 1},
        {">", t_gt, 1},
        {">=", t_ge, 1},
        {"boolean", t_boolean, 0},
        {"callable", t_callable, 0},
        {"defined", t_defined, 0},
        {"divisibleby", t_divisibleby, 1},
        {"eq", t_eq, 1},
        {"equalto", t_eq, 1},
        {"escaped", t_escaped, 0},
        {"even", t_even, 0},
        {"false", t_false, 0},
        {"filter", t_filter, 0},
        {"float", t_float, 0},
        {"ge", t_ge, 1},
        {"greaterthan", t_gt, 1},
        {"gt", t_gt, 1},
        {"in", t_in, 1},
        {"integer", t_integer, 0},
        {"iterable", t_iterable, 0},
        {"le", t_le, 1},
        {"lessthan", t_lt, 1},
        {"lower", t_lower, 0},
        {"lt", t_lt, 1},
        {"mapping", t_mapping, 0},
        {"ne", t_ne, 1},
        {"none", t_none, 0},
        {"number", t_number, 0},
        {"odd", t_odd, 0},
        {"sameas", t_sameas, 1},
        {"sequence", t_sequence, 0},
        {"string", t_string, 0},
        {"test", t_test, 0},
        {"true", t_true, 0},
        {"undefined", t_undefined, 0},
        {"upper", t_upper, 0},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (strcmp(tests[i].name, name) == 0) return &tests[i];
    return NULL;
}

bool test_call(struct eval *e, const struct test *t, struct value v, const struct call *c)
{
    if (c->n + c->n_kw != t->n_arg) ev_fail(e, "test '%s' takes %zu arguments, %zu given", t->name, t->n_arg, c->n + c->n_kw);
    return t->fn(e, v, c);
}
