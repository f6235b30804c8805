// Does a template want a message's content as a list of parts, or as a string? Told from its tree, as vLLM does: a template that loops over
// the content of what it finds in `messages` takes parts.
//
//     {% set turns = messages[1:] %}{% for m in turns %}{% for part in m['content'] %}        parts
//     {% for m in messages %}{{ m.content | trim }}                                            a string
//
// Names are followed through {% set %} and {% for %}, wherever in the template these stand; scopes are not told apart.
#include "datasets/template/internal.h"

#include <string.h>

struct names {
    const char *v[64]; // more would be no template of a model's; what comes after is not followed
    size_t n;
};

static void add(struct names *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (!strcmp(names->v[i], name)) return;
    if (names->n < sizeof names->v / sizeof *names->v) names->v[names->n++] = name;
}

// x is one of the names (key NULL), or their member `key`; through filters, tests and slices, which give some of the same items.
static bool reaches(const struct expr *x, const struct names *names, const char *key)
{
    while (x && (x->kind == X_FILTER || x->kind == X_TEST || x->kind == X_SLICE)) x = x->a;
    if (x && key) {
        const bool member =
            (x->kind == X_ATTR && !strcmp(x->name, key)) || (x->kind == X_ITEM && x->b->kind == X_CONST && is_str(x->b->value, key));
        x = member ? x->a : NULL;
    }
    for (size_t i = 0; x && x->kind == X_NAME && i < names->n; i++)
        if (!strcmp(x->name, names->v[i])) return true;
    return false;
}

// Adds to `to` the targets of all statements of a kind whose expression reaches `from`.
static void follow(const struct body *b, enum stmt_kind kind, const struct names *from, const char *key, struct names *to)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct stmt *s = b->v[i];
        if (s->kind == kind && s->target->kind == X_NAME && reaches(s->expr, from, key)) add(to, s->target->name);
        for (size_t k = 0; k < s->n_branch; k++) follow(&s->branch[k].body, kind, from, key, to);
        follow(&s->body, kind, from, key, to);
        follow(&s->otherwise, kind, from, key, to);
        if (s->macro) follow(&s->macro->body, kind, from, key, to);
    }
}

bool loops_over_content(const struct body *b)
{
    struct names lists = {{"messages"}, 1}, messages = {0}, parts = {0};
    for (size_t n = 0; n < lists.n;) {
        n = lists.n;
        follow(b, S_SET, &lists, NULL, &lists);
    }
    follow(b, S_FOR, &lists, NULL, &messages);
    follow(b, S_FOR, &messages, "content", &parts);
    return parts.n > 0;
}
