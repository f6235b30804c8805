// Rows of random tokens, and a trainer over them: loss on every token but the first, one micro-batch a step, clipping, AdamW.
#pragma once
#include "student/trainer.h"
#include "tests/bench/bench.h"

// Lengths are spread evenly over [min_len, max_len].
struct rows made_up_rows(int n_row, int min_len, int max_len, int64_t n_vocab);
struct trainer *made_up_trainer(struct slice *s, struct rows *rows, struct comm *comm);
double made_up_step(struct trainer *t, double *loss); // seconds
