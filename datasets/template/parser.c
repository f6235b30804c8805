// From tokens to the tree, by recursive descent, in Jinja's grammar and precedences. A construct that is not known is an error
// here, with its name and line, before anything is rendered; a filter or test that is not known, when it is reached.
#include "datasets/template/internal.h"

#include <string.h>

struct parser {
    struct source *src;
    const struct token *t;
    size_t at;
    int depth;
    int in_loop;
    bool has_generation;
};

static const struct token *cur(const struct parser *p)
{
    return &p->t[p->at];
}
static bool is_op(const struct parser *p, const char *op)
{
    return cur(p)->kind == T_OP && strcmp(cur(p)->s, op) == 0;
}
static bool is_name(const struct parser *p, const char *name)
{
    return cur(p)->kind == T_NAME && strcmp(cur(p)->s, name) == 0;
}
static bool take_op(struct parser *p, const char *op)
{
    return is_op(p, op) && ++p->at;
}
static bool take_name(struct parser *p, const char *name)
{
    return is_name(p, name) && ++p->at;
}

static const char *shown(const struct token *t)
{
    return t->kind == T_DATA ? "text" : t->kind == T_STRING ? "a string" : t->s;
}
static void want_op(struct parser *p, const char *op)
{
    if (!take_op(p, op)) source_fail(p->src, cur(p)->line, "expected '%s', found %s", op, shown(cur(p)));
}
static const char *want_name(struct parser *p, const char *what)
{
    if (cur(p)->kind != T_NAME) source_fail(p->src, cur(p)->line, "expected %s, found %s", what, shown(cur(p)));
    return p->t[p->at++].s;
}
static void enter(struct parser *p)
{
    if (++p->depth > MAX_PARSE_DEPTH) source_fail(p->src, cur(p)->line, "nested more than %d deep", MAX_PARSE_DEPTH);
}

static struct expr *node(struct parser *p, enum expr_kind kind)
{
    struct expr *x = pool_alloc(p->src->pool, sizeof *x);
    x->kind = kind;
    x->line = cur(p)->line;
    return x;
}
static struct expr *node2(struct parser *p, enum expr_kind kind, struct expr *a, struct expr *b)
{
    struct expr *x = node(p, kind);
    x->a = a;
    x->b = b;
    x->line = a->line;
    return x;
}
// Appends to an array in the pool whose capacity is the next power of two of its length.
static void *grow(struct parser *p, void *v, size_t n, size_t size)
{
    if (n & (n - 1)) return v;
    char *bigger = pool_alloc(p->src->pool, (n ? n * 2 : 1) * size);
    if (n) memcpy(bigger, v, n * size);
    return bigger;
}
static void push_expr(struct parser *p, struct args *a, struct expr *x)
{
    a->v = grow(p, a->v, a->n, sizeof *a->v);
    a->v[a->n++] = x;
}

static struct expr *expression(struct parser *p);
static struct expr *primary(struct parser *p);
static struct expr *unary(struct parser *p, bool with_filter);
static struct expr *disjunction(struct parser *p);

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
            a.rest = expression(p);
        else if (take_op(p, "**"))
            a.rest_kw = expression(p);
        else if (cur(p)->kind == T_NAME && p->t[p->at + 1].kind == T_OP && strcmp(p->t[p->at + 1].s, "=") == 0) {
            a.kw = grow(p, a.kw, a.n_kw, sizeof *a.kw);
            a.kw[a.n_kw].name = want_name(p, "a name");
            p->at++;
            a.kw[a.n_kw++].value = expression(p);
        } else {
            if (a.n_kw || a.rest || a.rest_kw) source_fail(p->src, cur(p)->line, "a positional argument after name=value, * or **");
            push_expr(p, &a, expression(p));
        }
    }
    return a;
}

static struct expr *subscript(struct parser *p, struct expr *a)
{
    struct expr *x = node(p, X_ITEM), *lo = NULL;
    x->a = a;
    if (!is_op(p, ":")) lo = expression(p);
    if (!is_op(p, ":")) {
        x->b = lo;
        if (is_op(p, ",")) source_fail(p->src, cur(p)->line, "a subscript of several parts is not known");
        want_op(p, "]");
        return x;
    }
    x->kind = X_SLICE;
    x->b = lo;
    want_op(p, ":");
    if (!is_op(p, ":") && !is_op(p, "]")) x->c = expression(p);
    if (take_op(p, ":") && !is_op(p, "]")) x->d = expression(p);
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

static struct expr *filter(struct parser *p, struct expr *x)
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
    else if (t->kind == T_STRING || t->kind == T_INT || t->kind == T_REAL || is_op(p, "[") || is_op(p, "{") ||
             (t->kind == T_NAME && !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and") && !is_name(p, "if") &&
              !is_name(p, "is") && !is_name(p, "in") && !is_name(p, "not")))
        push_expr(p, &y->args, postfix(p, primary(p)));
    return y;
}

static struct expr *filters(struct parser *p, struct expr *x)
{
    for (;;) {
        if (take_op(p, "|"))
            x = filter(p, x);
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
    struct expr *first = expression(p);
    if (take_op(p, ")")) return first;
    push_expr(p, &x->args, first);
    while (take_op(p, ",") && !is_op(p, ")")) push_expr(p, &x->args, expression(p));
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
            push_expr(p, &x->args, expression(p));
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
            push_expr(p, &x->args, expression(p));
            want_op(p, ":");
            push_expr(p, &x->args, expression(p));
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
static struct expr *disjunction(struct parser *p)
{
    struct expr *x = conjunction(p);
    while (take_name(p, "or")) x = node2(p, X_OR, x, conjunction(p));
    return x;
}

static struct expr *expression(struct parser *p)
{
    enter(p);
    struct expr *x = disjunction(p);
    while (take_name(p, "if")) { // a if cond else b; without else it is undefined
        struct expr *y = node(p, X_COND);
        y->a = x;
        y->b = disjunction(p);
        if (take_name(p, "else")) y->c = expression(p);
        x = y;
    }
    p->depth--;
    return x;
}

// a, b, c without parentheses; `one` parses each.
static struct expr *bare_tuple(struct parser *p, struct expr *(*one)(struct parser *))
{
    struct expr *first = one(p);
    if (!is_op(p, ",")) return first;
    struct expr *x = node(p, X_TUPLE);
    push_expr(p, &x->args, first);
    while (take_op(p, ",") && cur(p)->kind != T_BLOCK_END && cur(p)->kind != T_VAR_END && !is_op(p, "=") && !is_name(p, "in"))
        push_expr(p, &x->args, one(p));
    return x;
}

// ---- statements ----

static struct expr *target_name(struct parser *p)
{
    if (take_op(p, "(")) {
        struct expr *x = bare_tuple(p, target_name);
        want_op(p, ")");
        return x;
    }
    struct expr *x = node(p, X_NAME);
    x->name = want_name(p, "a name to assign to");
    if (!strcmp(x->name, "true") || !strcmp(x->name, "false") || !strcmp(x->name, "none"))
        source_fail(p->src, x->line, "'%s' cannot be assigned to", x->name);
    return x;
}

static struct body statements(struct parser *p, const char *const *ends);

static void block_end(struct parser *p)
{
    if (cur(p)->kind != T_BLOCK_END) source_fail(p->src, cur(p)->line, "expected %%}, found %s", shown(cur(p)));
    p->at++;
}

// The body up to {% end %} of one name, which is consumed.
static struct body body_until(struct parser *p, const char *end)
{
    const char *ends[] = {end, NULL};
    struct body b = statements(p, ends);
    p->at++;
    if (cur(p)->kind == T_NAME && strcmp(end, "endmacro") == 0) p->at++; // {% endmacro name %}
    block_end(p);
    return b;
}

static void parse_if(struct parser *p, struct stmt *s)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct expr *cond = bare_tuple(p, expression);
    for (;;) {
        block_end(p);
        s->branch = grow(p, s->branch, s->n_branch, sizeof *s->branch);
        struct branch *b = &s->branch[s->n_branch++];
        b->cond = cond;
        struct body body = statements(p, ends);
        s->branch[s->n_branch - 1].body = body;
        if (take_name(p, "endif")) break;
        bool otherwise = is_name(p, "else");
        if (otherwise && !cond) source_fail(p->src, cur(p)->line, "a second else");
        p->at++;
        if (!otherwise && !cond) source_fail(p->src, cur(p)->line, "elif after else");
        cond = otherwise ? NULL : bare_tuple(p, expression);
    }
    block_end(p);
}

static void parse_for(struct parser *p, struct stmt *s)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    s->target = bare_tuple(p, target_name);
    if (!take_name(p, "in")) source_fail(p->src, cur(p)->line, "expected 'in', found %s", shown(cur(p)));
    s->expr = bare_tuple(p, disjunction);
    if (take_name(p, "if")) s->cond = expression(p);
    if (is_name(p, "recursive")) source_fail(p->src, cur(p)->line, "recursive loops are not known");
    block_end(p);
    p->in_loop++;
    s->body = statements(p, ends);
    p->in_loop--;
    if (take_name(p, "else")) {
        block_end(p);
        s->otherwise = statements(p, ends + 1);
    }
    p->at++;
    block_end(p);
}

static struct expr *filter_chain(struct parser *p, struct expr *x)
{
    while (take_op(p, "|")) x = filter(p, x);
    return x;
}

static void parse_set(struct parser *p, struct stmt *s)
{
    s->target = bare_tuple(p, target_name);
    if (s->target->kind == X_NAME && take_op(p, ".")) {
        struct expr *x = node(p, X_ATTR);
        x->a = s->target;
        x->name = want_name(p, "a name after '.'");
        s->target = x;
    }
    if (take_op(p, "=")) {
        s->expr = bare_tuple(p, expression);
        block_end(p);
        return;
    }
    s->kind = S_SET_BLOCK;
    s->filter = filter_chain(p, NULL);
    block_end(p);
    s->body = body_until(p, "endset");
}

// After '(': parameters with defaults.
static void parameters(struct parser *p, struct macro *m)
{
    while (!take_op(p, ")")) {
        if (m->n_param) {
            want_op(p, ",");
            if (take_op(p, ")")) break;
        }
        m->param = grow(p, m->param, m->n_param, sizeof *m->param);
        m->def = grow(p, m->def, m->n_param, sizeof *m->def);
        m->param[m->n_param] = want_name(p, "a parameter's name");
        m->def[m->n_param] = NULL;
        m->n_param++;
        if (take_op(p, "=")) m->def[m->n_param - 1] = expression(p);
    }
}

static struct macro *macro_new(struct parser *p, const char *name)
{
    struct macro *m = pool_alloc(p->src->pool, sizeof *m);
    m->name = name;
    m->line = cur(p)->line;
    return m;
}

static void parse_with(struct parser *p, struct stmt *s)
{
    while (cur(p)->kind != T_BLOCK_END) {
        if (s->n_with) want_op(p, ",");
        s->with = grow(p, s->with, s->n_with, sizeof *s->with);
        s->with[s->n_with].name = want_name(p, "a name");
        want_op(p, "=");
        s->with[s->n_with++].value = expression(p);
    }
    block_end(p);
    s->body = body_until(p, "endwith");
}

static void parse_block(struct parser *p, struct stmt *s)
{
    const struct token *t = cur(p);
    const char *name = want_name(p, "a statement");
    int in_loop = p->in_loop;
    if (strcmp(name, "if") == 0)
        s->kind = S_IF, parse_if(p, s);
    else if (strcmp(name, "for") == 0)
        s->kind = S_FOR, parse_for(p, s);
    else if (strcmp(name, "set") == 0)
        s->kind = S_SET, parse_set(p, s);
    else if (strcmp(name, "macro") == 0) {
        s->kind = S_MACRO;
        s->macro = macro_new(p, want_name(p, "the macro's name"));
        want_op(p, "(");
        parameters(p, s->macro);
        block_end(p);
        p->in_loop = 0;
        s->macro->body = body_until(p, "endmacro");
    } else if (strcmp(name, "call") == 0) {
        s->kind = S_CALL;
        s->macro = macro_new(p, "caller");
        if (take_op(p, "(")) parameters(p, s->macro);
        s->expr = expression(p);
        if (s->expr->kind != X_CALL) source_fail(p->src, t->line, "{%% call %%} wants a call");
        block_end(p);
        p->in_loop = 0;
        s->macro->body = body_until(p, "endcall");
    } else if (strcmp(name, "filter") == 0) {
        s->kind = S_FILTER;
        s->filter = filter_chain(p, filter(p, NULL));
        block_end(p);
        s->body = body_until(p, "endfilter");
    } else if (strcmp(name, "with") == 0)
        s->kind = S_WITH, parse_with(p, s);
    else if (strcmp(name, "generation") == 0) {
        s->kind = S_GENERATION;
        p->has_generation = true;
        block_end(p);
        p->in_loop = 0; // the body is a function of its own in Jinja's extension
        s->body = body_until(p, "endgeneration");
    } else if (strcmp(name, "break") == 0 || strcmp(name, "continue") == 0) {
        s->kind = name[0] == 'b' ? S_BREAK : S_CONTINUE;
        if (!p->in_loop) source_fail(p->src, t->line, "'%s' outside a loop", name);
        block_end(p);
    } else
        source_fail(p->src, t->line, "statement '%s' is not known", name);
    p->in_loop = in_loop;
}

// Statements up to a block that begins with one of `ends` (its name is then current), or the end of the text when ends is NULL.
static struct body statements(struct parser *p, const char *const *ends)
{
    struct body b = {0};
    int opened = p->t[p->at ? p->at - 1 : 0].line;
    enter(p);
    for (;;) {
        const struct token *t = cur(p);
        if (t->kind == T_END) {
            if (ends) source_fail(p->src, opened, "a block is not closed: no {%% %s %%} follows", ends[0]);
            break;
        }
        if (t->kind == T_BLOCK_BEGIN) {
            p->at++;
            bool end = false;
            for (const char *const *e = ends; e && *e; e++) end |= is_name(p, *e);
            if (end) break;
        }
        struct stmt *s = pool_alloc(p->src->pool, sizeof *s);
        s->line = t->line;
        if (t->kind == T_DATA)
            s->kind = S_DATA, s->data = (struct str){t->s, t->n}, p->at++;
        else if (t->kind == T_VAR_BEGIN) {
            p->at++;
            s->kind = S_PRINT;
            s->expr = bare_tuple(p, expression);
            if (cur(p)->kind != T_VAR_END) source_fail(p->src, cur(p)->line, "expected }}, found %s", shown(cur(p)));
            p->at++;
        } else
            parse_block(p, s);
        b.v = grow(p, b.v, b.n, sizeof *b.v);
        b.v[b.n++] = s;
    }
    p->depth--;
    return b;
}

struct body template_tree(struct source *src, const struct token *tokens, size_t n, bool *has_generation)
{
    (void)n;
    struct parser p = {.src = src, .t = tokens};
    struct body b = statements(&p, NULL);
    *has_generation = p.has_generation;
    return b;
}
