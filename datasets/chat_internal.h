// Shared by chat.c (rendering) and chat_mask.c (where the loss falls).
#pragma once
#include "datasets/chat.h"
#include "datasets/template/internal.h"
#include "datasets/tokenizer/internal.h"

struct chat {
    const struct tokenizer *tok;
    struct template *template;
};
// Appends the text, and to spans (may be NULL) what the template's {% generation %} blocks wrote: pairs of size_t.
enum status chat_render_spans(const struct chat *c, const json_t *request, struct buf *text, struct buf *spans, struct err *err);
