// What engine.c (who runs) and step.c (how a step runs) share.
#pragma once
#include "teacher/capture.h"
#include "teacher/engine.h"
#include "teacher/pages.h"

// One sample of a prompt.
struct sequence {
    struct group *group;
    struct sequence *next; // in the list of those that ended
    int sample;
    uint64_t seed;
    int32_t *page; // (n_page) in order of position; n_page 0: holds no slot
    int n_page;
    int32_t *token; // (cap) what was generated: n_tok
    int n_tok, cap;
    const char *finish_reason; // NULL: not ended
    struct targets targets;    // n_tok rows, room for cap
};

// A prompt and the samples wanted of it.
struct group {
    struct group *before, *after; // in the list of all
    char *id;
    void *user;
    struct sampling sampling;
    int32_t *ids; // (n_prompt)
    int n_prompt, max_new;
    int32_t *page;      // (n_page) where the prompt lies; the group holds them until its prompt has run and all its samples have slots
    int n_page, n_full; // pages the prompt touches; those it fills
    int n_cached;       // prompt rows in the cache
    int n_sample, n_admitted, n_left; // n_left: not handed out yet
    struct sequence **seq;            // (n_sample) NULL: handed out
};

struct step { // host side of one step
    enum run_mode mode;
    int n_seg, n_tok, n_key, max_len, max_pos;
    int n_draw; // rows from which tokens are drawn
};

struct engine {
    struct model *m; // borrowed
    struct kv_cache kv;
    struct pages pages;
    struct capture capture;
    int n_vocab, n_eos, max_slot, max_row, max_key, max_page, max_prompt, max_len, head_rows;
    int32_t *eos;

    // queue: FIFO of groups of which not all samples have slots: queue[queue_first .. queue_first + queue_n)
    struct group *all; // every group, whatever its state
    struct group **queue;
    int queue_first, queue_n, queue_cap;
    struct group **prefill; // (max_slot) groups whose prompts run
    int n_prefill;
    struct sequence **run; // (max_slot) sequences that decode
    int n_run;
    int n_slot; // slots held: decoding, or waiting for their prompt
    struct sequence *ended_first, *ended_last;

    // The step in hand. `ints` is one buffer for all integers of a step, so that they take one upload.
    struct step step;
    int32_t *ints;
    int32_t *ids, *pos, *start, *k_start, *page; // in ints: (n_tok) (n_tok) (n_seg + 1) (n_seg + 1) (n_seg, max_page)
    int32_t *draw_row;                           // (head_rows) row of hidden
    struct sequence **draw_seq;                  // (head_rows)
    struct sample_row *draw;                     // (2 * head_rows) streams of tokens, then of captures
    void *back;                                  // what comes back of draw_back(head_rows) bytes: see there
    struct sequence *bad;                        // whose logits were not finite
    int bad_row;
    struct engine_stats stats;
};

// step.c
size_t draw_back(const struct engine *e, int n);             // bytes that come to the host for n draws, in one download
size_t step_measure(struct engine *e);                       // bytes of the largest step; the KV cache must be open (any size)
enum status step_prefill(struct engine *e, struct err *err); // one chunk of each prompt that runs, as many as fit
enum status step_decode(struct engine *e, struct err *err);  // one token for each sequence that decodes
// engine.c
void sequence_take(struct engine *e, struct sequence *s, int32_t token); // its next token
