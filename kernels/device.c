// Devices: opening by name, the step memory, the sticky error.
#include "kernels/device.h"

#include "kernels/cpu/cpu.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <string.h>

// The backends, by the word before the colon; NULL: not compiled in. A new one: its row here and its folder.
static const struct {
    const char *name;
    enum status (*pick)(const struct backend **out, const char *name, struct err *err);
} family[] = {
    {"cpu", cpu_backend},
    {"cuda", cuda_backend},
};

const char *dev_default(void)
{
    return cuda_device_count && cuda_device_count() > 0 ? "cuda" : "cpu";
}

enum status dev_open(struct device *dev, const char *name, int n_thread, struct err *err)
{
    memset(dev, 0, sizeof *dev);
    if (!strcmp(name, "auto")) name = dev_default();
    size_t len = strcspn(name, ":");
    for (size_t i = 0; i < sizeof family / sizeof *family; i++) {
        if (len != strlen(family[i].name) || memcmp(name, family[i].name, len)) continue;
        if (!family[i].pick)
            return err_set(err, ST_BAD_INPUT, "device %s: this distill was built without %s. Use --device cpu", name, family[i].name);
        TRY(family[i].pick(&dev->backend, name, err));
        dev->n_thread = n_thread;
        dev->batch_invariant = true;
        dev->arena.name = dev->backend->name;
        return dev->backend->open(dev, err);
    }
    return err_set(err, ST_BAD_INPUT,
                   "device %s: not known. Known: cpu (the best this machine has), cpu:generic, cpu:avx2, cpu:avx512, "
                   "cpu:avx512bf16, cuda, cuda:N",
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
    return dev_arena(dev, &dev->arena, dev->backend->name, size_bytes, err);
}

enum status dev_arena(struct device *dev, struct arena *a, const char *name, size_t size_bytes, struct err *err)
{
    dev->n_arena++;
    if (dev->backend->host_memory) return arena_init(a, name, size_bytes, err);
    void *base;
    *a = (struct arena){.name = name};
    TRY(dev->backend->mem_take(dev, &base, size_bytes, name, err));
    *a = (struct arena){.base = base, .size = size_bytes, .name = name, .give = dev->backend->mem_give};
    return ST_OK;
}

bool dev_step_begin(struct device *dev, const void *key, size_t n)
{
    struct {
        uint64_t n_arena;
        unsigned char key[80];
    } whole = {.n_arena = dev->n_arena};
    if (n > sizeof whole.key) BUG("a step's key of %zu bytes", n);
    if (!dev_records(dev) || dev->measuring || dev->sync || dev->error.code) return false;
    memcpy(whole.key, key, n);
    return dev->backend->step_begin(dev, &whole, offsetof(__typeof__(whole), key) + n);
}

void dev_step_pause(struct device *dev)
{
    if (dev_records(dev) && !dev->measuring) dev->backend->step_pause(dev);
}

void dev_step_resume(struct device *dev)
{
    if (dev_records(dev) && !dev->measuring) dev->backend->step_resume(dev);
}

void dev_step_end(struct device *dev)
{
    if (dev_records(dev) && !dev->measuring) dev->backend->step_end(dev);
}

bool dev_records(const struct device *dev)
{
    return dev->backend->step_begin != NULL;
}

size_t dev_available_bytes(struct device *dev)
{
    return dev->backend->host_memory ? mem_available_bytes() : dev->backend->mem_free_bytes(dev);
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

void dev_fail_op(struct device *dev, const char *fmt, ...)
{
    if (dev->error.code) return;
    char why[2048];
    va_list ap;
    va_start(ap, fmt);
    size_t at = (size_t)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    for (int i = 0; i < dev->n_seen && at < sizeof why - 128; i++) {
        char text[96];
        tensor_describe(dev->seen[i], text, sizeof text);
        at += (size_t)snprintf(why + at, sizeof why - at, "%s%s", i ? ", " : "; its tensors: ", text);
    }
    dev_fail(dev, dev->op ? dev->op : "device", "%s", why);
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
