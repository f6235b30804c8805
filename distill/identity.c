// Which model a store was written by. See identity.h.
#include "distill/identity.h"

#include "kernels/base/gguf.h"
#include "kernels/model/safetensors.h"

#include <string.h>

enum { N_PART = 64 };
static const size_t WHOLE_BYTES = (size_t)256 << 20, PART_BYTES = 1 << 20;

// sha256 of: the size, then the sha256 of N_PART + 1 blocks, the first of which begins the file and the last of which ends it.
static void hash_parts(const struct file_map *m, char hex[65])
{
    struct buf all = {0};
    char part[65];
    buf_printf(&all, "%zu", m->size);
    for (int i = 0; i <= N_PART; i++) {
        size_t room = m->size - PART_BYTES, at = i < N_PART ? room / N_PART * (size_t)i : room;
        sha256_hex(m->data + at, PART_BYTES, part);
        buf_puts(&all, part);
    }
    sha256_hex(all.data, all.size, hex);
    buf_free(&all);
}

static void put_file(json_t *files, const struct file_map *m)
{
    char hex[65];
    bool whole = m->size <= WHOLE_BYTES;
    if (whole)
        sha256_hex(m->size ? (const char *)m->data : "", m->size, hex);
    else
        hash_parts(m, hex);
    const char *slash = strrchr(m->path, '/');
    json_object_set_new(files, slash ? slash + 1 : m->path,
                        json_pack("{s:I, s:s}", "size_bytes", (json_int_t)m->size, whole ? "sha256" : "sha256_of_parts", hex));
}

static enum status put_path(json_t *files, const char *dir, const char *name, bool required, struct err *err)
{
    struct file_map m = {0};
    char *path = path_join(dir, name);
    enum status st = required || file_exists(path) ? file_map(&m, path, err) : ST_OK;
    if (!st && m.path) put_file(files, &m);
    if (!st && m.path) file_unmap(&m);
    mem_free(path);
    return st;
}

enum status identity_of_model(json_t **out, const char *dir, struct err *err)
{
    struct st_set set = {0};
    if (gguf_is(dir)) {
        struct file_map m;
        TRY(file_map(&m, dir, err));
        *out = json_pack("{s:{}}", "files");
        put_file(json_object_get(*out, "files"), &m);
        file_unmap(&m);
        return ST_OK;
    }
    TRY(st_open_dir(&set, dir, err));
    json_t *files = json_object();
    for (size_t i = 0; i < set.n_map; i++) put_file(files, &set.maps[i]);
    st_close(&set);
    enum status st = put_path(files, dir, "config.json", true, err);
    if (!st) st = put_path(files, dir, "generation_config.json", false, err);
    if (st)
        json_decref(files);
    else
        *out = json_pack("{s:o}", "files", files);
    return st;
}
