// metrics.jsonl: a line an optimizer step, handed to the system at once, so that a kill loses none but the one being written.
#pragma once
#include "student/trainer.h"

struct metrics {
    int fd;
    char *path;
};
// Opens DIR/metrics.jsonl and cuts it behind the line of step `step` (0: empties it): what a resumed run writes again is not there twice.
enum status metrics_open(struct metrics *m, const char *dir, int64_t step, struct err *err);
// eval: the held-out means after this step, NULL if there was no evaluation.
enum status metrics_write(struct metrics *m, const struct step_result *r, const struct step_result *eval, size_t mem_bytes, double t_s,
                          struct err *err);
void metrics_close(struct metrics *m);
json_t *metrics_json(const struct step_result *r, const struct step_result *eval, size_t mem_bytes,
                     double t_s); // the line's object; caller's
