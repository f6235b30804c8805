// Devices: opening by name, the step memory, the sticky error.
#include "kernels/device.h"

#include "kernels/cpu/cpu.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <string.h>

// The backends compiled in, by the word before the colon. A new one: its row here and its folder.
static const struct {
    const char *name;
    enum status (*pick)(const struct backend **out, const char *name, struct err *err);
} family[] = {
    {"cpu", cpu_backend},
};
static const char *const not_compiled[] = {"cuda"}; // names we know, for a better sentence than "unknown"

enum status dev_open(struct device *dev, const char *name, int n_thread, struct err *err)
{
    memset(dev, 0, sizeof *dev);
    size_t len = strcspn(name, ":");
    for (size_t i = 0; i < sizeof family / sizeof *family; i++) {
        if (len != strlen(family[i].name) || memcmp(name, family[i].name, len)) continue;
        TRY(family[i].pick(&dev->backend, name, err));
        dev->n_thread = n_thread;
        dev->arena.name = dev->backend->name;
        return dev->backend->open(dev, err);
    }
    for (size_t i = 0; i < sizeof not_compiled / sizeof *not_compiled; i++)
        if (len == strlen(not_compiled[i]) && !memcmp(name, not_compiled[i], len))
            return err_set(err, ST_BAD_INPUT, "device %s: this distill was built without %s. Use --device cpu", name, not_compiled[i]);
    return err_set(err, ST_BAD_INPUT,
                   "device %s: not known. Known: cpu (the best this machine has), cpu:generic, cpu:avx2, cpu:avx512, "
                   "cpu:avx512bf16",
                   name);
}

void dev_close(struct device *dev)
{
    if (!dev->backend) return;
    if (dev->arena.base) arena_free(&dev->arena);
    dev->backend->close(dev);
    memset(dev, 0, sizeof *dev);
}

void dev_measure(struct device *dev)
{
    if (dev->arena.base && !dev->arena.measuring) arena_free(&dev->arena);
    arena_measure(&dev->arena, dev->backend->name);
    dev->measuring = true;
}

enum status dev_reserve(struct device *dev, size_t size_bytes, struct err *err)
{
    if (dev->arena.base && !dev->arena.measuring) arena_free(&dev->arena);
    dev->measuring = false;
    return arena_init(&dev->arena, dev->backend->name, size_bytes, err);
}

enum status dev_check(struct device *dev, struct err *err)
{
    if (!dev->error.code) return ST_OK;
    *err = dev->error;
    dev->error = (struct err){0};
    return err->code;
}

void dev_fail(struct device *dev, const char *op, const char *fmt, ...)
{
    if (dev->error.code) return;
    char why[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    err_set(&dev->error, ST_FAIL, "%s on %s: %s", op, dev->backend ? dev->backend->name : "?", why);
}

void *dev_scratch(struct device *dev, size_t size_bytes)
{
    return arena_alloc(&dev->arena, size_bytes);
}

struct tensor dev_1d(struct device *dev, enum dtype t, int64_t a)
{
    return tensor_1d(arena_alloc(&dev->arena, (size_t)a * dtype_size(t)), t, a);
}
struct tensor dev_2d(struct device *dev, enum dtype t, int64_t a, int64_t b)
{
    return tensor_2d(arena_alloc(&dev->arena, (size_t)(a * b) * dtype_size(t)), t, a, b);
}
struct tensor dev_3d(struct device *dev, enum dtype t, int64_t a, int64_t b, int64_t c)
{
    return tensor_3d(arena_alloc(&dev->arena, (size_t)(a * b * c) * dtype_size(t)), t, a, b, c);
}
