// How far a job is, on stderr: one live line on a terminal, a plain line a step when piped, nothing with --quiet.
//
//     struct progress p = progress_start("train", "step", n_step, n_step_resumed, "tok", opt_bool(o, "quiet"));
//     progress_step(&p, step, n_tok_so_far, "loss %.4f", loss);      train  120/200 steps  9.8k tok/s  loss 1.2345  ETA 1m20s
//     progress_note(&p, "step 120: saved");                          a line of its own, above the live one
//     progress_end(&p);
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    const char *job, *item, *unit; // "gen", "sample", "tok"; unit NULL: the rate is items per second
    int64_t total, first, done;    // items; first: done before this run began (resumed), which the rate does not count; total 0: unknown
    double plain_every_s;          // piped: at most a line in so many seconds (0: every step); settable after the start
    bool quiet, live, shown;
    const char *tail; // its end is shown in what the live line leaves of the terminal; settable before each step, NULL: none
    double start_s, last_s;
};

struct progress progress_start(const char *job, const char *item, int64_t total, int64_t first, const char *unit, bool quiet);
// done: items done in all. work: units done in this run. The text is optional (NULL).
void progress_step(struct progress *p, int64_t done, int64_t work, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void progress_note(struct progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// The last part of a text, of whole characters, that is at most so many columns wide.
const char *text_end(const char *text, size_t columns);
void progress_end(struct progress *p); // leaves the last line standing
double progress_elapsed_s(const struct progress *p);
