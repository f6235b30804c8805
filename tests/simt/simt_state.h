/* What tests ask of the emulation, from C. */
#pragma once
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
int simt_here(void);                            /* whether there is one: absent.c stands in where the suites run on a real GPU */
void simt_devices(int n) __attribute__((weak)); /* how many devices there are; 0 at start unless DISTILL_SIMT says */
void simt_device_memory(size_t total_bytes);    /* of each; 4 GiB at start */
void simt_shared_memory(size_t bytes); /* of a block, at most; else what the architecture has: DISTILL_SIMT_ARCH, 90 if it does not say */
void simt_fail(const char *call, int nth,
               int error);                    /* the nth call from now of a runtime function fails with this error; "launch" for kernels */
int simt_kernels(const char **name, int max); /* names of the kernels that have run, in this process and those it forked */
int simt_cudnn_runs(void);                    /* how many times cuDNN has done attention */
int simt_report(void) __attribute__((weak));  /* report.c */
int simt_layouts(const char *golden);         /* layouts.cc: aborts at a difference; how many values and descriptors were held against it */
#ifdef __cplusplus
}
#endif
