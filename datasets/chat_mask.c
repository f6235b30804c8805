// Where the loss falls in a conversation: on what the assistant says and the token that ends it. (What is to be learnt and the template
// leaves out, reasoning, is put back by chat_reasoning.c.)
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

enum status probe_render(struct prober *p, size_t n, size_t at, json_t *instead, bool generation, struct buf *out)
{
    json_t *list = json_array(), *request = json_copy(p->vars);
    for (size_t i = 0; i < n; i++) {
        if (i == at)
            json_array_append(list, instead);
        else
            json_array_append(list, json_array_get(p->messages, i));
    }
    json_object_set_new(request, "messages", list);
    json_object_set_new(request, "add_generation_prompt", json_boolean(generation));
    enum status st = chat_render_spans(p->c, request, out, NULL, p->err);
    json_decref(request);
    return st;
}
// The first n messages; message `at` among them says only the probe.
static enum status render(struct prober *p, size_t n, size_t at, bool generation, struct buf *out)
{
    const json_t *content = json_object_get(json_array_get(p->messages, at), "content");
    json_t *probe = json_pack("{s:s, s:o}", "role", "assistant", "content", content_like(content, json_string(p->probe)));
    enum status st = probe_render(p, n, at, probe, generation, out);
    json_decref(probe);
    return st;
}

static enum status refuse(struct prober *p, size_t turn, const char *why)
{
    return err_set(p->err, ST_BAD_INPUT, "messages[%zu]: the place of its text in the chat template's output cannot be found: %s", turn,
                   why);
}

// What the template writes after the turns before `turn` for the assistant to go on from. Turns that cannot be rendered alone (a template
// may refuse a conversation that begins with the assistant) are replaced by one of the user.
enum status probe_prompt(struct prober *p, size_t turn, struct buf *before, struct buf *prompt)
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
static enum status find_start(struct prober *p, size_t turn, struct text head, struct text before, struct text prompt, struct turn *out)
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
    out->at = at;
    out->start = at + has;
    if (!memmem(lacks.p, lacks.n, "</think>", 8)) return ST_OK;
    // The prompt closes the reasoning that it opened, so a </think> that the finished turn has alone was not written by the model either.
    struct text rest = {p->full.p + out->start, p->full.n - out->start};
    if (begins(rest, "</think>") && !begins(lacks, "</think>")) out->start += 8;
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

// A turn that calls tools may end in its own way (DeepSeek-V3 writes no end token after a single call): it ends where a conversation that
// ends with it does.
static enum status find_end_of_call(struct prober *p, size_t turn, struct turn *out)
{
    struct buf upto = {0};
    const bool calls = json_array_size(json_object_get(json_array_get(p->messages, turn), "tool_calls")) > 0;
    enum status st = calls ? render(p, turn + 1, SIZE_MAX, false, &upto) : ST_OK;
    if (!st && (!calls || common_start(of(&upto), p->full) < upto.size || upto.size < out->start))
        st = refuse(p, turn, "what follows it depends on its text");
    out->end = upto.size;
    buf_free(&upto);
    return st;
}

static enum status find_turn(struct prober *p, size_t turn, struct turn *out)
{
    struct buf probed = {0}, before = {0}, prompt = {0};
    size_t n_probe = strlen(p->probe);
    const char *hit;
    enum status st = render(p, json_array_size(p->messages), turn, false, &probed);
    if (st) goto out;
    hit = memmem(of(&probed).p, probed.size, p->probe, n_probe);
    if (!hit || last_in(of(&probed), (struct text){p->probe, n_probe}) != hit) {
        st = refuse(p, turn, hit ? "the template writes the turn's text twice" : "the template does not write the turn's text");
        goto out;
    }
    struct text head = {probed.data, (size_t)(hit - probed.data)}, tail = {hit + n_probe, probed.size - head.n - n_probe};
    if ((st = probe_prompt(p, turn, &before, &prompt))) goto out;
    if ((st = find_start(p, turn, head, of(&before), of(&prompt), out))) goto out;
    if (!ends_with(p->full, tail) || p->full.n - tail.n < out->start) {
        st = find_end_of_call(p, turn, out);
        goto out;
    }
    out->end = p->full.n - tail.n;
    if ((st = find_end_token(p, turn, tail, &out->n_end))) goto out;
out:
    buf_free(&probed);
    buf_free(&before);
    buf_free(&prompt);
    return st;
}

// A word that the text does not hold, of private-use characters: no template trims, splits or changes the case of them.
static void choose_probe(struct prober *p)
{
    for (unsigned k = 0; k < 1000; k++) {
        snprintf(p->probe, sizeof p->probe, "\xEE\x80\x80%u\xEE\x80\x81", k);
        if (!memmem(p->full.p, p->full.n, p->probe, strlen(p->probe))) break;
    }
}

static void put_span(struct buf *spans, size_t begin, size_t end)
{
    const size_t span[2] = {begin, end};
    buf_put(spans, span, sizeof span);
}

// The spans of a template that does not tell them, and the text with reasoning that it left out.
static enum status find_spans(struct prober *p, struct buf *text, struct buf *spans, bool *added)
{
    const json_t *m;
    size_t i, copied = 0;
    choose_probe(p);
    json_array_foreach(p->messages, i, m)
    {
        if (strcmp(json_string_value(json_object_get(m, "role")), "assistant") != 0) continue;
        struct turn t = {0};
        struct buf head = {0}, said = {0};
        bool lacking = false;
        enum status st = find_turn(p, i, &t);
        if (!st) st = lost_reasoning(p, i, &t, &lacking, &head, &said);
        const size_t from = !st && lacking ? t.at : t.start;
        if (!st && from < copied) st = refuse(p, i, "the turns overlap");
        if (!st) {
            buf_put(text, p->full.p + copied, from - copied);
            buf_put(text, of(&head).p, head.size);
            const size_t begin = text->size;
            if (lacking)
                buf_put(text, of(&said).p, said.size);
            else
                buf_put(text, p->full.p + t.start, t.end - t.start);
            buf_put(text, p->full.p + t.end, t.n_end);
            put_span(spans, begin, text->size);
            copied = t.end + t.n_end;
            *added |= lacking;
        }
        buf_free(&head);
        buf_free(&said);
        if (st) return st;
    }
    buf_put(text, p->full.p + copied, p->full.n - copied);
    return ST_OK;
}

// mask[i] = 1 for the tokens that touch a span; spans come in order.
static uint8_t *mask_of(const struct buf *spans, const struct ids *ids, size_t first, const struct buf *ends)
{
    uint8_t *mask = mem_alloc(ids->n + 1);
    size_t begin = 0, end, span[2], k = 0;
    for (size_t t = first; t < ids->n; t++, begin = end) {
        memcpy(&end, ends->data + (t - first) * sizeof end, sizeof end);
        for (; k < spans->size; k += sizeof span) {
            memcpy(span, spans->data + k, sizeof span);
            if (span[1] > begin) break;
        }
        if (k < spans->size && begin < span[1] && end > span[0]) mask[t] = 1;
    }
    return mask;
}

static size_t n_assistant(const json_t *messages)
{
    const json_t *m;
    size_t i, n = 0;
    json_array_foreach(messages, i, m) n += strcmp(json_string_value(json_object_get(m, "role")), "assistant") == 0;
    return n;
}

enum status chat_training_row(const struct chat *c, const json_t *row, struct ids *ids, uint8_t **mask, bool *reasoning_added,
                              struct err *err)
{
    struct buf full = {0}, text = {0}, spans = {0}, ends = {0};
    const size_t first = ids->n;
    bool added = false;
    json_t *vars = chat_row_vars(row), *messages = json_object_get(row, "messages");
    const struct template *t = chat_template_for(c, vars);
    const bool told = template_has_generation(t);
    *mask = NULL;
    enum status st = chat_check_messages(messages, err);
    if (!st && !(st = content_prepare(t, &messages, err))) json_object_set_new(vars, "messages", messages);
    if (!st) st = chat_render_spans(c, vars, &full, told ? &spans : NULL, err);
    if (!st && !n_assistant(messages)) st = err_set(err, ST_BAD_INPUT, "messages: no turn of the assistant: there is nothing to learn");
    if (st) goto out;
    if (!told) {
        struct prober p = {.c = c, .messages = messages, .vars = vars, .full = of(&full), .err = err};
        if ((st = find_spans(&p, &text, &spans, &added))) goto out;
    } else
        buf_put(&text, of(&full).p, full.size);
    if ((st = tokenizer_encode_ends(c->tok, of(&text).p, text.size, ids, &ends, err))) goto out;
    *mask = mask_of(&spans, ids, first, &ends);
    if (reasoning_added) *reasoning_added = added;
out:
    json_decref(vars);
    buf_free(&full);
    buf_free(&text);
    buf_free(&spans);
    buf_free(&ends);
    return st;
}

int32_t chat_end_token(const struct chat *c)
{
    static const char probe[] = "\xEE\x80\x80";
    json_t *parts = json_array();
    int32_t id = -1;
    bool found = false;
    for (int as_parts = 0; as_parts < 2 && !found; as_parts++) { // there are templates that write nothing of a string
        struct err ignored = {0};
        struct buf text = {0};
        const json_t *form = as_parts ? parts : NULL;
        json_t *request =
            json_pack("{s:[{s:s, s:o}, {s:s, s:o}]}", "messages", "role", "user", "content", content_like(form, json_string("Hello")),
                      "role", "assistant", "content", content_like(form, json_string(probe)));
        const char *hit =
            chat_render_spans(c, request, &text, NULL, &ignored) ? NULL : last_in(of(&text), (struct text){probe, sizeof probe - 1});
        found = hit != NULL;
        if (hit) hit += sizeof probe - 1, leading_token(c->tok, (struct text){hit, (size_t)(text.data + text.size - hit)}, &id);
        buf_free(&text);
        json_decref(request);
    }
    json_decref(parts);
    return id;
}
