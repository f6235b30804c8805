// The vocabulary and merges of a tokenizer.json as text, read without building a JSON tree of them: they are nearly all of the file, and
// the tree costs five times its size and most of the time of loading.
//
// The scanner takes only what it fully understands. Anything else (an error, too) makes it give up, and the whole file goes through the
// JSON reader, which says what is wrong and where.
#include "datasets/tokenizer/internal.h"

#include <string.h>

#if JANSSON_VERSION_HEX < 0x020e00
#define json_object_iter_key_len(it) strlen(json_object_iter_key(it)) // before 2.14 Jansson refuses U+0000 in keys
#endif

static void put_token(struct bpe_text *x, size_t at, int32_t id)
{
    if (x->n_token == x->cap_token)
        x->token = mem_realloc(x->token, (x->cap_token = x->cap_token ? x->cap_token * 2 : 1024) * sizeof *x->token);
    x->token[x->n_token++] = (struct bpe_token){(uint32_t)at, (uint32_t)(x->pool.size - at), id};
}

static void put_merge(struct bpe_text *x, size_t at, size_t n_left)
{
    if (x->n_merge == x->cap_merge)
        x->merge = mem_realloc(x->merge, (x->cap_merge = x->cap_merge ? x->cap_merge * 2 : 1024) * sizeof *x->merge);
    x->merge[x->n_merge++] = (struct bpe_merge){(uint32_t)at, (uint32_t)n_left, (uint32_t)(x->pool.size - at - n_left)};
}

// Splits "left right", whose text stands in the pool from `at` on. False: not one space.
static bool split_merge(struct bpe_text *x, size_t at)
{
    char *s = x->pool.data + at;
    size_t n = x->pool.size - at;
    if (n >= 8 && memcmp(s, "#version", 8) == 0) return x->pool.size = at, true; // a header, as in merges.txt
    char *space = memchr(s, ' ', n);
    if (!space || memchr(space + 1, ' ', n - (size_t)(space - s) - 1)) return false;
    memmove(space, space + 1, n - (size_t)(space - s) - 1);
    x->pool.size--;
    put_merge(x, at, (size_t)(space - s));
    return true;
}

void bpe_text_free(struct bpe_text *x)
{
    buf_free(&x->pool);
    mem_free(x->token);
    mem_free(x->merge);
    *x = (struct bpe_text){0};
}

// ---- from JSON values ------------------------------------------------------------------------------------------------------------------

enum status bpe_text_json(struct bpe_text *x, const json_t *vocab, const json_t *merges, const char *where, struct err *err)
{
    buf_putc(&x->pool, 0); // so that an empty token has an address
    for (void *it = json_object_iter((json_t *)(uintptr_t)vocab); it; it = json_object_iter_next((json_t *)(uintptr_t)vocab, it)) {
        const json_t *id = json_object_iter_value(it);
        size_t at = x->pool.size;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= BPE_MAX_ID)
            return err_set(err, ST_BAD_INPUT, "%s: model.vocab: the id of \"%s\" is not an integer from 0 to %d", where,
                           json_object_iter_key(it), BPE_MAX_ID - 1);
        buf_put(&x->pool, json_object_iter_key(it), json_object_iter_key_len(it));
        put_token(x, at, (int32_t)json_integer_value(id));
    }
    const json_t *m;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)merges, i, m)
    {
        const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
        size_t at = x->pool.size;
        if (json_is_string(m)) {
            buf_put(&x->pool, json_string_value(m), json_string_length(m));
            if (!split_merge(x, at))
                return err_set(err, ST_BAD_INPUT, "%s: model.merges: merge %zu, \"%s\": wanted two tokens with one space between", where, i,
                               json_string_value(m));
        } else if (json_array_size(m) == 2 && json_is_string(a) && json_is_string(b)) {
            buf_put(&x->pool, json_string_value(a), json_string_length(a));
            buf_put(&x->pool, json_string_value(b), json_string_length(b));
            put_merge(x, at, json_string_length(a));
        } else
            return err_set(err, ST_BAD_INPUT, "%s: model.merges: merge %zu is neither \"a b\" nor [\"a\",\"b\"]", where, i);
        if (x->pool.size > UINT32_MAX) return err_set(err, ST_BAD_INPUT, "%s: model.vocab and model.merges are longer than 4 GiB", where);
    }
    return ST_OK;
}

// ---- from text -------------------------------------------------------------------------------------------------------------------------

struct scan {
    const char *s, *end; // valid UTF-8
};

static bool next_is(struct scan *x, char c)
{
    while (x->s < x->end && (*x->s == ' ' || *x->s == '\n' || *x->s == '\t' || *x->s == '\r')) x->s++;
    if (x->s == x->end || *x->s != c) return false;
    x->s++;
    return true;
}

static bool hex4(struct scan *x, uint32_t *v)
{
    *v = 0;
    if (x->end - x->s < 4) return false;
    for (int i = 0; i < 4; i++) {
        char c = *x->s++;
        uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10) : 16;
        if (d == 16) return false;
        *v = *v * 16 + d;
    }
    return true;
}

// What follows the backslash.
static bool escape(struct scan *x, struct buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *k = x->s < x->end && *x->s ? strchr(from, *x->s) : NULL;
    if (k) return x->s++, buf_putc(out, to[k - from]), true;
    uint32_t c, low;
    char utf8[4];
    if (x->s == x->end || *x->s++ != 'u' || !hex4(x, &c) || c == 0 || (c >= 0xDC00 && c < 0xE000)) return false;
    if (c >= 0xD800 && c < 0xDC00) {
        if (x->end - x->s < 6 || x->s[0] != '\\' || x->s[1] != 'u') return false;
        x->s += 2;
        if (!hex4(x, &low) || low < 0xDC00 || low >= 0xE000) return false;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    buf_put(out, utf8, utf8_put(utf8, c));
    return true;
}

// A string, appended to out (NULL: passed over).
static bool string(struct scan *x, struct buf *out)
{
    if (!next_is(x, '"')) return false;
    for (const char *from = x->s; x->s < x->end; from = x->s) {
        while (x->s < x->end && *x->s != '"' && *x->s != '\\' && (uint8_t)*x->s >= 0x20) x->s++;
        if (out) buf_put(out, from, (size_t)(x->s - from));
        if (x->s == x->end || (uint8_t)*x->s < 0x20) return false;
        if (*x->s++ == '"') return true;
        if (out ? !escape(x, out) : x->s == x->end) return false;
        if (!out) x->s++;
    }
    return false;
}

// Any other value, which the JSON reader will see: only its end is looked for.
static bool value(struct scan *x)
{
    for (int depth = 0; x->s < x->end;) {
        char c = *x->s;
        if (!depth && (c == ',' || c == '}' || c == ']')) return true;
        if (c == '"') {
            if (!string(x, NULL)) return false;
            continue;
        }
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        x->s++;
    }
    return false;
}

static bool vocab(struct scan *x, struct bpe_text *out)
{
    if (!next_is(x, '{')) return false;
    if (next_is(x, '}')) return true;
    do {
        size_t at = out->pool.size;
        if (!string(x, &out->pool) || !next_is(x, ':')) return false;
        while (x->s < x->end && *x->s == ' ') x->s++;
        const char *from = x->s;
        int32_t id = 0;
        for (; x->s < x->end && *x->s >= '0' && *x->s <= '9' && x->s - from < 9; x->s++) id = id * 10 + (*x->s - '0');
        if (x->s == from || (*from == '0' && x->s - from > 1) || id >= BPE_MAX_ID) return false;
        put_token(out, at, id);
    } while (next_is(x, ','));
    return next_is(x, '}');
}

static bool merges(struct scan *x, struct bpe_text *out)
{
    if (!next_is(x, '[')) return false;
    if (next_is(x, ']')) return true;
    do {
        size_t at = out->pool.size;
        if (next_is(x, '[')) {
            if (!string(x, &out->pool) || !next_is(x, ',')) return false;
            size_t n_left = out->pool.size - at;
            if (!string(x, &out->pool) || !next_is(x, ']')) return false;
            put_merge(out, at, n_left);
        } else if (!string(x, &out->pool) || !split_merge(out, at))
            return false;
    } while (next_is(x, ','));
    return next_is(x, ']');
}

// An object's members, by name; `model` is whether it is the object "model".
static bool object(struct scan *x, bool model, struct bpe_text *out, struct buf *rest, const char **copied)
{
    struct buf key = {0};
    bool ok = next_is(x, '{');
    int n_vocab = 0, n_merges = 0, n_model = 0;
    do {
        buf_clear(&key);
        ok = ok && string(x, &key) && next_is(x, ':');
        const char *from = x->s;
        if (!ok) break;
        buf_putc(&key, 0);
        if (!model && strcmp(key.data, "model") == 0)
            ok = n_model++ == 0 && object(x, true, out, rest, copied);
        else if (model && (strcmp(key.data, "vocab") == 0 || strcmp(key.data, "merges") == 0)) {
            const bool v = key.data[0] == 'v';
            ok = v ? n_vocab++ == 0 && vocab(x, out) : n_merges++ == 0 && merges(x, out);
            buf_put(rest, *copied, (size_t)(from - *copied));
            buf_puts(rest, v ? "{}" : "[]");
            *copied = x->s;
        } else
            ok = value(x);
    } while (ok && next_is(x, ','));
    buf_free(&key);
    return ok && next_is(x, '}') && (model ? n_vocab && n_merges : n_model);
}

// No token stands twice, which the JSON reader would refuse.
static bool tokens_differ(const struct bpe_text *x)
{
    uint32_t mask = 15;
    while (mask < x->n_token * 2) mask = mask * 2 + 1;
    uint32_t *slot = NEW_N(uint32_t, (size_t)mask + 1); // index + 1
    bool differ = true;
    for (size_t k = 0; k < x->n_token && differ; k++) {
        const struct bpe_token *a = &x->token[k];
        const char *s = x->pool.data + a->at;
        uint32_t i = hash_bytes(s, a->n) & mask;
        for (; slot[i] && differ; i = (i + 1) & mask) {
            const struct bpe_token *b = &x->token[slot[i] - 1];
            differ = a->n != b->n || memcmp(x->pool.data + b->at, s, a->n) != 0;
        }
        slot[i] = (uint32_t)k + 1;
    }
    mem_free(slot);
    return differ;
}

bool bpe_text_scan(struct bpe_text *out, struct buf *rest, const char *text, size_t n)
{
    if (n > UINT32_MAX || utf8_check(text, n) < n) return false;
    struct scan x = {text, text + n};
    buf_putc(&out->pool, 0); // so that an empty token has an address
    const char *copied = text;
    if (!object(&x, false, out, rest, &copied) || !tokens_differ(out)) return false;
    buf_put(rest, copied, (size_t)(text + n - copied)); // what follows the object is the JSON reader's to refuse
    return true;
}
