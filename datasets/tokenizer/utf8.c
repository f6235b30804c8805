// UTF-8: validity and encoding. Decoding of text known to be valid is inline in internal.h.
#include "datasets/tokenizer/internal.h"

#include <string.h>

size_t utf8_check(const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8 && (memcpy(&eight, s + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        uint8_t a = s[i];
        if (a < 0x80) {
            i++;
            continue;
        }
        size_t len = a >= 0xC2 && a < 0xE0 ? 2 : a >= 0xE0 && a < 0xF0 ? 3 : a >= 0xF0 && a < 0xF5 ? 4 : 0;
        if (!len || n - i < len) return i;
        for (size_t k = 1; k < len; k++)
            if ((s[i + k] & 0xC0) != 0x80) return i;
        // Overlong forms, surrogates, and what lies past U+10FFFF show in the second byte.
        uint8_t b = s[i + 1];
        if ((a == 0xE0 && b < 0xA0) || (a == 0xED && b > 0x9F) || (a == 0xF0 && b < 0x90) || (a == 0xF4 && b > 0x8F)) return i;
        i += len;
    }
    return n;
}

size_t utf8_put(char *out, uint32_t c)
{
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

// How many bytes at s, where no character stands, begin one: the longest that some continuation would complete, at least 1. *whole gets the
// length that it would have.
static size_t broken_length(const char *s, size_t n, size_t *whole)
{
    size_t len = (uint8_t)*s >= 0xC2 && (uint8_t)*s < 0xF5 ? utf8_len((uint8_t)*s) : 1, bad = 1;
    // A beginning becomes valid when completed by the lowest or the highest continuation.
    for (; bad < len && bad < n; bad++) {
        char low[4] = {0}, high[4] = {0};
        memcpy(low, s, bad + 1);
        memcpy(high, s, bad + 1);
        for (size_t k = bad + 1; k < len; k++) low[k] = (char)0x80, high[k] = (char)0xBF;
        if (utf8_check(low, len) < len && utf8_check(high, len) < len) break;
    }
    *whole = len;
    return bad;
}

size_t utf8_mend(struct buf *out, const char *s, size_t n, bool more)
{
    size_t used = 0, whole;
    while (used < n) {
        size_t good = utf8_check(s + used, n - used);
        buf_put(out, s + used, good);
        used += good;
        if (used == n) break;
        size_t bad = broken_length(s + used, n - used, &whole);
        if (more && used + bad == n && bad < whole) break;
        buf_puts(out, "\xEF\xBF\xBD");
        used += bad;
    }
    return used;
}

bool utf8_unfinished(const char *s, size_t n)
{
    size_t good = utf8_check(s, n), whole;
    return good < n && broken_length(s + good, n - good, &whole) == n - good && n - good < whole;
}

json_t *utf8_json(const char *s, size_t n)
{
    struct buf out = {0};
    utf8_mend(&out, s, n, false);
    json_t *j = json_stringn(out.data ? out.data : "", out.size);
    buf_free(&out);
    return j;
}
