// Products of packed weights: our own kernels (linear_panel.cu). As op_linear, w LAYOUT_PANEL.
#pragma once
#include "kernels/cuda/device.cuh"

void cuda_linear_panel(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias) __attribute__((weak));
