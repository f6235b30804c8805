// Findings as a table for people and as JSON for scripts.
#include "distill/doctor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *const words[] = {"skip", "ok", "warn", "fail"};
static const char *const marks[] = {"-", "ok", "warn", "FAIL"};
static const char *const colours[] = {"\033[2m", "\033[32m", "\033[33m", "\033[1;31m"};

static void add_sentence(struct buf *b, const char *fmt, va_list args)
{
    char *text = NULL;
    if (vasprintf(&text, fmt, args) < 0) return;
    if (b->size) buf_puts(b, ". ");
    buf_puts(b, text);
    free(text);
}

void say(struct finding *f, enum verdict v, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add_sentence(&f->found, fmt, args);
    va_end(args);
    if (v > f->verdict) f->verdict = v;
}

void fix(struct finding *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add_sentence(&f->fix, fmt, args);
    va_end(args);
}

void number(struct finding *f, const char *key, double v)
{
    if (!f->numbers) f->numbers = json_object();
    bool whole = v > -9e15 && v < 9e15 && (double)(json_int_t)v <= v && (double)(json_int_t)v >= v;
    json_object_set_new(f->numbers, key, whole ? json_integer((json_int_t)v) : json_real(v));
}

json_t *findings_json(const struct findings *all)
{
    json_t *list = json_array();
    for (size_t i = 0; i < all->n; i++) {
        const struct finding *f = &all->v[i];
        json_t *o = json_pack("{s:s, s:s}", "check", f->check, "of", f->of ? f->of : "both");
        json_object_set_new(o, "status", json_string(words[f->verdict]));
        json_object_set_new(o, "found", utf8_json(f->found.size ? f->found.data : "", f->found.size));
        json_object_set_new(o, "fix", f->fix.size ? utf8_json(f->fix.data, f->fix.size) : json_null());
        if (f->numbers) json_object_set(o, "numbers", f->numbers);
        json_array_append_new(list, o);
    }
    return list;
}

// ---- the table ----

static size_t width_of(const char *s, size_t n) // characters, not bytes
{
    size_t w = 0;
    for (size_t i = 0; i < n; i++) w += ((unsigned char)s[i] & 0xC0) != 0x80;
    return w;
}

// Wrapped text in a column that begins at `indent`; `first` says that the cursor stands there already.
static void put_wrapped(const char *s, size_t indent, size_t width, bool first)
{
    size_t at = first ? indent : 0;
    while (*s) {
        bool newline = *s == '\n';
        size_t n = newline ? 0 : strcspn(s, " \n"), w = width_of(s, n);
        if (newline || (at > indent && at + 1 + w > width)) {
            putchar('\n');
            at = 0;
        } else if (at > indent)
            putchar(' '), at++;
        if (newline) {
            s++;
            continue;
        }
        for (; at < indent; at++) putchar(' ');
        fwrite(s, 1, n, stdout);
        at += w;
        s += n;
        while (*s == ' ') s++;
    }
    putchar('\n');
}

static size_t terminal_width(void)
{
    struct winsize w;
    if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col)
        return w.ws_col < 60 ? 60 : w.ws_col > 140 ? 140 : w.ws_col;
    return 100;
}

// What a finding is of. Paths of data stand above their checks instead.
static const char *column_of(const struct finding *f)
{
    return !f->of ? "both" : !strcmp(f->of, "teacher") || !strcmp(f->of, "student") ? f->of : "data";
}

void findings_print(const struct findings *all, bool quiet)
{
    const char *no_color = getenv("NO_COLOR");
    const bool colour = isatty(STDOUT_FILENO) && !(no_color && *no_color);
    const size_t width = terminal_width();
    size_t title = 0;
    const char *path = NULL;
    for (size_t i = 0; i < all->n; i++)
        title = width_of(all->v[i].title, strlen(all->v[i].title)) > title ? strlen(all->v[i].title) : title;
    const size_t indent = 6 + title + 2 + 9;
    for (size_t i = 0; i < all->n; i++) {
        const struct finding *f = &all->v[i];
        if (quiet && f->verdict < V_WARN) continue;
        const bool data = !strcmp(column_of(f), "data");
        if (data && path != f->of) printf("%s\n", path = f->of);
        printf("%s%-6s%s%-*s%-9s", colour ? colours[f->verdict] : "", marks[f->verdict], colour ? "\033[0m" : "", (int)title + 2, f->title,
               data ? "" : column_of(f));
        put_wrapped(f->found.size ? f->found.data : "", indent, width, true);
        if (!f->fix.size) continue;
        struct buf line = {0};
        buf_printf(&line, "fix: %s", f->fix.data);
        put_wrapped(line.data, indent, width, false);
        buf_free(&line);
    }
}

void findings_free(struct findings *all)
{
    for (size_t i = 0; i < all->n; i++) {
        buf_free(&all->v[i].found);
        buf_free(&all->v[i].fix);
        json_decref(all->v[i].numbers);
    }
    mem_free(all->v);
    *all = (struct findings){0};
}
