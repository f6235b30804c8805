// Between the two halves of the parser, expressions (parser.c) and statements (statements.c): where the reading is, and small steps of it.
#pragma once
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

static inline const struct token *cur(const struct parser *p)
{
    return &p->t[p->at];
}
static inline bool is_op(const struct parser *p, const char *op)
{
    return cur(p)->kind == T_OP && strcmp(cur(p)->s, op) == 0;
}
static inline bool is_name(const struct parser *p, const char *name)
{
    return cur(p)->kind == T_NAME && strcmp(cur(p)->s, name) == 0;
}
static inline bool take_op(struct parser *p, const char *op)
{
    return is_op(p, op) && ++p->at;
}
static inline bool take_name(struct parser *p, const char *name)
{
    return is_name(p, name) && ++p->at;
}

static inline const char *shown(const struct token *t)
{
    return t->kind == T_DATA ? "text" : t->kind == T_STRING ? "a string" : t->s;
}
static inline void want_op(struct parser *p, const char *op)
{
    if (!take_op(p, op)) source_fail(p->src, cur(p)->line, "expected '%s', found %s", op, shown(cur(p)));
}
static inline const char *want_name(struct parser *p, const char *what)
{
    if (cur(p)->kind != T_NAME) source_fail(p->src, cur(p)->line, "expected %s, found %s", what, shown(cur(p)));
    return p->t[p->at++].s;
}
static inline void enter(struct parser *p)
{
    if (++p->depth > MAX_PARSE_DEPTH) source_fail(p->src, cur(p)->line, "nested more than %d deep", MAX_PARSE_DEPTH);
}

static inline struct expr *node(struct parser *p, enum expr_kind kind)
{
    struct expr *x = pool_alloc(p->src->pool, sizeof *x);
    x->kind = kind;
    x->line = cur(p)->line;
    return x;
}
static inline struct expr *node2(struct parser *p, enum expr_kind kind, struct expr *a, struct expr *b)
{
    struct expr *x = node(p, kind);
    x->a = a;
    x->b = b;
    x->line = a->line;
    return x;
}
// Appends to an array in the pool whose capacity is the next power of two of its length.
static inline void *grow(struct parser *p, void *v, size_t n, size_t size)
{
    if (n & (n - 1)) return v;
    char *bigger = pool_alloc(p->src->pool, (n ? n * 2 : 1) * size);
    if (n) memcpy(bigger, v, n * size);
    return bigger;
}
static inline void push_expr(struct parser *p, struct args *a, struct expr *x)
{
    a->v = grow(p, a->v, a->n, sizeof *a->v);
    a->v[a->n++] = x;
}

struct expr *parse_expression(struct parser *p);
struct expr *parse_or(struct parser *p);                                          // an expression without if … else
struct expr *parse_tuple(struct parser *p, struct expr *(*one)(struct parser *)); // a, b, c without parentheses; `one` parses each
struct expr *parse_filter(struct parser *p, struct expr *x);                      // after '|'
