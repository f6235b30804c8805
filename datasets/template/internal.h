// Inside the template interpreter: text → tokens (lexer.c) → tree (parser.c, statements.c) → output (eval.c, render.c), over values
// (value.c, print.c) with the built-in filters, tests, methods and functions of Jinja2 and Python that templates use (filters.c, tests.c,
// methods.c).
//
// All memory of a tree or of one rendering comes from a pool that is freed whole, so an error may leave from any depth by longjmp:
// ev_fail(). Rendering is bounded in steps, depth and memory, whatever the template says.
#pragma once
#include "datasets/template/template.h"

#include <setjmp.h>

// ---- pool.c ----
struct pool {
    struct pool_chunk *last;
    size_t used, cap; // of the last chunk
    size_t total;
};
void *pool_alloc(struct pool *p, size_t n);               // zeroed, aligned to 16
char *pool_copy(struct pool *p, const char *s, size_t n); // with a NUL after
void pool_free(struct pool *p);

// ---- lexer.c ----
enum token_kind { T_END, T_DATA, T_VAR_BEGIN, T_VAR_END, T_BLOCK_BEGIN, T_BLOCK_END, T_NAME, T_STRING, T_INT, T_REAL, T_OP };
struct token {
    enum token_kind kind;
    int line;
    const char *s; // text; of a string its value. NUL-terminated, except data
    size_t n;
    int64_t i;
    double r;
};
struct source { // what parsing needs to complain
    struct pool *pool;
    struct err *err;
    jmp_buf *bail;
};
void source_fail(struct source *s, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4), noreturn));
struct token *template_lex(struct source *s, const char *text, size_t n, size_t *n_token); // ends with T_END

// ---- the tree (parser.c, statements.c) ----
enum expr_kind {
    X_CONST,
    X_NAME,
    X_LIST,
    X_TUPLE,
    X_DICT,
    X_COND,
    X_OR,
    X_AND,
    X_NOT,
    X_COMPARE,
    X_ADD,
    X_SUB,
    X_MUL,
    X_DIV,
    X_FLOORDIV,
    X_MOD,
    X_POW,
    X_CONCAT,
    X_NEG,
    X_POS,
    X_ATTR,
    X_ITEM,
    X_SLICE,
    X_CALL,
    X_FILTER,
    X_TEST,
};
enum compare { C_EQ, C_NE, C_LT, C_LE, C_GT, C_GE, C_IN, C_NOT_IN };
struct kwarg;
struct args {
    struct expr **v;
    size_t n;
    struct kwarg {
        const char *name;
        struct expr *value;
    } * kw;
    size_t n_kw;
    struct expr *rest, *rest_kw; // *rest and **rest_kw of a call; NULL without
};

enum value_type {
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_REAL,
    V_STRING,
    V_LIST,
    V_DICT,
    V_NAMESPACE,
    V_LOOP,
    V_FUNCTION,
    V_MACRO,
    V_METHOD
};
struct str {
    const char *p;
    size_t n;
};
// What Python a list stands for. It decides what may be done with it: a generator has no length and yields its items once, the views of a
// dict have no subscripts, and only lists and tuples are written as JSON.
enum seq { SEQ_LIST, SEQ_TUPLE, SEQ_RANGE, SEQ_GENERATOR, SEQ_KEYS, SEQ_VALUES, SEQ_ITEMS };
struct value {
    enum value_type type;
    enum seq seq; // of a list
    bool markup;  // of a string: what the filters `safe` and `escape` gave
    union {
        bool b;
        int64_t i;
        double r;
        struct str s; // also the name of what is undefined, for messages
        struct list *list;
        struct dict *dict; // also of a namespace
        struct loop *loop;
        const struct function *function;
        const struct macro *macro;
        struct method *method;
    };
};

struct expr {
    enum expr_kind kind;
    int line;
    struct value value;         // X_CONST
    const char *name;           // X_NAME, X_ATTR, X_FILTER, X_TEST
    struct expr *a, *b, *c, *d; // operands; c of X_COND is its else, b, c, d of X_SLICE its bounds and step
    bool negate;                // X_TEST
    struct args args;    // X_LIST and X_TUPLE (v), X_DICT (v: key, value, …), X_CALL, X_FILTER, X_TEST, X_COMPARE (v: operands after a)
    enum compare *ops;   // X_COMPARE (args.n of them)
    const void *builtin; // X_FILTER, X_TEST
};
enum stmt_kind { S_DATA, S_PRINT, S_IF, S_FOR, S_SET, S_SET_BLOCK, S_MACRO, S_CALL, S_FILTER, S_WITH, S_GENERATION, S_BREAK, S_CONTINUE };
struct body {
    struct stmt **v;
    size_t n;
};
struct macro {
    const char *name;
    int line;
    const char **param;
    struct expr **def; // NULL without default
    size_t n_param;
    struct body body;
    struct scope *scope; // where it was defined; a copy of the tree's macro holds it
    struct eval *owner;
};
struct stmt {
    enum stmt_kind kind;
    int line;
    struct str data;
    struct expr *expr;   // printed; the iterated; assigned; called
    struct expr *cond;   // for … if
    struct expr *target; // for, set: X_NAME, X_TUPLE of names, X_ATTR of a name (namespace)
    struct branch {
        struct expr *cond; // NULL: else
        struct body body;
    } * branch; // S_IF
    size_t n_branch;
    struct body body, otherwise;
    struct macro *macro; // S_MACRO; S_CALL: the caller
    struct expr *filter; // S_FILTER, S_SET_BLOCK: X_FILTER chain whose innermost operand is NULL
    struct {
        const char *name;
        struct expr *value;
    } * with;
    size_t n_with;
};
struct template
{
    struct pool pool;
    struct body body;
    bool has_generation, wants_parts;
};
struct body template_tree(struct source *s, const struct token *tokens, size_t n, bool *has_generation);

// ---- content.c ----
bool loops_over_content(const struct body *b);

// ---- values (value.c) ----
struct list {
    struct value *v;
    size_t n, cap;
    size_t taken; // of a generator: items that it has yielded
};
struct dict { // in the order of insertion
    struct entry {
        struct value key, value;
    } * v;
    size_t n, cap;
};
struct loop {
    struct list *items;
    size_t at;
    struct list *last_changed;
};
struct method {
    const char *name;
    struct value self;
};
struct scope {
    struct scope *parent;
    struct binding {
        const char *name;
        struct value value;
    } * v;
    size_t n, cap;
};
struct out { // text being written, in the pool
    char *p;
    size_t n, cap;
};
struct eval {
    const struct template *t;
    struct pool pool;
    struct err *err;
    jmp_buf bail;
    int line; // of what is being evaluated
    int depth;
    int64_t steps;
    struct scope *scope;
    struct out *out;   // where printing goes now
    struct out *top;   // the text of the whole template
    struct buf *spans; // size_t pairs: what {% generation %} blocks wrote to top; may be NULL
};
enum { MAX_EVAL_DEPTH = 600, MAX_PARSE_DEPTH = 120 };
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION // a fuzzer wants many inputs a second: the same bounds, met sooner
enum { MAX_STEPS = 200 * 1000 };
#define MAX_POOL ((size_t)8 << 20)
#else
enum { MAX_STEPS = 20 * 1000 * 1000 };
#define MAX_POOL ((size_t)512 << 20)
#endif

void ev_fail(struct eval *e, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
void *ev_alloc(struct eval *e, size_t n); // fails when the rendering's memory is spent
void ev_step(struct eval *e, int64_t n);

#define V(t, ...) ((struct value){.type = t, __VA_ARGS__})
static inline struct value v_none(void)
{
    return V(V_NONE);
}
static inline struct value v_bool(bool b)
{
    return V(V_BOOL, .b = b);
}
static inline struct value v_int(int64_t i)
{
    return V(V_INT, .i = i);
}
static inline struct value v_real(double r)
{
    return V(V_REAL, .r = r);
}
static inline struct value v_str(const char *p, size_t n)
{
    return V(V_STRING, .s = {p, n});
}
struct value v_cstr(const char *s);
struct value v_undefined(const char *name); // name lives as long as the value; NULL if it has none
struct value v_copy(struct eval *e, const char *p, size_t n);
struct value v_list(struct eval *e);
struct value v_seq(struct eval *e, enum seq seq);
bool has_places(struct value v);                     // a list, tuple or range: has a length, and subscripts
struct value v_tuple(struct eval *e, size_t n, ...); // of struct value
struct value v_dict(struct eval *e);
void list_push(struct eval *e, struct list *l, struct value v);
struct value *dict_find(const struct dict *d, struct value key);
struct value *dict_find_str(const struct dict *d, const char *key);
void dict_set(struct eval *e, struct dict *d, struct value key, struct value v);
struct value value_from_json(struct eval *e, const json_t *j);
bool is_true(struct value v);
bool values_equal(struct eval *e, struct value a, struct value b);
int values_order(struct eval *e, struct value a, struct value b); // <0, 0, >0; fails where Python raises
bool value_contains(struct eval *e, struct value item, struct value in);
const char *type_name(struct value v); // as Python calls it
bool is_number(struct value v);        // bool counts, as in Python
double as_real(struct value v);
bool is_str(struct value v, const char *s);
// What a for loop goes over; may be v's own list: not to be changed. Takes all that a generator has left.
struct list *value_items(struct eval *e, struct value v);
int64_t value_length(struct eval *e, struct value v);

// ---- text (text.c): Python's view of strings, in code points ----
bool char_is_space(uint32_t c);
bool char_is_word(uint32_t c);                           // a letter, number or '_': \w of Python's regular expressions
uint32_t char_get(const char *p, size_t n, size_t *len); // lenient: a stray byte is itself
size_t n_chars(struct str s);
size_t char_offset(struct str s, size_t chars);                                     // byte offset of the chars-th character (or the end)
struct str str_strip(struct str s, const struct str *chars, bool left, bool right); // chars NULL: white space
struct value change_case(struct eval *e, struct str s, char how); // 'u' upper, 'l' lower, 'c' capitalize, 't' title, 's' swapcase
struct value str_replace(struct eval *e, struct str s, struct str from, struct str to, int64_t most);
struct value str_split(struct eval *e, struct str s, const struct str *sep, int64_t most, bool right);
struct value str_lines(struct eval *e, struct str s, bool keep); // keep: with their ends
const char *str_find(struct str s, struct str needle);
const char *str_find_last(struct str s, struct str needle);

// ---- print.c ----
void out_put(struct eval *e, struct out *o, const char *p, size_t n);
void out_puts(struct eval *e, struct out *o, const char *s);
void out_value(struct eval *e, struct out *o, struct value v); // str(v)
struct value to_str(struct eval *e, struct value v);
struct json_style {
    int indent;             // -1: one line
    const char *item, *key; // separators
    bool ascii, sort;
};
void out_json(struct eval *e, struct out *o, struct value v, const struct json_style *style, int level);

// ---- calls ----
struct call { // evaluated arguments
    struct value *v;
    size_t n;
    struct {
        const char *name;
        struct value value;
    } * kw;
    size_t n_kw;
};
// The i-th parameter by place or name; `def` when it is absent.
struct value call_arg(const struct call *c, size_t i, const char *name, struct value def);
bool call_has_arg(const struct call *c, size_t i, const char *name);
int64_t call_arg_int(struct eval *e, const struct call *c, size_t i, const char *name, int64_t def);
struct str call_arg_str(struct eval *e, const struct call *c, size_t i, const char *name);
// Fails when there are more than n places or a keyword that is not among the n names.
void call_check(struct eval *e, const char *what, const struct call *c, size_t n, const char *const *names);

struct value escape_html(struct eval *e, struct value v); // as markup; markup stays as it is

struct filter {
    const char *name;
    struct value (*fn)(struct eval *e, struct value v, const struct call *c);
};
struct test {
    const char *name;
    bool (*fn)(struct eval *e, struct value v, const struct call *c);
    size_t n_arg;
};
bool test_call(struct eval *e, const struct test *t, struct value v, const struct call *c); // fails for another number of arguments
struct function {
    const char *name;
    struct value (*fn)(struct eval *e, const struct call *c);
};
const struct filter *filter_find(const char *name);
const struct test *test_find(const char *name);
extern const struct function template_functions[];       // ends with {0}
void namespace_check(struct eval *e, struct value name); // fails for a name that transformers refuses to set on a namespace
bool method_exists(struct value self, const char *name);
struct value method_call(struct eval *e, const struct method *m, const struct call *c);
struct value get_attr(struct eval *e, struct value v, const char *name);
struct value get_item(struct eval *e, struct value v, struct value key);
struct value get_slice(struct eval *e, struct value v, struct value lo, struct value hi, struct value step);
struct value call_value(struct eval *e, struct value f, const struct call *c);

// template_render that also reports what {% generation %} blocks wrote: pairs of size_t (begin and end in the text) appended to spans.
enum status template_render_spans(const struct template *t, const json_t *vars, struct buf *out, struct buf *spans, struct err *err);
bool template_has_generation(const struct template *t);
bool template_wants_parts(const struct template *t); // see content.c
