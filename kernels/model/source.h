// Where weights come from. The loader (load.c) knows a checkpoint only as a list of tensors under Hugging Face's names and a way to have
// their rows; a folder of safetensors and a GGUF file stand behind this alike. What has to be done to the bytes of a file, dequantising,
// putting rows back in order, taking a stack of experts apart, the source does while it hands rows out, a chunk at a time, straight into
// what packs them.
//
// A new kind of file: a struct source_kind, an opener that fills the list with source_add, and a line in source_open (source.c).
#pragma once
#include "kernels/base/status.h"
#include "kernels/tensor.h"

struct model_config;
struct fp8_weight;

struct source_tensor {
    char *name;     // Hugging Face's: "model.layers.0.self_attn.q_proj.weight"
    char dtype[12]; // as in the file: "BF16", "F8_E4M3", "Q8_0"
    bool readable;  // false: the kind does not read this dtype; the loader names it if the model needs the tensor
    int rank;       // as PyTorch has it: (out, in)
    int64_t shape[8];
    const void *data;  // the mapped values, contiguous and aligned, where they are F32, BF16 or F16 already; else NULL: ask the kind's rows
    enum dtype type;   // of data
    const void *bytes; // as they stand in the file, mapped, at any byte
    struct fp8_weight *fp8; // F8_E4M3 with its scales (fp8.h); else NULL; the source's
    const void *own;        // the kind's
};

struct source {
    struct source_tensor *v; // sorted by name
    size_t n;
    const struct source_kind *kind;
    void *state; // the kind's
};

struct source_kind {
    const char *dtypes; // what it reads, for messages: "F32, BF16 or F16"
    // Writes rows [first, first + n) of t (rank 1: its values are rows of one column; rank > 2: the rest of the shape is the row) to out,
    // contiguous, as `type`, DT_F32 or DT_BF16. Called by several threads at once. Cannot fail: what can be wrong with a file is found when
    // it is opened. Values that are NaN come out as NaN: the loader counts them. NULL if every readable tensor has data.
    void (*rows)(const struct source *s, const struct source_tensor *t, int64_t first, int64_t n, enum dtype type, void *out);
    // t was read to its end: its pages may go. May be NULL.
    void (*done)(const struct source *s, const struct source_tensor *t);
    void (*close)(struct source *s); // frees state; names and list are source_close's
};

// The checkpoint at `path`, checked to the last byte of its headers before any weight is read. `config` is what the same checkpoint's
// configuration says (head counts, quantisation); it must outlive the source. ST_BAD_INPUT with all that is wrong.
enum status source_open(struct source *s, const char *path, const struct model_config *config, struct err *err);
void source_close(struct source *s);
const struct source_tensor *source_find(const struct source *s, const char *name); // NULL if none

// For openers: a new, empty entry under a copy of `name` (valid until the next one), and the sorting when all are there.
struct source_tensor *source_add(struct source *s, const char *name);
void source_sort(struct source *s);

// The openers.
enum status source_open_safetensors(struct source *s, const char *dir, const struct model_config *config, struct err *err);
enum status source_open_gguf(struct source *s, const char *path, const struct model_config *config, struct err *err);
