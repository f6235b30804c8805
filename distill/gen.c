// distill gen: a teacher writes traces, and what it thought of every token is kept.
//
//   prompts → token ids → engine → (messages, ids, targets) → trace store
//
// Everything that can be refused is refused before the first token: prompts, lengths, the store's identity, memory. What the store has
// already is passed over, so running again resumes; a sample does not depend on what else is generated, so it comes out the same.
#include "distill/chat_options.h"
#include "distill/command.h"
#include "distill/generator.h"
#include "distill/identity.h"
#include "distill/licence.h"
#include "distill/progress.h"
#include "distill/signals.h"
#include "distill/watch.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <string.h>

static enum status check_targets(const char *text, struct err *err)
{
    struct targets_spec spec;
    return targets_spec_parse(&spec, text, "1", 0, err);
}

// clang-format off
static const struct option options[] = {
    {"teacher", OPT_STRING, .value = "DIR", .required = true, .help = "the teacher: a Hugging Face directory, or a GGUF file"},
    {"prompts", OPT_STRING, .value = "F.jsonl", .required = true, .help = "a prompt a line: {\"id\"?, \"messages\", \"answer\"?} or {\"prompt\"}"},
    {"out", OPT_STRING, .value = "STORE", .required = true, .help = "folder of the trace store; one that exists is continued"},
    {"limit", OPT_INT, .def = "0", .range = "[0, inf)", .help = "only the first N prompts; 0: all"},
    {"skip-bad", OPT_BOOL, .help = "pass over malformed lines and prompts longer than the context"},
    {"targets", OPT_STRING, .def = "topk:64", .value = "none|topk:K|sampled:N", .check = check_targets, .group = "Targets",
     .help = "what is kept of the teacher's distribution at each token: its K likeliest tokens and the mass of the rest, or N unbiased draws"},
    {"target-temperatures", OPT_STRING, .def = "1", .value = "T,…", .group = "Targets", .help = "keep log Z at these temperatures, so that students can train at them"},
    CHAT_OPTIONS,
    FP8_OPTION,
    SAMPLING_OPTIONS("1"),
    {0}};
// clang-format on

struct gen {
    const struct options *o;
    struct loaded loaded;
    struct sampling sampling;
    struct targets_spec spec;
    struct prompts prompts;
    struct jobs jobs;
    struct store *store;
    struct engine *engine;
    size_t n_before;         // samples that the store had
    size_t n_long;           // prompts passed over: longer than the context
    int64_t n_sample, n_tok; // of this run
};

// What must be equal for the samples of two runs to belong into one store.
static enum status make_identity(json_t **out, struct gen *g, struct err *err)
{
    const struct options *o = g->o;
    const char *dir = opt_str(o, "teacher"), *template = tokenizer_chat_template(g->loaded.tok);
    json_t *teacher;
    char sha[65];
    TRY(identity_of_model(&teacher, dir, err));
    sha256_hex(template, strlen(template), sha);
    *out = json_pack("{s:o, s:{s:s}, s:{s:s}, s:i, s:s, s:{s:f, s:f, s:I, s:f}, s:I, s:I}", "teacher", teacher, "tokenizer", "sha256",
                     tokenizer_sha256(g->loaded.tok), "chat_template", "sha256", sha, "n_vocab", g->loaded.n_vocab, "dtype",
                     opt_str(o, "dtype"), "sampling", "temperature", opt_real(o, "temperature"), "top_p", opt_real(o, "top-p"), "top_k",
                     (json_int_t)opt_int(o, "top-k"), "min_p", opt_real(o, "min-p"), "max_tokens", (json_int_t)opt_int(o, "max-tokens"),
                     "seed", (json_int_t)opt_int(o, "seed"));
    if (!*out) BUG("the identity could not be packed");
    // The text itself: {"a":1} and { "a": 1 } are two, which is on the safe side. Without it nothing, as in stores from before it was
    // known.
    if (opt_str(o, "template-vars")) json_object_set_new(*out, "template_vars", json_string(opt_str(o, "template-vars")));
    if (opt_bool(o, "fp8-activations")) json_object_set_new(*out, "fp8_activations", json_true());
    return ST_OK;
}

// What to do about a store whose samples came to be with the other kind of kernels.
static void tell_kernels(const struct device *dev, struct err *err)
{
    if (!dev->batch_invariant)
        err_add(err, ST_BAD_INPUT,
                "  here a sample's bits would depend on what shares its batch, those of the store do not: give --batch-invariant");
    else
        err_add(err, ST_BAD_INPUT, "  here a sample's bits do not depend on what shares its batch, those of the store do: %s",
                dev->backend->batch_dependent ? "leave --batch-invariant out" : "go on with --device cuda, without --batch-invariant");
}

// Whether samples are independent of their batch belongs to the identity, too; stores from before it was recorded go on with either.
static enum status open_identified(struct gen *g, json_t *identity, struct err *err)
{
    const struct device *dev = &g->loaded.dev;
    const char *dir = opt_str(g->o, "out");
    json_t *stored;
    TRY(store_identity(&stored, dir, err));
    const json_t *then = json_object_get(stored, "batch_invariant");
    if (then || !stored) json_object_set_new(identity, "batch_invariant", json_boolean(dev->batch_invariant));
    enum status st = store_open_write(&g->store, dir, identity, &g->spec, err);
    if (st == ST_BAD_INPUT && then && json_is_true(then) != dev->batch_invariant) tell_kernels(dev, err);
    json_decref(stored);
    return st;
}

static enum status open_store(struct gen *g, struct err *err)
{
    json_t *identity = NULL;
    TRY(make_identity(&identity, g, err));
    enum status st = open_identified(g, identity, err);
    json_decref(identity);
    if (st) return st;
    store_set_info(g->store, "version", json_string(DISTILL_VERSION));
    store_set_info(g->store, "teacher_path", json_string(opt_str(g->o, "teacher")));
    json_t *licence = licence_of(opt_str(g->o, "teacher"));
    if (licence) store_set_info(g->store, "teacher_licence", licence);
    store_set_info(g->store, "run", options_effective_json(g->o));
    return ST_OK;
}

// The samples that the store lacks.
static enum status make_jobs(struct gen *g, struct err *err)
{
    const int n = (int)opt_int(g->o, "n");
    int *lacking = NEW_N(int, n);
    enum status st = ST_OK;
    for (size_t i = 0; !st && i < g->prompts.n; i++) {
        int n_lacking = 0;
        for (int s = 0; s < n; s++)
            if (!store_has(g->store, g->prompts.v[i].id, s)) lacking[n_lacking++] = s;
        g->n_before += (size_t)(n - n_lacking);
        if (!n_lacking) continue;
        st = jobs_add(&g->jobs, &g->loaded, &g->prompts.v[i], opt_str(g->o, "prompts"), lacking, n_lacking,
                      (int)opt_int(g->o, "max-tokens"), err);
        if (st == ST_BAD_INPUT && opt_bool(g->o, "skip-bad")) {
            g->n_long++;
            *err = (struct err){0};
            st = ST_OK;
        }
    }
    mem_free(lacking);
    return st;
}

static enum status save(struct gen *g, struct generation *made, struct err *err)
{
    const struct job *job = made->user;
    json_t *answer = NULL;
    TRY(generation_message(&answer, &g->loaded, made, job->opened, err));
    struct sample s = {.id = job->prompt->id,
                       .sample = made->sample,
                       .seed = made->seed,
                       .token_ids = made->token_ids,
                       .n_tok = made->n_tok,
                       .prompt_ids = job->ids.v,
                       .n_prompt = (int)job->ids.n,
                       .finish_reason = made->finish_reason,
                       .answer = job->prompt->answer};
    s.messages = json_copy(job->prompt->messages);
    json_array_append_new(s.messages, answer);
    s.cost = json_pack("{s:i, s:i}", "prompt_tokens", made->n_prompt, "completion_tokens", made->n_tok);
    enum status st = store_append(g->store, &s, g->spec.kind == TARGETS_NONE ? NULL : &made->targets, err);
    json_decref(s.messages);
    json_decref(s.cost);
    if (st) return st;
    g->n_sample++;
    g->n_tok += made->n_tok;
    return ST_OK;
}

static enum status save_ended(struct gen *g, struct err *err)
{
    struct generation made;
    enum status st = ST_OK;
    while (!st && engine_next(g->engine, &made)) {
        st = save(g, &made, err);
        generation_free(&made);
    }
    return st;
}

static enum status generate(struct gen *g, struct err *err)
{
    TRY(jobs_engine(&g->engine, &g->jobs, &g->loaded, &g->spec, g->o, err));
    struct progress p =
        progress_start("gen", "sample", (int64_t)(g->n_before + g->jobs.n_sample), (int64_t)g->n_before, "tok", opt_bool(g->o, "quiet"));
    p.plain_every_s = 1;
    struct watch watch = {.tok = g->loaded.tok};
    enum status st = jobs_feed(&g->jobs, g->engine, &g->sampling, g->o, err);
    while (!st && engine_busy(g->engine) && !stop_requested()) {
        st = engine_step(g->engine, err);
        struct err failed = {0};
        enum status saved = save_ended(g, st ? &failed : err); // also when the step failed: what had ended is whole
        if (!st) st = saved;
        if (!st) st = jobs_feed(&g->jobs, g->engine, &g->sampling, g->o, err);
        if (p.live) p.tail = watch_engine(&watch, g->engine);
        progress_step(&p, (int64_t)g->n_before + g->n_sample, engine_stats(g->engine).n_tok, NULL);
    }
    progress_end(&p);
    watch_free(&watch);
    return st;
}

static enum status prepare(struct gen *g, struct err *err)
{
    const char *teacher = opt_str(g->o, "teacher"), *prompts = opt_str(g->o, "prompts");
    if (!strncmp(teacher, "http://", 7) || !strncmp(teacher, "https://", 8))
        return err_set(err, ST_BAD_INPUT, "--teacher %s: API teachers come later; for now a directory with the model's files", teacher);
    TRY(sampling_options(&g->sampling, g->o, err));
    TRY(prompts_load(&g->prompts, prompts, (size_t)opt_int(g->o, "limit"), opt_bool(g->o, "skip-bad"), err));
    if (!g->prompts.n) return err_set(err, ST_BAD_INPUT, "%s: there is no prompt in it", prompts);
    TRY(loaded_text(&g->loaded, g->o, teacher, err));
    TRY(targets_spec_parse(&g->spec, opt_str(g->o, "targets"), opt_str(g->o, "target-temperatures"), g->loaded.n_vocab, err));
    TRY(open_store(g, err));
    return make_jobs(g, err);
}

static void report(const struct gen *g, double t_s)
{
    const double rate = t_s > 0 ? (double)g->n_tok / t_s : 0;
    const size_t n_skipped = g->prompts.n_skipped + g->n_long;
    if (n_skipped && !opt_bool(g->o, "quiet"))
        fprintf(stderr, "gen: passed over %zu malformed lines and %zu prompts longer than the context\n", g->prompts.n_skipped, g->n_long);
    if (!opt_bool(g->o, "quiet"))
        fprintf(stderr, "gen: %lld samples of %lld tokens in %.1f s (%.0f tok/s), %zu were there before: %s\n", (long long)g->n_sample,
                (long long)g->n_tok, t_s, rate, g->n_before, opt_str(g->o, "out"));
    if (!opt_bool(g->o, "json")) return;
    json_t *result =
        json_pack("{s:I, s:I, s:I, s:I, s:f, s:f}", "samples", (json_int_t)g->n_sample, "samples_before", (json_int_t)g->n_before, "tokens",
                  (json_int_t)g->n_tok, "skipped", (json_int_t)n_skipped, "t_s", t_s, "tok_per_s", rate);
    struct buf line = {0};
    json_append_line(&line, result);
    fwrite(line.data, 1, line.size, stdout);
    buf_free(&line);
    json_decref(result);
}

static enum status run(struct options *o, struct err *err)
{
    struct gen g = {.o = o};
    struct progress clock = progress_start("gen", "sample", 0, 0, NULL, true);
    enum status st = prepare(&g, err);
    if (!st) clock = progress_start("gen", "sample", 0, 0, NULL, true);
    if (!st && g.jobs.n) st = generate(&g, err);
    double t_s = progress_elapsed_s(&clock);
    bool stopped = !st && (g.jobs.next < g.jobs.n || (g.engine && engine_busy(g.engine)));
    struct err close_err = {0};
    enum status closed = store_close(g.store, st ? &close_err : err);
    if (!st) st = closed;
    if (!st) report(&g, t_s);
    if (!st && stopped)
        st = err_set(err, ST_INTERRUPTED, "stopped with %zu of %zu samples in %s; the same command goes on from there",
                     g.n_before + (size_t)g.n_sample, g.n_before + g.jobs.n_sample, opt_str(o, "out"));
    engine_close(g.engine);
    jobs_free(&g.jobs);
    prompts_free(&g.prompts);
    loaded_close(&g.loaded);
    return st;
}

const struct command command_gen = {
    .name = "gen",
    .summary = "a teacher writes traces, with its token distributions",
    .notes = "Run again with the same STORE, it goes on where it was stopped: a sample depends on its prompt, its\n"
             "number and --seed alone. With more prompts or a larger --n, only what is missing is generated.\n\n"
             "  distill gen --teacher teacher/tiny/moe --prompts teacher/tiny/prompts.jsonl --out traces",
    .options = options,
    .computes = true,
    .saves_on_stop = true,
    .run = run,
};
