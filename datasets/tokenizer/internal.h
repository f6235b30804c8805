// What the parts of the tokenizer share. Text flows: added.c cuts added tokens out, normalizer.c rewrites the gaps, pretokenizer.c splits
// them into pieces, bpe.c turns each piece into ids. Everything here is built by tokenizer_load and only read afterwards.
#pragma once
#include "datasets/tokenizer/tokenizer.h"

// ---- charset.c: sets of code points, from unicode_table.inc (Hugging Face's Unicode, not the installed libraries') -------------------
enum { CHAR_SPACE = 1, CHAR_WORD = 2, CHAR_HAN = 4, CHAR_NFC_UNSAFE = 8, CHAR_NFC_BARRIER = 16 };
uint32_t char_bits(uint32_t c);
struct charset { // sorted, disjoint, not touching, bounds included
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

// ---- regex.c: the patterns of all Splits, run over one byte a character ---------------------------------------------------------------
// Every set of characters that any pattern names is cut into atoms (classes of code points that no pattern tells apart). ASCII stands for
// itself; other characters become one byte >= 0x80 each. The patterns are rewritten over those bytes and run by PCRE2 without UTF: fast,
// and independent of PCRE2's own Unicode tables.
struct regexes;
struct regexes *regexes_new(void);
void regexes_free(struct regexes *r);
// Adds a pattern and returns its number, -1 with err filled if it uses what is not known.
int regexes_add(struct regexes *r, const char *pattern, size_t n, const char *where, struct err *err);
int regexes_add_literal(struct regexes *r, const char *text, size_t n, const char *where, struct err *err);
enum status regexes_compile(struct regexes *r, const char *where, struct err *err); // once, after all were added
// Rewrites n bytes of valid UTF-8 to one class byte a character; returns the number of characters.
size_t regexes_classes(const struct regexes *r, const char *text, size_t n, uint8_t *cls);
struct regex_match; // PCRE2's scratch, one a thread
struct regex_match *regex_match_new(void);
void regex_match_free(struct regex_match *m);
// First match at or after `from`: 1 and its bounds (in characters), 0 none, -1 the engine gave up (a pathological pattern).
int regex_find(const struct regexes *r, int number, struct regex_match *m, const uint8_t *cls, size_t n_char, size_t from, size_t *lo,
               size_t *hi);

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
enum status vocab_load(struct vocab *v, const json_t *model, bool byte_level, const char *where, struct err *err);
void vocab_free(struct vocab *v);
int32_t vocab_find(const struct vocab *v, const char *bytes, size_t n);
int32_t vocab_find_foreign(const struct vocab *v, const char *content, size_t n);
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
    struct bpe_cand {
        uint32_t rank, pos;
        int32_t id, left, right;
    } * heap;
    size_t n_heap, cap_heap;
};
void bpe_scratch_free(struct bpe_scratch *s);
// Appends the ids of a piece; with ends, also where in the piece each token ends. False: a byte has no token and there is no unk.
bool bpe_encode(const struct vocab *v, struct bpe_scratch *s, const char *piece, size_t n, struct ids *out, struct buf *ends);

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
    const struct normalized *norm; // of the section in hand, NULL if its text is the original's
    size_t section;                // offset of the section in the original text
    struct buf piece_ends;         // scratch: uint32_t a token, offset in the piece
    struct err *err;
};
struct piece {
    const char *s;
    size_t n;
    const uint8_t *cls; // NULL when no step uses a regex
    size_t n_char;
    size_t base; // offset of s in the section's normalized text
    size_t pre;  // bytes at the start of s that are not in that text (a prefix space)
};
struct pretokenizer;
enum status pretokenizer_load(struct pretokenizer **out, struct regexes *re, const json_t *spec, bool *byte_level, const char *where,
                              struct err *err);
void pretokenizer_free(struct pretokenizer *p);
bool pretokenizer_uses_regex(const struct pretokenizer *p);
enum status pretokenizer_run(const struct pretokenizer *p, struct encoder *e, const struct piece *piece);
enum status encode_piece(struct encoder *e, const struct piece *piece); // tokenizer.c: the last step, BPE

// ---- added.c ---------------------------------------------------------------------------------------------------------------------------
struct added {
    int32_t id;
    char *content;
    size_t n;
    bool single_word, lstrip, rstrip, normalized, special;
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
void trie_free(struct trie *t);
struct added_match {
    size_t lo, hi;
    int32_t token; // index into the added tokens
};
// The next added token in s at or after *pos; `done` is where the text already given out ends. Advances *pos. False: none is left.
bool added_find(const struct trie *t, const struct added *tokens, const char *s, size_t n, size_t *pos, size_t done, struct added_match *m);

struct tokenizer {
    struct added *added;
    size_t n_added;
    struct trie raw, normalized; // tokens looked for before and after the normalizer
    int32_t *added_of;           // id to index into added, -1 if not an added token; (n_vocab)
    struct normalizer *normalizer;
    struct regexes *regexes;
    struct pretokenizer *pre;
    struct vocab vocab;
    int32_t n_vocab, bos, eos, pad;
    json_t *config;
    char *template_text;
    char sha256[65];
};

// ---- config.c --------------------------------------------------------------------------------------------------------------------------
// Reads tokenizer_config.json (*config stays NULL if there is none) and chat_template.jinja. Both are the caller's.
enum status config_read(const char *dir, json_t **config, struct buf *jinja, bool *has_jinja, struct err *err);
// Takes a reference to config (may be NULL), and from it the special tokens by role and, unless one is given, the chat template.
void config_apply(struct tokenizer *t, const json_t *config, const char *chat_template);

// tokenizer_encode that also tells, for each token, where in the text its bytes end (size_t a token appended to ends, which may be NULL).
enum status tokenizer_encode_ends(const struct tokenizer *t, const char *text, size_t n, struct ids *out, struct buf *ends,
                                  struct err *err);
