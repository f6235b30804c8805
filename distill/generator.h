// What gen and eval share: the model with its tokenizer and chat template, prompts as token ids, the engine fed from them, and what comes
// out of it as messages. score takes the model part alone.
#pragma once
#include "datasets/chat.h"
#include "datasets/jsonl.h"
#include "distill/options.h"
#include "teacher/engine.h"

// An option of every command that runs a model without training it, and those of sampling, for the tables of gen and eval.
// clang-format off
#define FP8_OPTION \
    {"fp8-activations", OPT_BOOL, .help = "FP8 checkpoints: quantise activations too, as DeepSeek does, instead of dequantising the weights"}
#define SAMPLING_OPTIONS(TEMPERATURE) \
    {"n", OPT_INT, .def = "1", .range = "[1, 1000000]", .group = "Sampling", .help = "samples of each prompt"}, \
    {"temperature", OPT_REAL, .def = TEMPERATURE, .range = "[0, 1e6)", .group = "Sampling", .value = "T", .help = "0: always the likeliest token"}, \
    {"top-p", OPT_REAL, .def = "1", .range = "(0, 1]", .group = "Sampling", .value = "P", .help = "draw among the likeliest tokens that sum to P; 1: off"}, \
    {"top-k", OPT_INT, .def = "0", .range = "[0, inf)", .group = "Sampling", .value = "K", .help = "draw among the K likeliest tokens; 0: off"}, \
    {"min-p", OPT_REAL, .def = "0", .range = "[0, 1]", .group = "Sampling", .value = "P", .help = "draw among tokens at least P times as likely as the likeliest; 0: off"}, \
    {"max-tokens", OPT_INT, .def = "512", .range = "[1, 16777216]", .group = "Sampling", .help = "end a sample after so many tokens (sooner where the context ends)"}, \
    {"batch-tokens", OPT_INT, .def = "128", .range = "[1, 1048576]", .group = "Speed", .help = "rows of a step at most: samples that grow together. Changes no result"}
// clang-format on

// A model and the device it runs on. Zero-initialise; loaded_close in any case.
struct loaded {
    struct device dev;
    bool dev_open;
    struct model *model;
    struct tokenizer *tok; // NULL in loaded_model
    struct chat *chat;     // NULL in loaded_model
    int n_vocab;           // ids that the tokenizer has: columns of the head beyond them are padding
    struct ids eos;        // ids that end an answer: of generation_config.json, config.json, the tokenizer and the template
};
enum status loaded_model(struct loaded *l, const struct options *o, const char *dir, struct err *err);
// With tokenizer and chat template: loaded first, for they are small and their errors quick. A tokenizer with more ids than the model:
// refused.
enum status loaded_text(struct loaded *l, const struct options *o, const char *dir, struct err *err);
void loaded_close(struct loaded *l);

// The sampling options, checked.
enum status sampling_options(struct sampling *s, const struct options *o, struct err *err);

// One prompt to generate from: which samples of it are wanted.
struct job {
    const struct prompt *prompt; // borrowed
    struct ids ids;
    bool opened;  // the template's last words open <think>: the model goes on inside it
    int *samples; // (n_sample)
    int n_sample;
};
struct jobs {
    struct job *v;
    size_t n, next; // next: the first not yet given to the engine
    size_t n_sample;
    int max_prompt, max_len;
};
// Renders and tokenizes a prompt, and adds it. ST_BAD_INPUT names file, line and id: not renderable, or too long for the model.
enum status jobs_add(struct jobs *j, const struct loaded *l, const struct prompt *p, const char *path, const int *samples, int n_sample,
                     int max_tokens, struct err *err);
void jobs_free(struct jobs *j);
enum status jobs_engine(struct engine **out, const struct jobs *j, const struct loaded *l, const struct targets_spec *targets,
                        const struct options *o, struct err *err);
// Keeps the engine's queue filled. `user` of a generation is its struct job.
enum status jobs_feed(struct jobs *j, struct engine *e, const struct sampling *s, const struct options *o, struct err *err);

// The assistant's message of a generation, {"role", "content", "reasoning_content"}: decoded without the end token, with U+FFFD for
// each broken character (a token may be a part of one, and a sample may end between two). Caller's.
enum status generation_message(json_t **out, const struct loaded *l, const struct generation *g, bool opened, struct err *err);
