// Writing safetensors: header first, then the bytes streamed in the declared order, into a temporary that is renamed when whole.
#include "kernels/model/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct st_writer {
    FILE *f;
    char *path, *tmp;
    json_t *header, *metadata;
    uint64_t declared, written; // bytes of data
};

enum status st_create(struct st_writer **out, const char *path, struct err *err)
{
    struct st_writer *w = NEW(struct st_writer);
    w->path = mem_strdup(path);
    w->tmp = mem_printf("%s.tmp.%ld", path, (long)getpid());
    w->header = json_object();
    w->metadata = json_pack("{s:s}", "format", "pt"); // transformers 4.x refuses a file without
    w->f = fopen(w->tmp, "wb");
    if (!w->f) {
        enum status st = err_errno(err, "cannot write", w->tmp);
        st_abort(w);
        return st;
    }
    *out = w;
    return ST_OK;
}

void st_declare(struct st_writer *w, const char *name, const char *dtype, int rank, const int64_t *shape)
{
    uint64_t size = !strcmp(dtype, "F32") || !strcmp(dtype, "I32") || !strcmp(dtype, "U32")   ? 4
                    : !strcmp(dtype, "BF16") || !strcmp(dtype, "F16")                         ? 2
                    : !strcmp(dtype, "I64") || !strcmp(dtype, "F64") || !strcmp(dtype, "U64") ? 8
                                                                                              : 1;
    json_t *dims = json_array();
    for (int i = 0; i < rank; i++) {
        json_array_append_new(dims, json_integer(shape[i]));
        size *= (uint64_t)shape[i];
    }
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtype, "shape", dims, "data_offsets", (json_int_t)w->declared,
                              (json_int_t)(w->declared + size));
    if (json_object_get(w->header, name)) BUG("safetensors: %s declared twice", name);
    json_object_set_new(w->header, name, entry);
    w->declared += size;
}

void st_metadata(struct st_writer *w, const char *key, const char *value)
{
    json_object_set_new(w->metadata, key, json_string(value));
}

enum status st_begin(struct st_writer *w, struct err *err)
{
    json_t *root = json_pack("{s:O}", "__metadata__", w->metadata);
    json_object_update(root, w->header);
    char *text = json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(root);
    uint64_t n = strlen(text), padded = (n + 7) / 8 * 8;
    uint8_t head[8];
    for (int i = 0; i < 8; i++) head[i] = (uint8_t)(padded >> (8 * i));
    bool ok = fwrite(head, 1, 8, w->f) == 8 && fwrite(text, 1, n, w->f) == n;
    for (uint64_t i = n; ok && i < padded; i++) ok = fputc(' ', w->f) != EOF;
    free(text);
    return ok ? ST_OK : err_errno(err, "cannot write", w->tmp);
}

enum status st_put(struct st_writer *w, const void *data, size_t n, struct err *err)
{
    if (fwrite(data, 1, n, w->f) != n) return err_errno(err, "cannot write", w->tmp);
    w->written += n;
    return ST_OK;
}

enum status st_finish(struct st_writer *w, struct err *err)
{
    if (w->written != w->declared)
        BUG("safetensors: %llu bytes declared, %llu written", (unsigned long long)w->declared, (unsigned long long)w->written);
    enum status st = ST_OK;
    if (fflush(w->f) || fsync(fileno(w->f)) || rename(w->tmp, w->path)) st = err_errno(err, "cannot write", w->path);
    st_abort(w); // removes nothing once renamed
    return st;
}

void st_abort(struct st_writer *w)
{
    if (w->f) {
        fclose(w->f);
        unlink(w->tmp);
    }
    json_decref(w->header);
    json_decref(w->metadata);
    mem_free(w->path);
    mem_free(w->tmp);
    mem_free(w);
}
