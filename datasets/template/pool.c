// Memory that is freed whole: chunks that double in size, handed out from the front.
#include "datasets/template/internal.h"

#include <string.h>

struct pool_chunk {
    struct pool_chunk *before;
    max_align_t data[];
};

void *pool_alloc(struct pool *p, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if (!p->last || p->cap - p->used < n) {
        size_t cap = p->cap ? p->cap * 2 : 4096;
        if (cap > (1 << 20)) cap = 1 << 20;
        if (cap < n) cap = n;
        struct pool_chunk *c = mem_alloc(sizeof *c + cap);
        c->before = p->last;
        p->last = c;
        p->used = 0;
        p->cap = cap;
        p->total += cap;
    }
    void *out = (char *)p->last->data + p->used;
    p->used += n;
    return out;
}

char *pool_copy(struct pool *p, const char *s, size_t n)
{
    char *out = pool_alloc(p, n + 1);
    if (n) memcpy(out, s, n);
    return out;
}

void pool_free(struct pool *p)
{
    for (struct pool_chunk *c = p->last, *before; c; c = before) {
        before = c->before;
        mem_free(c);
    }
    *p = (struct pool){0};
}
