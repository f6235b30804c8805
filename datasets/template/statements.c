// Statements, from tokens to the tree: the tags {% … %} that Jinja, its loop controls and transformers' extension define.
#include "datasets/template/parser.h"

static struct expr *target_name(struct parser *p)
{
    if (take_op(p, "(")) {
        struct expr *x = parse_tuple(p, target_name);
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
    struct expr *cond = parse_tuple(p, parse_or); // Jinja: no `a if b else c` here without parentheses
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
        cond = otherwise ? NULL : parse_tuple(p, parse_or);
    }
    block_end(p);
}

static void parse_for(struct parser *p, struct stmt *s)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    s->target = parse_tuple(p, target_name);
    if (!take_name(p, "in")) source_fail(p->src, cur(p)->line, "expected 'in', found %s", shown(cur(p)));
    s->expr = parse_tuple(p, parse_or);
    if (take_name(p, "if")) s->cond = parse_expression(p);
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
    while (take_op(p, "|")) x = parse_filter(p, x);
    return x;
}

static void parse_set(struct parser *p, struct stmt *s)
{
    s->target = parse_tuple(p, target_name);
    if (s->target->kind == X_NAME && take_op(p, ".")) {
        struct expr *x = node(p, X_ATTR);
        x->a = s->target;
        x->name = want_name(p, "a name after '.'");
        s->target = x;
    }
    if (take_op(p, "=")) {
        s->expr = parse_tuple(p, parse_expression);
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
        if (take_op(p, "=")) m->def[m->n_param - 1] = parse_expression(p);
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
        s->with[s->n_with++].value = parse_expression(p);
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
        s->expr = parse_expression(p);
        if (s->expr->kind != X_CALL) source_fail(p->src, t->line, "{%% call %%} wants a call");
        block_end(p);
        p->in_loop = 0;
        s->macro->body = body_until(p, "endcall");
    } else if (strcmp(name, "filter") == 0) {
        s->kind = S_FILTER;
        s->filter = filter_chain(p, parse_filter(p, NULL));
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
            s->expr = parse_tuple(p, parse_expression);
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
