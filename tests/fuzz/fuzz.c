// The folder in memory, dividing inputs, and checks. See fuzz.h.
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void fuzz_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort(); // libFuzzer prints the trace and keeps the input
}

bool fuzz_ok(enum status st, const struct err *err)
{
    FUZZ_CHECK(st == ST_OK || st == ST_FAIL || st == ST_BAD_INPUT);
    FUZZ_CHECK(st == ST_OK || err->text[0]);
    return st == ST_OK;
}

int fuzz_parts(struct part *out, int max, const uint8_t *data, size_t size)
{
    static const char line[] = "\n====\n";
    int n = 0;
    for (;;) {
        const uint8_t *cut = n + 1 < max && size ? memmem(data, size, line, sizeof line - 1) : NULL;
        out[n++] = (struct part){data, cut ? (size_t)(cut - data) : size};
        if (!cut) return n;
        size -= (size_t)(cut - data) + sizeof line - 1;
        data = cut + sizeof line - 1;
    }
}

static char dir[64];

static void remove_dir(void)
{
    struct err ignored;
    dir_remove(dir, &ignored);
}

const char *fuzz_dir(void)
{
    if (*dir) return dir;
    snprintf(dir, sizeof dir, "%s/distill-fuzz.XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    FUZZ_CHECK(mkdtemp(dir));
    atexit(remove_dir);
    return dir;
}

const char *fuzz_path(const char *name)
{
    static char path[8][128];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", fuzz_dir(), name);
    return p;
}

const char *fuzz_put(const char *name, struct part part)
{
    const char *path = fuzz_path(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(!part.n || write(fd, part.p, part.n) == (ssize_t)part.n);
    close(fd);
    return path;
}

void fuzz_drop(const char *name)
{
    unlink(fuzz_path(name));
}
