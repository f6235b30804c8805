#include "tests/kernels/edited.h"

#include "tests/test.h"

#include <dirent.h>

void edited_checkpoint(const char *from, const char *to, void (*edit)(struct edited_tensor *t, void *arg), void *arg)
{
    struct err err = {0};
    struct st_set set;
    struct st_writer *w;
    char *config = path_join(from, "config.json"), *config_to = path_join(to, "config.json"), *model = path_join(to, "model.safetensors");
    ck_ok(file_copy(config, config_to, &err));
    ck_ok(st_open_dir(&set, from, &err));
    struct edited_tensor *t = NEW_N(struct edited_tensor, set.n + 1);
    ck_ok(st_create(&w, model, &err));
    for (size_t i = 0; i < set.n; i++) {
        const struct st_tensor *s = &set.v[i];
        snprintf(t[i].name, sizeof t[i].name, "%s", s->name);
        snprintf(t[i].dtype, sizeof t[i].dtype, "%s", s->dtype);
        t[i].rank = s->rank;
        memcpy(t[i].shape, s->shape, sizeof t[i].shape);
        t[i].size = s->size_bytes;
        t[i].data = mem_alloc(s->size_bytes + 8);
        memcpy(t[i].data, s->data, s->size_bytes);
        if (edit) edit(&t[i], arg);
        if (!t[i].drop) st_declare(w, t[i].name, t[i].dtype, t[i].rank, t[i].shape);
    }
    ck_ok(st_begin(w, &err));
    for (size_t i = 0; i < set.n; i++) {
        if (!t[i].drop) ck_ok(st_put(w, t[i].data, t[i].size, &err));
        mem_free(t[i].data);
    }
    ck_ok(st_finish(w, &err));
    st_close(&set);
    mem_free(t);
    mem_free(config);
    mem_free(config_to);
    mem_free(model);
}

void edited_text(const char *dir, const char *file, const char *old, const char *new)
{
    struct err err = {0};
    struct buf b = {0}, out = {0};
    char *path = path_join(dir, file);
    ck_ok(file_read(&b, path, 1 << 24, &err));
    char *at = memmem(b.data, b.size, old, strlen(old));
    ck_assert_msg(at != NULL, "%s holds no %s", file, old);
    buf_put(&out, b.data, (size_t)(at - b.data));
    buf_puts(&out, new);
    buf_put(&out, at + strlen(old), b.size - (size_t)(at - b.data) - strlen(old));
    ck_ok(file_write_atomic(path, out.data, out.size, &err));
    buf_free(&b);
    buf_free(&out);
    mem_free(path);
}

void copied_folder(const char *from, const char *to)
{
    struct err err = {0};
    DIR *d = opendir(from);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        char *a = path_join(from, e->d_name), *b = path_join(to, e->d_name);
        ck_ok(file_copy(a, b, &err));
        mem_free(a);
        mem_free(b);
    }
    closedir(d);
}
