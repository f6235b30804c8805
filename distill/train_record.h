// What a training run says about itself: run.json, the refusal of a resume with other settings, and the card.
#pragma once
#include "distill/options.h"
#include "student/trainer.h"

// {"command", "version", "settings", "student": {path, files and their sha256}, "data": […], "rows": {…}, "ends": {token: id}, "n_step"}.
// Caller's. Reads the student's files.
enum status train_record(json_t **out, const struct options *o, const struct model_config *config, const struct tokenizer *tokenizer,
                         const struct rows *rows, int64_t n_step, struct err *err);
// ST_BAD_INPUT listing each setting that would change what comes out, with its stored and its given value. Steps may grow.
enum status train_record_compare(const json_t *stored, const json_t *given, const struct options *o, const char *path, struct err *err);
// README.md of the trained model; mem_free it.
char *train_card(const json_t *record, int64_t step, int64_t n_tok);
