// "exact": the whole answer equals the reference once the white space around both is gone.
#include "datasets/verify/internal.h"

#include <string.h>

static void judge(struct verdict *v, const char *content, const char *reference)
{
    struct span a = span_trim(span_of(content ? content : "")), b = span_trim(span_of(reference ? reference : ""));
    *v = (struct verdict){.correct = a.n == b.n && !memcmp(a.p, b.p, a.n)};
    span_show(v->extracted, sizeof v->extracted, a);
}

const struct verifier verify_exact = {"exact", "the answer equals the reference, white space around them aside", judge};
