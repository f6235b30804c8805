// Intervals. See stats.h.
#include "distill/stats.h"

#include "kernels/base/mem.h"
#include "kernels/base/rng.h"

#include <math.h>
#include <stdlib.h>

struct interval wilson_interval(int64_t n_right, int64_t n)
{
    if (n <= 0) return (struct interval){0, 1};
    const double z = 1.959963984540054, p = (double)n_right / (double)n, z2n = z * z / (double)n;
    const double center = (p + z2n / 2) / (1 + z2n), half = z / (1 + z2n) * sqrt(p * (1 - p) / (double)n + z2n / (4 * (double)n));
    // At the ends the bound is exactly 0 or 1; rounding must not say otherwise.
    return (struct interval){n_right == 0 ? 0 : center - half, n_right == n ? 1 : center + half};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct interval bootstrap_interval(const double *score, size_t n_task, int n_draw, uint64_t seed)
{
    if (!n_task) return (struct interval){0, 1};
    double *mean = NEW_N(double, n_draw);
    for (int d = 0; d < n_draw; d++) {
        double sum = 0;
        for (size_t i = 0; i < n_task; i++) sum += score[rng_below(seed, (uint64_t)d, i, n_task)];
        mean[d] = sum / (double)n_task;
    }
    qsort(mean, (size_t)n_draw, sizeof *mean, by_value);
    int cut = (int)(0.025 * n_draw);
    struct interval out = {mean[cut], mean[n_draw - 1 - cut]};
    mem_free(mean);
    return out;
}
