// JSONL as users write it: prompts and tasks, training rows through the shipped tokenizer and template, answers and their verification.
#include "datasets/rows.h"

#include "datasets/jsonl.h"
#include "datasets/verify/verify.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static struct tokenizer *tokenizer;
static struct chat *chat;

static void read_prompts(const char *path)
{
    struct prompts p;
    struct err err = {0};
    for (int skip = 0; skip < 2; skip++) {
        if (!fuzz_ok(prompts_load(&p, path, skip ? 0 : 3, skip, &err), &err)) continue;
        FUZZ_CHECK(skip || p.n <= 3);
        for (size_t i = 0; i < p.n; i++) {
            FUZZ_CHECK(p.v[i].id[0] && json_is_array(p.v[i].messages) && p.v[i].line > 0);
            struct buf text = {0};
            struct ids ids = {0};
            json_t *request = json_pack("{s:O, s:b}", "messages", p.v[i].messages, "add_generation_prompt", 1);
            fuzz_ok(chat_render(chat, request, &text, &ids, &err), &err);
            json_decref(request);
            json_decref(chat_split_reasoning(text.data ? text.data : "", text.size, skip));
            struct verdict v;
            for (int k = 0; p.v[i].answer && verifiers[k]; k++) {
                verifiers[k]->judge(&v, text.data ? text.data : "", p.v[i].answer);
                verifiers[k]->judge(&v, p.v[i].answer, p.v[i].answer);
                FUZZ_CHECK(memchr(v.extracted, 0, sizeof v.extracted));
            }
            buf_free(&text);
            ids_free(&ids);
        }
        prompts_free(&p);
    }
}

static void read_rows(const char *path)
{
    struct rows r;
    struct err err = {0};
    struct rows_options o = {
        .max_len = 64, .n_vocab = tokenizer_n_vocab(tokenizer), .tokenizer = tokenizer, .chat = chat, .skip_bad = true};
    if (!fuzz_ok(rows_load(&r, path, &o, &err), &err)) return;
    for (size_t i = 0; i < r.n; i++) FUZZ_CHECK(r.v[i].n_tok > 0 && r.v[i].n_tok <= 64 && r.v[i].n_loss < r.v[i].n_tok);
    rows_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    if (!tokenizer) {
        FUZZ_CHECK(fuzz_ok(tokenizer_load(&tokenizer, "teacher/tiny/base", &err), &err));
        FUZZ_CHECK(fuzz_ok(chat_open(&chat, tokenizer, &err), &err));
    }
    const char *path = fuzz_put("rows.jsonl", (struct part){data, size});
    read_prompts(path);
    read_rows(path);
    return 0;
}
