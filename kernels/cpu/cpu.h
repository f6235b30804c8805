// The CPU backend: what stands behind dev->state, the choice of the instruction set, and how an op shares its work among threads.
// The ops are in isa/, compiled once per instruction set; dnnl.[ch] holds oneDNN's products.
#pragma once
#include "kernels/device.h"

#include <omp.h>

struct backend;
struct dnnl_cache; // dnnl.c: engines and compiled products, by shape

struct cpu_state {
    struct dnnl_cache *dnnl; // made by dnnl.c at first use, freed by cpu_close through cpu_dnnl_free
};

// Entries of every CPU table. Open resolves n_thread 0 to what OpenMP would use (OMP_NUM_THREADS, else the cores this process may run on).
enum status cpu_open(struct device *dev, struct err *err);
void cpu_close(struct device *dev);

// "cpu" is the best table this machine runs; "cpu:avx2" that one, ST_BAD_INPUT with the list if it is unknown or the machine lacks it.
enum status cpu_backend(const struct backend **out, const char *name, struct err *err);
// The tables this machine runs, from the plainest to the best; returns how many (at most N_CPU_ISA).
enum { N_CPU_ISA = 4 };
int cpu_backend_list(const struct backend *out[N_CPU_ISA]);

// Threads for an op of about `work_ns` nanoseconds on one: waking the team costs some microseconds, so small ops stay on the caller.
// Use as num_threads(cpu_team(dev, ns)). TRAP: a result may never depend on what this returns.
static inline int cpu_team(const struct device *dev, double work_ns)
{
    return work_ns > 20e3 ? dev->n_thread : 1;
}
// for (int64_t i = 0; i < n; i++) { body } on the team that work_ns deserves. A team of one costs OpenMP a quarter of a microsecond too,
// which small ops in decode feel: the loop then runs plainly.
#define CPU_FOR(dev, work_ns, i, n, ...)                                                                                                   \
    do {                                                                                                                                   \
        const int team_ = cpu_team(dev, work_ns);                                                                                          \
        const int64_t n_ = (n);                                                                                                            \
        if (team_ == 1) {                                                                                                                  \
            for (int64_t i = 0; i < n_; i++) __VA_ARGS__                                                                                   \
        } else {                                                                                                                           \
            _Pragma("omp parallel for schedule(static) num_threads(team_)") for (int64_t i = 0; i < n_; i++) __VA_ARGS__                   \
        }                                                                                                                                  \
    } while (0)
// The slice [*begin, *end) of n items for this thread of the running team: for kernels that want one contiguous range each.
static inline void cpu_slice(int64_t n, int64_t *begin, int64_t *end)
{
    int64_t t = omp_get_thread_num(), n_t = omp_get_num_threads(), each = n / n_t, rest = n % n_t;
    *begin = t * each + (t < rest ? t : rest);
    *end = *begin + each + (t < rest);
}
