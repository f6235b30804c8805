// store_verify: reads everything once and lists what is wrong.
#include "datasets/store/internal.h"

#include <math.h>
#include <string.h>

static void check_hash(const json_t *entry, const char *key, const char *path, uint64_t bytes, struct err *err)
{
    char hex[65];
    struct err why = {0};
    const char *want = json_string_value(json_object_get(entry, key));
    if (hash_prefix(path, bytes, hex, &why))
        err_add(err, ST_FAIL, "%s", why.text);
    else if (!want || strcmp(want, hex) != 0)
        err_add(err, ST_FAIL, "%s: its first %llu bytes have another sha256 than manifest.json says", path, (unsigned long long)bytes);
}

// The shards against their entries. An entry vouches for the first so many bytes: a shard may have grown since, if its writer was killed.
static void check_manifest(const struct store *s, struct err *err)
{
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(s->manifest, "shards"), i, e)
    {
        const char *name = json_string_value(json_object_get(e, "traces"));
        const struct shard *sh = NULL;
        for (int k = 0; k < s->n_shard; k++)
            if (manifest_shard(s->manifest, &s->shards[k]) == e) sh = &s->shards[k];
        if (!sh) {
            err_add(err, ST_FAIL, "%s: lists %s, which is missing", s->manifest_path, name ? name : "a shard without a name");
            continue;
        }
        uint64_t n_sample = (uint64_t)json_integer_value(json_object_get(e, "n_sample"));
        uint64_t traces_bytes = (uint64_t)json_integer_value(json_object_get(e, "traces_bytes"));
        uint64_t targets_bytes = (uint64_t)json_integer_value(json_object_get(e, "targets_bytes"));
        if (sh->n_sample < n_sample || (sh->n_sample != n_sample && sh->traces_bytes == traces_bytes))
            err_add(err, ST_FAIL, "%s: has %zu whole samples, manifest.json says %llu", sh->traces_path, sh->n_sample,
                    (unsigned long long)n_sample);
        check_hash(e, "traces_sha256", sh->traces_path, traces_bytes, err);
        if (json_object_get(e, "targets")) check_hash(e, "targets_sha256", sh->targets_path, targets_bytes, err);
    }
}

// Values that no capture writes.
static const char *check_values(const struct targets *t)
{
    size_t rows = (size_t)t->n_tok, cells = rows * (size_t)t->k;
    for (size_t i = 0; i < rows * (size_t)t->n_temperature; i++)
        if (!isfinite(t->log_z[i])) return "a log Z is not finite";
    for (size_t i = 0; t->tail_logprob && i < rows; i++)
        if (isnan(t->tail_logprob[i])) return "a tail is NaN";
    for (size_t i = 0; i < cells; i++) {
        bool first = i % (size_t)t->k == 0;
        if (t->logprob && (isnan(t->logprob[i]) || t->ids[i] < 0)) return "a log-probability is NaN or an id negative";
        if (t->logprob && !first && t->logprob[i] > t->logprob[i - 1]) return "log-probabilities rise within a position";
        if (t->count && !first && t->ids[i] >= 0 && t->ids[i] <= t->ids[i - 1]) return "ids do not rise within a position";
    }
    return NULL;
}

enum status store_verify(const char *dir, size_t *n_sample, uint64_t *n_torn, struct err *err)
{
    struct store *s = NULL;
    if (n_sample) *n_sample = 0;
    if (n_torn) *n_torn = 0;
    TRY(store_open_read(&s, dir, err));
    *err = (struct err){0};
    struct buf text = {0};
    struct err why = {0};
    if (file_read(&text, s->manifest_path, 1u << 30, &why))
        err_add(err, ST_FAIL, "%s", why.text);
    else if (!manifest_crc_ok(s->manifest, text.data, text.size))
        err_add(err, ST_FAIL, "%s: its crc32c does not match its text (edited by hand? then remove that member)", s->manifest_path);
    buf_free(&text);
    for (size_t i = 0; i < s->index.n; i++) {
        struct sample x;
        struct targets t = {0};
        why = (struct err){0};
        if (store_read(s, i, &x, &t, &why)) {
            err_add(err, ST_FAIL, "%s", why.text);
            continue;
        }
        const struct entry *e = &s->index.v[i];
        const char *what = check_values(&t);
        if (what)
            err_add(err, ST_FAIL, "%s: the frame at byte %llu: %s", s->shards[e->shard].targets_path, (unsigned long long)e->frame_at,
                    what);
        sample_free(&x);
        targets_free(&t);
    }
    for (int i = 0; i < s->n_shard; i++)
        if (s->shards[i].n_double)
            err_add(err, ST_FAIL, "%s: %zu lines repeat an (id, sample) of the store", s->shards[i].traces_path, s->shards[i].n_double);
    check_manifest(s, err);
    if (n_sample) *n_sample = s->index.n;
    if (n_torn) *n_torn = s->n_torn;
    struct err ignored = {0};
    store_close(s, &ignored);
    return err->code;
}
