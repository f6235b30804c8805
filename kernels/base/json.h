// Jansson with errors a user can act on. Every reader of JSON in distill goes through here; errors name file, line and column.
//
// What is JSON is read, as Python's json reads it where Jansson would not: of a key that stands twice the last value counts, an integer
// beyond 64 bits is a real (tokenizers' "model_max_length": 1000000000000000019884624838656), a byte order mark is passed over. U+0000
// may stand in strings; in a key it is read as U+FFFD, for keys are C strings here. Refused are a number that no double holds, unpaired
// surrogates, and more than 2048 levels.
#pragma once
#include "kernels/base/file.h"

#include <jansson.h>

// Parses a whole file. *root is owned by the caller (json_decref).
enum status json_read(json_t **root, const char *path, struct err *err);
// Parses n bytes as one JSON value; `where` names the source in messages ("prompts.jsonl"), line is the line number there (0: none).
enum status json_parse(json_t **root, const char *text, size_t n, const char *where, long line, struct err *err);
// The same for files in which a key that stands twice, or holds U+0000, is a mistake that must not pass: it would hide a value.
enum status json_read_strict(json_t **root, const char *path, struct err *err);
enum status json_parse_strict(json_t **root, const char *text, size_t n, const char *where, long line, struct err *err);
enum status json_write_atomic(const json_t *root, const char *path, struct err *err); // indented by 2, final newline
void json_append_line(struct buf *out, const json_t *root);                           // compact, one line, with the newline
void json_append_pretty(struct buf *out, const json_t *root);                         // indented by 2, with the newline

// Field readers for configuration. Each appends to err (err_add, ST_BAD_INPUT) when the key is missing (and `required`) or of a wrong
// type: "config.json: hidden_size: wanted a positive integer, found \"abc\"". They return the default then, so that reading goes on and
// all mismatches are reported at once. `where` names the file. JSON null counts as missing.
int64_t json_get_int(const json_t *obj, const char *key, int64_t def, bool required, const char *where, struct err *err);
double json_get_real(const json_t *obj, const char *key, double def, bool required, const char *where, struct err *err);
bool json_get_bool(const json_t *obj, const char *key, bool def, bool required, const char *where, struct err *err);
const char *json_get_str(const json_t *obj, const char *key, const char *def, bool required, const char *where,
                         struct err *err); // borrowed
