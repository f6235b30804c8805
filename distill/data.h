// What the data commands share.
#pragma once
#include "datasets/store/store.h"

// Places of the store's samples in the order of exports: prompts as their first sample came, samples of a prompt by rising number. mem_free
// it.
size_t *data_order(const struct store *s);
// "topk:64 at T = 1, 2"
void data_describe_targets(struct buf *out, const struct targets_spec *spec);
