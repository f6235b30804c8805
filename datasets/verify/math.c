// "math": the final answer of a solution against a reference, by value where both are numbers, else as normalised mathematical text. The
// rules of normalising are those that users of the MATH data set share (Hendrycks et al., 2021: math_equivalence), with numbers compared
// exactly.
#include "datasets/verify/internal.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

// ---- normalising

// LaTeX that changes how a formula looks, not what it says.
static const struct {
    const char *from, *to;
} REPLACE[] = {
    {"\\left", ""},
    {"\\right", ""},
    {"\\displaystyle", ""},
    {"\\dfrac", "\\frac"},
    {"\\tfrac", "\\frac"},
    {"\\!", ""},
    {"\\,", ""},
    {"\\;", ""},
    {"\\:", ""},
    {"\\ ", ""},
    {"\\quad", ""},
    {"\\$", ""},
    {"$", ""},
    {"\\%", "%"},
    {"^{\\circ}", ""},
    {"^\\circ", ""},
    {"\\degree", ""},
    {"\xC2\xB0", ""},
    {"{,}", ","},
    {"\\cdot", "*"},
    {"\\times", "*"},
    {"\xE2\x88\x92", "-"},
    {"\\ne", "\\neq"},
    {"\\le", "\\leq"},
    {"\\ge", "\\geq"},
    {"~", ""},
    {"\\(", ""},
    {"\\)", ""},
    {"\\[", ""},
    {"\\]", ""},
    {"\\{", "{"},
    {"\\}", "}"},
    {"\xC2\xA3", ""},
    {"\xE2\x82\xAC", ""},
};
// Commands whose braces hold words: their text is kept, or dropped as a unit where something stands before it.
static const char *const TEXT[] = {"\\text",   "\\mbox",   "\\textbf", "\\textit",      "\\textrm",
                                   "\\mathrm", "\\mathbf", "\\mathit", "\\operatorname"};

static size_t command_length(struct span s, size_t i)
{
    size_t n = i + 1;
    while (n < s.n && isalpha((unsigned char)s.p[n])) n++;
    return n - i;
}

// A replacement whose name is letters must be the whole command: \left is not the beginning of \leftarrow, \le not of \left.
static bool replace_here(struct span s, size_t i, size_t *used, const char **to)
{
    for (size_t k = 0; k < sizeof REPLACE / sizeof *REPLACE; k++) {
        const char *from = REPLACE[k].from;
        size_t n = strlen(from);
        if (!span_begins((struct span){s.p + i, s.n - i}, from, false)) continue;
        bool letters = isalpha((unsigned char)from[n - 1]);
        if (letters && i + n < s.n && isalpha((unsigned char)s.p[i + n])) continue;
        *used = n;
        *to = REPLACE[k].to;
        return true;
    }
    return false;
}

static size_t braces_end(struct span s, size_t i) // of the group that opens at i: past its }, or 0
{
    int depth = 0;
    for (; i < s.n; i++) {
        if (s.p[i] == '{') depth++;
        if (s.p[i] == '}' && !--depth) return i + 1;
    }
    return 0;
}

// \text{…} at i? Its inside, and where it ends.
static bool text_here(struct span s, size_t i, struct span *in, size_t *end)
{
    if (s.p[i] != '\\') return false;
    size_t n = command_length(s, i);
    bool known = false;
    for (size_t k = 0; k < sizeof TEXT / sizeof *TEXT; k++) known |= n == strlen(TEXT[k]) && !memcmp(s.p + i, TEXT[k], n);
    size_t open = i + n;
    while (open < s.n && s.p[open] == ' ') open++;
    if (!known || open >= s.n || s.p[open] != '{') return false;
    *end = braces_end(s, open);
    if (!*end) return false;
    *in = (struct span){s.p + open + 1, *end - open - 2};
    return true;
}

static bool is_unit(struct span s) // words after a number: letters, spaces, points, / and powers
{
    bool letter = false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (isalpha(c))
            letter = true;
        else if (!isspace(c) && !strchr("./^23()-", c) && c < 0x80)
            return false;
    }
    return letter || !s.n;
}

static void drop_range(struct buf *b, size_t from, size_t to)
{
    memmove(b->data + from, b->data + to, b->size - to);
    b->size -= to - from;
    b->data[b->size] = '\0';
}

// \frac12 and \sqrt3 in braces, as \frac{1}{2} and \sqrt{3}.
static void brace_arguments(struct buf *b)
{
    struct buf out = {0};
    for (size_t i = 0; i < b->size;) {
        struct span s = {b->data, b->size};
        size_t n = s.p[i] == '\\' ? command_length(s, i) : 0;
        int n_arg = n == 5 && !memcmp(s.p + i, "\\frac", 5) ? 2 : n == 5 && !memcmp(s.p + i, "\\sqrt", 5) ? 1 : 0;
        if (!n_arg) {
            buf_putc(&out, s.p[i++]);
            continue;
        }
        buf_put(&out, s.p + i, n);
        i += n;
        for (; n_arg && i < s.n && s.p[i] != '{' && s.p[i] != '[' && s.p[i] != '\\'; n_arg--) {
            buf_printf(&out, "{%c}", s.p[i++]);
        }
    }
    buf_free(b);
    *b = out;
}

void normalize_math(struct buf *out, struct span s)
{
    struct buf b = {0};
    s = span_trim(s);
    buf_puts(&b, "");
    for (size_t i = 0; i < s.n;) {
        size_t used, end;
        const char *to;
        struct span in;
        if (text_here(s, i, &in, &end)) {
            bool behind = false; // a number or formula stands before: this is its unit
            for (size_t k = 0; k < b.size; k++) behind |= !isspace((unsigned char)b.data[k]) && !strchr("$({[", b.data[k]);
            bool nothing_after = !span_trim((struct span){s.p + end, s.n - end}).n || s.p[end] == '^';
            if (!(behind && nothing_after && is_unit(in))) buf_put(&b, in.p, in.n);
            i = end;
            if (behind && nothing_after && i < s.n && s.p[i] == '^') break; // \text{cm}^2
        } else if (replace_here(s, i, &used, &to)) {
            buf_puts(&b, to);
            i += used;
        } else {
            buf_putc(&b, s.p[i++]);
        }
    }
    s = span_trim((struct span){b.data, b.size});
    while (s.n && strchr(".,;:", s.p[s.n - 1])) s.n--;
    // "x = 5", "f(x) = 5": the right-hand side, where the left is a name.
    const char *equals = memchr(s.p, '=', s.n);
    if (equals && equals - s.p <= 6 && isalpha((unsigned char)s.p[0]) && !memchr(equals + 1, '=', (size_t)(s.p + s.n - equals - 1))) {
        s.n -= (size_t)(equals + 1 - s.p);
        s.p = equals + 1;
    }
    for (size_t i = 0; i < s.n; i++)
        if (!isspace((unsigned char)s.p[i])) buf_putc(out, s.p[i]);
    buf_puts(out, "");
    brace_arguments(out);
    for (size_t i = 0; i + 1 < out->size; i++) // .5 is 0.5
        if (out->data[i] == '.' && isdigit((unsigned char)out->data[i + 1]) && (!i || !isdigit((unsigned char)out->data[i - 1]))) {
            buf_putc(out, ' ');
            memmove(out->data + i + 1, out->data + i, out->size - i - 1);
            out->data[i++] = '0';
        }
    if (out->size > 2 && out->data[0] == '{' && braces_end((struct span){out->data, out->size}, 0) == out->size &&
        !memchr(out->data, ',', out->size)) {
        drop_range(out, out->size - 1, out->size); // {5}
        drop_range(out, 0, 1);
    }
    buf_free(&b);
}

// ---- comparing

// The text is one number, with a unit behind it at most: "9 (apples)", "$18.00", "45 miles per hour", "-3%".
static bool whole_number(struct rational *r, struct span s)
{
    s = span_trim(s);
    while (s.n && s.p[s.n - 1] == '.') s.n--;
    if (span_begins(s, "\\$", false)) s.p += 2, s.n -= 2;
    size_t n = rational_parse(r, s);
    if (!n) return false;
    struct span rest = span_trim((struct span){s.p + n, s.n - n});
    if (!rest.n) return true;
    if (!is_unit(rest)) return false;
    // 5x, 2i and 3a + 1 are formulas, 5 apples and 5cm are not.
    size_t n_letter = 0;
    for (size_t i = 0; i < rest.n; i++) n_letter += isalpha((unsigned char)rest.p[i]) != 0;
    return n_letter >= 2 && !isdigit((unsigned char)rest.p[0]) && rest.p[0] != '^' && rest.p[0] != '-' && rest.p[0] != '/';
}

static bool equal(struct span a, struct span b, int depth);

// The parts between commas that no bracket holds.
static size_t split(struct span s, struct span part[16])
{
    size_t n = 0, from = 0;
    int depth = 0;
    for (size_t i = 0; i <= s.n; i++) {
        if (i < s.n && strchr("([{", s.p[i])) depth++;
        if (i < s.n && strchr(")]}", s.p[i])) depth--;
        if (i < s.n && (s.p[i] != ',' || depth)) continue;
        if (n == 16) return 0;
        part[n++] = (struct span){s.p + from, i - from};
        from = i + 1;
    }
    return n;
}

// (a, b) against (c, d), part by part; intervals too, so the brackets must be the same.
static bool equal_tuples(struct span a, struct span b, int depth)
{
    if (a.n < 2 || b.n < 2) return false;
    bool wrapped = strchr("([{", a.p[0]) && strchr(")]}", a.p[a.n - 1]) && a.p[0] == b.p[0] && a.p[a.n - 1] == b.p[b.n - 1];
    if (wrapped) a.p++, b.p++, a.n -= 2, b.n -= 2;
    struct span x[16], y[16];
    size_t n = split(a, x);
    if (n < 2 || n != split(b, y)) return false;
    for (size_t i = 0; i < n; i++)
        if (!equal(x[i], y[i], depth + 1)) return false;
    return true;
}

static bool equal(struct span a, struct span b, int depth)
{
    struct rational x, y;
    if (whole_number(&x, a) && whole_number(&y, b)) return rational_equal(x, y);
    struct buf p = {0}, q = {0};
    normalize_math(&p, a);
    normalize_math(&q, b);
    struct span s = {p.data, p.size}, t = {q.data, q.size};
    bool same = s.n && s.n == t.n && !memcmp(s.p, t.p, s.n);
    if (!same && s.n && t.n && whole_number(&x, s) && whole_number(&y, t))
        same = rational_equal(x, y);
    else if (!same && s.n > 1 && s.n == t.n && !memchr(s.p, '\\', s.n))
        same = !strncasecmp(s.p, t.p, s.n); // words
    if (!same && depth < 3 && s.n && t.n) same = equal_tuples(s, t, depth);
    buf_free(&p);
    buf_free(&q);
    return same;
}

static void judge(struct verdict *v, const char *content, const char *reference)
{
    *v = (struct verdict){0};
    struct span answer = extract_answer(span_of(content ? content : ""));
    struct span want = extract_reference(span_of(reference ? reference : ""));
    if (!answer.n || !want.n) return;
    span_show(v->extracted, sizeof v->extracted, answer);
    v->correct = equal(answer, want, 0);
}

const struct verifier verify_math = {
    "math", "the final answer (\\boxed, ####, \"answer is\", or the last number) has the reference's value", judge};
