// Verifiers judge an answer against a reference. One file a kind, one line in the table.
#pragma once
#include "kernels/base/json.h"

struct verdict {
    bool correct;
    char extracted[128]; // what was taken as the final answer, "" if none was found
};
struct verifier {
    const char *name; // "math", "exact"
    const char *help;
    void (*judge)(struct verdict *v, const char *content, const char *reference);
};
extern const struct verifier verify_math; // numeric: last \boxed{…}, else #### N, else "answer is N", else the last number; compares values
                                          // (commas, currency, percent, fractions, decimals, signs)
extern const struct verifier verify_exact;              // equal after trimming white space
extern const struct verifier *const verifiers[];        // NULL-terminated
const struct verifier *verifier_find(const char *name); // NULL if none
