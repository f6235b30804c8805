// Packing: rows → steps → micro-batches of flat tokens.
//
//   epoch   all rows once, in an order that depends on (seed, epoch) alone
//   step    whole rows in that order, as many as fit into batch_tokens (a longer row alone); never across two epochs
//   micro   whole rows of the step in order, as many as fit into micro_tokens (a longer row alone): one forward and backward
//
// Nothing here knows how many ranks there are: every rank computes the same steps and takes its share of each step's micro-batches.
#pragma once
#include "datasets/rows.h"

struct pack_options {
    int batch_tokens, micro_tokens;
    bool shuffle;
    uint64_t seed;
};

struct pack {
    const struct rows *rows; // borrowed
    struct pack_options opt;
    int64_t epoch;      // the one that is laid out, 0-based
    int64_t epoch_step; // global number of its first step, 0-based
    uint32_t *order;    // (rows->n) rows of this epoch in their order
    size_t *step_first; // (n_step + 1) where each step begins in `order`
    size_t n_step;
};

// Lays out epoch 0. `rows` must outlive the pack.
void pack_open(struct pack *p, const struct rows *rows, const struct pack_options *opt);
void pack_close(struct pack *p);
// Lays out the epoch of the global step s (0-based) and returns the step's number in it. Going forward is cheap.
size_t pack_seek(struct pack *p, int64_t s);
int64_t pack_count(struct pack *p, int64_t n_epoch); // steps in the first n_epoch ≥ 1 epochs; lays out the last of them

// A micro-batch: n_row rows from position `first` of the order.
struct micro {
    size_t first;
    int n_row, n_tok, n_loss, max_len;
};
int pack_n_loss(const struct pack *p, size_t step); // tokens of the step that carry loss
int pack_n_tok(const struct pack *p, size_t step);
// The step's micro-batch that begins at position `first` of the order (step_first[step] for the first); n_row 0: the step has ended.
struct micro pack_micro(const struct pack *p, size_t step, size_t first);
// Bounds over every micro-batch that any order of the rows can give: what a plan must hold. n_row is the largest number of rows.
struct micro pack_bounds(const struct rows *rows, int micro_tokens);

// The tables of a micro-batch, host memory of the caller's.
struct micro_tables {
    int32_t *ids, *pos; // (n_tok)
    int32_t *start;     // (n_row + 1)
    int32_t *loss_row;  // (n_loss) flat row whose output predicts a token that carries loss
    int32_t *label;     // (n_loss) that token
};
void pack_fill(const struct pack *p, const struct micro *m, struct micro_tables *t);
