// manifest.json: who wrote the store and how, and the finished shards with counts and checksums. Always replaced atomically. Its last
// member is the CRC32C of the text before it; who edits the file by hand takes that member out.
#include "datasets/store/internal.h"
#include "kernels/base/crc32c.h"

#include <stdlib.h>
#include <string.h>

static const char FORMAT[] = "distill-trace-store";
static const char CRC_MEMBER[] = ",\n  \"crc32c\": \"";

json_t *manifest_new(const json_t *identity, const struct targets_spec *spec)
{
    json_t *copy = identity ? json_deep_copy(identity) : json_object();
    return json_pack("{s:s, s:i, s:o, s:o, s:{}, s:[]}", "format", FORMAT, "version", STORE_VERSION, "identity", copy, "targets",
                     spec_to_json(spec), "info", "shards");
}

enum status manifest_write(const json_t *manifest, const char *path, struct err *err)
{
    struct buf text = {0};
    json_append_pretty(&text, manifest);
    text.size -= strlen("\n}\n");
    uint32_t crc = crc32c(0, text.data, text.size);
    buf_printf(&text, "%s%08x\"\n}\n", CRC_MEMBER, crc);
    enum status st = file_write_atomic(path, text.data, text.size, err);
    buf_free(&text);
    return st;
}

bool manifest_crc_ok(const json_t *manifest, const char *text, size_t n)
{
    const size_t tail = sizeof CRC_MEMBER - 1 + 8 + strlen("\"\n}\n"), n_known = 6;
    if (n < tail || memcmp(text + n - tail, CRC_MEMBER, sizeof CRC_MEMBER - 1) != 0) return json_object_size(manifest) == n_known;
    char want[9];
    snprintf(want, sizeof want, "%08x", crc32c(0, text, n - tail));
    return !memcmp(text + n - tail + sizeof CRC_MEMBER - 1, want, 8);
}

enum status manifest_read(json_t **out, struct targets_spec *spec, const char *path, struct err *err)
{
    json_t *m = NULL;
    *out = NULL;
    TRY(json_read(&m, path, err));
    const char *format = json_string_value(json_object_get(m, "format"));
    const json_t *version = json_object_get(m, "version");
    enum status st = ST_OK;
    if (!format || strcmp(format, FORMAT) != 0)
        st = err_set(err, ST_BAD_INPUT, "%s: format: wanted \"%s\": this is not the manifest of a trace store", path, FORMAT);
    else if (!json_is_integer(version) || json_integer_value(version) < 1)
        st = err_set(err, ST_BAD_INPUT, "%s: version: wanted an integer", path);
    else if (json_integer_value(version) > STORE_VERSION)
        st =
            err_set(err, ST_BAD_INPUT, "%s: the store is of version %lld; this distill reads stores up to version %d: take a newer distill",
                    path, (long long)json_integer_value(version), STORE_VERSION);
    else if (!json_is_object(json_object_get(m, "identity")) || !json_is_array(json_object_get(m, "shards")))
        st = err_set(err, ST_BAD_INPUT, "%s: wanted an object \"identity\" and a list \"shards\"", path);
    else
        st = spec_from_json(spec, json_object_get(m, "targets"), path, err);
    if (st) {
        json_decref(m);
        return st;
    }
    json_object_del(m, "crc32c");
    if (!json_is_object(json_object_get(m, "info"))) json_object_set_new(m, "info", json_object());
    *out = m;
    return ST_OK;
}

// ---- comparing

struct compare {
    const char *path; // of the manifest
    struct err *err;
    int n;
};

static void show(const json_t *v, char text[80])
{
    if (!v) {
        strcpy(text, "nothing");
        return;
    }
    struct buf b = {0};
    json_append_line(&b, v);
    size_t n = b.size - 1;
    if (n < 80) {
        memcpy(text, b.data, n);
        text[n] = '\0';
    } else {
        for (n = 74; n && ((unsigned char)b.data[n] & 0xC0) == 0x80;) n--;
        memcpy(text, b.data, n);
        strcpy(text + n, "…");
    }
    buf_free(&b);
}

static bool same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) {
        if (json_is_integer(a) && json_is_integer(b)) return json_integer_value(a) == json_integer_value(b);
        double x = json_number_value(a), y = json_number_value(b);
        return !(x < y) && !(x > y); // 1 and 1.0 are the same setting
    }
    return json_equal(a, b);
}

static void compare(struct compare *c, const char *name, json_t *stored, json_t *given)
{
    if (json_is_object(stored) && json_is_object(given)) {
        const char *key;
        json_t *v;
        json_object_foreach(stored, key, v)
        {
            char *sub = mem_printf("%s.%s", name, key);
            compare(c, sub, v, json_object_get(given, key));
            mem_free(sub);
        }
        json_object_foreach(given, key, v)
        {
            if (json_object_get(stored, key)) continue;
            char *sub = mem_printf("%s.%s", name, key);
            compare(c, sub, NULL, v);
            mem_free(sub);
        }
        return;
    }
    if (stored && given && same_value(stored, given)) return;
    if (!c->n++)
        err_add(c->err, ST_BAD_INPUT,
                "%s: the store was made with other settings; give those again, or another folder for the new samples:", c->path);
    char a[80], b[80];
    show(stored, a);
    show(given, b);
    err_add(c->err, ST_BAD_INPUT, "  %s: stored %s, given %s", name, a, b);
}

enum status manifest_compare(const json_t *manifest, const char *path, const json_t *identity, const struct targets_spec *spec,
                             struct err *err)
{
    struct compare c = {.path = path, .err = err};
    json_t *given = manifest_new(identity, spec);
    compare(&c, "identity", json_object_get(manifest, "identity"), json_object_get(given, "identity"));
    compare(&c, "targets", json_object_get(manifest, "targets"), json_object_get(given, "targets"));
    json_decref(given);
    return c.n ? ST_BAD_INPUT : ST_OK;
}

// ---- shards

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

json_t *manifest_shard(const json_t *manifest, const struct shard *sh)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(manifest, "shards"), i, e)
    {
        const char *name = json_string_value(json_object_get(e, "traces"));
        if (name && !strcmp(name, base_name(sh->traces_path))) return e;
    }
    return NULL;
}

enum status hash_prefix(const char *path, uint64_t n, char hex[65], struct err *err)
{
    struct file_map m = {0};
    TRY(file_map(&m, path, err));
    if (n > m.size)
        err_set(err, ST_FAIL, "%s: has %zu bytes, wanted at least %llu", path, m.size, (unsigned long long)n);
    else
        sha256_hex(m.data, (size_t)n, hex);
    enum status st = n > m.size ? ST_FAIL : ST_OK;
    file_unmap(&m);
    return st;
}

enum status manifest_put_shard(json_t *manifest, const struct shard *sh, bool *wrote, struct err *err)
{
    json_t *old = manifest_shard(manifest, sh), *shards = json_object_get(manifest, "shards");
    if (old && !sh->changed) return ST_OK;
    char hex[65];
    TRY(hash_prefix(sh->traces_path, sh->traces_bytes, hex, err));
    json_t *e = json_pack("{s:s, s:I, s:I, s:I, s:s}", "traces", base_name(sh->traces_path), "n_sample", (json_int_t)sh->n_sample, "n_tok",
                          (json_int_t)sh->n_tok, "traces_bytes", (json_int_t)sh->traces_bytes, "traces_sha256", hex);
    if (file_exists(sh->targets_path)) {
        enum status st = hash_prefix(sh->targets_path, sh->targets_bytes, hex, err);
        if (st) {
            json_decref(e);
            return st;
        }
        json_object_set_new(e, "targets", json_string(base_name(sh->targets_path)));
        json_object_set_new(e, "targets_bytes", json_integer((json_int_t)sh->targets_bytes));
        json_object_set_new(e, "targets_sha256", json_string(hex));
    }
    *wrote = true;
    for (size_t i = 0; i < json_array_size(shards); i++)
        if (json_array_get(shards, i) == old) return json_array_set_new(shards, i, e), ST_OK;
    json_array_append_new(shards, e);
    return ST_OK;
}
