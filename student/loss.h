// Losses by name. What each costs a row is in kernels/rows/divergence.h, run by op_loss; a new one is a row of terms there and a line in
// the table of loss.c.
#pragma once
#include "kernels/ops.h"

struct loss_kind {
    const char *name; // as after --loss; "jsd" is given as jsd:B
    enum divergence divergence;
    bool has_beta;
    bool sampled; // defined for sampled targets too
    const char *help;
};
extern const struct loss_kind loss_kinds[]; // ends with name NULL

struct loss_spec {
    const struct loss_kind *kind;
    float beta;
};
// "ce", "fkl", "rkl", "jsd:0.5". Anything else is ST_BAD_INPUT and names what is known.
enum status loss_parse(struct loss_spec *out, const char *text, struct err *err);
