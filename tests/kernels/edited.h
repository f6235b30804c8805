// A checkpoint with something changed: for tests of what loading refuses.
#pragma once
#include "kernels/model/safetensors.h"

struct edited_tensor {
    char name[160], dtype[12];
    int rank;
    int64_t shape[8];
    uint8_t *data; // size bytes; change them, or shorten size with the shape
    size_t size;
    bool drop;
};
// Writes the tensors of folder `from`, as `edit` (NULL: nothing) leaves each, to ONE file model.safetensors in `to`, and its config.json.
void edited_checkpoint(const char *from, const char *to, void (*edit)(struct edited_tensor *t, void *arg), void *arg);
// Replaces the first `old` in a file of `dir` by `new`; `old` must be there.
void edited_text(const char *dir, const char *file, const char *old, const char *new);
// Copies every file of `from`.
void copied_folder(const char *from, const char *to);
