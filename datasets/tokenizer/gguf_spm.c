// Merges out of a SentencePiece vocabulary: every split of every token into two others, found by two tries, of the tokens and of the tokens
// read backwards, so that the work is linear in the text. See gguf_parts.h.
#include "datasets/tokenizer/gguf_parts.h"

#include <string.h>

struct tries {
    struct trie forward, backward;
};

// The node behind a byte, -1 if no token goes on so. node -1: at the root.
static int32_t trie_step(const struct trie *t, int32_t node, uint8_t byte)
{
    if (node < 0) return t->root[byte];
    node = t->node[node].child;
    while (node >= 0 && t->node[node].byte != byte) node = t->node[node].sibling;
    return node;
}

static void build(struct tries *x, const struct gguf_text *token, size_t n)
{
    struct buf turned = {0};
    trie_init(&x->forward);
    trie_init(&x->backward);
    for (size_t id = 0; id < n; id++) {
        buf_clear(&turned);
        for (size_t i = token[id].n; i-- > 0;) buf_putc(&turned, token[id].s[i]);
        trie_add(&x->forward, token[id].s, token[id].n, (int32_t)id);
        trie_add(&x->backward, turned.data, token[id].n, (int32_t)id);
    }
    buf_free(&turned);
}

static uint32_t count_chars(const char *s, size_t n)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((uint8_t)s[i] & 0xC0) != 0x80;
    return count;
}

struct found {
    struct buf merges; // struct spm_merge
    size_t n, n_bytes; // of merges, and of the tokens that they make
};

// Appends the splits of one token, the shortest left part first. tail: scratch, at least as many as the longest token has bytes.
static void split(struct found *out, const struct tries *x, const struct gguf_text *t, int32_t id, double score, int32_t *tail)
{
    const uint32_t n_char = count_chars(t->s, t->n);
    int32_t node = -1;
    uint32_t n_left = 0;
    size_t first = t->n; // from here on the text to the end may be a token: tail[i]
    for (size_t i = t->n; i-- > 1 && (node = trie_step(&x->backward, node, (uint8_t)t->s[i])) >= 0; first = i)
        tail[i] = x->backward.node[node].token;
    node = -1;
    for (size_t i = 0; i + 1 < t->n && (node = trie_step(&x->forward, node, (uint8_t)t->s[i])) >= 0; i++) {
        const int32_t left = x->forward.node[node].token, right = i + 1 >= first ? tail[i + 1] : -1;
        n_left += count_chars(t->s + i, 1);
        if (left < 0 || right < 0) continue;
        if (++out->n > SPM_MAX_MERGES || (out->n_bytes += t->n) > SPM_MAX_MERGE_BYTES) return;
        buf_put(&out->merges, &(struct spm_merge){score, left, right, id, n_left, n_char - n_left}, sizeof(struct spm_merge));
    }
}

// Within a token the lengths of the parts tell all splits apart.
static int by_score(const void *a, const void *b)
{
    const struct spm_merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->n_left != y->n_left) return x->n_left > y->n_left ? -1 : 1;
    if (x->n_right != y->n_right) return x->n_right > y->n_right ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

enum status spm_merges(struct spm_merge **out, size_t *n_merge, const struct gguf_text *token, const double *score, size_t n,
                       const char *path, struct err *err)
{
    struct tries x;
    struct found found = {0};
    size_t longest = 0;
    *out = NULL;
    *n_merge = 0;
    for (size_t id = 0; id < n; id++)
        if (token[id].n > longest) longest = token[id].n;
    int32_t *tail = NEW_N(int32_t, longest + 1);
    build(&x, token, n);
    for (size_t id = 0; id < n; id++) split(&found, &x, &token[id], (int32_t)id, score[id], tail);
    trie_free(&x.forward);
    trie_free(&x.backward);
    mem_free(tail);
    if (found.n > SPM_MAX_MERGES || found.n_bytes > SPM_MAX_MERGE_BYTES) {
        buf_free(&found.merges);
        return err_set(
            err, ST_BAD_INPUT,
            "%s: tokenizer.ggml.tokens: more than %d ways, or %d MiB of text, to make a token of two others; no real vocabulary is so",
            path, SPM_MAX_MERGES, SPM_MAX_MERGE_BYTES >> 20);
    }
    *out = (struct spm_merge *)(void *)found.merges.data;
    *n_merge = found.n;
    if (found.n) qsort(*out, found.n, sizeof **out, by_score);
    return ST_OK;
}
