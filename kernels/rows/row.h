// Row-wise maths that the CPU and CUDA share stands once, in this folder, as small functions of numbers in registers.
// Functions over ROW_T work on a float (CUDA, and plain C) or on a whole vector: kernels/cpu/isa/ defines ROW_T, ROW_EXP, ROW_SQRT and
// ROW_SET for its own vectors before it includes these headers.
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define ROW_FN static inline __host__ __device__
#else
#define ROW_FN static inline __attribute__((unused))
#endif
#ifndef ROW_T
#define ROW_T float
#define ROW_EXP expf
#define ROW_SQRT sqrtf
#define ROW_SET(x) (x)
#endif
