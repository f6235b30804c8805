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

// Real files hold "model_max_length": 1000000000000000019884624838656 (Python's int(1e30)), which Jansson refuses as an integer. Integers
// of more than 18 digits are given an exponent and so are read as reals; nothing else is touched.
static enum status read_json(json_t **root, const char *path, struct err *err)
{
    struct buf text = {0}, mended = {0};
    enum status st = file_read(&text, path, 64 << 20, err);
    bool in_string = false;
    for (size_t i = 0; i < text.size && !st;) {
        const char *s = text.data + i;
        size_t n = 1;
        if (in_string && *s == '\\' && i + 1 < text.size)
            n = 2;
        else if (*s == '"')
            in_string = !in_string;
        else if (!in_string && *s >= '0' && *s <= '9')
            while (i + n < text.size && s[n] && strchr("0123456789.eE+-", s[n])) n++;
        buf_put(&mended, s, n);
        if (n > 18 && !memchr(s, '.', n) && !memchr(s, 'e', n) && !memchr(s, 'E', n)) buf_puts(&mended, "e0");
        i += n;
    }
    if (!st) st = json_parse(root, mended.data ? mended.data : "", mended.size, path, 0, err);
    buf_free(&text);
    buf_free(&mended);
    return st;
}

enum status config_read(const char *dir, json_t **config, struct buf *jinja, bool *has_jinja, struct err *err)
{
    enum status st = ST_OK;
    char *path = path_join(dir, "tokenizer_config.json"), *path_jinja = path_join(dir, "chat_template.jinja");
    *config = NULL;
    *has_jinja = file_exists(path_jinja);
    if (file_exists(path)) st = read_json(config, path, err);
    if (!st && *has_jinja) st = file_read(jinja, path_jinja, 16 << 20, err);
    mem_free(path);
    mem_free(path_jinja);
    return st;
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
    if (json_is_array(tpl)) { // several by name: "default" is the one for chats
        size_t i;
        const json_t *list = tpl;
        tpl = NULL;
        json_array_foreach(list, i, one)
        {
            const char *name = json_string_value(json_object_get(one, "name"));
            if (name && strcmp(name, "default") == 0) tpl = json_object_get(one, "template");
        }
    }
    if (json_is_string(tpl)) t->template_text = mem_strndup(json_string_value(tpl), json_string_length(tpl));
}
