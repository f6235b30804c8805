// Who runs: opening and planning, the queue, admission, retirement. How a step runs is step.c. See engine.h.
#include "teacher/engine.h"

#include "kernels/base/mem.h"
#include "teacher/engine_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int pages_for(const struct engine *e, int n_pos)
{
    return (n_pos + e->kv.page_len - 1) / e->kv.page_len;
}

static double mib(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

// ---- opening ----------------------------------------------------------------------------------------------------------------------------

enum { LOGITS_BYTES = 32 << 20 }; // of the logits held at once

static void take_options(struct engine *e, const struct engine_options *opt)
{
    e->n_vocab = opt->n_vocab > 0 && opt->n_vocab < e->m->config.n_vocab ? opt->n_vocab : (int)e->m->config.n_vocab;
    e->n_eos = opt->n_eos;
    e->eos = NEW_N(int32_t, opt->n_eos + 1);
    memcpy(e->eos, opt->eos, sizeof *e->eos * (size_t)opt->n_eos);
    e->max_prompt = opt->max_prompt;
    e->max_len = opt->max_len;
    e->max_slot = opt->batch_tokens > 0 ? opt->batch_tokens : ENGINE_BATCH;
    e->max_row = e->max_slot > ENGINE_CHUNK ? e->max_slot : ENGINE_CHUNK;
    e->max_key = e->max_row > e->max_prompt ? e->max_row : e->max_prompt;
    e->kv.page_len = ENGINE_PAGE;
    e->max_page = pages_for(e, e->max_len);
    int64_t fit = LOGITS_BYTES / (e->m->config.n_vocab * (int64_t)sizeof(float));
    e->head_rows = fit > e->max_slot ? e->max_slot : fit < 1 ? 1 : (int)fit;

    e->prefill = NEW_N(struct group *, e->max_slot);
    e->run = NEW_N(struct sequence *, e->max_slot);
    e->ints = NEW_N(int32_t, 2 * (size_t)e->max_row + 2 * (size_t)(e->max_slot + 1) + (size_t)e->max_slot * (size_t)e->max_page);
    e->draw_row = NEW_N(int32_t, e->head_rows);
    e->draw_seq = NEW_N(struct sequence *, e->head_rows);
    e->draw = NEW_N(struct sample_row, 2 * e->head_rows);
    e->capture = (struct capture){.spec = opt->targets};
    e->back = mem_alloc(draw_back(e, e->head_rows));
}

// Pages for one sequence at its longest and for all slots, and the largest step.
static enum status plan_memory(struct engine *e, struct engine_plan *p, struct err *err)
{
    // A cache of one page stands in while the step is measured: shapes are checked, but nothing is read.
    TRY(kv_open(&e->kv, e->m, 1, ENGINE_PAGE, err));
    p->step_bytes = step_measure(e);
    kv_close(&e->kv);
    e->kv.page_len = ENGINE_PAGE;
    TRY(dev_check(e->m->dev, err));
    p->page_bytes = kv_bytes_per_page(e->m, ENGINE_PAGE);
    p->n_row = e->max_row;
    // TRAP: one more, for the page in which a prompt ends is held once by the prompt and copied for each sample
    p->n_page_least = e->max_page + 1;
    size_t all = (size_t)e->max_slot * (size_t)p->n_page_least;
    p->n_page = all < 1 << 30 ? (int)all : 1 << 30;
    return ST_OK;
}

// Sizes the cache: pages for all slots at their longest, or what memory allows; at least one sequence's.
static enum status take_memory(struct engine *e, struct err *err)
{
    struct engine_plan p;
    TRY(plan_memory(e, &p, err));
    const size_t free_bytes = dev_available_bytes(e->m->dev), least = (size_t)p.n_page_least, need = p.step_bytes + least * p.page_bytes;
    if (need > free_bytes)
        return err_set(
            err, ST_FAIL,
            "out of memory: generation needs %.1f MiB (%.1f for a step of %d rows, %.0f for the keys and values of one sequence of %d "
            "tokens), %.0f MiB are free. Lower --max-tokens or --batch-tokens",
            mib(need), mib(p.step_bytes), p.n_row, mib(least * p.page_bytes), e->max_len, mib(free_bytes));
    size_t room = (free_bytes - p.step_bytes) / 4 * 3 / p.page_bytes, n_page = (size_t)p.n_page < room ? (size_t)p.n_page : room;
    if (n_page < least) n_page = least;
    TRY(kv_open(&e->kv, e->m, (int)n_page, ENGINE_PAGE, err));
    TRY(dev_reserve(e->m->dev, p.step_bytes, err));
    pages_open(&e->pages, (int)n_page);
    e->stats.step_bytes = p.step_bytes;
    e->stats.kv_bytes = n_page * p.page_bytes;
    return ST_OK;
}

enum status engine_plan(struct engine_plan *out, struct model *m, const struct engine_options *opt, struct err *err)
{
    struct engine *e = NEW(struct engine);
    e->m = m;
    take_options(e, opt);
    *out = (struct engine_plan){0};
    enum status st = plan_memory(e, out, err);
    engine_close(e);
    return st;
}

enum status engine_open(struct engine **out, struct model *m, const struct engine_options *opt, struct err *err)
{
    if (m->use != MODEL_GENERATE) BUG("the engine wants a model loaded for generation");
    struct engine *e = NEW(struct engine);
    e->m = m;
    take_options(e, opt);
    enum status st = take_memory(e, err);
    if (st) {
        engine_close(e);
        return st;
    }
    *out = e;
    return ST_OK;
}

static void sequence_free(struct sequence *s)
{
    targets_free(&s->targets);
    mem_free(s->token);
    mem_free(s->page);
    mem_free(s);
}

static void group_free(struct engine *e, struct group *g)
{
    if (g->before) g->before->after = g->after;
    if (g->after) g->after->before = g->before;
    if (e->all == g) e->all = g->after;
    for (int i = 0; i < g->n_sample; i++)
        if (g->seq[i]) sequence_free(g->seq[i]);
    mem_free(g->id);
    mem_free(g->ids);
    mem_free(g->page);
    mem_free(g->seq);
    mem_free(g);
}

void engine_close(struct engine *e)
{
    if (!e) return;
    while (e->all) group_free(e, e->all);
    kv_close(&e->kv);
    pages_close(&e->pages);
    mem_free(e->eos);
    mem_free(e->queue);
    mem_free(e->prefill);
    mem_free(e->run);
    mem_free(e->ints);
    mem_free(e->draw_row);
    mem_free(e->draw_seq);
    mem_free(e->draw);
    mem_free(e->back);
    mem_free(e);
}

// ---- the queue -----------------------------------------------------------------------------------------------------------------------

enum status engine_room(const struct model *m, const char *id, int n_prompt, int max_tokens, int *max_new, struct err *err)
{
    const int64_t context = m->config.max_position;
    if (n_prompt < 1) return err_set(err, ST_BAD_INPUT, "prompt \"%s\" has no tokens", id);
    if (context > 0 && n_prompt >= context)
        return err_set(err, ST_BAD_INPUT,
                       "prompt \"%s\" has %d tokens; the model's context is %lld (max_position_embeddings), so no room is left for an "
                       "answer. Shorten or drop it",
                       id, n_prompt, (long long)context);
    *max_new = context > 0 && max_tokens > context - n_prompt ? (int)(context - n_prompt) : max_tokens;
    return ST_OK;
}

static void enqueue(struct engine *e, struct group *g)
{
    if (e->queue_first + e->queue_n == e->queue_cap) {
        if (e->queue_first > e->queue_n) {
            memmove(e->queue, e->queue + e->queue_first, sizeof *e->queue * (size_t)e->queue_n);
            e->queue_first = 0;
        } else {
            e->queue_cap = e->queue_cap ? 2 * e->queue_cap : 64;
            e->queue = mem_realloc(e->queue, sizeof *e->queue * (size_t)e->queue_cap);
        }
    }
    e->queue[e->queue_first + e->queue_n++] = g;
    g->after = e->all;
    if (e->all) e->all->before = g;
    e->all = g;
}

enum status engine_add(struct engine *e, const struct engine_request *r, struct err *err)
{
    int max_new;
    TRY(engine_room(e->m, r->id, r->n_ids, r->max_tokens, &max_new, err));
    TRY(sampling_check(&r->sampling, err));
    if (r->max_tokens < 1) return err_set(err, ST_BAD_INPUT, "--max-tokens %d: wanted 1 or more", r->max_tokens);
    if (r->n_ids > e->max_prompt || r->n_ids + max_new > e->max_len)
        BUG("prompt \"%s\" with %d + %d tokens; the engine was opened for %d and %d in all", r->id, r->n_ids, max_new, e->max_prompt,
            e->max_len);
    for (int i = 0; i < r->n_ids; i++)
        if (r->ids[i] < 0 || r->ids[i] >= e->m->config.n_vocab)
            return err_set(err, ST_BAD_INPUT, "prompt \"%s\" has token id %d; the model knows 0 to %lld. Is the tokenizer the model's own?",
                           r->id, (int)r->ids[i], (long long)e->m->config.n_vocab - 1);
    if (r->n_sample < 1) return ST_OK;
    struct group *g = NEW(struct group);
    *g = (struct group){.id = mem_strdup(r->id),
                        .user = r->user,
                        .sampling = r->sampling,
                        .n_prompt = r->n_ids,
                        .max_new = max_new,
                        .n_page = pages_for(e, r->n_ids),
                        .n_full = r->n_ids / e->kv.page_len,
                        .n_sample = r->n_sample,
                        .n_left = r->n_sample};
    g->ids = NEW_N(int32_t, r->n_ids);
    memcpy(g->ids, r->ids, sizeof *g->ids * (size_t)r->n_ids);
    g->seq = NEW_N(struct sequence *, r->n_sample);
    for (int i = 0; i < r->n_sample; i++) {
        g->seq[i] = NEW(struct sequence);
        g->seq[i]->group = g;
        g->seq[i]->sample = r->samples[i];
        g->seq[i]->seed = sample_seed(r->seed, r->id, r->samples[i]);
    }
    enqueue(e, g);
    return ST_OK;
}

// ---- admission -----------------------------------------------------------------------------------------------------------------------

// Gives up the group's own hold on its prompt's pages once they are needed by nobody who is still to come.
static void release_prompt(struct engine *e, struct group *g)
{
    if (!g->page || g->n_cached < g->n_prompt || g->n_admitted < g->n_sample) return;
    for (int i = 0; i < g->n_page; i++) page_drop(&e->pages, g->page[i]);
    mem_free(g->page);
    g->page = NULL;
}

// The sample starts to decode: its prompt has run, its first token is drawn.
static void activate(struct engine *e, struct sequence *s)
{
    const struct group *g = s->group;
    if (g->n_full < g->n_page && s->page[g->n_full] != g->page[g->n_full]) {
        for (int l = 0; l < e->m->config.n_layer; l++) {
            struct tensor *cache[2] = {&e->kv.keys[l], e->kv.values ? &e->kv.values[l] : NULL};
            for (int i = 0; i < 2; i++) {
                if (!cache[i] || tensor_none(*cache[i])) continue;
                struct tensor to = tensor_rows(*cache[i], s->page[g->n_full], 1), from = tensor_rows(*cache[i], g->page[g->n_full], 1);
                op_copy(e->m->dev, tensor_1d(to.data, to.dtype, tensor_numel(to)), tensor_1d(from.data, from.dtype, tensor_numel(from)));
            }
        }
        e->stats.n_page_copied++;
    }
    e->run[e->n_run++] = s;
}

// Pages are there for all that the sample can need: false when they are not.
static bool admit_sample(struct engine *e, struct group *g, struct sequence *s)
{
    // The last token is never fed back, so it needs no place. An only sample goes on in the page in which its prompt ends.
    const int n_shared = g->n_sample == 1 ? g->n_page : g->n_full, n_page = pages_for(e, g->n_prompt + g->max_new - 1);
    const int need = n_page - n_shared + (g->page ? 0 : g->n_page);
    if (need > e->pages.n_free) return false;
    if (!g->page) {
        g->page = NEW_N(int32_t, g->n_page);
        for (int i = 0; i < g->n_page; i++) g->page[i] = page_take(&e->pages);
        e->prefill[e->n_prefill++] = g;
    }
    s->n_page = n_page;
    s->page = NEW_N(int32_t, n_page);
    for (int i = 0; i < n_page; i++) s->page[i] = i < n_shared ? page_share(&e->pages, g->page[i]) : page_take(&e->pages);
    e->n_slot++;
    if (g->n_cached == g->n_prompt) activate(e, s);
    return true;
}

static void admit(struct engine *e)
{
    // A prompt alone in a step costs nearly as much as several together, so slots are refilled by the handful.
    if (e->n_slot && e->max_slot - e->n_slot < (e->max_slot + 15) / 16) return;
    while (e->queue_n && e->n_slot < e->max_slot) {
        struct group *g = e->queue[e->queue_first];
        struct sequence *s = g->seq[g->n_admitted];
        bool ended = !s || s->finish_reason; // by its first token, drawn with its siblings'
        if (!ended && !admit_sample(e, g, s)) return;
        if (++g->n_admitted < g->n_sample) continue;
        e->queue_first++;
        e->queue_n--;
        release_prompt(e, g);
        if (!g->n_left) group_free(e, g);
    }
}

// ---- steps ---------------------------------------------------------------------------------------------------------------------------

void sequence_take(struct engine *e, struct sequence *s, int32_t token)
{
    s->token[s->n_tok++] = token;
    e->stats.n_tok++;
    for (int i = 0; i < e->n_eos; i++)
        if (token == e->eos[i]) s->finish_reason = "stop";
    if (!s->finish_reason && s->n_tok == s->group->max_new) s->finish_reason = "length";
    if (!s->finish_reason) return;
    *(e->ended_last ? &e->ended_last->next : &e->ended_first) = s;
    e->ended_last = s;
}

// Room for one more token: nothing may allocate inside the step.
static void reserve(struct engine *e, struct sequence *s)
{
    if (s->n_tok < s->cap) return;
    s->cap = s->cap ? 2 * s->cap : 32;
    if (s->cap > s->group->max_new) s->cap = s->group->max_new;
    s->token = mem_realloc(s->token, sizeof *s->token * (size_t)s->cap);
    capture_reserve(&s->targets, &e->capture.spec, s->cap);
}

static void leave_slot(struct engine *e, struct sequence *s)
{
    if (!s->n_page) return;                                                    // ended by its first token before it had one
    for (int i = s->n_page - 1; i >= 0; i--) page_drop(&e->pages, s->page[i]); // the first, which were written to, are taken again first
    s->n_page = 0;
    e->n_slot--;
}

// Prompts that have run leave the prefill list; their samples that hold slots decode, unless the first token was the end.
static void finish_prompts(struct engine *e)
{
    int kept = 0;
    for (int i = 0; i < e->n_prefill; i++) {
        struct group *g = e->prefill[i];
        if (g->n_cached < g->n_prompt) {
            e->prefill[kept++] = g;
            continue;
        }
        for (int j = 0; j < g->n_admitted; j++) {
            if (g->seq[j]->finish_reason)
                leave_slot(e, g->seq[j]);
            else
                activate(e, g->seq[j]);
        }
        release_prompt(e, g);
    }
    e->n_prefill = kept;
}

static void retire(struct engine *e)
{
    int kept = 0;
    for (int i = 0; i < e->n_run; i++) {
        if (e->run[i]->finish_reason)
            leave_slot(e, e->run[i]);
        else
            e->run[kept++] = e->run[i];
    }
    e->n_run = kept;
}

enum status engine_step(struct engine *e, struct err *err)
{
    admit(e);
    double start = now_s();
    if (e->n_prefill) {
        for (int i = 0; i < e->n_prefill; i++)
            for (int j = 0; j < e->prefill[i]->n_sample; j++) reserve(e, e->prefill[i]->seq[j]);
        TRY(step_prefill(e, err));
        finish_prompts(e);
    }
    double middle = now_s();
    e->stats.prefill_s += middle - start;
    if (e->n_run) {
        for (int i = 0; i < e->n_run; i++) reserve(e, e->run[i]);
        TRY(step_decode(e, err));
        retire(e);
    }
    e->stats.decode_s += now_s() - middle;
    return dev_check(e->m->dev, err);
}

bool engine_busy(const struct engine *e)
{
    return e->queue_n || e->n_slot;
}
int engine_n_queued(const struct engine *e)
{
    return e->queue_n;
}
int engine_n_running(const struct engine *e)
{
    return e->n_slot;
}

// ---- what ended ----------------------------------------------------------------------------------------------------------------------

bool engine_next(struct engine *e, struct generation *out)
{
    struct sequence *s = e->ended_first;
    if (!s) return false;
    e->ended_first = s->next;
    if (!s->next) e->ended_last = NULL;
    struct group *g = s->group;
    *out = (struct generation){.user = g->user,
                               .sample = s->sample,
                               .seed = s->seed,
                               .token_ids = s->token,
                               .n_tok = s->n_tok,
                               .n_prompt = g->n_prompt,
                               .finish_reason = s->finish_reason,
                               .targets = s->targets};
    s->token = NULL;
    s->targets = (struct targets){0};
    for (int i = 0; i < g->n_sample; i++)
        if (g->seq[i] == s) g->seq[i] = NULL;
    sequence_free(s);
    if (!--g->n_left && g->n_admitted == g->n_sample) group_free(e, g); // else the queue still names it
    return true;
}

bool engine_peek(const struct engine *e, struct generation *out)
{
    *out = (struct generation){0};
    if (!e->n_run) return false;
    const struct sequence *s = e->run[0]; // retire keeps their order
    *out = (struct generation){.user = s->group->user,
                               .sample = s->sample,
                               .seed = s->seed,
                               .token_ids = s->token,
                               .n_tok = s->n_tok,
                               .n_prompt = s->group->n_prompt};
    return true;
}

void generation_free(struct generation *g)
{
    mem_free(g->token_ids);
    targets_free(&g->targets);
    *g = (struct generation){0};
}

struct engine_stats engine_stats(const struct engine *e)
{
    struct engine_stats s = e->stats;
    s.n_page = e->pages.n;
    s.n_page_free = e->pages.n_free;
    s.n_slot = e->max_slot;
    return s;
}
