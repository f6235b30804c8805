// Added tokens: gathered from tokenizer.json and from what stands beside it, then looked for in the text before anything else, longest
// first at the leftmost place (as Aho-Corasick with leftmost-longest matching finds them); lstrip, rstrip and single_word decide what they
// take with them or whether they count.
#include "datasets/tokenizer/internal.h"

#include <string.h>

// ---- gathering -------------------------------------------------------------------------------------------------------------------------

struct added added_read(const json_t *one, bool special)
{
    const json_t *content = json_object_get(one, "content"), *said = json_object_get(one, "special"), *normalized;
    if (said) special = json_is_true(said);
    normalized = json_object_get(one, "normalized");
    return (struct added){.content = (char *)(uintptr_t)json_string_value(content),
                          .n = json_string_length(content),
                          .special = special,
                          .normalized = normalized ? json_is_true(normalized) : !special,
                          .single_word = json_is_true(json_object_get(one, "single_word")),
                          .lstrip = json_is_true(json_object_get(one, "lstrip")),
                          .rstrip = json_is_true(json_object_get(one, "rstrip"))};
}

bool added_same(const struct added *a, const struct added *b)
{
    return a->special == b->special && a->normalized == b->normalized && a->single_word == b->single_word && a->lstrip == b->lstrip &&
           a->rstrip == b->rstrip;
}

bool added_put(struct tokenizer *t, struct added a)
{
    const int32_t k = trie_find(&t->contents, a.content, a.n);
    a.once_normalized = a.normalized;
    if (k >= 0) {
        struct added *old = &t->added[k];
        a.special |= old->special;
        a.once_normalized |= old->once_normalized;
        const bool same = added_same(old, &a);
        a.id = old->id;
        a.content = old->content;
        *old = a;
        return !same;
    }
    a.content = mem_strndup(a.content, a.n);
    if (t->n_added == t->cap_added) t->added = mem_realloc(t->added, (t->cap_added = t->cap_added ? 2 * t->cap_added : 64) * sizeof a);
    trie_add(&t->contents, a.content, a.n, (int32_t)t->n_added);
    t->added[t->n_added++] = a;
    if (a.id >= t->n_vocab) t->n_vocab = a.id + 1;
    return true;
}

enum status added_load(struct tokenizer *t, const json_t *list, const char *where, struct err *err)
{
    t->n_vocab = t->vocab.n;
    trie_init(&t->contents);
    trie_init(&t->raw);
    trie_init(&t->normalized);
    if (list && !json_is_null(list) && !json_is_array(list)) return err_set(err, ST_BAD_INPUT, "%s: added_tokens is not an array", where);
    const json_t *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        const json_t *content = json_object_get(one, "content"), *id = json_object_get(one, "id");
        if (!json_is_string(content) || !json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= BPE_MAX_ID)
            return err_set(err, ST_BAD_INPUT, "%s: added_tokens[%zu]: wanted a \"content\" and an \"id\" from 0 to 16777215", where, i);
        struct added a = added_read(one, false);
        if (!a.n) continue; // as Hugging Face's library passes over it
        a.normalized = json_is_true(json_object_get(one, "normalized"));
        // A token that the vocabulary has too keeps the vocabulary's id, as Hugging Face's library does.
        const int32_t known = vocab_token(&t->vocab, a.content, a.n);
        a.id = known >= 0 ? known : (int32_t)json_integer_value(id);
        added_put(t, a);
    }
    return ST_OK;
}

enum status added_finish(struct tokenizer *t, const char *where, struct err *err)
{
    t->added_of = mem_alloc((size_t)t->n_vocab * sizeof *t->added_of);
    memset(t->added_of, 0xFF, (size_t)t->n_vocab * sizeof *t->added_of);
    for (size_t k = 0; k < t->n_added; k++) {
        struct added *a = &t->added[k];
        const int32_t other = t->added_of[a->id];
        if (other >= 0)
            return err_set(err, ST_BAD_INPUT, "%s: added_tokens: \"%s\" and \"%s\" have the same id %d", where, t->added[other].content,
                           a->content, a->id);
        t->added_of[a->id] = (int32_t)k;
        struct normalized z = {0};
        if (a->once_normalized && normalizer_run(t->normalizer, a->content, a->n, &z))
            a->seen = mem_strndup(z.text.data ? z.text.data : "", a->n_seen = z.text.size);
        else
            a->seen = mem_strndup(a->content, a->n_seen = a->n);
        if (a->normalized)
            trie_add(&t->normalized, a->seen, a->n_seen, (int32_t)k);
        else
            trie_add(&t->raw, a->content, a->n, (int32_t)k);
        normalized_free(&z);
    }
    for (size_t k = 0; k < t->n_added; k++) { // what is decoded decides, as in Hugging Face's library
        const int32_t as = trie_find(&t->contents, t->added[k].seen, t->added[k].n_seen);
        t->added[k].skipped = as >= 0 && t->added[as].special;
    }
    return ST_OK;
}

// ---- finding ---------------------------------------------------------------------------------------------------------------------------

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

int32_t trie_find(const struct trie *t, const char *s, size_t n)
{
    int32_t at = n ? t->root[(uint8_t)s[0]] : -1;
    for (size_t i = 1; i < n && at >= 0; i++) {
        at = t->node[at].child;
        while (at >= 0 && t->node[at].byte != (uint8_t)s[i]) at = t->node[at].sibling;
    }
    return at < 0 ? -1 : t->node[at].token;
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
