// The tokenizer of a model directory: reads tokenizer.json and tokenizer_config.json, and drives a text through the parts (internal.h).
#include "datasets/tokenizer/gguf.h"
#include "datasets/tokenizer/internal.h"

#include <string.h>

void ids_push(struct ids *a, int32_t id)
{
    if (a->n == a->cap) a->v = mem_realloc(a->v, (a->cap = a->cap ? a->cap * 2 : 64) * sizeof *a->v);
    a->v[a->n++] = id;
}
bool ids_add(struct ids *a, int32_t id)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i] == id) return false;
    ids_push(a, id);
    return true;
}
void ids_append(struct ids *a, const int32_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++) ids_push(a, v[i]);
}
void ids_free(struct ids *a)
{
    mem_free(a->v);
    *a = (struct ids){0};
}

// ---- loading ---------------------------------------------------------------------------------------------------------------------------

static enum status put_parts(json_t *list, const json_t *spec, const char *part, const char *members, int depth, const char *where,
                             struct err *err)
{
    const char *type = part_type(spec);
    if (!type || depth > 8) return err_set(err, ST_BAD_INPUT, "%s: %s: %s", where, part, type ? "nested too deeply" : "no type");
    if (strcmp(type, "Sequence") != 0) return json_array_append(list, (json_t *)(uintptr_t)spec), ST_OK;
    const json_t *inner = json_object_get(spec, members), *one;
    size_t i;
    if (!json_is_array(inner)) return err_set(err, ST_BAD_INPUT, "%s: %s: a Sequence without an array \"%s\"", where, part, members);
    json_array_foreach((json_t *)(uintptr_t)inner, i, one) TRY(put_parts(list, one, part, members, depth + 1, where, err));
    return ST_OK;
}

enum status part_list(json_t **list, const json_t *spec, const char *part, const char *members, const char *where, struct err *err)
{
    *list = json_array();
    return spec && !json_is_null(spec) ? put_parts(*list, spec, part, members, 0, where, err) : ST_OK;
}

static enum status build(struct tokenizer **out, const struct tokenizer_source *src, const struct bpe_text *bpe, struct err *err)
{
    *out = NULL;
    struct tokenizer *t = NEW(struct tokenizer);
    const json_t *root = src->tokenizer;
    const char *where = src->where;
    struct buf changes = {0};
    bool byte_level = false;
    enum status st;
    snprintf(t->sha256, sizeof t->sha256, "%s", src->sha256);
    if (!json_is_object(root) || !json_is_object(json_object_get(root, "model"))) {
        st = err_set(err, ST_BAD_INPUT, "%s: no object \"model\": not a tokenizer.json", where);
        goto out;
    }
    t->regexes = regexes_new();
    if ((st = pretokenizer_load(&t->pre, t->regexes, json_object_get(root, "pre_tokenizer"), &byte_level, where, err))) goto out;
    if ((st = decoder_load(&t->decoder, json_object_get(root, "decoder"), byte_level, where, err))) goto out;
    if ((st = processor_load(&t->processor, json_object_get(root, "post_processor"), where, err))) goto out;
    if ((st = regexes_compile(t->regexes, where, err))) goto out;
    if ((st = normalizer_load(&t->normalizer, json_object_get(root, "normalizer"), where, err))) goto out;
    if ((st = vocab_load(&t->vocab, json_object_get(root, "model"), bpe, byte_level, where, err))) goto out;
    if ((st = added_load(t, json_object_get(root, "added_tokens"), where, err))) goto out;
    if ((st = config_put_added(t, src->config, where, &changes, err))) goto out;
    if ((st = added_finish(t, where, err))) goto out;
    config_apply(t, src->config);
    if (changes.size) {
        buf_puts(&changes, t->sha256);
        sha256_hex(changes.data, changes.size, t->sha256);
    }
out:
    buf_free(&changes);
    if (st)
        tokenizer_free(t);
    else
        *out = t;
    return st;
}

enum status tokenizer_from_json(struct tokenizer **out, const struct tokenizer_source *src, struct err *err)
{
    return build(out, src, NULL, err);
}

// Reads tokenizer.json into *root, all but the vocabulary and merges, which go into *bpe; *scanned is false when the file had to be read as
// one tree, which then holds them.
static enum status read_file(json_t **root, struct bpe_text *bpe, bool *scanned, char sha256[65], const char *path, struct err *err)
{
    struct buf text = {0}, rest = {0};
    struct err ignored = {0};
    if (!file_exists(path))
        return err_set(err, ST_BAD_INPUT,
                       "%s: no such file. Models that come with tiktoken's or SentencePiece's file only get one by transformers: "
                       "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
                       path);
    enum status st = file_read(&text, path, (size_t)1 << 30, err);
    if (st) return st;
    const char *s = text.data ? text.data : "";
    sha256_hex(s, text.size, sha256);
    *scanned = bpe_text_scan(bpe, &rest, s, text.size) && json_parse_strict(root, rest.data, rest.size, path, 0, &ignored) == ST_OK;
    if (!*scanned) st = json_parse_strict(root, s, text.size, path, 0, err);
    buf_free(&text);
    buf_free(&rest);
    return st;
}

enum status tokenizer_load(struct tokenizer **out, const char *dir, struct err *err)
{
    *out = NULL;
    if (gguf_is(dir)) return tokenizer_load_gguf(out, dir, err);
    struct bpe_text bpe = {0};
    json_t *root = NULL, *config = NULL;
    char sha256[65], *path = path_join(dir, "tokenizer.json");
    bool scanned = false;
    enum status st = read_file(&root, &bpe, &scanned, sha256, path, err);
    if (!st) st = config_read(dir, &config, err);
    if (!st) st = build(out, &(struct tokenizer_source){root, config, path, sha256}, scanned ? &bpe : NULL, err);
    json_decref(root);
    json_decref(config);
    bpe_text_free(&bpe);
    mem_free(path);
    return st;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->n_added; i++) mem_free(t->added[i].content), mem_free(t->added[i].seen);
    mem_free(t->added);
    trie_free(&t->contents);
    trie_free(&t->raw);
    trie_free(&t->normalized);
    mem_free(t->added_of);
    normalizer_free(t->normalizer);
    regexes_free(t->regexes);
    pretokenizer_free(t->pre);
    decoder_free(t->decoder);
    ids_free(&t->processor);
    vocab_free(&t->vocab);
    json_decref(t->config);
    json_decref(t->templates);
    mem_free(t);
}

// ---- encoding --------------------------------------------------------------------------------------------------------------------------

enum status encode_piece(struct encoder *e, const struct piece *piece)
{
    if (e->ends) buf_clear(&e->piece_ends);
    bpe_encode(&e->t->vocab, &e->bpe, piece->s, piece->n, e->out, e->ends ? &e->piece_ends : NULL);
    if (!e->ends) return ST_OK;
    struct piece_walk walk = {0, piece->base};
    for (size_t i = 0; i < e->piece_ends.size; i += sizeof(uint32_t)) {
        uint32_t end;
        memcpy(&end, e->piece_ends.data + i, sizeof end);
        size_t at = piece_base(e, piece, &walk, end);
        at = e->section + (e->norm ? normalized_orig(e->norm, at) : at);
        buf_put(e->ends, &at, sizeof at);
    }
    return ST_OK;
}

static void push_added(struct encoder *e, int32_t token, size_t end)
{
    ids_push(e->out, e->t->added[token].id);
    if (e->norm) end = normalized_orig(e->norm, end);
    end += e->section;
    if (e->ends) buf_put(e->ends, &end, sizeof end);
}

static enum status encode_gap(struct encoder *e, const char *s, size_t n, size_t base, uint8_t *cls)
{
    bool regex = pretokenizer_uses_regex(e->t->pre);
    size_t n_char = regex ? regexes_classes(e->t->regexes, s, n, cls) : n;
    return pretokenizer_run(e->t->pre, e, &(struct piece){s, n, regex ? cls : NULL, n_char, base, 0, false});
}

// A stretch of the original text between added tokens: normalized, searched for the added tokens that are matched in normalized text,
// split.
static enum status encode_section(struct encoder *e, const char *s, size_t n, size_t section)
{
    if (!n) return ST_OK;
    struct normalized z = {0};
    if (normalizer_run(e->t->normalizer, s, n, &z)) {
        s = z.text.data ? z.text.data : "";
        n = z.text.size;
        e->norm = &z;
    }
    e->section = section;
    e->text = s;
    uint8_t *cls = mem_alloc(n + 1);
    size_t pos = 0, done = 0;
    struct added_match m;
    enum status st = ST_OK;
    while (!st && added_find(&e->t->normalized, e->t->added, s, n, &pos, done, &m)) {
        if (done < m.lo) st = encode_gap(e, s + done, m.lo - done, done, cls);
        push_added(e, m.token, m.hi);
        done = m.hi;
    }
    if (!st && done < n) st = encode_gap(e, s + done, n - done, done, cls);
    mem_free(cls);
    e->norm = NULL;
    normalized_free(&z);
    return st;
}

enum status tokenizer_encode_ends(const struct tokenizer *t, const char *text, size_t n, struct ids *out, struct buf *ends, struct err *err)
{
    if (n > INT32_MAX) return err_set(err, ST_BAD_INPUT, "a text of %zu bytes is too long for one encoding (2 GiB)", n);
    size_t bad = utf8_check(text, n);
    if (bad < n) return err_set(err, ST_BAD_INPUT, "the text is not valid UTF-8 at byte %zu (0x%02X)", bad, (unsigned)(uint8_t)text[bad]);
    struct encoder e = {.t = t, .out = out, .ends = ends, .err = err, .match = regex_match_new()};
    size_t pos = 0, done = 0;
    struct added_match m;
    enum status st = ST_OK;
    while (!st && added_find(&t->raw, t->added, text, n, &pos, done, &m)) {
        if (done < m.lo) st = encode_section(&e, text + done, m.lo - done, done);
        e.section = 0;
        push_added(&e, m.token, m.hi);
        done = m.hi;
    }
    if (!st && done < n) st = encode_section(&e, text + done, n - done, done);
    bpe_scratch_free(&e.bpe);
    buf_free(&e.piece_ends);
    regex_match_free(e.match);
    return st;
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, struct ids *out, struct err *err)
{
    return tokenizer_encode_ends(t, text, n, out, NULL, err);
}

// ---- decoding and looking up -----------------------------------------------------------------------------------------------------------

bool tokenizer_piece(const struct tokenizer *t, int32_t id, const char **s, size_t *n, bool *special)
{
    int32_t k = id >= 0 && id < t->n_vocab ? t->added_of[id] : -1;
    *special = k >= 0 && t->added[k].skipped;
    if (k >= 0)
        *s = t->added[k].seen, *n = t->added[k].n_seen;
    else if (id >= 0 && id < t->vocab.n && t->vocab.present[id])
        *s = t->vocab.pool + t->vocab.begin[id], *n = t->vocab.size[id];
    else
        return false;
    return true;
}

enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *out, struct err *err)
{
    struct decoding *d = decoding_new(t->decoder);
    enum status st = ST_OK;
    for (size_t i = 0; i < n && !st; i++) {
        const char *s;
        size_t size;
        bool special;
        if (!tokenizer_piece(t, ids[i], &s, &size, &special))
            st = err_set(err, ST_BAD_INPUT, "id %d at place %zu is outside the vocabulary (%d ids)", ids[i], i, t->n_vocab);
        else if (!skip_special || !special)
            decoding_put(d, s, size, out);
    }
    if (!st) decoding_end(d, out);
    decoding_free(d);
    return st;
}

void tokenizer_add_special(const struct tokenizer *t, const int32_t *ids, size_t n, struct ids *out)
{
    for (size_t i = 0; i < t->processor.n; i++) {
        if (t->processor.v[i] < 0)
            ids_append(out, ids, n);
        else
            ids_push(out, t->processor.v[i]);
    }
    if (!t->processor.n) ids_append(out, ids, n);
}

int32_t tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->n_vocab;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
    const size_t n = strlen(token);
    const int32_t k = trie_find(&t->contents, token, n);
    return k >= 0 ? t->added[k].id : vocab_token(&t->vocab, token, n);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab && t->added_of[id] >= 0 && t->added[t->added_of[id]].special;
}
int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}
int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}
int32_t tokenizer_pad(const struct tokenizer *t)
{
    return t->pad;
}
const char *tokenizer_chat_template(const struct tokenizer *t)
{
    return json_string_value(json_object_get(t->templates, "default"));
}
const char *tokenizer_tool_template(const struct tokenizer *t)
{
    return json_string_value(json_object_get(t->templates, "tool_use"));
}
char *tokenizer_template_names(const struct tokenizer *t)
{
    struct buf names = {0};
    const char *name;
    json_t *text;
    json_object_foreach(t->templates, name, text) buf_printf(&names, "%s%s", names.size ? ", " : "", name);
    return names.data;
}
const json_t *tokenizer_config(const struct tokenizer *t)
{
    return t->config;
}
const char *tokenizer_sha256(const struct tokenizer *t)
{
    return t->sha256;
}
