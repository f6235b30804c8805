// Opening, appending, reading, closing.
#include "datasets/store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t DEFAULT_SHARD_BYTES = 256u << 20;

static void free_store(struct store *s)
{
    for (int i = 0; i < s->n_shard; i++) shard_free(&s->shards[i]);
    mem_free(s->shards);
    index_free(&s->index);
    buf_free(&s->line);
    buf_free(&s->frame);
    json_decref(s->manifest);
    mem_free(s->dir);
    mem_free(s->manifest_path);
    if (s->traces_fd >= 0) close(s->traces_fd);
    if (s->targets_fd >= 0) close(s->targets_fd);
    if (s->lock_fd >= 0) {
        if (s->writing && ftruncate(s->lock_fd, 0)) (void)errno; // a stale pid does no harm: the lock is the flock
        close(s->lock_fd);
    }
    mem_free(s);
}

static struct store *new_store(const char *dir)
{
    struct store *s = NEW(struct store);
    s->dir = mem_strdup(dir);
    s->manifest_path = path_join(dir, "manifest.json");
    s->lock_fd = s->traces_fd = s->targets_fd = -1;
    s->shard_bytes = DEFAULT_SHARD_BYTES;
    return s;
}

static enum status scan_shards(struct store *s, struct err *err)
{
    int *numbers, n;
    enum status st = shard_list(&numbers, &n, s->dir, err);
    s->shards = NEW_N(struct shard, n ? n : 1);
    for (int i = 0; !st && i < n; i++) {
        struct shard *sh = &s->shards[s->n_shard++];
        shard_name(sh, s->dir, numbers[i]);
        st = shard_scan(sh, &s->index, i, s->spec.kind, err);
        s->n_torn += sh->traces_size - sh->traces_bytes + (sh->targets_size - sh->targets_bytes);
    }
    mem_free(numbers);
    return st;
}

// ---- opening for writing

static enum status take_lock(struct store *s, struct err *err)
{
    char *path = path_join(s->dir, "lock"), pid[24] = "";
    enum status st = ST_OK;
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (s->lock_fd < 0) {
        st = err_errno(err, "open", path);
    } else if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(s->lock_fd, pid, sizeof pid - 1, 0);
            long holder = n > 0 ? strtol(pid, NULL, 10) : 0;
            char who[48] = "another process";
            if (holder > 0) snprintf(who, sizeof who, "process %ld", holder);
            st = err_set(err, ST_BAD_INPUT,
                         "%s: %s is writing to this store; wait until it is done, or stop it, and run the same command again", s->dir, who);
        } else {
            st = err_errno(err, "lock", path);
        }
    } else {
        s->writing = true;
        int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
        if (ftruncate(s->lock_fd, 0) || pwrite(s->lock_fd, pid, (size_t)n, 0) != n) st = err_errno(err, "write", path);
    }
    mem_free(path);
    return st;
}

// What a kill between writing and renaming the manifest left.
static void remove_leftovers(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (strncmp(e->d_name, "manifest.json.tmp.", 18) != 0) continue;
        char *path = path_join(dir, e->d_name);
        unlink(path);
        mem_free(path);
    }
    if (d) closedir(d);
}

static enum status open_manifest(struct store *s, const json_t *identity, const struct targets_spec *spec, struct err *err)
{
    if (file_exists(s->manifest_path)) {
        TRY(manifest_read(&s->manifest, &s->spec, s->manifest_path, err));
        return manifest_compare(s->manifest, s->manifest_path, identity, spec, err);
    }
    int *numbers, n;
    enum status st = shard_list(&numbers, &n, s->dir, err);
    mem_free(numbers);
    if (st) return st;
    if (n)
        return err_set(err, ST_BAD_INPUT,
                       "%s: has traces but no manifest.json, which says who wrote them; restore it, or give another folder", s->dir);
    s->manifest = manifest_new(identity, spec);
    s->spec = *spec;
    return manifest_write(s->manifest, s->manifest_path, err);
}

static enum status cut(const char *path, uint64_t size, struct err *err)
{
    if (truncate(path, (off_t)size)) return err_errno(err, "cut the torn tail of", path);
    return ST_OK;
}

// Cuts what is torn; entries of the manifest that no longer hold are dropped or made anew at close.
static enum status cut_tails(struct store *s, struct err *err)
{
    for (int i = 0; i < s->n_shard; i++) {
        struct shard *sh = &s->shards[i];
        // Lines first: a kill between the two leaves frames without lines, never lines without frames.
        if (sh->traces_size > sh->traces_bytes) TRY(cut(sh->traces_path, sh->traces_bytes, err));
        if (sh->targets_size > sh->targets_bytes) TRY(cut(sh->targets_path, sh->targets_bytes, err));
        const json_t *e = manifest_shard(s->manifest, sh);
        sh->changed = !e || (uint64_t)json_integer_value(json_object_get(e, "traces_bytes")) != sh->traces_bytes ||
                      (uint64_t)json_integer_value(json_object_get(e, "targets_bytes")) != sh->targets_bytes;
    }
    json_t *shards = json_object_get(s->manifest, "shards");
    for (size_t i = json_array_size(shards); i-- > 0;) {
        bool there = false;
        for (int k = 0; k < s->n_shard; k++) there |= manifest_shard(s->manifest, &s->shards[k]) == json_array_get(shards, i);
        if (!there) json_array_remove(shards, i);
    }
    return ST_OK;
}

enum status store_open_write(struct store **out, const char *dir, const json_t *identity, const struct targets_spec *spec, struct err *err)
{
    *out = NULL;
    TRY(dir_make(dir, err));
    struct store *s = new_store(dir);
    enum status st = take_lock(s, err);
    if (!st) {
        remove_leftovers(dir);
        st = open_manifest(s, identity, spec, err);
    }
    if (!st) st = scan_shards(s, err);
    if (!st) st = cut_tails(s, err);
    if (st)
        free_store(s);
    else
        *out = s;
    return st;
}

enum status store_identity(json_t **out, const char *dir, struct err *err)
{
    json_t *manifest = NULL;
    struct targets_spec spec;
    char *path = path_join(dir, "manifest.json");
    enum status st = file_exists(path) ? manifest_read(&manifest, &spec, path, err) : ST_OK;
    *out = st ? NULL : json_incref(json_object_get(manifest, "identity"));
    json_decref(manifest);
    mem_free(path);
    return st;
}

enum status store_open_read(struct store **out, const char *dir, struct err *err)
{
    *out = NULL;
    struct store *s = new_store(dir);
    enum status st = ST_OK;
    if (!file_exists(s->manifest_path))
        st = err_set(err, ST_BAD_INPUT, "%s: no trace store: %s", dir, file_exists(dir) ? "it has no manifest.json" : "no such folder");
    if (!st) st = manifest_read(&s->manifest, &s->spec, s->manifest_path, err);
    if (!st) st = scan_shards(s, err);
    if (st)
        free_store(s);
    else
        *out = s;
    return st;
}

// ---- appending

static enum status write_at(int fd, const struct buf *b, uint64_t at, const char *path, struct err *err)
{
    for (size_t done = 0; done < b->size;) {
        ssize_t n = pwrite(fd, b->data + done, b->size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) errno = ENOSPC;
        if (n <= 0) return err_errno(err, "write", path);
        done += (size_t)n;
    }
    return ST_OK;
}

static enum status open_shard_files(struct store *s, bool fresh, struct err *err)
{
    struct shard *sh = &s->shards[s->n_shard - 1];
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (fresh ? O_TRUNC : 0);
    if (s->spec.kind != TARGETS_NONE && s->targets_fd < 0 && (s->targets_fd = open(sh->targets_path, flags, 0666)) < 0)
        return err_errno(err, "open", sh->targets_path);
    if (s->traces_fd < 0 && (s->traces_fd = open(sh->traces_path, flags, 0666)) < 0) return err_errno(err, "open", sh->traces_path);
    return fresh ? dir_sync(s->dir, err) : ST_OK;
}

static enum status sync_shard(struct store *s, struct err *err)
{
    const struct shard *sh = &s->shards[s->n_shard - 1];
    enum status st = ST_OK;
    if (s->targets_fd >= 0 && fsync(s->targets_fd)) st = err_errno(err, "sync", sh->targets_path);
    if (!st && s->traces_fd >= 0 && fsync(s->traces_fd)) st = err_errno(err, "sync", sh->traces_path);
    return st;
}

static enum status next_shard(struct store *s, struct err *err)
{
    int number = 0;
    if (s->n_shard) {
        bool wrote;
        TRY(sync_shard(s, err));
        struct shard *full = &s->shards[s->n_shard - 1];
        number = full->number + 1;
        TRY(manifest_put_shard(s->manifest, full, &wrote, err));
        full->changed = false;
        TRY(manifest_write(s->manifest, s->manifest_path, err));
    }
    if (s->traces_fd >= 0) close(s->traces_fd);
    if (s->targets_fd >= 0) close(s->targets_fd);
    s->traces_fd = s->targets_fd = -1;
    s->shards = mem_realloc(s->shards, sizeof *s->shards * (size_t)(s->n_shard + 1));
    shard_name(&s->shards[s->n_shard++], s->dir, number);
    return open_shard_files(s, true, err);
}

static enum status check_sample(const struct store *s, const struct sample *x, const struct targets *t, struct err *err)
{
    const struct targets_spec *spec = &s->spec;
    if (index_find(&s->index, x->id, x->sample))
        return err_set(err, ST_BAD_INPUT, "%s: sample %d of \"%s\" is in the store already", s->dir, x->sample, x->id);
    if (!t != (spec->kind == TARGETS_NONE))
        return err_set(err, ST_BAD_INPUT, "%s: sample \"%s\": %s targets, but the store's kind %s them", s->dir, x->id, t ? "has" : "lacks",
                       t ? "does not take" : "needs");
    if (t &&
        (t->n_tok != x->n_tok || t->k != spec->k || t->n_temperature != spec->n_temperature || !t->count != (spec->kind == TARGETS_TOPK)))
        return err_set(err, ST_BAD_INPUT, "%s: sample \"%s\": targets of %d positions, k %d, %d temperatures; wanted %d, %d, %d", s->dir,
                       x->id, t->n_tok, t->k, t->n_temperature, x->n_tok, spec->k, spec->n_temperature);
    return ST_OK;
}

enum status store_append(struct store *s, const struct sample *x, const struct targets *t, struct err *err)
{
    if (!s->writing) BUG("store_append on a store opened for reading");
    if (s->broken) return err_set(err, ST_FAIL, "%s: an earlier write failed and could not be undone; run the same command again", s->dir);
    TRY(check_sample(s, x, t, err));
    struct shard *sh = s->n_shard ? &s->shards[s->n_shard - 1] : NULL;
    enum status st;
    if (!sh || sh->traces_bytes + sh->targets_bytes >= s->shard_bytes)
        st = next_shard(s, err);
    else
        st = open_shard_files(s, false, err);
    if (st) return st;
    sh = &s->shards[s->n_shard - 1];
    buf_clear(&s->frame);
    buf_clear(&s->line);
    if (t) TRY(frame_encode(&s->frame, x->id, x->sample, &s->spec, t, err));
    TRY(line_encode(&s->line, x, sh->targets_bytes, s->frame.size, err));
    sh->changed = true;
    if (t) st = write_at(s->targets_fd, &s->frame, sh->targets_bytes, sh->targets_path, err);
    if (!st) st = write_at(s->traces_fd, &s->line, sh->traces_bytes, sh->traces_path, err);
    if (st) {
        // The line first, as when opening.
        if (ftruncate(s->traces_fd, (off_t)sh->traces_bytes) || (t && ftruncate(s->targets_fd, (off_t)sh->targets_bytes))) s->broken = true;
        err_add(err, st, "%s is whole with %zu samples; run the same command again to go on from there", s->dir, s->index.n);
        return st;
    }
    struct entry e = {.line_at = sh->traces_bytes,
                      .line_bytes = (uint32_t)s->line.size,
                      .line_number = (uint32_t)sh->n_sample + (uint32_t)sh->n_double + 1,
                      .frame_at = sh->targets_bytes,
                      .frame_bytes = s->frame.size,
                      .sample = x->sample,
                      .n_tok = x->n_tok,
                      .shard = s->n_shard - 1};
    index_add(&s->index, &e, x->id);
    sh->traces_bytes += s->line.size;
    sh->targets_bytes += s->frame.size;
    sh->n_sample++;
    sh->n_tok += (uint64_t)x->n_tok;
    return ST_OK;
}

enum status store_close(struct store *s, struct err *err)
{
    if (!s) return ST_OK;
    enum status st = ST_OK;
    bool wrote = s->info_changed;
    if (s->writing) {
        if (s->n_shard) st = sync_shard(s, err);
        for (int i = 0; !st && i < s->n_shard; i++) st = manifest_put_shard(s->manifest, &s->shards[i], &wrote, err);
        if (!st && wrote) st = manifest_write(s->manifest, s->manifest_path, err);
    }
    free_store(s);
    return st;
}

// ---- reading

bool store_has(const struct store *s, const char *id, int sample)
{
    return index_find(&s->index, id, sample) != NULL;
}
size_t store_n_sample(const struct store *s)
{
    return s->index.n;
}
uint64_t store_n_torn(const struct store *s)
{
    return s->n_torn;
}
const struct targets_spec *store_spec(const struct store *s)
{
    return &s->spec;
}
const json_t *store_manifest(const struct store *s)
{
    return s->manifest;
}
void store_set_shard_bytes(struct store *s, uint64_t shard_bytes)
{
    s->shard_bytes = shard_bytes;
}

void store_set_info(struct store *s, const char *key, json_t *value)
{
    json_t *info = json_object_get(s->manifest, "info"), *old = json_object_get(info, key);
    if (!old || !json_equal(old, value)) s->info_changed = true;
    json_object_set_new(info, key, value);
}

const char *store_id(const struct store *s, size_t index, int *sample, int *n_tok)
{
    const struct entry *e = &s->index.v[index];
    if (sample) *sample = e->sample;
    if (n_tok) *n_tok = e->n_tok;
    return index_id(&s->index, e);
}

// A file a read, so that a store of thousands of shards needs no thousands of descriptors and threads share nothing.
static enum status read_at(const char *path, uint64_t at, void *to, size_t n, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "open", path);
    enum status st = ST_OK;
    for (size_t done = 0; !st && done < n;) {
        ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) st = err_errno(err, "read", path);
        if (got == 0)
            st = err_set(err, ST_FAIL, "%s: ends before byte %llu: it was cut after the store was opened", path,
                         (unsigned long long)(at + n));
        if (got > 0) done += (size_t)got;
    }
    close(fd);
    return st;
}

static enum status read_frame(const struct store *s, const struct entry *e, struct targets *t, struct err *err)
{
    const struct shard *sh = &s->shards[e->shard];
    const char *id = index_id(&s->index, e);
    uint8_t *frame = mem_alloc((size_t)e->frame_bytes);
    struct frame_head h;
    enum status st = read_at(sh->targets_path, e->frame_at, frame, (size_t)e->frame_bytes, err);
    if (!st) st = frame_check(&h, frame, e->frame_bytes, sh->targets_path, e->frame_at, err);
    if (!st && (h.sample != (uint32_t)e->sample || h.n_tok != (uint32_t)e->n_tok || h.id_bytes != strlen(id) ||
                memcmp(h.id, id, h.id_bytes) != 0 || h.kind != (int)s->spec.kind || h.k != (uint32_t)s->spec.k ||
                h.n_temperature != s->spec.n_temperature))
        st = err_set(err, ST_FAIL, "%s: the frame at byte %llu does not belong to line %u of %s (sample %d of \"%s\")", sh->targets_path,
                     (unsigned long long)e->frame_at, e->line_number, sh->traces_path, e->sample, id);
    if (!st) st = frame_decode(t, &h, frame, sh->targets_path, e->frame_at, err);
    mem_free(frame);
    return st;
}

enum status store_read(const struct store *s, size_t index, struct sample *out, struct targets *t, struct err *err)
{
    if (index >= s->index.n) BUG("store_read: sample %zu of %zu", index, s->index.n);
    const struct entry *e = &s->index.v[index];
    const struct shard *sh = &s->shards[e->shard];
    *out = (struct sample){0};
    if (t) *t = (struct targets){0};
    char *line = mem_alloc(e->line_bytes);
    enum status st = read_at(sh->traces_path, e->line_at, line, e->line_bytes, err);
    if (!st) st = line_decode(out, line, e->line_bytes - 1, sh->traces_path, e->line_number, err);
    mem_free(line);
    if (!st && (out->n_tok != e->n_tok || out->sample != e->sample || strcmp(out->id, index_id(&s->index, e)) != 0))
        st = err_set(err, ST_FAIL, "%s:%u: the head of the line contradicts the rest", sh->traces_path, e->line_number);
    if (!st && t && e->frame_bytes) st = read_frame(s, e, t, err);
    if (st) sample_free(out);
    return st;
}

enum status store_read_targets(const struct store *s, size_t index, struct targets *t, struct err *err)
{
    if (index >= s->index.n) BUG("store_read_targets: sample %zu of %zu", index, s->index.n);
    const struct entry *e = &s->index.v[index];
    *t = (struct targets){0};
    return e->frame_bytes ? read_frame(s, e, t, err) : ST_OK;
}
