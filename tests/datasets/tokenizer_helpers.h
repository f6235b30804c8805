// The shipped tokenizer and variants of it, golden ids.
#pragma once
#include "datasets/tokenizer/tokenizer.h"
#include "tests/test.h"

#define TINY_TOKENIZER "teacher/tiny/moe"

json_t *golden(const char *name); // tests/golden/NAME; caller's
// The text has just these ids.
void ck_encodes(const struct tokenizer *t, const char *name, const json_t *text, const json_t *ids);

// The tiny tokenizer.json in which the keys of spec stand instead.
enum status tokenizer_variant(struct tokenizer **t, const json_t *spec, struct err *why);
