// FP8 checkpoints: their configuration, pairing weights with scales, dequantising rows. See fp8.h.
#include "kernels/model/fp8.h"

#include "kernels/model/source.h"

#include <math.h>
#include <string.h>

// ---- configuration -------------------------------------------------------------------------------------------------------------------

static void want_word(const json_t *q, const char *key, const char *def, const char *word, const char *where, struct err *err)
{
    const char *found = json_get_str(q, key, def, false, where, err);
    if (strcmp(found, word))
        err_add(err, ST_BAD_INPUT, "%s: quantization_config: %s: found \"%s\", wanted \"%s\"", where, key, found, word);
}

void fp8_config_read(struct fp8_config *c, const json_t *config_json, const char *where, struct err *err)
{
    const json_t *q = json_object_get(config_json, "quantization_config");
    if (!q || json_is_null(q) || (json_is_object(q) && !json_object_size(q))) return;
    const char *method = json_get_str(q, "quant_method", "", false, where, err);
    if (strcmp(method, "fp8")) {
        err_add(err, ST_BAD_INPUT,
                "%s: quantization_config: quant_method \"%s\" is not read (only fp8 is); use the BF16, F16 or F32 weights", where, method);
        return;
    }
    c->on = true;
    want_word(q, "fmt", "e4m3", "e4m3", where, err);
    want_word(q, "activation_scheme", "dynamic", "dynamic", where, err);
    const char *scale_fmt = json_get_str(q, "scale_fmt", "float", false, where, err);
    c->ue8m0 = !strcmp(scale_fmt, "ue8m0");
    if (!c->ue8m0 && strcmp(scale_fmt, "float"))
        err_add(err, ST_BAD_INPUT, "%s: quantization_config: scale_fmt: found \"%s\", wanted \"ue8m0\" or none", where, scale_fmt);
    const json_t *block = json_object_get(q, "weight_block_size");
    const long long n = json_integer_value(json_array_get(block, 0)), k = json_integer_value(json_array_get(block, 1));
    if (!json_is_array(block) || json_array_size(block) != 2)
        err_add(err, ST_BAD_INPUT, "%s: quantization_config: weight_block_size: wanted [%d, %d]%s", where, FP8_BLOCK, FP8_BLOCK,
                block ? "" : ", found none (one scale a tensor is not read)");
    else if (n != FP8_BLOCK || k != FP8_BLOCK)
        err_add(err, ST_BAD_INPUT, "%s: quantization_config: weight_block_size: found [%lld, %lld], wanted [%d, %d]", where, n, k,
                FP8_BLOCK, FP8_BLOCK);
}

// ---- rows ----------------------------------------------------------------------------------------------------------------------------

static float scale_value(const void *scale, int type, int64_t i)
{
    float f;
    bf16 h;
    if (type == FP8_SCALE_E8M0) return e8m0_to_f32(((const e8m0 *)scale)[i]);
    if (type == FP8_SCALE_BF16) {
        memcpy(&h, (const char *)scale + 2 * i, 2);
        return bf16_to_f32(h);
    }
    memcpy(&f, (const char *)scale + 4 * i, 4);
    return f;
}

float fp8_weight_scale(const struct fp8_weight *w, int64_t i)
{
    return scale_value(w->scale, w->scale_type, i);
}

static void block_values(const e4m3 *code, float scale, int64_t n, enum dtype type, void *out)
{
    if (type == DT_F32) {
        float *f = out;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) f[i] = e4m3_to_f32(code[i]) * scale;
    } else {
        bf16 *h = out;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) h[i] = f32_to_bf16(e4m3_to_f32(code[i]) * scale);
    }
}

void fp8_weight_rows(const struct fp8_weight *w, int64_t first, int64_t n, enum dtype type, void *out)
{
    const int64_t per_row = fp8_blocks(w->k);
    for (int64_t r = 0; r < n; r++)
        for (int64_t b = 0; b < per_row; b++) {
            const int64_t at = b * FP8_BLOCK, len = w->k - at < FP8_BLOCK ? w->k - at : FP8_BLOCK, row = first + r;
            block_values(w->code + row * w->k + at, fp8_weight_scale(w, row / FP8_BLOCK * per_row + b), len, type,
                         (char *)out + (size_t)(r * w->k + at) * dtype_size(type));
        }
}

// ---- pairing -------------------------------------------------------------------------------------------------------------------------

static const char SUFFIX[] = "_scale_inv";

static bool is_fp8(const struct source_tensor *t)
{
    return !strcmp(t->dtype, "F8_E4M3");
}

// The scale type of a dtype's name, or -1.
static int scale_type(const char *dtype)
{
    return !strcmp(dtype, "F32")       ? FP8_SCALE_F32
           : !strcmp(dtype, "BF16")    ? FP8_SCALE_BF16
           : !strcmp(dtype, "F8_E8M0") ? FP8_SCALE_E8M0
                                       : -1;
}

static void pair(struct source_tensor *t, const struct source_tensor *scale, const char *where, struct err *err)
{
    if (t->rank != 2) {
        err_add(err, ST_BAD_INPUT, "%s: tensor %s: F8_E4M3 of %d dimensions, wanted 2", where, t->name, t->rank);
        return;
    }
    const int64_t n = fp8_blocks(t->shape[0]), k = fp8_blocks(t->shape[1]);
    if (!scale) {
        err_add(err, ST_BAD_INPUT, "%s: tensor %s%s: missing, wanted (%lld, %lld): the scales of %s", where, t->name, SUFFIX, (long long)n,
                (long long)k, t->name);
        return;
    }
    const int type = scale_type(scale->dtype);
    if (type < 0) err_add(err, ST_BAD_INPUT, "%s: tensor %s: dtype %s, wanted F32, BF16 or F8_E8M0", where, scale->name, scale->dtype);
    const bool same = scale->rank == 2 && scale->shape[0] == n && scale->shape[1] == k;
    if (!same)
        err_add(err, ST_BAD_INPUT, "%s: tensor %s: found %d dimensions (%lld, %lld), wanted (%lld, %lld): a scale for each 128 × 128 of %s",
                where, scale->name, scale->rank, (long long)scale->shape[0], (long long)scale->shape[1], (long long)n, (long long)k,
                t->name);
    if (type < 0 || !same) return;
    int64_t bad = 0;
    for (int64_t i = 0; i < n * k; i++) {
        const float s = scale_value(scale->bytes, type, i);
        bad += !(s >= 0 && isfinite(s));
    }
    if (bad)
        err_add(err, ST_BAD_INPUT, "%s: tensor %s: %lld of %lld scales are NaN, infinite or negative", where, scale->name, (long long)bad,
                (long long)(n * k));
    t->fp8 = NEW(struct fp8_weight);
    *t->fp8 = (struct fp8_weight){.n = t->shape[0], .k = t->shape[1], .code = t->bytes, .scale = scale->bytes};
    t->fp8->scale_type = (unsigned)type;
    t->readable = true;
}

void fp8_pair(struct source *s, const char *where, struct err *err)
{
    bool *paired = NEW_N(bool, s->n + 1);
    for (size_t i = 0; i < s->n; i++) {
        if (!is_fp8(&s->v[i])) continue;
        char *name = mem_printf("%s%s", s->v[i].name, SUFFIX);
        const struct source_tensor *scale = source_find(s, name);
        mem_free(name);
        if (scale) paired[scale - s->v] = true;
        pair(&s->v[i], scale, where, err);
    }
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (paired[i])
            mem_free(s->v[i].name);
        else
            s->v[n++] = s->v[i];
    }
    s->n = n;
    mem_free(paired);
}
