// Regexes of pre-tokenizers, as Oniguruma reads them, run by PCRE2 over one byte a character.
//
// A pattern is read into a program: operators as text, and sets of code points wherever a character, a class or a property stands. When all
// patterns are known, code points that no set tells apart become one atom; ASCII characters keep their own byte and every other atom gets a
// byte from 0x80 up. The program is then written out as a byte regex. So \p{S} means what unicode_table.inc says, not what PCRE2 knows, no
// match pays for UTF-8, and a class of a thousand ranges costs one bit test.
//
// Traps: under (?i) the letters s and k also match U+017F and U+212A; {n,m}+ repeats in Oniguruma where PCRE2 reads it as possessive.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "datasets/tokenizer/internal.h"

#include <pcre2.h>
#include <string.h>

struct op { // one thing of a pattern: text, or a set when text is NULL
    char *text;
    int set;
};
struct pattern {
    struct op *op;
    size_t n, cap;
    pcre2_code *code;
    bool jit;
};
enum { MAX_SET = 64, MAX_DEPTH = 64 };
struct regexes {
    struct pattern *v;
    size_t n;
    struct charset set[MAX_SET];
    int n_set;
    uint8_t *class_of;   // (0x110000)
    uint64_t *signature; // (128) the sets that atom 0x80 + i is in
    int n_atom;
};
struct regex_match {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

struct reader {
    struct regexes *r;
    const char *s, *end, *where;
    struct pattern *p;
    bool caseless, rust;
    struct err *err;
};

static enum status refuse(struct reader *x, const char *what)
{
    return err_set(x->err, ST_BAD_INPUT, "%s: a pattern uses %s, which distill does not know", x->where, what);
}

static struct op *op_insert(struct pattern *p, size_t at)
{
    if (p->n == p->cap) p->op = mem_realloc(p->op, (p->cap = p->cap ? p->cap * 2 : 32) * sizeof *p->op);
    memmove(p->op + at + 1, p->op + at, (p->n - at) * sizeof *p->op);
    p->n++;
    return &p->op[at];
}
static void put_text(struct pattern *p, size_t at, const char *s, size_t n)
{
    *op_insert(p, at) = (struct op){mem_strndup(s, n), 0};
}

// Takes the set over.
static enum status put_set(struct reader *x, struct charset *s)
{
    int i = 0;
    while (i < x->r->n_set && !charset_equal(&x->r->set[i], s)) i++;
    if (i == MAX_SET) {
        charset_free(s);
        return refuse(x, "more than 64 different character sets");
    }
    if (i == x->r->n_set)
        x->r->set[x->r->n_set++] = *s;
    else
        charset_free(s);
    *op_insert(x->p, x->p->n) = (struct op){NULL, i};
    return ST_OK;
}

static void fold_case(struct charset *s)
{
    struct charset more = {0};
    for (uint32_t c = 'a'; c <= 'z'; c++) {
        uint32_t other = c == 's' ? 0x17F : c == 'k' ? 0x212A : 0;
        if (!charset_has(s, c) && !charset_has(s, c - 32) && !(other && charset_has(s, other))) continue;
        charset_add(&more, c, c);
        charset_add(&more, c - 32, c - 32);
        if (other) charset_add(&more, other, other);
    }
    charset_add_set(s, &more);
    charset_free(&more);
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Reads what follows a backslash into s (a set of one character for most).
static enum status read_escape(struct reader *x, struct charset *s)
{
    if (x->s == x->end) return refuse(x, "a lone backslash at its end");
    char c = *x->s++, name[32];
    const char *property = NULL;
    bool negate = false;
    switch (c) {
    case 'n':
        charset_add(s, '\n', '\n');
        return ST_OK;
    case 'r':
        charset_add(s, '\r', '\r');
        return ST_OK;
    case 't':
        charset_add(s, '\t', '\t');
        return ST_OK;
    case 'f':
        charset_add(s, '\f', '\f');
        return ST_OK;
    case 'v':
        charset_add(s, '\v', '\v');
        return ST_OK;
    case 'a':
        charset_add(s, '\a', '\a');
        return ST_OK;
    case 'e':
        charset_add(s, 27, 27);
        return ST_OK;
    case 's':
    case 'S':
        property = "Space", negate = c == 'S';
        break;
    case 'w':
    case 'W':
        property = "Word", negate = c == 'W';
        break;
    case 'd':
    case 'D':
        property = "Nd", negate = c == 'D';
        break;
    case 'x':
    case 'u': {
        uint32_t v = 0;
        int n = 0;
        bool braced = c == 'x' && x->s < x->end && *x->s == '{';
        int most = braced ? 8 : c == 'u' ? 4 : 2;
        x->s += braced;
        for (; n < most && x->s < x->end && hex_value(*x->s) >= 0; n++, x->s++) v = v * 16 + (uint32_t)hex_value(*x->s);
        if (!n || v > 0x10FFFF || (c == 'u' && n < 4) || (braced && (x->s == x->end || *x->s++ != '}')))
            return refuse(x, "a malformed \\x or \\u");
        charset_add(s, v, v);
        return ST_OK;
    }
    case 'p':
    case 'P': {
        size_t n = 0;
        if (x->s == x->end || *x->s++ != '{') return refuse(x, "\\p without braces");
        negate = c == 'P';
        if (x->s < x->end && *x->s == '^') negate = !negate, x->s++;
        while (x->s < x->end && *x->s != '}' && n < sizeof name - 1) name[n++] = *x->s++;
        if (x->s == x->end || *x->s++ != '}') return refuse(x, "an unclosed \\p{");
        name[n] = 0;
        property = name;
        break;
    }
    default:
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (uint8_t)c >= 0x80) {
            char what[8] = {'\\', c, 0};
            return refuse(x, what);
        }
        charset_add(s, (uint8_t)c, (uint8_t)c);
        return ST_OK;
    }
    struct charset prop = {0};
    uint32_t bits = !x->rust                        ? 0
                    : strcmp(property, "Word") == 0 ? CHAR_RUST_WORD
                    : strcmp(property, "N") == 0    ? CHAR_NUMERIC
                    : strcmp(property, "P") == 0    ? CHAR_PUNCTUATION
                                                    : 0;
    if (bits)
        charset_add_bits(&prop, bits);
    else if (!charset_add_property(&prop, property)) {
        char what[48];
        snprintf(what, sizeof what, "\\p{%s}", property);
        return refuse(x, what);
    }
    if (negate) charset_invert(&prop);
    charset_add_set(s, &prop);
    charset_free(&prop);
    return ST_OK;
}

// Reads a class after its '[' up to and with its ']'.
static enum status read_class(struct reader *x, struct charset *out, int depth)
{
    if (depth > MAX_DEPTH) return refuse(x, "classes nested too deeply");
    bool negate = x->s < x->end && *x->s == '^', first = true, have_left = false;
    x->s += negate;
    struct charset left = {0}; // what stands before the last &&
    enum status st = ST_OK;
    for (;; first = false) {
        if (x->s == x->end) {
            st = refuse(x, "an unclosed [");
            break;
        }
        if (*x->s == ']' && !first) {
            x->s++;
            break;
        }
        struct charset item = {0};
        if (x->end - x->s >= 2 && x->s[0] == '&' && x->s[1] == '&') {
            x->s += 2;
            if (have_left)
                charset_intersect(&left, out);
            else
                charset_add_set(&left, out);
            have_left = true;
            out->n = 0;
            continue;
        }
        if (*x->s == '[') {
            const char *name = x->s + 2; // [:alpha:], which is no nested class
            while (x->end - x->s >= 2 && x->s[1] == ':' && name < x->end && (*name == '^' || (*name >= 'a' && *name <= 'z'))) name++;
            if (x->end - name >= 2 && name > x->s + 2 && name[0] == ':' && name[1] == ']')
                st = refuse(x, "a POSIX class [:…:]");
            else
                x->s++, st = read_class(x, &item, depth + 1);
        } else if (*x->s == '\\') {
            x->s++;
            st = read_escape(x, &item);
        } else {
            size_t len;
            uint32_t c = utf8_get(x->s, &len);
            x->s += len;
            charset_add(&item, c, c);
        }
        // A range: one character, '-', one character. A '-' before ']' stands for itself.
        if (!st && item.n == 1 && item.v[0].lo == item.v[0].hi && x->end - x->s >= 2 && *x->s == '-' && x->s[1] != ']' && x->s[1] != '[') {
            struct charset hi = {0};
            x->s++;
            if (*x->s == '\\')
                x->s++, st = read_escape(x, &hi);
            else {
                size_t len;
                uint32_t c = utf8_get(x->s, &len);
                x->s += len;
                charset_add(&hi, c, c);
            }
            if (!st && (hi.n != 1 || hi.v[0].lo != hi.v[0].hi || hi.v[0].lo < item.v[0].lo)) st = refuse(x, "a malformed range in a class");
            if (!st) item.v[0].hi = hi.v[0].lo;
            charset_free(&hi);
        }
        if (!st) charset_add_set(out, &item);
        charset_free(&item);
        if (st) break;
    }
    if (!st && have_left) charset_intersect(out, &left);
    charset_free(&left);
    if (!st && x->caseless) fold_case(out);
    if (!st && negate) charset_invert(out);
    return st;
}

// Reads {n}, {n,}, {,m}, {n,m} at x->s; false if it is none of these (then '{' is a character).
static bool read_interval(struct reader *x, char *out, size_t cap, bool *exact)
{
    const char *s = x->s + 1;
    long lo = 0, hi = -1;
    int n_lo = 0, n_hi = 0;
    for (; s < x->end && *s >= '0' && *s <= '9' && n_lo < 5; s++, n_lo++) lo = lo * 10 + (*s - '0');
    *exact = s < x->end && *s == '}';
    if (!*exact) {
        if (s == x->end || *s++ != ',') return false;
        for (; s < x->end && *s >= '0' && *s <= '9' && n_hi < 5; s++, n_hi++) hi = (n_hi ? hi : 0) * 10 + (*s - '0');
        if (s == x->end || *s != '}') return false;
    }
    if (!n_lo && !n_hi) return false;
    x->s = s + 1;
    if (*exact)
        snprintf(out, cap, "{%ld}", lo);
    else if (n_hi)
        snprintf(out, cap, "{%ld,%ld}", lo, hi);
    else
        snprintf(out, cap, "{%ld,}", lo);
    return true;
}

static enum status read_alternatives(struct reader *x, int depth);

// Reads a group at '('.
static enum status read_group(struct reader *x, int depth)
{
    static const char *const openings[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    bool caseless = x->caseless;
    size_t left = (size_t)(x->end - x->s);
    const char *opening = NULL;
    for (size_t i = 0; i < sizeof openings / sizeof *openings; i++)
        if (left >= strlen(openings[i]) && memcmp(x->s, openings[i], strlen(openings[i])) == 0) opening = openings[i];
    if (opening)
        x->s += strlen(opening);
    else if (left >= 4 && memcmp(x->s, "(?i:", 4) == 0)
        opening = "(?:", x->s += 4, x->caseless = true;
    else if (left >= 5 && memcmp(x->s, "(?-i:", 5) == 0)
        opening = "(?:", x->s += 5, x->caseless = false;
    else if (left >= 2 && x->s[1] == '?')
        return refuse(x, "a group (?… of another kind than (?: (?i: (?= (?! (?<= (?<! (?>");
    else
        opening = "(?:", x->s++; // captures are never read
    put_text(x->p, x->p->n, opening, strlen(opening));
    TRY(read_alternatives(x, depth + 1));
    if (x->s == x->end) return refuse(x, "an unclosed (");
    x->s++;
    put_text(x->p, x->p->n, ")", 1);
    x->caseless = caseless;
    return ST_OK;
}

// Reads up to the end or the ')' that closes the group.
static enum status read_alternatives(struct reader *x, int depth)
{
    if (depth > MAX_DEPTH) return refuse(x, "groups nested too deeply");
    size_t atom = SIZE_MAX; // where the thing that a quantifier would repeat begins
    while (x->s < x->end && *x->s != ')') {
        char c = *x->s, interval[32];
        bool exact = false;
        if (c == '|') {
            put_text(x->p, x->p->n, "|", 1);
            x->s++;
            atom = SIZE_MAX;
        } else if (c == '*' || c == '+' || c == '?' || (c == '{' && read_interval(x, interval, sizeof interval, &exact))) {
            if (atom == SIZE_MAX) return refuse(x, "a quantifier after nothing");
            if (c != '{') snprintf(interval, sizeof interval, "%c", c), x->s++;
            char follow = x->s < x->end ? *x->s : 0;
            put_text(x->p, x->p->n, interval, strlen(interval));
            if (c == '{' && (follow == '+' || (follow == '?' && exact))) { // see the traps above
                put_text(x->p, atom, "(?:", 3);
                put_text(x->p, x->p->n, ")", 1);
            } else if (follow == '?' || follow == '+') {
                put_text(x->p, x->p->n, &follow, 1);
                x->s++;
            }
        } else if (c == '(') {
            atom = x->p->n;
            TRY(read_group(x, depth));
        } else if (c == '^' || c == '$') {
            put_text(x->p, x->p->n, &c, 1);
            x->s++;
            atom = SIZE_MAX;
        } else if (c == '\\' && x->end - x->s >= 2 && (x->s[1] == 'A' || x->s[1] == 'z' || x->s[1] == 'Z')) {
            put_text(x->p, x->p->n, x->s, 2);
            x->s += 2;
            atom = SIZE_MAX;
        } else {
            struct charset s = {0};
            enum status st = ST_OK;
            size_t len = 1;
            uint32_t code = utf8_get(x->s, &len);
            x->s += len;
            if (c == '[')
                st = read_class(x, &s, 0);
            else if (c == '\\')
                st = read_escape(x, &s);
            else if (c == '.')
                charset_add(&s, 0, '\n' - 1), charset_add(&s, '\n' + 1, 0x10FFFF);
            else
                charset_add(&s, code, code);
            if (!st && x->caseless && c != '[') fold_case(&s);
            if (st) {
                charset_free(&s);
                return st;
            }
            atom = x->p->n;
            TRY(put_set(x, &s));
        }
    }
    return ST_OK;
}

struct regexes *regexes_new(void)
{
    return NEW(struct regexes);
}

void regexes_free(struct regexes *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->n; i++) {
        for (size_t k = 0; k < r->v[i].n; k++) mem_free(r->v[i].op[k].text);
        mem_free(r->v[i].op);
        pcre2_code_free(r->v[i].code);
    }
    for (int i = 0; i < r->n_set; i++) charset_free(&r->set[i]);
    mem_free(r->v);
    mem_free(r->class_of);
    mem_free(r->signature);
    mem_free(r);
}

static int add_pattern(struct regexes *r, const char *pattern, size_t n, bool rust, const char *where, struct err *err)
{
    size_t bad = utf8_check(pattern, n);
    if (bad < n) return err_set(err, ST_BAD_INPUT, "%s: a pattern is not valid UTF-8 at byte %zu", where, bad), -1;
    r->v = mem_realloc(r->v, (r->n + 1) * sizeof *r->v);
    r->v[r->n] = (struct pattern){0};
    struct reader x = {r, pattern, pattern + n, where, &r->v[r->n++], false, rust, err};
    if (n >= 4 && memcmp(pattern, "(?i)", 4) == 0) x.s += 4, x.caseless = true;
    if (read_alternatives(&x, 0)) return -1;
    if (x.s < x.end) return refuse(&x, "a ) too many"), -1;
    return (int)r->n - 1;
}

int regexes_add(struct regexes *r, const char *pattern, size_t n, const char *where, struct err *err)
{
    return add_pattern(r, pattern, n, false, where, err);
}

int regexes_add_rust(struct regexes *r, const char *pattern, const char *where, struct err *err)
{
    return add_pattern(r, pattern, strlen(pattern), true, where, err);
}

int regexes_add_literal(struct regexes *r, const char *text, size_t n, const char *where, struct err *err)
{
    struct buf escaped = {0};
    for (size_t i = 0; i < n; i++) {
        if (strchr("\\.+*?()|[]{}^$", text[i]) && text[i]) buf_putc(&escaped, '\\');
        buf_putc(&escaped, text[i]);
    }
    int number = regexes_add(r, escaped.size ? escaped.data : "", escaped.size, where, err);
    buf_free(&escaped);
    return number;
}

// Cuts the code points from 0x80 up into atoms by the sets they are in.
static enum status make_atoms(struct regexes *r, const char *where, struct err *err)
{
    r->class_of = NEW_N(uint8_t, 0x110000);
    r->signature = NEW_N(uint64_t, 128);
    for (uint32_t c = 0; c < 0x80; c++) r->class_of[c] = (uint8_t)c;
    struct charset cuts = {0}; // every place where some set begins or ends
    charset_add(&cuts, 0x80, 0x80);
    for (int i = 0; i < r->n_set; i++)
        for (size_t k = 0; k < r->set[i].n; k++) {
            charset_add(&cuts, r->set[i].v[k].lo, r->set[i].v[k].lo);
            charset_add(&cuts, r->set[i].v[k].hi + 1, r->set[i].v[k].hi + 1);
        }
    charset_norm(&cuts);
    enum status st = ST_OK;
    for (size_t i = 0; i < cuts.n && !st; i++)
        for (uint32_t lo = cuts.v[i].lo; lo <= cuts.v[i].hi; lo++) { // touching cuts were joined: each is one
            uint32_t hi = lo < cuts.v[i].hi ? lo : i + 1 < cuts.n ? cuts.v[i + 1].lo - 1 : 0x10FFFF;
            if (lo < 0x80 || lo > 0x10FFFF) continue;
            uint64_t signature = 0;
            for (int k = 0; k < r->n_set; k++)
                if (charset_has(&r->set[k], lo)) signature |= (uint64_t)1 << k;
            int a = 0;
            while (a < r->n_atom && r->signature[a] != signature) a++;
            if (a == 128) {
                st = err_set(err, ST_BAD_INPUT, "%s: the patterns tell more than 128 kinds of characters apart", where);
                break;
            }
            if (a == r->n_atom) r->signature[r->n_atom++] = signature;
            memset(r->class_of + lo, 0x80 + a, hi - lo + 1);
        }
    charset_free(&cuts);
    return st;
}

static void write_set(const struct regexes *r, int set, struct buf *out)
{
    buf_putc(out, '[');
    bool in[257] = {0}, any = false;
    for (uint32_t c = 0; c < 0x80; c++) in[c] = charset_has(&r->set[set], c);
    for (int a = 0; a < r->n_atom; a++) in[0x80 + a] = r->signature[a] >> set & 1;
    for (int c = 0; c < 256; c++) {
        if (!in[c]) continue;
        int hi = c;
        while (in[hi + 1]) hi++;
        buf_printf(out, hi > c ? "\\x%02x-\\x%02x" : "\\x%02x", (unsigned)c, (unsigned)hi);
        c = hi;
        any = true;
    }
    if (!any) buf_puts(out, "^\\x00-\\xff");
    buf_putc(out, ']');
}

enum status regexes_compile(struct regexes *r, const char *where, struct err *err)
{
    TRY(make_atoms(r, where, err));
    for (size_t i = 0; i < r->n; i++) {
        struct pattern *p = &r->v[i];
        struct buf text = {0};
        for (size_t k = 0; k < p->n; k++) {
            if (p->op[k].text)
                buf_puts(&text, p->op[k].text);
            else
                write_set(r, p->op[k].set, &text);
        }
        int code;
        PCRE2_SIZE at;
        pcre2_compile_context *context = pcre2_compile_context_create(NULL);
        pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        p->code =
            pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.size, PCRE2_MULTILINE | PCRE2_DOLLAR_ENDONLY, &code, &at, context);
        pcre2_compile_context_free(context);
        buf_free(&text);
        if (!p->code) {
            PCRE2_UCHAR message[128];
            pcre2_get_error_message(code, message, sizeof message);
            return err_set(err, ST_BAD_INPUT, "%s: pattern %zu is refused by PCRE2: %s", where, i, (char *)message);
        }
        p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    }
    return ST_OK;
}

size_t regexes_classes(const struct regexes *r, const char *text, size_t n, uint8_t *cls)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        uint64_t eight;
        if (n - i >= 8 && (memcpy(&eight, text + i, 8), (eight & 0x8080808080808080u) == 0)) {
            memcpy(cls + k, text + i, 8);
            k += 8;
            i += 8;
            continue;
        }
        size_t len;
        uint32_t c = utf8_get(text + i, &len);
        cls[k++] = r->class_of[c];
        i += len;
    }
    return k;
}

struct regex_match *regex_match_new(void)
{
    struct regex_match *m = NEW(struct regex_match);
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    m->stack = pcre2_jit_stack_create(32 * 1024, 8 * 1024 * 1024, NULL);
    pcre2_jit_stack_assign(m->context, NULL, m->stack);
    return m;
}

void regex_match_free(struct regex_match *m)
{
    if (!m) return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    mem_free(m);
}

// First match at or after `from`: 1 and its bounds (in characters), 0 none, -1 the engine gave up (a pathological pattern).
static int regex_find(const struct regexes *r, int number, struct regex_match *m, const uint8_t *cls, size_t n_char, size_t from,
                      size_t *lo, size_t *hi)
{
    const struct pattern *p = &r->v[number];
    int got = p->jit ? pcre2_jit_match(p->code, cls, n_char, from, 0, m->data, m->context)
                     : pcre2_match(p->code, cls, n_char, from, 0, m->data, m->context);
    if (got == PCRE2_ERROR_NOMATCH) return 0;
    if (got < 0) return -1;
    PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
    *lo = at[0];
    *hi = at[1];
    return 1;
}

int regex_next(const struct regexes *r, int number, struct regex_match *m, const uint8_t *cls, size_t n_char, struct regex_walk *w)
{
    for (; w->from <= n_char; w->from++) {
        int got = regex_find(r, number, m, cls, n_char, w->from, &w->lo, &w->hi);
        if (got <= 0) return got;
        if (w->lo == w->hi && w->any && w->hi == w->last_end) continue;
        w->from = w->last_end = w->hi;
        w->any = true;
        return 1;
    }
    return 0;
}
