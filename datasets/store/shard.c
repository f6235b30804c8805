// Finding what is whole in a shard.
//
// A kill leaves at most a frame without its line, or a line without its end. A lost machine may leave more of the tail unwritten, or zeros
// in it. So the tail is walked back while its last line is not whole, or its frame is not; what is left must be whole, else the shard is
// damaged and nobody may write to it before a human has looked.
#include "datasets/store/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void shard_name(struct shard *sh, const char *dir, int number)
{
    *sh = (struct shard){.number = number};
    char name[32];
    snprintf(name, sizeof name, "traces-%05d.jsonl", number);
    sh->traces_path = path_join(dir, name);
    snprintf(name, sizeof name, "targets-%05d.bin", number);
    sh->targets_path = path_join(dir, name);
}

void shard_free(struct shard *sh)
{
    mem_free(sh->traces_path);
    mem_free(sh->targets_path);
}

static int by_number(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

enum status shard_list(int **numbers, int *n, const char *dir, struct err *err)
{
    *numbers = NULL;
    *n = 0;
    int cap = 0;
    DIR *d = opendir(dir);
    if (!d) return err_errno(err, "open folder", dir);
    struct dirent *e;
    while ((errno = 0, e = readdir(d))) {
        size_t len = strlen(e->d_name);
        if (len < 18 || len > 22 || strncmp(e->d_name, "traces-", 7) != 0 || strcmp(e->d_name + len - 6, ".jsonl") != 0) continue;
        if (strspn(e->d_name + 7, "0123456789") != len - 13) continue;
        if (*n == cap) *numbers = mem_realloc(*numbers, sizeof(int) * (size_t)(cap = cap ? 2 * cap : 16));
        (*numbers)[(*n)++] = atoi(e->d_name + 7);
    }
    enum status st = errno ? err_errno(err, "read folder", dir) : ST_OK;
    closedir(d);
    if (*n) qsort(*numbers, (size_t)*n, sizeof **numbers, by_number);
    return st;
}

// ---- scanning

struct scanned {
    struct line_key key; // key.id NULL: not the head of a line
    uint64_t at;
    uint32_t bytes; // with the newline
};

static struct scanned *scan_lines(const struct file_map *m, size_t *n)
{
    struct scanned *v = NULL;
    size_t cap = 0;
    *n = 0;
    for (uint64_t at = 0; at < m->size;) {
        const char *p = (const char *)m->data + at, *nl = memchr(p, '\n', m->size - at);
        if (!nl) break; // torn
        if (*n == cap) v = mem_realloc(v, sizeof *v * (cap = cap ? 2 * cap : 256));
        struct scanned *s = &v[(*n)++];
        *s = (struct scanned){.at = at, .bytes = (uint32_t)(nl - p + 1)};
        line_head(&s->key, p, (size_t)(nl - p));
        at += s->bytes;
    }
    return v;
}

// Whether the last line and its frame are whole. A frame of a newer version is no torn frame: ST_BAD_INPUT.
static enum status tail_whole(bool *whole, const struct scanned *s, const struct shard *sh, const struct file_map *traces,
                              const struct file_map *targets, struct err *err)
{
    *whole = false;
    if (!s->key.id || !line_crc_ok((const char *)traces->data + s->at, s->bytes - 1)) return ST_OK;
    if (!s->key.frame_bytes) {
        *whole = true;
        return ST_OK;
    }
    if (s->key.frame_at > targets->size || s->key.frame_bytes > targets->size - s->key.frame_at) return ST_OK;
    struct frame_head h;
    struct err why = {0};
    enum status st = frame_check(&h, targets->data + s->key.frame_at, s->key.frame_bytes, sh->targets_path, s->key.frame_at, &why);
    if (st == ST_BAD_INPUT) {
        *err = why;
        return st;
    }
    *whole = !st;
    return ST_OK;
}

static enum status open_files(struct shard *sh, struct file_map *traces, struct file_map *targets, enum targets_kind kind, struct err *err)
{
    TRY(file_map(traces, sh->traces_path, err)); // first the lines: a writer at work puts frames first, so each line's frame is there
    if (kind == TARGETS_NONE) return ST_OK;
    if (file_exists(sh->targets_path)) {
        TRY(file_map(targets, sh->targets_path, err));
    } else if (traces->size) {
        return err_set(
            err, ST_FAIL,
            "%s: missing, but %s has lines whose targets it held; restore it, or remove that file too to have its samples made again",
            sh->targets_path, sh->traces_path);
    }
    sh->traces_size = traces->size;
    sh->targets_size = targets->size;
    return ST_OK;
}

enum status shard_scan(struct shard *sh, struct index *ix, int place, enum targets_kind kind, struct err *err)
{
    struct file_map traces = {0}, targets = {0};
    size_t n = 0, n_all = 0;
    struct scanned *v = NULL;
    enum status st = open_files(sh, &traces, &targets, kind, err);
    sh->traces_size = traces.size;
    sh->targets_size = targets.size;
    if (st) goto out;
    v = scan_lines(&traces, &n_all);
    for (n = n_all; n; n--) {
        bool whole;
        if ((st = tail_whole(&whole, &v[n - 1], sh, &traces, &targets, err))) goto out;
        if (whole) break;
    }
    for (size_t i = 0; i < n; i++) {
        const struct scanned *s = &v[i];
        uint64_t frame_end = s->key.frame_at + s->key.frame_bytes;
        const char *what = !s->key.id                                                  ? "is not a trace's line"
                           : (kind != TARGETS_NONE) != (s->key.frame_bytes > 0)        ? "does not fit the manifest's targets.kind"
                           : s->key.frame_bytes && s->key.frame_at < sh->targets_bytes ? "names a frame that overlaps the one before"
                           : s->key.frame_bytes && frame_end > targets.size            ? "names a frame past the end of its file"
                                                                                       : NULL;
        if (what) {
            st = err_set(
                err, ST_FAIL,
                "%s:%zu: the line is damaged: it %s. Restore the file from a copy, or delete this line: its sample will be made again",
                sh->traces_path, i + 1, what);
            goto out;
        }
        sh->traces_bytes = s->at + s->bytes;
        if (s->key.frame_bytes) sh->targets_bytes = frame_end;
        if (index_find(ix, s->key.id, s->key.sample)) {
            sh->n_double++;
            continue;
        }
        sh->n_sample++;
        sh->n_tok += (uint64_t)s->key.n_tok;
        struct entry e = {.line_at = s->at,
                          .line_bytes = s->bytes,
                          .line_number = (uint32_t)i + 1,
                          .frame_at = s->key.frame_at,
                          .frame_bytes = s->key.frame_bytes,
                          .sample = s->key.sample,
                          .n_tok = s->key.n_tok,
                          .shard = place};
        index_add(ix, &e, s->key.id);
    }
out:
    for (size_t i = 0; i < n_all; i++) mem_free(v[i].key.id);
    mem_free(v);
    file_unmap(&traces);
    file_unmap(&targets);
    return st;
}
