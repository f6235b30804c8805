// Saving and loading: weights in their file's dtype, optimizer state by parameter name, position as JSON, all atomically.
#include "student/checkpoint.h"

#include "datasets/tokenizer/gguf.h"
#include "kernels/model/gguf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const MODEL_FILES[] = {"config.json",
                                          "generation_config.json",
                                          "tokenizer.json",
                                          "tokenizer_config.json",
                                          "chat_template.jinja",
                                          "vocab.json",
                                          "merges.txt",
                                          "tokenizer.model",
                                          "added_tokens.json",
                                          "special_tokens_map.json",
                                          NULL};
static const char TEMPLATES[] = "additional_chat_templates"; // a folder of *.jinja
enum { CHUNK = 1 << 20 };                                    // elements brought to the host at a time

// ---- the folder ----

// The process that holds a flock on this inode, from /proc/locks; 0 if the system does not tell.
static long lock_holder(int fd)
{
    struct stat st;
    FILE *f = fopen("/proc/locks", "r");
    if (!f) return 0;
    char line[256];
    long holder = 0, pid;
    unsigned long inode;
    if (fstat(fd, &st) == 0)
        while (!holder && fgets(line, sizeof line, f))
            if (strstr(line, " FLOCK ") && sscanf(strstr(line, " FLOCK "), " FLOCK %*s %*s %ld %*x:%*x:%lu", &pid, &inode) == 2 &&
                inode == st.st_ino)
                holder = pid;
    fclose(f);
    return holder;
}

// Removes entries of a folder whose name holds ".tmp." (we have the lock: their writers are dead).
static enum status remove_leftovers(const char *dir, struct err *err)
{
    DIR *d = opendir(dir);
    if (!d) return ST_OK;
    enum status st = ST_OK;
    for (struct dirent *e; !st && (e = readdir(d));) {
        if (!strstr(e->d_name, ".tmp.")) continue;
        char *path = path_join(dir, e->d_name);
        struct stat s;
        if (lstat(path, &s) == 0 && S_ISDIR(s.st_mode))
            st = dir_remove(path, err);
        else
            unlink(path);
        mem_free(path);
    }
    closedir(d);
    return st;
}

enum status run_dir_open(struct run_dir *d, const char *path, struct err *err)
{
    *d = (struct run_dir){.lock_fd = -1};
    TRY(dir_make(path, err));
    d->path = mem_strdup(path);
    d->lock_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status st = ST_OK;
    if (d->lock_fd < 0) {
        st = err_errno(err, "open", path);
    } else if (flock(d->lock_fd, LOCK_EX | LOCK_NB)) {
        char who[48] = "another process";
        long pid = errno == EWOULDBLOCK ? lock_holder(d->lock_fd) : 0;
        if (pid > 0) snprintf(who, sizeof who, "process %ld", pid);
        st = errno == EWOULDBLOCK || pid
                 ? err_set(err, ST_BAD_INPUT, "%s: %s is training into this folder; wait until it is done, stop it, or give another --out",
                           path, who)
                 : err_errno(err, "lock", path);
    }
    static const char *const inner[] = {"", "state", "checkpoints"};
    for (int i = 0; !st && i < 3; i++) {
        char *sub = path_join(path, inner[i]);
        st = remove_leftovers(sub, err);
        mem_free(sub);
    }
    if (st) run_dir_close(d);
    return st;
}

void run_dir_close(struct run_dir *d)
{
    if (d->path && d->lock_fd >= 0) close(d->lock_fd);
    mem_free(d->path);
    *d = (struct run_dir){.lock_fd = -1};
}

// ---- steps in a folder ----

static char *step_name(const char *dir, const char *sub, int64_t step)
{
    return mem_printf("%s/%s/step-%08lld", dir, sub, (long long)step);
}

static int by_step(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// The steps for which DIR/SUB has a whole entry, rising; mem_free it.
static int64_t *list_steps(const char *dir, const char *sub, size_t *n)
{
    *n = 0;
    size_t cap = 16;
    int64_t *steps = NEW_N(int64_t, cap);
    char *path = path_join(dir, sub);
    DIR *d = opendir(path);
    mem_free(path);
    if (!d) return steps;
    for (struct dirent *e; (e = readdir(d));) {
        long long step;
        int used = 0;
        if (sscanf(e->d_name, "step-%lld%n", &step, &used) != 1 || e->d_name[used]) continue;
        if (*n == cap) steps = mem_realloc(steps, (cap *= 2) * sizeof *steps);
        steps[(*n)++] = step;
    }
    closedir(d);
    qsort(steps, *n, sizeof *steps, by_step);
    return steps;
}

// Removes all but the newest `keep` of the steps below `before`.
static enum status prune(const char *dir, const char *sub, int64_t before, size_t keep, struct err *err)
{
    size_t n, n_old = 0;
    int64_t *steps = list_steps(dir, sub, &n);
    enum status st = ST_OK;
    while (n_old < n && steps[n_old] < before) n_old++;
    for (size_t i = 0; !st && i + keep < n_old; i++) {
        char *path = step_name(dir, sub, steps[i]);
        st = dir_remove(path, err);
        mem_free(path);
    }
    mem_free(steps);
    return st;
}

// ---- weights ----

// n values of f32 as the file's dtype has them; the bytes lie in `out` (room for 4n).
static size_t encode(void *out, const float *x, size_t n, const char *dtype)
{
    if (!strcmp(dtype, "F32")) {
        memcpy(out, x, n * 4);
        return n * 4;
    }
    uint16_t *h = out;
    bool half = !strcmp(dtype, "F16");
    for (size_t i = 0; i < n; i++) h[i] = half ? f32_to_f16(x[i]) : f32_to_bf16(x[i]);
    return n * 2;
}

static const char *file_dtype(const struct param *p)
{
    return !strcmp(p->file_dtype, "F32") || !strcmp(p->file_dtype, "F16") || !strcmp(p->file_dtype, "BF16") ? p->file_dtype : "F32";
}

// Where the exact value of a parameter is: its master, or the weight itself if it has no slot.
static struct tensor exact_value(const struct trainer *t, const struct param *p)
{
    for (size_t i = 0; i < t->optimizer.n_slot; i++)
        if (t->optimizer.slot[i].param == p) return t->optimizer.slot[i].part[SLOT_MASTER];
    return tensor_1d(p->weight.data, p->weight.dtype, tensor_numel(p->weight));
}

// Streams a flat tensor into the writer as `dtype`, as it is if that is its own. buf: 2 * CHUNK floats.
static enum status put_tensor(struct st_writer *w, struct device *dev, struct tensor x, const char *dtype, float *buf, struct err *err)
{
    const bool as_it_is = !strcmp(dtype, st_dtype_name(x.dtype)), widen = !as_it_is && x.dtype == DT_BF16;
    for (int64_t at = 0; at < x.shape[0]; at += CHUNK) {
        const int64_t n = x.shape[0] - at < CHUNK ? x.shape[0] - at : CHUNK;
        void *to = as_it_is || widen ? (void *)(buf + CHUNK) : (void *)buf;
        size_t bytes = (size_t)n * dtype_size(x.dtype);
        op_download(dev, to, tensor_rows(x, at, n));
        for (int64_t i = 0; widen && i < n; i++) buf[i] = bf16_to_f32(((const bf16 *)to)[i]);
        if (!as_it_is) bytes = encode(buf + CHUNK, buf, (size_t)n, dtype);
        TRY(dev_check(dev, err));
        TRY(st_put(w, buf + CHUNK, bytes, err));
    }
    return ST_OK;
}

static enum status save_model(const struct trainer *t, const char *dir, struct err *err)
{
    const struct model *m = t->model;
    char *path = path_join(dir, "model.safetensors");
    struct st_writer *w = NULL;
    float *buf = NEW_N(float, 2 * CHUNK);
    enum status st = st_create(&w, path, err);
    for (size_t i = 0; !st && i < m->n_param; i++)
        st_declare(w, m->params[i].name, file_dtype(&m->params[i]), m->params[i].rank, m->params[i].shape);
    if (!st) st = st_begin(w, err);
    for (size_t i = 0; !st && i < m->n_param; i++)
        st = put_tensor(w, t->dev, exact_value(t, &m->params[i]), file_dtype(&m->params[i]), buf, err);
    if (!st) {
        st = st_finish(w, err);
        w = NULL;
    }
    if (w) st_abort(w);
    if (!st) st = dir_sync(dir, err);
    mem_free(buf);
    mem_free(path);
    return st;
}

// ---- state ----

// The parts of all slots that are there, one by one; *at begins at 0. False after the last.
static bool next_part(const struct optimizer *o, size_t *at, const struct slot **s, enum slot_part *part)
{
    for (; *at < o->n_slot * N_SLOT_PART; (*at)++) {
        *s = &o->slot[*at / N_SLOT_PART];
        *part = (enum slot_part)(*at % N_SLOT_PART);
        if (tensor_none((*s)->part[*part])) continue;
        (*at)++;
        return true;
    }
    return false;
}

static char *part_name(const struct slot *s, enum slot_part part)
{
    return mem_printf("%s.%s", s->param->name, slot_part_names[part]);
}

static void declare_part(struct st_writer *w, const struct slot *s, enum slot_part part)
{
    const struct tensor x = s->part[part];
    const bool whole = x.shape[0] == s->weight.shape[0]; // units are fewer than weights
    char *name = part_name(s, part);
    st_declare(w, name, st_dtype_name(x.dtype), whole ? s->param->rank : 1, whole ? s->param->shape : x.shape);
    mem_free(name);
}

static enum status save_optimizer(const struct trainer *t, const char *dir, struct err *err)
{
    const struct optimizer *o = &t->optimizer;
    const struct slot *s;
    enum slot_part part;
    char *path = path_join(dir, "optimizer.safetensors");
    struct st_writer *w = NULL;
    float *buf = NEW_N(float, 2 * CHUNK);
    enum status st = st_create(&w, path, err);
    for (size_t at = 0; !st && next_part(o, &at, &s, &part);) declare_part(w, s, part);
    if (!st) st = st_begin(w, err);
    for (size_t at = 0; !st && next_part(o, &at, &s, &part);)
        st = put_tensor(w, t->dev, s->part[part], st_dtype_name(s->part[part].dtype), buf, err);
    if (!st) {
        st = st_finish(w, err);
        w = NULL;
    }
    if (w) st_abort(w);
    mem_free(buf);
    mem_free(path);
    return st;
}

static enum status save_state(const char *dir, const struct trainer *t, const struct position *pos, struct err *err)
{
    char *state = path_join(dir, "state"), *final = step_name(dir, "state", pos->step);
    char *tmp = mem_printf("%s.tmp.%ld", final, (long)getpid()), *json_path = path_join(tmp, "position.json");
    json_t *root = json_pack("{s:s, s:i, s:I, s:I, s:I, s:b, s:I, s:f}", "format", "distill-train-state", "version", 1, "step",
                             (json_int_t)pos->step, "n_tok", (json_int_t)pos->n_tok, "seed", (json_int_t)t->opt.pack.seed, "shuffle",
                             t->opt.pack.shuffle, "n_row", (json_int_t)t->rows->n, "t_s", pos->t_s);
    enum status st = dir_make(tmp, err);
    if (!st) st = save_optimizer(t, tmp, err);
    if (!st) st = json_write_atomic(root, json_path, err);
    if (!st) st = dir_sync(tmp, err);
    if (!st && file_exists(final)) st = dir_remove(final, err);
    if (!st && rename(tmp, final)) st = err_errno(err, "rename", tmp);
    if (!st) st = dir_sync(state, err);
    struct err ignored = {0};
    if (st) dir_remove(tmp, &ignored);
    json_decref(root);
    mem_free(json_path);
    mem_free(tmp);
    mem_free(final);
    mem_free(state);
    return st;
}

// ---- a model's other files ----

typedef enum status take_file(const char *from_dir, const char *to_dir, const char *name, struct err *err);

// All but the weights, one by one, those that are there.
static enum status take_files(const char *from_dir, const char *to_dir, take_file *take, struct err *err)
{
    char **names, *from = path_join(from_dir, TEMPLATES), *to = path_join(to_dir, TEMPLATES);
    const size_t n = dir_names(&names, from, ".jinja");
    enum status st = n ? dir_make(to, err) : ST_OK;
    for (const char *const *f = MODEL_FILES; !st && *f; f++) st = take(from_dir, to_dir, *f, err);
    for (size_t i = 0; !st && i < n; i++) {
        char *name = path_join(TEMPLATES, names[i]);
        st = take(from_dir, to_dir, name, err);
        mem_free(name);
    }
    names_free(names, n);
    mem_free(from);
    mem_free(to);
    return st;
}

// ---- older models ----

static enum status link_or_copy(const char *from_dir, const char *to_dir, const char *name, struct err *err)
{
    char *from = path_join(from_dir, name), *to = path_join(to_dir, name);
    enum status st = ST_OK;
    if (file_exists(from) && link(from, to)) st = file_copy(from, to, err);
    mem_free(from);
    mem_free(to);
    return st;
}

// The model now in the folder, that of the last save, gets a folder of its own before the next replaces it.
static enum status keep_model(const char *dir, int64_t step, struct err *err)
{
    char *final = step_name(dir, "checkpoints", step), *tmp = mem_printf("%s.tmp.%ld", final, (long)getpid());
    enum status st = ST_OK;
    if (!file_exists(final)) { // there already: a kill came between it and the commit
        st = dir_make(tmp, err);
        if (!st) st = link_or_copy(dir, tmp, "model.safetensors", err);
        if (!st) st = take_files(dir, tmp, link_or_copy, err);
        if (!st) st = link_or_copy(dir, tmp, "README.md", err);
        if (!st && rename(tmp, final)) st = err_errno(err, "rename", tmp);
    }
    mem_free(tmp);
    mem_free(final);
    return st;
}

// ---- all together ----

// config.json, byte for byte, unless it says that the weights are quantised: those of a trained student are not.
static enum status copy_config(const char *from, const char *to, struct err *err)
{
    json_t *root = NULL;
    TRY(json_read(&root, from, err));
    enum status st = ST_OK;
    if (json_object_get(root, "quantization_config")) {
        json_object_del(root, "quantization_config");
        st = json_write_atomic(root, to, err);
    } else {
        st = file_copy(from, to, err);
    }
    json_decref(root);
    return st;
}

static enum status copy(const char *from_dir, const char *to_dir, const char *name, struct err *err)
{
    char *from = path_join(from_dir, name), *to = path_join(to_dir, name);
    enum status st = !file_exists(from) ? ST_OK : name == MODEL_FILES[0] ? copy_config(from, to, err) : file_copy(from, to, err);
    mem_free(from);
    mem_free(to);
    return st;
}

// A GGUF file has no files to copy: what its keys amount to is written instead.
static enum status write_files(const struct run_dir *d, const char *gguf, struct err *err)
{
    struct gguf g;
    json_t *file[3] = {0}; // in the order of their names below
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    TRY(gguf_open(&g, gguf, err));
    enum status st = gguf_config(&file[0], &g, err);
    if (!st) st = gguf_tokenizer_json(&file[1], &file[2], &g, err);
    gguf_close(&g);
    for (int i = 0; i < 3; i++) {
        char *to = path_join(d->path, names[i]);
        if (!st) st = json_write_atomic(file[i], to, err);
        json_decref(file[i]);
        mem_free(to);
    }
    return st;
}

enum status checkpoint_copy_files(const struct run_dir *d, const char *student_dir, struct err *err)
{
    if (gguf_is(student_dir)) return write_files(d, student_dir, err);
    return take_files(student_dir, d->path, copy, err);
}

// A new generation_config.json has the ids that transformers would else take from config.json, and the object of the one there is else as
// it was.
static json_t *generation_from(const json_t *config)
{
    static const char *const keys[] = {"bos_token_id", "pad_token_id"};
    json_t *generation = json_object();
    for (size_t i = 0; i < 2; i++) {
        json_t *v = json_object_get(config, keys[i]);
        if (json_is_integer(v)) json_object_set(generation, keys[i], v);
    }
    return generation;
}

// eos_token_id, one or several. Caller's.
static json_t *list_of(const json_t *ids)
{
    json_t *list = json_is_array(ids) ? json_copy((json_t *)(uintptr_t)ids) : json_array();
    if (json_is_integer(ids)) json_array_append(list, (json_t *)(uintptr_t)ids);
    return list;
}

static bool list_has(const json_t *list, int32_t id)
{
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v) if (json_integer_value(v) == id && json_is_integer(v)) return true;
    return false;
}

enum status checkpoint_name_ends(const struct run_dir *d, const struct ids *ends, struct ids *added, struct err *err)
{
    char *path = path_join(d->path, "generation_config.json"), *config_path = path_join(d->path, "config.json");
    json_t *generation = NULL, *config = NULL;
    enum status st = json_read(&config, config_path, err);
    if (!st && file_exists(path)) st = json_read(&generation, path, err);
    if (generation && !json_is_object(generation)) st = err_set(err, ST_BAD_INPUT, "%s: wanted a JSON object", path);
    const json_t *own = generation ? json_object_get(generation, "eos_token_id") : json_object_get(config, "eos_token_id");
    json_t *named = list_of(own), *all = list_of(json_array_size(named) ? own : json_object_get(config, "eos_token_id"));
    for (size_t i = 0; !st && i < ends->n; i++) {
        if (list_has(named, ends->v[i])) continue;
        ids_push(added, ends->v[i]);
        if (!list_has(all, ends->v[i])) json_array_append_new(all, json_integer(ends->v[i]));
    }
    if (!st && added->n) {
        if (!generation) generation = generation_from(config);
        json_object_set(generation, "eos_token_id", all);
        st = json_write_atomic(generation, path, err);
    }
    json_decref(named);
    json_decref(all);
    json_decref(generation);
    json_decref(config);
    mem_free(path);
    mem_free(config_path);
    return st;
}

enum status checkpoint_save(const struct run_dir *d, struct trainer *t, const struct position *pos, const char *card, int keep,
                            struct err *err)
{
    size_t n;
    int64_t *saved = list_steps(d->path, "state", &n), last = n ? saved[n - 1] : -1;
    mem_free(saved);
    if (keep > 0 && last >= 0 && last < pos->step) TRY(keep_model(d->path, last, err));
    TRY(save_model(t, d->path, err));
    char *readme = path_join(d->path, "README.md");
    enum status st = file_write_atomic(readme, card, strlen(card), err);
    mem_free(readme);
    if (!st) st = save_state(d->path, t, pos, err);
    if (!st) st = prune(d->path, "state", pos->step, 0, err);
    if (!st) st = prune(d->path, "checkpoints", pos->step, (size_t)(keep > 0 ? keep : 0), err);
    return st;
}

enum status checkpoint_find(const struct run_dir *d, struct position *out, struct err *err)
{
    *out = (struct position){.step = -1};
    size_t n;
    int64_t *steps = list_steps(d->path, "state", &n);
    char *dir = n ? step_name(d->path, "state", steps[n - 1]) : NULL, *path = n ? path_join(dir, "position.json") : NULL;
    json_t *root = NULL;
    enum status st = n ? json_read(&root, path, err) : ST_OK;
    if (!st && n) {
        struct err bad = {0};
        out->step = json_get_int(root, "step", -1, true, path, &bad);
        out->n_tok = json_get_int(root, "n_tok", 0, true, path, &bad);
        out->t_s = json_get_real(root, "t_s", 0, true, path, &bad);
        if (!bad.code && out->step != steps[n - 1])
            err_set(&bad, ST_BAD_INPUT, "%s: step %lld does not fit the folder's name", path, (long long)out->step);
        if (bad.code) {
            *err = bad;
            st = bad.code;
        }
    }
    json_decref(root);
    mem_free(path);
    mem_free(dir);
    mem_free(steps);
    return st;
}

static enum status load_optimizer(struct trainer *t, const struct st_set *set, const char *path, struct err *err)
{
    const struct slot *s;
    enum slot_part part;
    size_t n = 0;
    struct err bad = {0};
    for (size_t at = 0; next_part(&t->optimizer, &at, &s, &part); n++) {
        const struct tensor x = s->part[part];
        char *name = part_name(s, part);
        const struct st_tensor *found = st_find(set, name);
        if (!found)
            err_add(&bad, ST_BAD_INPUT, "%s: tensor %s: missing", path, name);
        else if (strcmp(found->dtype, st_dtype_name(x.dtype)) || found->size_bytes != tensor_bytes(x))
            err_add(&bad, ST_BAD_INPUT, "%s: tensor %s: %zu bytes of %s, wanted %lld values of %s", path, name, found->size_bytes,
                    found->dtype, (long long)x.shape[0], st_dtype_name(x.dtype));
        else
            op_upload(t->dev, x, found->data);
        mem_free(name);
    }
    if (set->n > n) err_add(&bad, ST_BAD_INPUT, "%s: holds %zu tensors, the optimizer of this run %zu", path, set->n, n);
    if (bad.code) {
        *err = bad;
        return bad.code;
    }
    optimizer_weights_from_master(&t->optimizer, t->dev);
    return dev_check(t->dev, err);
}

enum status checkpoint_load(const struct run_dir *d, const struct position *pos, struct trainer *t, struct err *err)
{
    char *dir = step_name(d->path, "state", pos->step), *path = path_join(dir, "optimizer.safetensors");
    struct st_set set = {0};
    enum status st = st_open(&set, path, err);
    if (!st) {
        st = load_optimizer(t, &set, path, err);
        st_close(&set);
    }
    if (!st) t->step = pos->step;
    mem_free(path);
    mem_free(dir);
    return st;
}
