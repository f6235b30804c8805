// What the verifiers share: spans of text, the final answer of a solution (extract.c), and exact numbers (rational.c).
#pragma once
#include "datasets/verify/verify.h"
#include "kernels/base/mem.h"

struct span {
    const char *p;
    size_t n;
};
struct span span_of(const char *text);
struct span span_trim(struct span s);                                       // white space at both ends
void span_show(char *out, size_t size, struct span s);                      // cut at a whole UTF-8 character
bool span_begins(struct span s, const char *word, bool caseless);           // ASCII case
const char *span_find(struct span s, const char *word, bool caseless);      // NULL if none
const char *span_find_last(struct span s, const char *word, bool caseless); // NULL if none

// The final answer of a solution: last \boxed{…}, else last "#### N", else the last "answer is N" / "answer: N", else the last number.
// {NULL, 0} if there is none.
struct span extract_answer(struct span solution);
// What a reference says: after its #### or in its \boxed{} if it has one (a whole solution given as reference), else all of it.
struct span extract_reference(struct span reference);

// Mathematical text as it is compared: LaTeX's typographic commands, spaces, currency, degree signs and units gone, fractions and roots in
// braces.
void normalize_math(struct buf *out, struct span s);

struct rational {
    __int128 num, den; // den > 0, no common factor
    bool percent;      // a % stood behind it; its value is not divided
};
// The number that begins at s: sign, digits with thousands' commas, decimals, exponent, a/b, \frac{a}{b}, 1\frac{1}{2}, %. Returns its
// length, 0 if none begins here (or it does not fit 127 bits).
size_t rational_parse(struct rational *out, struct span s);
bool rational_equal(struct rational a, struct rational b); // by value; 50% is equal to 50 and to 1/2
