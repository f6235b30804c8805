// Expressions, from tokens to the tree, by recursive descent, in Jinja's grammar and precedences. A construct that is not known is an error
// here, with its name and line, before anything is rendered; a filter or test that is not known, when it is reached.
#include "datasets/template/parser.h"

static struct expr *primary(struct parser *p);
static struct expr *unary(struct parser *p, bool with_filter);

// After '(': positional arguments, then name=value.
static struct args arguments(struct parser *p)
{
    struct args a = {0};
    while (!take_op(p, ")")) {
        if (a.n || a.n_kw || a.rest || a.rest_kw) {
            want_op(p, ",");
            if (take_op(p, ")")) break;
        }
        if (take_op(p, "*"))
            a.rest = parse_expression(p);
        else if (take_op(p, "**"))
            a.rest_kw = parse_expression(p);
        else if (cur(p)->kind == T_NAME && p->t[p->at + 1].kind == T_OP && strcmp(p->t[p->at + 1].s, "=") == 0) {
            a.kw = grow(p, a.kw, a.n_kw, sizeof *a.kw);
            a.kw[a.n_kw].name = want_name(p, "a name");
            p->at++;
            a.kw[a.n_kw++].value = parse_expression(p);
        } else {
            if (a.n_kw || a.rest || a.rest_kw) source_fail(p->src, cur(p)->line, "a positional argument after name=value, * or **");
            push_expr(p, &a, parse_expression(p));
        }
    }
    return a;
}

static struct expr *subscript(struct parser *p, struct expr *a)
{
    struct expr *x = node(p, X_ITEM), *lo = NULL;
    x->a = a;
    if (!is_op(p, ":")) lo = parse_expression(p);
    if (!is_op(p, ":")) {
        x->b = lo;
        if (is_op(p, ",")) source_fail(p->src, cur(p)->line, "a subscript of several parts is not known");
        want_op(p, "]");
        return x;
    }
    x->kind = X_SLICE;
    x->b = lo;
    want_op(p, ":");
    if (!is_op(p, ":") && !is_op(p, "]")) x->c = parse_expression(p);
    if (take_op(p, ":") && !is_op(p, "]")) x->d = parse_expression(p);
    want_op(p, "]");
    return x;
}

static struct expr *call(struct parser *p, struct expr *f)
{
    struct expr *x = node(p, X_CALL);
    x->a = f;
    x->args = arguments(p);
    return x;
}

static struct expr *postfix(struct parser *p, struct expr *x)
{
    for (;;) {
        if (take_op(p, ".")) {
            struct expr *y = node(p, X_ATTR);
            y->a = x;
            if (cur(p)->kind == T_INT) { // items.0
                y->kind = X_ITEM;
                y->b = node(p, X_CONST);
                y->b->value = v_int(cur(p)->i);
                p->at++;
            } else
                y->name = want_name(p, "a name after '.'");
            x = y;
        } else if (take_op(p, "["))
            x = subscript(p, x);
        else if (take_op(p, "("))
            x = call(p, x);
        else
            return x;
    }
}

struct expr *parse_filter(struct parser *p, struct expr *x)
{
    struct expr *y = node(p, X_FILTER);
    y->a = x;
    y->name = want_name(p, "a filter's name");
    y->builtin = filter_find(y->name); // NULL: an error when it is reached, as in Jinja; templates guard what only some engines know
    if (take_op(p, "(")) y->args = arguments(p);
    return y;
}

static struct expr *test(struct parser *p, struct expr *x)
{
    struct expr *y = node(p, X_TEST);
    y->a = x;
    y->negate = take_name(p, "not");
    y->name = want_name(p, "a test's name after 'is'");
    y->builtin = test_find(y->name); // NULL: as with filters
    const struct token *t = cur(p);
    if (take_op(p, "("))
        y->args = arguments(p);
    else if (is_name(p, "is"))
        source_fail(p->src, t->line, "a test of a test: 'is' cannot be chained");
    // Any other name is the test's argument, `if` and `in` too: that is Jinja's grammar.
    else if (t->kind == T_STRING || t->kind == T_INT || t->kind == T_REAL || is_op(p, "[") || is_op(p, "{") ||
             (t->kind == T_NAME && !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and")))
        push_expr(p, &y->args, postfix(p, primary(p)));
    return y;
}

static struct expr *filters(struct parser *p, struct expr *x)
{
    for (;;) {
        if (take_op(p, "|"))
            x = parse_filter(p, x);
        else if (take_name(p, "is"))
            x = test(p, x);
        else if (take_op(p, "("))
            x = call(p, x);
        else
            return x;
    }
}

// After '(': a value in parentheses, or a tuple.
static struct expr *parenthesis(struct parser *p)
{
    struct expr *x = node(p, X_TUPLE);
    if (take_op(p, ")")) return x;
    struct expr *first = parse_expression(p);
    if (take_op(p, ")")) return first;
    push_expr(p, &x->args, first);
    while (take_op(p, ",") && !is_op(p, ")")) push_expr(p, &x->args, parse_expression(p));
    want_op(p, ")");
    return x;
}

static struct expr *primary(struct parser *p)
{
    const struct token *t = cur(p);
    struct expr *x = node(p, X_CONST);
    switch (t->kind) {
    case T_NAME:
        p->at++;
        if (strcmp(t->s, "true") == 0 || strcmp(t->s, "True") == 0)
            x->value = v_bool(true);
        else if (strcmp(t->s, "false") == 0 || strcmp(t->s, "False") == 0)
            x->value = v_bool(false);
        else if (strcmp(t->s, "none") == 0 || strcmp(t->s, "None") == 0)
            x->value = v_none();
        else
            x->kind = X_NAME, x->name = t->s;
        return x;
    case T_INT:
        p->at++;
        x->value = v_int(t->i);
        return x;
    case T_REAL:
        p->at++;
        x->value = v_real(t->r);
        return x;
    case T_STRING: {
        struct str s = {t->s, t->n};
        for (p->at++; cur(p)->kind == T_STRING; p->at++) { // adjacent strings are one
            char *joined = pool_alloc(p->src->pool, s.n + cur(p)->n + 1);
            memcpy(joined, s.p, s.n);
            memcpy(joined + s.n, cur(p)->s, cur(p)->n);
            s = (struct str){joined, s.n + cur(p)->n};
        }
        x->value = v_str(s.p, s.n);
        return x;
    }
    default:
        break;
    }
    if (take_op(p, "(")) return parenthesis(p);
    if (take_op(p, "[")) {
        x->kind = X_LIST;
        while (!take_op(p, "]")) {
            if (x->args.n) {
                want_op(p, ",");
                if (take_op(p, "]")) break;
            }
            push_expr(p, &x->args, parse_expression(p));
        }
        return x;
    }
    if (take_op(p, "{")) {
        x->kind = X_DICT;
        while (!take_op(p, "}")) {
            if (x->args.n) {
                want_op(p, ",");
                if (take_op(p, "}")) break;
            }
            push_expr(p, &x->args, parse_expression(p));
            want_op(p, ":");
            push_expr(p, &x->args, parse_expression(p));
        }
        return x;
    }
    source_fail(p->src, t->line, "expected a value, found %s", shown(t));
}

static struct expr *unary(struct parser *p, bool with_filter)
{
    struct expr *x;
    enter(p);
    if (is_op(p, "-") || is_op(p, "+")) {
        x = node(p, is_op(p, "-") ? X_NEG : X_POS);
        p->at++;
        x->a = unary(p, false);
    } else
        x = primary(p);
    x = postfix(p, x);
    if (with_filter) x = filters(p, x);
    p->depth--;
    return x;
}

// Left-associative operators of one precedence: names with their kinds, NULL last; next is the tighter level.
struct level {
    const char *op;
    enum expr_kind kind;
};
static struct expr *binary(struct parser *p, const struct level *levels, struct expr *(*next)(struct parser *))
{
    struct expr *x = next(p);
    for (;;) {
        const struct level *l = levels;
        while (l->op && !is_op(p, l->op)) l++;
        if (!l->op) return x;
        p->at++;
        x = node2(p, l->kind, x, next(p));
    }
}
static struct expr *operand(struct parser *p)
{
    return unary(p, true);
}
static struct expr *power(struct parser *p)
{
    static const struct level l[] = {{"**", X_POW}, {0}};
    return binary(p, l, operand);
}
static struct expr *product(struct parser *p)
{
    static const struct level l[] = {{"*", X_MUL}, {"/", X_DIV}, {"//", X_FLOORDIV}, {"%", X_MOD}, {0}};
    return binary(p, l, power);
}
static struct expr *concat(struct parser *p)
{
    static const struct level l[] = {{"~", X_CONCAT}, {0}};
    return binary(p, l, product);
}
static struct expr *sum(struct parser *p)
{
    static const struct level l[] = {{"+", X_ADD}, {"-", X_SUB}, {0}};
    return binary(p, l, concat);
}

static struct expr *comparison(struct parser *p)
{
    static const struct {
        const char *op;
        enum compare c;
    } ops[] = {{"==", C_EQ}, {"!=", C_NE}, {"<=", C_LE}, {">=", C_GE}, {"<", C_LT}, {">", C_GT}};
    struct expr *x = NULL, *first = sum(p);
    for (;;) {
        enum compare c = C_EQ;
        size_t k = 0;
        while (k < 6 && !is_op(p, ops[k].op)) k++;
        if (k < 6)
            c = ops[k].c, p->at++;
        else if (take_name(p, "in"))
            c = C_IN;
        else if (is_name(p, "not") && p->t[p->at + 1].kind == T_NAME && strcmp(p->t[p->at + 1].s, "in") == 0)
            c = C_NOT_IN, p->at += 2;
        else
            return x ? x : first;
        if (!x) x = node2(p, X_COMPARE, first, NULL);
        x->ops = grow(p, x->ops, x->args.n, sizeof *x->ops);
        x->ops[x->args.n] = c;
        push_expr(p, &x->args, sum(p));
    }
}

static struct expr *negation(struct parser *p)
{
    if (!is_name(p, "not")) return comparison(p);
    struct expr *x = node(p, X_NOT);
    p->at++;
    enter(p);
    x->a = negation(p);
    p->depth--;
    return x;
}
static struct expr *conjunction(struct parser *p)
{
    struct expr *x = negation(p);
    while (take_name(p, "and")) x = node2(p, X_AND, x, negation(p));
    return x;
}
struct expr *parse_or(struct parser *p)
{
    struct expr *x = conjunction(p);
    while (take_name(p, "or")) x = node2(p, X_OR, x, conjunction(p));
    return x;
}

struct expr *parse_expression(struct parser *p)
{
    enter(p);
    struct expr *x = parse_or(p);
    while (take_name(p, "if")) { // a if cond else b; without else it is undefined
        struct expr *y = node(p, X_COND);
        y->a = x;
        y->b = parse_or(p);
        if (take_name(p, "else")) y->c = parse_expression(p);
        x = y;
    }
    p->depth--;
    return x;
}

// a, b, c without parentheses; `one` parses each.
struct expr *parse_tuple(struct parser *p, struct expr *(*one)(struct parser *))
{
    struct expr *first = one(p);
    if (!is_op(p, ",")) return first;
    struct expr *x = node(p, X_TUPLE);
    push_expr(p, &x->args, first);
    while (take_op(p, ",") && cur(p)->kind != T_BLOCK_END && cur(p)->kind != T_VAR_END && !is_op(p, "=") && !is_name(p, "in"))
        push_expr(p, &x->args, one(p));
    return x;
}
