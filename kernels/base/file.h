// Files: mapping, reading whole, writing so that a kill at any moment leaves the old or the new content, never a half.
#pragma once
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

#include <stdint.h>
#include <stdio.h>

struct file_map {
    const uint8_t *data; // read-only pages; NULL when size == 0
    size_t size;
    char *path;
};
enum status file_map(struct file_map *m, const char *path, struct err *err);
void file_unmap(struct file_map *m);
// These bytes of a mapping will be read soon: the system may begin to fetch them.
void file_map_ahead(const void *bytes, size_t size);
// These bytes of a mapping were read for good: their pages leave this process (the system's cache of the file keeps them).
void file_map_forget(const void *bytes, size_t size);

// The whole file into `out` (NUL-terminated past its size). Refuses files over max_bytes.
enum status file_read(struct buf *out, const char *path, size_t max_bytes, struct err *err);
// Writes path.tmp.PID, fsyncs, renames over path, fsyncs the folder. On failure nothing of the old file is lost and the tmp is removed.
enum status file_write_atomic(const char *path, const void *data, size_t size, struct err *err);
// The same for content that comes in pieces. After file_out_open, one of commit and abort must follow; commit frees `f` whatever it
// returns. A failed file_out_put leaves the abort to the caller (or to commit, which then only aborts and reports that failure again).
struct file_out;
enum status file_out_open(struct file_out **f, const char *path, struct err *err);
enum status file_out_put(struct file_out *f, const void *data, size_t size, struct err *err);
enum status file_out_commit(struct file_out *f, struct err *err);
void file_out_abort(struct file_out *f);                                  // NULL is fine
enum status file_copy(const char *from, const char *to, struct err *err); // atomic as above
bool file_exists(const char *path);
enum status dir_make(const char *path, struct err *err); // with parents; fine if it exists
enum status dir_sync(const char *path, struct err *err);
enum status dir_remove(const char *path, struct err *err); // recursively, that folder and what is in it
// The names in a folder that end so, sorted; 0 if there is no such folder. names_free(*names, n) frees them.
size_t dir_names(char ***names, const char *path, const char *suffix);
void names_free(char **names, size_t n);
enum status file_sha256(const char *path, char hex[65], struct err *err);
void sha256_hex(const void *data, size_t size, char hex[65]);
char *path_join(const char *dir, const char *name); // mem_free it
