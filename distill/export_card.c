// Provenance out of a model card and a training record. See export_card.h.
#include "distill/export_card.h"

#include <stdlib.h>
#include <string.h>

static const size_t CARD_BYTES = 1 << 20;

// The last part of a path, without ".gguf". Caller's.
static char *name_of(const char *path)
{
    char *real = realpath(path, NULL), *name;
    const char *whole = real ? real : path, *slash = strrchr(whole, '/'), *from = slash && slash[1] ? slash + 1 : whole;
    size_t n = strlen(from);
    if (n > 5 && !strcmp(from + n - 5, ".gguf")) n -= 5;
    name = mem_strndup(from, n);
    free(real);
    return name;
}

// The value of `key: value` in the lines between the two "---" that begin a card, or of the first "- value" below `key:`. Quotes are taken
// off. Caller's; NULL if there is none.
static char *front_matter(const char *card, const char *key)
{
    size_t n_key = strlen(key);
    if (strncmp(card, "---\n", 4)) return NULL;
    const char *line = card + 4;
    bool inside = false; // the list below the key
    while (*line && strncmp(line, "---", 3)) {
        size_t n = strcspn(line, "\n");
        const char *v = NULL;
        if (inside) {
            v = line + strspn(line, " ");
            if (v[0] != '-' || v[1] != ' ') return NULL;
            v += 2;
        } else if (!strncmp(line, key, n_key) && line[n_key] == ':') {
            v = line + n_key + 1;
            inside = true;
        }
        if (v) {
            while (v < line + n && strchr(" \"'\t", *v)) v++;
            size_t n_value = (size_t)(line + n - v);
            while (n_value && strchr(" \"'\t\r", v[n_value - 1])) n_value--;
            if (n_value) return mem_strndup(v, n_value);
        }
        line += n + (line[n] == '\n');
    }
    return NULL;
}

// The student that a run of ours began from, by the name of its folder. Caller's; NULL if there is no such record.
static char *trained_from(const char *dir)
{
    struct err ignored = {0};
    json_t *root = NULL;
    char *path = path_join(dir, "run.json"), *name = NULL;
    if (file_exists(path) && !json_read(&root, path, &ignored)) {
        const char *student = json_string_value(json_object_get(json_object_get(root, "settings"), "student"));
        if (student) name = name_of(student);
    }
    json_decref(root);
    mem_free(path);
    return name;
}

static void put_base_model(struct gguf_writer *w, const char *name)
{
    const char *slash = strchr(name, '/');
    gguf_put_u32(w, "general.base_model.count", 1);
    gguf_put_string(w, "general.base_model.0.name", slash ? slash + 1 : name);
    if (!slash) return;
    char *owner = mem_strndup(name, (size_t)(slash - name));
    gguf_put_string(w, "general.base_model.0.organization", owner);
    mem_free(owner);
}

enum status export_card(struct gguf_writer *w, const char *dir, struct err *err)
{
    static const char *const keys[][2] = {
        {"license", "general.license"}, {"license_name", "general.license.name"}, {"license_link", "general.license.link"}};
    struct buf card = {0};
    enum status st = ST_OK;
    char *readme = path_join(dir, "README.md");
    if (file_exists(readme)) st = file_read(&card, readme, CARD_BYTES, err);
    mem_free(readme);
    if (st) return st;
    const char *text = card.data ? card.data : "";
    char *name = front_matter(text, "model_name"), *base = front_matter(text, "base_model");
    if (!name) name = name_of(dir);
    if (!base) base = trained_from(dir);
    gguf_put_string(w, "general.type", "model");
    gguf_put_string(w, "general.name", name);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char *v = front_matter(text, keys[i][0]);
        if (v) gguf_put_string(w, keys[i][1], v);
        mem_free(v);
    }
    if (base) put_base_model(w, base);
    mem_free(name);
    mem_free(base);
    buf_free(&card);
    return ST_OK;
}
