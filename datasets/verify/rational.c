// Numbers as they stand in answers, exactly: no floating point, so 0.1 is 1/10 and 1/3 is not 0.3333.
#include "datasets/verify/internal.h"

#include <string.h>

static const __int128 LIMIT = (__int128)1 << 125; // room for a sign and one addition

static __int128 gcd(__int128 a, __int128 b)
{
    while (b) {
        __int128 r = a % b;
        a = b;
        b = r;
    }
    return a < 0 ? -a : a;
}

static bool mul(__int128 *out, __int128 a, __int128 b)
{
    if (__builtin_mul_overflow(a, b, out)) return false;
    return *out<LIMIT && * out> - LIMIT;
}

static bool reduce(struct rational *r)
{
    if (r->den == 0) return false;
    __int128 g = gcd(r->num, r->den);
    r->num /= g;
    r->den /= g;
    if (r->den < 0) r->num = -r->num, r->den = -r->den;
    return true;
}

static bool is_digit(struct span s, size_t i)
{
    return i < s.n && s.p[i] >= '0' && s.p[i] <= '9';
}

static bool put_digit(struct rational *r, char c, bool fraction)
{
    if (!mul(&r->num, r->num, 10) || (fraction && !mul(&r->den, r->den, 10))) return false;
    r->num += c - '0';
    return true;
}

// Whether a comma and a group of exactly three digits stand at i.
static bool group_here(struct span s, size_t i)
{
    return i < s.n && s.p[i] == ',' && is_digit(s, i + 1) && is_digit(s, i + 2) && is_digit(s, i + 3) && !is_digit(s, i + 4);
}

// Digits with commas between groups of three, decimals, exponent. No sign. Any other comma ends it, as does the full stop of a sentence.
static size_t parse_decimal(struct rational *out, struct span s)
{
    struct rational r = {.den = 1};
    size_t i = 0, n_digit = 0;
    while (is_digit(s, n_digit)) n_digit++;
    bool groups = n_digit && n_digit <= 3 && group_here(s, n_digit);
    for (; is_digit(s, i) || (groups && group_here(s, i)); i++)
        if (s.p[i] != ',' && !put_digit(&r, s.p[i], false)) return 0;
    if (i < s.n && s.p[i] == '.' && is_digit(s, i + 1))
        for (i++; is_digit(s, i); i++, n_digit++)
            if (!put_digit(&r, s.p[i], true)) return 0;
    if (!n_digit) return 0;
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        size_t k = i + 1;
        bool down = k < s.n && s.p[k] == '-';
        if (k < s.n && (s.p[k] == '-' || s.p[k] == '+')) k++;
        int exponent = 0;
        size_t first = k;
        for (; is_digit(s, k) && exponent < 1000; k++) exponent = 10 * exponent + (s.p[k] - '0');
        if (k > first) {
            for (int e = 0; e < exponent; e++)
                if (!(down ? mul(&r.den, r.den, 10) : mul(&r.num, r.num, 10))) return 0;
            i = k;
        }
    }
    if (!reduce(&r)) return 0;
    *out = r;
    return i;
}

// {number}, the whole of the braces. Returns the length with the braces.
static size_t parse_braced(struct rational *out, struct span s)
{
    if (!s.n || s.p[0] != '{') return 0;
    const char *close = memchr(s.p, '}', s.n);
    if (!close) return 0;
    struct span in = span_trim((struct span){s.p + 1, (size_t)(close - s.p) - 1});
    if (!in.n || in.p[0] == '\\') return 0;
    if (rational_parse(out, in) != in.n || out->percent) return 0;
    return (size_t)(close - s.p) + 1;
}

static size_t parse_frac(struct rational *out, struct span s)
{
    static const char *const words[] = {"\\frac", "\\dfrac", "\\tfrac"};
    size_t i = 0;
    for (size_t k = 0; k < 3 && !i; k++)
        if (span_begins(s, words[k], false)) i = strlen(words[k]);
    if (!i) return 0;
    struct rational part[2];
    for (int k = 0; k < 2; k++) {
        struct span rest = {s.p + i, s.n - i};
        size_t n = parse_braced(&part[k], rest);
        if (!n && is_digit(rest, 0)) { // \frac12
            part[k] = (struct rational){.num = rest.p[0] - '0', .den = 1};
            n = 1;
        }
        if (!n) return 0;
        i += n;
    }
    struct rational r = {0};
    if (!mul(&r.num, part[0].num, part[1].den) || !mul(&r.den, part[0].den, part[1].num) || !reduce(&r)) return 0;
    *out = r;
    return i;
}

static size_t skip_spaces(struct span s, size_t i)
{
    while (i < s.n && s.p[i] == ' ') i++;
    return i;
}

// Sum of a whole number and a fraction behind it: 1\frac{1}{2}, 1 1/2.
static bool add(struct rational *a, struct rational b)
{
    __int128 x, y, den;
    if (!mul(&x, a->num, b.den) || !mul(&y, b.num, a->den) || !mul(&den, a->den, b.den)) return false;
    *a = (struct rational){.num = x + y, .den = den};
    return reduce(a);
}

size_t rational_parse(struct rational *out, struct span s)
{
    size_t i = 0;
    bool minus = false;
    if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
        minus = s.p[0] == '-';
        i = skip_spaces(s, 1);
    } else if (s.n >= 3 && !memcmp(s.p, "\xE2\x88\x92", 3)) { // U+2212 minus sign
        minus = true;
        i = skip_spaces(s, 3);
    }
    if (i < s.n && s.p[i] == '$') i++;
    struct span rest = {s.p + i, s.n - i};
    struct rational r, part;
    size_t n = parse_frac(&r, rest);
    if (!n) {
        n = parse_decimal(&r, rest);
        if (!n) return 0;
        struct span after = {rest.p + n, rest.n - n};
        size_t k = parse_frac(&part, after); // 1\frac{1}{2}
        if (k && r.den == 1) {
            if (!add(&r, part)) return 0;
            n += k;
        } else if (after.n > 1 && after.p[0] == '/' && (k = parse_decimal(&part, (struct span){after.p + 1, after.n - 1})) && part.num) {
            struct rational q = {0};
            if (!mul(&q.num, r.num, part.den) || !mul(&q.den, r.den, part.num) || !reduce(&q)) return 0;
            r = q;
            n += 1 + k;
        } else if (r.den == 1 && after.n > 3 && after.p[0] == ' ' && is_digit(after, 1)) { // 1 1/2
            size_t a = 1;
            while (is_digit(after, a)) a++;
            struct span second = {after.p + 1, after.n - 1};
            k = a < after.n && after.p[a] == '/' && is_digit(after, a + 1) ? rational_parse(&part, second) : 0;
            if (k && !part.percent && part.num < part.den && add(&r, part)) n += 1 + k;
        }
    }
    if (minus) r.num = -r.num;
    i += n;
    r.percent = false;
    if (i < s.n && s.p[i] == '%')
        r.percent = true, i++;
    else if (i + 1 < s.n && s.p[i] == '\\' && s.p[i + 1] == '%')
        r.percent = true, i += 2;
    *out = r;
    return i;
}

bool rational_equal(struct rational a, struct rational b)
{
    if (a.num == b.num && a.den == b.den) return true;
    if (a.percent == b.percent) return false;
    struct rational *p = a.percent ? &a : &b;
    if (!mul(&p->den, p->den, 100) || !reduce(p)) return false;
    return a.num == b.num && a.den == b.den;
}
