// safetensors: one file as it stands; the same with the header's length mended, which lets the fuzzer work on the header; and a folder with
// an index and two shards. Every tensor of a file that was accepted must lie in the file.
#include "kernels/model/safetensors.h"

#include "tests/fuzz/fuzz.h"

#include <string.h>

static void use(struct st_set *s)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct st_tensor *t = &s->v[i];
        const struct file_map *m = &s->maps[t->file];
        FUZZ_CHECK(t->data >= m->data && t->size_bytes <= m->size && t->data <= m->data + (m->size - t->size_bytes));
        FUZZ_CHECK(t->rank >= 0 && t->rank <= 8);
        FUZZ_CHECK(st_find(s, t->name) == t);
        enum dtype dtype;
        int64_t n = 1;
        for (int k = 0; k < t->rank; k++) n *= t->shape[k];
        if (st_dtype(t->dtype, &dtype)) FUZZ_CHECK((uint64_t)n * dtype_size(dtype) == t->size_bytes);
    }
    st_close(s);
}

// header, a part, then data: the file that has them.
static const char *put_file(const char *name, struct part header, struct part data)
{
    struct buf file = {0};
    uint64_t n = header.n;
    buf_put(&file, &n, sizeof n);
    buf_put(&file, header.p, header.n);
    buf_put(&file, data.p, data.n);
    const char *path = fuzz_put(name, (struct part){(const uint8_t *)file.data, file.size});
    buf_free(&file);
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct st_set set;
    struct err err = {0};
    struct part p[5];
    int n = fuzz_parts(p, 5, data, size);
    if (n == 1 && fuzz_ok(st_open(&set, fuzz_put("one", p[0]), &err), &err)) use(&set);
    if (n == 2 && fuzz_ok(st_open(&set, put_file("one", p[0], p[1]), &err), &err)) use(&set);
    if (n < 3) return 0;
    fuzz_put("model.safetensors.index.json", p[0]);
    put_file("a.safetensors", p[1], p[2]);
    if (n == 5) put_file("b.safetensors", p[3], p[4]);
    if (fuzz_ok(st_open_dir(&set, fuzz_dir(), &err), &err)) use(&set);
    fuzz_drop("b.safetensors");
    return 0;
}
