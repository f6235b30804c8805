// The tokenizer of a Hugging Face directory: tokenizer.json as the tokenizers library defines it, byte-level BPE with its regexes.
//
// Text goes through: added tokens cut out first (longest of the leftmost, with lstrip/rstrip/single_word/normalized), normalizer,
// pre-tokenizer (each step works on the pieces of the step before), BPE by lowest merge rank over bytes (ByteLevel) or over characters with
// bytes to fall back on. Back through the decoder. A byte-level tokenizer without a normalizer never loses a byte: decode(encode(s)) == s
// for every UTF-8 string s, U+0000 included. Every part of the file that is not known is refused by name.
#pragma once
#include "kernels/base/json.h"

struct tokenizer; // opaque; immutable once loaded, so threads may share it

// Reads DIR/tokenizer.json and what may stand beside it (tokenizer_config.json, special_tokens_map.json, added_tokens.json,
// chat_template.jinja, additional_chat_templates/), or the keys of a GGUF file at that path (gguf.h). Caller frees with tokenizer_free.
enum status tokenizer_load(struct tokenizer **out, const char *dir, struct err *err);
// What tokenizer_load reads from a directory, from anywhere else (a GGUF file's metadata). All of it is borrowed for the call, but a
// reference to config is kept.
struct tokenizer_source {
    const json_t *tokenizer; // tokenizer.json's content
    const json_t *config;    // tokenizer_config.json's, with what the other files say in it; NULL: none
    const char *where;       // names the source in messages
    const char *sha256;      // 64 hex digits: the identity that tokenizer_sha256 gives back
};
enum status tokenizer_from_json(struct tokenizer **out, const struct tokenizer_source *src, struct err *err);
void tokenizer_free(struct tokenizer *t);

struct ids { // token ids that grow; zero-initialise
    int32_t *v;
    size_t n, cap;
};
void ids_push(struct ids *a, int32_t id);
bool ids_add(struct ids *a, int32_t id); // pushes it unless it is there; false: it is
void ids_append(struct ids *a, const int32_t *v, size_t n);
void ids_free(struct ids *a);

// Appends the ids of n bytes of UTF-8 to *out. Added tokens are recognised; nothing is added around. ST_BAD_INPUT on invalid UTF-8.
enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, struct ids *out, struct err *err);
// Appends the bytes of the ids to *out, special tokens kept unless skip_special. ST_BAD_INPUT names an id outside the vocabulary.
enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *out, struct err *err);

// Text piece by piece as its ids come, for a screen: never half a character. All pieces together are what tokenizer_decode gives, with
// U+FFFD for each broken character. After decode_stream_end only free it.
struct decode_stream;
struct decode_stream *decode_stream_new(const struct tokenizer *t, bool skip_special);
enum status decode_stream_put(struct decode_stream *d, int32_t id, struct buf *out, struct err *err); // appends what is certain by now
void decode_stream_end(struct decode_stream *d, struct buf *out);                                     // appends the rest
void decode_stream_free(struct decode_stream *d);

// Appends ids with what the file's post-processor puts around one text (a BOS, say). Chat templates write theirs themselves.
void tokenizer_add_special(const struct tokenizer *t, const int32_t *ids, size_t n, struct ids *out);

int32_t tokenizer_n_vocab(const struct tokenizer *t);               // largest id + 1, added tokens included
int32_t tokenizer_id(const struct tokenizer *t, const char *token); // of a whole token (added or vocabulary), -1 if none
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
int32_t tokenizer_eos(const struct tokenizer *t); // tokenizer_config.json's eos_token, -1 if none
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);
const char *tokenizer_chat_template(const struct tokenizer *t); // text of the only one, or of "default" among several; NULL if none
const char *tokenizer_tool_template(const struct tokenizer *t); // text of "tool_use" among several, for requests with tools; else NULL
char *tokenizer_template_names(const struct tokenizer *t);      // "default, tool_use"; NULL: no template. mem_free it
const json_t *tokenizer_config(const struct tokenizer *t);      // what the files beside tokenizer.json say, NULL if none (borrowed)
// The identity: of tokenizer.json, and of the added tokens that the files beside it change. Two models share a vocabulary iff it is equal.
const char *tokenizer_sha256(const struct tokenizer *t);

// Decoded bytes as a JSON string (caller's): what is not UTF-8 becomes U+FFFD, one for each broken character (a model may stop inside one).
json_t *utf8_json(const char *s, size_t n);
