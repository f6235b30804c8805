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

// ---- the device that is measured, and tensors on it (place.c) ----
extern const char *bench_device; // --device: "cpu"
extern bool bench_small;         // --small: shapes that only show that the jobs run, on the emulated GPU say
extern int bench_threads;        // 0: as many as there are
bool on_gpu(void);
double device_now_s(struct device *dev);               // when all that was asked of it is done
void *place(struct device *dev, size_t size_bytes);    // memory of the device, until place_free
void place_free(void);                                 // of all, the ceilings' too
void fill_random(struct device *dev, struct tensor t); // f32 or bf16, contiguous: within half of 0
struct tensor place_random(struct device *dev, enum dtype t, int rank, int64_t a, int64_t b, int64_t c);
struct tensor place_ints(struct device *dev, const int32_t *host, int64_t n);

// ---- ceilings, measured by one pass each (ceilings.c) ----
void ceilings_open(void);
void ceilings_close(void);         // place_free, too
double ceiling_bytes(void);        // bytes a second: on the CPU read from memory by all threads, on a GPU copied, counting read and written
double ceiling_gemm(enum dtype t); // FLOPs a second of the library's product of large matrices
const char *flops_text(double flops); // a second
const char *bytes_text(double bytes);
extern int64_t ceiling_m, ceiling_n, ceiling_k;

// ---- models of the shapes that are measured (slices.c) ----
// Qwen2.5-0.5B with 4 of its 24 layers; the same whole; DeepSeek-V3's architecture at 4 small layers.
extern const char slice_qwen[], slice_qwen_whole[], slice_v3[];
// What a GPU is measured with. 7B: as many of its 28 layers as `layers` says. 30B-A3B: 6 of 48. V3: what one of 8 ranks holds of a layer's
// experts, its attention whole, 1 dense and 3 MoE layers of 61.
const char *config_qwen_1_5b(void);
const char *config_qwen_7b(int layers);
extern const char slice_30b_a3b[], slice_v3_rank[], slice_smallest[], slice_smallest_moe[], slice_smallest_mla[];
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
void job_train_7b(void);
void job_decode(void);
void job_prefill(void);
void job_moe(void);
void job_moe_rank(void);
void job_capture(void);
void job_memory(void);
void job_load(void);
void job_ops(void);
void job_head(void);
