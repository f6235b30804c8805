// Products by oneDNN (dnnl.c), for weights in plain rows: training and prefill of what is not packed. Entries of every CPU table. A build
// without the library (make DNNL=0) has plain.c in its place, with the same names.
#pragma once
#include "kernels/cpu/cpu.h"
#include "kernels/tensor.h"

// As op_linear, op_linear_bwd_x, op_linear_bwd_w in kernels/ops.h. While measuring they make the library's primitives and take its
// scratch memory, so that a step makes none.
void cpu_dnnl_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias);
void cpu_dnnl_linear_bwd_x(struct device *dev, struct tensor dx, struct tensor dout, struct tensor w, bool accumulate);
void cpu_dnnl_linear_bwd_w(struct device *dev, struct tensor dw, struct tensor dout, struct tensor x);
void cpu_dnnl_free(struct cpu_state *s);
