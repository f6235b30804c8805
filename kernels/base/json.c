// Reading JSON by Jansson, writing it ourselves (shortest exact numbers, where Jansson 2.14 writes 0.1 as 0.10000000000000001), and
// the typed field readers.
#include "kernels/base/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t MAX_JSON_BYTES = (size_t)1 << 30; // a tokenizer.json has 10-30 MB; what is larger is not JSON meant for us

// The line and the column of the first NUL byte; `line` is that of the text's beginning. Columns are counted in characters, from 1.
static long line_at(const char *text, size_t n, long line)
{
    if (line < 1) line = 1;
    for (size_t i = 0; i < n && text[i]; i++) line += text[i] == '\n';
    return line;
}
static long column_at(const char *text, size_t n)
{
    long column = 1;
    for (size_t i = 0; i < n && text[i]; i++) column = text[i] == '\n' ? 1 : column + (((unsigned char)text[i] & 0xc0) != 0x80);
    return column;
}

// Numbers that Jansson's integers cannot hold get an exponent in place of their last two digits. `p` points at the number's first digit in
// NUL-terminated text; returns the end of what looks like a number there.
static char *mend_number(char *p)
{
    size_t n = strspn(p, "0123456789"), all = strspn(p, "0123456789.eE+-");
    errno = 0;
    if (n == all && n > 18 && (strtoll(p, NULL, 10), errno == ERANGE)) memcpy(p + n - 2, "e2", 2);
    return p + all;
}

// `p` points behind the opening quote of a string; returns the end of it. In a key, \u0000 becomes \ufffd.
static char *mend_string(char *p, bool keys)
{
    char *end = p;
    while (*end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
    if (!*end) return end;
    const char *colon = end + 1 + strspn(end + 1, " \t\r\n");
    for (; keys && *colon == ':' && p < end; p += *p == '\\' ? 2 : 1)
        if (end - p >= 6 && !memcmp(p, "\\u0000", 6)) memcpy(p + 2, "fffd", 4);
    return end + 1;
}

// What is JSON but beyond Jansson is put so that Jansson reads it, at the same length: lines and columns of errors stay.
static json_t *load_mended(const char *text, size_t n, size_t flags, bool keys, json_error_t *e)
{
    struct buf mended = {0};
    buf_put(&mended, text, n);
    for (char *p = mended.data; *p;) p = *p == '"' ? mend_string(p + 1, keys) : *p >= '0' && *p <= '9' ? mend_number(p) : p + 1;
    json_t *root = json_loadb(mended.data, n, flags, e);
    buf_free(&mended);
    return root;
}

static enum status parse(json_t **root, const char *text, size_t n, const char *where, long line, bool strict, struct err *err)
{
    json_error_t e;
    const size_t flags = JSON_ALLOW_NUL | JSON_DECODE_ANY | (strict ? JSON_REJECT_DUPLICATES : 0);
    if (line <= 1 && n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3; // the byte order mark that some editors put first
    // A bare NUL byte is never valid, yet Jansson takes one after the value for the end of the text.
    if (n && memchr(text, 0, n))
        return *root = NULL,
               err_set(err, ST_BAD_INPUT, "%s:%ld:%ld: not valid JSON: a NUL byte", where, line_at(text, n, line), column_at(text, n));
    *root = json_loadb(text, n, flags, &e);
    if (!*root && (json_error_code(&e) == json_error_numeric_overflow || (json_error_code(&e) == json_error_null_byte_in_key && !strict)))
        *root = load_mended(text, n, flags, !strict, &e);
    if (*root) return ST_OK;
    long at = (line > 0 ? line - 1 : 0) + (e.line > 0 ? e.line : 1);
    enum json_error_code code = json_error_code(&e);
    const char *what = code == json_error_duplicate_key      ? "a key stands twice in one object"
                       : code == json_error_null_byte_in_key ? "a key holds U+0000"
                       : code == json_error_numeric_overflow ? "a number is too large for a double"
                       : code == json_error_stack_overflow   ? "nested too deep"
                                                             : "not valid JSON";
    return err_set(err, ST_BAD_INPUT, "%s:%ld:%d: %s: %s", where, at, e.column > 0 ? e.column : 1, what, e.text);
}

enum status json_parse(json_t **root, const char *text, size_t n, const char *where, long line, struct err *err)
{
    return parse(root, text, n, where, line, false, err);
}

enum status json_parse_strict(json_t **root, const char *text, size_t n, const char *where, long line, struct err *err)
{
    return parse(root, text, n, where, line, true, err);
}

static enum status read_file(json_t **root, const char *path, bool strict, struct err *err)
{
    *root = NULL;
    struct buf text = {0};
    enum status st = file_read(&text, path, MAX_JSON_BYTES, err);
    if (!st) st = parse(root, text.data, text.size, path, 0, strict, err);
    buf_free(&text);
    return st;
}

enum status json_read(json_t **root, const char *path, struct err *err)
{
    return read_file(root, path, false, err);
}

enum status json_read_strict(json_t **root, const char *path, struct err *err)
{
    return read_file(root, path, true, err);
}

// ---- writing ----

static void put_string(struct buf *out, const char *s, size_t n)
{
    buf_putc(out, '"');
    for (size_t i = 0, from = 0; i <= n; i++) {
        unsigned char c = i < n ? (unsigned char)s[i] : 0;
        if (i < n && c >= 0x20 && c != '"' && c != '\\') continue;
        buf_put(out, s + from, i - from);
        from = i + 1;
        if (i == n) break;
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c == '\n')
            buf_puts(out, "\\n");
        else if (c == '\t')
            buf_puts(out, "\\t");
        else if (c == '\r')
            buf_puts(out, "\\r");
        else
            buf_printf(out, "\\u%04x", c);
    }
    buf_putc(out, '"');
}

static void put_real(struct buf *out, double v)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) { // 17 always suffice
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    buf_puts(out, text);
    if (!strpbrk(text, ".en")) buf_puts(out, ".0"); // stays a real when read again
}

// indent < 0: on one line, with nothing between; else the depth, each two spaces. Arrays of plain numbers stay on one line.
static void put_value(struct buf *out, const json_t *v, int indent);

static void new_line(struct buf *out, int indent)
{
    if (indent < 0) return;
    buf_putc(out, '\n');
    for (int i = 0; i < indent; i++) buf_puts(out, "  ");
}

static void put_array(struct buf *out, const json_t *v, int indent)
{
    size_t n = json_array_size(v);
    bool flat = true;
    for (size_t i = 0; i < n; i++) flat = flat && json_is_number(json_array_get(v, i));
    int inner = indent < 0 || flat ? -1 : indent + 1;
    buf_putc(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i) buf_puts(out, flat && indent >= 0 ? ", " : ",");
        new_line(out, inner);
        put_value(out, json_array_get(v, i), inner);
    }
    if (n && inner >= 0) new_line(out, indent);
    buf_putc(out, ']');
}

static void put_object(struct buf *out, const json_t *v, int indent)
{
    int inner = indent < 0 ? -1 : indent + 1;
    json_t *object = (json_t *)(uintptr_t)v; // Jansson's iterators want it mutable; nothing is changed
    bool first = true;
    buf_putc(out, '{');
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it), first = false) {
        if (!first) buf_putc(out, ',');
        new_line(out, inner);
        const char *key = json_object_iter_key(it);
#if JANSSON_VERSION_HEX >= 0x020e00
        put_string(out, key, json_object_iter_key_len(it));
#else
        put_string(out, key, strlen(key)); // before 2.14 Jansson refuses U+0000 in keys
#endif
        buf_puts(out, indent < 0 ? ":" : ": ");
        put_value(out, json_object_iter_value(it), inner);
    }
    if (!first) new_line(out, indent);
    buf_putc(out, '}');
}

static void put_value(struct buf *out, const json_t *v, int indent)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        put_object(out, v, indent);
        break;
    case JSON_ARRAY:
        put_array(out, v, indent);
        break;
    case JSON_STRING:
        put_string(out, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        put_real(out, json_real_value(v));
        break;
    case JSON_TRUE:
        buf_puts(out, "true");
        break;
    case JSON_FALSE:
        buf_puts(out, "false");
        break;
    case JSON_NULL:
        buf_puts(out, "null");
        break;
    }
}

void json_append_line(struct buf *out, const json_t *root)
{
    put_value(out, root, -1);
    buf_putc(out, '\n');
}

void json_append_pretty(struct buf *out, const json_t *root)
{
    put_value(out, root, 0);
    buf_putc(out, '\n');
}

enum status json_write_atomic(const json_t *root, const char *path, struct err *err)
{
    struct buf text = {0};
    json_append_pretty(&text, root);
    enum status st = file_write_atomic(path, text.data, text.size, err);
    buf_free(&text);
    return st;
}

// ---- fields ----

// The value as a message shows it: compact, cut short.
static void describe(const json_t *v, char text[64])
{
    struct buf b = {0};
    json_append_line(&b, v);
    b.size--; // the newline
    if (b.size < 60) {
        memcpy(text, b.data, b.size);
        text[b.size] = '\0';
    } else {
        size_t n = 56;
        while (n && ((unsigned char)b.data[n] & 0xc0) == 0x80) n--;
        memcpy(text, b.data, n);
        memcpy(text + n, "...", 4);
    }
    buf_free(&b);
}

static void wrong(const char *where, const char *key, const char *wanted, const json_t *found, struct err *err)
{
    char text[64];
    describe(found, text);
    err_add(err, ST_BAD_INPUT, "%s: %s: wanted %s, found %s", where, key, wanted, text);
}

// The value of key, or NULL where it is missing or null (an error line then, if it is required).
static const json_t *field(const json_t *obj, const char *key, bool required, const char *wanted, const char *where, struct err *err)
{
    const json_t *v = json_object_get(obj, key);
    if (v && !json_is_null(v)) return v;
    if (required) err_add(err, ST_BAD_INPUT, "%s: %s: missing, wanted %s", where, key, wanted);
    return NULL;
}

int64_t json_get_int(const json_t *obj, const char *key, int64_t def, bool required, const char *where, struct err *err)
{
    const json_t *v = field(obj, key, required, "an integer", where, err);
    if (!v) return def;
    if (json_is_integer(v)) return json_integer_value(v);
    // Some writers put 1e6 or 512.0 where an integer belongs.
    double d = json_is_real(v) ? json_real_value(v) : NAN;
    if (d == trunc(d) && fabs(d) < 0x1p53) return (int64_t)d;
    wrong(where, key, "an integer", v, err);
    return def;
}

double json_get_real(const json_t *obj, const char *key, double def, bool required, const char *where, struct err *err)
{
    const json_t *v = field(obj, key, required, "a number", where, err);
    if (!v) return def;
    if (json_is_number(v)) return json_number_value(v);
    wrong(where, key, "a number", v, err);
    return def;
}

bool json_get_bool(const json_t *obj, const char *key, bool def, bool required, const char *where, struct err *err)
{
    const json_t *v = field(obj, key, required, "true or false", where, err);
    if (!v) return def;
    if (json_is_boolean(v)) return json_is_true(v);
    wrong(where, key, "true or false", v, err);
    return def;
}

const char *json_get_str(const json_t *obj, const char *key, const char *def, bool required, const char *where, struct err *err)
{
    const json_t *v = field(obj, key, required, "a string", where, err);
    if (!v) return def;
    if (json_is_string(v)) return json_string_value(v);
    wrong(where, key, "a string", v, err);
    return def;
}
