// Writing GGUF: keys and tensor infos gather in memory; gguf_begin writes them, and then the tensors' bytes stream through, each padded to
// the alignment, into a temporary that is renamed when whole.
#include "kernels/base/gguf.h"

#include <string.h>

enum { VERSION = 3, ALIGNMENT = 32 };

struct gguf_writer {
    struct file_out *out;
    struct buf kv, infos;
    uint64_t n_kv, n_tensor;
    uint64_t declared, written; // bytes of data, padding included
    uint64_t *end;              // (n_tensor) where each tensor's own bytes end
    size_t tensor;              // that is being written
};

enum status gguf_create(struct gguf_writer **out, const char *path, struct err *err)
{
    struct gguf_writer *w = NEW(struct gguf_writer);
    *out = NULL;
    enum status st = file_out_open(&w->out, path, err);
    if (st)
        mem_free(w);
    else
        *out = w;
    return st;
}

static void put_number(struct buf *b, uint64_t v, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++) buf_putc(b, (char)(v >> (8 * i)));
}
static void put_text(struct buf *b, const char *s, size_t n)
{
    put_number(b, n, 8);
    buf_put(b, s, n);
}

static void put_key(struct gguf_writer *w, const char *key, enum gguf_type t)
{
    put_text(&w->kv, key, strlen(key));
    put_number(&w->kv, t, 4);
    w->n_kv++;
}
static void put_array(struct gguf_writer *w, const char *key, enum gguf_type t, size_t n)
{
    put_key(w, key, GGUF_ARRAY);
    put_number(&w->kv, t, 4);
    put_number(&w->kv, n, 8);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    put_key(w, key, GGUF_U32);
    put_number(&w->kv, v, 4);
}
void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    put_array(w, key, GGUF_I32, n);
    for (size_t i = 0; i < n; i++) put_number(&w->kv, (uint32_t)v[i], 4);
}
void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    put_key(w, key, GGUF_F32);
    put_number(&w->kv, bits, 4);
}
void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n)
{
    put_array(w, key, GGUF_F32, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], 4);
        put_number(&w->kv, bits, 4);
    }
}
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
    put_key(w, key, GGUF_BOOL);
    put_number(&w->kv, v, 1);
}
void gguf_put_bools(struct gguf_writer *w, const char *key, const bool *v, size_t n)
{
    put_array(w, key, GGUF_BOOL, n);
    for (size_t i = 0; i < n; i++) put_number(&w->kv, v[i], 1);
}
void gguf_put_string(struct gguf_writer *w, const char *key, const char *v)
{
    put_key(w, key, GGUF_STRING);
    put_text(&w->kv, v, strlen(v));
}
void gguf_put_strings(struct gguf_writer *w, const char *key, const struct gguf_text *v, size_t n)
{
    put_array(w, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) put_text(&w->kv, v[i].s, v[i].n);
}

static uint64_t padded(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void gguf_declare(struct gguf_writer *w, const char *name, enum ggml_type type, int rank, const int64_t *shape)
{
    const struct ggml_type_info *info = ggml_type_info(type);
    uint64_t n = 1;
    if (strlen(name) > 63) BUG("GGUF: %s: a tensor's name has less than 64 bytes", name);
    if (shape[rank - 1] % info->n_block)
        BUG("GGUF: %s: rows of %lld are not whole blocks of %s", name, (long long)shape[rank - 1], info->name);
    put_text(&w->infos, name, strlen(name));
    put_number(&w->infos, (uint64_t)rank, 4);
    for (int i = rank - 1; i >= 0; i--) {
        put_number(&w->infos, (uint64_t)shape[i], 8);
        n *= (uint64_t)shape[i];
    }
    put_number(&w->infos, type, 4);
    put_number(&w->infos, w->declared, 8);
    if ((w->n_tensor & (w->n_tensor - 1)) == 0) w->end = mem_realloc(w->end, sizeof *w->end * (w->n_tensor ? 2 * w->n_tensor : 1));
    w->end[w->n_tensor++] = w->declared + n / (uint64_t)info->n_block * (uint64_t)info->block_bytes;
    w->declared = padded(w->end[w->n_tensor - 1]);
}

uint64_t gguf_declared_bytes(const struct gguf_writer *w)
{
    return w->declared;
}

static enum status put_zeros(struct gguf_writer *w, uint64_t n, struct err *err)
{
    static const char zero[ALIGNMENT];
    return n ? file_out_put(w->out, zero, (size_t)n, err) : ST_OK;
}

enum status gguf_begin(struct gguf_writer *w, struct err *err)
{
    struct buf head = {0};
    buf_puts(&head, "GGUF");
    put_number(&head, VERSION, 4);
    put_number(&head, w->n_tensor, 8);
    put_number(&head, w->n_kv, 8);
    uint64_t n = head.size + w->kv.size + w->infos.size;
    enum status st = file_out_put(w->out, head.data, head.size, err);
    if (!st && w->n_kv) st = file_out_put(w->out, w->kv.data, w->kv.size, err);
    if (!st && w->n_tensor) st = file_out_put(w->out, w->infos.data, w->infos.size, err);
    if (!st) st = put_zeros(w, padded(n) - n, err);
    buf_free(&head);
    return st;
}

enum status gguf_put(struct gguf_writer *w, const void *data, size_t n, struct err *err)
{
    if (w->tensor >= w->n_tensor || n > w->end[w->tensor] - w->written)
        BUG("GGUF: more bytes than tensor %zu was declared with", w->tensor);
    TRY(file_out_put(w->out, data, n, err));
    w->written += n;
    if (w->written < w->end[w->tensor]) return ST_OK;
    uint64_t pad = padded(w->written) - w->written;
    w->tensor++;
    w->written += pad;
    return put_zeros(w, pad, err);
}

enum status gguf_finish(struct gguf_writer *w, struct err *err)
{
    if (w->tensor != w->n_tensor) BUG("GGUF: %llu tensors declared, %zu written", (unsigned long long)w->n_tensor, w->tensor);
    struct file_out *out = w->out;
    w->out = NULL;
    gguf_abort(w); // what is left of it
    return file_out_commit(out, err);
}

void gguf_abort(struct gguf_writer *w)
{
    if (!w) return;
    file_out_abort(w->out);
    buf_free(&w->kv);
    buf_free(&w->infos);
    mem_free(w->end);
    mem_free(w);
}
