// The tokenizer of a GGUF file as it stands, of both kinds. What was accepted is exported and read again: it must give the same ids, for
// texts made of its own tokens, too.
#include "datasets/tokenizer/gguf.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void put_text(struct buf *text, const struct tokenizer *t)
{
    struct err err = {0};
    const int32_t n = tokenizer_n_vocab(t) < 600 ? tokenizer_n_vocab(t) : 600;
    static const char fixed[] = " a  b\n<s>\xE2\x96\x81\xC3\xA9 aa ab abab 12";
    buf_put(text, fixed, sizeof fixed - 1);
    for (int32_t id = 0; id < n; id++) {
        size_t begin = text->size;
        if (tokenizer_decode(t, &id, 1, false, text, &err)) err = (struct err){0};
        json_t *good = utf8_json(text->data + begin, text->size - begin); // a byte alone is no text
        text->size = begin;
        if (json_string_length(good) < 100) buf_put(text, json_string_value(good), json_string_length(good));
        json_decref(good);
    }
}

static void compare(const struct tokenizer *a, const struct tokenizer *b)
{
    struct err err = {0};
    struct buf text = {0}, back = {0}, back2 = {0};
    struct ids x = {0}, y = {0};
    put_text(&text, a);
    FUZZ_CHECK(tokenizer_encode(a, text.data, text.size, &x, &err) == ST_OK);
    FUZZ_CHECK(tokenizer_encode(b, text.data, text.size, &y, &err) == ST_OK);
    FUZZ_CHECK(x.n == y.n && (!x.n || !memcmp(x.v, y.v, x.n * sizeof *x.v)));
    FUZZ_CHECK(tokenizer_decode(a, x.v, x.n, false, &back, &err) == ST_OK);
    FUZZ_CHECK(tokenizer_decode(b, x.v, x.n, false, &back2, &err) == ST_OK);
    FUZZ_CHECK(back.size == back2.size && (!back.size || !memcmp(back.data, back2.data, back.size)));
    ids_free(&x);
    ids_free(&y);
    buf_free(&text);
    buf_free(&back);
    buf_free(&back2);
}

static bool export(const char *path, const char *file, int32_t n_vocab)
{
    struct err err = {0};
    struct gguf_writer *w;
    const char *note;
    FUZZ_CHECK(gguf_create(&w, file, &err) == ST_OK);
    if (!fuzz_ok(gguf_put_tokenizer(w, path, n_vocab, -1, NULL, 0, &note, &err), &err)) {
        gguf_abort(w);
        return false;
    }
    FUZZ_CHECK(gguf_begin(w, &err) == ST_OK && gguf_finish(w, &err) == ST_OK);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct tokenizer *t, *again;
    const char *path = fuzz_put("model.gguf", (struct part){data, size}), *file = fuzz_path("again.gguf");
    if (!fuzz_ok(tokenizer_load(&t, path, &err), &err)) return 0;
    if (export(path, file, tokenizer_n_vocab(t))) {
        FUZZ_CHECK(tokenizer_load(&again, file, &err) == ST_OK);
        compare(t, again);
        tokenizer_free(again);
    }
    tokenizer_free(t);
    return 0;
}
