// Which model a store was written by: what must be equal before another run may add to it.
#pragma once
#include "kernels/base/json.h"

// {"files": {"config.json": {"size_bytes", "sha256"}, "model.safetensors": …}}: config.json, generation_config.json if there, and the
// weight files that loading reads (model.safetensors, or the shards that its index names); or a GGUF file alone. A file over 256 MiB is
// told by its size and 65 blocks of a MiB spread over it
// ("sha256_of_parts"), so that a teacher of a terabyte does not take an hour before its first token.
enum status identity_of_model(json_t **out, const char *dir, struct err *err);
