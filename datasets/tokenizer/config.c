// tokenizer_config.json and chat_template.jinja: the special tokens by role, and the text of the chat template.
#include "datasets/tokenizer/internal.h"

#include <string.h>

// A special token of tokenizer_config.json: a string, or an added token as an object.
static int32_t config_token(const struct tokenizer *t, const char *key)
{
    const json_t *v = json_object_get(t->config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? tokenizer_id(t, json_string_value(v)) : -1;
}

enum status config_read(const char *dir, json_t **config, struct buf *jinja, bool *has_jinja, struct err *err)
{
    enum status st = ST_OK;
    char *path = path_join(dir, "tokenizer_config.json"), *path_jinja = path_join(dir, "chat_template.jinja");
    *config = NULL;
    *has_jinja = file_exists(path_jinja);
    if (file_exists(path)) st = json_read(config, path, err);
    if (!st && *config && !json_is_object(*config)) st = err_set(err, ST_BAD_INPUT, "%s: wanted a JSON object", path);
    if (!st && *has_jinja) st = file_read(jinja, path_jinja, 16 << 20, err);
    mem_free(path);
    mem_free(path_jinja);
    return st;
}

static char *template_dup(const json_t *text)
{
    return json_is_string(text) ? mem_strndup(json_string_value(text), json_string_length(text)) : NULL;
}

void config_apply(struct tokenizer *t, const json_t *config, const char *chat_template)
{
    t->config = json_incref((json_t *)(uintptr_t)config);
    t->bos = config_token(t, "bos_token");
    t->eos = config_token(t, "eos_token");
    t->pad = config_token(t, "pad_token");
    if (chat_template) {
        t->template_text = mem_strndup(chat_template, strlen(chat_template));
        return;
    }
    const json_t *tpl = json_object_get(config, "chat_template"), *one;
    if (!json_is_array(tpl)) {
        t->template_text = template_dup(tpl);
        return;
    }
    size_t i; // several by name: "tool_use" where a request has tools, "default" else, as transformers chooses
    json_array_foreach(tpl, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        char **text = !name                       ? NULL
                      : !strcmp(name, "default")  ? &t->template_text
                      : !strcmp(name, "tool_use") ? &t->tool_template_text
                                                  : NULL;
        if (text && !*text) *text = template_dup(json_object_get(one, "template"));
    }
}
