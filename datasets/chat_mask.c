// Where the loss falls in a conversation: on what the assistant says and the token that ends it.
//
// A template with {% generation %} blocks says so itself. For any other the place is found by rendering. For each assistant turn:
//
//     full   …<|im_start|>assistant\n<think>\nreasoning\n</think>\n\nanswer<|im_end|>\n<|im_start|>user\n…
//     probe  …<|im_start|>assistant\nPROBE<|im_end|>\n<|im_start|>user\n…           the turn's text replaced by a word found nowhere else
//     before …                                                                     the turns before it alone
//
// The turn begins where `before` ends; what the template writes there when asked for a generation prompt was not written by the model, so
// the span begins behind as much of it as the full text has. The span's text ends where the probe's tail begins, counted from the end.
//
// Traps: templates drop <think>…</think> from earlier turns, so `before` need not be a beginning of the full text; DeepSeek-R1's generation
// prompt ends with <think>\n, which a finished turn may or may not have; an end token belongs to the span only if it ends the turn wherever
// that stands, not if it begins the next one.
#include "datasets/chat_internal.h"

#include <string.h>

struct text {
    const char *p;
    size_t n;
};
static struct text of(const struct buf *b)
{
    return (struct text){b->data ? b->data : "", b->size};
}

static size_t common_start(struct text a, struct text b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n]) n++;
    return n;
}
static bool ends_with(struct text a, struct text tail)
{
    return a.n >= tail.n && memcmp(a.p + a.n - tail.n, tail.p, tail.n) == 0;
}
static bool begins(struct text a, const char *word)
{
    return a.n >= strlen(word) && memcmp(a.p, word, strlen(word)) == 0;
}
static const char *last_in(struct text a, struct text what)
{
    for (size_t i = a.n >= what.n ? a.n - what.n + 1 : 0; i-- > 0;)
        if (memcmp(a.p + i, what.p, what.n) == 0) return a.p + i;
    return NULL;
}
static bool is_blank(struct text a)
{
    for (size_t i = 0; i < a.n; i++)
        if (!strchr(" \t\r\n", a.p[i])) return false;
    return true;
}

struct prober {
    const struct chat *c;
    const json_t *messages;
    struct text full;
    char probe[32]; // a word that the full text does not hold
    struct err *err;
};

// Renders the first n messages; the last of them or, with `at` < n, message `at` says only the probe.
static enum status render(struct prober *p, size_t n, size_t at, bool generation, struct buf *out)
{
    json_t *list = json_array(), *request = json_object();
    for (size_t i = 0; i < n; i++) {
        if (i == at)
            json_array_append_new(list, json_pack("{s:s, s:s}", "role", "assistant", "content", p->probe));
        else
            json_array_append(list, json_array_get(p->messages, i));
    }
    json_object_set_new(request, "messages", list);
    json_object_set_new(request, "add_generation_prompt", json_boolean(generation));
    enum status st = chat_render_spans(p->c, request, out, NULL, p->err);
    json_decref(request);
    return st;
}

static enum status refuse(struct prober *p, size_t turn, const char *why)
{
    return err_set(p->err, ST_BAD_INPUT, "messages[%zu]: the place of its text in the chat template's output cannot be found: %s", turn,
                   why);
}

// What the template writes after the turns before `turn` for the assistant to go on from. Turns that cannot be rendered alone (a template
// may refuse a conversation that begins with the assistant) are replaced by one of the user.
static enum status generation_prompt(struct prober *p, size_t turn, struct buf *before, struct buf *prompt)
{
    struct buf with = {0};
    struct prober other = *p;
    json_t *hello = json_pack("[{s:s, s:s}]", "role", "user", "content", "Hello");
    enum status st = turn ? render(p, turn, SIZE_MAX, false, before) : ST_BAD_INPUT;
    if (!st) st = render(p, turn, SIZE_MAX, true, &with);
    if (!st) {
        size_t n = common_start(of(before), of(&with));
        if (n == before->size)
            buf_put(prompt, with.data + n, with.size - n);
        else
            st = ST_BAD_INPUT;
    }
    if (st) {
        struct buf alone = {0};
        *p->err = (struct err){0};
        buf_clear(before);
        buf_clear(&with);
        other.messages = hello;
        if (!(st = render(&other, 1, SIZE_MAX, false, &alone)) && !(st = render(&other, 1, SIZE_MAX, true, &with))) {
            size_t n = common_start(of(&alone), of(&with));
            buf_put(prompt, of(&with).p + n, with.size - n);
        }
        buf_free(&alone);
    }
    json_decref(hello);
    buf_free(&with);
    return st;
}

// Where the assistant's own text begins in the full text. `head` is what the probe's rendering has before the probe.
static enum status find_start(struct prober *p, size_t turn, struct text head, struct text before, struct text prompt, size_t *start)
{
    size_t at = common_start(head, before);
    if (at < before.n || !before.n) { // earlier turns look different now: the prompt itself tells where this one begins
        struct text rest = {head.p + at, head.n - at};
        const char *hit = prompt.n ? last_in(rest, prompt) : NULL;
        for (size_t k = prompt.n; !hit && k > 0; k--)
            if (ends_with(rest, (struct text){prompt.p, k}) && !is_blank((struct text){prompt.p, k})) hit = head.p + head.n - k;
        if (!hit) return refuse(p, turn, "its generation prompt does not stand before the turn");
        at = (size_t)(hit - head.p);
    }
    if (common_start(head, p->full) < at) return refuse(p, turn, "what stands before it depends on its text");
    size_t has = common_start((struct text){p->full.p + at, p->full.n - at}, prompt);
    const char *think = memmem(prompt.p, prompt.n, "<think>", 7); // not half of it, shared with another tag
    if (think && has > (size_t)(think - prompt.p) && has < (size_t)(think - prompt.p) + 7) has = (size_t)(think - prompt.p);
    struct text lacks = {prompt.p + has, prompt.n - has};
    // A finished turn may lack only blanks and the opened (or at once closed) reasoning of the prompt it would have been written after.
    if (lacks.n && !is_blank(lacks) && !begins(lacks, "<think>") && !begins(lacks, "</think>"))
        return refuse(p, turn, "the turn does not begin as the generation prompt says");
    *start = at + has;
    return ST_OK;
}

// The added token that a text begins with, after spaces: its end, or 0 if there is none.
static size_t leading_token(const struct tokenizer *t, struct text s, int32_t *id)
{
    size_t lead = 0, end = 0;
    while (lead < s.n && s.p[lead] == ' ') lead++;
    for (size_t i = 0; i < t->n_added; i++) {
        const struct added *a = &t->added[i];
        if (lead + a->n <= end || a->n > s.n - lead || memcmp(s.p + lead, a->content, a->n) != 0) continue;
        end = lead + a->n;
        *id = a->id;
    }
    return end;
}

// The length of the end token (with spaces before it) at the start of `tail`, which follows the turn's text; 0 if none belongs to the turn.
static enum status find_end_token(struct prober *p, size_t turn, struct text tail, size_t *n_end)
{
    int32_t id = -1, last_id = -1;
    size_t n = leading_token(p->c->tok, tail, &id);
    *n_end = 0;
    if (!n) return ST_OK;
    if (id == tokenizer_eos(p->c->tok) || turn + 1 == json_array_size(p->messages)) return *n_end = n, ST_OK;
    struct buf last = {0}; // does the turn end so when nothing follows it?
    enum status st = render(p, turn + 1, turn, false, &last);
    const char *hit = st ? NULL : last_in(of(&last), (struct text){p->probe, strlen(p->probe)});
    if (hit) {
        hit += strlen(p->probe);
        if (leading_token(p->c->tok, (struct text){hit, (size_t)(last.data + last.size - hit)}, &last_id) && last_id == id) *n_end = n;
    }
    buf_free(&last);
    return st;
}

static enum status find_span(struct prober *p, size_t turn, size_t span[2])
{
    struct buf probed = {0}, before = {0}, prompt = {0};
    size_t n_probe = strlen(p->probe), n_end;
    const char *hit;
    enum status st = render(p, json_array_size(p->messages), turn, false, &probed);
    if (st) goto out;
    hit = memmem(of(&probed).p, probed.size, p->probe, n_probe);
    if (!hit || last_in(of(&probed), (struct text){p->probe, n_probe}) != hit) {
        st = refuse(p, turn, hit ? "the template writes the turn's text twice" : "the template does not write the turn's text");
        goto out;
    }
    struct text head = {probed.data, (size_t)(hit - probed.data)}, tail = {hit + n_probe, probed.size - head.n - n_probe};
    if ((st = generation_prompt(p, turn, &before, &prompt))) goto out;
    if ((st = find_start(p, turn, head, of(&before), of(&prompt), &span[0]))) goto out;
    if (!ends_with(p->full, tail) || p->full.n - tail.n < span[0]) {
        st = refuse(p, turn, "what follows it depends on its text");
        goto out;
    }
    span[1] = p->full.n - tail.n;
    if ((st = find_end_token(p, turn, tail, &n_end))) goto out;
    span[1] += n_end;
out:
    buf_free(&probed);
    buf_free(&before);
    buf_free(&prompt);
    return st;
}

static enum status find_spans(const struct chat *c, const json_t *messages, struct text full, struct buf *spans, struct err *err)
{
    struct prober p = {.c = c, .messages = messages, .full = full, .err = err};
    const json_t *m;
    size_t i;
    for (unsigned k = 0; k < 1000; k++) { // private-use characters: no template trims, splits or changes the case of them
        snprintf(p.probe, sizeof p.probe, "\xEE\x80\x80%u\xEE\x80\x81", k);
        if (!memmem(full.p, full.n, p.probe, strlen(p.probe))) break;
    }
    json_array_foreach(messages, i, m)
    {
        if (strcmp(json_string_value(json_object_get(m, "role")), "assistant") != 0) continue;
        size_t span[2];
        TRY(find_span(&p, i, span));
        buf_put(spans, span, sizeof span);
    }
    return ST_OK;
}

enum status chat_training_row(const struct chat *c, const json_t *messages, struct ids *ids, uint8_t **mask, struct err *err)
{
    struct buf text = {0}, spans = {0}, ends = {0};
    size_t first = ids->n, n_assistant = 0, i;
    const json_t *m;
    *mask = NULL;
    json_t *request = json_pack("{s:O}", "messages", messages);
    enum status st = chat_render_spans(c, request, &text, template_has_generation(c->template) ? &spans : NULL, err);
    json_decref(request);
    if (st) goto out;
    json_array_foreach(messages, i, m) n_assistant += strcmp(json_string_value(json_object_get(m, "role")), "assistant") == 0;
    if (!n_assistant) {
        st = err_set(err, ST_BAD_INPUT, "messages: no turn of the assistant: there is nothing to learn");
        goto out;
    }
    if (!template_has_generation(c->template) && (st = find_spans(c, messages, of(&text), &spans, err))) goto out;
    if ((st = tokenizer_encode_ends(c->tok, of(&text).p, text.size, ids, &ends, err))) goto out;
    *mask = mem_alloc(ids->n + 1);
    size_t begin = 0, end, span[2], k = 0; // spans come in order
    for (size_t t = first; t < ids->n; t++, begin = end) {
        memcpy(&end, ends.data + (t - first) * sizeof end, sizeof end);
        for (; k < spans.size; k += sizeof span) {
            memcpy(span, spans.data + k, sizeof span);
            if (span[1] > begin) break;
        }
        if (k < spans.size && begin < span[1] && end > span[0]) (*mask)[t] = 1;
    }
out:
    buf_free(&text);
    buf_free(&spans);
    buf_free(&ends);
    return st;
}
