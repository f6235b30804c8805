// Libraries that are found when they are wanted: in DISTILL_CUDA_LIBS (folders, colons between), where the loader looks, in the toolkit.
#pragma once

void *library_open(const char *stem);                  // "cublasLt": its newest version; NULL if it is nowhere
void *library_symbol(void *library, const char *name); // NULL if it lacks it
