// Reading safetensors by mmap. A header is not believed until every entry is shown to lie where it says: sorted by offset the tensors must
// fill the data from 0 to its end, without hole or overlap, each as long as its shape and dtype make it.
#include "kernels/model/safetensors.h"

#include <inttypes.h>
#include <string.h>

enum { HEADER_MAX_BYTES = 100000000 }; // as huggingface/safetensors

static const struct dtype_row {
    const char *name;
    int bits;
    int dtype; // enum dtype, or -1: a type that ops do not know
} dtypes[] = {
    {"F32", 32, DT_F32}, {"BF16", 16, DT_BF16},  {"F16", 16, DT_F16},    {"I32", 32, DT_I32}, {"U8", 8, DT_U8},   {"BOOL", 8, -1},
    {"F4", 4, -1},       {"F6_E2M3", 6, -1},     {"F6_E3M2", 6, -1},     {"I8", 8, -1},       {"F8_E5M2", 8, -1}, {"F8_E4M3", 8, -1},
    {"F8_E8M0", 8, -1},  {"F8_E4M3FNUZ", 8, -1}, {"F8_E5M2FNUZ", 8, -1}, {"I16", 16, -1},     {"U16", 16, -1},    {"U32", 32, -1},
    {"C64", 64, -1},     {"F64", 64, -1},        {"I64", 64, -1},        {"U64", 64, -1},
};

static const struct dtype_row *dtype_row(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtypes[i].name, name)) return &dtypes[i];
    return NULL;
}

bool st_dtype(const char *name, enum dtype *out)
{
    const struct dtype_row *r = dtype_row(name);
    if (!r || r->dtype < 0) return false;
    *out = (enum dtype)r->dtype;
    return true;
}

const char *st_dtype_name(enum dtype t)
{
    const struct dtype_row *r = dtypes;
    while (r->dtype != (int)t) r++;
    return r->name;
}

// Reads {"dtype","shape","data_offsets"} of one entry; begin and end are relative to the data.
static enum status entry_read(struct st_tensor *t, uint64_t *begin, uint64_t *end, const char *name, const json_t *e, const char *path,
                              struct err *err)
{
    const json_t *dt = json_object_get(e, "dtype"), *shape = json_object_get(e, "shape"), *off = json_object_get(e, "data_offsets");
    if (!json_is_string(dt) || !json_is_array(shape) || !json_is_array(off) || json_array_size(off) != 2)
        return err_set(err, ST_BAD_INPUT, "%s: tensor %s: wanted {\"dtype\": string, \"shape\": array, \"data_offsets\": [begin, end]}",
                       path, name);
    const struct dtype_row *row = dtype_row(json_string_value(dt));
    if (!row) return err_set(err, ST_BAD_INPUT, "%s: tensor %s: unknown dtype \"%.32s\"", path, name, json_string_value(dt));
    snprintf(t->dtype, sizeof t->dtype, "%s", row->name);
    if (json_array_size(shape) > 8)
        return err_set(err, ST_BAD_INPUT, "%s: tensor %s: %zu dimensions, at most 8 are supported", path, name, json_array_size(shape));
    t->rank = (int)json_array_size(shape);
    uint64_t bits = (uint64_t)row->bits;
    for (int i = 0; i < t->rank; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return err_set(err, ST_BAD_INPUT, "%s: tensor %s: dimension %d is not a non-negative integer", path, name, i);
        t->shape[i] = json_integer_value(d);
        if (__builtin_mul_overflow(bits, (uint64_t)t->shape[i], &bits))
            return err_set(err, ST_BAD_INPUT, "%s: tensor %s: its shape overflows 64 bits", path, name);
    }
    for (size_t i = 0; i < 2; i++)
        if (!json_is_integer(json_array_get(off, i)) || json_integer_value(json_array_get(off, i)) < 0)
            return err_set(err, ST_BAD_INPUT, "%s: tensor %s: data_offsets are not non-negative integers", path, name);
    *begin = (uint64_t)json_integer_value(json_array_get(off, 0));
    *end = (uint64_t)json_integer_value(json_array_get(off, 1));
    if (*end < *begin || bits % 8 || *end - *begin != bits / 8)
        return err_set(err, ST_BAD_INPUT,
                       "%s: tensor %s: data_offsets [%" PRIu64 ", %" PRIu64 ") do not hold the %" PRIu64
                       " bytes that its shape and dtype need",
                       path, name, *begin, *end, bits / 8);
    t->size_bytes = (size_t)(*end - *begin);
    return ST_OK;
}

struct span {
    uint64_t begin, end;
    const char *name;
};

static int span_cmp(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static enum status spans_check(struct span *s, size_t n, uint64_t data_size, const char *path, struct err *err)
{
    qsort(s, n, sizeof *s, span_cmp);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i].begin != at)
            return err_set(err, ST_BAD_INPUT,
                           "%s: tensor %s begins at byte %" PRIu64 " of the data, but the one before ends at %" PRIu64 " (%s)", path,
                           s[i].name, s[i].begin, at, s[i].begin < at ? "they overlap" : "a hole between them");
        at = s[i].end;
    }
    if (at != data_size)
        return err_set(err, ST_BAD_INPUT, "%s: the tensors need %" PRIu64 " bytes of data, the file has %" PRIu64 " (%s)", path, at,
                       data_size, at > data_size ? "truncated: download it again" : "trailing bytes that no tensor owns");
    return ST_OK;
}

// Appends the tensors of one mapped file to the set. Names are copied: the JSON goes.
static enum status file_add(struct st_set *s, int file, struct err *err)
{
    const struct file_map *m = &s->maps[file];
    const char *path = m->path;
    if (m->size < 8) return err_set(err, ST_BAD_INPUT, "%s: %zu bytes: too short for a safetensors file", path, m->size);
    uint64_t n_header = 0;
    for (int i = 7; i >= 0; i--) n_header = n_header << 8 | m->data[i];
    if (n_header > HEADER_MAX_BYTES)
        return err_set(err, ST_BAD_INPUT, "%s: header of %" PRIu64 " bytes (at most %d are allowed): not a safetensors file, or damaged",
                       path, n_header, HEADER_MAX_BYTES);
    if (n_header > m->size - 8)
        return err_set(err, ST_BAD_INPUT, "%s: header of %" PRIu64 " bytes in a file of %zu: truncated, download it again", path, n_header,
                       m->size);
    json_t *root = NULL;
    TRY(json_parse_strict(&root, (const char *)m->data + 8, (size_t)n_header, path, 0, err));
    enum status st = ST_OK;
    struct span *spans = NULL;
    if (!json_is_object(root)) {
        st = err_set(err, ST_BAD_INPUT, "%s: the header is not a JSON object", path);
        goto out;
    }
    size_t n = json_object_size(root), k = 0;
    spans = NEW_N(struct span, n + 1);
    s->v = mem_realloc(s->v, (s->n + n + 1) * sizeof *s->v);
    const char *name;
    json_t *e;
    json_object_foreach(root, name, e)
    {
        if (!strcmp(name, "__metadata__")) continue;
        struct st_tensor *t = &s->v[s->n];
        memset(t, 0, sizeof *t);
        if ((st = entry_read(t, &spans[k].begin, &spans[k].end, name, e, path, err))) goto out;
        t->name = mem_strdup(name);
        t->file = file;
        s->n++;
        t->data = m->data + 8 + n_header + spans[k].begin; // checked below before anyone reads
        spans[k++].name = t->name;
    }
    st = spans_check(spans, k, m->size - 8 - n_header, path, err);
out:
    mem_free(spans);
    json_decref(root);
    return st;
}

static int name_cmp(const void *a, const void *b)
{
    return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

static enum status set_finish(struct st_set *s, struct err *err)
{
    if (s->n) qsort(s->v, s->n, sizeof *s->v, name_cmp); // an index may name no shard at all
    err->code = ST_OK;
    for (size_t i = 1; i < s->n; i++)
        if (!strcmp(s->v[i].name, s->v[i - 1].name))
            err_add(err, ST_BAD_INPUT, "tensor %s stands in two shards: %s and %s", s->v[i].name, s->maps[s->v[i - 1].file].path,
                    s->maps[s->v[i].file].path);
    return err->code;
}

enum status st_open(struct st_set *s, const char *path, struct err *err)
{
    *s = (struct st_set){.maps = NEW(struct file_map)};
    enum status st = file_map(&s->maps[0], path, err);
    if (!st) {
        s->n_map = 1;
        if (!(st = file_add(s, 0, err))) st = set_finish(s, err);
    }
    if (st) st_close(s);
    return st;
}

// Opens the shard `name` unless it is open; what is wrong with it is added to err.
static void shard_open(struct st_set *s, const char *dir, const char *name, const char *index, struct err *err)
{
    struct err wrong = {0};
    size_t i = 0;
    char *path = path_join(dir, name);
    while (i < s->n_map && strcmp(s->maps[i].path, path)) i++;
    if (i == s->n_map) {
        enum status st = file_map(&s->maps[i], path, &wrong);
        if (st) {
            s->maps[i].path = mem_strdup(path); // named once, however many tensors it should hold
            err_add(err, st, "%s names a shard: %s", index, wrong.text);
        }
        s->n_map++;
        if (!st && (st = file_add(s, (int)i, &wrong))) err_add(err, st, "%s", wrong.text);
    }
    mem_free(path);
}

static uint64_t n_value(const struct st_tensor *t)
{
    uint64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= (uint64_t)t->shape[i]; // entry_read saw that it does not overflow
    return n;
}

// Every tensor must lie where weight_map says, and all of them together be as long as metadata.total_size, where the index tells it. TRAP:
// DeepSeek's own FP8 index (V3: 1369062772000) counts two bytes a value, scales included, as though all were BF16.
static void index_check(const struct st_set *s, const json_t *root, const char *index, struct err *err)
{
    const char *tensor;
    json_t *file;
    uint64_t total = 0, as_bf16 = 0;
    bool fp8 = false;
    json_object_foreach(json_object_get(root, "weight_map"), tensor, file)
    {
        const struct st_tensor *t = st_find(s, tensor);
        const char *want = json_string_value(file), *slash = t ? strrchr(s->maps[t->file].path, '/') : NULL;
        if (t) {
            total += t->size_bytes;
            as_bf16 += 2 * n_value(t);
            fp8 |= !strcmp(t->dtype, "F8_E4M3");
        }
        if (!t || strcmp(slash ? slash + 1 : s->maps[t->file].path, want))
            err_add(err, ST_BAD_INPUT, "%s: weight_map: %s: wanted in %s, %s%s", index, tensor, want, t ? "found in " : "not there",
                    t ? s->maps[t->file].path : "");
    }
    const json_t *said = json_object_get(json_object_get(root, "metadata"), "total_size");
    if (err->code || !json_is_integer(said)) return;
    const uint64_t size = (uint64_t)json_integer_value(said);
    if (size != total && !(fp8 && size == as_bf16))
        err_add(err, ST_BAD_INPUT,
                "%s: metadata.total_size: found %lld, but the tensors of its shards have %llu bytes: they are not of one version (if the "
                "shards are "
                "whole, take total_size out of the index)",
                index, (long long)json_integer_value(said), (unsigned long long)total);
}

// The shards of an index, all of them opened and checked against it; all that is wrong is told.
static enum status shards_open(struct st_set *s, const char *dir, const json_t *root, const char *index, struct err *err)
{
    const char *tensor;
    json_t *file, *map = json_object_get(root, "weight_map");
    s->maps = NEW_N(struct file_map, json_object_size(map) + 1);
    json_object_foreach(map, tensor, file)
    {
        const char *name = json_string_value(file);
        if (!name || !*name || strchr(name, '/'))
            err_add(err, ST_BAD_INPUT, "%s: weight_map: %s: wanted the name of a file in the same folder", index, tensor);
        else
            shard_open(s, dir, name, index, err);
    }
    if (err->code) return err->code;
    TRY(set_finish(s, err));
    index_check(s, root, index, err);
    return err->code;
}

enum status st_open_dir(struct st_set *s, const char *dir, struct err *err)
{
    char *single = path_join(dir, "model.safetensors"), *index = path_join(dir, "model.safetensors.index.json");
    json_t *root = NULL;
    enum status st;
    *s = (struct st_set){0};
    if (file_exists(single)) {
        st = st_open(s, single, err);
    } else if (!file_exists(index)) {
        st = err_set(err, ST_BAD_INPUT,
                     "%s: neither model.safetensors nor model.safetensors.index.json is there: not a Hugging Face model folder", dir);
    } else if (!(st = json_read_strict(&root, index, err))) {
        const json_t *map = json_object_get(root, "weight_map");
        err->code = ST_OK;
        st = json_is_object(map) ? shards_open(s, dir, root, index, err)
                                 : err_set(err, ST_BAD_INPUT, "%s: weight_map: wanted an object", index);
        if (st) st_close(s);
    }
    json_decref(root);
    mem_free(single);
    mem_free(index);
    return st;
}

void st_close(struct st_set *s)
{
    for (size_t i = 0; i < s->n; i++) mem_free((char *)s->v[i].name);
    for (size_t i = 0; i < s->n_map; i++) file_unmap(&s->maps[i]);
    mem_free(s->v);
    mem_free(s->maps);
    *s = (struct st_set){0};
}

const struct st_tensor *st_find(const struct st_set *s, const char *name)
{
    struct st_tensor key = {.name = name};
    return s->n ? bsearch(&key, s->v, s->n, sizeof *s->v, name_cmp) : NULL;
}
