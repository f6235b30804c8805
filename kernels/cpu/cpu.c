// The CPU backend's opening, closing and choice of instruction set.
#include "kernels/cpu/cpu.h"

#include "kernels/base/mem.h"
#include "kernels/cpu/dnnl.h"
#include "kernels/ops.h"

#include <string.h>

extern const struct backend backend_cpu_generic;
#ifdef __x86_64__
#include <cpuid.h>
extern const struct backend backend_cpu_avx2, backend_cpu_avx512, backend_cpu_avx512bf16;

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
// Asked by hand (leaf 7, subleaf 1, EAX bit 5): not every compiler's __builtin_cpu_supports knows the name. has_avx512() has seen to it
// that the operating system keeps the wide registers.
static bool has_avx512bf16(void)
{
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
}
#endif

int cpu_backend_list(const struct backend *out[N_CPU_ISA])
{
    int n = 0;
    out[n++] = &backend_cpu_generic;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (has_avx2()) out[n++] = &backend_cpu_avx2;
    if (has_avx512()) out[n++] = &backend_cpu_avx512;
    if (has_avx512bf16()) out[n++] = &backend_cpu_avx512bf16;
#endif
    return n;
}

enum status cpu_backend(const struct backend **out, const char *name, struct err *err)
{
    const struct backend *have[N_CPU_ISA];
    int n = cpu_backend_list(have);
    *out = NULL;
    if (!strcmp(name, "cpu")) *out = have[n - 1];
    for (int i = 0; i < n; i++)
        if (!strcmp(name, have[i]->name)) *out = have[i];
    if (*out) return ST_OK;
    err_set(err, ST_BAD_INPUT, "device %s: this machine has no such instruction set. It runs: cpu", name);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(err->text);
        if (len < sizeof err->text - 64) {
            memcpy(err->text + len, ", ", 2);
            strcpy(err->text + len + 2, have[i]->name);
        }
    }
    return ST_BAD_INPUT;
}

enum status cpu_open(struct device *dev, struct err *err)
{
    (void)err;
    if (dev->n_thread <= 0) dev->n_thread = omp_get_max_threads();
    dev->state = NEW(struct cpu_state);
    return ST_OK;
}

void cpu_close(struct device *dev)
{
    struct cpu_state *s = dev->state;
    if (!s) return;
    cpu_dnnl_free(s);
    mem_free(s);
    dev->state = NULL;
}
