// The entries of the table (table.c), each in the file named beside it. What an entry does is said at op_<op> in kernels/ops.h; when it is
// called, shapes and dtypes have been checked, empty outputs sent back, and strides are as the dispatcher allows them.
#pragma once
#include "kernels/ops.h"

#define CUDA_ENTRY(op) extern __typeof__(op_##op) cuda_##op
CUDA_ENTRY(upload); // memory.cu
CUDA_ENTRY(download);
CUDA_ENTRY(zero);
CUDA_ENTRY(copy);
CUDA_ENTRY(pack);
CUDA_ENTRY(nonfinite);
CUDA_ENTRY(add); // rows.cu
CUDA_ENTRY(silu_mul);
CUDA_ENTRY(silu_mul_bwd);
CUDA_ENTRY(rope);
CUDA_ENTRY(embed); // embed.cu
CUDA_ENTRY(embed_bwd);
CUDA_ENTRY(bias_bwd);
CUDA_ENTRY(rmsnorm); // norm.cu
CUDA_ENTRY(rmsnorm_bwd);
CUDA_ENTRY(linear); // linear.cu: rows to the library (blaslt.cu), panels to our own
CUDA_ENTRY(linear_bwd_x);
CUDA_ENTRY(linear_bwd_w);
CUDA_ENTRY(head_linear);    // linear_panel.cu
CUDA_ENTRY(grouped_linear); // grouped.cu
CUDA_ENTRY(fp8_linear);     // fp8.cu
CUDA_ENTRY(attention);      // attention.cu
CUDA_ENTRY(attention_bwd);
CUDA_ENTRY(kv_write); // kv.cu
CUDA_ENTRY(kv_read);
CUDA_ENTRY(attention_paged); // attention_paged.cu
CUDA_ENTRY(router);          // moe.cu
CUDA_ENTRY(moe_sort);
CUDA_ENTRY(gather_rows);
CUDA_ENTRY(scatter_rows);
CUDA_ENTRY(moe_combine);
CUDA_ENTRY(loss);         // loss.cu
CUDA_ENTRY(capture_topk); // capture.cu
CUDA_ENTRY(capture_sampled);
CUDA_ENTRY(sample); // sample.cu
CUDA_ENTRY(adamw);  // optimizer.cu
CUDA_ENTRY(adamw8);
CUDA_ENTRY(sumsq);
#undef CUDA_ENTRY

// state.cu
enum status cuda_open(struct device *dev, struct err *err);
void cuda_close(struct device *dev);
void cuda_sync(struct device *dev);
bool cuda_step_begin(struct device *dev, const void *key, size_t n); // graph.cu
void cuda_step_pause(struct device *dev);
void cuda_step_resume(struct device *dev);
void cuda_step_end(struct device *dev);
enum status cuda_mem_take(struct device *dev, void **out, size_t size_bytes, const char *name, struct err *err);
void cuda_mem_give(void *p);
size_t cuda_mem_free_bytes(struct device *dev);
size_t cuda_pack_bytes(const struct device *dev, enum dtype t, int64_t n, int64_t k); // memory.cu
