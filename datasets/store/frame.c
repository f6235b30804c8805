// Frames of targets-NNNNN.bin: the targets of one sample with all that is needed to read them. Log-probabilities are kept as the exact
// floats of the capture. Layout: docs/formats.md.
#include "datasets/store/internal.h"
#include "kernels/base/crc32c.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian and arrays are copied as they lie in memory");

static const char MAGIC[4] = {'D', 'S', 'T', 'F'};

static void put(struct buf *b, uint64_t v, size_t n_bytes)
{
    buf_put(b, &v, n_bytes);
}
static uint64_t get(const uint8_t *p, size_t n_bytes)
{
    uint64_t v = 0;
    memcpy(&v, p, n_bytes);
    return v;
}
static void pad(struct buf *b, size_t start)
{
    while ((b->size - start) % 4) buf_putc(b, 0);
}

// Counts of distinct ids a row (u16), then ids (i32) and counts (u16) of all rows without the padding of memory.
static enum status put_sampled(struct buf *out, const struct targets *t, size_t start, struct err *err)
{
    for (int r = 0; r < t->n_tok; r++) {
        const int32_t *ids = t->ids + (size_t)r * (size_t)t->k;
        int n = 0;
        while (n < t->k && ids[n] >= 0) n++;
        put(out, (uint64_t)n, 2);
    }
    pad(out, start);
    for (int r = 0; r < t->n_tok; r++) {
        const int32_t *ids = t->ids + (size_t)r * (size_t)t->k;
        for (int i = 0; i < t->k && ids[i] >= 0; i++) buf_put(out, &ids[i], 4);
    }
    for (int r = 0; r < t->n_tok; r++) {
        size_t at = (size_t)r * (size_t)t->k;
        for (int i = 0; i < t->k && t->ids[at + (size_t)i] >= 0; i++) {
            int32_t c = t->count[at + (size_t)i];
            if (c < 1 || c > 65535) return err_set(err, ST_BAD_INPUT, "targets: row %d: a count of %d draws, wanted 1 to 65535", r, c);
            put(out, (uint64_t)c, 2);
        }
    }
    pad(out, start);
    return ST_OK;
}

enum status frame_encode(struct buf *out, const char *id, int sample, const struct targets_spec *spec, const struct targets *t,
                         struct err *err)
{
    size_t start = out->size, id_bytes = strlen(id), rows = (size_t)t->n_tok;
    if (id_bytes > FRAME_MAX_ID) return err_set(err, ST_BAD_INPUT, "id \"%.40s…\" is longer than %d bytes", id, FRAME_MAX_ID);
    buf_put(out, MAGIC, 4);
    put(out, FRAME_VERSION, 2);
    put(out, spec->kind, 1);
    put(out, CODEC_RAW, 1);
    put(out, 0, 8); // size_bytes, known at the end
    put(out, (uint64_t)sample, 4);
    put(out, (uint64_t)t->n_tok, 4);
    put(out, (uint64_t)t->k, 4);
    put(out, (uint64_t)t->n_temperature, 2);
    put(out, id_bytes, 2);
    buf_put(out, spec->temperature, sizeof(float) * (size_t)t->n_temperature);
    buf_put(out, id, id_bytes);
    pad(out, start);
    if (spec->kind == TARGETS_TOPK) {
        buf_put(out, t->ids, rows * (size_t)t->k * 4);
        buf_put(out, t->logprob, rows * (size_t)t->k * 4);
        buf_put(out, t->tail_logprob, rows * 4);
    } else {
        TRY(put_sampled(out, t, start, err));
    }
    buf_put(out, t->log_z, rows * (size_t)t->n_temperature * 4);
    uint64_t size = out->size - start + 4;
    memcpy(out->data + start + 8, &size, 8);
    put(out, crc32c(0, out->data + start, (size_t)size - 4), 4);
    return ST_OK;
}

static enum status damaged(const char *where, uint64_t at, const char *what, struct err *err)
{
    return err_set(err, ST_FAIL, "%s: the frame at byte %llu is damaged: %s", where, (unsigned long long)at, what);
}

enum status frame_check(struct frame_head *h, const uint8_t *f, uint64_t size, const char *where, uint64_t at, struct err *err)
{
    if (size < FRAME_HEAD + 4 || memcmp(f, MAGIC, 4) != 0) return damaged(where, at, "it does not begin with DSTF", err);
    unsigned version = (unsigned)get(f + 4, 2);
    bool crc_ok = crc32c(0, f, (size_t)size - 4) == get(f + size - 4, 4);
    if (version > FRAME_VERSION && crc_ok)
        return err_set(err, ST_BAD_INPUT,
                       "%s: the frame at byte %llu is of version %u; this distill reads frames up to version %d: take a newer distill",
                       where, (unsigned long long)at, version, FRAME_VERSION);
    if (!crc_ok) return damaged(where, at, "its CRC does not match", err);
    *h = (struct frame_head){.kind = f[6],
                             .codec = f[7],
                             .size_bytes = get(f + 8, 8),
                             .sample = (uint32_t)get(f + 16, 4),
                             .n_tok = (uint32_t)get(f + 20, 4),
                             .k = (uint32_t)get(f + 24, 4),
                             .n_temperature = (int)get(f + 28, 2),
                             .id_bytes = (size_t)get(f + 30, 2)};
    if (h->size_bytes != size) return damaged(where, at, "its length differs from what its line says", err);
    if ((h->kind != TARGETS_TOPK && h->kind != TARGETS_SAMPLED) || h->codec != CODEC_RAW)
        return err_set(err, ST_BAD_INPUT,
                       "%s: the frame at byte %llu is of kind %d, codec %d; this distill does not know them: take a newer distill", where,
                       (unsigned long long)at, h->kind, h->codec);
    if (h->n_temperature > 8) return damaged(where, at, "more than 8 temperatures", err);
    size_t id_at = FRAME_HEAD + 4 * (size_t)h->n_temperature;
    h->payload = (id_at + h->id_bytes + 3) / 4 * 4;
    if (h->payload + 4 > size) return damaged(where, at, "its head is longer than itself", err);
    memcpy(h->temperature, f + FRAME_HEAD, 4 * (size_t)h->n_temperature);
    h->id = (const char *)f + id_at;
    return ST_OK;
}

static enum status get_sampled(struct targets *t, const uint8_t *p, const uint8_t *end, const char *where, uint64_t at, struct err *err)
{
    const uint8_t *n_row = p;
    size_t rows = (size_t)t->n_tok, k = (size_t)t->k, n = 0;
    size_t ids_at = (2 * rows + 3) / 4 * 4;
    for (size_t r = 0; r < rows; r++) {
        size_t n_here = (size_t)get(n_row + 2 * r, 2);
        if (n_here > k) return damaged(where, at, "a row with more ids than draws", err);
        n += n_here;
    }
    size_t size = ids_at + (6 * n + 3) / 4 * 4 + 4 * rows * (size_t)t->n_temperature;
    if ((size_t)(end - p) != size) return damaged(where, at, "its payload has a wrong length", err);
    const uint8_t *ids = p + ids_at, *counts = ids + 4 * n;
    for (size_t r = 0; r < rows; r++) {
        size_t n_here = (size_t)get(n_row + 2 * r, 2);
        for (size_t i = 0; i < k; i++) {
            t->ids[r * k + i] = i < n_here ? (int32_t)get(ids + 4 * i, 4) : -1;
            t->count[r * k + i] = i < n_here ? (int32_t)get(counts + 2 * i, 2) : 0;
        }
        ids += 4 * n_here;
        counts += 2 * n_here;
    }
    memcpy(t->log_z, p + size - 4 * rows * (size_t)t->n_temperature, 4 * rows * (size_t)t->n_temperature);
    return ST_OK;
}

enum status frame_decode(struct targets *t, const struct frame_head *h, const uint8_t *frame, const char *where, uint64_t at,
                         struct err *err)
{
    *t = (struct targets){0};
    const uint8_t *p = frame + h->payload, *end = frame + h->size_bytes - 4;
    uint64_t left = (uint64_t)(end - p), rows = h->n_tok, k = h->k;
    struct targets_spec spec = {.kind = (enum targets_kind)h->kind, .k = (int)h->k, .n_temperature = h->n_temperature};
    // Lengths before memory: the numbers of a lying head must not make us allocate.
    bool fits = k <= 1 << 24 && rows <= INT32_MAX;
    if (h->kind == TARGETS_TOPK)
        fits = fits && rows <= left && left == rows * (8 * k + 4 + 4 * (uint64_t)h->n_temperature);
    else
        fits = fits && k <= 65535 && rows <= left / 2;
    if (!fits) return damaged(where, at, "its payload has a wrong length", err);
    targets_alloc(t, &spec, (int)rows);
    if (h->kind == TARGETS_SAMPLED) {
        enum status st = get_sampled(t, p, end, where, at, err);
        if (st) targets_free(t);
        return st;
    }
    memcpy(t->ids, p, rows * k * 4), p += rows * k * 4;
    memcpy(t->logprob, p, rows * k * 4), p += rows * k * 4;
    memcpy(t->tail_logprob, p, rows * 4), p += rows * 4;
    memcpy(t->log_z, p, rows * 4 * (uint64_t)h->n_temperature);
    return ST_OK;
}
