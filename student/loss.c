// The table of losses and the reading of --loss.
#include "student/loss.h"

#include "kernels/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct loss_kind loss_kinds[] = {
    {"ce", DIV_NONE, false, true, "cross-entropy on the tokens alone"},
    {"fkl", DIV_FKL, false, true, "forward KL(teacher || student): covers all the teacher does"},
    {"rkl", DIV_RKL, false, false, "reverse KL(student || teacher): keeps to what the teacher would do"},
    {"jsd", DIV_JSD, true, false, "jsd:B, generalised Jensen-Shannon (GKD, arXiv 2306.13649); its ends 0 and 1 are fkl and rkl"},
    {0},
};

static enum status unknown(const char *text, struct err *err)
{
    struct buf known = {0};
    for (const struct loss_kind *k = loss_kinds; k->name; k++)
        buf_printf(&known, "%s%s%s", known.size ? ", " : "", k->name, k->has_beta ? ":B" : "");
    enum status st = err_set(err, ST_BAD_INPUT, "loss \"%s\" is not known. Known: %s", text, known.data);
    buf_free(&known);
    return st;
}

enum status loss_parse(struct loss_spec *out, const char *text, struct err *err)
{
    size_t n = strcspn(text, ":");
    const char *beta = text[n] ? text + n + 1 : NULL;
    for (const struct loss_kind *k = loss_kinds; k->name; k++) {
        if (strlen(k->name) != n || memcmp(k->name, text, n)) continue;
        *out = (struct loss_spec){.kind = k};
        if (!k->has_beta) return beta ? err_set(err, ST_BAD_INPUT, "loss %s takes no number: write %s", text, k->name) : ST_OK;
        char *end;
        double b = beta ? strtod(beta, &end) : NAN;
        if (!beta || end == beta || *end || !(b >= 0 && b <= 1))
            return err_set(err, ST_BAD_INPUT, "loss %s: wanted %s:B with 0 <= B <= 1, as in %s:0.5", text, k->name, k->name);
        out->beta = (float)b;
        return ST_OK;
    }
    return unknown(text, err);
}
