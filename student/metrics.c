// Opening with truncation, and the line.
#include "student/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

// Where the lines of steps up to `step` end in the text.
static size_t end_of(const char *text, size_t n, int64_t step)
{
    size_t end = 0;
    while (end < n) {
        const char *nl = memchr(text + end, '\n', n - end);
        if (!nl) break; // torn
        size_t len = (size_t)(nl - text) - end;
        json_t *line = json_loadb(text + end, len, 0, NULL);
        const json_t *at = json_object_get(line, "step");
        bool keep = json_is_integer(at) && json_integer_value(at) <= step;
        json_decref(line);
        if (!keep) break;
        end += len + 1;
    }
    return end;
}

enum status metrics_open(struct metrics *m, const char *dir, int64_t step, struct err *err)
{
    *m = (struct metrics){.fd = -1, .path = path_join(dir, "metrics.jsonl")};
    struct buf text = {0};
    size_t end = 0;
    enum status st = ST_OK;
    if (step > 0 && file_exists(m->path)) {
        st = file_read(&text, m->path, SIZE_MAX / 2, err);
        if (!st) end = end_of(text.data, text.size, step);
    }
    buf_free(&text);
    if (!st && (m->fd = open(m->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0) st = err_errno(err, "open", m->path);
    if (!st && ftruncate(m->fd, (off_t)end)) st = err_errno(err, "cut", m->path);
    if (st) metrics_close(m);
    return st;
}

json_t *metrics_json(const struct step_result *r, const struct step_result *eval, size_t mem_bytes, double t_s)
{
    json_t *o = json_pack("{s:I, s:f, s:f}", "step", (json_int_t)r->step, "loss", r->loss, "ce", r->ce);
    json_object_set_new(o, "kd", r->has_kd ? json_real(r->kd) : json_null());
    json_object_set_new(o, "lr", json_real(r->lr));
    json_object_set_new(o, "grad_norm", json_real(r->grad_norm));
    json_object_set_new(o, "tok_per_s", json_real(r->t_s > 0 ? (double)r->n_tok / r->t_s : 0));
    json_object_set_new(o, "n_tok", json_integer(r->n_tok));
    json_object_set_new(o, "n_loss", json_integer(r->n_loss));
    json_object_set_new(o, "epoch", json_integer(r->epoch));
    json_object_set_new(o, "mem_bytes", json_integer((json_int_t)mem_bytes));
    json_object_set_new(o, "t_s", json_real(t_s));
    if (!eval) return o;
    json_object_set_new(o, "eval_loss", json_real(eval->loss));
    json_object_set_new(o, "eval_ce", json_real(eval->ce));
    json_object_set_new(o, "eval_kd", eval->has_kd ? json_real(eval->kd) : json_null());
    return o;
}

enum status metrics_write(struct metrics *m, const struct step_result *r, const struct step_result *eval, size_t mem_bytes, double t_s,
                          struct err *err)
{
    struct buf line = {0};
    json_t *o = metrics_json(r, eval, mem_bytes, t_s);
    json_append_line(&line, o);
    json_decref(o);
    ssize_t n;
    do n = write(m->fd, line.data, line.size);
    while (n < 0 && errno == EINTR);
    enum status st = ST_OK;
    if (n != (ssize_t)line.size) {
        if (n >= 0) errno = ENOSPC;
        st = err_errno(err, "write", m->path);
    }
    buf_free(&line);
    return st;
}

void metrics_close(struct metrics *m)
{
    if (m->path && m->fd >= 0) close(m->fd);
    mem_free(m->path);
    *m = (struct metrics){.fd = -1};
}
