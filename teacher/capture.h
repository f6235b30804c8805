// What is kept of the distributions that tokens were drawn from: row i of a sample's targets belongs to its generated token i, at the
// natural temperature, before any sampling filter.
//
// A chunk of rows is captured on the device into one block, which the engine brings to the host with what else it wants of a step, and is
// dealt out to the samples' own arrays there.
#pragma once
#include "datasets/store/store.h"
#include "kernels/ops.h"

struct capture {
    struct targets_spec spec;
    // The chunk last taken, on the host: rows as in struct targets. A column of log Z is there for each temperature.
    const int32_t *ids, *count;
    const float *logprob, *tail_logprob, *log_z;
};
// Bytes of the block of n rows, a multiple of ARENA_ALIGN.
size_t capture_bytes(const struct capture *c, int n);
// Captures the n rows of logits f32 (n, v) into a block of that size, device memory. `draw` holds each row's stream for sampled targets
// (device memory; else unused).
void capture_rows(const struct capture *c, struct device *dev, void *block, struct tensor logits, int n_vocab,
                  const struct sample_row *draw);
// The chunk is the n rows of such a block, host memory that stays until their last capture_append.
void capture_take(struct capture *c, int n, const void *block);
// Appends row `row` of the chunk to t, which has room for it. False: the row's log Z is not finite, nothing was appended.
bool capture_append(const struct capture *c, int row, struct targets *t);
// Makes room in t for n_tok rows.
void capture_reserve(struct targets *t, const struct targets_spec *spec, int n_tok);
