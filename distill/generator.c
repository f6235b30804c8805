// What gen and eval share. See generator.h.
#include "distill/generator.h"

#include "datasets/tokenizer/compare.h"
#include "distill/chat_options.h"
#include "distill/compute.h"
#include "distill/registry.h"

#include <string.h>

// ---- the model -----------------------------------------------------------------------------------------------------------------------

enum status loaded_model(struct loaded *l, const struct options *o, const char *dir, struct err *err)
{
    TRY(open_device(&l->dev, o, err));
    l->dev_open = true;
    struct model_options mo = {
        .archs = all_archs, .use = MODEL_GENERATE, .dtype = run_dtype(o), .fp8_activations = opt_bool(o, "fp8-activations")};
    TRY(model_load(&l->model, &l->dev, dir, &mo, err));
    l->n_vocab = (int)l->model->config.n_vocab;
    return ST_OK;
}

static void add_eos(struct loaded *l, int32_t id)
{
    if (id >= 0) ids_add(&l->eos, id);
}

enum status loaded_text(struct loaded *l, const struct options *o, const char *dir, struct err *err)
{
    TRY(tokenizer_load(&l->tok, dir, err));
    enum status st = chat_open(&l->chat, l->tok, err);
    if (st) return err_prefix(err, "%s", dir), st;
    TRY(chat_options(l->chat, o, err));
    TRY(loaded_model(l, o, dir, err));
    TRY(tokenizer_fits(l->tok, l->n_vocab, dir, err));
    l->n_vocab = tokenizer_n_vocab(l->tok);
    for (int i = 0; i < l->model->config.n_eos; i++) add_eos(l, l->model->config.eos[i]);
    add_eos(l, tokenizer_eos(l->tok));
    add_eos(l, chat_end_token(l->chat)); // a base model's files may name another than its template uses: <|end_of_text|>, <|eot_id|>
    return ST_OK;
}

void loaded_close(struct loaded *l)
{
    model_free(l->model);
    if (l->dev_open) dev_close(&l->dev);
    chat_free(l->chat);
    tokenizer_free(l->tok);
    ids_free(&l->eos);
    *l = (struct loaded){0};
}

enum status sampling_options(struct sampling *s, const struct options *o, struct err *err)
{
    int64_t top_k = opt_int(o, "top-k");
    *s = (struct sampling){.temperature = (float)opt_real(o, "temperature"),
                           .top_p = (float)opt_real(o, "top-p"),
                           .min_p = (float)opt_real(o, "min-p"),
                           .top_k = top_k > INT32_MAX ? INT32_MAX : (int)top_k};
    return sampling_check(s, err);
}

// ---- prompts -------------------------------------------------------------------------------------------------------------------------

static enum status render(struct job *job, const struct loaded *l, const struct prompt *p, struct err *err)
{
    json_t *request = chat_row_vars(p->row);
    json_object_set(request, "messages", p->messages);
    json_object_set_new(request, "add_generation_prompt", json_true());
    struct buf text = {0};
    enum status st = chat_render(l->chat, request, &text, &job->ids, err);
    if (!st) job->opened = chat_ends_in_think(text.data ? text.data : "", text.size);
    buf_free(&text);
    json_decref(request);
    return st;
}

enum status jobs_add(struct jobs *j, const struct loaded *l, const struct prompt *p, const char *path, const int *samples, int n_sample,
                     int max_tokens, struct err *err)
{
    struct job job = {.prompt = p, .n_sample = n_sample};
    int max_new = 0;
    enum status st = render(&job, l, p, err);
    if (!st) st = engine_room(l->model, p->id, (int)job.ids.n, max_tokens, &max_new, err);
    if (st) {
        ids_free(&job.ids);
        return err_prefix(err, "%s:%ld", path, p->line), st;
    }
    job.samples = NEW_N(int, n_sample);
    memcpy(job.samples, samples, sizeof *samples * (size_t)n_sample);
    if ((j->n & (j->n - 1)) == 0) j->v = mem_realloc(j->v, sizeof *j->v * (j->n ? 2 * j->n : 1));
    j->v[j->n++] = job;
    j->n_sample += (size_t)n_sample;
    if ((int)job.ids.n > j->max_prompt) j->max_prompt = (int)job.ids.n;
    if ((int)job.ids.n + max_new > j->max_len) j->max_len = (int)job.ids.n + max_new;
    return ST_OK;
}

void jobs_free(struct jobs *j)
{
    for (size_t i = 0; i < j->n; i++) {
        ids_free(&j->v[i].ids);
        mem_free(j->v[i].samples);
    }
    mem_free(j->v);
    *j = (struct jobs){0};
}

enum status jobs_engine(struct engine **out, const struct jobs *j, const struct loaded *l, const struct targets_spec *targets,
                        const struct options *o, struct err *err)
{
    struct engine_options eo = {.targets = *targets,
                                .n_vocab = l->n_vocab,
                                .eos = l->eos.v,
                                .n_eos = (int)l->eos.n,
                                .batch_tokens = (int)opt_int(o, "batch-tokens"),
                                .max_prompt = j->max_prompt,
                                .max_len = j->max_len};
    return engine_open(out, l->model, &eo, err);
}

enum status jobs_feed(struct jobs *j, struct engine *e, const struct sampling *s, const struct options *o, struct err *err)
{
    const int enough = 2 * engine_stats(e).n_slot;
    while (j->next < j->n && engine_n_queued(e) < enough) {
        struct job *job = &j->v[j->next++];
        struct engine_request r = {.id = job->prompt->id,
                                   .ids = job->ids.v,
                                   .n_ids = (int)job->ids.n,
                                   .samples = job->samples,
                                   .n_sample = job->n_sample,
                                   .max_tokens = (int)opt_int(o, "max-tokens"),
                                   .sampling = *s,
                                   .seed = (uint64_t)opt_int(o, "seed"),
                                   .user = job};
        TRY(engine_add(e, &r, err));
    }
    return ST_OK;
}

// ---- answers -------------------------------------------------------------------------------------------------------------------------

enum status generation_message(json_t **out, const struct loaded *l, const struct generation *g, bool opened, struct err *err)
{
    struct buf text = {0};
    int n = g->n_tok - !strcmp(g->finish_reason, "stop");
    enum status st = tokenizer_decode(l->tok, g->token_ids, (size_t)n, false, &text, err);
    if (!st) *out = chat_split_reasoning(text.size ? text.data : "", text.size, opened);
    buf_free(&text);
    return st;
}
