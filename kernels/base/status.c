// Messages of failures: formatting, gathering, and the sentences for failed system calls.
#include "kernels/base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char CUT[] = "\n(more left out)";

// Puts text into err, cut at the last whole line that fits, or at the last whole UTF-8 character of a single long line.
static void store(struct err *err, const char *text)
{
    size_t n = strlen(text);
    while (n && text[n - 1] == '\n') n--;
    if (n < sizeof err->text) {
        memcpy(err->text, text, n);
        err->text[n] = '\0';
        return;
    }
    n = sizeof err->text - sizeof CUT;
    size_t end = n;
    while (end && text[end] != '\n') end--;
    if (!end) {
        end = n;
        while (end && ((unsigned char)text[end] & 0xc0) == 0x80) end--;
    }
    memcpy(err->text, text, end);
    memcpy(err->text + end, CUT, sizeof CUT);
}

// The formatted text, malloc'ed: longer than err can hold, so that it is cut in one place only.
static char *format(const char *fmt, va_list args)
{
    char *text = NULL;
    return vasprintf(&text, fmt, args) < 0 ? NULL : text;
}

enum status err_set(struct err *err, enum status code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    char *text = format(fmt, args); // first, for err->text may be among the arguments
    va_end(args);
    store(err, text ? text : fmt);
    free(text);
    err->code = code;
    err->n_line = 1;
    return code;
}

enum status err_add(struct err *err, enum status code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    char *line = format(fmt, args), *all = NULL;
    va_end(args);
    if (!err->code) {
        store(err, line ? line : fmt);
        err->code = code;
        err->n_line = 1;
    } else {
        // Once cut, it stays cut: a later short line must not stand behind the mark as if nothing were missing before it.
        size_t have = strlen(err->text), mark = sizeof CUT - 1;
        bool cut = have >= mark && !strcmp(err->text + have - mark, CUT);
        if (!cut && asprintf(&all, "%s\n%s", err->text, line ? line : fmt) >= 0) store(err, all);
        err->n_line++;
    }
    free(all);
    free(line);
    return code;
}

enum status err_prefix(struct err *err, const char *fmt, ...)
{
    if (!err) return ST_FAIL;
    va_list args;
    va_start(args, fmt);
    char *head = format(fmt, args), *all = NULL;
    va_end(args);
    if (head && asprintf(&all, "%s: %s", head, err->text) >= 0) store(err, all);
    free(all);
    free(head);
    return err->code;
}

enum status err_errno(struct err *err, const char *what, const char *path)
{
    int e = errno;
    switch (e) {
    case ENOSPC:
    case EDQUOT:
        return err_set(err, ST_FAIL, "%s %s: disk full: free some space and run the same command again", what, path);
    case EFBIG:
        return err_set(err, ST_FAIL, "%s %s: %s (see `ulimit -f`, or a limit of the file system)", what, path, strerror(e));
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case ELOOP:
    case ENAMETOOLONG:
    case EROFS:
        return err_set(err, ST_BAD_INPUT, "%s %s: %s", what, path, strerror(e));
    default:
        return err_set(err, ST_FAIL, "%s %s: %s", what, path, strerror(e));
    }
}

void bug_at(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "distill: BUG at %s:%d: ", file, line);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\nThis is a fault of the program, not of its input. Please report it with the command that led here.\n");
    va_end(args);
    abort();
}
