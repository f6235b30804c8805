// The op table of a GPU. One a device that can be named: the name is part of the table.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/entries.h"

#include <stdlib.h>
#include <string.h>

#define ENTRY(op) .op = cuda_##op
#define TABLE(device)                                                                                                                      \
    {                                                                                                                                      \
        .name = device, .fp8_weight = DT_E4M3, .open = cuda_open, .close = cuda_close, .sync = cuda_sync, .step_begin = cuda_step_begin,   \
        .step_pause = cuda_step_pause, .step_resume = cuda_step_resume, .step_end = cuda_step_end, .mem_take = cuda_mem_take,              \
        .mem_give = cuda_mem_give, .mem_free_bytes = cuda_mem_free_bytes, ENTRY(pack_bytes), ENTRY(upload), ENTRY(download), ENTRY(zero),  \
        ENTRY(copy), ENTRY(pack), ENTRY(nonfinite), ENTRY(add), ENTRY(embed), ENTRY(embed_bwd), ENTRY(rmsnorm), ENTRY(rmsnorm_bwd),        \
        ENTRY(rope), ENTRY(silu_mul), ENTRY(silu_mul_bwd), ENTRY(linear), ENTRY(fp8_linear), ENTRY(linear_bwd_x), ENTRY(linear_bwd_w),     \
        ENTRY(bias_bwd), ENTRY(head_linear), ENTRY(attention), ENTRY(attention_bwd), ENTRY(kv_write), ENTRY(kv_read),                      \
        ENTRY(attention_paged), ENTRY(router), ENTRY(moe_sort), ENTRY(gather_rows), ENTRY(scatter_rows), ENTRY(grouped_linear),            \
        ENTRY(moe_combine), ENTRY(loss), ENTRY(capture_topk), ENTRY(sample), ENTRY(capture_sampled), ENTRY(adamw), ENTRY(adamw8),          \
        ENTRY(sumsq), .batch_dependent = true,                                                                                             \
    }

static const struct backend table[] = {
    TABLE("cuda:0"), TABLE("cuda:1"), TABLE("cuda:2"), TABLE("cuda:3"), TABLE("cuda:4"), TABLE("cuda:5"), TABLE("cuda:6"), TABLE("cuda:7"),
};
enum { N_TABLE = sizeof table / sizeof *table };

enum status cuda_backend(const struct backend **out, const char *name, struct err *err)
{
    if (!strcmp(name, "cuda")) name = "cuda:0";
    for (int i = 0; i < N_TABLE; i++)
        if (!strcmp(table[i].name, name)) {
            *out = &table[i];
            return ST_OK;
        }
    return err_set(err, ST_BAD_INPUT, "device %s: wanted cuda or cuda:N, N from 0 to %d", name, N_TABLE - 1);
}
