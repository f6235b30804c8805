// The op table of one instruction set: backend_cpu_<ISA>, called "cpu:<ISA>". kernels/cpu/cpu.c picks among them.
#include "kernels/cpu/dnnl.h"
#include "kernels/cpu/isa/isa.h"

#define TABLE_PASTE_(isa) backend_cpu_##isa
#define TABLE_PASTE(isa) TABLE_PASTE_(isa)
#define ENTRY(op) .op = ISA_NAME(op)

const struct backend TABLE_PASTE(ISA) = {
    .name = "cpu:" ISA_STRING(ISA),
    .host_memory = true,
    .fp8_weight = DT_BF16,
    .open = cpu_open,
    .close = cpu_close,
    ENTRY(pack_bytes),
    ENTRY(upload),
    ENTRY(download),
    ENTRY(zero),
    ENTRY(copy),
    ENTRY(pack),
    ENTRY(nonfinite),
    ENTRY(add),
    ENTRY(embed),
    ENTRY(embed_bwd),
    ENTRY(rmsnorm),
    ENTRY(rmsnorm_bwd),
    ENTRY(rope),
    ENTRY(silu_mul),
    ENTRY(silu_mul_bwd),
    ENTRY(linear),
    ENTRY(fp8_linear),
    .linear_bwd_x = cpu_dnnl_linear_bwd_x,
    .linear_bwd_w = cpu_dnnl_linear_bwd_w,
    ENTRY(bias_bwd),
    ENTRY(head_linear),
    ENTRY(attention),
    ENTRY(attention_bwd),
    ENTRY(kv_write),
    ENTRY(kv_read),
    ENTRY(attention_paged),
    ENTRY(router),
    ENTRY(moe_sort),
    ENTRY(gather_rows),
    ENTRY(scatter_rows),
    ENTRY(grouped_linear),
    ENTRY(moe_combine),
    ENTRY(loss),
    ENTRY(capture_topk),
    ENTRY(sample),
    ENTRY(capture_sampled),
    ENTRY(adamw),
    ENTRY(adamw8),
    ENTRY(sumsq),
};
