// What a training run needs of memory: found by running its own code with nothing behind the arenas.
#pragma once
#include "student/trainer.h"

// Chooses the recompute policy, fills t->plan, and reserves all arenas. Gradients and optimizer slots are there on return.
enum status plan_reserve(struct trainer *t, struct err *err);
// What a step over micro-batches within `bounds` would take under each recompute policy, without taking it. The model may itself be a plan
// (model_options.plan); its device is left measuring. ST_BAD_INPUT: a layer kind that cannot be trained.
enum status train_plan_policies(struct train_plan plans[3], struct model *m, const struct train_options *opt, const struct micro *bounds,
                                const struct targets_use *use, struct err *err);
// Room for the losses of n rows, if there is not yet. Those that are there are lost.
enum status plan_losses(struct trainer *t, int n, struct err *err);
// Before a micro-batch: goes through it measuring, so that the backend has made what it keeps by shape, and
// enlarges the arenas in the rare case that a smaller shape wants more than the largest did.
enum status plan_fit(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix, bool backward,
                     struct err *err);
// trainer.c: forward, loss and (backward) gradients of one micro-batch; puts its loss rows behind those in t->losses.
void micro_run(struct trainer *t, const struct batch *b, const struct targets_use *use, const struct loss_mix *mix, bool backward);
