// What stands beside tokenizer.json: the special tokens by role, added tokens, and the texts of the chat templates, put together as
// transformers does.
#include "datasets/tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

#define LEGACY "added_tokens.json" // a file's name, and that of a member of our own in the config

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

static const json_t *content_of(const json_t *token)
{
    return json_is_object(token) ? json_object_get(token, "content") : token;
}

static bool is_text(const json_t *v, const char *text, size_t n)
{
    return json_string_length(v) == n && json_is_string(v) && !memcmp(json_string_value(v), text, n);
}

// Whether special_tokens_map.json or tokenizer_config.json names a text as a token's, by role or in a list of more. objects: those count,
// too.
static bool names_special(const json_t *config, const json_t *more, const char *text, bool objects)
{
    static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
    const json_t *one;
    size_t i;
    json_array_foreach(more, i, one) if (is_text(objects ? content_of(one) : one, text, strlen(text))) return true;
    for (i = 0; i < sizeof roles / sizeof *roles; i++) {
        one = json_object_get(config, roles[i]);
        if (is_text(objects ? content_of(one) : one, text, strlen(text))) return true;
    }
    return false;
}

// added_tokens.json, {"TOKEN": ID}, as tokens in an array: special where special_tokens_map.json has them by role, or the config by role or
// among the extra ones; but as an object the config has none yet when transformers looks.
static enum status read_legacy(json_t **list, const json_t *config, const json_t *map, const char *dir, struct err *err)
{
    json_t *ids = NULL, *id;
    const char *token;
    TRY(read_object(&ids, dir, LEGACY, err));
    *list = ids ? json_array() : NULL;
    const json_t *extra = json_object_get(config, "extra_special_tokens");
    if (!json_array_size(extra)) extra = json_object_get(config, "additional_special_tokens");
    enum status st = ST_OK;
    json_object_foreach(ids, token, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= BPE_MAX_ID)
            st = err_add(err, ST_BAD_INPUT, "%s/" LEGACY ": \"%s\": wanted an id from 0 to 16777215", dir, token);
        const bool special =
            names_special(config, extra, token, false) || names_special(map, json_object_get(map, "extra_special_tokens"), token, true);
        json_array_append_new(*list,
                              json_pack("{s:O, s:s, s:b, s:b}", "id", id, "content", token, "special", special, "normalized", !special));
    }
    json_decref(ids);
    return st;
}

enum status config_read(const char *dir, json_t **config, struct err *err)
{
    json_t *read = NULL, *map = NULL, *legacy = NULL, *templates = json_object();
    enum status st = read_object(&read, dir, "tokenizer_config.json", err);
    if (!st && !json_object_get(read, "added_tokens_decoder")) {
        st = read_object(&map, dir, "special_tokens_map.json", err);
        if (!st) st = read_legacy(&legacy, read, map, dir, err);
    }
    if (!st) st = read_templates(templates, dir, err);
    if (!read && (map || legacy || json_object_size(templates))) read = json_object();
    if (map) json_object_update(read, map);
    json_object_del(read, LEGACY);
    if (legacy) json_object_set(read, LEGACY, legacy);
    if (json_object_size(templates)) json_object_set(read, "chat_template", templates);
    json_decref(map);
    json_decref(legacy);
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

static bool is_role(const json_t *config, const struct added *a)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)config, key, v)
    {
        if (names_token(key, v) && is_text(content_of(v), a->content, a->n)) return true;
    }
    json_object_foreach(json_object_get(config, "extra_special_tokens"), key, v) // an object: by names of their own
    {
        if (is_text(content_of(v), a->content, a->n)) return true;
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
    struct added a;
    size_t at; // where it stands in its file
};
static int by_id(const void *a, const void *b)
{
    const struct numbered *x = a, *y = b;
    return x->id != y->id ? (x->id < y->id ? -1 : 1) : (x->at > y->at) - (x->at < y->at);
}

// Puts tokens in the order of their ids; of one id the last. transformers goes by that order alone: what tokenizer.json has keeps its id
// there, and what it lacks gets the next. Where that is not the one that stands here, one of the two files is wrong.
static enum status put_numbered(struct tokenizer *t, struct numbered *list, size_t n, const json_t *config, const char *name,
                                const char *where, struct buf *changes, struct err *err)
{
    qsort(list, n, sizeof *list, by_id);
    for (size_t i = 0; i < n; i++) {
        struct added a = list[i].a;
        const int32_t known = vocab_token(&t->vocab, a.content, a.n), k = trie_find(&t->contents, a.content, a.n);
        if (!a.n || (i + 1 < n && list[i + 1].id == list[i].id)) continue;
        a.id = k >= 0 ? t->added[k].id : known >= 0 ? known : t->n_vocab;
        if (k < 0 && known < 0 && a.id != list[i].id)
            return err_set(err, ST_BAD_INPUT,
                           "%s: %s gives \"%s\" the id %lld, where tokenizer.json has no such token and %d would be next; write it into "
                           "tokenizer.json's added_tokens with the id that the model knows",
                           where, name, a.content, list[i].id, a.id);
        a.special |= is_role(config, &a);
        put(t, a, changes);
    }
    return ST_OK;
}

// added_tokens_decoder, {"ID": token}.
static enum status put_decoder(struct tokenizer *t, const json_t *config, const json_t *decoder, const char *where, struct buf *changes,
                               struct err *err)
{
    static const char name[] = "the added_tokens_decoder of tokenizer_config.json";
    const size_t n = json_object_size(decoder);
    struct numbered *list = NEW_N(struct numbered, n + 1);
    const char *key;
    json_t *token;
    size_t i = 0;
    enum status st = ST_OK;
    if (!json_is_object(decoder)) st = err_set(err, ST_BAD_INPUT, "%s: %s is no object", where, name);
    json_object_foreach((json_t *)(uintptr_t)decoder, key, token)
    {
        char *end;
        list[i] = (struct numbered){strtoll(key, &end, 10), added_read(token, false), i};
        if (!json_is_string(json_object_get(token, "content")) || !*key || *end || list[i].id < 0 || list[i].id >= BPE_MAX_ID)
            st = err_set(err, ST_BAD_INPUT, "%s: %s: \"%s\": wanted an id from 0 to 16777215 and an object with a \"content\"", where, name,
                         key);
        i++;
    }
    if (!st) st = put_numbered(t, list, n, config, name, where, changes, err);
    mem_free(list);
    return st;
}

// Where there is no added_tokens_decoder transformers makes one: of added_tokens.json, and over that, by id, of tokenizer.json's tokens.
static enum status put_legacy(struct tokenizer *t, const json_t *config, const char *where, struct buf *changes, struct err *err)
{
    const json_t *legacy = json_object_get(config, LEGACY), *token;
    const size_t n = json_array_size(legacy) + t->n_added;
    struct numbered *list = NEW_N(struct numbered, n + 1);
    size_t i, n_legacy = json_array_size(legacy);
    json_array_foreach(legacy, i, token)
    {
        list[i] = (struct numbered){json_integer_value(json_object_get(token, "id")), added_read(token, false), i};
    }
    for (i = 0; i < t->n_added; i++) list[n_legacy + i] = (struct numbered){t->added[i].id, t->added[i], n_legacy + i};
    enum status st = put_numbered(t, list, n, config, LEGACY, where, changes, err);
    mem_free(list);
    return st;
}

enum status config_put_added(struct tokenizer *t, const json_t *config, const char *where, struct buf *changes, struct err *err)
{
    const char *key;
    json_t *v;
    size_t i;
    const json_t *decoder = json_object_get(config, "added_tokens_decoder");
    TRY(decoder ? put_decoder(t, config, decoder, where, changes, err) : put_legacy(t, config, where, changes, err));
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
