// The option --template-vars of every command that renders conversations, and its use.
#pragma once
#include "datasets/chat.h"
#include "distill/options.h"

// clang-format off
#define CHAT_OPTIONS \
    {"template-vars", OPT_STRING, .value = "JSON", .help = "variables for the chat template, as in {\"enable_thinking\":false}; a line's chat_template_kwargs wins"}
// clang-format on

static inline enum status chat_options(struct chat *c, const struct options *o, struct err *err)
{
    const char *vars = opt_str(o, "template-vars");
    return vars && chat_set_vars(c, vars, err) ? err_prefix(err, "--template-vars") : ST_OK;
}
