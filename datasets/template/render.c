// Statements: what a template does, in order. for, macro, call, with and filter blocks open a scope, so that what is set inside does not
// leak out; if does not (Jinja's rules).
#include "datasets/template/eval.h"

#include <string.h>

enum flow { F_NEXT, F_BREAK, F_CONTINUE };
static enum flow run_body(struct eval *e, const struct body *b);

static void assign(struct eval *e, const struct expr *target, struct value v)
{
    e->line = target->line;
    if (target->kind == X_NAME) {
        scope_set(e, e->scope, target->name, v);
        return;
    }
    if (target->kind == X_ATTR) {
        struct value ns = ev_expr(e, target->a);
        if (ns.type != V_NAMESPACE) ev_fail(e, "'%s' is a %s: only a namespace's attributes can be set", target->a->name, type_name(ns));
        namespace_check(e, v_cstr(target->name));
        dict_set(e, ns.dict, v_cstr(target->name), v);
        return;
    }
    struct list *l = value_items(e, v);
    if (l->n != target->args.n) ev_fail(e, "%zu values for %zu names", l->n, target->args.n);
    for (size_t i = 0; i < l->n; i++) assign(e, target->args.v[i], l->v[i]);
}

// Runs a body with its text caught instead of printed, in a scope of its own.
static struct value capture(struct eval *e, const struct body *b)
{
    struct out o = {0}, *before = e->out;
    struct scope *outer = scope_push(e);
    e->out = &o;
    run_body(e, b);
    e->out = before;
    e->scope = outer;
    return v_str(o.n ? o.p : "", o.n);
}

struct value macro_call(struct eval *e, const struct macro *m, const struct call *c)
{
    if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "macro '%s' calls too deeply", m->name);
    struct scope *before = e->scope;
    e->scope = m->scope;
    scope_push(e);
    size_t n_known = m->n_param < c->n ? m->n_param : c->n;
    for (size_t i = 0; i < n_known; i++) scope_set(e, e->scope, m->param[i], c->v[i]);
    if (c->n > m->n_param) ev_fail(e, "macro '%s' takes %zu arguments, %zu given", m->name, m->n_param, c->n);
    for (size_t k = 0; k < c->n_kw; k++) {
        size_t i = 0;
        while (i < m->n_param && strcmp(m->param[i], c->kw[k].name) != 0) i++;
        if (i == m->n_param && strcmp(c->kw[k].name, "caller") != 0) ev_fail(e, "macro '%s' has no parameter '%s'", m->name, c->kw[k].name);
        if (i < n_known) ev_fail(e, "macro '%s' is given '%s' twice", m->name, c->kw[k].name);
        scope_set(e, e->scope, c->kw[k].name, c->kw[k].value);
    }
    for (size_t i = n_known; i < m->n_param; i++) {
        bool given = false;
        for (size_t k = 0; k < c->n_kw; k++) given |= strcmp(m->param[i], c->kw[k].name) == 0;
        if (!given) scope_set(e, e->scope, m->param[i], m->def[i] ? ev_expr(e, m->def[i]) : v_undefined(m->param[i]));
    }
    struct value text = capture(e, &m->body);
    e->scope = before;
    e->depth--;
    return text;
}

// The macro as a value: the tree's one with the scope it is defined in.
static struct value macro_value(struct eval *e, const struct macro *m)
{
    struct macro *bound = ev_alloc(e, sizeof *bound);
    *bound = *m;
    bound->scope = e->scope;
    return V(V_MACRO, .macro = bound);
}

static void run_call(struct eval *e, const struct stmt *s)
{
    const struct expr *x = s->expr; // {% call macro(args) %}: the body becomes its argument `caller`
    struct value f = ev_expr(e, x->a);
    struct call c = ev_args(e, &x->args);
    c.kw[c.n_kw].name = "caller";
    c.kw[c.n_kw++].value = macro_value(e, s->macro);
    e->line = s->line;
    if (f.type != V_MACRO) ev_fail(e, "{%% call %%} wants a macro, not a %s", type_name(f));
    out_value(e, e->out, call_value(e, f, &c));
}

static enum flow run_for(struct eval *e, const struct stmt *s)
{
    struct list *items = value_items(e, ev_expr(e, s->expr));
    struct scope *outer = e->scope;
    e->line = s->line;
    if (s->cond) { // loop counts only the items that pass
        struct value kept = v_list(e);
        for (size_t i = 0; i < items->n; i++) {
            scope_push(e);
            assign(e, s->target, items->v[i]);
            if (is_true(ev_expr(e, s->cond))) list_push(e, kept.list, items->v[i]);
            e->scope = outer;
        }
        items = kept.list;
    }
    struct loop *loop = ev_alloc(e, sizeof *loop);
    *loop = (struct loop){.items = items};
    bool whole = false; // a body has run to its end: as Jinja has it, `else` is for when none did, be it for break or continue
    for (; loop->at < items->n; loop->at++) {
        ev_step(e, 1);
        scope_push(e);
        scope_set(e, e->scope, "loop", V(V_LOOP, .loop = loop));
        assign(e, s->target, items->v[loop->at]);
        enum flow f = run_body(e, &s->body);
        e->scope = outer;
        whole |= f == F_NEXT;
        if (f == F_BREAK) break;
    }
    if (!whole) {
        scope_push(e);
        enum flow f = run_body(e, &s->otherwise);
        e->scope = outer;
        return f;
    }
    return F_NEXT;
}

static void run_generation(struct eval *e, const struct stmt *s)
{
    struct value text = capture(e, &s->body);
    size_t span[2] = {e->out->n, e->out->n + text.s.n};
    out_put(e, e->out, text.s.p, text.s.n);
    // Inside a macro or a caught block the place in the whole text is not known yet; transformers' extension fails there too.
    if (e->spans && e->out == e->top) buf_put(e->spans, span, sizeof span);
}

static enum flow run_stmt(struct eval *e, const struct stmt *s)
{
    struct scope *outer = e->scope;
    enum flow f = F_NEXT;
    switch (s->kind) {
    case S_DATA:
        out_put(e, e->out, s->data.p, s->data.n);
        break;
    case S_PRINT: {
        struct value v = ev_expr(e, s->expr);
        e->line = s->line;
        out_value(e, e->out, v);
        break;
    }
    case S_IF:
        for (size_t i = 0; i < s->n_branch; i++)
            if (!s->branch[i].cond || is_true(ev_expr(e, s->branch[i].cond))) return run_body(e, &s->branch[i].body);
        break;
    case S_FOR:
        return run_for(e, s);
    case S_SET:
        assign(e, s->target, ev_expr(e, s->expr));
        break;
    case S_SET_BLOCK:
        assign(e, s->target, ev_filters(e, s->filter, capture(e, &s->body)));
        break;
    case S_MACRO:
        scope_set(e, e->scope, s->macro->name, macro_value(e, s->macro));
        break;
    case S_CALL:
        run_call(e, s);
        break;
    case S_FILTER:
        out_value(e, e->out, ev_filters(e, s->filter, capture(e, &s->body)));
        break;
    case S_WITH: {
        struct value *v = ev_alloc(e, s->n_with * sizeof *v);
        for (size_t i = 0; i < s->n_with; i++) v[i] = ev_expr(e, s->with[i].value); // in the outer scope, all of them
        scope_push(e);
        for (size_t i = 0; i < s->n_with; i++) scope_set(e, e->scope, s->with[i].name, v[i]);
        f = run_body(e, &s->body);
        e->scope = outer;
        break;
    }
    case S_GENERATION:
        run_generation(e, s);
        break;
    case S_BREAK:
        return F_BREAK;
    case S_CONTINUE:
        return F_CONTINUE;
    }
    return f;
}

static enum flow run_body(struct eval *e, const struct body *b)
{
    if (++e->depth > MAX_EVAL_DEPTH) ev_fail(e, "nested more than %d deep", MAX_EVAL_DEPTH);
    enum flow f = F_NEXT;
    for (size_t i = 0; i < b->n && f == F_NEXT; i++) {
        ev_step(e, 1);
        e->line = b->v[i]->line;
        f = run_stmt(e, b->v[i]);
    }
    e->depth--;
    return f;
}

// ---- template.h ----

enum status template_parse(struct template **out, const char *text, size_t n, struct err *err)
{
    *out = NULL;
    struct template *t = NEW(struct template);
    jmp_buf bail;
    struct source s = {&t->pool, err, &bail};
    if (setjmp(bail)) {
        template_free(t);
        return ST_BAD_INPUT;
    }
    size_t n_token;
    const struct token *tokens = template_lex(&s, text, n, &n_token);
    t->body = template_tree(&s, tokens, n_token, &t->has_generation);
    t->wants_parts = loops_over_content(&t->body);
    *out = t;
    return ST_OK;
}

void template_free(struct template *t)
{
    if (!t) return;
    pool_free(&t->pool);
    mem_free(t);
}

bool template_has_generation(const struct template *t)
{
    return t->has_generation;
}

bool template_wants_parts(const struct template *t)
{
    return t->wants_parts;
}

enum status template_render_spans(const struct template *t, const json_t *vars, struct buf *out, struct buf *spans, struct err *err)
{
    struct out text = {0};
    struct eval e = {.t = t, .err = err, .line = 1, .out = &text, .top = &text, .spans = spans};
    if (setjmp(e.bail)) {
        pool_free(&e.pool);
        return ST_BAD_INPUT;
    }
    scope_push(&e);
    struct value globals = value_from_json(&e, vars);
    if (globals.type != V_DICT) ev_fail(&e, "the variables are not an object");
    for (size_t i = 0; i < globals.dict->n; i++) scope_set(&e, e.scope, globals.dict->v[i].key.s.p, globals.dict->v[i].value);
    run_body(&e, &t->body);
    buf_put(out, text.n ? text.p : "", text.n);
    pool_free(&e.pool);
    return ST_OK;
}

enum status template_render(const struct template *t, const json_t *vars, struct buf *out, struct err *err)
{
    return template_render_spans(t, vars, out, NULL, err);
}
