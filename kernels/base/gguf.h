// GGUF, the single-file format of llama.cpp, as a container: typed key/values and tensors, read by mmap with every lie in the header
// refused, and written so that a kill leaves the old file or the new. What keys and tensors mean is kernels/model/gguf*.c and
// datasets/tokenizer/gguf*.c. Layout: ggml's docs/gguf.md, versions 2 and 3, little-endian.
#pragma once
#include "kernels/base/json.h"

enum gguf_type { // of a value
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    N_GGUF_TYPE
};
enum ggml_type { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_BF16 = 30 }; // of a tensor: those that distill computes with

// Name, and values and bytes of a block, of any type that llama.cpp knows; NULL for others.
struct ggml_type_info {
    const char *name;
    int n_block, block_bytes;
};
const struct ggml_type_info *ggml_type_info(uint32_t type);

struct gguf_kv {
    char *key;
    enum gguf_type type, elem; // elem: of an array's items
    uint64_t n;                // items of an array, else 1
    const uint8_t *data;       // in the mapping, as the file has it
};
struct gguf_tensor {
    char *name;
    uint32_t type; // one that ggml_type_info knows
    int rank;
    int64_t shape[4];    // outermost first, as PyTorch has it: the reverse of the file's order
    const uint8_t *data; // in the mapping, aligned
    size_t size_bytes;
};
struct gguf {
    struct file_map map;
    struct gguf_kv *kv; // sorted by key
    size_t n_kv;
    struct gguf_tensor *tensor; // sorted by name
    size_t n_tensor;
};

// Whether a path is to be read as GGUF: a regular file, where a model's folder could stand too.
bool gguf_is(const char *path);
// Checks all of the header: magic, version, counts against the size, types, alignment, names, shapes (overflow), offsets (contiguous), the
// end of the data against the file's. ST_BAD_INPUT names the file, and the key or tensor or offset.
enum status gguf_open(struct gguf *g, const char *path, struct err *err);
void gguf_close(struct gguf *g);
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);             // NULL if none
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name); // NULL if none
// The values whose keys begin with `prefix`, as an object under their whole keys, for the readers of json.h: integers, reals, strings,
// arrays. A u64 above what JSON holds becomes a real; a string that is not UTF-8 null. Caller's.
json_t *gguf_json(const struct gguf *g, const char *prefix);

// ---- writing: keys, then tensors declared in order, then their bytes in that order ----
struct gguf_writer;
enum status gguf_create(struct gguf_writer **out, const char *path, struct err *err); // writes path.tmp.PID
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_bools(struct gguf_writer *w, const char *key, const bool *v, size_t n);
void gguf_put_string(struct gguf_writer *w, const char *key, const char *v);
// Text of known length, which may hold any byte.
struct gguf_text {
    const char *s;
    size_t n;
};
void gguf_put_strings(struct gguf_writer *w, const char *key, const struct gguf_text *v, size_t n);
// shape outermost first. Names are shorter than 64 bytes; innermost sizes whole blocks.
void gguf_declare(struct gguf_writer *w, const char *name, enum ggml_type type, int rank, const int64_t *shape);
uint64_t gguf_declared_bytes(const struct gguf_writer *w);
enum status gguf_begin(struct gguf_writer *w, struct err *err);                           // header written
enum status gguf_put(struct gguf_writer *w, const void *data, size_t n, struct err *err); // within a tensor; padding is put by itself
enum status gguf_finish(struct gguf_writer *w, struct err *err);                          // fsync, rename; frees
void gguf_abort(struct gguf_writer *w);                                                   // removes the tmp; frees; NULL is fine
