// What ranks say to each other. One rank is one process with one device; every place where ranks will have to agree calls these
// functions already. This is the form for one rank: each collective has the meaning it will have over many, and a trivial body.
#pragma once
#include "kernels/ops.h"

struct comm {
    int rank, size; // size 1 until a transport is compiled in
};

void comm_open(struct comm *c);
void comm_close(struct comm *c);

// In place: x becomes the sum over all ranks. Summation goes by rank, so that every rank holds the same bytes.
void comm_all_reduce_sum(struct comm *c, struct device *dev, struct tensor x);
void comm_all_reduce_sum_host(struct comm *c, double *v, int n); // the same for a few numbers on the host
// out, a slice of 1 / size of x's outermost dimension: the sum over ranks of that slice, ours being the rank-th.
void comm_reduce_scatter(struct comm *c, struct device *dev, struct tensor out, struct tensor x);
// out: the slices x of all ranks, by rank.
void comm_all_gather(struct comm *c, struct device *dev, struct tensor out, struct tensor x);
void comm_broadcast(struct comm *c, struct device *dev, struct tensor x, int root); // x becomes root's
void comm_barrier(struct comm *c);
