// Host memory outside a step: metadata, text, tables. These never return NULL: running out of memory for them ends the program with a
// sentence and exit code 1. Memory of tensors comes from arenas (arena.h), whose needs are known and checked before a run starts.
//
// In debug builds (-DDISTILL_DEBUG) an allocation between mem_forbid(true) and mem_forbid(false) aborts: nothing allocates inside a step.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t size_bytes);              // zeroed
void *mem_realloc(void *old, size_t size_bytes); // new part not zeroed
void mem_free(void *p);                          // NULL is fine
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mem_forbid(bool forbid);

#define NEW(type) ((type *)mem_alloc(sizeof(type)))
#define NEW_N(type, n) ((type *)mem_alloc(sizeof(type) * (size_t)(n)))

// Bytes that grow: text being built, frames being encoded. Zero-initialise; free with buf_free.
struct buf {
    char *data; // NUL-terminated when size > 0 through buf_putc/buf_put/buf_printf (the NUL is not counted)
    size_t size, cap;
};
void buf_put(struct buf *b, const void *bytes, size_t n);
void buf_putc(struct buf *b, char c);
void buf_puts(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_clear(struct buf *b); // keeps the memory
void buf_free(struct buf *b);
