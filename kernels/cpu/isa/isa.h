// Every file of this folder is compiled once per instruction set, with -DISA=generic|avx2|avx512|avx512bf16 and the flags that go with it.
// ISA_NAME(op) is the name of an entry in this compilation: cpu_<op>_<ISA>. What an entry does is said at op_<op> in kernels/ops.h; when it
// is called, shapes and dtypes have been checked, empty outputs sent back, and all strides are as the dispatcher allows them.
// Everything else in these files is static: two instruction sets must not share a symbol, or the linker could pick the wrong one. For the
// same reason no `inline` function of external linkage may be defined here.
#pragma once
#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"

#ifndef ISA
#error "kernels/cpu/isa is compiled with -DISA=…: see the Makefile"
#endif
#define ISA_PASTE_(op, isa) cpu_##op##_##isa
#define ISA_PASTE(op, isa) ISA_PASTE_(op, isa)
#define ISA_NAME(op) ISA_PASTE(op, ISA)
#define ISA_STRING_(isa) #isa
#define ISA_STRING(isa) ISA_STRING_(isa)

#define ISA_ENTRY(op) extern __typeof__(op_##op) ISA_NAME(op)
ISA_ENTRY(upload); // memory.c
ISA_ENTRY(download);
ISA_ENTRY(zero);
ISA_ENTRY(copy);
ISA_ENTRY(nonfinite);
ISA_ENTRY(add); // swiglu.c
ISA_ENTRY(silu_mul);
ISA_ENTRY(silu_mul_bwd);
ISA_ENTRY(embed); // embed.c
ISA_ENTRY(embed_bwd);
ISA_ENTRY(bias_bwd);
ISA_ENTRY(rmsnorm); // norm.c
ISA_ENTRY(rmsnorm_bwd);
ISA_ENTRY(rope); // rotary.c
ISA_ENTRY(pack); // linear.c
ISA_ENTRY(linear);
ISA_ENTRY(fp8_linear);
ISA_ENTRY(grouped_linear);
ISA_ENTRY(head_linear);
ISA_ENTRY(attention); // attention.c
ISA_ENTRY(attention_bwd);
ISA_ENTRY(attention_paged);
ISA_ENTRY(kv_write);
ISA_ENTRY(kv_read);
ISA_ENTRY(router); // moe.c
ISA_ENTRY(moe_sort);
ISA_ENTRY(gather_rows);
ISA_ENTRY(scatter_rows);
ISA_ENTRY(moe_combine);
ISA_ENTRY(loss);         // loss.c
ISA_ENTRY(capture_topk); // capture.c
ISA_ENTRY(sample);
ISA_ENTRY(capture_sampled);
ISA_ENTRY(adamw); // optimizer.c
ISA_ENTRY(sumsq);
ISA_ENTRY(adamw8);                                                                                // adamw8.c
extern size_t ISA_NAME(pack_bytes)(const struct device *dev, enum dtype t, int64_t n, int64_t k); // linear.c
#undef ISA_ENTRY
