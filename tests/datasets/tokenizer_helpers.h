// The shipped tokenizer, and variants of it.
#pragma once
#include "datasets/tokenizer/tokenizer.h"
#include "tests/test.h"

#define TINY_TOKENIZER "teacher/tiny/moe"

// The tiny tokenizer.json in which the keys of spec stand instead.
enum status tokenizer_variant(struct tokenizer **t, const json_t *spec, struct err *why);
