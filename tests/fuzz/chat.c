// tokenizer_config.json, with a tokenizer of bytes beside it, and as a second part rows of conversations: loaded, rendered, and masked for
// training. What the mask marks must be among the row's tokens.
#include "datasets/rows.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void read_rows(const struct tokenizer *t, const char *path)
{
    struct err why = {0}, err = {0};
    struct chat *chat = NULL;
    struct rows rows;
    fuzz_ok(chat_open(&chat, t, &why), &why);
    struct rows_options o = {.max_len = 200, .n_vocab = tokenizer_n_vocab(t), .tokenizer = t, .tokenizer_dir = "d", .chat = chat};
    o.chat_why = why.text;
    for (int skip = 0; skip < 2; skip++) {
        o.skip_bad = skip;
        if (!fuzz_ok(rows_load(&rows, path, &o, &err), &err)) continue;
        for (size_t i = 0; i < rows.n; i++) {
            FUZZ_CHECK(rows.v[i].n_tok > 0 && rows.v[i].n_tok <= 200 && !rows.v[i].mask[0]);
            FUZZ_CHECK(rows.v[i].n_loss >= 0 && rows.v[i].n_loss < rows.v[i].n_tok);
        }
        rows_free(&rows);
    }
    chat_free(chat);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char some[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"2+3?\"},{\"role\":\"assistant\",\"content\":\"5\"},"
                               "{\"role\":\"user\",\"content\":\"so\"},{\"role\":\"assistant\",\"content\":\"<think>a</think>b\"}]}\n";
    static bool ready;
    struct err err = {0};
    struct part p[2];
    struct tokenizer *t;
    if (!ready) FUZZ_CHECK(fuzz_ok(file_copy("tests/golden/text/byte_tokenizer.json", fuzz_path("tokenizer.json"), &err), &err));
    ready = true;
    if (fuzz_parts(p, 2, data, size) == 1) p[1] = (struct part){(const uint8_t *)some, sizeof some - 1};
    fuzz_put("tokenizer_config.json", p[0]);
    const char *rows = fuzz_put("rows.jsonl", p[1]);
    if (!fuzz_ok(tokenizer_load(&t, fuzz_dir(), &err), &err)) return 0;
    read_rows(t, rows);
    tokenizer_free(t);
    return 0;
}
