// Shared by chat.c (rendering), chat_content.c (content in parts), chat_mask.c (where the loss falls) and chat_reasoning.c (reasoning that
// a template leaves out).
#pragma once
#include "datasets/chat.h"
#include "datasets/template/internal.h"
#include "datasets/tokenizer/internal.h"

struct chat {
    const struct tokenizer *tok;
    struct template *template, *tool_template; // the second for requests with tools; NULL: the first serves them, too
    json_t *vars;                              // of every rendering; NULL: none
};
// The template that renders a request with these variables.
const struct template *chat_template_for(const struct chat *c, const json_t *vars);
enum status chat_check_messages(const json_t *messages, struct err *err); // an array of objects with roles
// Replaces *messages, checked to have roles, by a new array (the caller's) in which content is as the template wants it. ST_BAD_INPUT: a
// part that is no text; *messages is then as it was.
enum status content_prepare(const struct template *t, json_t **messages, struct err *err);
json_t *content_like(const json_t *content, json_t *text); // text (taken over) in the form of that content: a string, or a list of one part
// Appends the text, and to spans (may be NULL) what the template's {% generation %} blocks wrote: pairs of size_t.
enum status chat_render_spans(const struct chat *c, const json_t *request, struct buf *text, struct buf *spans, struct err *err);

struct text { // borrowed
    const char *p;
    size_t n;
};
static inline struct text of(const struct buf *b)
{
    return (struct text){b->data ? b->data : "", b->size};
}

struct prober { // a conversation that is rendered again and again, to see where things come out
    const struct chat *c;
    const json_t *messages;
    json_t *vars; // the template's other variables; "messages" among them is replaced
    struct text full;
    char probe[32]; // a word that the full text does not hold
    struct err *err;
};
struct turn { // of the assistant, in the full text: [at, start) the generation prompt, [start, end) what it says, then its end token
    size_t at, start, end, n_end;
};
// Renders the first n messages, `instead` in the place of message `at`.
enum status probe_render(struct prober *p, size_t n, size_t at, json_t *instead, bool generation, struct buf *out);
// What the template writes after the turns before `turn` for the assistant to go on from, and the text of those turns.
enum status probe_prompt(struct prober *p, size_t turn, struct buf *before, struct buf *prompt);
// Whether the template leaves out the reasoning of a turn that it belongs to; then what should stand in [at, end): what the model finds
// written (head), and what it says (said).
enum status lost_reasoning(struct prober *p, size_t turn, const struct turn *t, bool *lost, struct buf *head, struct buf *said);
