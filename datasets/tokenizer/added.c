// Added tokens: looked for in the text before anything else, longest first at the leftmost place (as Aho-Corasick with leftmost-longest
// matching finds them), then lstrip, rstrip and single_word decide what they take with them or whether they count.
#include "datasets/tokenizer/internal.h"

#include <string.h>

void trie_init(struct trie *t)
{
    *t = (struct trie){0};
    memset(t->root, 0xFF, sizeof t->root);
}

static int32_t node_new(struct trie *t, uint8_t byte)
{
    if (t->n == t->cap) t->node = mem_realloc(t->node, (t->cap = t->cap ? t->cap * 2 : 256) * sizeof *t->node);
    t->node[t->n] = (struct trie_node){-1, -1, -1, byte};
    return (int32_t)t->n++;
}

void trie_add(struct trie *t, const char *s, size_t n, int32_t token)
{
    if (!n) return;
    if (t->root[(uint8_t)s[0]] < 0) t->root[(uint8_t)s[0]] = node_new(t, (uint8_t)s[0]);
    int32_t at = t->root[(uint8_t)s[0]];
    for (size_t i = 1; i < n; i++) {
        int32_t next = t->node[at].child;
        while (next >= 0 && t->node[next].byte != (uint8_t)s[i]) next = t->node[next].sibling;
        if (next < 0) {
            next = node_new(t, (uint8_t)s[i]); // may move the nodes
            t->node[next].sibling = t->node[at].child;
            t->node[at].child = next;
        }
        at = next;
    }
    if (t->node[at].token < 0) t->node[at].token = token; // of equal contents the first counts
}

void trie_free(struct trie *t)
{
    mem_free(t->node);
    *t = (struct trie){0};
}

static bool longest_at(const struct trie *t, const char *s, size_t n, size_t at, struct added_match *m)
{
    int32_t node = t->root[(uint8_t)s[at]];
    bool found = false;
    for (size_t i = at; node >= 0;) {
        i++;
        if (t->node[node].token >= 0) *m = (struct added_match){at, i, t->node[node].token}, found = true;
        if (i == n) break;
        int32_t next = t->node[node].child;
        while (next >= 0 && t->node[next].byte != (uint8_t)s[i]) next = t->node[next].sibling;
        node = next;
    }
    return found;
}

static size_t char_before(const char *s, size_t at)
{
    do at--;
    while (((uint8_t)s[at] & 0xC0) == 0x80);
    return at;
}

bool added_find(const struct trie *t, const struct added *tokens, const char *s, size_t n, size_t *pos, size_t done, struct added_match *m)
{
    if (!t->n) return false;
    while (*pos < n) {
        if (t->root[(uint8_t)s[*pos]] < 0 || !longest_at(t, s, n, *pos, m)) {
            (*pos)++;
            continue;
        }
        *pos = m->hi;
        const struct added *a = &tokens[m->token];
        size_t len;
        if (a->single_word && ((m->lo > 0 && (char_bits(utf8_get(s + char_before(s, m->lo), &len)) & CHAR_RUST_WORD)) ||
                               (m->hi < n && (char_bits(utf8_get(s + m->hi, &len)) & CHAR_RUST_WORD))))
            continue;
        if (a->lstrip)
            while (m->lo > done) {
                size_t before = char_before(s, m->lo);
                if (!(char_bits(utf8_get(s + before, &len)) & CHAR_SPACE)) break;
                m->lo = before;
            }
        if (a->lstrip && m->lo < done) m->lo = done;
        if (a->rstrip)
            while (m->hi < n && (char_bits(utf8_get(s + m->hi, &len)) & CHAR_SPACE)) m->hi += len;
        // The search goes on at the end of the token's own text, not of the white space rstrip took, as in Hugging Face's library; a token
        // all of whose text was taken by the one before is dropped.
        if (m->lo < m->hi) return true;
    }
    return false;
}
