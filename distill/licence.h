// The licence that a model's folder or GGUF file names, and what the text of known licences says of learning from a model's output.
#pragma once
#include "kernels/base/json.h"

// {"id": "llama3.1", "from": "README.md"}: from the card's front matter, config.json, or the heading of LICENSE; of a GGUF file from its
// keys. NULL: none found.
json_t *licence_of(const char *dir);
// What the text says of training another model on this one's output; NULL: a licence that is not in our table. *look: it sets conditions.
const char *licence_terms(const char *id, bool *look);
