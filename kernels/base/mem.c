// Host memory that is never NULL, the guard against allocations inside a step, and growing byte buffers.
#include "kernels/base/mem.h"

#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef DISTILL_DEBUG
static _Thread_local int forbidden; // depth; a guard of debug builds only
#endif

void mem_forbid(bool forbid)
{
#ifdef DISTILL_DEBUG
    forbidden += forbid ? 1 : -1;
    if (forbidden < 0) BUG("mem_forbid(false) without mem_forbid(true)");
#else
    (void)forbid;
#endif
}

static void guard(size_t size_bytes)
{
#ifdef DISTILL_DEBUG
    if (forbidden) {
        forbidden = 0; // so that BUG() itself may allocate
        BUG("an allocation of %zu bytes inside a step", size_bytes);
    }
#else
    (void)size_bytes;
#endif
}

static _Noreturn void out_of_memory(size_t size_bytes)
{
    fprintf(stderr, "distill: out of memory: %zu more bytes were wanted and the system has none to give\n", size_bytes);
    exit(ST_FAIL);
}

void *mem_alloc(size_t size_bytes)
{
    guard(size_bytes);
    void *p = calloc(1, size_bytes ? size_bytes : 1);
    if (!p) out_of_memory(size_bytes);
    return p;
}

void *mem_realloc(void *old, size_t size_bytes)
{
    guard(size_bytes);
    void *p = realloc(old, size_bytes ? size_bytes : 1);
    if (!p) out_of_memory(size_bytes);
    return p;
}

void mem_free(void *p)
{
    free(p);
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_strndup(const char *s, size_t n)
{
    n = strnlen(s, n);
    char *copy = mem_alloc(n + 1);
    memcpy(copy, s, n);
    return copy;
}

char *mem_printf(const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) BUG("format \"%s\" cannot be printed", fmt);
    char *text = mem_alloc((size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}

// Room for n more bytes and a NUL.
static void reserve(struct buf *b, size_t n)
{
    if (n >= SIZE_MAX / 2 - b->size) out_of_memory(n);
    size_t want = b->size + n + 1;
    if (want <= b->cap) return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < want) cap *= 2;
    b->data = mem_realloc(b->data, cap);
    b->cap = cap;
}

void buf_put(struct buf *b, const void *bytes, size_t n)
{
    reserve(b, n);
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->data[b->size] = '\0';
}

void buf_putc(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_puts(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) BUG("format \"%s\" cannot be printed", fmt);
    reserve(b, (size_t)n);
    vsnprintf(b->data + b->size, (size_t)n + 1, fmt, again);
    va_end(again);
    b->size += (size_t)n;
}

void buf_clear(struct buf *b)
{
    b->size = 0;
    if (b->data) b->data[0] = '\0';
}

void buf_free(struct buf *b)
{
    mem_free(b->data);
    *b = (struct buf){0};
}
