// The CUDA backend, as the rest of the house sees it. It is compiled in when the toolkit is there (make CUDA=0 leaves it out); the binary
// starts without a driver, which is looked for when a device is opened.
#pragma once
#include "kernels/device.h"

// "cuda" is the first GPU, "cuda:1" the second. ST_BAD_INPUT, with what to do: no driver, a driver too old for the toolkit we were built
// with, no such device, a GPU older than sm_80.
enum status cuda_backend(const struct backend **out, const char *name, struct err *err) __attribute__((weak));
int cuda_device_count(void) __attribute__((weak)); // 0 without a driver
int64_t cuda_library_attentions(const struct device *dev)
    __attribute__((weak)); // calls of attention that cuDNN has done on a GPU, one for each that was recorded
