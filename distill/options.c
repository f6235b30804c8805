// Parsing of flags and config files by a command's table, and the values by name.
#include "distill/options.h"

#include "distill/command.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t MAX_CONFIG_ITEMS = 1 << 20;

static const struct option COMMON[] = {
    {"device", OPT_STRING, .def = "auto", .value = "auto|cpu|cuda[:N]", .group = "Common",
     .help = "where to compute; auto: the first GPU, else the CPU"},
    {"dtype", OPT_ENUM, .def = "bf16", .choices = "bf16|f32", .group = "Common",
     .help = "how weights and activations are stored; sums are f32 always"},
    {"threads", OPT_INT, .def = "0", .range = "[0, 4096]", .group = "Common", .help = "CPU threads; 0: as many as this process may use"},
    {"sync", OPT_BOOL, .group = "Common", .not_a_setting = true,
     .help = "wait for and check every op as it ends, to find the one that fails"},
    {"batch-invariant", OPT_BOOL, .group = "Common",
     .help = "a sample's bits never depend on what shares its batch; always so on the CPU, on a GPU for a slower prefill"},
    {"seed", OPT_INT, .def = "0", .range = "[0, inf)", .group = "Common", .help = "same seed, machine and settings: same bytes"},
    {"config", OPT_STRING, .value = "FILE.json", .group = "Common", .not_a_setting = true,
     .help = "take options from a JSON object, e.g. {\"seed\": 7}; flags win over it"},
    {"quiet", OPT_BOOL, .group = "Common", .not_a_setting = true, .help = "no progress on stderr, errors only"},
    {"json", OPT_BOOL, .group = "Common", .not_a_setting = true, .help = "the result as JSON on stdout"},
    {"help", OPT_BOOL, .group = "Common", .not_a_setting = true, .help = "this text"},
    {0}};

enum { N_COMMON = sizeof COMMON / sizeof *COMMON - 1 };

struct value {
    enum { FROM_DEFAULT, FROM_CONFIG, FROM_FLAG } from;
    bool has;
    int64_t i; // int, bool
    double r;
    char *s;  // string, enum
    size_t n; // lists
    int64_t *ints;
    double *reals;
    char **strings;
};

struct options {
    const struct command *cmd;
    size_t n;
    struct value *v; // v[i] belongs to option_at(cmd, i)
    char **args;
    int n_arg;
};

// ---- the table ----

const struct option *option_at(const struct command *cmd, size_t i)
{
    size_t n_own = 0;
    const struct option *own = cmd->options;
    while (own && own[n_own].name) n_own++;
    if (i < n_own) return &own[i];
    i -= n_own;
    for (size_t c = 0; c < N_COMMON; c++) { // without those that the command replaces
        bool replaced = false;
        for (size_t k = 0; k < n_own; k++) replaced = replaced || !strcmp(own[k].name, COMMON[c].name);
        if (!replaced && i-- == 0) return &COMMON[c];
    }
    return NULL;
}

static bool find(const struct command *cmd, const char *name, size_t *index)
{
    const struct option *opt;
    for (size_t i = 0; (opt = option_at(cmd, i)); i++)
        if (!strcmp(opt->name, name)) {
            *index = i;
            return true;
        }
    return false;
}

// "…; did you mean --temperature?", or an empty text.
static void hint(const struct command *cmd, const char *typed, const char *dashes, char text[128])
{
    const char *names[256], *near;
    const struct option *opt;
    size_t n = 0;
    while (n < 255 && (opt = option_at(cmd, n))) names[n++] = opt->name;
    names[n] = NULL;
    near = nearest_name(typed, names);
    text[0] = '\0';
    if (near) snprintf(text, 128, "; did you mean %s%s?", dashes, near);
}

// ---- values from text ----

struct range {
    char open, shut; // [ or (, ] or )
    double lo, hi;
    char lo_text[32], hi_text[32];
};

static struct range range_of(const char *text)
{
    struct range r;
    if (sscanf(text, "%c%31[^,], %31[^])]%c", &r.open, r.lo_text, r.hi_text, &r.shut) != 4) BUG("range \"%s\"", text);
    r.lo = strtod(r.lo_text, NULL);
    r.hi = strtod(r.hi_text, NULL); // reads "inf" too
    return r;
}

void option_range_text(const struct option *opt, char text[64])
{
    text[0] = '\0';
    if (!opt->range) return;
    struct range r = range_of(opt->range);
    if (isinf(r.hi))
        snprintf(text, 64, "%s %s", r.open == '[' ? "at least" : "above", r.lo_text);
    else
        snprintf(text, 64, "in %s", opt->range);
}

static enum status check_range(const struct option *opt, double v, const char *text, struct err *err)
{
    char wanted[64];
    if (!opt->range) return ST_OK;
    struct range r = range_of(opt->range);
    if ((r.open == '[' ? v >= r.lo : v > r.lo) && (r.shut == ']' ? v <= r.hi : v < r.hi || isinf(r.hi))) return ST_OK;
    option_range_text(opt, wanted);
    return err_set(err, ST_BAD_INPUT, "--%s %s: out of range, wanted a number %s", opt->name, text, wanted);
}

static enum status not_a(const char *what, const struct option *opt, const char *text, struct err *err)
{
    char range[64];
    option_range_text(opt, range);
    return err_set(err, ST_BAD_INPUT, "--%s %s: wanted %s%s%s", opt->name, text, what, *range ? " " : "", range);
}

static enum status parse_int(const struct option *opt, const char *text, int64_t *out, struct err *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (*end || !text[strspn(text, "-")] || strspn(text, "-0123456789") != strlen(text)) return not_a("an integer", opt, text, err);
    if (errno == ERANGE) return err_set(err, ST_BAD_INPUT, "--%s %s: too large", opt->name, text);
    *out = v;
    return check_range(opt, (double)v, text, err);
}

static enum status parse_real(const struct option *opt, const char *text, double *out, struct err *err)
{
    char *end;
    double v = strtod(text, &end);
    if (*end || !*text || strspn(text, "+-.eE0123456789") != strlen(text)) return not_a("a number", opt, text, err);
    if (!isfinite(v)) return err_set(err, ST_BAD_INPUT, "--%s %s: too large", opt->name, text);
    *out = v;
    return check_range(opt, v, text, err);
}

static enum status parse_bool(const struct option *opt, const char *text, int64_t *out, struct err *err)
{
    if (strcmp(text, "true") && strcmp(text, "false")) return err_set(err, ST_BAD_INPUT, "--%s=%s: wanted true or false", opt->name, text);
    *out = !strcmp(text, "true");
    return ST_OK;
}

static enum status parse_enum(const struct option *opt, const char *text, struct err *err)
{
    struct buf names = {0};
    const char *list[64], *near;
    size_t n = 0;
    buf_puts(&names, opt->choices);
    for (char *save = NULL, *c = strtok_r(names.data, "|", &save); c && n < 63; c = strtok_r(NULL, "|", &save)) list[n++] = c;
    list[n] = NULL;
    enum status st = ST_BAD_INPUT;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], text)) st = ST_OK;
    near = nearest_name(text, list);
    if (st)
        err_set(err, st, "--%s %s: wanted one of %s%s%s%s", opt->name, text, opt->choices, near ? "; did you mean " : "", near ? near : "",
                near ? "?" : "");
    buf_free(&names);
    return st;
}

static void value_clear(struct value *v)
{
    for (size_t i = 0; v->strings && i < v->n; i++) mem_free(v->strings[i]);
    mem_free(v->strings);
    mem_free(v->ints);
    mem_free(v->reals);
    mem_free(v->s);
    *v = (struct value){0};
}

static enum status parse_list(const struct option *opt, const char *text, struct value *v, struct err *err)
{
    size_t n = 1;
    for (const char *p = text; *p; p++) n += *p == ',';
    v->ints = NEW_N(int64_t, n);
    v->reals = NEW_N(double, n);
    v->strings = NEW_N(char *, n);
    for (const char *p = text; v->n < n; p += strcspn(p, ",") + 1) {
        size_t i = v->n++;
        char *item = v->strings[i] = mem_strndup(p, strcspn(p, ","));
        if (!*item) return err_set(err, ST_BAD_INPUT, "--%s %s: an empty item between the commas", opt->name, text);
        if (opt->type == OPT_INTS) TRY(parse_int(opt, item, &v->ints[i], err));
        if (opt->type == OPT_REALS) TRY(parse_real(opt, item, &v->reals[i], err));
    }
    return ST_OK;
}

static enum status parse_value(const struct option *opt, const char *text, struct value *v, struct err *err)
{
    value_clear(v);
    v->has = true;
    if (!*text) return err_set(err, ST_BAD_INPUT, "--%s: the value is empty", opt->name);
    switch (opt->type) {
    case OPT_INT:
        TRY(parse_int(opt, text, &v->i, err));
        break;
    case OPT_REAL:
        TRY(parse_real(opt, text, &v->r, err));
        break;
    case OPT_BOOL:
        TRY(parse_bool(opt, text, &v->i, err));
        break;
    case OPT_ENUM:
        TRY(parse_enum(opt, text, err));
        break;
    case OPT_STRING:
        break;
    case OPT_INTS:
    case OPT_REALS:
    case OPT_STRINGS:
        TRY(parse_list(opt, text, v, err));
        break;
    }
    v->s = mem_strdup(text);
    if (opt->check && opt->check(text, err)) return err_prefix(err, "--%s %s", opt->name, text);
    return ST_OK;
}

// ---- flags ----

// One flag at argv[*at], its value perhaps in the next.
static enum status parse_flag(struct options *o, int argc, char **argv, int *at, struct err *err)
{
    const char *arg = argv[*at], *equals = strchr(arg, '=');
    char *name = equals ? mem_strndup(arg + 2, (size_t)(equals - arg - 2)) : mem_strdup(arg + 2);
    const char *text = equals ? equals + 1 : NULL;
    char near[128];
    enum status st = ST_OK;
    size_t i = 0;
    bool known = find(o->cmd, name, &i);
    if (!known && !strncmp(name, "no-", 3) && find(o->cmd, name + 3, &i) && option_at(o->cmd, i)->type == OPT_BOOL) {
        known = true;
        if (text) st = err_set(err, ST_BAD_INPUT, "--%s takes no value", name);
        text = "false";
    }
    if (!known) {
        hint(o->cmd, name, "--", near);
        st = err_set(err, ST_BAD_INPUT, "unknown option --%s%s", name, near);
    }
    mem_free(name);
    if (st) return st;
    const struct option *opt = option_at(o->cmd, i);
    if (!text && opt->type == OPT_BOOL) text = "true";
    if (!text) {
        if (*at + 1 >= argc || !strncmp(argv[*at + 1], "--", 2))
            return err_set(err, ST_BAD_INPUT, "--%s needs a value%s%s", opt->name, opt->value ? ": " : "", opt->value ? opt->value : "");
        text = argv[++*at];
    }
    st = parse_value(opt, text, &o->v[i], err);
    o->v[i].from = FROM_FLAG;
    return st;
}

// ---- config ----

// The JSON value as the text a user would have typed; false when its type is none that the option takes.
static bool text_of(const struct option *opt, const json_t *j, struct buf *text)
{
    bool list = opt->type == OPT_INTS || opt->type == OPT_REALS || opt->type == OPT_STRINGS;
    if (json_is_array(j)) {
        if (!list || json_array_size(j) > MAX_CONFIG_ITEMS) return false;
        for (size_t i = 0; i < json_array_size(j); i++) {
            if (i) buf_putc(text, ',');
            if (json_is_array(json_array_get(j, i)) || !text_of(opt, json_array_get(j, i), text)) return false;
        }
        return true;
    }
    if (json_is_string(j)) {
        if (opt->type == OPT_INT || opt->type == OPT_REAL || opt->type == OPT_BOOL) return false;
        if (strlen(json_string_value(j)) != json_string_length(j)) return false; // U+0000
        buf_puts(text, json_string_value(j));
        return true;
    }
    bool fits = json_is_boolean(j)   ? opt->type == OPT_BOOL
                : json_is_integer(j) ? opt->type == OPT_INT || opt->type == OPT_REAL || opt->type == OPT_INTS || opt->type == OPT_REALS
                                     : json_is_real(j) && (opt->type == OPT_REAL || opt->type == OPT_REALS);
    if (!fits) return false;
    json_append_line(text, j);
    text->data[--text->size] = '\0';
    return true;
}

static const char *wanted(const struct option *opt)
{
    static const char *const WANTED[] = {"an integer", "a number",           "a string",          "true or false",
                                         "a string",   "a list of integers", "a list of numbers", "a list of strings"};
    return WANTED[opt->type];
}

// All mistakes of the file are gathered, a line each.
static enum status read_config(struct options *o, const char *path, struct err *err)
{
    json_t *root;
    TRY(json_read_strict(&root, path, err));
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ST_BAD_INPUT, "%s: wanted a JSON object of options, {\"seed\": 7, …}", path);
    }
    const char *key;
    json_t *j;
    json_object_foreach(root, key, j)
    {
        char *name = mem_strdup(key), near[128];
        struct buf text = {0};
        struct err one = {0};
        size_t i;
        for (char *p = name; *p; p++)
            if (*p == '_') *p = '-'; // top_p for top-p
        if (!find(o->cmd, name, &i) || option_at(o->cmd, i)->not_a_setting) {
            hint(o->cmd, name, "", near);
            err_add(err, ST_BAD_INPUT, "%s: unknown key \"%s\"%s", path, key, near);
        } else if (o->v[i].from == FROM_CONFIG) {
            err_add(err, ST_BAD_INPUT, "%s: \"%s\" stands twice", path, key);
        } else if (o->v[i].from == FROM_DEFAULT && !json_is_null(j)) {
            const struct option *opt = option_at(o->cmd, i);
            if (!text_of(opt, j, &text)) {
                json_append_line(&text, j);
                err_add(err, ST_BAD_INPUT, "%s: \"%s\": wanted %s, found %.*s", path, key, wanted(opt), (int)strcspn(text.data, "\n"),
                        text.data);
            } else if (parse_value(opt, text.data ? text.data : "", &o->v[i], &one)) {
                err_add(err, ST_BAD_INPUT, "%s: %s", path, one.text);
            }
            o->v[i].from = FROM_CONFIG;
        }
        buf_free(&text);
        mem_free(name);
    }
    json_decref(root);
    return err->code;
}

// ---- the whole ----

static enum status check_args(const struct options *o, struct err *err)
{
    const struct command *cmd = o->cmd;
    if (o->n_arg > cmd->n_arg_max) {
        const char *extra = o->args[cmd->n_arg_max];
        return err_set(err, ST_BAD_INPUT, "unexpected \"%s\": this command takes %s%s", extra, cmd->args ? "only " : "options only",
                       cmd->args ? cmd->args : "");
    }
    if (o->n_arg < cmd->n_arg_min) err_add(err, ST_BAD_INPUT, "%s missing", cmd->args);
    const struct option *opt;
    for (size_t i = 0; (opt = option_at(cmd, i)); i++)
        if (opt->required && !o->v[i].has)
            err_add(err, ST_BAD_INPUT, "--%s%s%s missing", opt->name, opt->value ? " " : "", opt->value ? opt->value : "");
    if (err->code) err_add(err, ST_BAD_INPUT, "See `distill %s --help`.", cmd->name);
    return err->code;
}

enum status options_parse(struct options **out, const struct command *cmd, int argc, char **argv, struct err *err)
{
    struct options *o = *out = NEW(struct options);
    struct err *const e = err;
    *e = (struct err){0};
    o->cmd = cmd;
    while (option_at(cmd, o->n)) o->n++;
    o->v = NEW_N(struct value, o->n);
    o->args = NEW_N(char *, argc + 1);
    bool only_args = false;
    for (int i = 0; i < argc; i++)
        if (!strcmp(argv[i], "--"))
            break;
        else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return options_set(o, "help", "true", err);
    for (int i = 0; i < argc; i++) {
        if (!only_args && !strcmp(argv[i], "--"))
            only_args = true;
        else if (!only_args && !strncmp(argv[i], "--", 2))
            TRY(parse_flag(o, argc, argv, &i, err));
        else if (!only_args && argv[i][0] == '-' && argv[i][1])
            return err_set(err, ST_BAD_INPUT, "unknown option %s: options have long names, see `distill %s --help`", argv[i], cmd->name);
        else
            o->args[o->n_arg++] = mem_strdup(argv[i]);
    }
    const char *config = opt_str(o, "config");
    if (config) TRY(read_config(o, config, err));
    for (size_t i = 0; i < o->n; i++) {
        const struct option *opt = option_at(cmd, i);
        if (o->v[i].from != FROM_DEFAULT || !opt->def) continue;
        if (parse_value(opt, opt->def, &o->v[i], err)) BUG("default of %s --%s: %s", cmd->name, opt->name, err->text);
    }
    return check_args(o, err);
}

enum status options_set(struct options *o, const char *name, const char *text, struct err *err)
{
    size_t i;
    if (!find(o->cmd, name, &i)) BUG("%s has no option %s", o->cmd->name, name);
    return parse_value(option_at(o->cmd, i), text, &o->v[i], err);
}

void options_free(struct options *o)
{
    if (!o) return;
    for (size_t i = 0; i < o->n; i++) value_clear(&o->v[i]);
    for (int i = 0; i < o->n_arg; i++) mem_free(o->args[i]);
    mem_free(o->args);
    mem_free(o->v);
    mem_free(o);
}

static const struct value *get(const struct options *o, const char *name, unsigned types)
{
    size_t i;
    if (!find(o->cmd, name, &i)) BUG("%s has no option %s", o->cmd->name, name);
    if (types && !(types >> option_at(o->cmd, i)->type & 1)) BUG("%s: option %s is read as another type", o->cmd->name, name);
    return &o->v[i];
}

static void check_index(const struct value *v, const char *name, size_t i)
{
    if (i >= v->n) BUG("option %s has %zu items, asked for the one at %zu", name, v->n, i);
}

int64_t opt_int(const struct options *o, const char *name)
{
    return get(o, name, 1u << OPT_INT)->i;
}
double opt_real(const struct options *o, const char *name)
{
    return get(o, name, 1u << OPT_REAL)->r;
}
bool opt_bool(const struct options *o, const char *name)
{
    return get(o, name, 1u << OPT_BOOL)->i != 0;
}
const char *opt_str(const struct options *o, const char *name)
{
    return get(o, name, 1u << OPT_STRING | 1u << OPT_ENUM)->s;
}
size_t opt_count(const struct options *o, const char *name)
{
    return get(o, name, 1u << OPT_INTS | 1u << OPT_REALS | 1u << OPT_STRINGS)->n;
}
int64_t opt_int_at(const struct options *o, const char *name, size_t i)
{
    const struct value *v = get(o, name, 1u << OPT_INTS);
    check_index(v, name, i);
    return v->ints[i];
}
double opt_real_at(const struct options *o, const char *name, size_t i)
{
    const struct value *v = get(o, name, 1u << OPT_REALS);
    check_index(v, name, i);
    return v->reals[i];
}
const char *opt_str_at(const struct options *o, const char *name, size_t i)
{
    const struct value *v = get(o, name, 1u << OPT_STRINGS);
    check_index(v, name, i);
    return v->strings[i];
}
bool opt_has(const struct options *o, const char *name)
{
    return get(o, name, 0)->has;
}
bool opt_given(const struct options *o, const char *name)
{
    return get(o, name, 0)->from != FROM_DEFAULT;
}
int opt_n_arg(const struct options *o)
{
    return o->n_arg;
}
const char *opt_arg(const struct options *o, int i)
{
    if (i < 0 || i >= o->n_arg) BUG("argument %d of %d", i, o->n_arg);
    return o->args[i];
}

static json_t *json_of(const struct option *opt, const struct value *v)
{
    if (opt->type == OPT_BOOL) return json_boolean(v->i);
    if (!v->has) return json_null();
    if (opt->type == OPT_INT) return json_integer(v->i);
    if (opt->type == OPT_REAL) return json_real(v->r);
    if (opt->type == OPT_STRING || opt->type == OPT_ENUM) return json_string(v->s);
    json_t *list = json_array();
    for (size_t i = 0; i < v->n; i++)
        json_array_append_new(list, opt->type == OPT_INTS    ? json_integer(v->ints[i])
                                    : opt->type == OPT_REALS ? json_real(v->reals[i])
                                                             : json_string(v->strings[i]));
    return list;
}

json_t *options_effective_json(const struct options *o)
{
    json_t *root = json_object(), *settings = json_object();
    json_object_set_new(root, "command", json_string(o->cmd->name));
    json_object_set_new(root, "version", json_string(DISTILL_VERSION));
    json_object_set_new(root, "settings", settings);
    for (size_t i = 0; i < o->n; i++) {
        const struct option *opt = option_at(o->cmd, i);
        if (!opt->not_a_setting) json_object_set_new(settings, opt->name, json_of(opt, &o->v[i]));
    }
    return root;
}
