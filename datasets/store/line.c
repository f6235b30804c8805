// Lines of traces-NNNNN.jsonl. The first members stand in a fixed order so that opening a store of millions of lines reads only each line's
// head; the last member is the CRC32C of what stands before it.
#include "datasets/store/internal.h"
#include "kernels/base/crc32c.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---- writing

static void put_member(struct buf *out, const char *key, const json_t *value)
{
    buf_printf(out, ",\"%s\":", key);
    if (!value) {
        buf_puts(out, "null");
        return;
    }
    json_append_line(out, value);
    out->size--; // its newline
}

static void put_ids(struct buf *out, const char *key, const int32_t *ids, int n)
{
    buf_printf(out, ",\"%s\":[", key);
    for (int i = 0; i < n; i++) {
        char text[12], *p = text + sizeof text;
        uint32_t v = ids[i] < 0 ? 0u - (uint32_t)ids[i] : (uint32_t)ids[i];
        do {
            *--p = (char)('0' + v % 10);
            v /= 10;
        } while (v);
        if (ids[i] < 0) *--p = '-';
        if (i) buf_putc(out, ',');
        buf_put(out, p, (size_t)(text + sizeof text - p));
    }
    buf_putc(out, ']');
}

enum status line_encode(struct buf *out, const struct sample *s, uint64_t frame_at, uint64_t frame_bytes, struct err *err)
{
    size_t start = out->size;
    json_t *id = json_string(s->id), *answer = s->answer ? json_string(s->answer) : NULL, *reason = json_string(s->finish_reason);
    enum status st = ST_OK;
    if (!id || !*s->id || strlen(s->id) > FRAME_MAX_ID)
        st = err_set(err, ST_BAD_INPUT, "sample id \"%.40s\": wanted 1 to %d bytes of UTF-8", s->id, FRAME_MAX_ID);
    else if ((s->answer && !answer) || !reason)
        st = err_set(err, ST_BAD_INPUT, "sample \"%s\": its answer is not UTF-8", s->id);
    else if (s->seed > INT64_MAX)
        st = err_set(err, ST_BAD_INPUT, "sample \"%s\": seed %llu is not below 2^63", s->id, (unsigned long long)s->seed);
    else if (s->sample < 0 || s->n_tok < 0 || s->n_prompt < 0)
        st = err_set(err, ST_BAD_INPUT, "sample \"%s\": a negative sample number or length", s->id);
    if (st) goto out;
    buf_puts(out, "{\"id\":");
    json_append_line(out, id);
    out->size--;
    buf_printf(out, ",\"sample\":%d,\"n_tok\":%d", s->sample, s->n_tok);
    if (frame_bytes)
        buf_printf(out, ",\"targets_offset\":%llu,\"targets_bytes\":%llu", (unsigned long long)frame_at, (unsigned long long)frame_bytes);
    buf_printf(out, ",\"seed\":%llu", (unsigned long long)s->seed);
    put_member(out, "finish_reason", reason);
    put_member(out, "answer", answer);
    put_member(out, "messages", s->messages);
    put_ids(out, "token_ids", s->token_ids, s->n_tok);
    put_ids(out, "prompt_ids", s->prompt_ids, s->n_prompt);
    put_member(out, "verdicts", s->verdicts);
    put_member(out, "cost", s->cost);
    buf_printf(out, ",\"crc32c\":\"%08x\"}\n", crc32c(0, out->data + start, out->size - start));
    if (out->size - start > UINT32_MAX) st = err_set(err, ST_BAD_INPUT, "sample \"%s\": its line is longer than 4 GiB", s->id);
out:
    if (st) out->size = start;
    json_decref(id);
    json_decref(answer);
    json_decref(reason);
    return st;
}

// ---- reading

bool line_crc_ok(const char *line, size_t n)
{
    const size_t tail = LINE_TAIL - 1;
    if (n < tail || memcmp(line + n - tail, ",\"crc32c\":\"", 11) != 0) return false;
    char want[LINE_TAIL];
    snprintf(want, sizeof want, ",\"crc32c\":\"%08x\"}", crc32c(0, line, n - tail));
    return !memcmp(line + n - tail, want, tail);
}

// Takes `word` and a number after it; *p moves behind.
static bool take_number(const char **p, const char *end, const char *word, uint64_t max, uint64_t *out)
{
    size_t n = strlen(word);
    if ((size_t)(end - *p) < n || memcmp(*p, word, n) != 0) return false;
    const char *q = *p + n;
    uint64_t v = 0;
    if (q == end || *q < '0' || *q > '9') return false;
    for (; q < end && *q >= '0' && *q <= '9'; q++) {
        if (v > (max - (uint64_t)(*q - '0')) / 10) return false;
        v = 10 * v + (uint64_t)(*q - '0');
    }
    if (q == end) return false; // a number that the end of the line cuts
    *p = q;
    *out = v;
    return true;
}

bool line_head(struct line_key *key, const char *line, size_t n)
{
    static const char FIRST[] = "{\"id\":\"";
    const char *p = line + sizeof FIRST - 1, *end = line + n, *id = p;
    *key = (struct line_key){0};
    if (n < sizeof FIRST || memcmp(line, FIRST, sizeof FIRST - 1) != 0) return false;
    bool escaped = false;
    while (p < end && *p != '"') {
        escaped |= *p == '\\';
        p += *p == '\\' ? 2 : 1;
    }
    if (p >= end || p == id) return false;
    if (escaped) { // rare: the JSON parser knows
        struct err ignored = {0};
        json_t *s = NULL;
        if (json_parse(&s, id - 1, (size_t)(p - id) + 2, "", 0, &ignored)) return false;
        if (json_is_string(s) && strlen(json_string_value(s)) == json_string_length(s)) key->id = mem_strdup(json_string_value(s));
        json_decref(s);
        if (!key->id) return false;
    } else {
        key->id = mem_strndup(id, (size_t)(p - id));
    }
    p++;
    uint64_t sample, n_tok;
    bool ok = take_number(&p, end, ",\"sample\":", INT32_MAX, &sample) && take_number(&p, end, ",\"n_tok\":", INT32_MAX, &n_tok);
    if (ok && take_number(&p, end, ",\"targets_offset\":", INT64_MAX, &key->frame_at))
        ok = take_number(&p, end, ",\"targets_bytes\":", INT64_MAX, &key->frame_bytes);
    if (!ok) {
        mem_free(key->id);
        key->id = NULL;
        return false;
    }
    key->sample = (int)sample;
    key->n_tok = (int)n_tok;
    return true;
}

static const char *const FINISH_REASON[] = {"stop", "length", "refusal", "error"};

static int32_t *take_ids(const json_t *j, int *n, bool *ok)
{
    *n = (int)json_array_size(j);
    int32_t *ids = NEW_N(int32_t, *n ? *n : 1);
    *ok &= json_is_array(j);
    for (int i = 0; i < *n; i++) {
        const json_t *v = json_array_get(j, (size_t)i);
        *ok &= json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX;
        ids[i] = (int32_t)json_integer_value(v);
    }
    return ids;
}

static json_t *object_or_null(json_t *j)
{
    return json_is_object(j) ? json_incref(j) : NULL;
}

enum status line_decode(struct sample *out, const char *line, size_t n, const char *where, long line_number, struct err *err)
{
    *out = (struct sample){0};
    if (!line_crc_ok(line, n)) return err_set(err, ST_FAIL, "%s:%ld: the line is damaged: its crc32c does not match", where, line_number);
    json_t *j = NULL;
    TRY(json_parse(&j, line, n, where, line_number, err));
    const json_t *sample = json_object_get(j, "sample"), *seed = json_object_get(j, "seed");
    const char *id = json_string_value(json_object_get(j, "id")), *reason = json_string_value(json_object_get(j, "finish_reason"));
    json_t *messages = json_object_get(j, "messages");
    bool ok = id && json_is_integer(sample) && json_is_integer(seed) && json_is_array(messages);
    out->line = j;
    out->id = mem_strdup(id ? id : "");
    out->sample = (int)json_integer_value(sample);
    out->seed = (uint64_t)json_integer_value(seed);
    out->messages = messages ? json_incref(messages) : NULL;
    out->token_ids = take_ids(json_object_get(j, "token_ids"), &out->n_tok, &ok);
    out->prompt_ids = take_ids(json_object_get(j, "prompt_ids"), &out->n_prompt, &ok);
    out->answer = json_string_value(json_object_get(j, "answer"));
    out->verdicts = object_or_null(json_object_get(j, "verdicts"));
    out->cost = object_or_null(json_object_get(j, "cost"));
    for (size_t i = 0; reason && i < sizeof FINISH_REASON / sizeof *FINISH_REASON; i++)
        if (!strcmp(reason, FINISH_REASON[i])) out->finish_reason = FINISH_REASON[i];
    if (ok && out->finish_reason) return ST_OK;
    sample_free(out);
    return err_set(err, ST_FAIL, "%s:%ld: wanted id, sample, seed, messages, token_ids, prompt_ids and finish_reason of a trace", where,
                   line_number);
}

void sample_free(struct sample *s)
{
    mem_free(s->id);
    mem_free(s->token_ids);
    mem_free(s->prompt_ids);
    json_decref(s->messages);
    json_decref(s->verdicts);
    json_decref(s->cost);
    json_decref(s->line);
    *s = (struct sample){0};
}

static const char *last_message(const struct sample *s, const char *key)
{
    const char *text = json_string_value(json_object_get(json_array_get(s->messages, json_array_size(s->messages) - 1), key));
    return text ? text : "";
}
const char *sample_content(const struct sample *s)
{
    return last_message(s, "content");
}
const char *sample_reasoning(const struct sample *s)
{
    return last_message(s, "reasoning_content");
}
