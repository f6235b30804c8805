// The free list of KV pages. See pages.h.
#include "teacher/pages.h"

#include "kernels/base/mem.h"
#include "kernels/base/status.h"

void pages_open(struct pages *p, int n)
{
    *p = (struct pages){.n = n, .n_free = n, .free = NEW_N(int32_t, n), .holder = NEW_N(int32_t, n)};
    for (int i = 0; i < n; i++) p->free[i] = n - 1 - i;
}

void pages_close(struct pages *p)
{
    mem_free(p->free);
    mem_free(p->holder);
    *p = (struct pages){0};
}

int32_t page_take(struct pages *p)
{
    if (!p->n_free) BUG("no KV page is free, though admission had counted them");
    int32_t page = p->free[--p->n_free];
    p->holder[page] = 1;
    return page;
}

int32_t page_share(struct pages *p, int32_t page)
{
    if (!p->holder[page]) BUG("KV page %d is shared, but nobody holds it", (int)page);
    p->holder[page]++;
    return page;
}

void page_drop(struct pages *p, int32_t page)
{
    if (p->holder[page] < 1) BUG("KV page %d is dropped, but nobody holds it", (int)page);
    if (!--p->holder[page]) p->free[p->n_free++] = page;
}
