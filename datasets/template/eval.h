// What expressions (eval.c) and statements (render.c) want of each other.
#pragma once
#include "datasets/template/internal.h"

struct value ev_expr(struct eval *e, const struct expr *x);
struct call ev_args(struct eval *e, const struct args *a);                     // leaves room for one more keyword
struct value ev_filters(struct eval *e, const struct expr *x, struct value v); // of {% filter %}; x NULL: v itself
struct value macro_call(struct eval *e, const struct macro *m, const struct call *c);
struct scope *scope_push(struct eval *e); // returns the scope to go back to
void scope_set(struct eval *e, struct scope *s, const char *name, struct value v);
