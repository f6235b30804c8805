// The live line and the plain line.
#include "distill/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double progress_elapsed_s(const struct progress *p)
{
    return now_s() - p->start_s;
}

struct progress progress_start(const char *job, const char *item, int64_t total, int64_t first, const char *unit, bool quiet)
{
    return (struct progress){.job = job,
                             .item = item,
                             .unit = unit,
                             .total = total,
                             .first = first,
                             .done = first,
                             .quiet = quiet,
                             .live = !quiet && isatty(STDERR_FILENO),
                             .start_s = now_s(),
                             .last_s = -1e9};
}

// 950, 9.8k, 1.2M
static void short_number(char *text, size_t n, double v)
{
    if (v >= 999.5e3)
        snprintf(text, n, "%.1fM", v * 1e-6);
    else if (v >= 999.5)
        snprintf(text, n, "%.1fk", v * 1e-3);
    else
        snprintf(text, n, v >= 10 ? "%.0f" : "%.1f", v);
}

// 45s, 1m20s, 3h05m
static void short_time(char *text, size_t n, double s)
{
    long t = (long)(s + 0.5);
    if (t < 60)
        snprintf(text, n, "%lds", t);
    else if (t < 3600)
        snprintf(text, n, "%ldm%02lds", t / 60, t % 60);
    else
        snprintf(text, n, "%ldh%02ldm", t / 3600, t / 60 % 60);
}

static void clear_live(struct progress *p)
{
    if (p->live && p->shown) fputs("\r\033[K", stderr);
    p->shown = false;
}

static size_t columns_of(const char *c, size_t *len)
{
    utf8proc_int32_t point;
    const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)c, -1, &point);
    *len = n < 1 ? 1 : (size_t)n;
    return n < 1 ? 1 : (size_t)utf8proc_charwidth(point);
}

static size_t text_columns(const char *text)
{
    size_t columns = 0;
    for (size_t len; *text; text += len) columns += columns_of(text, &len);
    return columns;
}

const char *text_end(const char *text, size_t columns)
{
    size_t len, all = text_columns(text);
    for (; all > columns; text += len) all -= columns_of(text, &len);
    while (*text && !columns_of(text, &len)) text += len; // a mark whose letter is gone
    return text;
}

// A live line longer than the terminal would wrap and could not be taken back: cut at its width, at a whole character; a shorter one is
// filled with the end of what is being written.
static void print_live(const struct progress *p, char *line)
{
    enum { LEAST = 12 };
    struct winsize w;
    const size_t width = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1u : 79, used = text_columns(line);
    size_t len;
    if (used > width) {
        char *end = line;
        for (size_t left = width; columns_of(end, &len) <= left; end += len) left -= columns_of(end, &len);
        *end = '\0';
    }
    fprintf(stderr, "\r\033[K%s", line);
    if (p->tail && *p->tail && used + LEAST <= width) fprintf(stderr, "  …%s", text_end(p->tail, width - used - 4));
}

void progress_step(struct progress *p, int64_t done, int64_t work, const char *fmt, ...)
{
    p->done = done;
    if (p->quiet) return;
    double now = now_s(), since = now - p->last_s;
    bool last = p->total && done >= p->total;
    if (!last && since < (p->live ? 0.1 : p->plain_every_s)) return;
    p->last_s = now;

    char line[512], rate[32], eta[32], text[256] = "", total[32] = "";
    double t = now - p->start_s;
    int64_t n = done - p->first;
    short_number(rate, sizeof rate, t > 0 ? (double)(p->unit ? work : n) / t : 0);
    if (fmt) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(text, sizeof text, fmt, args);
        va_end(args);
    }
    if (p->total) snprintf(total, sizeof total, "/%lld", (long long)p->total);
    short_time(eta, sizeof eta, last ? t : n > 0 && p->total ? t / (double)n * (double)(p->total - done) : 0);
    const char *eta_word = last ? "  in " : n > 0 && p->total ? "  ETA " : "";
    snprintf(line, sizeof line, "%s  %lld%s %ss  %s %s/s%s%s%s%s", p->job, (long long)done, total, p->item, rate,
             p->unit ? p->unit : p->item, *text ? "  " : "", text, eta_word, *eta_word ? eta : "");
    if (p->live) {
        print_live(p, line);
        p->shown = true;
    } else {
        fprintf(stderr, "%s\n", line);
    }
    fflush(stderr);
}

void progress_note(struct progress *p, const char *fmt, ...)
{
    if (p->quiet) return;
    va_list args;
    clear_live(p);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    p->last_s = -1e9; // the live line comes back with the next step
}

void progress_end(struct progress *p)
{
    if (p->live && p->shown) fputc('\n', stderr);
    p->shown = false;
}
