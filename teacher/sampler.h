// What is drawn: the settings of sampling, and the random numbers a sample owns.
//
// A sample's draws are a function of (--seed, prompt id, sample number, position) alone, so they are the same whatever shares its batch,
// and the same again after a resume.
#pragma once
#include "kernels/base/status.h"
#include "kernels/ops.h"

struct sampling {
    float temperature; // 0: greedy
    float top_p;       // 1: off
    float min_p;       // 0: off
    int top_k;         // 0: off
};
// ST_BAD_INPUT names each setting out of its range.
enum status sampling_check(const struct sampling *s, struct err *err);

// The seed of sample number `sample` of prompt `id`: below 2^53, so that any reader of JSON keeps it exact.
uint64_t sample_seed(uint64_t seed, const char *id, int sample);

// A sample's streams: one for the token that is taken, one for the draws that are only recorded.
enum { STREAM_TOKEN, STREAM_CAPTURE };
// The row of op_sample and op_capture_sampled for generated token `index` (0-based).
struct sample_row sampling_row(const struct sampling *s, uint64_t seed, uint64_t stream, int index);
