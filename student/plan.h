// What a training run needs of memory: found by running its own code with nothing behind the arenas.
#pragma once
#include "student/trainer.h"

// Chooses the recompute policy, fills t->plan, and reserves all arenas. Gradients and optimizer slots are there on return.
enum status plan_reserve(struct trainer *t, struct err *err);
// Before a micro-batch of another shape than the last: goes through it measuring, so that the backend has made what it keeps by shape, and
// enlarges the arenas in the rare case that a smaller shape wants more than the largest did.
enum status plan_fit(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix, bool backward,
                     struct err *err);
// trainer.c: forward, loss and (backward) gradients of one micro-batch; leaves the loss rows in t->row_ce and t->row_kd.
void micro_run(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix, bool backward);
