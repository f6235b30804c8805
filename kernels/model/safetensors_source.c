// A folder of safetensors as a source of weights: values that are F32, BF16 or F16 are handed out where they are mapped, FP8 dequantised.
#include "kernels/model/arch.h"
#include "kernels/model/safetensors.h"
#include "kernels/model/source.h"

#include <string.h>

// Values in a file may stand at any byte; what cannot be read in place is handed out row by row.
static void rows(const struct source *s, const struct source_tensor *t, int64_t first, int64_t n, enum dtype type, void *out)
{
    (void)s;
    if (t->fp8) {
        fp8_weight_rows(t->fp8, first, n, type, out);
        return;
    }
    int64_t width = 1;
    for (int i = 1; i < t->rank; i++) width *= t->shape[i];
    const size_t size = dtype_size(t->type);
    const uint8_t *from = (const uint8_t *)t->bytes + (size_t)(first * width) * size;
    for (int64_t i = 0; i < n * width; i++) {
        float f;
        bf16 h;
        memcpy(t->type == DT_F32 ? (void *)&f : &h, from + (size_t)i * size, size);
        if (t->type != DT_F32) f = t->type == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
        if (type == DT_F32)
            ((float *)out)[i] = f;
        else
            ((bf16 *)out)[i] = t->type == DT_BF16 ? h : f32_to_bf16(f);
    }
}

static void done(const struct source *s, const struct source_tensor *t)
{
    (void)s;
    const struct st_tensor *st = t->own;
    file_map_forget(st->data, st->size_bytes);
}

static void close_set(struct source *s)
{
    st_close(s->state);
    mem_free(s->state);
}

static const struct source_kind plain = {.dtypes = "F32, BF16 or F16", .rows = rows, .done = done, .close = close_set},
                                fp8 = {.dtypes = "F32, BF16, F16 or F8_E4M3", .rows = rows, .done = done, .close = close_set};

enum status source_open_safetensors(struct source *s, const char *dir, const struct model_config *config, struct err *err)
{
    struct st_set *set = NEW(struct st_set);
    enum status status = st_open_dir(set, dir, err);
    if (status) {
        mem_free(set);
        return status;
    }
    s->kind = config->fp8.on ? &fp8 : &plain;
    s->state = set;
    for (size_t i = 0; i < set->n; i++) {
        const struct st_tensor *from = &set->v[i];
        struct source_tensor *t = source_add(s, from->name);
        snprintf(t->dtype, sizeof t->dtype, "%s", from->dtype);
        t->rank = from->rank;
        memcpy(t->shape, from->shape, sizeof t->shape);
        t->readable = st_dtype(from->dtype, &t->type) && t->type <= DT_F16;
        t->bytes = from->data;
        t->own = from;
        if (t->readable && (uintptr_t)from->data % dtype_size(t->type) == 0) t->data = from->data;
    }
    source_sort(s);
    err->code = ST_OK;
    if (config->fp8.on) fp8_pair(s, dir, err);
    return err->code;
}
