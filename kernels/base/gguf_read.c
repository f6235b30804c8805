// Reading GGUF: the header is walked once with a cursor that never passes the file's end; nothing that it says is believed before it was
// checked against the file.
#include "kernels/base/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_RANK = 4, MAX_NAME = 63, MAX_KEY = 65535, DEFAULT_ALIGNMENT = 32, MIN_ALIGNMENT = 8, MAX_ALIGNMENT = 1 << 30 };

static const struct ggml_type_info types[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},      [3] = {"Q4_1", 32, 20},
    [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},      [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},
    [10] = {"Q2_K", 256, 84},    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66}, [17] = {"IQ2_XS", 256, 74},
    [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},   [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},
    [22] = {"IQ2_S", 256, 82},   [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},        [29] = {"IQ1_M", 256, 56},
    [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},   [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
    [40] = {"NVFP4", 64, 36},
};

const struct ggml_type_info *ggml_type_info(uint32_t type)
{
    return type < sizeof types / sizeof *types && types[type].name ? &types[type] : NULL;
}

bool gguf_is(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

// ---- the cursor ----

struct reader {
    const struct file_map *map;
    size_t at;
    struct err *err;
};

static enum status truncated(const struct reader *r, const char *what, size_t n)
{
    return err_set(r->err, ST_BAD_INPUT, "%s: offset %zu: %s needs %zu bytes, but the file ends after %zu: truncated, download it again",
                   r->map->path, r->at, what, n, r->map->size - r->at);
}

// The next n bytes.
static enum status take(struct reader *r, const uint8_t **out, size_t n, const char *what)
{
    if (n > r->map->size - r->at) return truncated(r, what, n);
    *out = r->map->data + r->at;
    r->at += n;
    return ST_OK;
}

static uint64_t number_at(const uint8_t *p, int n_bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < n_bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static enum status take_number(struct reader *r, uint64_t *out, int n_bytes, const char *what)
{
    const uint8_t *p = NULL;
    TRY(take(r, &p, (size_t)n_bytes, what));
    *out = number_at(p, n_bytes);
    return ST_OK;
}

static enum status take_string(struct reader *r, const uint8_t **s, size_t *n, const char *what)
{
    uint64_t size;
    TRY(take_number(r, &size, 8, what));
    if (size > r->map->size - r->at)
        return err_set(r->err, ST_BAD_INPUT, "%s: offset %zu: %s says that it has %" PRIu64 " bytes, but the file ends after %zu",
                       r->map->path, r->at - 8, what, size, r->map->size - r->at);
    *n = (size_t)size;
    return take(r, s, *n, what);
}

// ---- keys and values ----

static int type_bytes(enum gguf_type t) // 0: not of one size
{
    static const int bytes[N_GGUF_TYPE] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[t];
}

static enum status check_bools(const struct reader *r, const struct gguf_kv *kv)
{
    for (uint64_t i = 0; i < kv->n; i++)
        if (kv->data[i] > 1)
            return err_set(r->err, ST_BAD_INPUT, "%s: key %s: a bool of value %u, wanted 0 or 1", r->map->path, kv->key, kv->data[i]);
    return ST_OK;
}

static enum status take_value(struct reader *r, struct gguf_kv *kv)
{
    enum gguf_type t = kv->type == GGUF_ARRAY ? kv->elem : kv->type;
    kv->data = r->map->data + r->at;
    if (t == GGUF_STRING) {
        for (uint64_t i = 0; i < kv->n; i++) {
            const uint8_t *s;
            size_t n;
            TRY(take_string(r, &s, &n, "a string"));
        }
        return ST_OK;
    }
    const uint8_t *p;
    size_t left = r->map->size - r->at, each = (size_t)type_bytes(t);
    if (kv->n > left / each)
        return err_set(r->err, ST_BAD_INPUT, "%s: offset %zu: key %s: %" PRIu64 " items of %zu bytes, but the file ends after %zu",
                       r->map->path, r->at, kv->key, kv->n, each, left);
    TRY(take(r, &p, (size_t)kv->n * each, "a value"));
    return t == GGUF_BOOL ? check_bools(r, kv) : ST_OK;
}

static enum status take_kv(struct reader *r, struct gguf_kv *kv)
{
    const uint8_t *s;
    size_t n, at = r->at;
    uint64_t type, elem = 0;
    TRY(take_string(r, &s, &n, "a key"));
    if (!n || n > MAX_KEY || memchr(s, 0, n))
        return err_set(r->err, ST_BAD_INPUT, "%s: offset %zu: a key of %zu bytes, wanted 1 to %d without NUL", r->map->path, at, n,
                       MAX_KEY);
    kv->key = mem_strndup((const char *)s, n);
    TRY(take_number(r, &type, 4, "the type of a value"));
    kv->n = 1;
    if (type == GGUF_ARRAY) {
        TRY(take_number(r, &elem, 4, "the type of an array"));
        TRY(take_number(r, &kv->n, 8, "the length of an array"));
    }
    if (type >= N_GGUF_TYPE || elem >= N_GGUF_TYPE || elem == GGUF_ARRAY)
        return err_set(r->err, ST_BAD_INPUT, "%s: key %s: %s type %" PRIu64 " is not known", r->map->path, kv->key,
                       type == GGUF_ARRAY ? "an array of" : "value", type == GGUF_ARRAY ? elem : type);
    kv->type = (enum gguf_type)type;
    kv->elem = (enum gguf_type)elem;
    return take_value(r, kv);
}

// ---- tensors ----

static enum status take_tensor(struct reader *r, struct gguf_tensor *t, uint64_t *offset)
{
    const uint8_t *s;
    size_t n, at = r->at;
    uint64_t rank, type, dim, n_value = 1;
    const char *path = r->map->path;
    TRY(take_string(r, &s, &n, "the name of a tensor"));
    if (!n || n > MAX_NAME || memchr(s, 0, n))
        return err_set(r->err, ST_BAD_INPUT, "%s: offset %zu: a tensor's name of %zu bytes, wanted 1 to %d without NUL", path, at, n,
                       MAX_NAME);
    t->name = mem_strndup((const char *)s, n);
    TRY(take_number(r, &rank, 4, "the rank of a tensor"));
    if (rank < 1 || rank > MAX_RANK)
        return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s: %" PRIu64 " dimensions, wanted 1 to %d", path, t->name, rank, MAX_RANK);
    t->rank = (int)rank;
    for (int i = t->rank - 1; i >= 0; i--) {
        TRY(take_number(r, &dim, 8, "the shape of a tensor"));
        if (dim < 1 || dim > INT64_MAX || n_value > INT64_MAX / dim)
            return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s: a dimension of %" PRIu64 " (or the product of all) is out of range", path,
                           t->name, dim);
        n_value *= dim;
        t->shape[i] = (int64_t)dim;
    }
    TRY(take_number(r, &type, 4, "the type of a tensor"));
    const struct ggml_type_info *info = ggml_type_info((uint32_t)type);
    if (!info)
        return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s: type %" PRIu64 " is not known; convert the model to F16, BF16 or Q8_0", path,
                       t->name, type);
    t->type = (uint32_t)type;
    if (t->shape[t->rank - 1] % info->n_block)
        return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s: rows of %lld values, but %s comes in blocks of %d", path, t->name,
                       (long long)t->shape[t->rank - 1], info->name, info->n_block);
    uint64_t n_block = n_value / (uint64_t)info->n_block;
    if (n_block > SIZE_MAX / 2 / (uint64_t)info->block_bytes)
        return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s: larger than any memory", path, t->name);
    t->size_bytes = (size_t)n_block * (size_t)info->block_bytes;
    return take_number(r, offset, 8, "the offset of a tensor");
}

// Data begins at the next multiple of the alignment; every tensor begins where the one before ended, padded. `offset`: as the file gives
// them, in its order.
static enum status place_tensors(struct gguf *g, const struct reader *r, size_t alignment, const uint64_t *offset)
{
    const char *path = g->map.path;
    size_t start = (r->at + alignment - 1) / alignment * alignment, at = 0;
    for (size_t i = 0; i < g->n_tensor; i++) {
        struct gguf_tensor *t = &g->tensor[i];
        if (offset[i] != at)
            return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s: offset %" PRIu64 ", wanted %zu, where the one before it ends", path,
                           t->name, offset[i], at);
        if (start > g->map.size || at > g->map.size - start || t->size_bytes > g->map.size - start - at)
            return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s: %zu bytes at %zu, but the file ends at %zu: truncated, download it again",
                           path, t->name, t->size_bytes, start + at, g->map.size);
        t->data = g->map.data + start + at;
        at = (at + t->size_bytes + alignment - 1) / alignment * alignment;
    }
    return ST_OK;
}

// ---- the whole ----

static int kv_cmp(const void *a, const void *b)
{
    return strcmp(((const struct gguf_kv *)a)->key, ((const struct gguf_kv *)b)->key);
}
static int tensor_cmp(const void *a, const void *b)
{
    return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    struct gguf_kv k = {.key = (char *)(uintptr_t)key};
    return g->n_kv ? bsearch(&k, g->kv, g->n_kv, sizeof *g->kv, kv_cmp) : NULL;
}
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    struct gguf_tensor k = {.name = (char *)(uintptr_t)name};
    return g->n_tensor ? bsearch(&k, g->tensor, g->n_tensor, sizeof *g->tensor, tensor_cmp) : NULL;
}

static enum status read_magic(struct reader *r)
{
    const uint8_t *magic;
    uint64_t version;
    TRY(take(r, &magic, 4, "the magic number"));
    if (memcmp(magic, "GGUF", 4))
        return err_set(r->err, ST_BAD_INPUT, "%s: begins with bytes %02x %02x %02x %02x: not a GGUF file (nor a model's folder)",
                       r->map->path, magic[0], magic[1], magic[2], magic[3]);
    TRY(take_number(r, &version, 4, "the version"));
    if (version == 0x02000000 || version == 0x03000000)
        return err_set(r->err, ST_BAD_INPUT, "%s: a big-endian GGUF file; wanted a little-endian one", r->map->path);
    if (version != 2 && version != 3)
        return err_set(r->err, ST_BAD_INPUT, "%s: GGUF version %" PRIu64 ", wanted 2 or 3", r->map->path, version);
    return ST_OK;
}

// A count of things of at least min_bytes each.
static enum status take_count(struct reader *r, size_t *out, size_t min_bytes, const char *what)
{
    uint64_t n;
    TRY(take_number(r, &n, 8, what));
    if (n > (r->map->size - r->at) / min_bytes)
        return err_set(r->err, ST_BAD_INPUT, "%s: offset %zu: %s: %" PRIu64 " cannot be in a file of %zu bytes", r->map->path, r->at - 8,
                       what, n, r->map->size);
    *out = (size_t)n;
    return ST_OK;
}

static enum status read_alignment(const struct gguf *g, size_t *out, struct err *err)
{
    const struct gguf_kv *kv = gguf_find(g, "general.alignment");
    *out = DEFAULT_ALIGNMENT;
    if (!kv) return ST_OK;
    uint64_t v = kv->type == GGUF_U32 ? number_at(kv->data, 4) : 0;
    if (v & (v - 1) || v < MIN_ALIGNMENT || v > MAX_ALIGNMENT)
        return err_set(err, ST_BAD_INPUT, "%s: key general.alignment: wanted a u32 that is a power of two from %d to %d", g->map.path,
                       MIN_ALIGNMENT, MAX_ALIGNMENT);
    *out = (size_t)v;
    return ST_OK;
}

static enum status read_all(struct gguf *g, struct reader *r, uint64_t **offset)
{
    size_t n_tensor, n_kv, alignment;
    TRY(read_magic(r));
    TRY(take_count(r, &n_tensor, 33, "the number of tensors"));
    TRY(take_count(r, &n_kv, 14, "the number of keys"));
    g->kv = NEW_N(struct gguf_kv, n_kv + 1);
    for (size_t i = 0; i < n_kv; i++) {
        g->n_kv++;
        TRY(take_kv(r, &g->kv[i]));
    }
    qsort(g->kv, g->n_kv, sizeof *g->kv, kv_cmp);
    for (size_t i = 1; i < n_kv; i++)
        if (!kv_cmp(&g->kv[i - 1], &g->kv[i]))
            return err_set(r->err, ST_BAD_INPUT, "%s: key %s stands there twice", g->map.path, g->kv[i].key);
    TRY(read_alignment(g, &alignment, r->err));
    g->tensor = NEW_N(struct gguf_tensor, n_tensor + 1);
    *offset = NEW_N(uint64_t, n_tensor + 1);
    for (size_t i = 0; i < n_tensor; i++) {
        g->n_tensor++;
        TRY(take_tensor(r, &g->tensor[i], &(*offset)[i]));
    }
    TRY(place_tensors(g, r, alignment, *offset));
    qsort(g->tensor, g->n_tensor, sizeof *g->tensor, tensor_cmp);
    for (size_t i = 1; i < n_tensor; i++)
        if (!tensor_cmp(&g->tensor[i - 1], &g->tensor[i]))
            return err_set(r->err, ST_BAD_INPUT, "%s: tensor %s stands there twice", g->map.path, g->tensor[i].name);
    return ST_OK;
}

enum status gguf_open(struct gguf *g, const char *path, struct err *err)
{
    *g = (struct gguf){0};
    TRY(file_map(&g->map, path, err));
    struct reader r = {&g->map, 0, err};
    uint64_t *offset = NULL;
    enum status st = read_all(g, &r, &offset);
    mem_free(offset);
    if (st) gguf_close(g);
    return st;
}

void gguf_close(struct gguf *g)
{
    for (size_t i = 0; i < g->n_kv; i++) mem_free(g->kv[i].key);
    for (size_t i = 0; i < g->n_tensor; i++) mem_free(g->tensor[i].name);
    mem_free(g->kv);
    mem_free(g->tensor);
    file_unmap(&g->map);
    *g = (struct gguf){0};
}

// ---- values as JSON ----

// The value at *p, which moves past it.
static json_t *value_json(enum gguf_type t, const uint8_t **p)
{
    const uint8_t *at = *p;
    if (t == GGUF_STRING) {
        size_t n = (size_t)number_at(at, 8);
        json_t *s = json_stringn((const char *)at + 8, n);
        *p = at + 8 + n;
        return s ? s : json_null();
    }
    int n = type_bytes(t);
    uint64_t u = number_at(at, n);
    *p = at + n;
    switch (t) {
    case GGUF_I8:
        return json_integer((int8_t)u);
    case GGUF_I16:
        return json_integer((int16_t)u);
    case GGUF_I32:
        return json_integer((int32_t)u);
    case GGUF_BOOL:
        return json_boolean(u);
    case GGUF_F32: {
        uint32_t bits = (uint32_t)u;
        float f;
        memcpy(&f, &bits, 4);
        json_t *v = json_real((double)f);
        return v ? v : json_null(); // NaN and infinity are no JSON
    }
    case GGUF_F64: {
        double d;
        memcpy(&d, &u, 8);
        json_t *v = json_real(d);
        return v ? v : json_null();
    }
    case GGUF_U64:
        return u > INT64_MAX ? json_real((double)u) : json_integer((json_int_t)u);
    default:
        return json_integer((json_int_t)u);
    }
}

json_t *gguf_json(const struct gguf *g, const char *prefix)
{
    json_t *object = json_object();
    size_t n_prefix = strlen(prefix);
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        if (strncmp(kv->key, prefix, n_prefix)) continue;
        const uint8_t *p = kv->data;
        json_t *v = kv->type == GGUF_ARRAY ? json_array() : value_json(kv->type, &p);
        for (uint64_t k = 0; kv->type == GGUF_ARRAY && k < kv->n; k++) json_array_append_new(v, value_json(kv->elem, &p));
        json_object_set_new_nocheck(object, kv->key, v);
    }
    return object;
}
