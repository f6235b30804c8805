// What a model is writing at the moment, for the live line of gen and eval: the end of the text of the sequence that has run longest,
// whole characters only, and nothing that would move a terminal's cursor.
#pragma once
#include "datasets/tokenizer/tokenizer.h"
#include "teacher/engine.h"

struct watch { // zero-initialise but for tok; watch_free in any case
    const struct tokenizer *tok;
    struct decode_stream *stream;
    uint64_t seed; // of the sequence that is watched
    int n_tok;     // of it that were taken
    struct buf text;
};
// The sequence with that seed has written these ids by now. Returns the end of its text (one line), until the next call.
const char *watch_text(struct watch *w, uint64_t seed, const int32_t *ids, int n_tok);
// The same of what the engine runs; NULL when nothing is decoding.
const char *watch_engine(struct watch *w, const struct engine *e);
void watch_free(struct watch *w);
