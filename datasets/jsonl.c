// JSONL: one JSON value a line. The file is mapped and walked once; every complaint names FILE:LINE so that a user can open it there.
#include "datasets/jsonl.h"

#include "kernels/base/rng.h"

#include <stdlib.h>
#include <string.h>

typedef enum status row_fn(void *arg, json_t *row, long line, struct err *err);

// The walk behind both public forms. A row that does not parse, or that fn refuses as bad input, is counted and passed over with skip_bad.
// *stop (may be NULL) set by fn ends the walk early.
static enum status walk(const char *path, bool skip_bad, size_t *n_skipped, row_fn *fn, void *arg, const bool *stop, struct err *err)
{
    struct file_map m = {0};
    TRY(file_map(&m, path, err));
    const char *p = (const char *)m.data, *end = m.size ? p + m.size : p;
    if (m.size >= 3 && !memcmp(p, "\xEF\xBB\xBF", 3)) p += 3; // editors on Windows put a byte order mark there
    enum status st = ST_OK;
    size_t skipped = 0;
    for (long line = 1; p < end && !(stop && *stop); line++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *stop_at = nl ? nl : end;
        const char *next = nl ? nl + 1 : end;
        while (stop_at > p && stop_at[-1] && strchr(" \t\r", stop_at[-1])) stop_at--; // TRAP: strchr finds NUL, too
        if (stop_at == p) {
            p = next;
            continue;
        }
        json_t *row = NULL;
        st = json_parse_strict(&row, p, (size_t)(stop_at - p), path, line, err);
        if (!st) st = fn(arg, row, line, err);
        json_decref(row);
        p = next;
        if (st == ST_BAD_INPUT && skip_bad) {
            skipped++;
            *err = (struct err){0};
            st = ST_OK;
        }
        if (st) break;
    }
    if (n_skipped) *n_skipped = skipped;
    file_unmap(&m);
    return st;
}

enum status jsonl_each(const char *path, bool skip_bad, size_t *n_skipped, row_fn *fn, void *arg, struct err *err)
{
    return walk(path, skip_bad, n_skipped, fn, arg, NULL, err);
}

// ---- prompts

struct loading {
    struct prompts *out;
    const char *path;
    size_t limit, cap;
    uint32_t *slot; // hash table over ids: index + 1, 0 is free
    size_t n_slot;  // a power of two, at most half full
    bool done;
};

static size_t slot_of(const struct loading *l, const char *id)
{
    size_t i = rng_hash(id, strlen(id)) & (l->n_slot - 1);
    while (l->slot[i] && strcmp(l->out->v[l->slot[i] - 1].id, id) != 0) i = (i + 1) & (l->n_slot - 1);
    return i;
}

static void grow(struct loading *l)
{
    struct prompts *ps = l->out;
    if (ps->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        ps->v = mem_realloc(ps->v, l->cap * sizeof *ps->v);
    }
    if (2 * (ps->n + 1) > l->n_slot) {
        mem_free(l->slot);
        l->n_slot = l->n_slot ? 2 * l->n_slot : 128;
        l->slot = NEW_N(uint32_t, l->n_slot);
        for (size_t i = 0; i < ps->n; i++) l->slot[slot_of(l, ps->v[i].id)] = (uint32_t)i + 1;
    }
}

static enum status bad(struct err *err, const struct loading *l, long line, const char *what)
{
    return err_set(err, ST_BAD_INPUT, "%s:%ld: %s", l->path, line, what);
}

// Checks {role, content} of each message; content may be missing only where a turn can go without text (tool calls).
static enum status check_messages(const struct loading *l, const json_t *messages, long line, struct err *err)
{
    if (!json_is_array(messages) || !json_array_size(messages))
        return bad(err, l, line, "\"messages\": wanted a non-empty list of {\"role\": …, \"content\": …}");
    size_t i;
    json_t *msg;
    json_array_foreach(messages, i, msg)
    {
        const json_t *role = json_object_get(msg, "role"), *content = json_object_get(msg, "content");
        if (!json_is_object(msg) || !json_is_string(role))
            return err_set(err, ST_BAD_INPUT, "%s:%ld: messages[%zu]: wanted an object with a \"role\" string", l->path, line, i);
        bool ok = json_is_string(content) || json_is_array(content);
        if ((!content || json_is_null(content)) && !strcmp(json_string_value(role), "assistant")) ok = true;
        if (!ok) return err_set(err, ST_BAD_INPUT, "%s:%ld: messages[%zu]: wanted a \"content\" string", l->path, line, i);
    }
    return ST_OK;
}

// "answer" as text, kept in the row so that it can be borrowed from there.
static enum status take_answer(const struct loading *l, struct prompt *p, long line, struct err *err)
{
    json_t *a = json_object_get(p->row, "answer");
    if (!a || json_is_null(a)) return ST_OK;
    if (json_is_number(a)) {
        char *text;
        if (json_is_integer(a)) {
            text = mem_printf("%lld", (long long)json_integer_value(a));
        } else { // the shortest text that reads back as the same number
            int digits = 1;
            text = mem_printf("%.*g", digits, json_real_value(a));
            while (digits < 17 && strtod(text, NULL) != json_real_value(a)) {
                mem_free(text);
                text = mem_printf("%.*g", ++digits, json_real_value(a));
            }
        }
        json_object_set_new(p->row, "answer", json_string(text));
        mem_free(text);
    } else if (!json_is_string(a)) {
        return bad(err, l, line, "\"answer\": wanted a string or a number");
    }
    p->answer = json_string_value(json_object_get(p->row, "answer"));
    return ST_OK;
}

static enum status take_id(const struct loading *l, struct prompt *p, long line, struct err *err)
{
    const json_t *id = json_object_get(p->row, "id");
    if (!id || json_is_null(id)) {
        p->id = mem_printf("%ld", line - 1);
    } else if (json_is_integer(id)) {
        p->id = mem_printf("%lld", (long long)json_integer_value(id));
    } else if (json_is_string(id) && json_string_length(id) && strlen(json_string_value(id)) == json_string_length(id)) {
        p->id = mem_strdup(json_string_value(id));
    } else {
        return bad(err, l, line, "\"id\": wanted a non-empty string without U+0000, or an integer");
    }
    size_t s = slot_of(l, p->id);
    if (!l->slot[s]) return ST_OK;
    return err_set(err, ST_BAD_INPUT, "%s:%ld: id \"%s\" was already given in line %ld; ids must be unique", l->path, line, p->id,
                   l->out->v[l->slot[s] - 1].line);
}

static void prompt_free(struct prompt *p)
{
    mem_free(p->id);
    json_decref(p->messages);
    json_decref(p->row);
}

static enum status take_row(void *arg, json_t *row, long line, struct err *err)
{
    struct loading *l = arg;
    if (!json_is_object(row)) return bad(err, l, line, "wanted a JSON object {…}");
    grow(l);
    struct prompt p = {.row = json_incref(row), .line = line};
    json_t *messages = json_object_get(row, "messages"), *prompt = json_object_get(row, "prompt");
    enum status st;
    if (messages) {
        p.messages = json_incref(messages);
        st = check_messages(l, messages, line, err);
    } else if (json_is_string(prompt)) {
        p.messages = json_pack("[{s:s, s:O}]", "role", "user", "content", prompt);
        st = ST_OK;
    } else {
        st = bad(err, l, line, "wanted \"messages\": [{\"role\": …, \"content\": …}] or \"prompt\": \"…\"");
    }
    if (!st) st = take_answer(l, &p, line, err);
    if (!st) st = take_id(l, &p, line, err);
    if (st) {
        prompt_free(&p);
        return st;
    }
    l->slot[slot_of(l, p.id)] = (uint32_t)l->out->n + 1;
    l->out->v[l->out->n++] = p;
    l->done = l->limit && l->out->n == l->limit;
    return ST_OK;
}

enum status prompts_load(struct prompts *out, const char *path, size_t limit, bool skip_bad, struct err *err)
{
    *out = (struct prompts){0};
    struct loading l = {.out = out, .path = path, .limit = limit};
    enum status st = walk(path, skip_bad, &out->n_skipped, take_row, &l, &l.done, err);
    mem_free(l.slot);
    if (st) prompts_free(out);
    return st;
}

void prompts_free(struct prompts *p)
{
    for (size_t i = 0; i < p->n; i++) prompt_free(&p->v[i]);
    mem_free(p->v);
    *p = (struct prompts){0};
}
