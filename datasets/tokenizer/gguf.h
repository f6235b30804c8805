// The tokenizer in the keys of a GGUF file, and a tokenizer's keys for one. Two kinds: byte-level BPE ("gpt2") and SentencePiece's BPE
// ("llama", gguf_parts.h). For the first GGUF names a pre-tokenizer instead of describing it; the table here says what each name that
// distill knows stands for, and only what a name stands for exactly is written or read.
//
// What GGUF cannot say: llama.cpp's "qwen2" does not bring text into NFC first, as Qwen's tokenizer.json asks for; we do when reading. An
// added token that looks like <|…|> is marked special there even if tokenizer.json says otherwise.
#pragma once
#include "datasets/tokenizer/tokenizer.h"
#include "kernels/base/gguf.h"

struct gguf_pre {
    const char *name; // tokenizer.ggml.pre
    bool nfc, ignore_merges;
    bool gpt2_regex;      // ByteLevel splits by its own expression
    const char *split[4]; // expressions of Splits, in order; NULL ends
};
extern const struct gguf_pre gguf_pres[]; // ends with {0}; the first of equals is the name that is written
// tokenizer.json's "normalizer" and "pre_tokenizer" for it. Caller's.
json_t *gguf_pre_normalizer(const struct gguf_pre *p);
json_t *gguf_pre_tokenizer(const struct gguf_pre *p);

// tokenizer.json and tokenizer_config.json as the keys amount to. Caller's. ST_BAD_INPUT names keys.
enum status gguf_tokenizer_json(json_t **tokenizer, json_t **config, const struct gguf *g, struct err *err);
// Our own key: tokenizer_sha256 of the tokenizer that was exported, so that stores and students know it again.
#define GGUF_TOKENIZER_SHA256 "distill.tokenizer.sha256"
// tokenizer_load for a GGUF file. Its identity (tokenizer_sha256) is the one under that key, else that of the tokenizer.json so made.
enum status tokenizer_load_gguf(struct tokenizer **out, const char *path, struct err *err);

// Declares the keys of the tokenizer of the model at `path`, a directory or a GGUF file. n_vocab: rows of the embedding; ids without a
// token become [PAD…]. bos (-1 none) and the n_eos ids that end a generation: of config.json; the tokenizer's own go first. GGUF has keys
// for three ends: eos, eot and eom. *note: a sentence on what llama.cpp does otherwise, or NULL. Refused by name: what has no exact form.
enum status gguf_put_tokenizer(struct gguf_writer *w, const char *path, int32_t n_vocab, int32_t bos, const int32_t *eos, int n_eos,
                               const char **note, struct err *err);
