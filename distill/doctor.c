// distill doctor: what would go wrong in a distillation, said before an hour is spent on it.
//
//   teacher, student   folders, as much of them as there is, or GGUF files   doctor_side.c
//   data               stores and JSONL, read through once       doctor_data.c
//   checks             the table in doctor.h; by subject         doctor_files.c, _tokenizer.c, _template.c, _probe.c, _memory.c, _licence.c
//   report             a table, or JSON                          doctor_report.c
//
// Only what cannot be examined at all ends with an error; what is wrong with a model is a finding.
#include "distill/doctor.h"

#include "distill/chat_options.h"
#include "distill/command.h"
#include "distill/compute.h"
#include "distill/identity.h"
#include "student/optimizer.h"

#include <string.h>

// clang-format off
static const struct option options[] = {
    {"teacher", OPT_STRING, .value = "DIR", .help = "the teacher: a Hugging Face directory, or as much of one as there is, or a GGUF file"},
    {"student", OPT_STRING, .value = "DIR", .help = "the student, likewise"},
    {"data", OPT_STRINGS, .value = "STORE|F.jsonl[,…]", .help = "what will be learned from, or generated from: stores, conversations, prompts"},
    {"probe", OPT_BOOL, .def = "true", .help = "run the models over a little text, where their weights are there and fit into memory"},
    CHAT_OPTIONS,
    {"quiet", OPT_BOOL, .group = "Common", .not_a_setting = true, .help = "of the table only what is not fine"},
    {"micro-tokens", OPT_INT, .def = "8192", .range = "[1, 16777216]", .group = "As in gen and train", .help = "of train: tokens a forward and backward"},
    {"optimizer", OPT_ENUM, .def = "adamw", .choices = OPTIMIZER_CHOICES, .group = "As in gen and train", .help = "of train: what it keeps beside weights and gradients"},
    {"max-len", OPT_INT, .range = "[2, 2000000000]", .group = "As in gen and train", .help = "of train (default: the student's context, at most --micro-tokens)"},
    {"batch-tokens", OPT_INT, .def = "128", .range = "[1, 1048576]", .group = "As in gen and train", .help = "of gen: samples that grow together"},
    {"max-tokens", OPT_INT, .def = "512", .range = "[1, 16777216]", .group = "As in gen and train", .help = "of gen: the longest sample"},
    {"fp8-activations", OPT_BOOL, .group = "As in gen and train", .help = "of gen: FP8 teachers are multiplied in FP8, activations quantised as DeepSeek does"},
    {"kd-temperature", OPT_REAL, .def = "1", .range = "(0, 100]", .group = "As in gen and train", .help = "of train: the store must have the teacher's log Z there"},
    {0}};
// clang-format on

#define LIST_CHECK(name, title, scope, needs) {#name, title, scope, needs, check_##name},
static const struct check checks[] = {DOCTOR_CHECKS(LIST_CHECK)};

// ---- running the checks -----------------------------------------------------------------------------------------------------------------

// Why a check cannot run on this model; false if it can.
static bool side_lacks(const struct side *s, unsigned needs, struct finding *f)
{
    if (!s->dir) return false;
    const char *config = side_config_name(s), *tokenizer = side_tokenizer_name(s);
    const struct {
        unsigned need;
        bool there, file;
        const char *what, *broken; // broken: after the file's name
    } table[] = {
        {NEEDS_CONFIG, s->config, s->has_config, config, "cannot be read (see files)"},
        {NEEDS_ARCH, s->arch, s->has_config, config, "not such that it can be run (see architecture)"},
        {NEEDS_TOKENIZER, s->tok, s->has_tokenizer, tokenizer, "cannot be read (see files)"},
        {NEEDS_TEMPLATE, s->chat, s->has_tokenizer, tokenizer, "no chat template that can be run (see chat template)"},
        {NEEDS_WEIGHTS, s->n_weight, s->has_weights, "weights", "cannot be read (see files)"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!(needs & table[i].need) || table[i].there) continue;
        if (table[i].file)
            say(f, V_SKIP, "the %s's %s: %s", s->role, table[i].what, table[i].broken);
        else
            say(f, V_SKIP, "the %s has no %s", s->role, table[i].what);
        return true;
    }
    return false;
}

// Whose files a check of data wants beside the store: the student's where it wants both.
static const struct side *wanted(const struct exam *x, unsigned needs)
{
    return needs & NEEDS_STUDENT ? &x->student : &x->teacher;
}

// A fix names files of a folder; a GGUF file has none, and nothing here edits one.
static void fix_gguf(struct finding *f, const struct side *s)
{
    static const char *const names[] = {".json", "chat_template.jinja", "README.md", "LICENSE"};
    bool names_file = false;
    for (int i = 0; f->fix.size && i < 4; i++) names_file |= strstr(f->fix.data, names[i]) != NULL;
    if (s->is_gguf && names_file) fix(f, "%s is one GGUF file: do so in the folder it was made from, and convert that again", s->dir);
}

static void run_check(struct exam *x, struct findings *all, const struct check *c, const char *of)
{
    struct finding *f = &all->v[all->n++];
    *f = (struct finding){.check = c->name, .title = c->title, .of = of};
    bool lacks = false;
    if (c->scope == EACH_DATA) {
        const struct side *s = wanted(x, c->needs);
        if (c->needs & (NEEDS_TEACHER | NEEDS_STUDENT))
            lacks = s->dir ? side_lacks(s, c->needs, f) : (say(f, V_SKIP, "no --%s was given", s->role), true);
    } else if (c->scope == OF_PAIR)
        lacks = side_lacks(&x->teacher, c->needs, f) || side_lacks(&x->student, c->needs, f);
    else
        lacks = side_lacks(x->side, c->needs, f);
    if (!lacks) c->run(x, f);
    if (c->scope == OF_PAIR)
        fix_gguf(f, &x->teacher), fix_gguf(f, &x->student);
    else if (c->scope != EACH_DATA)
        fix_gguf(f, x->side);
    all->n_verdict[f->verdict]++;
}

static void run_checks(struct exam *x, struct findings *all)
{
    const size_t n_check = sizeof checks / sizeof *checks;
    all->v = NEW_N(struct finding, n_check * (2 + x->n_data));
    for (size_t i = 0; i < n_check; i++) {
        const struct check *c = &checks[i];
        struct side *sides[] = {c->scope == OF_STUDENT ? NULL : &x->teacher, c->scope == OF_TEACHER ? NULL : &x->student};
        if (c->scope == EACH_DATA) continue;
        if (c->scope == OF_PAIR) {
            if (x->teacher.dir && x->student.dir) run_check(x, all, c, NULL);
            continue;
        }
        for (int k = 0; k < 2; k++)
            if ((x->side = sides[k]) && x->side->dir) run_check(x, all, c, x->side->role);
    }
    for (size_t k = 0; k < x->n_data; k++)
        for (size_t i = 0; i < n_check; i++) {
            x->in_hand = &x->data[k];
            if (checks[i].scope != EACH_DATA || (checks[i].needs & NEEDS_STORE && !x->in_hand->store)) continue;
            run_check(x, all, &checks[i], x->in_hand->path);
        }
}

// ---- the command ------------------------------------------------------------------------------------------------------------------------

static enum status open_exam(struct exam *x, struct err *err)
{
    const struct options *o = x->o;
    const char *teacher = opt_str(o, "teacher"), *student = opt_str(o, "student");
    if (!teacher && !student) return err_set(err, ST_BAD_INPUT, "wanted --teacher DIR, --student DIR, or both");
    if (teacher) TRY(side_open(&x->teacher, "teacher", teacher, err));
    if (student) TRY(side_open(&x->student, "student", student, err));
    if (x->teacher.chat) TRY(chat_options(x->teacher.chat, o, err));
    if (x->student.chat) TRY(chat_options(x->student.chat, o, err));
    x->data = NEW_N(struct data_source, opt_count(o, "data"));
    for (size_t i = 0; i < opt_count(o, "data"); i++) TRY(data_open(&x->data[x->n_data++], opt_str_at(o, "data", i), x, err));
    TRY(open_device(&x->dev, o, err));
    json_t *a = NULL, *b = NULL;
    struct err ignored = {0};
    if (x->teacher.n_weight && x->student.n_weight && !identity_of_model(&a, teacher, &ignored) &&
        !identity_of_model(&b, student, &ignored))
        x->same_model = json_equal(a, b);
    json_decref(a);
    json_decref(b);
    return ST_OK;
}

static void close_exam(struct exam *x)
{
    side_close(&x->teacher);
    side_close(&x->student);
    for (size_t i = 0; i < x->n_data; i++) data_close(&x->data[i]);
    mem_free(x->data);
    probe_free(x->probe);
    if (x->dev.backend) dev_close(&x->dev);
}

// What main prints on stderr when something would break training.
static enum status verdict(const struct findings *all, struct err *err)
{
    if (!all->n_verdict[V_FAIL]) return ST_OK;
    struct buf names = {0};
    for (size_t i = 0; i < all->n; i++)
        if (all->v[i].verdict == V_FAIL)
            buf_printf(&names, "%s%s%s%s%s", names.size ? ", " : "", all->v[i].title, all->v[i].of ? " (" : "",
                       all->v[i].of ? all->v[i].of : "", all->v[i].of ? ")" : "");
    err_set(err, ST_FAIL, "%d of %zu checks failed: %s; what to do stands at each", all->n_verdict[V_FAIL], all->n, names.data);
    buf_free(&names);
    return ST_FAIL;
}

enum status doctor_examine(const struct options *o, struct findings *out, struct err *err)
{
    struct exam x = {.o = o, .teacher.role = "teacher", .student.role = "student"};
    *out = (struct findings){0};
    enum status st = open_exam(&x, err);
    if (!st) run_checks(&x, out);
    close_exam(&x);
    return st;
}

static enum status run(struct options *o, struct err *err)
{
    struct findings all;
    TRY(doctor_examine(o, &all, err));
    if (opt_bool(o, "json")) {
        json_t *list = findings_json(&all);
        struct buf text = {0};
        json_append_pretty(&text, list);
        fwrite(text.data, 1, text.size, stdout);
        buf_free(&text);
        json_decref(list);
    } else {
        findings_print(&all, opt_bool(o, "quiet"));
        printf("%d ok, %d to look at, %d wrong, %d skipped\n", all.n_verdict[V_OK], all.n_verdict[V_WARN], all.n_verdict[V_FAIL],
               all.n_verdict[V_SKIP]);
    }
    enum status st = verdict(&all, err);
    findings_free(&all);
    return st;
}

const struct command command_doctor = {
    .name = "doctor",
    .computes = true,
    .summary = "what would go wrong with a teacher, a student and data, before an hour is spent",
    .notes = "Says of each thing: ok, warn (look at it), FAIL (training or generation would break) or that it\n"
             "was skipped, and why. Folders may hold only tokenizers: what can be known is told. Exit code 1\n"
             "with a FAIL.\n"
             "\n"
             "  distill doctor --teacher DeepSeek-V3/ --student Qwen3-1.7B/\n"
             "  distill doctor --student Qwen3-1.7B/ --data traces/ --json | jq '.[] | select(.status==\"fail\")'",
    .options = options,
    .run = run,
};
