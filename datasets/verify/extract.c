// Where a solution says its final answer.
#include "datasets/verify/internal.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

struct span span_trim(struct span s)
{
    while (s.n && isspace((unsigned char)s.p[0])) s.p++, s.n--;
    while (s.n && isspace((unsigned char)s.p[s.n - 1])) s.n--;
    return s;
}

void span_show(char *out, size_t size, struct span s)
{
    size_t n = s.n < size ? s.n : size - 1;
    while (n < s.n && n && ((unsigned char)s.p[n] & 0xC0) == 0x80) n--;
    if (n) memcpy(out, s.p, n);
    out[n] = '\0';
}

bool span_begins(struct span s, const char *word, bool caseless)
{
    size_t n = strlen(word);
    return s.n >= n && !(caseless ? strncasecmp(s.p, word, n) : strncmp(s.p, word, n));
}

const char *span_find(struct span s, const char *word, bool caseless)
{
    for (; s.n; s.p++, s.n--)
        if (span_begins(s, word, caseless)) return s.p;
    return NULL;
}

const char *span_find_last(struct span s, const char *word, bool caseless)
{
    for (size_t i = s.n + 1; i-- > 0;)
        if (span_begins((struct span){s.p + i, s.n - i}, word, caseless)) return s.p + i;
    return NULL;
}

static struct span rest_of(struct span s, const char *from)
{
    return (struct span){from, (size_t)(s.p + s.n - from)};
}

// What the braces hold that open at s.p[0]; braces nest, \{ and \} are text. {NULL, 0} when they do not close.
static struct span braced(struct span s)
{
    int depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\\') {
            i++;
        } else if (s.p[i] == '{') {
            depth++;
        } else if (s.p[i] == '}' && !--depth) {
            return (struct span){s.p + 1, i - 1};
        }
    }
    return (struct span){0};
}

// The last \boxed{…} that closes; \boxed 5 takes one word, as TeX would take one token.
static struct span find_boxed(struct span s)
{
    static const char *const words[] = {"\\boxed", "\\fbox", "\\framebox"};
    while (s.n) {
        const char *at = NULL;
        size_t n_word = 0;
        for (int k = 0; k < 3; k++) {
            const char *p = span_find_last(s, words[k], false);
            if (p && (!at || p > at)) at = p, n_word = strlen(words[k]);
        }
        if (!at) break;
        struct span rest = rest_of(s, at + n_word);
        bool space = rest.n && rest.p[0] == ' ';
        while (rest.n && rest.p[0] == ' ') rest.p++, rest.n--;
        if (rest.n && rest.p[0] == '{') {
            struct span in = braced(rest);
            if (in.p) return span_trim(in);
        } else if (space && rest.n) {
            size_t n = 0;
            while (n < rest.n && !isspace((unsigned char)rest.p[n]) && rest.p[n] != '$') n++;
            if (n) return (struct span){rest.p, n};
        }
        s.n = (size_t)(at - s.p); // that one was cut off: the one before it
    }
    return (struct span){0};
}

static struct span line_of(struct span s)
{
    const char *end = memchr(s.p, '\n', s.n);
    if (end) s.n = (size_t)(end - s.p);
    return span_trim(s);
}

static struct span find_hashes(struct span s)
{
    const char *at = span_find_last(s, "####", false);
    return at ? line_of(rest_of(s, at + 4)) : (struct span){0};
}

// Whether s.p[i] can be in the middle of a word or a number, so that what follows is not a new one.
static bool is_wordish(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

// The first or last number of a text. A minus counts as a sign only where nothing stands directly before it that it could be taken from.
static struct span find_number(struct span s, bool last)
{
    struct span found = {0};
    for (size_t i = 0; i < s.n;) {
        char c = s.p[i];
        bool begins = isdigit((unsigned char)c) || c == '-' || c == '.' || c == '\\' || c == '$' || (unsigned char)c == 0xE2;
        if (!begins || (i && (is_wordish(s.p[i - 1]) || (c == '-' && strchr(")]}", s.p[i - 1]))))) {
            i++;
            continue;
        }
        struct rational r;
        struct span rest = {s.p + i, s.n - i};
        size_t n = rational_parse(&r, rest);
        if (c == '-' && n && i + 1 < s.n && s.p[i + 1] == ' ') n = 0; // a dash in prose
        if (!n) {
            i++;
            continue;
        }
        found = (struct span){rest.p, n};
        if (!last) break;
        i += n;
    }
    return found;
}

// "The answer is …", "Answer: …": the first number after it on that line if there is one, else the words to the end of the sentence.
static struct span find_said(struct span s)
{
    static const char *const words[] = {"answer is", "answer:", "answer**:", "answer to the problem is", "answer to the question is"};
    const char *at = NULL;
    size_t n_word = 0;
    for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
        const char *p = span_find_last(s, words[k], true);
        if (p && (!at || p > at)) at = p, n_word = strlen(words[k]);
    }
    if (!at) return (struct span){0};
    struct span rest = rest_of(s, at + n_word);
    while (rest.n && (isspace((unsigned char)rest.p[0]) || strchr(":*=", rest.p[0]))) rest.p++, rest.n--;
    struct span line = line_of(rest);
    // A formula in dollars that is more than a number: all of it. Dollars alone may be money.
    const char *close = line.n > 1 && line.p[0] == '$' ? memchr(line.p + 1, '$', line.n - 1) : NULL;
    if (close && memchr(line.p, '\\', (size_t)(close - line.p))) return (struct span){line.p + 1, (size_t)(close - line.p) - 1};
    struct span number = find_number(line, false);
    if (number.p) return number;
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] == '.' && (i + 1 == line.n || line.p[i + 1] == ' ')) line.n = i;
    while (line.n && strchr("*$.", line.p[line.n - 1])) line.n--;
    return line.n ? span_trim(line) : (struct span){0};
}

struct span extract_answer(struct span solution)
{
    struct span found = find_boxed(solution);
    if (!found.n) found = find_hashes(solution);
    if (!found.n) found = find_said(solution);
    if (!found.n) found = find_number(solution, true);
    return found;
}

struct span extract_reference(struct span reference)
{
    struct span found = find_hashes(reference);
    if (!found.n) found = find_boxed(reference);
    return found.n ? found : span_trim(reference);
}
