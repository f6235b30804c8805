// Conversations to text and ids through the model's own chat template, and a model's text back to reasoning and answer.
#include "datasets/chat_internal.h"

#include <string.h>

static enum status no_template(const struct tokenizer *tok, struct err *err)
{
    char *names = tokenizer_template_names(tok);
    enum status st =
        names ? err_set(err, ST_BAD_INPUT,
                        "the tokenizer has chat templates by name (%s), none of them \"default\"; write the one to use into "
                        "chat_template.jinja",
                        names)
              : err_set(err, ST_BAD_INPUT,
                        "the tokenizer has no chat template: neither chat_template.jinja nor \"chat_template\" in tokenizer_config.json; "
                        "a base model may borrow the one of its instruct version");
    mem_free(names);
    return st;
}

enum status chat_open(struct chat **out, const struct tokenizer *tok, struct err *err)
{
    *out = NULL;
    const char *text = tokenizer_chat_template(tok), *tool_text = tokenizer_tool_template(tok);
    if (!text) return no_template(tok, err);
    struct chat *c = NEW(struct chat);
    c->tok = tok;
    enum status st = template_parse(&c->template, text, strlen(text), err);
    if (!st && tool_text) st = template_parse(&c->tool_template, tool_text, strlen(tool_text), err);
    if (st)
        chat_free(c);
    else
        *out = c;
    return st;
}

void chat_free(struct chat *c)
{
    if (!c) return;
    template_free(c->template);
    template_free(c->tool_template);
    json_decref(c->vars);
    mem_free(c);
}

enum status chat_set_vars(struct chat *c, const char *object, struct err *err)
{
    json_t *vars;
    TRY(json_parse(&vars, object, strlen(object), "template variables", 0, err));
    if (!json_is_object(vars)) {
        json_decref(vars);
        return err_set(err, ST_BAD_INPUT, "%s: wanted a JSON object of the template's variables, as in {\"enable_thinking\":false}",
                       object);
    }
    json_decref(c->vars);
    c->vars = vars;
    return ST_OK;
}

// The message as transformers hands it over: reasoning under any of its three names is also found under `reasoning_content`, and under
// `thinking`, which some templates read.
static json_t *with_reasoning(json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *reasoning = NULL;
    for (int i = 0; i < 3 && !reasoning; i++) {
        reasoning = json_object_get(message, names[i]);
        if (json_is_null(reasoning)) reasoning = NULL;
    }
    if (!reasoning) return json_incref(message);
    json_t *copy = json_object();
    json_object_set(copy, "thinking", reasoning);
    json_object_update(copy, message);
    json_object_set(copy, "reasoning_content", reasoning);
    return copy;
}

static json_t *template_vars(const struct chat *c, const json_t *request)
{
    static const char *const special[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
    json_t *vars = json_object(), *messages = json_array(), *message;
    size_t i;
    for (i = 0; i < sizeof special / sizeof *special; i++) {
        json_t *v = json_object_get(tokenizer_config(c->tok), special[i]);
        if (json_is_object(v)) v = json_object_get(v, "content");
        if (json_is_string(v)) json_object_set(vars, special[i], v);
    }
    json_object_set_new(vars, "tools", json_null());
    json_object_set_new(vars, "documents", json_null());
    json_object_set_new(vars, "add_generation_prompt", json_false());
    if (c->vars) json_object_update(vars, c->vars);
    if (json_is_object(json_object_get(request, "chat_template_kwargs")))
        json_object_update(vars, json_object_get(request, "chat_template_kwargs"));
    json_object_update(vars, (json_t *)(uintptr_t)request); // only read
    json_array_foreach(json_object_get(request, "messages"), i, message) json_array_append_new(messages, with_reasoning(message));
    json_object_set_new(vars, "messages", messages);
    return vars;
}

enum status chat_check_messages(const json_t *messages, struct err *err)
{
    const json_t *m;
    size_t i;
    if (!json_is_array(messages)) return err_set(err, ST_BAD_INPUT, "messages: wanted an array of {\"role\":…, \"content\":…}");
    json_array_foreach(messages, i, m) if (!json_is_string(json_object_get(m, "role"))) return err_set(
        err, ST_BAD_INPUT, "messages[%zu]: wanted an object with a \"role\"", i);
    return ST_OK;
}

const struct template *chat_template_for(const struct chat *c, const json_t *vars)
{
    const json_t *tools = json_object_get(vars, "tools");
    return c->tool_template && tools && !json_is_null(tools) ? c->tool_template : c->template;
}

enum status chat_render_spans(const struct chat *c, const json_t *request, struct buf *text, struct buf *spans, struct err *err)
{
    TRY(chat_check_messages(json_object_get(request, "messages"), err));
    json_t *vars = template_vars(c, request), *messages = json_object_get(vars, "messages");
    const struct template *t = chat_template_for(c, vars);
    enum status st = content_prepare(t, &messages, err);
    if (!st) json_object_set_new(vars, "messages", messages);
    if (!st) st = template_render_spans(t, vars, text, spans, err);
    json_decref(vars);
    return st;
}

json_t *chat_row_vars(const json_t *row)
{
    static const char *const names[] = {"tools", "documents"};
    json_t *vars = json_object(), *more = json_object_get(row, "chat_template_kwargs");
    for (int i = 0; i < 2; i++)
        if (json_object_get(row, names[i])) json_object_set(vars, names[i], json_object_get(row, names[i]));
    if (json_is_object(more)) json_object_update(vars, more);
    return vars;
}

enum status chat_render(const struct chat *c, const json_t *request, struct buf *text, struct ids *ids, struct err *err)
{
    struct buf own = {0};
    enum status st = chat_render_spans(c, request, &own, NULL, err);
    if (!st && ids) st = tokenizer_encode(c->tok, own.data ? own.data : "", own.size, ids, err);
    if (!st && text && own.size) buf_put(text, own.data, own.size);
    buf_free(&own);
    return st;
}

// ---- a model's text to reasoning and answer ----

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}
static void trim(const char **s, size_t *n)
{
    while (*n && blank(**s)) (*s)++, (*n)--;
    while (*n && blank((*s)[*n - 1])) (*n)--;
}

bool chat_ends_in_think(const char *text, size_t n)
{
    static const char mark[] = "<think>";
    const size_t n_mark = sizeof mark - 1;
    while (n && blank(text[n - 1])) n--;
    return n >= n_mark && !memcmp(text + n - n_mark, mark, n_mark);
}

json_t *chat_split_reasoning(const char *text, size_t n, bool opened)
{
    static const char open[] = "<think>", close[] = "</think>";
    enum { N_OPEN = sizeof open - 1, N_CLOSE = sizeof close - 1 };
    const char *reasoning = text, *content = text;
    size_t n_reasoning = n, n_content = n, lead = 0;
    while (lead < n && blank(text[lead])) lead++;
    if (n - lead >= N_OPEN && memcmp(text + lead, open, N_OPEN) == 0) {
        opened = true;
        reasoning = text + lead + N_OPEN;
        n_reasoning = n - lead - N_OPEN;
    }
    const char *end = n_reasoning ? memmem(reasoning, n_reasoning, close, N_CLOSE) : NULL;
    if (end) {
        content = end + N_CLOSE;
        n_content = (size_t)(text + n - content);
        n_reasoning = (size_t)(end - reasoning);
        trim(&content, &n_content);
    } else if (opened)
        n_content = 0;
    else
        n_reasoning = 0;
    trim(&reasoning, &n_reasoning);
    json_t *m = json_object();
    json_object_set_new(m, "role", json_string("assistant"));
    json_object_set_new(m, "content", utf8_json(content, n_content));
    json_object_set_new(m, "reasoning_content", utf8_json(reasoning, n_reasoning));
    return m;
}
