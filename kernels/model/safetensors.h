// safetensors, as huggingface/safetensors defines them: reading by mmap (single file, or the shards that an index names) with every lie in
// the header refused, and writing so that a kill leaves the old file or the new.
#pragma once
#include "kernels/base/json.h"
#include "kernels/tensor.h"

struct st_tensor {
    const char *name;
    char dtype[12]; // as in the file: "BF16", "F32", "F8_E4M3", …
    int rank;
    int64_t shape[8];
    const uint8_t *data; // in the mapping
    size_t size_bytes;
    int file; // index into st_set.maps
};
struct st_set { // all tensors of a checkpoint, sorted by name
    struct st_tensor *v;
    size_t n;
    struct file_map *maps;
    size_t n_map;
};
// One file. Checks: header length against the file, JSON, offsets contiguous from 0 to the end without hole or overlap, sizes = shape *
// dtype (overflow checked), unique names. Every problem names file and tensor. ST_BAD_INPUT.
enum status st_open(struct st_set *s, const char *path, struct err *err);
// DIR/model.safetensors, or the shards of DIR/model.safetensors.index.json: every shard there, every tensor in the shard that the index
// names and in no other, their bytes metadata.total_size together. All that is wrong is told at once.
enum status st_open_dir(struct st_set *s, const char *dir, struct err *err);
void st_close(struct st_set *s);
const struct st_tensor *st_find(const struct st_set *s, const char *name); // NULL if none
bool st_dtype(const char *name, enum dtype *out);                          // F32 BF16 F16 I32 U8 → dtype; false: not one that ops know
const char *st_dtype_name(enum dtype t);                                   // the way back

// Writing: declare all tensors, then stream their bytes in the declared order.
struct st_writer;
enum status st_create(struct st_writer **out, const char *path, struct err *err); // writes path.tmp.PID
void st_declare(struct st_writer *w, const char *name, const char *dtype, int rank, const int64_t *shape);
void st_metadata(struct st_writer *w, const char *key, const char *value); // {"format":"pt"} is always there
enum status st_begin(struct st_writer *w, struct err *err);                // header written
enum status st_put(struct st_writer *w, const void *data, size_t n, struct err *err);
enum status st_finish(struct st_writer *w, struct err *err); // checks the size, fsync, rename; frees
void st_abort(struct st_writer *w);                          // removes the tmp; frees
