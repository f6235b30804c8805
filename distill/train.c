// distill train: a dense student learns from traces. Reads settings and data, sets up trainer and folder, runs the loop; the step itself
// is student/trainer.c.
#include "datasets/tokenizer/compare.h"
#include "distill/chat_options.h"
#include "distill/command.h"
#include "distill/compute.h"
#include "distill/progress.h"
#include "distill/registry.h"
#include "distill/signals.h"
#include "distill/train_record.h"
#include "kernels/model/gguf.h"
#include "student/checkpoint.h"
#include "student/metrics.h"

#include <dirent.h>
#include <string.h>
#include <unistd.h>

static enum status check_loss(const char *text, struct err *err)
{
    struct loss_spec ignored;
    return loss_parse(&ignored, text, err);
}

static const struct option train_options[] = {
    {"student", OPT_STRING, .value = "DIR", .required = true, .help = "the model to train: a Hugging Face directory, or a GGUF file"},
    {"data", OPT_STRING, .value = "STORE|F.jsonl[,…]", .required = true,
     .help = "what to learn from: trace stores (distill gen) and JSONL of {\"messages\": […]}, concatenated"},
    {"out", OPT_STRING, .value = "DIR", .required = true, .help = "where the trained model goes"},
    {"resume", OPT_BOOL, .not_a_setting = true, .help = "go on from the last save in --out; begins afresh when nothing is saved yet"},
    {"init", OPT_ENUM, .def = "pretrained", .choices = "pretrained|random", .help = "random: fresh weights from config.json by --seed"},
    {"skip-bad", OPT_BOOL, .help = "pass over malformed lines of JSONL, and say how many"},
    CHAT_OPTIONS,

    {"loss", OPT_STRING, .value = "ce|fkl|rkl|jsd:B", .group = "Loss", .check = check_loss,
     .help = "default: fkl where the data has the teacher's distributions, else ce"},
    {"kd-weight", OPT_REAL, .range = "[0, inf)", .group = "Loss", .help = "weight of the teacher's part (default: 1; 0 with ce)"},
    {"ce-weight", OPT_REAL, .range = "[0, inf)", .group = "Loss",
     .help = "weight of the cross-entropy on the tokens (default: 0; 1 with ce)"},
    {"kd-temperature", OPT_REAL, .def = "1", .range = "(0, 100]", .group = "Loss",
     .help = "temperature of both distributions in the teacher's part; the store must have the teacher's log Z there"},
    {"kd-scale-t2", OPT_BOOL, .group = "Loss",
     .help = "multiply the teacher's part by T², which keeps the size of its gradient (Hinton 2015)"},

    {"optimizer", OPT_ENUM, .def = "adamw", .choices = OPTIMIZER_CHOICES, .group = "Optimizer (AdamW)",
     .help = "adamw8: 8-bit moments, and bf16 weights rounded by chance instead of an f32 copy: 2 bytes a parameter, not 12; what is f32 "
             "(norms; all with --dtype f32) is treated as by adamw"},
    {"lr", OPT_REAL, .def = "2e-5", .range = "[0, inf)", .group = "Optimizer (AdamW)", .help = "peak learning rate"},
    {"schedule", OPT_ENUM, .def = "cosine", .choices = "constant|linear|cosine", .group = "Optimizer (AdamW)", .help = "after the warm-up"},
    {"warmup", OPT_INT, .def = "0", .range = "[0, inf)", .value = "STEPS", .group = "Optimizer (AdamW)",
     .help = "step s of the first STEPS has rate lr*s/STEPS"},
    {"beta1", OPT_REAL, .def = "0.9", .range = "[0, 1)", .group = "Optimizer (AdamW)", .help = "decay of the first moment"},
    {"beta2", OPT_REAL, .def = "0.999", .range = "[0, 1)", .group = "Optimizer (AdamW)", .help = "decay of the second moment"},
    {"eps", OPT_REAL, .def = "1e-8", .range = "(0, inf)", .group = "Optimizer (AdamW)", .help = "added to the root of the second moment"},
    {"weight-decay", OPT_REAL, .def = "0", .range = "[0, inf)", .group = "Optimizer (AdamW)",
     .help = "of matrices; norms and biases never decay"},
    {"clip", OPT_REAL, .def = "1", .range = "[0, inf)", .group = "Optimizer (AdamW)",
     .help = "largest global gradient norm; 0: no clipping"},

    {"steps", OPT_INT, .range = "[1, inf)", .group = "Length and batches", .help = "optimizer steps; or"},
    {"epochs", OPT_INT, .range = "[1, 1000000]", .group = "Length and batches", .help = "passes over the data (default: 1)"},
    {"batch-tokens", OPT_INT, .def = "8192", .range = "[1, 2000000000]", .group = "Length and batches",
     .help = "tokens a step, over all ranks: whole rows, as many as fit; a step never spans two epochs"},
    {"micro-tokens", OPT_INT, .range = "[1, 2000000000]", .group = "Length and batches",
     .help = "tokens a forward and backward: a step is split into such pieces (default: as --batch-tokens, at most 8192)"},
    {"max-len", OPT_INT, .range = "[2, 2000000000]", .group = "Length and batches",
     .help = "longer rows are cut at the end (default: the student's context, at most --batch-tokens)"},
    {"shuffle", OPT_BOOL, .def = "true", .group = "Length and batches", .help = "rows in a new order each epoch, by --seed"},
    {"recompute", OPT_ENUM, .def = "auto", .choices = "auto|none|cheap|layer", .group = "Length and batches",
     .help = "what backward computes again instead of keeping it; same gradients to the bit. auto: the fastest that fits into free memory"},

    {"eval", OPT_STRING, .value = "STORE|F.jsonl[,…]", .group = "Watching and saving",
     .help = "held-out rows: their mean loss goes into metrics.jsonl"},
    {"eval-every", OPT_INT, .def = "100", .range = "[0, inf)", .value = "STEPS", .group = "Watching and saving",
     .help = "0: after the last step only"},
    {"save-every", OPT_INT, .def = "100", .range = "[0, inf)", .value = "STEPS", .group = "Watching and saving",
     .help = "0: after the last step only"},
    {"keep", OPT_INT, .def = "0", .range = "[0, 1000000]", .group = "Watching and saving",
     .help = "models of older saves that stay in OUT/checkpoints"},
    {0}};

// All that a run holds; freed by close_all in any case.
struct job {
    struct options *o;
    bool quiet;
    struct model_config config;
    const struct arch *arch;
    struct tokenizer *tokenizer;
    struct chat *chat;
    struct err chat_err; // why there is none
    struct rows rows, eval_rows;
    struct targets_use eval_use;
    struct train_options opt;
    struct run_dir dir;
    struct position pos;
    json_t *record;
    struct device dev;
    struct comm comm;
    struct model *model;
    struct trainer *trainer;
    struct metrics metrics;
    struct step_result last, last_eval;
    bool has_eval;
};

// ---- settings ----

static enum status set_number(struct options *o, const char *name, double v, struct err *err)
{
    char text[32];
    snprintf(text, sizeof text, "%.15g", v);
    return options_set(o, name, text, err);
}

// Defaults that follow from other settings are filled in, so that run.json tells what was used.
static enum status read_settings(struct job *j, struct err *err)
{
    struct options *o = j->o;
    if (opt_given(o, "steps") && opt_given(o, "epochs")) return err_set(err, ST_BAD_INPUT, "--steps and --epochs: give one of them");
    if (!opt_given(o, "steps") && !opt_given(o, "epochs")) TRY(set_number(o, "epochs", 1, err));
    int64_t batch = opt_int(o, "batch-tokens");
    if (!opt_given(o, "micro-tokens")) TRY(set_number(o, "micro-tokens", (double)(batch < 8192 ? batch : 8192), err));
    if (!opt_given(o, "max-len")) {
        int64_t len = j->config.max_position < batch ? j->config.max_position : batch;
        TRY(set_number(o, "max-len", (double)(len < 2 ? 2 : len), err));
    }
    if (opt_int(o, "max-len") > j->config.max_position)
        return err_set(err, ST_BAD_INPUT,
                       "--max-len %lld: the student's context is %lld tokens (max_position_embeddings in its config.json)",
                       (long long)opt_int(o, "max-len"), (long long)j->config.max_position);
    return ST_OK;
}

static enum status read_loss(struct job *j, struct err *err)
{
    struct options *o = j->o;
    struct train_options *t = &j->opt;
    bool targets = true;
    for (int i = 0; i < j->rows.n_source; i++) targets = targets && j->rows.source[i].spec.kind != TARGETS_NONE;
    if (!opt_str(o, "loss")) TRY(options_set(o, "loss", targets ? "fkl" : "ce", err));
    TRY(loss_parse(&t->loss, opt_str(o, "loss"), err));
    bool kd = t->loss.kind->divergence != DIV_NONE;
    if (!kd && opt_has(o, "kd-weight") && opt_real(o, "kd-weight") > 0)
        return err_set(err, ST_BAD_INPUT, "--kd-weight %g: --loss ce has no teacher's part; choose --loss fkl, rkl or jsd:B",
                       opt_real(o, "kd-weight"));
    if (!opt_has(o, "kd-weight")) TRY(set_number(o, "kd-weight", kd, err));
    if (!opt_has(o, "ce-weight")) TRY(set_number(o, "ce-weight", !kd, err));
    t->kd_weight = opt_real(o, "kd-weight");
    t->ce_weight = opt_real(o, "ce-weight");
    t->kd_temperature = opt_real(o, "kd-temperature");
    t->kd_scale_t2 = opt_bool(o, "kd-scale-t2");
    return ST_OK;
}

static enum status read_optimizer(struct job *j, struct err *err)
{
    const struct options *o = j->o;
    struct train_options *t = &j->opt;
    TRY(optimizer_parse(&t->optimizer, opt_str(o, "optimizer"), err));
    t->seed = (uint64_t)opt_int(o, "seed");
    t->lr = opt_real(o, "lr");
    t->beta1 = opt_real(o, "beta1");
    t->beta2 = opt_real(o, "beta2");
    t->eps = opt_real(o, "eps");
    t->weight_decay = opt_real(o, "weight-decay");
    t->clip = opt_real(o, "clip");
    t->warmup = opt_int(o, "warmup");
    t->pack = (struct pack_options){.batch_tokens = (int)opt_int(o, "batch-tokens"),
                                    .micro_tokens = (int)opt_int(o, "micro-tokens"),
                                    .shuffle = opt_bool(o, "shuffle"),
                                    .seed = (uint64_t)opt_int(o, "seed")};
    t->recompute = RECOMPUTE_AUTO;
    for (int i = 0; i < 3; i++)
        if (!strcmp(opt_str(o, "recompute"), recompute_names[i])) t->recompute = i;
    if (opt_has(o, "steps")) {
        t->n_step = opt_int(o, "steps");
    } else {
        struct pack p;
        pack_open(&p, &j->rows, &t->pack);
        t->n_step = pack_count(&p, opt_int(o, "epochs"));
        pack_close(&p);
    }
    return schedule_parse(&t->schedule, opt_str(o, "schedule"), err);
}

// ---- data ----

static void say_rows(const struct job *j, const char *what, const struct rows *r)
{
    if (j->quiet) return;
    fprintf(stderr, "distill train: %s: %zu rows, %lld tokens, %lld with loss\n", what, r->n, (long long)r->n_tok, (long long)r->n_loss);
    if (r->n_cut) fprintf(stderr, "distill train: %s: %zu rows cut to --max-len, %zu tokens lost\n", what, r->n_cut, r->n_tok_cut);
    if (r->n_skipped) fprintf(stderr, "distill train: %s: %zu rows passed over (bad lines, refusals, errors)\n", what, r->n_skipped);
    if (r->n_reasoning_added)
        fprintf(
            stderr,
            "distill train: %s: %zu rows have reasoning that the student's chat template leaves out; it is learnt as <think>…</think>\n",
            what, r->n_reasoning_added);
    if (r->n_without_loss) fprintf(stderr, "distill train: %s: %zu rows carry no loss\n", what, r->n_without_loss);
}

static enum status load_data(struct job *j, struct err *err)
{
    const char *student = opt_str(j->o, "student");
    TRY(model_config_read(&j->config, &j->arch, student, all_archs, err));
    TRY(read_settings(j, err));
    TRY(tokenizer_load(&j->tokenizer, student, err));
    TRY(tokenizer_fits(j->tokenizer, j->config.n_vocab, student, err)); // though no row may use such an id: eval would refuse the result
    if (!chat_open(&j->chat, j->tokenizer, &j->chat_err)) TRY(chat_options(j->chat, j->o, err)); // stores need none
    struct rows_options ro = {.max_len = (int)opt_int(j->o, "max-len"),
                              .n_vocab = (int)j->config.n_vocab,
                              .tokenizer = j->tokenizer,
                              .tokenizer_dir = student,
                              .chat = j->chat,
                              .chat_why = j->chat_err.text,
                              .skip_bad = opt_bool(j->o, "skip-bad")};
    TRY(rows_load(&j->rows, opt_str(j->o, "data"), &ro, err));
    say_rows(j, "data", &j->rows);
    TRY(read_loss(j, err));
    TRY(read_optimizer(j, err));
    if (!opt_str(j->o, "eval")) return ST_OK;
    TRY(rows_load(&j->eval_rows, opt_str(j->o, "eval"), &ro, err));
    say_rows(j, "eval", &j->eval_rows);
    // Held-out text without targets is measured by cross-entropy alone.
    struct loss_spec loss = j->opt.loss, ce;
    TRY(loss_parse(&ce, "ce", err));
    for (int i = 0; i < j->eval_rows.n_source; i++)
        if (j->eval_rows.source[i].spec.kind == TARGETS_NONE) loss = ce;
    return targets_use_init(&j->eval_use, &j->eval_rows, &loss, (float)j->opt.kd_temperature, (int)j->config.n_vocab, err);
}

// ---- the output folder ----

// Entries that are not leftovers of a killed writer.
static bool is_empty(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return true;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d));)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || strstr(e->d_name, ".tmp.");
    closedir(d);
    return empty;
}

// What may not be written over. A folder with run.json is a run of ours, to be resumed only.
static enum status check_out(struct job *j, struct err *err)
{
    const char *out = opt_str(j->o, "out");
    char *path = path_join(out, "run.json");
    bool run = file_exists(path);
    mem_free(path);
    if (!run && !is_empty(out))
        return err_set(err, ST_BAD_INPUT, "--out %s: the folder is not empty and holds no training run; give another", out);
    if (run && !opt_bool(j->o, "resume"))
        return err_set(err, ST_BAD_INPUT,
                       "--out %s holds a training run already: add --resume to go on with it, give another --out, or remove the folder",
                       out);
    return ST_OK;
}

// Opens and locks the folder, finds what is saved, refuses changed settings. *done: nothing is left to do.
static enum status open_out(struct job *j, bool *done, struct err *err)
{
    const char *out = opt_str(j->o, "out");
    TRY(check_out(j, err));
    TRY(run_dir_open(&j->dir, out, err));
    TRY(check_out(j, err)); // again: another process may have come between
    TRY(checkpoint_find(&j->dir, &j->pos, err));
    TRY(train_record(&j->record, j->o, &j->config, j->tokenizer, &j->rows, j->opt.n_step, err));
    if (j->pos.step < 0) return ST_OK;
    char *path = path_join(out, "run.json");
    json_t *stored = NULL;
    enum status st = json_read(&stored, path, err);
    if (!st) st = train_record_compare(stored, j->record, j->o, path, err);
    json_decref(stored);
    mem_free(path);
    *done = !st && j->pos.step >= j->opt.n_step;
    return st;
}

// A base model's files name what ends a document, not what ends a turn: without this other programs would not stop there.
static enum status name_ends(struct job *j, struct err *err)
{
    struct ids added = {0};
    enum status st = checkpoint_name_ends(&j->dir, &j->rows.ends, &added, err);
    for (size_t i = 0; !st && !j->quiet && i < added.n; i++) {
        struct buf token = {0};
        tokenizer_show(j->tokenizer, added.v[i], &token);
        fprintf(stderr, "distill train: answers end with %s, which no eos_token_id names: added to generation_config.json\n", token.data);
        buf_free(&token);
    }
    ids_free(&added);
    return st;
}

static enum status begin_out(struct job *j, struct err *err)
{
    char *path = path_join(j->dir.path, "run.json"); // first: it marks the folder as ours
    enum status st = json_write_atomic(j->record, path, err);
    mem_free(path);
    if (!st) st = checkpoint_copy_files(&j->dir, opt_str(j->o, "student"), err);
    if (!st) st = name_ends(j, err);
    if (!st) st = metrics_open(&j->metrics, j->dir.path, j->pos.step, err);
    if (!st && j->pos.step >= 0) st = checkpoint_load(&j->dir, &j->pos, j->trainer, err);
    if (j->pos.step < 0) j->pos = (struct position){0};
    return st;
}

// ---- the run ----

// Fresh weights have no file to take their dtype from: config.json's, else that of the run.
static void random_file_dtype(struct job *j)
{
    char *path = path_join(opt_str(j->o, "student"), "config.json");
    json_t *root = NULL;
    struct err ignored = {0};
    const char *name = NULL;
    const char *student = opt_str(j->o, "student");
    if (!(gguf_is(student) ? gguf_config_read(&root, student, &ignored) : json_read(&root, path, &ignored))) {
        name = json_string_value(json_object_get(root, "torch_dtype"));
        if (!name) name = json_string_value(json_object_get(root, "dtype"));
    }
    const char *file = !name                      ? (j->model->dtype == DT_F32 ? "F32" : "BF16")
                       : !strcmp(name, "float32") ? "F32"
                       : !strcmp(name, "float16") ? "F16"
                                                  : "BF16";
    for (size_t i = 0; i < j->model->n_param; i++)
        snprintf(j->model->params[i].file_dtype, sizeof j->model->params[i].file_dtype, "%s", file);
    json_decref(root);
    mem_free(path);
}

static enum status open_trainer(struct job *j, struct err *err)
{
    const struct options *o = j->o;
    TRY(open_device(&j->dev, o, err));
    comm_open(&j->comm);
    struct model_options mo = {.archs = all_archs,
                               .use = MODEL_TRAIN,
                               .dtype = run_dtype(o),
                               .random_init = !strcmp(opt_str(o, "init"), "random"),
                               .seed = (uint64_t)opt_int(o, "seed")};
    TRY(model_load(&j->model, &j->dev, opt_str(o, "student"), &mo, err));
    if (mo.random_init) random_file_dtype(j);
    TRY(trainer_open(&j->trainer, j->model, &j->comm, &j->rows, &j->opt, err));
    if (j->quiet) return ST_OK;
    char plan[300];
    train_plan_describe(&j->trainer->plan, plan, sizeof plan);
    fprintf(stderr, "distill train: %s, %.2fM parameters; %s\n", j->config.model_type, (double)model_n_weight(j->model) * 1e-6, plan);
    return ST_OK;
}

static enum status save(struct job *j, struct err *err)
{
    char *card = train_card(j->record, j->pos.step, j->pos.n_tok);
    enum status st = checkpoint_save(&j->dir, j->trainer, &j->pos, card, (int)opt_int(j->o, "keep"), err);
    mem_free(card);
    return st;
}

static bool due(const struct options *o, const char *every, int64_t step)
{
    int64_t n = opt_int(o, every);
    return n > 0 && step % n == 0;
}

static enum status loop(struct job *j, struct err *err)
{
    struct trainer *t = j->trainer;
    const int64_t n_step = j->opt.n_step;
    int64_t saved = j->pos.step, work = 0;
    bool resumed = saved > 0;
    struct progress p = progress_start("train", "step", n_step, j->pos.step, "tok", j->quiet);
    if (resumed) progress_note(&p, "resumed at step %lld of %lld", (long long)saved, (long long)n_step);
    enum status st = ST_OK;
    while (!st && t->step < n_step) {
        struct step_result *r = &j->last;
        if ((st = trainer_step(t, r, err))) break;
        j->pos.step = t->step;
        j->pos.n_tok += r->n_tok;
        j->pos.t_s += r->t_s;
        work += r->n_tok;
        bool last = t->step == n_step, stop = stop_requested();
        j->has_eval = j->eval_rows.n && (last || due(j->o, "eval-every", t->step));
        if (j->has_eval) st = trainer_eval(t, &j->eval_rows, &j->eval_use, &j->last_eval, err);
        if (!st) st = metrics_write(&j->metrics, r, j->has_eval ? &j->last_eval : NULL, trainer_mem_bytes(t), j->pos.t_s, err);
        progress_step(&p, t->step, work, "loss %.4f", r->loss);
        if (!st && j->has_eval)
            progress_note(&p, "step %lld: held-out loss %.4f, cross-entropy %.4f", (long long)t->step, j->last_eval.loss, j->last_eval.ce);
        if (!st && (last || stop || due(j->o, "save-every", t->step)) && !(st = save(j, err))) saved = t->step;
        if (!st && stop && !last)
            st = err_set(err, ST_INTERRUPTED, "stopped at step %lld of %lld and saved in %s; the same command with --resume goes on",
                         (long long)t->step, (long long)n_step, j->dir.path);
    }
    progress_end(&p);
    if (st && st != ST_INTERRUPTED && saved > 0)
        err_add(err, st, "The save of step %lld in %s is intact; the same command with --resume goes on from there", (long long)saved,
                j->dir.path);
    return st;
}

static void tell_result(const struct job *j)
{
    json_t *o = metrics_json(&j->last, j->has_eval ? &j->last_eval : NULL, j->trainer ? trainer_mem_bytes(j->trainer) : 0, j->pos.t_s);
    json_object_set_new(o, "out", json_string(opt_str(j->o, "out")));
    struct buf b = {0};
    json_append_line(&b, o);
    fwrite(b.data, 1, b.size, stdout);
    buf_free(&b);
    json_decref(o);
}

static void close_all(struct job *j)
{
    struct err ignored;
    (void)ignored;
    metrics_close(&j->metrics);
    trainer_close(j->trainer);
    model_free(j->model);
    dev_close(&j->dev);
    // A folder we made and never used goes again; rmdir leaves any other alone.
    if (j->dir.path) rmdir(j->dir.path);
    run_dir_close(&j->dir);
    json_decref(j->record);
    rows_free(&j->rows);
    rows_free(&j->eval_rows);
    chat_free(j->chat);
    tokenizer_free(j->tokenizer);
    model_config_free(&j->config);
}

static enum status work(struct job *j, struct err *err)
{
    bool done = false;
    TRY(check_out(j, err));
    TRY(load_data(j, err));
    TRY(open_out(j, &done, err));
    if (done) {
        if (!j->quiet)
            fprintf(stderr, "distill train: %s is finished: %lld of %lld steps\n", j->dir.path, (long long)j->pos.step,
                    (long long)j->opt.n_step);
        return ST_OK;
    }
    TRY(open_trainer(j, err));
    TRY(begin_out(j, err));
    TRY(loop(j, err));
    if (opt_bool(j->o, "json")) tell_result(j);
    return ST_OK;
}

static enum status run(struct options *o, struct err *err)
{
    struct job j = {.o = o, .quiet = opt_bool(o, "quiet"), .pos.step = -1, .metrics.fd = -1, .dir.lock_fd = -1};
    enum status st = work(&j, err);
    close_all(&j);
    return st;
}

const struct command command_train = {
    .name = "train",
    .summary = "fine-tune a student on traces, with the teacher's distributions if they are there",
    .notes = "Examples:\n"
             "  distill train --student base --data traces --out student --loss fkl --lr 1e-3 --steps 200\n"
             "  distill train --student base --data chats.jsonl --out student --epochs 2 --eval held-out.jsonl\n"
             "The loss reported is ce-weight * cross-entropy + kd-weight * divergence, means over the step's\n"
             "tokens, before the update. OUT is a Hugging Face directory, with metrics.jsonl, run.json, state/.",
    .options = train_options,
    .computes = true,
    .saves_on_stop = true,
    .run = run,
};
