// Learning rate over a run's steps.
//
// For step s = 1 … n_step and `warmup` steps of warm-up:
//   s ≤ warmup   lr · s / warmup        (the first update already moves; transformers starts at 0, one step behind)
//   s > warmup   constant  lr
//                linear    lr · (n_step - s + 1) / (n_step - warmup)
//                cosine    lr · (1 + cos(π · (s - 1 - warmup) / (n_step - warmup))) / 2
// After the warm-up these are the values of transformers' get_*_schedule_with_warmup at the same update; no update has rate 0.
#pragma once
#include "kernels/base/status.h"

#include <stdint.h>

enum schedule { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };

enum status schedule_parse(enum schedule *out, const char *name, struct err *err);
double schedule_lr(enum schedule kind, double lr, int64_t warmup, int64_t n_step, int64_t step);
