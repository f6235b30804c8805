// tokenizer.json, and as a second part a text: the tokenizer that was loaded encodes it, and its ids are decoded. What was loaded must be
// JSON, whoever read it.
#include "datasets/tokenizer/tokenizer.h"

#include "tests/fuzz/fuzz.h"

#include <string.h>

static void use(const struct tokenizer *t, struct part text)
{
    struct err err = {0};
    struct ids ids = {0};
    struct buf out = {0};
    if (fuzz_ok(tokenizer_encode(t, (const char *)text.p, text.n, &ids, &err), &err)) {
        for (size_t i = 0; i < ids.n; i++) FUZZ_CHECK(ids.v[i] >= 0 && ids.v[i] < tokenizer_n_vocab(t));
        FUZZ_CHECK(fuzz_ok(tokenizer_decode(t, ids.v, ids.n, false, &out, &err), &err));
        json_decref(utf8_json(out.data ? out.data : "", out.size));
    }
    buf_free(&out);
    ids_free(&ids);
    for (int32_t id = -1; id < 300; id++) {
        if (tokenizer_decode(t, &id, 1, true, &out, &err)) FUZZ_CHECK(err.text[0]);
        tokenizer_is_special(t, id);
    }
    buf_free(&out);
    tokenizer_id(t, "<s>");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char some[] = "Hello, world! It's 12345 \xC3\xA9\xE2\x82\xAC\xF0\x9F\x8D\x8E\n\n <s>a</s>";
    struct part p[2];
    struct tokenizer *t;
    struct err err = {0};
    if (fuzz_parts(p, 2, data, size) == 1) p[1] = (struct part){(const uint8_t *)some, sizeof some - 1};
    fuzz_put("tokenizer.json", p[0]);
    if (!fuzz_ok(tokenizer_load(&t, fuzz_dir(), &err), &err)) return 0;
    json_t *root = NULL;
    FUZZ_CHECK(fuzz_ok(json_parse(&root, (const char *)p[0].p, p[0].n, "tokenizer.json", 0, &err), &err));
    json_decref(root);
    use(t, p[1]);
    tokenizer_free(t);
    return 0;
}
