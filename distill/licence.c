// Licences: which one a model names, and what its text says of models that learn from output. Facts, no advice.
#include "distill/licence.h"

#include "kernels/base/gguf.h"

#include <ctype.h>
#include <string.h>

// ---- what the texts say -----------------------------------------------------------------------------------------------------------------

#define LLAMA_NEW                                                                                                                          \
    "allows training on its output; the student's name must begin with \"Llama\", and what is passed on must show \"Built with Llama\" "   \
    "and bring the licence along (section 1.b)"
#define LLAMA_OLD                                                                                                                          \
    "forbids using the model or its output to improve any large language model other than itself and its derivatives (section 1.b.v)"
#define RAIL                                                                                                                               \
    "counts a model made from its output by distillation as a derivative: its restrictions of use must stand in the student's licence too"
#define FREE                                                                                                                               \
    "permits changing and passing on, and says nothing against learning from its output; keep the licence and notices with the weights"

// By the hub's names (license: or license_name: of a model card), and by a phrase of the heading of LICENSE. The longest name that an id
// begins with counts.
static const struct {
    const char *id, *heading;
    bool look; // sets conditions that someone should read
    const char *terms;
} table[] = {
    {"apache-2.0", "apache license", false, FREE},
    {"mit", "mit license", false, FREE},
    {"bsd", "bsd 3-clause", false, FREE},
    {"cc-by-4.0", NULL, false, "permits changing and passing on with credit, and says nothing against learning from its output"},
    {"cc-by-sa", NULL, true, "permits changing and passing on under the same licence only"},
    {"cc-by-nc", "attribution-noncommercial", true, "permits non-commercial use only"},
    {"deepseek", "deepseek license agreement", true, RAIL " (section 1, \"Derivatives of the Model\"; Attachment A)"},
    {"openrail", NULL, true, RAIL},
    {"bigscience-openrail", NULL, true, RAIL},
    {"bigscience-bloom-rail", NULL, true, RAIL},
    {"gemma", "gemma terms of use", true, RAIL " (\"Model Derivatives\")"},
    {"llama2", "llama 2 community license", true, LLAMA_OLD},
    {"llama3", "meta llama 3 community license", true, LLAMA_OLD},
    {"llama3.1", "llama 3.1 community license", true, LLAMA_NEW},
    {"llama3.2", "llama 3.2 community license", true, LLAMA_NEW},
    {"llama3.3", "llama 3.3 community license", true, LLAMA_NEW},
    {"llama4", "llama 4 community license", true, LLAMA_NEW},
    {"qwen", "tongyi qianwen license", true,
     "allows training on its output; a model so made must show \"Built with Qwen\" or \"Improved using Qwen\" in its documentation"},
    {"qwen-research", "qwen research license", true,
     "permits non-commercial use only; a model trained on its output must show \"Built with Qwen\" or \"Improved using Qwen\""},
};
enum { N_TABLE = sizeof table / sizeof *table };

const char *licence_terms(const char *id, bool *look)
{
    size_t best = 0;
    const char *terms = NULL;
    *look = true;
    for (int i = 0; i < N_TABLE; i++) {
        size_t n = strlen(table[i].id);
        if (n <= best || strncmp(id, table[i].id, n) != 0) continue;
        best = n;
        terms = table[i].terms;
        *look = table[i].look;
    }
    return terms;
}

// ---- where it stands --------------------------------------------------------------------------------------------------------------------

static bool read_text(struct buf *out, const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    struct err ignored = {0};
    bool there = file_exists(path) && !file_read(out, path, 16 << 20, &ignored) && out->size;
    mem_free(path);
    return there;
}

// The value of a line "key: value" in lower case, without quotes; false if it is not that key's or is empty.
static bool value_of(const char *line, size_t n, const char *key, char out[80])
{
    size_t k = strlen(key), at = k + 1, len = 0;
    if (n <= k || memcmp(line, key, k) != 0 || line[k] != ':') return false;
    for (; at < n && len < 79; at++)
        if (!strchr(" \t\r\"'", line[at])) out[len++] = (char)tolower((unsigned char)line[at]);
    out[len] = '\0';
    return len > 0;
}

// The front matter of a model card: the lines between two "---". license: other points on to license_name.
static bool front_matter(const struct buf *card, char id[80])
{
    const char *p = card->data, *end = p + card->size;
    bool found = false;
    if (card->size < 4 || memcmp(p, "---", 3) != 0) return false;
    for (p += strcspn(p, "\n"); p < end && *p; p += strcspn(p, "\n")) {
        char value[80];
        p++;
        size_t n = strcspn(p, "\n");
        if (n >= 3 && !memcmp(p, "---", 3)) break;
        if (value_of(p, n, "license", value) && !found) found = true, memcpy(id, value, 80);
        if (value_of(p, n, "license_name", value)) found = true, memcpy(id, value, 80);
    }
    return found;
}

static bool heading_of(const struct buf *text, char id[80])
{
    char head[600];
    size_t n = 0;
    for (size_t i = 0; i < text->size && n < sizeof head - 1; i++) // white space folded, lower case
        if (!isspace((unsigned char)text->data[i]))
            head[n++] = (char)tolower((unsigned char)text->data[i]);
        else if (n && head[n - 1] != ' ')
            head[n++] = ' ';
    head[n] = '\0';
    for (int i = 0; i < N_TABLE; i++)
        if (table[i].heading && strstr(head, table[i].heading)) return snprintf(id, 80, "%s", table[i].id), true;
    return false;
}

// "general.license"; "other" points on to "general.license.name", as in a model card.
static json_t *licence_of_gguf(const char *path)
{
    static const char *const keys[] = {"general.license.name", "general.license"};
    struct gguf g;
    struct err ignored = {0};
    json_t *found = NULL;
    if (gguf_open(&g, path, &ignored)) return NULL;
    json_t *all = gguf_json(&g, "general.license");
    gguf_close(&g);
    for (int i = 0; !found && i < 2; i++) {
        const char *s = json_string_value(json_object_get(all, keys[i]));
        char id[80];
        size_t n = 0;
        for (; s && s[n] && n < sizeof id - 1; n++) id[n] = (char)tolower((unsigned char)s[n]);
        id[n] = '\0';
        if (n) found = json_pack("{s:s, s:s}", "id", id, "from", keys[i]); // NULL if cut within a character: no id of ours is that long
    }
    json_decref(all);
    return found;
}

json_t *licence_of(const char *dir)
{
    if (gguf_is(dir)) return licence_of_gguf(dir);
    static const char *const files[] = {"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENSE-MODEL", "USE_POLICY.md"};
    struct buf text = {0};
    char id[80];
    const char *from = NULL;
    if (read_text(&text, dir, "README.md") && front_matter(&text, id)) from = "README.md";
    for (int i = 0; !from && i < 5; i++) {
        buf_clear(&text);
        if (read_text(&text, dir, files[i]) && heading_of(&text, id)) from = files[i];
    }
    buf_free(&text);
    if (!from) {
        char *path = path_join(dir, "config.json");
        json_t *config = NULL;
        struct err ignored = {0};
        if (file_exists(path) && !json_read(&config, path, &ignored)) {
            const char *s = json_string_value(json_object_get(config, "license"));
            if (s) snprintf(id, sizeof id, "%s", s), from = "config.json";
        }
        json_decref(config);
        mem_free(path);
    }
    return from ? json_pack("{s:s, s:s}", "id", id, "from", from) : NULL;
}
