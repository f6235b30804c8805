// distill eval: a model answers tasks, a verifier judges, and the table says how often it is right and how sure that is.
//
// Generation is the teacher's engine whatever the model is: students go through the same door.
#include "datasets/verify/verify.h"
#include "distill/chat_options.h"
#include "distill/command.h"
#include "distill/generator.h"
#include "distill/progress.h"
#include "distill/signals.h"
#include "distill/stats.h"
#include "distill/watch.h"

#include <stdio.h>
#include <string.h>

enum { N_RESAMPLE = 2000 };

static enum status check_verifier(const char *text, struct err *err)
{
    if (verifier_find(text)) return ST_OK;
    struct buf known = {0};
    for (const struct verifier *const *v = verifiers; *v; v++) buf_printf(&known, "%s%s", v == verifiers ? "" : ", ", (*v)->name);
    err_set(err, ST_BAD_INPUT, "wanted one of: %s", known.data);
    buf_free(&known);
    return ST_BAD_INPUT;
}

// clang-format off
static const struct option options[] = {
    {"model", OPT_STRING, .value = "DIR", .required = true, .help = "the model: a Hugging Face directory, or a GGUF file"},
    {"tasks", OPT_STRING, .value = "F.jsonl", .required = true, .help = "a task a line: {\"id\"?, \"messages\" or \"prompt\", \"answer\"}"},
    {"verify", OPT_STRING, .def = "math", .value = "math|exact", .check = check_verifier, .help = "how answers are judged"},
    {"out", OPT_STRING, .value = "F.jsonl", .help = "keep every answer: a line a sample"},
    {"limit", OPT_INT, .def = "0", .range = "[0, inf)", .help = "only the first N tasks; 0: all"},
    {"skip-bad", OPT_BOOL, .help = "pass over malformed lines and tasks longer than the context"},
    CHAT_OPTIONS,
    FP8_OPTION,
    SAMPLING_OPTIONS("0"),
    {0}};
// clang-format on

struct answer { // of one sample
    bool done, correct;
    char *extracted;
    const char *finish_reason;
    int n_tok;
    json_t *message;
};

struct eval {
    struct options *o;
    const struct verifier *verifier;
    struct loaded loaded;
    struct sampling sampling;
    struct prompts tasks;
    struct jobs jobs;
    struct engine *engine;
    int n;                 // samples a task
    struct answer *answer; // (n_task, n)
    struct file_out *out;
    size_t n_done, n_correct, n_skipped;
    int64_t n_tok;
    double t_s;
};

struct result {
    double pass1, cons;
    struct interval ci;
    size_t n_stop, n_length;
    int n_tok_max;
};

static enum status make_jobs(struct eval *e, struct err *err)
{
    const char *path = opt_str(e->o, "tasks");
    int *samples = NEW_N(int, e->n);
    for (int i = 0; i < e->n; i++) samples[i] = i;
    enum status st = ST_OK;
    for (size_t i = 0; !st && i < e->tasks.n; i++) {
        const struct prompt *p = &e->tasks.v[i];
        if (!p->answer) st = err_set(err, ST_BAD_INPUT, "%s:%ld: \"answer\" is missing: a task needs one to be judged by", path, p->line);
        if (!st) st = jobs_add(&e->jobs, &e->loaded, p, path, samples, e->n, (int)opt_int(e->o, "max-tokens"), err);
        if (st == ST_BAD_INPUT && opt_bool(e->o, "skip-bad")) {
            e->n_skipped++;
            *err = (struct err){0};
            st = ST_OK;
        }
    }
    mem_free(samples);
    if (!st && !e->jobs.n) st = err_set(err, ST_BAD_INPUT, "%s: there is no task in it", path);
    return st;
}

static enum status prepare(struct eval *e, struct err *err)
{
    e->n = (int)opt_int(e->o, "n");
    e->verifier = verifier_find(opt_str(e->o, "verify"));
    TRY(sampling_options(&e->sampling, e->o, err));
    TRY(prompts_load(&e->tasks, opt_str(e->o, "tasks"), (size_t)opt_int(e->o, "limit"), opt_bool(e->o, "skip-bad"), err));
    e->n_skipped = e->tasks.n_skipped;
    TRY(loaded_text(&e->loaded, e->o, opt_str(e->o, "model"), err));
    TRY(make_jobs(e, err));
    if (opt_str(e->o, "out")) TRY(file_out_open(&e->out, opt_str(e->o, "out"), err));
    e->answer = NEW_N(struct answer, e->jobs.n * (size_t)e->n);
    struct targets_spec none = {0};
    return jobs_engine(&e->engine, &e->jobs, &e->loaded, &none, e->o, err);
}

static enum status judge(struct eval *e, struct generation *made, struct err *err)
{
    const struct job *job = made->user;
    struct answer *a = &e->answer[(size_t)(job - e->jobs.v) * (size_t)e->n + (size_t)made->sample];
    TRY(generation_message(&a->message, &e->loaded, made, job->opened, err));
    struct verdict v = {0};
    const char *content = json_string_value(json_object_get(a->message, "content"));
    e->verifier->judge(&v, content ? content : "", job->prompt->answer);
    a->done = true;
    a->correct = v.correct;
    a->extracted = mem_strdup(v.extracted);
    a->finish_reason = made->finish_reason;
    a->n_tok = made->n_tok;
    e->n_done++;
    e->n_correct += v.correct;
    e->n_tok += made->n_tok;
    return ST_OK;
}

static enum status generate(struct eval *e, struct err *err)
{
    struct progress p = progress_start("eval", "sample", (int64_t)e->jobs.n_sample, 0, "tok", opt_bool(e->o, "quiet"));
    p.plain_every_s = 1;
    struct watch watch = {.tok = e->loaded.tok};
    enum status st = jobs_feed(&e->jobs, e->engine, &e->sampling, e->o, err);
    while (!st && engine_busy(e->engine) && !stop_requested()) {
        st = engine_step(e->engine, err);
        struct generation made;
        while (!st && engine_next(e->engine, &made)) {
            st = judge(e, &made, err);
            generation_free(&made);
        }
        if (!st) st = jobs_feed(&e->jobs, e->engine, &e->sampling, e->o, err);
        if (p.live) p.tail = watch_engine(&watch, e->engine);
        progress_step(&p, (int64_t)e->n_done, engine_stats(e->engine).n_tok, "right %.3f",
                      e->n_done ? (double)e->n_correct / (double)e->n_done : 0.0);
    }
    progress_end(&p);
    watch_free(&watch);
    e->t_s = progress_elapsed_s(&p);
    return st;
}

// ---- what it says --------------------------------------------------------------------------------------------------------------------

// The answers of one task vote; what the verifier takes for equal is one party; of equally large parties the one met first wins. Answers
// from which nothing could be extracted do not vote.
static bool majority_is_right(const struct eval *e, const struct answer *a)
{
    int best = -1, best_votes = 0;
    for (int i = 0; i < e->n; i++) {
        if (!a[i].extracted[0]) continue;
        int votes = 0;
        for (int j = 0; j < e->n; j++) {
            struct verdict v = {0};
            if (!a[j].extracted[0]) continue;
            bool same = !strcmp(a[i].extracted, a[j].extracted);
            if (!same) e->verifier->judge(&v, a[j].extracted, a[i].extracted);
            votes += same || v.correct;
        }
        if (votes > best_votes) best = i, best_votes = votes;
    }
    return best >= 0 && a[best].correct;
}

static struct result summarize(const struct eval *e)
{
    struct result r = {0};
    double *score = NEW_N(double, e->jobs.n), sum = 0;
    size_t n_cons = 0;
    for (size_t t = 0; t < e->jobs.n; t++) {
        const struct answer *a = e->answer + t * (size_t)e->n;
        int right = 0;
        for (int i = 0; i < e->n; i++) {
            right += a[i].correct;
            r.n_stop += !strcmp(a[i].finish_reason, "stop");
            r.n_length += !strcmp(a[i].finish_reason, "length");
            if (a[i].n_tok > r.n_tok_max) r.n_tok_max = a[i].n_tok;
        }
        score[t] = (double)right / e->n;
        sum += score[t];
        n_cons += majority_is_right(e, a);
    }
    r.pass1 = sum / (double)e->jobs.n;
    r.cons = (double)n_cons / (double)e->jobs.n;
    r.ci = e->n == 1 ? wilson_interval((int64_t)e->n_correct, (int64_t)e->n_done)
                     : bootstrap_interval(score, e->jobs.n, N_RESAMPLE, (uint64_t)opt_int(e->o, "seed"));
    mem_free(score);
    return r;
}

static void print_result(const struct eval *e, const struct result *r)
{
    const double rate = e->t_s > 0 ? (double)e->n_tok / e->t_s : 0, mean = (double)e->n_tok / (double)e->n_done;
    if (opt_bool(e->o, "json")) {
        json_t *j = json_pack("{s:f, s:f, s:f, s:I, s:I, s:f, s:f, s:i, s:{s:I, s:I}, s:I, s:f, s:f}", "pass1", r->pass1, "ci_low",
                              r->ci.low, "ci_high", r->ci.high, "n", (json_int_t)e->jobs.n, "n_sample", (json_int_t)e->n_done, "cons",
                              r->cons, "n_tok_mean", mean, "n_tok_max", r->n_tok_max, "finish", "stop", (json_int_t)r->n_stop, "length",
                              (json_int_t)r->n_length, "skipped", (json_int_t)e->n_skipped, "t_s", e->t_s, "tok_per_s", rate);
        struct buf line = {0};
        json_append_line(&line, j);
        fwrite(line.data, 1, line.size, stdout);
        buf_free(&line);
        json_decref(j);
        return;
    }
    printf("%s on %s: %zu tasks, %d sample%s each\n", opt_str(e->o, "model"), opt_str(e->o, "tasks"), e->jobs.n, e->n,
           e->n == 1 ? "" : "s");
    printf("  pass@1         %.3f   95%% interval %.3f to %.3f (%s)\n", r->pass1, r->ci.low, r->ci.high,
           e->n == 1 ? "Wilson" : "bootstrap over tasks");
    if (e->n > 1) printf("  cons@%-9d %.3f   by majority of the extracted answers\n", e->n, r->cons);
    printf("  length         %.1f tokens in the mean, %d at most\n", mean, r->n_tok_max);
    printf("  finish reason  stop %zu, length %zu\n", r->n_stop, r->n_length);
    printf("  speed          %.0f tok/s, %.1f s\n", rate, e->t_s);
    if (e->n_skipped) printf("  passed over    %zu malformed or too long\n", e->n_skipped);
}

static enum status write_answers(struct eval *e, struct err *err)
{
    enum status st = ST_OK;
    struct buf line = {0};
    for (size_t i = 0; !st && i < e->jobs.n * (size_t)e->n; i++) {
        const struct answer *a = &e->answer[i];
        const struct prompt *p = e->jobs.v[i / (size_t)e->n].prompt;
        if (!a->done) continue;
        json_t *messages = json_copy(p->messages);
        json_array_append(messages, a->message);
        json_t *row = json_pack("{s:s, s:i, s:b, s:s, s:s, s:s, s:i, s:o}", "id", p->id, "sample", (int)(i % (size_t)e->n), "correct",
                                (int)a->correct, "extracted", a->extracted, "answer", p->answer, "finish_reason", a->finish_reason, "n_tok",
                                a->n_tok, "messages", messages);
        if (!row) BUG("an answer could not be packed");
        buf_clear(&line);
        json_append_line(&line, row);
        json_decref(row);
        st = file_out_put(e->out, line.data, line.size, err);
    }
    buf_free(&line);
    if (st) return st;
    struct file_out *out = e->out;
    e->out = NULL;
    return file_out_commit(out, err);
}

static enum status run(struct options *o, struct err *err)
{
    struct eval e = {.o = o};
    enum status st = prepare(&e, err);
    if (!st) st = generate(&e, err);
    const bool generated = !st;
    if (generated && e.out) st = write_answers(&e, err);
    const bool kept = opt_str(o, "out") && !st, whole = generated && e.n_done == e.jobs.n_sample;
    if (whole) { // also where the answers could not be written: the table took longer to come by
        struct result r = summarize(&e);
        print_result(&e, &r);
        if (st) err_add(err, st, "The answers are not kept; the result, on standard output, is of all of them");
    } else if (generated && st) {
        err_add(err, st, "Stopped after %zu of %zu samples, %zu of them right; they are not kept", e.n_done, e.jobs.n_sample, e.n_correct);
    } else if (generated) {
        st = err_set(err, ST_INTERRUPTED, "stopped after %zu of %zu samples, %zu of them right%s%s", e.n_done, e.jobs.n_sample, e.n_correct,
                     kept ? "; they are in " : "", kept ? opt_str(o, "out") : "");
    }
    file_out_abort(e.out);
    engine_close(e.engine);
    for (size_t i = 0; e.answer && i < e.jobs.n * (size_t)e.n; i++) {
        mem_free(e.answer[i].extracted);
        json_decref(e.answer[i].message);
    }
    mem_free(e.answer);
    jobs_free(&e.jobs);
    prompts_free(&e.tasks);
    loaded_close(&e.loaded);
    return st;
}

const struct command command_eval = {
    .name = "eval",
    .summary = "generate, verify, report: pass@1 with its 95% interval",
    .notes = "pass@1: the mean over tasks of the share of right samples. Its interval is Wilson's for one sample a\n"
             "task, else a bootstrap over tasks. cons@n: whether the majority of a task's answers is right.\n\n"
             "  distill eval --model teacher/tiny/base --tasks teacher/tiny/test.jsonl --limit 200",
    .options = options,
    .computes = true,
    .saves_on_stop = true,
    .run = run,
};
