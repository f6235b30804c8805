// The schedules by name and by step.
#include "student/schedule.h"

#include <math.h>
#include <string.h>

enum status schedule_parse(enum schedule *out, const char *name, struct err *err)
{
    static const char *const names[] = {"constant", "linear", "cosine"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i])) continue;
        *out = (enum schedule)i;
        return ST_OK;
    }
    return err_set(err, ST_BAD_INPUT, "schedule \"%s\" is not known. Known: constant, linear, cosine", name);
}

double schedule_lr(enum schedule kind, double lr, int64_t warmup, int64_t n_step, int64_t step)
{
    if (step <= warmup) return lr * (double)step / (double)warmup;
    double span = n_step > warmup ? (double)(n_step - warmup) : 1, done = (double)(step - 1 - warmup) / span;
    if (done > 1) done = 1;
    switch (kind) {
    case SCHEDULE_LINEAR:
        return lr * (1 - done);
    case SCHEDULE_COSINE:
        return lr * 0.5 * (1 + cos(M_PI * done));
    case SCHEDULE_CONSTANT:
        break;
    }
    return lr;
}
