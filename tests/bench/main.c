// Benchmarks: build/bench [--device NAME] [--threads N] [--small] JOB …  prints one Markdown row a measurement; run.sh runs all jobs and
// makes the table.
#include "tests/bench/bench.h"

#include <stdarg.h>
#include <time.h>
#include <unistd.h>

static const struct job {
    const char *name;
    void (*run)(void);
    const char *help;
} jobs[] = {
    {"ceilings", job_ceilings, "memory reads (a GPU: a copy) and the library's products"},
    {"kernels", job_kernels, "packed products, attention and the paged cache, against both"},
    {"train", job_train, "a training step against PyTorch and transformers ($PYTHON or python3); a GPU: Qwen2.5-1.5B against its products"},
    {"train_7b", job_train_7b, "a training step of Qwen2.5-7B's shapes, as many layers as fit: for a GPU"},
    {"decode", job_decode, "a Qwen2.5-0.5B-shaped slice, one token a sequence, against memory reads; a GPU: Qwen2.5-1.5B"},
    {"prefill", job_prefill, "the same slice, a prompt of 512 tokens, against oneDNN's products"},
    {"moe", job_moe, "decode and prefill of a DeepSeek-V3-shaped slice; a GPU: of Qwen3-30B-A3B's shapes"},
    {"moe_rank", job_moe_rank, "decode of what one of 8 ranks holds of DeepSeek-V3, at its real sizes: for a GPU"},
    {"capture", job_capture, "decode with capture of top-64 and log Z against decode without"},
    {"ops", job_ops, "each op at the shapes of real models, against what it must read, write and multiply"},
    {"head", job_head, "the LM head with its loss, 8192 rows of a vocabulary of 131072"},
    {"load", job_load, "loading 3 GB of bf16 against reading the same file; writes them to $TMPDIR first"},
    {"memory", job_memory, "peak resident memory of training against its plan"},
};

int bench_threads;

// With --threads 1 the time the process really ran: others on the machine then only take its caches and its memory's bandwidth.
double now_s(void)
{
    struct timespec t;
    clock_gettime(bench_threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int up(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, up);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

void row(const char *job, const char *ours, const char *peer, double ratio)
{
    if (ratio < 0)
        printf("| %s | %s | %s | |\n", job, ours, peer);
    else
        printf("| %s | %s | %s | %.2f |\n", job, ours, peer, ratio);
    fflush(stdout);
}

const char *text(const char *fmt, ...)
{
    char *s = NULL;
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&s, fmt, args) < 0) abort();
    va_end(args);
    return s;
}

void note(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("bench: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

void must(enum status st, const struct err *err)
{
    if (!st) return;
    fprintf(stderr, "bench: %s\n", err->text);
    exit(1);
}

int main(int argc, char **argv)
{
    int n_run = 0;
    const char *root = getenv("DISTILL_TEST_ROOT"); // as the suites': where the repository's files are
    if (chdir(root && *root ? root : TEST_ROOT)) note("no folder %s", root && *root ? root : TEST_ROOT);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--threads") && i + 1 < argc) {
            bench_threads = atoi(argv[++i]);
            continue;
        }
        if (!strcmp(argv[i], "--device") && i + 1 < argc) {
            bench_device = argv[++i];
            continue;
        }
        if (!strcmp(argv[i], "--small")) {
            bench_small = true;
            continue;
        }
        const struct job *j = jobs;
        while (j < jobs + sizeof jobs / sizeof *jobs && strcmp(j->name, argv[i])) j++;
        if (j == jobs + sizeof jobs / sizeof *jobs) {
            fprintf(stderr, "bench: no job %s\n", argv[i]);
            return 2;
        }
        j->run();
        n_run++;
    }
    if (n_run) return 0;
    puts("usage: bench [--device NAME] [--threads N] [--small] JOB …");
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) printf("  %-9s %s\n", jobs[i].name, jobs[i].help);
    return 2;
}
