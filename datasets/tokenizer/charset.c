// Sets of code points as sorted ranges, and the Unicode properties that regexes name, as Hugging Face's library knows them
// (unicode_table.inc and unicode_lower.inc, made by unicode_table.py by asking that library).
#include "datasets/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t unicode_table[] = {
#include "datasets/tokenizer/unicode_table.inc"
};
enum { N_RANGE = sizeof unicode_table / sizeof *unicode_table, CODE_MASK = (1 << 21) - 1, MAX_CODE = 0x10FFFF };
static const char categories[][3] = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
                                     "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"};
enum { N_CATEGORY = sizeof categories / sizeof *categories };

uint32_t char_bits(uint32_t c)
{
    size_t lo = 0, hi = N_RANGE;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if ((unicode_table[mid] & CODE_MASK) <= c)
            lo = mid;
        else
            hi = mid;
    }
    return (uint32_t)(unicode_table[lo] >> 26);
}

void charset_free(struct charset *s)
{
    mem_free(s->v);
    *s = (struct charset){0};
}

void charset_add(struct charset *s, uint32_t lo, uint32_t hi)
{
    if (s->n == s->cap) s->v = mem_realloc(s->v, (s->cap = s->cap ? s->cap * 2 : 16) * sizeof *s->v);
    s->v[s->n++] = (struct char_range){lo, hi};
}

static int by_lo(const void *a, const void *b)
{
    const struct char_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void charset_norm(struct charset *s)
{
    if (!s->n) return;
    qsort(s->v, s->n, sizeof *s->v, by_lo);
    size_t n = 1;
    for (size_t i = 1; i < s->n; i++) {
        struct char_range *last = &s->v[n - 1];
        if (s->v[i].lo <= last->hi + 1)
            last->hi = s->v[i].hi > last->hi ? s->v[i].hi : last->hi;
        else
            s->v[n++] = s->v[i];
    }
    s->n = n;
}

void charset_add_set(struct charset *s, const struct charset *other)
{
    for (size_t i = 0; i < other->n; i++) charset_add(s, other->v[i].lo, other->v[i].hi);
    charset_norm(s);
}

void charset_invert(struct charset *s)
{
    struct charset out = {0};
    uint32_t from = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].lo > from) charset_add(&out, from, s->v[i].lo - 1);
        from = s->v[i].hi + 1;
    }
    if (from <= MAX_CODE) charset_add(&out, from, MAX_CODE);
    charset_free(s);
    *s = out;
}

void charset_intersect(struct charset *s, const struct charset *other)
{
    struct charset out = {0};
    for (size_t i = 0, j = 0; i < s->n && j < other->n;) {
        uint32_t lo = s->v[i].lo > other->v[j].lo ? s->v[i].lo : other->v[j].lo;
        uint32_t hi = s->v[i].hi < other->v[j].hi ? s->v[i].hi : other->v[j].hi;
        if (lo <= hi) charset_add(&out, lo, hi);
        if (s->v[i].hi < other->v[j].hi)
            i++;
        else
            j++;
    }
    charset_free(s);
    *s = out;
}

bool charset_has(const struct charset *s, uint32_t c)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->v[mid].hi < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->v[lo].lo <= c;
}

bool charset_equal(const struct charset *a, const struct charset *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->v, b->v, a->n * sizeof *a->v) == 0);
}

static const struct {
    uint32_t lo, hi, step;
    int32_t distance;
} lower_table[] = {
#include "datasets/tokenizer/unicode_lower.inc"
};

uint32_t char_lower(uint32_t c)
{
    size_t lo = 0, hi = sizeof lower_table / sizeof *lower_table;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (lower_table[mid].hi < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    bool in =
        lo < sizeof lower_table / sizeof *lower_table && lower_table[lo].lo <= c && (c - lower_table[lo].lo) % lower_table[lo].step == 0;
    return in ? (uint32_t)((int32_t)c + lower_table[lo].distance) : c;
}

static void add_where(struct charset *s, uint32_t categories_wanted, uint32_t bits_wanted)
{
    for (size_t i = 0; i < N_RANGE; i++) {
        uint32_t category = unicode_table[i] >> 21 & 31, bits = (uint32_t)(unicode_table[i] >> 26);
        if (!(categories_wanted >> category & 1) && !(bits & bits_wanted)) continue;
        charset_add(s, unicode_table[i] & CODE_MASK, i + 1 < N_RANGE ? (unicode_table[i + 1] & CODE_MASK) - 1 : MAX_CODE);
    }
    charset_norm(s);
}

void charset_add_bits(struct charset *s, uint32_t bits)
{
    add_where(s, 0, bits);
}

bool charset_add_property(struct charset *s, const char *name)
{
    uint32_t wanted = 0;
    if (strcmp(name, "White_Space") == 0 || strcmp(name, "Space") == 0 || strcmp(name, "space") == 0)
        charset_add_bits(s, CHAR_SPACE);
    else if (strcmp(name, "Word") == 0 || strcmp(name, "word") == 0)
        charset_add_bits(s, CHAR_WORD);
    else if (strcmp(name, "Han") == 0)
        charset_add_bits(s, CHAR_HAN);
    else if (strcmp(name, "Any") == 0)
        add_where(s, UINT32_MAX, 0);
    else {
        if (strlen(name) > 2 || !name[0]) return false;
        for (uint32_t k = 0; k < N_CATEGORY; k++)
            if (name[0] == categories[k][0] && (!name[1] || name[1] == categories[k][1])) wanted |= 1u << k;
        add_where(s, wanted, 0);
    }
    return s->n > 0;
}
