// What the readers and writers of a tokenizer in GGUF share (gguf.h is what others use), and SentencePiece's BPE there.
//
// A file of tokenizer.ggml.model "llama" has a score for each token and no merges: neighbours are joined where their text together is a
// token, the highest score first. Hugging Face's BPE wants a list of merges; gguf_spm.c makes it as transformers does.
#pragma once
#include "datasets/tokenizer/gguf.h"
#include "datasets/tokenizer/internal.h"

enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED, TOKEN_BYTE };
#define SPM_SPACE "\xE2\x96\x81" // U+2581, what stands for a space
// Our own key: a Metaspace's prepend_scheme, "always" or "first". GGUF itself only knows whether a space is put in front.
#define GGUF_PREPEND_SCHEME "distill.tokenizer.prepend_scheme"

// The name of an id without a token. "<0x41>": the name of a byte.
bool gguf_is_padding(const char *s, size_t id);
bool gguf_is_byte_name(const char *s);
// An array of n items (0: any number) under a key; NULL and err added to otherwise.
json_t *gguf_want_array(const json_t *keys, const char *key, size_t n, const char *path, struct err *err);

// ---- gguf_spm.c ----
struct spm_merge {
    double score; // of the token made
    int32_t left, right, id;
    uint32_t n_left, n_right; // characters
};
// Four times Gemma's merges, and sixteen times their text: a lying file must not make us reserve gigabytes.
enum { SPM_MAX_MERGES = 1 << 21, SPM_MAX_MERGE_BYTES = 1 << 26 };
// All ways to make one of n tokens of two others, in the order of transformers' generate_merges: by score falling, then the longer left
// part, then the longer right part, then by id. Tokens without text make and are nothing; texts must differ. Caller frees *out.
enum status spm_merges(struct spm_merge **out, size_t *n_merge, const struct gguf_text *token, const double *score, size_t n,
                       const char *path, struct err *err);

// ---- gguf_spm_read.c ----
// Puts into keys what llama.cpp takes where a file does not say it, and checks the ids of the roles. n_token: ids there are.
enum status spm_defaults(json_t *keys, size_t n_token, const char *path, struct err *err);
// tokenizer.json for such keys. vocab, added: its parts made of the tokens. scheme: under GGUF_PREPEND_SCHEME, or NULL.
enum status spm_tokenizer_json(json_t **tokenizer, const json_t *keys, const char *scheme, json_t *vocab, json_t *added, const char *path,
                               struct err *err);

// ---- gguf_write.c ----
struct gguf_tokens {
    struct gguf_text *text; // (n)
    int32_t *type;          // (n) enum token_type
    int32_t n, unknown;     // unknown: the id of that role, -1 none
    json_t *pads;           // owns the text of [PAD…]
};
// A flag and a text of a part of tokenizer.json; the parts of a Sequence of Sequences, in order.
bool gguf_flag(const json_t *spec, const char *key, bool def);
bool gguf_text_is(const json_t *spec, const char *key, const char *wanted);
json_t *gguf_flatten(const json_t *spec, const char *members);

// ---- gguf_spm_write.c ----
// Whether a tokenizer.json is of this kind: BPE over characters that falls back on bytes.
bool spm_is(const json_t *root);
// Writes what such a tokenizer has beside tokens and types, and corrects the types. *note: what llama.cpp does otherwise, or NULL. Refused
// by name: what no scores say.
enum status spm_put(struct gguf_writer *w, const struct tokenizer *t, const json_t *root, struct gguf_tokens *tokens, const char **note,
                    const char *path, struct err *err);
