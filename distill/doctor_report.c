// Findings as a table for people and as JSON for scripts.
#include "distill/doctor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *const words[] = {"skip", "ok", "warn", "fail"};
static const char *const marks[] = {"-", "ok", "warn", "FAIL"};
static const char *const colours[] = {"\033[2m", "\033[32m", "\033[33m", "\033[1;31m"};

static void add_clause(struct buf *b, const char *fmt, va_list args)
{
    char *text = NULL;
    if (vasprintf(&text, fmt, args) < 0) return;
    if (b->size) buf_puts(b, "; ");
    buf_puts(b, text);
    free(text);
}

void say(struct finding *f, enum verdict v, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add_clause(&f->found, fmt, args);
    va_end(args);
    if (v > f->verdict) f->verdict = v;
}

void fix(struct finding *f, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add_clause(&f->fix, fmt, args);
    va_end(args);
}

void number(struct finding *f, const char *key, double v)
{
    if (!f->numbers) f->numbers = json_object();
    bool whole = v > -9e15 && v < 9e15 && (double)(json_int_t)v <= v && (double)(json_int_t)v >= v;
    json_object_set_new(f->numbers, key, whole ? json_integer((json_int_t)v) : json_real(v));
}

struct size_text size_text(size_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int i = 0;
    for (; v >= 999.5 && i < 4; i++) v /= 1024;
    struct size_text t;
    snprintf(t.s, sizeof t.s, "%.3g %s", v, units[i]);
    return t;
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

struct table {
    size_t title, indent, width;
    bool colour;
};

static void print_line(const struct table *t, enum verdict v, const char *title, const char *of, const char *found, const char *mend)
{
    printf("%s%-6s%s%-*s%-9s", t->colour ? colours[v] : "", marks[v], t->colour ? "\033[0m" : "", (int)t->title + 2, title, of);
    put_wrapped(found, t->indent, t->width, true);
    if (!mend) return;
    struct buf line = {0};
    buf_printf(&line, "fix: %s", mend);
    put_wrapped(line.data, t->indent, t->width, false);
    buf_free(&line);
}

// Findings [first, last) that were skipped, those with the same reason in one line.
static void print_skipped(const struct table *t, const struct findings *all, size_t first, size_t last)
{
    for (size_t i = first; i < last; i++) {
        const struct finding *f = &all->v[i];
        bool told = f->verdict != V_SKIP;
        for (size_t k = first; k < i && !told; k++) told = all->v[k].verdict == V_SKIP && !strcmp(all->v[k].found.data, f->found.data);
        if (told) continue;
        struct buf line = {0};
        const char *title = NULL;
        buf_printf(&line, "%s: ", f->found.data);
        for (size_t k = i; k < last; k++) {
            if (all->v[k].verdict != V_SKIP || strcmp(all->v[k].found.data, f->found.data) != 0) continue;
            if (title == all->v[k].title) continue; // of teacher and of student
            buf_printf(&line, "%s%s", title ? ", " : "", all->v[k].title);
            title = all->v[k].title;
        }
        print_line(t, V_SKIP, "skipped", "", line.data, NULL);
        buf_free(&line);
    }
}

void findings_print(const struct findings *all, bool quiet)
{
    const char *no_color = getenv("NO_COLOR");
    struct table t = {.colour = isatty(STDOUT_FILENO) && !(no_color && *no_color), .width = terminal_width(), .title = 7};
    for (size_t i = 0; i < all->n; i++)
        if (strlen(all->v[i].title) > t.title) t.title = strlen(all->v[i].title);
    t.indent = 6 + t.title + 2 + 9;
    for (size_t i = 0, first = 0; i < all->n; i++) {
        const struct finding *f = &all->v[i];
        const bool data = !strcmp(column_of(f), "data");
        if (data && (!i || f->of != all->v[i - 1].of)) printf("%s\n", f->of);
        if (f->verdict != V_SKIP && (!quiet || f->verdict >= V_WARN))
            print_line(&t, f->verdict, f->title, data ? "" : column_of(f), f->found.data, f->fix.size ? f->fix.data : NULL);
        const bool end = i + 1 == all->n || (!strcmp(column_of(&all->v[i + 1]), "data") && f->of != all->v[i + 1].of);
        if (end && !quiet) print_skipped(&t, all, first, i + 1);
        if (end) first = i + 1;
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
