// Arenas over anonymous pages, and how much memory the system could still give.
#include "kernels/base/arena.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Under AddressSanitizer what is not handed out is poisoned, so that a view used after its arena_release is caught.
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

static const size_t HUGE_PAGE = (size_t)2 << 20;
static uint8_t *const FAKE_BASE = (uint8_t *)(uintptr_t)4096; // in the page that is never mapped upwards: touching it faults, or ASan tells

static const size_t MEASURED_MAX =
    SIZE_MAX / 2 / ARENA_ALIGN * ARENA_ALIGN; // what a model too large to count is measured as: no machine has it

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static double gib(size_t bytes)
{
    return (double)bytes / (1 << 30);
}

void arena_measure(struct arena *a, const char *name)
{
    *a = (struct arena){.base = FAKE_BASE, .size = SIZE_MAX, .measuring = true, .name = name};
}

enum status arena_init(struct arena *a, const char *name, size_t size_bytes, struct err *err)
{
    *a = (struct arena){.name = name};
    size_t free_bytes = mem_available_bytes();
    if (size_bytes > free_bytes || size_bytes > SIZE_MAX / 2)
        return err_set(err, ST_FAIL, "out of memory: %s needs %.2f GiB (%zu bytes), this machine has %.2f GiB free", name, gib(size_bytes),
                       size_bytes, gib(free_bytes));
    // One huge page more than asked, of which the ends are given back, so that the base lies on a huge page's boundary.
    size_t size = round_up(size_bytes ? size_bytes : 1, size_bytes >= HUGE_PAGE ? HUGE_PAGE : (size_t)sysconf(_SC_PAGESIZE));
    size_t span = size + (size >= HUGE_PAGE ? HUGE_PAGE : 0);
    uint8_t *p = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return err_set(err, ST_FAIL, "out of memory: %s needs %.2f GiB and the system refused: %s", name, gib(size_bytes), strerror(errno));
    if (span > size) {
        uint8_t *base = (uint8_t *)round_up((size_t)(uintptr_t)p, HUGE_PAGE);
        if (base > p) munmap(p, (size_t)(base - p));
        if (base + size < p + span) munmap(base + size, (size_t)(p + span - (base + size)));
        p = base;
#ifdef MADV_HUGEPAGE
        (void)madvise(p, size, MADV_HUGEPAGE); // a hint: a system without huge pages is only slower
#endif
    }
    a->base = p;
    a->size = size;
    POISON(p, size);
    return ST_OK;
}

void arena_free(struct arena *a)
{
    if (a->give) {
        a->give(a->base);
    } else if (a->base && !a->measuring) {
        UNPOISON(a->base, a->size);
        munmap(a->base, a->size);
    }
    *a = (struct arena){0};
}

void *arena_alloc(struct arena *a, size_t size_bytes)
{
    size_t n = round_up(size_bytes ? size_bytes : 1, ARENA_ALIGN);
    const bool wraps = n < size_bytes;
    if (a->measuring && (wraps || n > MEASURED_MAX - a->used))
        n = MEASURED_MAX - a->used;
    else if (wraps || n > a->size - a->used)
        BUG("arena %s is full: %zu of %zu bytes are used and %zu more were asked for; the plan was wrong", a->name ? a->name : "(empty)",
            a->used, a->size, size_bytes);
    // Integers, for while measuring the address is no object's.
    void *p = (void *)((uintptr_t)a->base + a->used);
    a->used += n;
    if (a->used > a->peak) a->peak = a->used;
    if (!a->measuring && !a->give) UNPOISON(p, n);
    return p;
}

size_t arena_mark(const struct arena *a)
{
    return a->used;
}

void arena_release(struct arena *a, size_t mark)
{
    if (mark > a->used) BUG("arena %s released to %zu, beyond the %zu bytes used", a->name, mark, a->used);
    if (!a->measuring && !a->give && a->base) POISON(a->base + mark, a->used - mark);
    a->used = mark;
}

// The number in a file that holds one ("max" and unreadable files: SIZE_MAX), or behind `key` in a file of "key number" lines.
static size_t number_in(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    if (!f) return SIZE_MAX;
    char line[256];
    size_t value = SIZE_MAX, n_key = key ? strlen(key) : 0;
    while (fgets(line, sizeof line, f)) {
        if (n_key && (strncmp(line, key, n_key) || (line[n_key] != ' ' && line[n_key] != ':'))) continue;
        unsigned long long v;
        if (sscanf(line + n_key + (n_key ? 1 : 0), "%llu", &v) == 1) value = (size_t)v;
        break;
    }
    fclose(f);
    return value;
}

// What the control group in `dir` may still take: its limit less its use, file pages that can be dropped not counted as use.
static size_t cgroup_room(const char *dir, const char *f_max, const char *f_now, const char *stat_key)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, f_max);
    size_t max = number_in(path, NULL);
    snprintf(path, sizeof path, "%s/%s", dir, f_now);
    size_t now = number_in(path, NULL);
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    size_t file = number_in(path, stat_key);
    if (max == SIZE_MAX || now == SIZE_MAX) return SIZE_MAX;
    if (file != SIZE_MAX) now = now > file ? now - file : 0;
    return max > now ? max - now : 0;
}

// The least room on the way from our control group up to the root. Version 2 has one line "0::/path" in /proc/self/cgroup.
static size_t cgroup_available(void)
{
    size_t least = cgroup_room("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (!f) return least;
    char line[800], dir[900];
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3)) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", line + 3);
        for (char *slash; strlen(dir) >= strlen("/sys/fs/cgroup"); *slash = '\0') {
            size_t room = cgroup_room(dir, "memory.max", "memory.current", "inactive_file");
            if (room < least) least = room;
            slash = strrchr(dir, '/');
        }
    }
    fclose(f);
    return least;
}

size_t mem_available_bytes(void)
{
    size_t kib = number_in("/proc/meminfo", "MemAvailable"), room = cgroup_available();
    size_t system = kib == SIZE_MAX ? (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) : kib * 1024;
    return room < system ? room : system;
}
