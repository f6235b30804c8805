// The verifiers that are compiled in: a line each.
#include "datasets/verify/verify.h"

#include <string.h>

const struct verifier *const verifiers[] = {&verify_math, &verify_exact, NULL};

const struct verifier *verifier_find(const char *name)
{
    for (const struct verifier *const *v = verifiers; *v; v++)
        if (!strcmp((*v)->name, name)) return *v;
    return NULL;
}
