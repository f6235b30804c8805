// What stands beside tokenizer.json: the special tokens by role, added tokens, and the texts of the chat templates, put together as
// transformers does.
#include "datasets/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

// ---- files -----------------------------------------------------------------------------------------------------------------------------

// The object in DIR/NAME; stays NULL where there is no such file.
static enum status read_object(json_t **object, const char *dir, const char *name, struct err *err)
{
    char *path = path_join(dir, name);
    enum status st = file_exists(path) ? json_read(object, path, err) : ST_OK;
    if (!st && *object && !json_is_object(*object)) {
        json_decref(*object);
        *object = NULL;
        st = err_set(err, ST_BAD_INPUT, "%s: wanted a JSON object", path);
    }
    mem_free(path);
    return st;
}

// Puts the text of DIR/FILE among the templates by name, if there is such a file.
static enum status read_template(json_t *templates, const char *name, const char *dir, const char *file, struct err *err)
{
    struct buf text = {0};
    char *path = path_join(dir, file);
    enum status st = file_exists(path) ? file_read(&text, path, 16 << 20, err) : ST_OK;
    const size_t bad = utf8_check(text.data ? text.data : "", text.size);
    if (!st && bad < text.size) st = err_set(err, ST_BAD_INPUT, "%s: not valid UTF-8 at byte %zu", path, bad);
    if (!st && text.data) json_object_set_new(templates, name, json_stringn(text.data, text.size));
    buf_free(&text);
    mem_free(path);
    return st;
}

static enum status read_templates(json_t *templates, const char *dir, struct err *err)
{
    static const char suffix[] = ".jinja";
    char **files, *more = path_join(dir, "additional_chat_templates");
    const size_t n = dir_names(&files, more, suffix);
    enum status st = read_template(templates, "default", dir, "chat_template.jinja", err);
    for (size_t i = 0; i < n && !st; i++) {
        char *name = mem_strndup(files[i], strlen(files[i]) - (sizeof suffix - 1));
        st = read_template(templates, name, more, files[i], err);
        mem_free(name);
    }
    names_free(files, n);
    mem_free(more);
    return st;
}

enum status config_read(const char *dir, json_t **config, struct err *err)
{
    json_t *read = NULL, *map = NULL, *templates = json_object();
    enum status st = read_object(&read, dir, "tokenizer_config.json", err);
    if (!st && !json_object_get(read, "added_tokens_decoder")) st = read_object(&map, dir, "special_tokens_map.json", err);
    if (!st) st = read_templates(templates, dir, err);
    if (!read && (map || json_object_size(templates))) read = json_object();
    if (map) json_object_update(read, map);
    if (json_object_size(templates)) json_object_set(read, "chat_template", templates);
    json_decref(map);
    json_decref(templates);
    if (st) json_decref(read);
    *config = st ? NULL : read;
    return st;
}

// ---- added tokens ----------------------------------------------------------------------------------------------------------------------

static void put(struct tokenizer *t, struct added a, struct buf *changes)
{
    if (added_put(t, a))
        buf_printf(changes, "%d %.*s %d%d%d%d%d\n", a.id, (int)a.n, a.content, a.special, a.normalized, a.single_word, a.lstrip, a.rstrip);
}

// Members that name a special token: bos_token, eos_token, image_token, …; add_bos_token is none of them.
static bool names_token(const char *key, const json_t *v)
{
    const size_t n = strlen(key), end = strlen("_token");
    return n > end && !strcmp(key + n - end, "_token") && (json_is_string(v) || json_is_string(json_object_get(v, "content")));
}

static const json_t *content_of(const json_t *token)
{
    return json_is_object(token) ? json_object_get(token, "content") : token;
}

static bool is_role(const json_t *config, const struct added *a)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)config, key, v)
    {
        if (names_token(key, v) && json_string_length(content_of(v)) == a->n && !memcmp(json_string_value(content_of(v)), a->content, a->n))
            return true;
    }
    return false;
}

// A special token that only the vocabulary has becomes an added one. (One that nobody has, a pad token often, gets an id of its own in
// transformers; here it is no token: the model has no row for it.)
static void put_special(struct tokenizer *t, const json_t *token, bool role, struct buf *changes)
{
    const json_t *content = content_of(token);
    if (!json_string_length(content)) return;
    struct added a = added_read(token, role || json_is_string(token));
    a.content = (char *)(uintptr_t)json_string_value(content);
    a.n = json_string_length(content);
    a.special |= role;
    a.id = vocab_token(&t->vocab, a.content, a.n);
    if (a.id >= 0 && trie_find(&t->contents, a.content, a.n) < 0) put(t, a, changes);
}

struct numbered {
    long long id;
    const json_t *token;
};
static int by_id(const void *a, const void *b)
{
    const long long x = ((const struct numbered *)a)->id, y = ((const struct numbered *)b)->id;
    return x < y ? -1 : x > y;
}

// added_tokens_decoder, {"ID": token}. transformers goes by the order of the ids alone: what tokenizer.json has keeps its id there, and
// what it lacks gets the next. Where that is not the one that stands here, one of the two files is wrong.
static enum status put_decoder(struct tokenizer *t, const json_t *config, const char *where, struct buf *changes, struct err *err)
{
    static const char name[] = "added_tokens_decoder of tokenizer_config.json";
    const json_t *decoder = json_object_get(config, "added_tokens_decoder");
    const size_t n = json_object_size(decoder);
    struct numbered *list = NEW_N(struct numbered, n + 1);
    const char *key;
    json_t *token;
    size_t i = 0;
    enum status st = ST_OK;
    if (decoder && !json_is_object(decoder)) st = err_set(err, ST_BAD_INPUT, "%s: the %s is no object", where, name);
    json_object_foreach((json_t *)(uintptr_t)decoder, key, token)
    {
        char *end;
        list[i] = (struct numbered){strtoll(key, &end, 10), token};
        if (!json_is_string(json_object_get(token, "content")) || !*key || *end || list[i].id < 0 || list[i].id >= BPE_MAX_ID)
            st = err_set(err, ST_BAD_INPUT, "%s: the %s: \"%s\": wanted an id from 0 to 16777215 and an object with a \"content\"", where,
                         name, key);
        i++;
    }
    if (!st) qsort(list, n, sizeof *list, by_id);
    for (i = 0; i < n && !st; i++) {
        struct added a = added_read(list[i].token, false);
        const int32_t known = vocab_token(&t->vocab, a.content, a.n), k = trie_find(&t->contents, a.content, a.n);
        if (!a.n) continue;
        a.id = k >= 0 ? t->added[k].id : known >= 0 ? known : t->n_vocab;
        if (k < 0 && known < 0 && a.id != list[i].id)
            st = err_set(err, ST_BAD_INPUT,
                         "%s: the %s gives \"%s\" the id %lld, where tokenizer.json has no such token and %d would be next; write it into "
                         "tokenizer.json's added_tokens with the id that the model knows",
                         where, name, a.content, list[i].id, a.id);
        else {
            if (is_role(config, &a) && (k < 0 || !added_same(&t->added[k], &a))) a.special = true;
            put(t, a, changes);
        }
    }
    mem_free(list);
    return st;
}

enum status config_put_added(struct tokenizer *t, const json_t *config, const char *where, struct buf *changes, struct err *err)
{
    const char *key;
    json_t *v;
    size_t i;
    TRY(put_decoder(t, config, where, changes, err));
    json_object_foreach((json_t *)(uintptr_t)config, key, v) if (names_token(key, v)) put_special(t, v, true, changes);
    json_t *extra = json_object_get(config, "extra_special_tokens");
    if (json_is_object(extra)) json_object_foreach(extra, key, v) put_special(t, v, true, changes); // by names of their own
    if (!json_array_size(extra)) extra = json_object_get(config, "additional_special_tokens");
    json_array_foreach(extra, i, v) put_special(t, v, false, changes);
    return ST_OK;
}

// ---- roles and templates ---------------------------------------------------------------------------------------------------------------

static int32_t role_id(const struct tokenizer *t, const char *key)
{
    const json_t *v = content_of(json_object_get(t->config, key));
    return json_is_string(v) ? tokenizer_id(t, json_string_value(v)) : -1;
}

void config_apply(struct tokenizer *t, const json_t *config)
{
    t->config = json_incref((json_t *)(uintptr_t)config);
    t->bos = role_id(t, "bos_token");
    t->eos = role_id(t, "eos_token");
    t->pad = role_id(t, "pad_token");
    json_t *template = json_object_get(config, "chat_template"), *one;
    const char *name;
    size_t i;
    json_t *all = json_object(); // several: [{"name", "template"}], or an object of them; of one name the last counts
    if (json_is_string(template)) json_object_set(all, "default", template);
    json_object_foreach(template, name, one) if (json_is_string(one)) json_object_set(all, name, one);
    json_array_foreach(template, i, one)
    {
        name = json_string_value(json_object_get(one, "name"));
        if (name && json_is_string(json_object_get(one, "template"))) json_object_set(all, name, json_object_get(one, "template"));
    }
    if (json_object_size(all)) t->templates = json_incref(all);
    json_decref(all);
}
