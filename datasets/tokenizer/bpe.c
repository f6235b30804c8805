// Byte-pair encoding of one piece: the pair of lowest rank is merged first, the leftmost of equals, until none is left.
//
// Most pieces of real text are one token, which vocab.whole remembers. The rest are short and their lowest pair is found by looking at all;
// long ones (a megabyte of one letter is one piece) keep their pairs in a heap, so the work stays n log n.
#include "datasets/tokenizer/internal.h"

#include <string.h>

enum { SHORT = 48 }; // symbols, below which looking at all pairs beats a heap

void bpe_scratch_free(struct bpe_scratch *s)
{
    mem_free(s->sym);
    mem_free(s->heap);
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

static bool before(const struct bpe_cand *a, const struct bpe_cand *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}
static void heap_push(struct bpe_scratch *s, const struct vocab *v, int32_t pos)
{
    int32_t next = s->sym[pos].next;
    const struct merge *m = next < 0 ? NULL : merge_find(v, s->sym[pos].id, s->sym[next].id);
    if (!m) return;
    if (s->n_heap == s->cap_heap) s->heap = mem_realloc(s->heap, (s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 256) * sizeof *s->heap);
    struct bpe_cand c = {m->rank, (uint32_t)pos, m->id, s->sym[pos].id, s->sym[next].id};
    size_t i = s->n_heap++;
    for (; i && before(&c, &s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = c;
}
static struct bpe_cand heap_pop(struct bpe_scratch *s)
{
    struct bpe_cand top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->n_heap; i = child) {
        if (child + 1 < s->n_heap && before(&s->heap[child + 1], &s->heap[child])) child++;
        if (!before(&s->heap[child], &last)) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return top;
}

static long merge_long(const struct vocab *v, struct bpe_scratch *s, long n)
{
    s->n_heap = 0;
    for (long i = 0; i < n; i++) s->sym[i].prev = (int32_t)i - 1, s->sym[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    for (long i = 0; i < n; i++) heap_push(s, v, (int32_t)i);
    while (s->n_heap) {
        struct bpe_cand c = heap_pop(s);
        struct bpe_symbol *left = &s->sym[c.pos];
        // A candidate is stale when either side has been merged away or has grown since.
        if (left->id != c.left || left->next < 0 || s->sym[left->next].id != c.right) continue;
        struct bpe_symbol *right = &s->sym[left->next];
        left->id = c.id;
        left->end = right->end;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) s->sym[left->next].prev = (int32_t)c.pos;
        if (left->prev >= 0) heap_push(s, v, left->prev);
        heap_push(s, v, (int32_t)c.pos);
    }
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
