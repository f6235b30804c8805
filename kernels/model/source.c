// The list of a source's tensors, and which kind of file stands at a path. See source.h.
#include "kernels/model/source.h"

#include "kernels/base/gguf.h"

#include <stdlib.h>
#include <string.h>

enum status source_open(struct source *s, const char *path, const struct model_config *config, struct err *err)
{
    *s = (struct source){0};
    enum status st = gguf_is(path) ? source_open_gguf(s, path, config, err) : source_open_safetensors(s, path, config, err);
    if (st) source_close(s);
    return st;
}

void source_close(struct source *s)
{
    if (s->kind) s->kind->close(s);
    for (size_t i = 0; i < s->n; i++) {
        mem_free(s->v[i].name);
        mem_free(s->v[i].fp8);
    }
    mem_free(s->v);
    *s = (struct source){0};
}

struct source_tensor *source_add(struct source *s, const char *name)
{
    if ((s->n & (s->n - 1)) == 0) s->v = mem_realloc(s->v, sizeof *s->v * (s->n ? 2 * s->n : 1));
    struct source_tensor *t = &s->v[s->n++];
    *t = (struct source_tensor){.name = mem_strdup(name)};
    return t;
}

static int name_cmp(const void *a, const void *b)
{
    return strcmp(((const struct source_tensor *)a)->name, ((const struct source_tensor *)b)->name);
}

void source_sort(struct source *s)
{
    if (s->n) qsort(s->v, s->n, sizeof *s->v, name_cmp);
}

const struct source_tensor *source_find(const struct source *s, const char *name)
{
    struct source_tensor key = {.name = (char *)(uintptr_t)name};
    return s->n ? bsearch(&key, s->v, s->n, sizeof *s->v, name_cmp) : NULL;
}
