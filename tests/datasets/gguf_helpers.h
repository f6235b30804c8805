// Tokenizers in GGUF files, as their suites write and read them.
#pragma once
#include "datasets/tokenizer/gguf.h"
#include "tests/test.h"

// The tokenizer.json `root` (stolen) with the JSON text `changes` over it, member by member, in a folder of its own. edit: what is done to
// the merges then, or NULL.
const char *tokenizer_folder(json_t *root, const char *changes, void (*edit)(json_t *merges));

// A file with the tokenizer of `dir` and nothing else; until the call after the next. *note as gguf_put_tokenizer.
const char *exported_tokenizer(const char *dir, int32_t n_vocab, const char **note);
// Its export is bad input, for a reason that says `part`.
void ck_export_refused(const char *dir, const char *part);

// Keys of tokenizer.ggml.*; what is NULL, empty or 0 is not there.
struct tokenizer_keys {
    const char *model, *pre;
    const char *scheme; // distill.tokenizer.prepend_scheme
    const struct gguf_text *tokens, *merges;
    const int32_t *types;
    const float *scores;
    size_t n_token, n_merge, n_type, n_score;
    uint32_t bos;
};
const char *file_of_keys(const struct tokenizer_keys *k); // until the call after the next
