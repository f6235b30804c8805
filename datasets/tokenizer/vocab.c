// The vocabulary and merges of a BPE model, in a form made for encoding: token bytes in one pool, one hash from bytes to ids, one hash from
// pairs of ids to the merge's rank and result. Byte-level models store each token as the bytes it stands for, so no text is ever rewritten
// into the GPT-2 alphabet.
#include "datasets/tokenizer/internal.h"

#include <string.h>

uint32_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u, w;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    w = 0;
    memcpy(&w, s, n);
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
    return (uint32_t)((h * 0xc4ceb9fe1a85ec53u) >> 32);
}

// GPT-2: printable Latin-1 bytes are themselves; the other 68 follow from U+0100 on in order.
static bool is_plain(int b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
}
uint32_t char_of_byte(uint8_t b)
{
    if (is_plain(b)) return b;
    uint32_t k = 0;
    for (int i = 0; i < b; i++) k += !is_plain(i);
    return 256 + k;
}
int byte_of_char(uint32_t c)
{
    if (c < 256) return is_plain((int)c) ? (int)c : -1;
    // The 68 others are 0-32 (33 of them), 127-160 (34), 173.
    c -= 256;
    return c < 33 ? (int)c : c < 67 ? (int)c - 33 + 127 : c == 67 ? 173 : -1;
}

bool byte_level_decode(const char *s, size_t n, char *out, size_t *n_out)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        size_t len;
        int b = byte_of_char(utf8_get(s + i, &len));
        if (b < 0) return false;
        out[k++] = (char)b;
        i += len;
    }
    *n_out = k;
    return true;
}

int32_t vocab_find(const struct vocab *v, const char *bytes, size_t n)
{
    for (uint32_t i = hash_bytes(bytes, n) & v->slot_mask;; i = (i + 1) & v->slot_mask) {
        int32_t id = v->slot[i];
        if (id < 0) return -1;
        if (v->size[id] == n && memcmp(v->pool + v->begin[id], bytes, n) == 0) return id;
    }
}

int32_t vocab_find_foreign(const struct vocab *v, const char *content, size_t n)
{
    for (int32_t id = 0; id < v->n; id++)
        if (v->foreign[id] && v->size[id] == n && memcmp(v->pool + v->begin[id], content, n) == 0) return id;
    return -1;
}

int32_t vocab_token(const struct vocab *v, const char *token, size_t n)
{
    if (utf8_check(token, n) < n) return -1;
    size_t n_raw;
    char *raw = mem_alloc(n + 1);
    int32_t id = byte_level_decode(token, n, raw, &n_raw) ? vocab_find(v, raw, n_raw) : vocab_find_foreign(v, token, n);
    mem_free(raw);
    return id;
}

static enum status load_tokens(struct vocab *v, const struct bpe_text *text, const char *where, struct err *err)
{
    const size_t n_token = text->n_token;
    size_t n_bytes = 0;
    for (size_t k = 0; k < n_token; k++) {
        if (text->token[k].id >= v->n) v->n = text->token[k].id + 1;
        n_bytes += text->token[k].n;
    }
    if (!n_token) return err_set(err, ST_BAD_INPUT, "%s: model.vocab is empty", where);
    v->pool = mem_alloc(n_bytes + 1);
    v->begin = NEW_N(uint32_t, v->n);
    v->size = NEW_N(uint32_t, v->n);
    v->present = NEW_N(uint8_t, v->n);
    v->foreign = NEW_N(uint8_t, v->n);
    v->whole = NEW_N(uint8_t, v->n);
    v->slot_mask = 15;
    while (v->slot_mask < n_token * 2) v->slot_mask = v->slot_mask * 2 + 1;
    v->slot = mem_alloc(((size_t)v->slot_mask + 1) * sizeof *v->slot);
    memset(v->slot, 0xFF, ((size_t)v->slot_mask + 1) * sizeof *v->slot);
    size_t at = 0;
    for (size_t k = 0; k < n_token; k++) {
        const char *key = text->pool.data + text->token[k].at;
        size_t n = text->token[k].n, n_raw = n;
        int32_t id = text->token[k].id;
        if (v->present[id])
            return err_set(err, ST_BAD_INPUT, "%s: model.vocab: \"%.*s\" and another token have the same id %d", where, (int)n, key, id);
        if (!v->byte_level || !byte_level_decode(key, n, v->pool + at, &n_raw)) {
            memcpy(v->pool + at, key, n);
            n_raw = n;
            v->foreign[id] = v->byte_level;
        }
        v->present[id] = 1;
        v->begin[id] = (uint32_t)at;
        v->size[id] = (uint32_t)n_raw;
        at += n_raw;
        if (v->foreign[id]) continue;
        uint32_t i = hash_bytes(v->pool + v->begin[id], n_raw) & v->slot_mask;
        while (v->slot[i] >= 0) i = (i + 1) & v->slot_mask;
        v->slot[i] = id;
    }
    return ST_OK;
}

static enum status load_merges(struct vocab *v, const struct bpe_text *text, const char *where, struct err *err)
{
    v->merge_mask = 15;
    while (v->merge_mask < text->n_merge * 2) v->merge_mask = v->merge_mask * 2 + 1;
    v->merge = mem_alloc(((size_t)v->merge_mask + 1) * sizeof *v->merge);
    for (size_t i = 0; i <= v->merge_mask; i++) v->merge[i].pair = MERGE_EMPTY;
    struct buf raw = {0};
    enum status st = ST_OK;
    for (uint32_t rank = 0; rank < text->n_merge && !st; rank++) {
        const struct bpe_merge *m = &text->merge[rank];
        const char *s = text->pool.data + m->at;
        size_t n_left = m->n_left, n_right = m->n_right;
        if (v->byte_level) {
            buf_clear(&raw);
            buf_put(&raw, s, n_left + n_right); // reserves; decoding never grows
            if (!byte_level_decode(s, m->n_left, raw.data, &n_left) ||
                !byte_level_decode(s + m->n_left, m->n_right, raw.data + n_left, &n_right))
                continue; // of characters that the byte alphabet never yields: this merge can never happen
            s = raw.data;
        }
        int32_t left = vocab_find(v, s, n_left), right = vocab_find(v, s + n_left, n_right), id = vocab_find(v, s, n_left + n_right);
        if (left < 0 || right < 0 || id < 0) {
            const char *shown = text->pool.data + m->at;
            st = err_set(err, ST_BAD_INPUT, "%s: model.merges: merge %u, \"%.*s %.*s\": %s is not in the vocabulary", where, rank,
                         (int)m->n_left, shown, (int)m->n_right, shown + m->n_left,
                         left < 0    ? "its left part"
                         : right < 0 ? "its right part"
                                     : "its result");
            break;
        }
        uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
        uint32_t i = (uint32_t)(pair * 0x9E3779B97F4A7C15u >> 32) & v->merge_mask;
        while (v->merge[i].pair != MERGE_EMPTY && v->merge[i].pair != pair) i = (i + 1) & v->merge_mask;
        v->merge[i] = (struct merge){pair, rank, id}; // of two equal pairs the later one counts, as in Hugging Face's library
    }
    buf_free(&raw);
    return st;
}

enum status vocab_load(struct vocab *v, const json_t *model, const struct bpe_text *text, bool byte_level, const char *where,
                       struct err *err)
{
    *v = (struct vocab){.byte_level = byte_level, .unk = -1};
    const char *type = json_string_value(json_object_get(model, "type"));
    const json_t *tokens = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    if (type ? strcmp(type, "BPE") != 0 : !json_is_array(merges))
        return err_set(err, ST_BAD_INPUT, "%s: model.type is %s; distill knows BPE", where, type ? type : "missing");
    if (!json_is_object(tokens)) return err_set(err, ST_BAD_INPUT, "%s: model.vocab is not an object of tokens and ids", where);
    if (!json_is_array(merges)) return err_set(err, ST_BAD_INPUT, "%s: model.merges is not an array", where);
    static const char *const affix[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const char *s = json_string_value(json_object_get(model, affix[i]));
        if (s && *s) return err_set(err, ST_BAD_INPUT, "%s: model.%s is \"%s\"; distill knows only none", where, affix[i], s);
    }
    if (json_is_number(json_object_get(model, "dropout")) && json_number_value(json_object_get(model, "dropout")) != 0)
        return err_set(err, ST_BAD_INPUT, "%s: model.dropout is set: the same text would give different ids; set it to null", where);
    v->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    v->fuse_unk = json_is_true(json_object_get(model, "fuse_unk"));
    v->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    struct bpe_text own = {0};
    enum status st = text ? ST_OK : bpe_text_json(&own, tokens, merges, where, err);
    if (!st) st = load_tokens(v, text ? text : &own, where, err);
    if (!st) st = load_merges(v, text ? text : &own, where, err);
    bpe_text_free(&own);
    if (st) return st;
    for (int b = 0; b < 256; b++) {
        char one[8], name[8];
        if (byte_level)
            v->byte_id[b] = (one[0] = (char)b, vocab_find(v, one, 1));
        else
            v->byte_id[b] = vocab_find(v, name, (size_t)snprintf(name, sizeof name, "<0x%02X>", (unsigned)b));
    }
    for (int b = 0; b < 256; b++)
        if (byte_level && v->byte_fallback && v->byte_id[b] < 0)
            return err_set(err, ST_BAD_INPUT,
                           "%s: model.byte_fallback is set, the pre_tokenizer is a ByteLevel, and byte 0x%02X has no token", where,
                           (unsigned)b);
    const json_t *unk = json_object_get(model, "unk_token");
    if (json_is_string(unk)) {
        size_t n = json_string_length(unk), n_raw = n;
        char *raw = mem_alloc(n + 1);
        if (!byte_level || byte_level_decode(json_string_value(unk), n, raw, &n_raw))
            v->unk = vocab_find(v, byte_level ? raw : json_string_value(unk), n_raw);
        mem_free(raw);
        if (v->unk < 0) v->unk = vocab_find_foreign(v, json_string_value(unk), n);
        if (v->unk < 0)
            return err_set(err, ST_BAD_INPUT, "%s: model.unk_token \"%s\" is not in the vocabulary", where, json_string_value(unk));
    }
    return ST_OK;
}

void vocab_free(struct vocab *v)
{
    mem_free(v->pool);
    mem_free(v->begin);
    mem_free(v->size);
    mem_free(v->present);
    mem_free(v->foreign);
    mem_free(v->whole);
    mem_free(v->slot);
    mem_free(v->merge);
    *v = (struct vocab){0};
}
