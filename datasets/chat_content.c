// Content that is given as parts, [{"type":"text","text":…}, …]. A template that loops over content gets them as they are, as in
// transformers; one that wants a string gets their texts, a line each, as vLLM gives them to it. Parts of other types are refused: no model
// here sees or hears.
#include "datasets/chat_internal.h"

#include <string.h>

static const char *type_of(const json_t *part)
{
    return json_string_value(json_object_get(part, "type"));
}
static const json_t *text_of(const json_t *part)
{
    const json_t *text = json_object_get(part, "text");
    return type_of(part) && !strcmp(type_of(part), "text") && json_is_string(text) ? text : NULL;
}

// A list with parts among its items. What a tool returned may be any list: of that, only text parts throughout count.
static bool has_parts(const json_t *message)
{
    const json_t *content = json_object_get(message, "content"), *part;
    const char *role = json_string_value(json_object_get(message, "role"));
    size_t i, n_typed = 0, n_text = 0;
    json_array_foreach(content, i, part) n_typed += type_of(part) != NULL, n_text += text_of(part) != NULL;
    return json_is_array(content) && (role && !strcmp(role, "tool") ? n_text && n_text == i : n_typed || !i);
}

json_t *chat_content_text(const json_t *content)
{
    struct buf text = {0};
    const json_t *part;
    size_t i;
    if (json_is_string(content)) return json_incref((json_t *)(uintptr_t)content);
    json_array_foreach(content, i, part)
    {
        const json_t *one = text_of(part);
        if (i) buf_putc(&text, '\n');
        if (one) buf_put(&text, json_string_value(one), json_string_length(one));
    }
    json_t *joined = json_is_array(content) ? json_stringn(text.data ? text.data : "", text.size) : NULL;
    buf_free(&text);
    return joined;
}

json_t *content_like(const json_t *content, json_t *text)
{
    return json_is_array(content) ? json_pack("[{s:s, s:o}]", "type", "text", "text", text) : text;
}

static enum status check_parts(const json_t *content, size_t message, struct err *err)
{
    const json_t *part;
    size_t i;
    json_array_foreach(content, i, part)
    {
        const char *type = type_of(part);
        if (text_of(part)) continue;
        return type && strcmp(type, "text")
                   ? err_set(err, ST_BAD_INPUT, "messages[%zu].content[%zu]: a part of type \"%.40s\"; only text is read", message, i, type)
                   : err_set(err, ST_BAD_INPUT, "messages[%zu].content[%zu]: wanted {\"type\":\"text\",\"text\":…}", message, i);
    }
    return ST_OK;
}

enum status content_prepare(const struct template *t, json_t **messages, struct err *err)
{
    json_t *message, *out = json_array();
    const bool as_they_are = template_wants_parts(t);
    size_t i;
    json_array_foreach(*messages, i, message)
    {
        const json_t *content = json_object_get(message, "content");
        const bool parts = has_parts(message);
        if (parts && check_parts(content, i, err)) {
            json_decref(out);
            return err->code;
        }
        if (parts && !as_they_are) {
            message = json_copy(message);
            json_object_set_new(message, "content", chat_content_text(content));
            json_array_append_new(out, message);
        } else
            json_array_append(out, message);
    }
    *messages = out;
    return ST_OK;
}
