// The file of choices: a line a choice, "device|version" its first word, then its bytes. A line of another device or library, or
// of another process that runs beside this one, is kept as it is when the file is written.
#include "kernels/cuda/choices.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE = 2 * 512 + 256 }; // records of 512 bytes at most

static bool cache_path(const struct choices *c, char *path, size_t n, bool make)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (base && *base)
        snprintf(path, n, "%s", base);
    else if (home && *home)
        snprintf(path, n, "%s/.cache", home);
    else
        return false;
    if (make) mkdir(path, 0777);
    size_t at = strlen(path);
    snprintf(path + at, n - at, "/distill");
    if (make) mkdir(path, 0777);
    at = strlen(path);
    snprintf(path + at, n - at, "/%s", c->file);
    return true;
}

static void hex_put(char *out, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", ((const unsigned char *)bytes)[i]);
}
static bool hex_get(void *bytes, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned v;
        if (sscanf(text + 2 * i, "%2x", &v) != 1) return false;
        ((unsigned char *)bytes)[i] = (unsigned char)v;
    }
    return true;
}
static bool read_line(const struct choices *c, const char *line, void *record)
{
    const size_t n = strlen(c->who);
    if (strncmp(line, c->who, n) || line[n] != ' ' || strcspn(line + n + 1, "\n") != 2 * c->size) return false;
    return hex_get(record, line + n + 1, c->size);
}

void choices_open(struct choices *c, const char *file, const char *device_name, size_t version, size_t key_size, size_t size)
{
    char path[1024], line[LINE];
    unsigned char record[512];
    memset(c, 0, sizeof *c);
    c->file = file;
    c->key_size = key_size;
    c->size = size;
    snprintf(c->who, sizeof c->who, "%.40s|%zu", device_name, version);
    for (char *p = c->who; *p; p++)
        if (*p == ' ') *p = '_';
    FILE *f = cache_path(c, path, sizeof path, false) ? fopen(path, "r") : NULL;
    while (f && fgets(line, sizeof line, f))
        if (read_line(c, line, record)) choices_keep(c, record);
    if (f) fclose(f);
}

const void *choices_find(const struct choices *c, const void *key)
{
    for (int i = 0; i < c->n; i++)
        if (!memcmp(c->all + (size_t)i * c->size, key, c->key_size)) return c->all + (size_t)i * c->size;
    return NULL;
}

void choices_keep(struct choices *c, const void *record)
{
    if (c->n == c->n_room) {
        const int room = c->n_room ? 2 * c->n_room : 64;
        unsigned char *more = (unsigned char *)realloc(c->all, (size_t)room * c->size);
        if (!more) return;
        c->all = more;
        c->n_room = room;
    }
    memcpy(c->all + (size_t)c->n++ * c->size, record, c->size);
}

static void write_all(const struct choices *c)
{
    char path[1024], part[1060], line[LINE];
    unsigned char record[512];
    if (!cache_path(c, path, sizeof path, true)) return;
    snprintf(part, sizeof part, "%s.%ld", path, (long)getpid());
    FILE *out = fopen(part, "w"), *in = fopen(path, "r");
    while (out && in && fgets(line, sizeof line, in)) // of other devices, and what other processes have added
        if (!read_line(c, line, record) || !choices_find(c, record)) fputs(line, out);
    if (in) fclose(in);
    for (int i = 0; out && i < c->n; i++) {
        hex_put(line, c->all + (size_t)i * c->size, c->size);
        fprintf(out, "%s %s\n", c->who, line);
    }
    if (out && (fclose(out) || rename(part, path))) unlink(part); // a cache: a full disk is no failure of the run
}

void choices_save(struct choices *c)
{
    if (c->changed) write_all(c);
    c->changed = false;
}
void choices_close(struct choices *c)
{
    choices_save(c);
    free(c->all);
    memset(c, 0, sizeof *c);
}
