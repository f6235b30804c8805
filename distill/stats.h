// Intervals for a mean of judged answers.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct interval {
    double low, high;
};
// Wilson (1927): the 95% interval of a proportion, n_right of n independent trials. Sound near 0 and 1, where p ± 2σ is not. n 0: all of
// [0, 1].
struct interval wilson_interval(int64_t n_right, int64_t n);
// The 95% interval of the mean of score (n_task), by the percentiles of the means of n_draw resamples (Efron 1979). Tasks are what is
// resampled, not samples: those of one task are not independent. Same seed, same interval.
struct interval bootstrap_interval(const double *score, size_t n_task, int n_draw, uint64_t seed);
