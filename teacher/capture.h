// What is kept of the distributions that tokens were drawn from: row i of a sample's targets belongs to its generated token i, at the
// natural temperature, before any sampling filter.
//
// A chunk of rows is captured on the device, comes to the host in one buffer a field, and is dealt out to the samples' own arrays.
#pragma once
#include "datasets/store/store.h"
#include "kernels/ops.h"

struct capture {
    struct targets_spec spec;
    int max_row; // rows of a chunk at most
    // The chunk last captured, on the host: rows as in struct targets. A column of log Z is there for each temperature.
    int32_t *ids, *count;
    float *logprob, *tail_logprob, *log_z;
};
void capture_open(struct capture *c, const struct targets_spec *spec, int max_row);
void capture_close(struct capture *c);
// Captures the n rows of logits f32 (n, v). `draw` holds each row's stream for sampled targets (device memory; else unused).
void capture_rows(struct capture *c, struct device *dev, struct tensor logits, int n_vocab, const struct sample_row *draw);
// Appends row `row` of the chunk to t, which has room for it. False: the row's log Z is not finite, nothing was appended.
bool capture_append(const struct capture *c, int row, struct targets *t);
// Makes room in t for n_tok rows.
void capture_reserve(struct targets *t, const struct targets_spec *spec, int n_tok);
