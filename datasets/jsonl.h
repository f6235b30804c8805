// JSONL files of prompts, tasks and training rows, read line by line with errors that name file and line.
#pragma once
#include "kernels/base/json.h"

struct prompt {
    char *id;           // "id" as text, or the 0-based line number when absent
    json_t *messages;   // array of {role, content, …}; {"prompt":"…"} becomes one user message
    json_t *row;        // the whole object (holds "answer", "tools" and what else the line had)
    const char *answer; // borrowed from row: "answer" as text (numbers are converted), NULL if none
    long line;          // 1-based
};
struct prompts {
    struct prompt *v;
    size_t n;
    size_t n_skipped; // bad lines passed over (skip_bad)
};
// limit 0: all. With skip_bad a bad line is counted and passed over; else the first bad line is ST_BAD_INPUT with "FILE:LINE: …".
// Duplicate ids are refused (both lines named). Blank lines are ignored (but counted as lines).
enum status prompts_load(struct prompts *out, const char *path, size_t limit, bool skip_bad, struct err *err);
void prompts_free(struct prompts *p);

// For any JSONL: calls fn for each parsed line in order (row is borrowed); stops at its first non-OK status. With skip_bad a line that does
// not parse, or for which fn says ST_BAD_INPUT, is counted in *n_skipped (may be NULL) and passed over.
enum status jsonl_each(const char *path, bool skip_bad, size_t *n_skipped,
                       enum status (*fn)(void *arg, json_t *row, long line, struct err *err), void *arg, struct err *err);
