// A model's folder or GGUF file, as much of it as there is: each part is read on its own, and why one cannot be is kept for the finding.
#include "distill/doctor.h"
#include "distill/licence.h"
#include "distill/registry.h"
#include "kernels/model/gguf.h"

#include <string.h>
#include <sys/stat.h>

int64_t side_int(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : -1;
}

int64_t side_vocab(const struct side *s)
{
    int64_t n = side_int(s->config, "vocab_size");
    return n > 0 ? n : 0;
}

int64_t side_context(const struct side *s)
{
    int64_t n = side_int(s->config, "max_position_embeddings");
    return n > 0 ? n : 0;
}

const char *side_config_name(const struct side *s)
{
    return s->is_gguf ? "model keys" : "config.json";
}

const char *side_tokenizer_name(const struct side *s)
{
    return s->is_gguf ? "tokenizer keys" : "tokenizer.json";
}

static bool has(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    bool there = file_exists(path);
    mem_free(path);
    return there;
}

static json_t *read_object(const char *dir, const char *name, struct err *err)
{
    char *path = path_join(dir, name);
    json_t *root = NULL;
    if (!json_read(&root, path, err) && !json_is_object(root)) {
        err_set(err, ST_BAD_INPUT, "%s: wanted a JSON object", path);
        json_decref(root);
        root = NULL;
    }
    mem_free(path);
    return root;
}

static void add_stop(struct ids *stops, int64_t id)
{
    if (id >= 0 && id <= INT32_MAX) ids_add(stops, (int32_t)id);
}

static void add_stops(struct ids *stops, const json_t *v)
{
    if (json_is_integer(v)) add_stop(stops, (int64_t)json_integer_value(v));
    for (size_t i = 0; i < json_array_size(v); i++) add_stops(stops, json_array_get(v, i));
}

static void open_tokenizer(struct side *s)
{
    if (tokenizer_load(&s->tok, s->dir, &s->tok_err)) return;
    if (!chat_open(&s->chat, s->tok, &s->chat_err)) s->turn_end = chat_end_token(s->chat);
}

// ---- a folder ---------------------------------------------------------------------------------------------------------------------------

static void list_safetensors(struct side *s)
{
    if (st_open_dir(&s->folder, s->dir, &s->weights_err)) {
        s->folder = (struct st_set){0};
        return;
    }
    s->n_weight = s->folder.n;
    s->n_weight_file = s->folder.n_map;
    s->weight = NEW_N(struct weight, s->n_weight);
    for (size_t i = 0; i < s->n_weight; i++) {
        const struct st_tensor *t = &s->folder.v[i];
        s->weight[i] = (struct weight){t->name, t->dtype, t->data, t->size_bytes};
    }
}

static enum status open_folder(struct side *s, struct err *err)
{
    const char *dir = s->dir;
    s->has_config = has(dir, "config.json");
    s->has_tokenizer = has(dir, "tokenizer.json");
    s->has_weights = has(dir, "model.safetensors") || has(dir, "model.safetensors.index.json");
    if (!s->has_config && !s->has_tokenizer && !s->has_weights)
        return err_set(err, ST_BAD_INPUT, "--%s %s: none of config.json, tokenizer.json, model.safetensors is in there", s->role, dir);
    if (s->has_config) s->config = read_object(dir, "config.json", &s->config_err);
    if (has(dir, "generation_config.json")) s->generation = read_object(dir, "generation_config.json", &s->generation_err);
    if (s->has_weights) list_safetensors(s);
    return ST_OK;
}

// ---- a GGUF file ------------------------------------------------------------------------------------------------------------------------

static enum status open_gguf(struct side *s, struct err *err)
{
    enum status st = gguf_open(&s->file, s->dir, err);
    if (st) {
        s->file = (struct gguf){0};
        return err_prefix(err, "--%s", s->role), st;
    }
    s->has_config = gguf_find(&s->file, "general.architecture") != NULL;
    s->has_tokenizer = gguf_find(&s->file, "tokenizer.ggml.model") != NULL;
    s->has_weights = s->file.n_tensor > 0;
    if (!s->has_config && !s->has_tokenizer && !s->has_weights)
        return err_set(err, ST_BAD_INPUT, "--%s %s: neither keys nor tensors of a model are in there", s->role, s->dir);
    if (s->has_config && gguf_config(&s->config, &s->file, &s->config_err)) s->config = NULL;
    s->n_weight = s->file.n_tensor;
    s->n_weight_file = 1;
    s->weight = NEW_N(struct weight, s->n_weight);
    for (size_t i = 0; i < s->n_weight; i++) {
        const struct gguf_tensor *t = &s->file.tensor[i];
        s->weight[i] = (struct weight){t->name, ggml_type_info(t->type)->name, t->data, t->size_bytes};
    }
    return ST_OK;
}

// ---- either -----------------------------------------------------------------------------------------------------------------------------

enum status side_open(struct side *s, const char *role, const char *dir, struct err *err)
{
    struct stat st;
    *s = (struct side){.role = role, .turn_end = -1};
    if (strstr(dir, "://")) return err_set(err, ST_BAD_INPUT, "--%s %s: an address; only folders and files can be examined", role, dir);
    if (stat(dir, &st)) return err_errno(err, "look at", dir);
    s->dir = dir;
    s->is_gguf = gguf_is(dir);
    TRY(s->is_gguf ? open_gguf(s, err) : open_folder(s, err));
    if (s->config && model_config_read(&s->shape, &s->arch, dir, all_archs, &s->arch_err)) s->arch = NULL;
    if (s->has_tokenizer) open_tokenizer(s);
    add_stops(&s->stops, json_object_get(s->generation, "eos_token_id"));
    add_stops(&s->stops, json_object_get(s->config, "eos_token_id"));
    if (s->tok) add_stop(&s->stops, tokenizer_eos(s->tok));
    s->licence = licence_of(dir);
    return ST_OK;
}

void side_close(struct side *s)
{
    if (s->arch) model_config_free(&s->shape);
    mem_free(s->weight);
    if (s->folder.n) st_close(&s->folder);
    if (s->file.map.path) gguf_close(&s->file);
    chat_free(s->chat);
    tokenizer_free(s->tok);
    json_decref(s->config);
    json_decref(s->generation);
    json_decref(s->licence);
    ids_free(&s->stops);
    *s = (struct side){0};
}
