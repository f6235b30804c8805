// The samples of an open store, found by (id, sample): open addressing over the entries, which stand in file order.
#include "datasets/store/internal.h"
#include "kernels/base/rng.h"

#include <string.h>

static uint64_t hash_of(const char *id, int sample)
{
    uint64_t h = rng_hash(id, strlen(id)) ^ ((uint64_t)(uint32_t)sample * 0x9E3779B97F4A7C15u);
    return h ^ h >> 29;
}

static size_t slot_of(const struct index *ix, uint64_t hash, const char *id, int sample)
{
    size_t mask = ix->n_slot - 1, i = hash & mask;
    for (; ix->slot[i]; i = (i + 1) & mask) {
        const struct entry *e = &ix->v[ix->slot[i] - 1];
        if (e->hash == hash && e->sample == sample && !strcmp(index_id(ix, e), id)) break;
    }
    return i;
}

const struct entry *index_find(const struct index *ix, const char *id, int sample)
{
    if (!ix->n) return NULL;
    uint32_t at = ix->slot[slot_of(ix, hash_of(id, sample), id, sample)];
    return at ? &ix->v[at - 1] : NULL;
}

static void grow_slots(struct index *ix)
{
    mem_free(ix->slot);
    ix->n_slot = ix->n_slot ? 2 * ix->n_slot : 256;
    ix->slot = NEW_N(uint32_t, ix->n_slot);
    for (size_t k = 0; k < ix->n; k++) {
        size_t mask = ix->n_slot - 1, i = ix->v[k].hash & mask;
        while (ix->slot[i]) i = (i + 1) & mask;
        ix->slot[i] = (uint32_t)k + 1;
    }
}

void index_add(struct index *ix, const struct entry *e, const char *id)
{
    if (ix->n == ix->cap) {
        ix->cap = ix->cap ? 2 * ix->cap : 128;
        ix->v = mem_realloc(ix->v, ix->cap * sizeof *ix->v);
    }
    if (2 * (ix->n + 1) > ix->n_slot) grow_slots(ix);
    struct entry *new = &ix->v[ix->n];
    *new = *e;
    new->hash = hash_of(id, e->sample);
    // Samples of one prompt mostly follow each other: they share its text.
    if (ix->n && !strcmp(index_id(ix, new - 1), id)) {
        new->id_at = new[-1].id_at;
    } else {
        new->id_at = ix->ids.size;
        buf_put(&ix->ids, id, strlen(id) + 1);
    }
    ix->slot[slot_of(ix, new->hash, id, e->sample)] = (uint32_t)ix->n + 1;
    ix->n++;
}

void index_free(struct index *ix)
{
    mem_free(ix->v);
    mem_free(ix->slot);
    buf_free(&ix->ids);
    *ix = (struct index){0};
}
