// Byte-pair encoding of one piece: the pair of lowest rank is merged first, the leftmost of equals, until none is left.
//
// Most pieces of real text are one token, which vocab.whole remembers. The rest are short and their lowest pair is found by looking at all.
// Long ones (a megabyte of one letter is one piece) keep the places of each pair in a list, its bucket, and the buckets in a heap by rank.
// Lists only grow at the end; the few places that come out of order go into a heap of their own. So the work is nearly linear, and n log n
// at worst.
#include "datasets/tokenizer/internal.h"

#include <string.h>

enum { SHORT = 48 }; // symbols, below which looking at all pairs beats a heap

void bpe_scratch_free(struct bpe_scratch *s)
{
    mem_free(s->sym);
    mem_free(s->bucket);
    mem_free(s->node);
    mem_free(s->slot);
    mem_free(s->heap);
    mem_free(s->late);
    *s = (struct bpe_scratch){0};
}

// Unknown characters wait until a known one comes, as in Hugging Face's library: so bytes of ByteFallback may overtake them, and with
// fuse_unk become part of one unk with what follows.
struct start {
    struct bpe_symbol *sym;
    long n;
    uint32_t end;     // of what stands in sym
    uint32_t unknown; // bytes of the unk that waits
    int32_t unk;
};
static void put(struct start *x, int32_t id, size_t n)
{
    x->end += (uint32_t)n;
    x->sym[x->n++] = (struct bpe_symbol){id, 0, 0, x->end};
}
static void put_unknown(struct start *x)
{
    if (x->unknown) put(x, x->unk, x->unknown);
    x->unknown = 0;
}

// Writes the starting symbols and returns their number. Without an unk, what has no token is dropped.
static long start_symbols(const struct vocab *v, struct bpe_scratch *s, const char *piece, size_t n)
{
    if (s->cap_sym < n) {
        s->cap_sym = n < 64 ? 64 : n + n / 2;
        s->sym = mem_realloc(s->sym, s->cap_sym * sizeof *s->sym);
    }
    struct start x = {s->sym, 0, 0, 0, v->unk};
    for (size_t i = 0, len; i < n; i += len) {
        len = v->byte_level ? 1 : utf8_len((uint8_t)piece[i]);
        int32_t id = v->byte_level ? v->byte_id[(uint8_t)piece[i]] : vocab_find(v, piece + i, len);
        bool bytes = id < 0 && v->byte_fallback;
        for (size_t b = 0; bytes && b < len; b++) bytes = v->byte_id[(uint8_t)piece[i + b]] >= 0;
        if (id >= 0)
            put_unknown(&x), put(&x, id, len);
        else if (bytes)
            for (size_t b = 0; b < len; b++) put(&x, v->byte_id[(uint8_t)piece[i + b]], 1);
        else if (v->unk >= 0) {
            if (!v->fuse_unk) put_unknown(&x);
            x.unknown += (uint32_t)len;
        } else
            x.end += (uint32_t)len;
    }
    put_unknown(&x);
    return x.n;
}

static long merge_short(const struct vocab *v, struct bpe_symbol *sym, long n)
{
    uint32_t rank[SHORT];
    int32_t id[SHORT];
    for (long i = 0; i + 1 < n; i++) {
        const struct merge *m = merge_find(v, sym[i].id, sym[i + 1].id);
        rank[i] = m ? m->rank : UINT32_MAX;
        id[i] = m ? m->id : -1;
    }
    for (;;) {
        long best = -1;
        uint32_t lowest = UINT32_MAX;
        for (long i = 0; i + 1 < n; i++)
            if (rank[i] < lowest) lowest = rank[i], best = i;
        if (best < 0) return n;
        sym[best].id = id[best];
        sym[best].end = sym[best + 1].end;
        n--;
        memmove(sym + best + 1, sym + best + 2, (size_t)(n - best - 1) * sizeof *sym);
        memmove(rank + best, rank + best + 1, (size_t)(n - best - 1) * sizeof *rank);
        memmove(id + best, id + best + 1, (size_t)(n - best - 1) * sizeof *id);
        for (long i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const struct merge *m = merge_find(v, sym[i].id, sym[i + 1].id);
            rank[i] = m ? m->rank : UINT32_MAX;
            id[i] = m ? m->id : -1;
        }
    }
}

#define NO_NODE UINT32_MAX

static void heap_push(struct bpe_scratch *s, uint32_t b)
{
    size_t i = s->n_heap++;
    for (; i && s->bucket[b].rank < s->bucket[s->heap[(i - 1) / 2]].rank; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = b;
}

static void heap_pop(struct bpe_scratch *s)
{
    uint32_t last = s->heap[--s->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->n_heap; i = child) {
        if (child + 1 < s->n_heap && s->bucket[s->heap[child + 1]].rank < s->bucket[s->heap[child]].rank) child++;
        if (s->bucket[s->heap[child]].rank >= s->bucket[last].rank) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
}

// The slot of a rank: its bucket's, or the empty one for it.
static uint32_t slot_of(const struct bpe_scratch *s, uint32_t rank)
{
    uint32_t i = (uint32_t)(rank * 0x9E3779B97F4A7C15u >> 32) & s->slot_mask;
    while (s->slot[i] != NO_NODE && s->bucket[s->slot[i]].rank != rank) i = (i + 1) & s->slot_mask;
    return i;
}

// Makes room for one more bucket.
static void grow_buckets(struct bpe_scratch *s)
{
    if (s->n_bucket < s->cap_bucket) return;
    s->cap_bucket = s->cap_bucket ? s->cap_bucket * 2 : 256;
    s->bucket = mem_realloc(s->bucket, s->cap_bucket * sizeof *s->bucket);
    s->heap = mem_realloc(s->heap, s->cap_bucket * sizeof *s->heap);
    s->slot_mask = (uint32_t)s->cap_bucket * 2 - 1;
    s->slot = mem_realloc(s->slot, s->cap_bucket * 2 * sizeof *s->slot);
    memset(s->slot, 0xFF, s->cap_bucket * 2 * sizeof *s->slot);
    for (uint32_t b = 0; b < s->n_bucket; b++) s->slot[s->bucket[b].slot = slot_of(s, s->bucket[b].rank)] = b;
}

static void late_push(struct bpe_scratch *s, uint64_t key)
{
    if (s->n_late == s->cap_late) s->late = mem_realloc(s->late, (s->cap_late = s->cap_late ? s->cap_late * 2 : 256) * sizeof *s->late);
    size_t i = s->n_late++;
    for (; i && key < s->late[(i - 1) / 2]; i = (i - 1) / 2) s->late[i] = s->late[(i - 1) / 2];
    s->late[i] = key;
}

static uint64_t late_pop(struct bpe_scratch *s)
{
    uint64_t top = s->late[0], last = s->late[--s->n_late];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->n_late; i = child) {
        if (child + 1 < s->n_late && s->late[child + 1] < s->late[child]) child++;
        if (s->late[child] >= last) break;
        s->late[i] = s->late[child];
    }
    s->late[i] = last;
    return top;
}

static void put_place(struct bpe_scratch *s, uint32_t b, uint32_t pos)
{
    struct bpe_bucket *k = &s->bucket[b];
    if (k->first != NO_NODE && s->node[k->last].pos > pos) {
        late_push(s, (uint64_t)k->rank << 32 | pos);
        return;
    }
    uint32_t n = s->free_node;
    if (n != NO_NODE)
        s->free_node = s->node[n].next;
    else {
        if (s->n_node == s->cap_node)
            s->node = mem_realloc(s->node, (s->cap_node = s->cap_node ? s->cap_node * 2 : 1024) * sizeof *s->node);
        n = (uint32_t)s->n_node++;
    }
    s->node[n] = (struct bpe_node){pos, NO_NODE};
    if (k->first == NO_NODE) {
        k->first = n;
        heap_push(s, b);
    } else
        s->node[k->last].next = n;
    k->last = n;
}

// Takes the place of lowest rank, the leftmost of equals: its bucket and *pos. NO_NODE: none is left.
static uint32_t take_place(struct bpe_scratch *s, uint32_t *pos)
{
    struct bpe_bucket *k = s->n_heap ? &s->bucket[s->heap[0]] : NULL;
    uint64_t key = k ? (uint64_t)k->rank << 32 | s->node[k->first].pos : UINT64_MAX;
    if (s->n_late && s->late[0] < key) {
        key = late_pop(s);
        *pos = (uint32_t)key;
        return s->slot[slot_of(s, (uint32_t)(key >> 32))];
    }
    if (!k) return NO_NODE;
    uint32_t n = k->first, b = s->heap[0];
    *pos = s->node[n].pos;
    k->first = s->node[n].next;
    s->node[n].next = s->free_node;
    s->free_node = n;
    if (k->first == NO_NODE) heap_pop(s);
    return b;
}

// The pair that begins at pos, if there is a merge for it.
static void put_pair(struct bpe_scratch *s, const struct vocab *v, int32_t pos)
{
    int32_t next = s->sym[pos].next;
    const struct merge *m = next < 0 ? NULL : merge_find(v, s->sym[pos].id, s->sym[next].id);
    if (!m) return;
    uint32_t b = s->slot[slot_of(s, m->rank)];
    if (b == NO_NODE) {
        grow_buckets(s);
        b = (uint32_t)s->n_bucket++;
        s->bucket[b] = (struct bpe_bucket){m->rank, s->sym[pos].id, s->sym[next].id, m->id, slot_of(s, m->rank), NO_NODE, NO_NODE};
        s->slot[s->bucket[b].slot] = b;
    }
    put_place(s, b, (uint32_t)pos);
}

static void merge_at(struct bpe_scratch *s, const struct vocab *v, uint32_t b, uint32_t pos)
{
    const struct bpe_bucket *k = &s->bucket[b];
    struct bpe_symbol *left = &s->sym[pos];
    // The pair is gone when either side has been merged away or has grown since.
    if (left->id != k->left || left->next < 0 || s->sym[left->next].id != k->right) return;
    struct bpe_symbol *right = &s->sym[left->next];
    left->id = k->id;
    left->end = right->end;
    left->next = right->next;
    right->id = -1;
    if (left->next >= 0) s->sym[left->next].prev = (int32_t)pos;
    if (left->prev >= 0) put_pair(s, v, left->prev);
    put_pair(s, v, (int32_t)pos);
}

static long merge_long(const struct vocab *v, struct bpe_scratch *s, long n)
{
    s->n_bucket = s->n_node = s->n_heap = s->n_late = 0;
    s->free_node = NO_NODE;
    grow_buckets(s);
    for (long i = 0; i < n; i++) s->sym[i].prev = (int32_t)i - 1, s->sym[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    for (long i = 0; i < n; i++) put_pair(s, v, (int32_t)i);
    for (uint32_t b, pos; (b = take_place(s, &pos)) != NO_NODE;) merge_at(s, v, b, pos);
    for (size_t b = 0; b < s->n_bucket; b++) s->slot[s->bucket[b].slot] = NO_NODE; // empty for the next piece
    s->n_bucket = 0;
    long k = 0;
    for (int32_t i = 0, next; i >= 0; i = next) { // gathered to the front: k never passes i
        next = s->sym[i].next;
        s->sym[k++] = s->sym[i];
    }
    return k;
}

void bpe_encode(const struct vocab *v, struct bpe_scratch *s, const char *piece, size_t n, struct ids *out, struct buf *ends)
{
    if (!n) return;
    uint32_t end = (uint32_t)n;
    int32_t whole = vocab_find(v, piece, n);
    if (whole >= 0 && (v->ignore_merges || __atomic_load_n(&v->whole[whole], __ATOMIC_RELAXED) == 1)) {
        ids_push(out, whole);
        if (ends) buf_put(ends, &end, sizeof end);
        return;
    }
    long k = start_symbols(v, s, piece, n);
    if (!k) return;
    k = k <= SHORT ? merge_short(v, s->sym, k) : merge_long(v, s, k);
    if (whole >= 0) __atomic_store_n(&v->whole[whole], k == 1 && s->sym[0].id == whole ? 1 : 2, __ATOMIC_RELAXED);
    for (long i = 0; i < k; i++) {
        ids_push(out, s->sym[i].id);
        if (ends) buf_put(ends, &s->sym[i].end, sizeof s->sym[i].end);
    }
}
