// From a template's text to tokens, with Jinja's rules of white space as transformers sets them: trim_blocks (the newline after a block or
// comment goes), lstrip_blocks (blanks before a block or comment at the start of a line go), '-' and '+' at either end of a tag, and the
// template's own last newline goes.
#include "datasets/template/internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct lexer {
    struct source *src;
    const char *s;
    size_t n, at;
    int line;
    struct token *v;
    size_t n_token, cap;
};

void source_fail(struct source *s, int line, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(s->err, ST_BAD_INPUT, "chat template, line %d: %s", line, text);
    longjmp(*s->bail, 1);
}

static struct token *push(struct lexer *x, enum token_kind kind, const char *s, size_t n)
{
    if (x->n_token == x->cap) { // in the pool: the old array is left behind
        size_t cap = x->cap ? x->cap * 2 : 64;
        struct token *v = pool_alloc(x->src->pool, cap * sizeof *v);
        if (x->n_token) memcpy(v, x->v, x->n_token * sizeof *v);
        x->v = v;
        x->cap = cap;
    }
    x->v[x->n_token] = (struct token){.kind = kind, .line = x->line, .s = s, .n = n};
    return &x->v[x->n_token++];
}

static bool at(const struct lexer *x, const char *what)
{
    size_t n = strlen(what);
    return x->n - x->at >= n && memcmp(x->s + x->at, what, n) == 0;
}
static void skip(struct lexer *x, size_t n)
{
    for (; n; n--, x->at++) x->line += x->s[x->at] == '\n';
}
static void skip_space(struct lexer *x)
{
    size_t len;
    while (x->at < x->n && char_is_space(char_get(x->s + x->at, x->n - x->at, &len))) skip(x, len);
}

static bool is_name(char c, bool first)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (!first && c >= '0' && c <= '9');
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

static size_t put_utf8(char *o, uint32_t c)
{
    if (c < 0x80) return o[0] = (char)c, 1;
    if (c < 0x800) return o[0] = (char)(0xC0 | c >> 6), o[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000) return o[0] = (char)(0xE0 | c >> 12), o[1] = (char)(0x80 | (c >> 6 & 63)), o[2] = (char)(0x80 | (c & 63)), 3;
    o[0] = (char)(0xF0 | c >> 18), o[1] = (char)(0x80 | (c >> 12 & 63)), o[2] = (char)(0x80 | (c >> 6 & 63)),
    o[3] = (char)(0x80 | (c & 63));
    return 4;
}

// A quoted string, with Python's escapes.
static void lex_string(struct lexer *x)
{
    char quote = x->s[x->at];
    int line = x->line;
    size_t end = x->at + 1;
    while (end < x->n && x->s[end] != quote) end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->n) source_fail(x->src, line, "a string is not closed");
    char *out = pool_alloc(x->src->pool, end - x->at + 1), *o = out;
    static const char from[] = "ntrabfv\\'\"", to[] = "\n\t\r\a\b\f\v\\'\"";
    for (size_t i = x->at + 1; i < end; i++) {
        const char *simple;
        char c = x->s[i];
        if (c != '\\') {
            *o++ = c;
            continue;
        }
        c = x->s[++i];
        int n_hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        if (c && (simple = strchr(from, c)))
            *o++ = to[simple - from];
        else if (c == '\n')
            continue; // a joined line
        else if (n_hex) {
            uint32_t v = 0;
            for (int k = 0; k < n_hex; k++) {
                if (i + 1 >= end || digit(x->s[i + 1]) > 15) source_fail(x->src, line, "a malformed \\%c in a string", c);
                v = v * 16 + (uint32_t)digit(x->s[++i]);
            }
            if (v > 0x10FFFF || (v >= 0xD800 && v < 0xE000))
                source_fail(x->src, line, "\\%c%x in a string is no character", c, (unsigned)v);
            o += put_utf8(o, v); // never longer than the escape
        } else if (c >= '0' && c <= '7') {
            uint32_t v = (uint32_t)(c - '0');
            for (int k = 0; k < 2 && i + 1 < end && x->s[i + 1] >= '0' && x->s[i + 1] <= '7'; k++) v = v * 8 + (uint32_t)(x->s[++i] - '0');
            o += put_utf8(o, v);
        } else
            *o++ = '\\', *o++ = c;
    }
    skip(x, end + 1 - x->at);
    *o = 0;
    push(x, T_STRING, out, (size_t)(o - out))->line = line;
}

static void lex_number(struct lexer *x)
{
    char text[64];
    size_t n = 0;
    bool real = false;
    int base = 10;
    if (x->s[x->at] == '0' && x->at + 1 < x->n) {
        char b = x->s[x->at + 1] | 32;
        base = b == 'x' ? 16 : b == 'o' ? 8 : b == 'b' ? 2 : 10;
        if (base != 10) x->at += 2;
    }
    for (; x->at < x->n && n < sizeof text - 1; x->at++) {
        char c = x->s[x->at], next = x->at + 1 < x->n ? x->s[x->at + 1] : 0;
        if (c == '_' && n) continue;
        if (digit(c) < base)
            text[n++] = c;
        else if (base == 10 && !real && c == '.' && digit(next) < 10)
            text[n++] = c, real = true;
        else if (base == 10 && n && (c == 'e' || c == 'E') && !memchr(text, 'e', n) &&
                 (digit(next) < 10 || ((next == '+' || next == '-') && x->at + 2 < x->n && digit(x->s[x->at + 2]) < 10))) {
            text[n++] = 'e';
            real = true;
            if (digit(next) > 9) text[n++] = next, x->at++;
        } else
            break;
    }
    text[n < sizeof text ? n : sizeof text - 1] = 0;
    if (!n || n >= sizeof text - 2) source_fail(x->src, x->line, "a malformed number");
    struct token *t = push(x, real ? T_REAL : T_INT, pool_copy(x->src->pool, text, n), n);
    if (real)
        t->r = strtod(text, NULL);
    else
        t->i = strtoll(text, NULL, base);
}

// What stands between {{ and }} or {% and %}. `end` is "}}" or "%}".
static void lex_inside(struct lexer *x, const char *end, enum token_kind end_kind)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "<",
                                      ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ",", ":", ".", "|", ";"};
    int depth = 0, line = x->line;
    for (;;) {
        skip_space(x);
        if (x->at >= x->n) source_fail(x->src, line, "a tag is not closed: no %s follows", end);
        char sign = x->s[x->at];
        bool signed_end = (sign == '-' || (sign == '+' && end[0] == '%')) && x->n - x->at >= 3 && memcmp(x->s + x->at + 1, end, 2) == 0;
        if (depth == 0 && (signed_end || at(x, end))) {
            push(x, end_kind, end, 2);
            skip(x, signed_end ? 3 : 2);
            if (signed_end && sign == '-')
                skip_space(x);
            else if (!signed_end && end[0] == '%' && at(x, "\n"))
                skip(x, 1); // trim_blocks
            return;
        }
        char c = x->s[x->at];
        if (is_name(c, true)) {
            size_t to = x->at;
            while (to < x->n && is_name(x->s[to], false)) to++;
            push(x, T_NAME, pool_copy(x->src->pool, x->s + x->at, to - x->at), to - x->at);
            skip(x, to - x->at);
        } else if (c == '\'' || c == '"')
            lex_string(x);
        else if (c >= '0' && c <= '9')
            lex_number(x);
        else {
            size_t k = 0;
            while (k < sizeof ops / sizeof *ops && !at(x, ops[k])) k++;
            if (k == sizeof ops / sizeof *ops) source_fail(x->src, x->line, "unexpected character '%c' (0x%02X)", c, (unsigned)(uint8_t)c);
            push(x, T_OP, ops[k], strlen(ops[k]));
            skip(x, strlen(ops[k]));
            if (strchr("([{", c)) depth++;
            if (strchr(")]}", c) && depth) depth--;
        }
    }
}

// The text before a tag at x->at, from `from`: cut as the tag's sign and lstrip_blocks say.
static void put_data(struct lexer *x, size_t from, int line, char sign, bool block)
{
    size_t to = x->at;
    if (sign == '-') {
        struct str kept = str_strip((struct str){x->s + from, to - from}, NULL, false, true);
        to = from + kept.n;
    } else if (sign != '+' && block) {
        size_t start = to;
        while (start > from && x->s[start - 1] != '\n') start--;
        // At `from` itself a line starts only if a newline was the last thing taken before it.
        bool line_start = start > from || from == 0 || x->s[from - 1] == '\n';
        struct str blanks = {x->s + start, to - start};
        if (line_start && str_strip(blanks, NULL, true, false).n == 0) to = start;
    }
    if (to > from) push(x, T_DATA, x->s + from, to - from)->line = line;
}

// {% raw %}…{% endraw %} at x->at: the length of its opening tag, 0 if this is no such tag.
static size_t raw_tag(const struct lexer *x, size_t from, const char *name, bool *strip_before, bool *strip_after)
{
    size_t i = from + 2, len;
    *strip_before = i < x->n && x->s[i] == '-';
    if (i < x->n && (x->s[i] == '-' || x->s[i] == '+')) i++;
    while (i < x->n && char_is_space(char_get(x->s + i, x->n - i, &len))) i += len;
    if (x->n - i < strlen(name) || memcmp(x->s + i, name, strlen(name)) != 0) return 0;
    i += strlen(name);
    while (i < x->n && char_is_space(char_get(x->s + i, x->n - i, &len))) i += len;
    *strip_after = i < x->n && x->s[i] == '-';
    if (i < x->n && (x->s[i] == '-' || x->s[i] == '+')) i++;
    return x->n - i >= 2 && memcmp(x->s + i, "%}", 2) == 0 ? i + 2 - from : 0;
}

static bool lex_raw(struct lexer *x)
{
    bool before, after, end_before, end_after;
    size_t n = raw_tag(x, x->at, "raw", &before, &after), n_end = 0;
    int line = x->line;
    if (!n) return false;
    skip(x, n);
    if (after)
        skip_space(x);
    else if (at(x, "\n"))
        skip(x, 1);
    size_t end = x->at;
    for (; end < x->n; end++)
        if (x->n - end >= 2 && memcmp(x->s + end, "{%", 2) == 0 && (n_end = raw_tag(x, end, "endraw", &end_before, &end_after))) break;
    if (end >= x->n) source_fail(x->src, line, "{%% raw %%} is not closed");
    struct str text = {x->s + x->at, end - x->at};
    if (end_before) text = str_strip(text, NULL, false, true);
    if (text.n) push(x, T_DATA, text.p, text.n);
    skip(x, end + n_end - x->at);
    if (end_after)
        skip_space(x);
    else if (at(x, "\n"))
        skip(x, 1);
    return true;
}

struct token *template_lex(struct source *src, const char *text, size_t n, size_t *n_token)
{
    // All line ends become \n, and one at the very end is dropped.
    char *s = pool_alloc(src->pool, n + 1);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r') {
            if (i + 1 < n && text[i + 1] == '\n') i++;
            s[k++] = '\n';
        } else
            s[k++] = text[i];
    }
    if (k && s[k - 1] == '\n') k--;
    struct lexer x = {.src = src, .s = s, .n = k, .line = 1};
    size_t from = 0;
    int line = 1;
    while (x.at < x.n) {
        char kind = x.s[x.at] == '{' && x.at + 1 < x.n ? x.s[x.at + 1] : 0;
        if (kind != '{' && kind != '%' && kind != '#') {
            skip(&x, 1);
            continue;
        }
        char sign = x.at + 2 < x.n ? x.s[x.at + 2] : 0;
        put_data(&x, from, line, sign, kind != '{');
        int tag_line = x.line;
        if (kind == '#') {
            while (x.at < x.n && !at(&x, "#}")) skip(&x, 1);
            if (x.at >= x.n) source_fail(src, tag_line, "a comment is not closed: no #} follows");
            bool minus = x.s[x.at - 1] == '-', plus = x.s[x.at - 1] == '+';
            skip(&x, 2);
            if (minus)
                skip_space(&x);
            else if (!plus && at(&x, "\n"))
                skip(&x, 1);
        } else if (kind == '{' || !lex_raw(&x)) {
            push(&x, kind == '{' ? T_VAR_BEGIN : T_BLOCK_BEGIN, x.s + x.at, 2);
            skip(&x, sign == '-' || sign == '+' ? 3 : 2);
            lex_inside(&x, kind == '{' ? "}}" : "%}", kind == '{' ? T_VAR_END : T_BLOCK_END);
        }
        from = x.at;
        line = x.line;
    }
    if (x.n > from) push(&x, T_DATA, x.s + from, x.n - from)->line = line;
    push(&x, T_END, "the end", 7);
    *n_token = x.n_token;
    return x.v;
}
