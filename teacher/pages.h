// The free list of KV pages. A page may have several holders (samples of one prompt share its full pages); the last to drop it frees it.
#pragma once
#include <stdint.h>

struct pages {
    int n, n_free;
    int32_t *free;   // (n) a stack
    int32_t *holder; // (n) how many hold it
};
void pages_open(struct pages *p, int n);
void pages_close(struct pages *p);
int32_t page_take(struct pages *p); // one holder; taking from an empty list is a BUG: admission counts first
int32_t page_share(struct pages *p, int32_t page);
void page_drop(struct pages *p, int32_t page);
