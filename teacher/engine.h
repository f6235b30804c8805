// The generation engine: the only place where tokens are made. One model, one KV cache, many sequences.
//
//   engine_open                  plans the memory of the largest step and of the cache, and takes it
//   engine_add (prompt, samples) queues a prompt; nothing is computed yet
//   engine_step                  admits while there is room, runs one step of prompt chunks and one of decoding, retires what ended
//   engine_next                  hands out what ended, in the order it ended
//
// Continuous batching: a slot freed by one sequence is taken by the next. Admission reserves the pages of everything that a sequence can
// need (prompt and max_tokens), so no sequence is ever thrown out and there is no deadlock. The samples of a prompt share its full pages;
// the page in which the prompt ends is copied for each; the prompt runs once, and the first token of all samples is drawn from its last
// row.
//
// A sample depends on its prompt, its settings and its seed alone, never on what shares its steps: prompts are cut at multiples of
// ENGINE_CHUNK positions, prompt rows and decode rows never share a forward, and the kernels of a model for generation treat every row
// alike.
#pragma once
#include "datasets/store/store.h"
#include "kernels/model/model.h"
#include "teacher/sampler.h"

enum {
    ENGINE_CHUNK = 256, // a prompt is run in pieces that end at multiples of this position
    ENGINE_PAGE = 32,   // positions in a KV page
    ENGINE_BATCH = 128, // batch_tokens when not given
};

struct engine; // opaque

struct engine_options {
    struct targets_spec targets; // what is kept of each distribution
    int n_vocab;                 // tokens that exist: columns of the head beyond are padding. 0: all of the head's
    const int32_t *eos;          // (n_eos) tokens that end a sequence; copied
    int n_eos;
    int batch_tokens; // rows of a step at most: sequences that decode together, prompt rows together (one chunk always fits). 0:
                      // ENGINE_BATCH
    int max_prompt;   // the longest prompt to come (tokens)
    int max_len;      // the longest prompt + max_tokens to come
};
// The model is borrowed, its device's arena is taken over. ST_FAIL when memory does not suffice: needed against free.
enum status engine_open(struct engine **out, struct model *m, const struct engine_options *opt, struct err *err);
// What engine_open would take, without taking it; the model may itself be a plan (model_options.plan). The device is left measuring.
struct engine_plan {
    size_t step_bytes, page_bytes;
    int n_row;                // of the largest step
    int n_page_least, n_page; // pages for one sequence at its longest; for all that may run together
};
enum status engine_plan(struct engine_plan *out, struct model *m, const struct engine_options *opt, struct err *err);
void engine_close(struct engine *e); // NULL is fine; what is in flight is dropped

// How many tokens may follow a prompt of n_prompt tokens, when max_tokens are wanted: less where the model's context ends. ST_BAD_INPUT,
// naming the prompt, when it leaves no room for one.
enum status engine_room(const struct model *m, const char *id, int n_prompt, int max_tokens, int *max_new, struct err *err);

struct engine_request {
    const char *id;     // the prompt's: in messages, and part of its samples' seeds
    const int32_t *ids; // (n_ids)
    int n_ids;
    const int *samples; // (n_sample) the numbers of the samples wanted, as 0, 1, 2 … or what a resume still lacks
    int n_sample;
    int max_tokens;
    struct sampling sampling;
    uint64_t seed;
    void *user; // handed back with each sample
};
// Everything is copied. ST_BAD_INPUT: an id outside the vocabulary, no room for one token, longer than the options said.
enum status engine_add(struct engine *e, const struct engine_request *r, struct err *err);
bool engine_busy(const struct engine *e);     // something is queued or running
int engine_n_queued(const struct engine *e);  // prompts of which not all samples run yet
int engine_n_running(const struct engine *e); // sequences that hold a slot
// ST_FAIL: an op failed, or logits were not finite (the message names prompt, sample, token and layer). What ended before can still be
// fetched.
enum status engine_step(struct engine *e, struct err *err);

struct generation {
    void *user;
    int sample;
    uint64_t seed;      // sample_seed's
    int32_t *token_ids; // (n_tok) the end token included
    int n_tok, n_prompt;
    const char *finish_reason; // static: stop | length
    struct targets targets;    // of n_tok rows; empty for kind none
};
// False: nothing has ended since. The caller frees.
bool engine_next(struct engine *e, struct generation *out);
// What the sequence that has run longest has written so far; its ids are borrowed until the next step, and there is no more of it (targets,
// finish_reason). False: none is decoding.
bool engine_peek(const struct engine *e, struct generation *out);
void generation_free(struct generation *g);

struct engine_stats {
    size_t step_bytes, kv_bytes; // planned and taken
    int n_page, n_page_free, n_slot;
    int64_t n_prefill_step, n_decode_step, n_prompt_tok, n_tok; // n_tok: generated, those in flight included
    int64_t n_page_copied;
    double prefill_s, decode_s; // decode_s: everything of decode steps, capture and sampling included
};
struct engine_stats engine_stats(const struct engine *e);
