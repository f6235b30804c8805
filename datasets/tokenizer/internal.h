// What the parts of the tokenizer share. Text flows: added.c cuts added tokens out, normalizer.c rewrites the gaps, pretokenizer.c splits
// them into pieces, bpe.c turns each piece into ids. Everything here is built by tokenizer_load and only read afterwards.
#pragma once
#include "datasets/tokenizer/tokenizer.h"

// ---- charset.c: sets of code points, from unicode_table.inc (Hugging Face's Unicode, not the installed libraries') -------------------
enum {
    CHAR_SPACE = 1,
    CHAR_WORD = 2,
    CHAR_HAN = 4,
    CHAR_NFC_UNSAFE = 8,
    CHAR_BARRIER = 16, // no normal form changes it or moves anything past it
    CHAR_RUST_WORD = 32,
    CHAR_NUMERIC = 64,
    CHAR_PUNCTUATION = 128
};
uint32_t char_bits(uint32_t c);
uint32_t char_lower(uint32_t c); // U+0130's is two characters: its own here
struct charset {                 // sorted, disjoint, not touching, bounds included
    struct char_range {
        uint32_t lo, hi;
    } * v;
    size_t n, cap;
};
void charset_free(struct charset *s);
void charset_add(struct charset *s, uint32_t lo, uint32_t hi); // any order; normalised by charset_norm
void charset_norm(struct charset *s);
void charset_add_set(struct charset *s, const struct charset *other);
void charset_invert(struct charset *s);
void charset_intersect(struct charset *s, const struct charset *other);
bool charset_has(const struct charset *s, uint32_t c);
// Adds a property by its name in \p{…} ("L", "Lu", "Han", "White_Space", …); false if the name is not known.
bool charset_add_property(struct charset *s, const char *name);
void charset_add_bits(struct charset *s, uint32_t bits); // what has any of these CHAR_ bits
bool charset_equal(const struct charset *a, const struct charset *b);

// ---- utf8.c --------------------------------------------------------------------------------------------------------------------------
// Offset of the first byte that is not valid UTF-8 (overlong forms and surrogates are not valid), n if all is well.
size_t utf8_check(const char *s, size_t n);
// Reads one code point of valid UTF-8 and its length.
static inline uint32_t utf8_get(const char *p, size_t *len)
{
    const uint8_t *s = (const uint8_t *)p;
    if (s[0] < 0x80) return *len = 1, s[0];
    if (s[0] < 0xE0) return *len = 2, (uint32_t)(s[0] & 31) << 6 | (s[1] & 63);
    if (s[0] < 0xF0) return *len = 3, (uint32_t)(s[0] & 15) << 12 | (uint32_t)(s[1] & 63) << 6 | (s[2] & 63);
    return *len = 4, (uint32_t)(s[0] & 7) << 18 | (uint32_t)(s[1] & 63) << 12 | (uint32_t)(s[2] & 63) << 6 | (s[3] & 63);
}
static inline size_t utf8_len(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}
size_t utf8_put(char *out, uint32_t c); // bytes written, at most 4
// Appends s with U+FFFD for each broken character. With more, a character that s may only have cut off is left: returns the bytes used.
size_t utf8_mend(struct buf *out, const char *s, size_t n, bool more);
bool utf8_unfinished(const char *s, size_t n); // s ends within a character that more bytes could complete

// ---- regex.c: the patterns of all Splits (and of each Replace by itself), run over one byte a character
// --------------------------------------------------------------- Every set of characters that any pattern names is cut into atoms (classes
// of code points that no pattern tells apart). ASCII stands for itself; other characters become one byte >= 0x80 each. The patterns are
// rewritten over those bytes and run by PCRE2 without UTF: fast, and independent of PCRE2's own Unicode tables.
struct regexes;
struct regexes *regexes_new(void);
void regexes_free(struct regexes *r);
// Adds a pattern and returns its number, -1 with err filled if it uses what is not known.
int regexes_add(struct regexes *r, const char *pattern, size_t n, const char *where, struct err *err);
// The same for the library's own patterns, of pre-tokenizers that go by Rust's tables: \w, \p{N} and \p{P} mean CHAR_RUST_WORD,
// CHAR_NUMERIC and CHAR_PUNCTUATION.
int regexes_add_rust(struct regexes *r, const char *pattern, const char *where, struct err *err);
int regexes_add_literal(struct regexes *r, const char *text, size_t n, const char *where, struct err *err);
enum status regexes_compile(struct regexes *r, const char *where, struct err *err); // once, after all were added
// Rewrites n bytes of valid UTF-8 to one class byte a character; returns the number of characters.
size_t regexes_classes(const struct regexes *r, const char *text, size_t n, uint8_t *cls);
struct regex_match; // PCRE2's scratch, one a thread
struct regex_match *regex_match_new(void);
void regex_match_free(struct regex_match *m);
struct regex_walk { // zero-initialise
    size_t lo, hi;  // of the match found, in characters
    size_t from, last_end;
    bool any;
};
// The next match: 1 and its bounds, 0 none, -1 the engine gave up (a pathological pattern). An empty match right after a match is passed
// over, as Hugging Face's library does.
int regex_next(const struct regexes *r, int number, struct regex_match *m, const uint8_t *cls, size_t n_char, struct regex_walk *w);

// ---- tokenizer.c: what all parts share -------------------------------------------------------------------------------------------------
// The parts of a Sequence and of those within it in order, or the one part that spec is, or none for null: a new array of objects that have
// a "type". part and members are the file's names ("pre_tokenizer", "pretokenizers").
enum status part_list(json_t **list, const json_t *spec, const char *part, const char *members, const char *where, struct err *err);
static inline const char *part_type(const json_t *part)
{
    return json_string_value(json_object_get(part, "type"));
}

// ---- scan.c: the vocabulary and merges of the file, as text --------------------------------------------------------------------------
enum { BPE_MAX_ID = 1 << 24 }; // far above any real vocabulary: a lying file must not make us reserve gigabytes
struct bpe_text {              // zero-initialise
    struct buf pool;
    struct bpe_token {
        uint32_t at, n; // in the pool
        int32_t id;
    } * token;
    struct bpe_merge {
        uint32_t at, n_left, n_right; // the right part follows the left one in the pool
    } * merge;
    size_t n_token, cap_token, n_merge, cap_merge;
};
// Reads "model"."vocab" and "model"."merges" out of a tokenizer.json; rest gets the file with {} and [] in their places. False: the scanner
// does not understand this file, which may be broken or only unusual: read it as JSON.
bool bpe_text_scan(struct bpe_text *out, struct buf *rest, const char *text, size_t n);
enum status bpe_text_json(struct bpe_text *out, const json_t *vocab, const json_t *merges, const char *where, struct err *err);
void bpe_text_free(struct bpe_text *x);

// ---- vocab.c: tokens, ids, merges ------------------------------------------------------------------------------------------------------
struct merge {
    uint64_t pair; // left << 32 | right; MERGE_EMPTY
    uint32_t rank;
    int32_t id;
};
#define MERGE_EMPTY UINT64_MAX
struct vocab {
    bool byte_level; // tokens are stored as the bytes that they stand for
    bool ignore_merges, fuse_unk, byte_fallback;
    int32_t unk; // -1 none
    int32_t n;   // largest id of the model's vocabulary + 1
    char *pool;
    uint32_t *begin, *size; // (n) of token id in pool
    uint8_t *present;       // (n) an id may be missing
    uint8_t *foreign;       // (n) byte-level only: the token holds characters outside the byte alphabet, so BPE never makes it
    int32_t *slot;          // hash of tokens to ids, -1 empty
    uint32_t slot_mask;
    struct merge *merge;
    uint32_t merge_mask;
    int32_t byte_id[256]; // -1: no token for that byte
    // Whether BPE makes of a token's own bytes just that token: 0 not known yet, 1 yes, 2 no. Filled as texts come; every thread would
    // write the same value, and does so with relaxed atomics, so the tokenizer stays shareable.
    uint8_t *whole;
};
// text: the model's vocab and merges where model has only empty ones; NULL: model has them.
enum status vocab_load(struct vocab *v, const json_t *model, const struct bpe_text *text, bool byte_level, const char *where,
                       struct err *err);
void vocab_free(struct vocab *v);
int32_t vocab_find(const struct vocab *v, const char *bytes, size_t n);
int32_t vocab_find_foreign(const struct vocab *v, const char *content, size_t n);
int32_t vocab_token(const struct vocab *v, const char *token, size_t n); // the id of a token as the file spells it, -1 if it is none
uint32_t hash_bytes(const char *s, size_t n);
// The GPT-2 alphabet: bytes to printable characters. byte_of_char returns -1 outside it.
int byte_of_char(uint32_t c);
uint32_t char_of_byte(uint8_t b);
// Text of byte-level tokens to bytes; false if a character is outside the alphabet.
bool byte_level_decode(const char *s, size_t n, char *out, size_t *n_out);
static inline const struct merge *merge_find(const struct vocab *v, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint32_t i = (uint32_t)(pair * 0x9E3779B97F4A7C15u >> 32) & v->merge_mask;; i = (i + 1) & v->merge_mask) {
        if (v->merge[i].pair == pair) return &v->merge[i];
        if (v->merge[i].pair == MERGE_EMPTY) return NULL;
    }
}

// ---- bpe.c -----------------------------------------------------------------------------------------------------------------------------
struct bpe_scratch { // grows to the longest piece
    struct bpe_symbol {
        int32_t id;
        int32_t prev, next;
        uint32_t end; // byte offset in the piece where the symbol ends
    } * sym;
    size_t cap_sym;
    struct bpe_bucket { // all places in the piece where one merge may be done
        uint32_t rank;
        int32_t left, right, id;
        uint32_t slot;        // its own
        uint32_t first, last; // of its list in node, in order; when empty the bucket is not in the heap
    } * bucket;
    struct bpe_node {
        uint32_t pos, next;
    } * node;
    uint32_t *slot; // hash of ranks to buckets
    uint32_t *heap; // of buckets, the lowest rank on top
    uint64_t *late; // a heap of rank << 32 | place, for what comes out of order
    size_t n_bucket, cap_bucket, n_node, cap_node, n_heap, n_late, cap_late;
    uint32_t free_node, slot_mask;
};
void bpe_scratch_free(struct bpe_scratch *s);
// Appends the ids of a piece; with ends, also where in the piece each token ends. What has no token becomes unk, or nothing if there is
// none (as in Hugging Face's library).
void bpe_encode(const struct vocab *v, struct bpe_scratch *s, const char *piece, size_t n, struct ids *out, struct buf *ends);

// ---- normalizer.c ----------------------------------------------------------------------------------------------------------------------
struct normalizer; // a list of steps, NULL for none
enum status normalizer_load(struct normalizer **out, const json_t *spec, const char *where, struct err *err);
void normalizer_free(struct normalizer *z);
struct norm_point {
    size_t norm, orig; // offsets that correspond; between two points text was copied or belongs to the later point as a whole
};
struct normalized {
    struct buf text;
    struct norm_point *map;
    size_t n_map, cap_map;
};
// Returns false when the text stays as it is (out untouched). With want_map, out->map says where the parts came from.
bool normalizer_run(const struct normalizer *z, const char *s, size_t n, struct normalized *out);
size_t normalized_orig(const struct normalized *z, size_t norm); // the end of the original text that made text[0..norm)
void normalized_free(struct normalized *z);

// ---- pretokenizer.c --------------------------------------------------------------------------------------------------------------------
struct encoder { // one call of tokenizer_encode
    const struct tokenizer *t;
    struct bpe_scratch bpe;
    struct regex_match *match;
    struct ids *out;
    struct buf *ends;              // NULL, or size_t for each token: where its text ends in the original
    const char *text;              // of the section in hand, normalized
    const struct normalized *norm; // of that section, NULL if its text is the original's
    size_t section;                // offset of the section in the original text
    struct buf piece_ends;         // scratch: uint32_t a token, offset in the piece
    struct err *err;
};
struct piece {
    const char *s;
    size_t n;
    const uint8_t *cls; // NULL when no step uses a regex
    size_t n_char;
    size_t base;   // offset of s in the section's normalized text
    size_t pre;    // bytes at the start of s that are not in that text (a prefix space)
    bool respaced; // characters of s may be spaces there
};
struct piece_walk { // a place in a piece and in the section's normalized text; starts as {0, piece->base}
    size_t at, base;
};
// Where the piece's first `at` bytes end in the section's normalized text. Calls for one walk go forward.
size_t piece_base(const struct encoder *e, const struct piece *p, struct piece_walk *w, size_t at);
struct pretokenizer;
enum status pretokenizer_load(struct pretokenizer **out, struct regexes *re, const json_t *spec, bool *byte_level, const char *where,
                              struct err *err);
// The replacement of a Metaspace (U+2581 unless it says otherwise) into out[4].
enum status metaspace_character(const json_t *spec, const char *part, char *out, size_t *n, const char *where, struct err *err);
void pretokenizer_free(struct pretokenizer *p);
bool pretokenizer_uses_regex(const struct pretokenizer *p);
enum status pretokenizer_run(const struct pretokenizer *p, struct encoder *e, const struct piece *piece);
enum status encode_piece(struct encoder *e, const struct piece *piece); // tokenizer.c: the last step, BPE

// ---- decoder.c -------------------------------------------------------------------------------------------------------------------------
struct decoder; // the steps from tokens to text
enum status decoder_load(struct decoder **out, const json_t *spec, bool byte_level, const char *where, struct err *err);
void decoder_free(struct decoder *d);
struct decoding; // one text on its way through them
struct decoding *decoding_new(const struct decoder *d);
void decoding_put(struct decoding *g, const char *token, size_t n, struct buf *out); // appends what is certain by now
void decoding_end(struct decoding *g, struct buf *out);
void decoding_free(struct decoding *g);

// ---- processor.c -----------------------------------------------------------------------------------------------------------------------
// Reads the post-processor into ids with -1 where the text's own stand; none when it adds nothing.
enum status processor_load(struct ids *out, const json_t *spec, const char *where, struct err *err);

// ---- added.c ---------------------------------------------------------------------------------------------------------------------------
struct added {
    int32_t id;
    char *content;
    size_t n;
    char *seen; // normalized tokens: what the normalizer makes of the content, which is what text is searched for and what is decoded
    size_t n_seen;
    bool single_word, lstrip, rstrip, normalized, special;
    bool once_normalized; // decoded so, whatever its flags became
    bool skipped;         // when special tokens are left out of decoded text
};
struct trie { // matches the longest of the added tokens at a position
    struct trie_node {
        int32_t child, sibling; // -1 none
        int32_t token;          // index into the added tokens, -1 none
        uint8_t byte;
    } * node;
    size_t n, cap;
    int32_t root[256]; // node of each first byte
};
void trie_init(struct trie *t);
void trie_add(struct trie *t, const char *s, size_t n, int32_t token);
int32_t trie_find(const struct trie *t, const char *s, size_t n); // the token of just these bytes, -1 none
void trie_free(struct trie *t);
struct tokenizer;
// First all tokens are put, then added_finish prepares them to be found.
enum status added_load(struct tokenizer *t, const json_t *list, const char *where, struct err *err); // tokenizer.json's
struct added added_read(const json_t *object, bool special); // all but the id; content is the object's. special: if the object does not say
bool added_same(const struct added *a, const struct added *b); // in their flags
// Puts a copy. A token of the same content keeps its id and gets the new flags, but is special and decoded as normalized if it ever was
// said to be, as in Hugging Face's library. False: nothing changed.
bool added_put(struct tokenizer *t, struct added a);
enum status added_finish(struct tokenizer *t, const char *where, struct err *err);
struct added_match {
    size_t lo, hi;
    int32_t token; // index into the added tokens
};
// The next added token in s at or after *pos; `done` is where the text already given out ends. Advances *pos. False: none is left.
bool added_find(const struct trie *t, const struct added *tokens, const char *s, size_t n, size_t *pos, size_t done, struct added_match *m);

struct tokenizer {
    struct added *added;
    size_t n_added, cap_added;
    struct trie contents;        // of all added tokens
    struct trie raw, normalized; // tokens looked for before and after the normalizer
    int32_t *added_of;           // id to index into added, -1 if not an added token; (n_vocab)
    struct normalizer *normalizer;
    struct regexes *regexes;
    struct pretokenizer *pre;
    struct decoder *decoder;
    struct ids processor; // see processor_load
    struct vocab vocab;
    int32_t n_vocab, bos, eos, pad;
    json_t *config;
    json_t *templates; // texts by name, one alone as "default"; NULL: none
    char sha256[65];
};

// The token of an id as the decoder takes it (bytes of a byte-level token as they are). False: there is no such id.
bool tokenizer_piece(const struct tokenizer *t, int32_t id, const char **s, size_t *n, bool *special);

// ---- config.c --------------------------------------------------------------------------------------------------------------------------
// Reads what stands beside DIR's tokenizer.json into one object, as transformers puts it together: tokenizer_config.json; the members of
// special_tokens_map.json over it and, under its own name as an array of tokens, what added_tokens.json has, unless there is an
// added_tokens_decoder; the texts of chat_template.jinja (as "default") and additional_chat_templates/NAME.jinja in place of its
// chat_template. NULL: there is nothing. The caller's.
enum status config_read(const char *dir, json_t **config, struct err *err);
// Puts the added tokens that the config knows: those of added_tokens_decoder or added_tokens.json, and the special ones by role that the
// vocabulary has. Appends what that changed to *changes.
enum status config_put_added(struct tokenizer *t, const json_t *config, const char *where, struct buf *changes, struct err *err);
// Takes a reference to config (may be NULL), and from it the special tokens by role and the chat templates.
void config_apply(struct tokenizer *t, const json_t *config);

// tokenizer_encode that also tells, for each token, where in the text its bytes end (size_t a token appended to ends, which may be NULL).
enum status tokenizer_encode_ends(const struct tokenizer *t, const char *text, size_t n, struct ids *out, struct buf *ends,
                                  struct err *err);
