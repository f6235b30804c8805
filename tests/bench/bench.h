// What the benchmarks share. Each job times ours and its peer (PyTorch, or a ceiling of this machine) in turn within one run and reports
// the median of the ratios, since the machine may be shared: absolute figures then mean little.
#pragma once
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "kernels/cpu/cpu.h"
#include "kernels/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- times and rows ----
double now_s(void);
double median(double *x, int n); // sorts x
// One row of the table, to stdout: | job | ours | peer | ratio |. ratio < 0: none.
void row(const char *job, const char *ours, const char *peer, double ratio);
const char *text(const char *fmt, ...) __attribute__((format(printf, 1, 2))); // kept until the program ends
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));        // a line to stderr
void must(enum status st, const struct err *err);                             // ends the program when st is not ST_OK

// ---- ceilings, measured by one pass each (ceilings.c) ----
extern int bench_threads; // 0: as many as there are
void ceilings_open(void);
double ceiling_read(void);         // bytes a second read from memory by all threads
double ceiling_gemm(enum dtype t); // FLOPs a second of oneDNN's product of large matrices
enum { CEILING_GEMM_M = 1024, CEILING_GEMM_N = 2048, CEILING_GEMM_K = 2048 };

// ---- models of the shapes that are measured (slices.c) ----
// Qwen2.5-0.5B with 4 of its 24 layers; the same whole; DeepSeek-V3's architecture at 4 small layers.
extern const char slice_qwen[], slice_qwen_whole[], slice_v3[];
struct slice {
    struct device dev;
    struct model *model;
};
// json NULL: loads `dir`; else random weights by that config.
void slice_open(struct slice *s, const char *json, const char *dir, enum model_use use, enum dtype dtype);
void slice_close(struct slice *s);
const char *slice_dir(const char *json); // a temporary folder with this config.json, removed when the program ends
// The most that a field of /proc/self/status ("RssAnon:", "VmRSS:") rose above what it was at the beginning, in bytes, sampled by a thread.
struct watch *watch_begin(const char *field);
size_t watch_end(struct watch *w);

// ---- jobs ----
void job_ceilings(void);
void job_kernels(void);
void job_train(void);
void job_decode(void);
void job_prefill(void);
void job_moe(void);
void job_capture(void);
void job_memory(void);
void job_load(void);
