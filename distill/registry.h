// What is compiled in, by kind. A new architecture, loss or backend is one file and one line in registry.c.
#pragma once
#include "kernels/model/arch.h"

extern const struct arch *const all_archs[]; // NULL-terminated: for struct model_options
