// Conversations to ids and a loss mask, through the model's own chat template.
#pragma once
#include "datasets/template/template.h"
#include "datasets/tokenizer/tokenizer.h"

struct chat; // a tokenizer and its parsed template

// Takes a borrowed tokenizer that must outlive the chat. A tokenizer without a chat template is refused (ST_BAD_INPUT).
enum status chat_open(struct chat **out, const struct tokenizer *tok, struct err *err);
void chat_free(struct chat *c);
// Variables of every rendering, unless the request says otherwise: a JSON object as text, such as {"enable_thinking":false}. ST_BAD_INPUT.
enum status chat_set_vars(struct chat *c, const char *object, struct err *err);

// Renders request = {"messages":[…], "tools":[…]?, "add_generation_prompt":bool?, …}: every key is a variable of the template, as is what
// its "chat_template_kwargs" holds, with bos_token, eos_token, … of the tokenizer beside them. Appends the text to *text (may be NULL) and
// its ids to *ids (may be NULL).
enum status chat_render(const struct chat *c, const json_t *request, struct buf *text, struct ids *ids, struct err *err);

// A message's content as one new string: a string, or the texts of a list of parts, a line each; NULL of anything else. (Templates that
// loop over content get parts as they are, others get this. Parts that are no text are refused in rendering.)
json_t *chat_content_text(const json_t *content);

// The template's variables that a row of a data or prompt file brings beside its messages: its "tools" and "documents", and what its
// "chat_template_kwargs" holds, as in {"enable_thinking":false}. Caller's.
json_t *chat_row_vars(const json_t *row);

// A training row {"messages":[…], …}: ids of the whole conversation, and mask[i] = 1 where token i carries loss: the assistant turns
// (reasoning included) and their end token, nothing else. Spans are found by rendering with and without each assistant turn's text, at the
// template's own boundaries; a template for which that is impossible is refused with the reason. Reasoning of the turns after the last
// user's that the template would leave out is written as the model writes it, between <think> and </think> (*reasoning_added, which may be
// NULL, then says so). *mask is mem_alloc'ed, ids->n long.
enum status chat_training_row(const struct chat *c, const json_t *row, struct ids *ids, uint8_t **mask, bool *reasoning_added,
                              struct err *err);

// The token by which the template ends a turn of the assistant, -1 if there is none.
int32_t chat_end_token(const struct chat *c);

// A text, as of a rendered prompt, that ends inside <think>: nothing but white space follows its last mark. (A <think> in what the user
// wrote is followed by more.)
bool chat_ends_in_think(const char *text, size_t n);

// Splits the text that a model wrote after the generation prompt into reasoning and answer: "<think>…</think>" with the white space around
// each trimmed as the shipped templates put it; `opened` says that the prompt itself ended inside <think>. Without </think> the whole is
// content unless opened or begun by <think>, when the whole is reasoning (cut off by length). Either may be empty. Returns
// {"role":"assistant","content":…,"reasoning_content":…} (caller's).
json_t *chat_split_reasoning(const char *text, size_t n, bool opened);
