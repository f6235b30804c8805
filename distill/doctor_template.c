// Checks of chat templates. Nothing is looked for in the template's text: conversations are rendered, and what came out is looked at.
#include "datasets/tokenizer/compare.h"
#include "distill/doctor.h"

#include <string.h>

// ---- conversations ----------------------------------------------------------------------------------------------------------------------

static const char REASON_1[] = "first-line-of-thought", ANSWER_1[] = "first-answer", REASON_2[] = "second-line-of-thought",
                  ANSWER_2[] = "second-answer", QUESTION_1[] = "What is 2 + 3?", QUESTION_2[] = "And 4 + 5?";

static json_t *turn(const char *role, const char *content)
{
    return json_pack("{s:s, s:s}", "role", role, "content", content);
}

// An assistant's turn with reasoning: beside the content, or inside it between the tags.
static json_t *reasoned(const char *reason, const char *answer, bool inside)
{
    if (!inside) return json_pack("{s:s, s:s, s:s}", "role", "assistant", "content", answer, "reasoning_content", reason);
    char *text = mem_printf("<think>\n%s\n</think>\n\n%s", reason, answer);
    json_t *m = turn("assistant", text);
    mem_free(text);
    return m;
}

static json_t *two_turns(bool inside)
{
    return json_pack("[o, o, o, o]", turn("user", QUESTION_1), reasoned(REASON_1, ANSWER_1, inside), turn("user", QUESTION_2),
                     reasoned(REASON_2, ANSWER_2, inside));
}

// Steals the messages.
static enum status render(const struct side *s, json_t *messages, bool generation, struct buf *out, struct err *err)
{
    json_t *request = json_pack("{s:o, s:b}", "messages", messages, "add_generation_prompt", generation);
    enum status st = chat_render(s->chat, request, out, NULL, err);
    json_decref(request);
    return st;
}

static bool holds(const struct buf *b, const char *word)
{
    return b->size && memmem(b->data, b->size, word, strlen(word)) != NULL;
}

static json_t *json_text(const char *s, size_t n, char **quoted) // quoted, cut after 60 bytes at the end of a character
{
    const size_t most = 60;
    size_t len = n > most ? most : n;
    while (len < n && len && ((unsigned char)s[len] & 0xC0) == 0x80) len--;
    json_t *text = utf8_json(s, len);
    *quoted = json_dumps(text, JSON_ENCODE_ANY);
    return text;
}

// ---- one template -----------------------------------------------------------------------------------------------------------------------

void check_chat_template(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    if (!s->chat) {
        bool teacher = s == &x->teacher;
        say(f, teacher ? V_FAIL : V_WARN, "%s", s->chat_err.text);
        if (!tokenizer_chat_template(s->tok))
            fix(f,
                teacher ? "put the chat_template.jinja of its instruct version into %s"
                        : "put the teacher's chat_template.jinja into %s: conversations cannot be learned from without one (stores can)",
                s->dir);
        else
            fix(f, "write the template without what is named there, as chat_template.jinja");
        return;
    }
    static const char *const names[] = {"a question", "a system message", "several turns"};
    json_t *talks[] = {json_pack("[o]", turn("user", QUESTION_1)),
                       json_pack("[o, o]", turn("system", "Be brief."), turn("user", QUESTION_1)),
                       json_pack("[o, o, o]", turn("user", QUESTION_1), turn("assistant", ANSWER_1), turn("user", QUESTION_2))};
    struct buf good = {0};
    for (int i = 0; i < 3; i++) {
        struct buf text = {0};
        struct err err = {0};
        if (render(s, talks[i], true, &text, &err)) {
            say(f, i == 1 ? V_WARN : V_FAIL, "%s cannot be rendered: %s", names[i], err.text);
            fix(f, i == 1 ? "leave system messages out of the prompts" : "mend the template");
        } else
            buf_printf(&good, "%s%s", good.size ? ", " : "", names[i]);
        buf_free(&text);
    }
    if (good.size) say(f, V_OK, "renders %s", good.data);
    buf_free(&good);
}

// Which reasoning of two turns the template writes.
struct kept {
    bool earlier, last, rendered;
};
static struct kept kept(const struct side *s, bool inside)
{
    struct buf text = {0};
    struct err ignored = {0};
    struct kept k = {.rendered = !render(s, two_turns(inside), false, &text, &ignored)};
    k.earlier = holds(&text, REASON_1);
    k.last = holds(&text, REASON_2);
    buf_free(&text);
    return k;
}

bool side_strips_think(const struct side *s)
{
    const struct kept k = s->chat ? kept(s, true) : (struct kept){0};
    return k.rendered && !k.last;
}

void check_reasoning(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    const bool student = s == &x->student;
    const struct kept beside = kept(s, false), inside = kept(s, true);
    const enum verdict look = student ? V_WARN : V_OK; // a teacher's template writes prompts only
    if (!beside.rendered) {
        say(f, V_SKIP, "a conversation of two turns cannot be rendered");
        return;
    }
    if (beside.last && beside.earlier)
        say(f, V_OK, "reasoning_content is written in every turn");
    else if (beside.last)
        say(f, look, "reasoning_content is written in the last turn and stripped from earlier ones");
    else
        say(f, look, "reasoning_content is never written%s",
            student ? "; train writes it as <think>…</think> into the answers behind the last question, not into earlier ones" : "");
    if (student && !beside.earlier)
        fix(f, "where each turn's reasoning is to be learned, make a row of each turn: the conversation up to it");
    if (inside.rendered && !(inside.last && inside.earlier))
        say(f, inside.last ? V_OK : look, "<think>…</think> inside the content is stripped %s",
            inside.last ? "from earlier turns" : "everywhere");
    if (student && inside.rendered && !inside.last) fix(f, "where rows have reasoning inside the content, move it to reasoning_content");
}

// What the template adds when the assistant is to go on.
static bool generation_prompt(const struct side *s, struct buf *out, struct err *err)
{
    struct buf without = {0}, with = {0};
    bool fine = !render(s, json_pack("[o]", turn("user", QUESTION_1)), false, &without, err) &&
                !render(s, json_pack("[o]", turn("user", QUESTION_1)), true, &with, err);
    size_t n = 0;
    while (fine && n < without.size && n < with.size && without.data[n] == with.data[n]) n++;
    if (fine && with.size > n) buf_put(out, with.data + n, with.size - n);
    buf_free(&without);
    buf_free(&with);
    return fine;
}

void check_generation_prompt(struct exam *x, struct finding *f)
{
    struct buf prompt = {0};
    struct err err = {0};
    char *quoted = NULL;
    if (!generation_prompt(x->side, &prompt, &err))
        say(f, V_FAIL, "a question cannot be rendered: %s", err.text), fix(f, "mend the template");
    else if (!prompt.size)
        say(f, V_OK, "nothing is added: the end of the user's turn opens the answer");
    else {
        json_t *text = json_text(prompt.data, prompt.size, &quoted);
        say(f, V_OK, "%s", quoted);
        if (chat_ends_in_think(prompt.data, prompt.size))
            say(f, V_OK, "it opens <think>: answers begin inside the reasoning, and have </think> without <think>");
        else if (holds(&prompt, "</think>"))
            say(f, V_OK, "it closes the reasoning at once: the model is asked to answer without");
        json_decref(text);
        free(quoted);
    }
    buf_free(&prompt);
}

// ---- two templates ----------------------------------------------------------------------------------------------------------------------

// Where two renderings part: a few characters of each.
static void say_difference(struct finding *f, const char *what, const struct buf *a, const struct buf *b)
{
    size_t n = 0;
    while (n < a->size && n < b->size && a->data[n] == b->data[n]) n++;
    while (n && n < a->size && ((unsigned char)a->data[n] & 0xC0) == 0x80) n--;
    char *qa, *qb;
    json_t *ja = json_text(a->size ? a->data + n : "", a->size - n, &qa), *jb = json_text(b->size ? b->data + n : "", b->size - n, &qb);
    say(f, V_WARN, "%s differs after %zu bytes: %s in the teacher's, %s in the student's", what, n, qa, qb);
    json_decref(ja);
    json_decref(jb);
    free(qa);
    free(qb);
}

void check_chat_templates(struct exam *x, struct finding *f)
{
    static const char *const names[] = {"a prompt", "a prompt with a system message", "a conversation", "a conversation with reasoning"};
    int n_same = 0;
    for (int i = 0; i < 4; i++) {
        json_t *talk = i == 0   ? json_pack("[o]", turn("user", QUESTION_1))
                       : i == 1 ? json_pack("[o, o]", turn("system", "Be brief."), turn("user", QUESTION_1))
                       : i == 2 ? json_pack("[o, o, o]", turn("user", QUESTION_1), turn("assistant", ANSWER_1), turn("user", QUESTION_2))
                                : two_turns(false);
        struct buf a = {0}, b = {0};
        struct err err_a = {0}, err_b = {0};
        enum status sa = render(&x->teacher, json_incref(talk), i != 3, &a, &err_a), sb = render(&x->student, talk, i != 3, &b, &err_b);
        if (sa != sb)
            say(f, V_WARN, "%s can be rendered by the %s alone", names[i], sa ? "student" : "teacher");
        else if (a.size == b.size && (!a.size || !memcmp(a.data, b.data, a.size)))
            n_same++;
        else if (f->verdict < V_WARN) // one example is enough
            say_difference(f, names[i], &a, &b);
        buf_free(&a);
        buf_free(&b);
    }
    number(f, "n_same", n_same);
    if (n_same == 4) {
        say(f, V_OK, "%d test conversations come out the same", n_same);
        return;
    }
    say(f, V_WARN,
        "%d of 4 test conversations come out the same: what is learned from a store follows the teacher's template, and the student would "
        "be asked by its own",
        n_same);
    fix(f, "give the student the teacher's template: chat_template.jinja (or \"chat_template\" in tokenizer_config.json)");
}

// ---- where the loss falls ---------------------------------------------------------------------------------------------------------------

void check_loss_mask(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    json_t *messages = two_turns(false);
    struct ids ids = {0}, learned = {0};
    struct buf text = {0};
    uint8_t *mask = NULL;
    struct err err = {0};
    bool added = false;
    json_t *row = json_pack("{s:O}", "messages", messages);
    enum status st = chat_training_row(s->chat, row, &ids, &mask, &added, &err);
    json_decref(row);
    for (size_t i = 0; !st && i < ids.n; i++)
        if (mask[i]) ids_push(&learned, ids.v[i]);
    if (!st) st = tokenizer_decode(s->tok, learned.v, learned.n, false, &text, &err);
    if (st) {
        say(f, V_FAIL, "%s", err.text);
        fix(f, "mark the assistant's text in the template by {%% generation %%} … {%% endgeneration %%}; learning from a store needs no "
               "template");
    } else if (!holds(&text, ANSWER_1) || !holds(&text, ANSWER_2) || holds(&text, QUESTION_1) || holds(&text, QUESTION_2)) {
        say(f, V_FAIL, "the loss of a test conversation does not fall on the assistant's answers alone");
        fix(f, "mark the assistant's text in the template by {%% generation %%} … {%% endgeneration %%}");
    } else {
        say(f, V_OK, "on %zu of %zu tokens of a test conversation: both answers%s%s", learned.n, ids.n,
            !holds(&text, REASON_2)  ? ""
            : holds(&text, REASON_1) ? ", both reasonings"
                                     : ", the last reasoning",
            s->turn_end >= 0 ? " and their end tokens" : "");
        if (added) say(f, V_OK, "the template leaves the last reasoning out, train puts it back");
    }
    json_decref(messages);
    ids_free(&ids);
    ids_free(&learned);
    buf_free(&text);
    mem_free(mask);
}
