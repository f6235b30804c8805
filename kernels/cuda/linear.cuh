// The two halves of op_linear: a weight in plain rows goes to the library, a packed one to our own kernels.
#pragma once
#include "kernels/tensor.h"

struct device;
// w LAYOUT_PANEL; the rest as op_linear (linear_panel.cu). S
void cuda_linear_panel(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias);
