// FP8 checkpoints in DeepSeek's format: X.weight F8_E4M3 (n, k) with X.weight_scale_inv (⌈n/128⌉, ⌈k/128⌉), which, whatever its name says,
// is multiplied: w = value * scale of its block of 128 × 128; blocks at the edges are partial. The two may lie in different shards.
#pragma once
#include "kernels/base/fp8.h"
#include "kernels/base/json.h"
#include "kernels/tensor.h"

struct fp8_config { // of config.json's quantization_config
    bool on;
    bool ue8m0; // scale_fmt: scales of activations are powers of two
};
// None, null and {} are no quantisation. Anything else than DeepSeek's format is refused: method, fmt, block size, scheme, each by name.
void fp8_config_read(struct fp8_config *c, const json_t *config_json, const char *where, struct err *err);

struct fp8_weight {
    int64_t n, k;
    const e4m3 *code;  // (n, k), mapped
    const void *scale; // (⌈n/128⌉, ⌈k/128⌉), mapped, at any byte
    enum { FP8_SCALE_F32, FP8_SCALE_BF16, FP8_SCALE_E8M0 } scale_type;
};
static inline int64_t fp8_blocks(int64_t n)
{
    return (n + FP8_BLOCK - 1) / FP8_BLOCK;
}
// Scale i, in rows of fp8_blocks(k).
float fp8_weight_scale(const struct fp8_weight *w, int64_t i);
// Rows [first, first + n), dequantised, as `type` (DT_F32 or DT_BF16).
void fp8_weight_rows(const struct fp8_weight *w, int64_t first, int64_t n, enum dtype type, void *out);

struct source;
// For openers of sources, when the list is whole and sorted: every F8_E4M3 tensor gets its scales, which leave the list; a missing scale, a
// wrong shape or dtype of it, a scale that is not a positive number: all added to err.
void fp8_pair(struct source *s, const char *where, struct err *err);
