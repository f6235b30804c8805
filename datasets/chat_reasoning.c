// Reasoning that a template leaves out, put back where the model writes it.
//
// Templates drop the reasoning of earlier turns on purpose: the model does not see it there, and a row must look the same. But
// DeepSeek-R1's drops it from the last turn too, though its generation prompt opens <think>; and one that knows no reasoning (Qwen2.5,
// Llama-3) never writes any. A student that is to learn to reason would then learn to answer without. So for the turns after the user's
// last:
//
//     <｜Assistant｜>            answer<eos>      what the template writes
//     <｜Assistant｜><think>\n   reasoning\n</think>\n\nanswer<eos>       what stands in the row where the prompt opens <think>
//     <|im_start|>assistant\n   <think>\nreasoning\n</think>\n\nanswer<|im_end|>     where it does not
#include "datasets/chat_internal.h"

#include <string.h>

static bool is_user(const json_t *message)
{
    return !strcmp(json_string_value(json_object_get(message, "role")), "user");
}

static bool is_last_answer(const struct prober *p, size_t turn)
{
    for (size_t i = turn + 1; i < json_array_size(p->messages); i++)
        if (is_user(json_array_get(p->messages, i))) return false;
    return true;
}

// The message's reasoning apart from its answer, {"reasoning_content", "content"}, whether it has a field of its own or stands in the
// content. NULL: it has none.
static json_t *reasoning_of(const json_t *message, bool *own_field)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const json_t *found = NULL;
    for (int i = 0; i < 3 && !json_is_string(found); i++) found = json_object_get(message, names[i]);
    *own_field = json_is_string(found);
    json_t *text = chat_content_text(*own_field ? found : json_object_get(message, "content"));
    if (!text) return NULL;
    json_t *apart = chat_split_reasoning(json_string_value(text), json_string_length(text), *own_field);
    json_decref(text);
    if (json_string_length(json_object_get(apart, "reasoning_content"))) return apart;
    json_decref(apart);
    return NULL;
}

// Does what the template writes hold the reasoning? The turn is rendered with the probe in its place.
static enum status writes_reasoning(struct prober *p, size_t turn, bool own_field, const char *answer, bool *writes)
{
    json_t *probe = json_copy(json_array_get(p->messages, turn));
    struct buf text = {0};
    json_object_del(probe, "thinking");
    json_object_del(probe, "reasoning");
    json_object_del(probe, "reasoning_content");
    if (own_field)
        json_object_set_new(probe, "reasoning_content", json_string(p->probe));
    else
        json_object_set_new(probe, "content",
                            content_like(json_object_get(probe, "content"), json_sprintf("<think>\n%s\n</think>\n\n%s", p->probe, answer)));
    enum status st = probe_render(p, json_array_size(p->messages), turn, probe, false, &text);
    *writes = !st && memmem(of(&text).p, text.size, p->probe, strlen(p->probe));
    buf_free(&text);
    json_decref(probe);
    return st;
}

// The generation prompt with thinking switched on, by the names that templates have for it, unless the row says otherwise.
static enum status thinking_prompt(struct prober *p, size_t turn, struct buf *prompt)
{
    struct prober thinking = *p;
    struct buf before = {0};
    thinking.vars = json_pack("{s:b, s:b}", "thinking", 1, "enable_thinking", 1);
    json_object_update(thinking.vars, p->vars);
    enum status st = probe_prompt(&thinking, turn, &before, prompt);
    json_decref(thinking.vars);
    buf_free(&before);
    return st;
}

enum status lost_reasoning(struct prober *p, size_t turn, const struct turn *t, bool *lost, struct buf *head, struct buf *said)
{
    const json_t *message = json_array_get(p->messages, turn);
    bool own_field, writes = false;
    json_t *apart = is_last_answer(p, turn) ? reasoning_of(message, &own_field) : NULL;
    *lost = false;
    if (!apart) return ST_OK;
    enum status st = writes_reasoning(p, turn, own_field, json_string_value(json_object_get(apart, "content")), &writes);
    if (!st && !writes && !(st = thinking_prompt(p, turn, head))) {
        const bool opened = chat_ends_in_think(of(head).p, head->size);
        const bool lines = !opened || head->data[head->size - 1] == '\n'; // DeepSeek-V3.1 writes <think> without a line of its own
        const char *answer = p->full.p + t->start;
        size_t n_answer = t->end - t->start;
        *lost = true;
        if (!opened) { // the prompt that the template gives as a matter of course
            buf_clear(head);
            buf_put(head, p->full.p + t->at, t->start - t->at);
            buf_puts(said, "<think>\n");
        }
        while (n_answer && strchr(" \t\r\n", *answer)) answer++, n_answer--;
        buf_puts(said, json_string_value(json_object_get(apart, "reasoning_content")));
        buf_puts(said, lines ? "\n</think>\n\n" : "</think>");
        buf_put(said, answer, n_answer);
    }
    json_decref(apart);
    return st;
}
