// A trace store whose files are the input: manifest, lines, frames; as they stand, and with their checksums mended, which lets the fuzzer
// reach what stands behind them. Read whole, verified, then opened for writing and added to: what was added must be there afterwards.
#include "datasets/rows.h"
#include "datasets/store/internal.h"
#include "kernels/base/crc32c.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

// Puts right checksums at the ends of all lines, and of the frames they name.
static void mend(struct buf *lines, struct buf *frames)
{
    const size_t tail = LINE_TAIL - 1;
    char *p = lines->data, *end = lines->data + lines->size, *nl;
    for (; p < end && (nl = memchr(p, '\n', (size_t)(end - p))); p = nl + 1) {
        size_t n = (size_t)(nl - p);
        struct line_key key;
        if (n > tail) {
            char crc[LINE_TAIL];
            snprintf(crc, sizeof crc, ",\"crc32c\":\"%08x\"}", crc32c(0, p, n - tail));
            memcpy(p + n - tail, crc, tail);
        }
        if (!line_head(&key, p, n)) continue;
        if (key.frame_bytes >= 4 && key.frame_at <= frames->size && key.frame_bytes <= frames->size - key.frame_at) {
            char *frame = frames->data + key.frame_at;
            uint32_t crc = crc32c(0, frame, (size_t)key.frame_bytes - 4);
            memcpy(frame + key.frame_bytes - 4, &crc, 4);
        }
        mem_free(key.id);
    }
}

static void read_all(const char *dir)
{
    struct err err = {0};
    struct store *s;
    size_t n;
    uint64_t n_torn;
    fuzz_ok(store_verify(dir, &n, &n_torn, &err), &err);
    if (!fuzz_ok(store_open_read(&s, dir, &err), &err)) return;
    for (size_t i = 0; i < store_n_sample(s); i++) {
        struct sample x;
        struct targets t;
        if (!fuzz_ok(store_read(s, i, &x, &t, &err), &err)) continue;
        FUZZ_CHECK(x.finish_reason && x.id && x.n_tok >= 0 && x.n_prompt >= 0);
        FUZZ_CHECK(store_has(s, x.id, x.sample));
        sample_content(&x);
        sample_reasoning(&x);
        sample_free(&x);
        targets_free(&t);
    }
    FUZZ_CHECK(!store_close(s, &err));
    struct rows r;
    struct rows_options o = {.max_len = 64, .n_vocab = 1 << 20};
    if (!fuzz_ok(rows_load(&r, dir, &o, &err), &err)) return;
    for (size_t i = 0; i < r.n; i++) {
        struct targets t;
        if (r.source[0].spec.kind != TARGETS_NONE && fuzz_ok(rows_targets(&r, i, &t, &err), &err)) targets_free(&t);
    }
    rows_free(&r);
}

static void add_one(const char *dir)
{
    struct err err = {0};
    struct store *s;
    if (!fuzz_ok(store_open_read(&s, dir, &err), &err)) return;
    struct targets_spec spec = *store_spec(s);
    json_t *identity = json_deep_copy(json_object_get(store_manifest(s), "identity"));
    store_close(s, &err);
    if (spec.k <= 100 && fuzz_ok(store_open_write(&s, dir, identity, &spec, &err), &err)) {
        int32_t id = 1;
        struct sample x = {
            .id = "added by the fuzzer", .token_ids = &id, .n_tok = 1, .prompt_ids = &id, .n_prompt = 1, .finish_reason = "stop"};
        struct targets t;
        targets_alloc(&t, &spec, 1);
        for (int i = 0; t.count && i < spec.k; i++) t.ids[i] = i ? -1 : 7, t.count[i] = !i;
        bool had = store_has(s, x.id, 0);
        x.messages = json_pack("[{s:s, s:s}]", "role", "assistant", "content", "1");
        enum status st = store_append(s, &x, spec.kind == TARGETS_NONE ? NULL : &t, &err);
        FUZZ_CHECK(had ? st == ST_BAD_INPUT : st == ST_OK);
        FUZZ_CHECK(!store_close(s, &err));
        json_decref(x.messages);
        targets_free(&t);
        FUZZ_CHECK(!store_open_read(&s, dir, &err));
        FUZZ_CHECK(store_has(s, "added by the fuzzer", 0));
        FUZZ_CHECK(!store_close(s, &err));
    }
    json_decref(identity);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct part p[3] = {0};
    int n = fuzz_parts(p, 3, data, size);
    for (int mended = 0; mended < 2; mended++) {
        struct buf lines = {0}, frames = {0};
        buf_put(&lines, p[1].p, p[1].n);
        buf_put(&frames, p[2].p, p[2].n);
        if (mended) mend(&lines, &frames);
        fuzz_put("manifest.json", p[0]);
        if (n > 1) fuzz_put("traces-00000.jsonl", (struct part){(const uint8_t *)lines.data, lines.size});
        if (n > 2) fuzz_put("targets-00000.bin", (struct part){(const uint8_t *)frames.data, frames.size});
        read_all(fuzz_dir());
        if (mended) add_one(fuzz_dir());
        buf_free(&lines);
        buf_free(&frames);
        fuzz_drop("traces-00000.jsonl");
        fuzz_drop("targets-00000.bin");
        fuzz_drop("traces-00001.jsonl");
        fuzz_drop("targets-00001.bin");
    }
    return 0;
}
