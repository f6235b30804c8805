#include "distill/watch.h"

#include <string.h>
#include <utf8proc.h>

enum { KEPT = 1024 }; // bytes: more than a line shows

static bool shows(utf8proc_int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    return k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF && k != UTF8PROC_CATEGORY_CS &&
           k != UTF8PROC_CATEGORY_CO;
}
static bool is_space(utf8proc_int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    return (c >= '\t' && c <= '\r') || c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

// Valid UTF-8 onto the line: white space of any kind and length is one space; control and format characters are left out.
static void put_line(struct buf *line, const char *s, size_t n)
{
    utf8proc_int32_t c;
    for (size_t i = 0; i < n;) {
        const utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        if (len < 1) return;
        if (is_space(c) && line->size && line->data[line->size - 1] != ' ') buf_putc(line, ' ');
        if (!is_space(c) && shows(c)) buf_put(line, s + i, (size_t)len);
        i += (size_t)len;
    }
}

static void keep_the_end(struct buf *line)
{
    if (line->size <= 2 * KEPT) return;
    size_t from = line->size - KEPT;
    while (((unsigned char)line->data[from] & 0xC0) == 0x80) from++;
    memmove(line->data, line->data + from, line->size - from + 1); // with the NUL
    line->size -= from;
}

const char *watch_text(struct watch *w, uint64_t seed, const int32_t *ids, int n_tok)
{
    struct buf fresh = {0};
    if (!w->stream || seed != w->seed || n_tok < w->n_tok) {
        watch_free(w);
        w->stream = decode_stream_new(w->tok, true);
        w->seed = seed;
    }
    for (; w->n_tok < n_tok; w->n_tok++) {
        struct err ignored = {0}; // an id that no token has: nothing to show
        decode_stream_put(w->stream, ids[w->n_tok], &fresh, &ignored);
    }
    put_line(&w->text, fresh.data, fresh.size);
    keep_the_end(&w->text);
    buf_free(&fresh);
    return w->text.size ? w->text.data : "";
}

const char *watch_engine(struct watch *w, const struct engine *e)
{
    struct generation g;
    return engine_peek(e, &g) ? watch_text(w, g.seed, g.token_ids, g.n_tok) : NULL;
}

void watch_free(struct watch *w)
{
    decode_stream_free(w->stream);
    buf_free(&w->text);
    *w = (struct watch){.tok = w->tok};
}
