// Values of GGUF's tensors to f32 and back, bit for bit as ggml's reference does it.
#include "kernels/model/gguf.h"

#include <math.h>
#include <string.h>

enum { Q8_BLOCK = 32, Q8_BYTES = 34 }; // an f16 scale and 32 int8

static uint16_t half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return h;
}

void gguf_decode(float *out, uint32_t type, const uint8_t *row, int64_t first, int64_t n)
{
    if (type == GGML_F32) {
        memcpy(out, row + first * 4, (size_t)n * 4);
    } else if (type == GGML_Q8_0) {
        for (int64_t i = 0, at; i < n; i += at) { // a block, or what is wanted of it
            const uint8_t *block = row + (first + i) / Q8_BLOCK * Q8_BYTES;
            const int64_t skip = (first + i) % Q8_BLOCK, left = n - i;
            const float scale = f16_to_f32(half_at(block));
            at = Q8_BLOCK - skip < left ? Q8_BLOCK - skip : left;
            for (int64_t k = 0; k < at; k++) out[i + k] = (float)(int8_t)block[2 + skip + k] * scale;
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = half_at(row + (first + i) * 2);
            out[i] = type == GGML_F16 ? f16_to_f32(h) : bf16_to_f32(h);
        }
    }
}

// A block's scale is its largest magnitude over 127; the values are divided by the scale before it is rounded to f16.
static bool encode_q8(uint8_t *out, const float *v)
{
    float most = 0;
    for (int i = 0; i < Q8_BLOCK; i++) most = fmaxf(most, fabsf(v[i]));
    float scale = most / 127, inverse = scale != 0 ? 1 / scale : 0;
    f16 h = f32_to_f16(scale);
    memcpy(out, &h, 2);
    for (int i = 0; i < Q8_BLOCK; i++) out[2 + i] = (uint8_t)(int8_t)roundf(v[i] * inverse);
    return (h & 0x7c00) != 0x7c00;
}

bool gguf_encode(uint8_t *out, enum ggml_type type, const float *v, int64_t n)
{
    bool fits = true;
    for (int64_t i = 0; i < n; i++) fits &= isfinite(v[i]) != 0;
    if (!fits) return false;
    if (type == GGML_F32) memcpy(out, v, (size_t)n * 4);
    for (int64_t i = 0; type == GGML_Q8_0 && i < n; i += Q8_BLOCK) fits &= encode_q8(out + i / Q8_BLOCK * Q8_BYTES, v + i);
    for (int64_t i = 0; (type == GGML_F16 || type == GGML_BF16) && i < n; i++) {
        uint16_t h = type == GGML_F16 ? f32_to_f16(v[i]) : f32_to_bf16(v[i]);
        memcpy(out + i * 2, &h, 2);
        fits &= (h & (type == GGML_F16 ? 0x7c00 : 0x7f80)) != (type == GGML_F16 ? 0x7c00 : 0x7f80);
    }
    return fits;
}
