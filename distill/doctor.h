// What the checks of `distill doctor` share. A check is a function of the exam that fills a finding, and a line in the table of doctor.c,
// which also says what must be there for it to run; where that is missing the finding is "skipped", with the reason.
#pragma once
#include "datasets/chat.h"
#include "datasets/rows.h"
#include "distill/options.h"
#include "kernels/base/gguf.h"
#include "kernels/model/model.h"

// ---- findings ---------------------------------------------------------------------------------------------------------------------------

enum verdict { V_SKIP, V_OK, V_WARN, V_FAIL }; // rising: a finding made of several says the worst

struct finding {
    const char *check, *title; // in --json, in the table
    const char *of;            // "teacher", "student", the path of data; NULL: of teacher and student together
    enum verdict verdict;
    struct buf found, fix;
    json_t *numbers; // what scripts may want beside the text; NULL: nothing
};
// Adds a clause, and makes the verdict at least `v`.
void say(struct finding *f, enum verdict v, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void fix(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void number(struct finding *f, const char *key, double v);
// "1.25 GiB", "340 KiB", to three digits.
struct size_text {
    char s[24];
} size_text(size_t bytes);

struct findings {
    struct finding *v;
    size_t n;
    int n_verdict[4];
};
// All checks of what --teacher, --student and --data name. ST_BAD_INPUT: something of it cannot be examined at all; what is wrong with it
// is among the findings. They refer to the options' strings.
enum status doctor_examine(const struct options *o, struct findings *out, struct err *err);
void findings_print(const struct findings *all, bool quiet); // the table, on stdout
json_t *findings_json(const struct findings *all);           // caller's
void findings_free(struct findings *all);

// ---- what is examined -------------------------------------------------------------------------------------------------------------------

// A tensor as it stands in the files, under their name for it.
struct weight {
    const char *name, *dtype; // "BF16", "F8_E4M3", "Q8_0"
    const uint8_t *data;
    size_t size_bytes;
};

// A model's folder or GGUF file: what could be read of it, and why the rest could not.
struct side {
    const char *role, *dir;      // dir NULL: not given
    bool is_gguf;                // dir is a file: its keys stand for config.json, tokenizer.json and the template
    json_t *config, *generation; // config.json, generation_config.json; NULL: absent or broken
    struct model_config shape;   // of an architecture that we know
    const struct arch *arch;     // NULL: none
    struct tokenizer *tok;
    struct chat *chat;
    struct weight *weight; // (n_weight)
    size_t n_weight, n_weight_file;
    struct st_set folder; // what weight points into: of a folder, of a GGUF file
    struct gguf file;
    bool has_config, has_tokenizer, has_weights; // the files are there, be they whole or not
    struct err config_err, generation_err, arch_err, tok_err, chat_err, weights_err;
    struct ids stops; // tokens that the files say end an answer
    int32_t turn_end; // the token with which the template ends an assistant's turn; -1: none
    json_t *licence;  // {"id", "from"}; NULL: none found
};
// Never fails but for a folder or file that is not there or holds nothing of a model (ST_BAD_INPUT): what is broken is a finding.
enum status side_open(struct side *s, const char *role, const char *dir, struct err *err);
void side_close(struct side *s);
// What a message calls the place of its configuration and tokenizer: "config.json", or what stands for it in a GGUF file.
const char *side_config_name(const struct side *s);
const char *side_tokenizer_name(const struct side *s);
int64_t side_int(const json_t *object, const char *key); // -1: absent, or no integer
int64_t side_vocab(const struct side *s);                // rows of the embedding by config.json; 0: not known
int64_t side_context(const struct side *s);              // 0: not known
bool side_strips_think(const struct side *s);            // its template drops <think>…</think> from the content of an answer

// A trace store or a JSONL file, read through once.
struct data_source {
    const char *path;
    struct store *store;
    size_t n_row, n_bad;          // lines or samples; those that are no good
    size_t n_chat, n_prompt;      // JSONL: with and without a turn of the assistant
    size_t n_answer, n_empty;     // JSONL prompts that say the right answer; answers without text
    size_t n_reasoning, n_think;  // JSONL: turns with reasoning_content; with </think> in the content
    size_t n_length, n_error;     // samples ended by length; by refusal or error
    size_t n_long, n_prompt_long; // rows longer than the student's context; prompts that leave no room for an answer
    int longest, longest_prompt;  // tokens
    bool counted;                 // the four above are known
    int32_t max_id;               // of a store
    struct buf bad;               // the first few that are no good, a line each
    struct probe_doc *doc;        // (n_doc) for the probe
    size_t n_doc;
};
// What the probe runs over.
struct probe_doc {
    struct ids ids;
    int first;              // the first token that a target row belongs to
    struct targets targets; // row i: token first + i; n_tok 0: none
};
struct exam;
enum status data_open(struct data_source *s, const char *path, const struct exam *x, struct err *err);
void data_close(struct data_source *s);
const json_t *data_identity(const struct data_source *s, const char *key); // of a store: what gen recorded under that key; NULL: nothing

struct exam {
    const struct options *o;
    struct side teacher, student;
    struct data_source *data;
    size_t n_data;
    struct side *side;           // in hand, for checks of one model
    struct data_source *in_hand; // for checks of data
    struct device dev;
    bool same_model;     // teacher and student hold the same weights
    struct probe *probe; // doctor_probe.c; NULL until the first check asks
};
// What of `use` the model is loaded with, random_init and plan left to the caller: as gen and train would, so --fp8-activations is for the
// teacher that generates.
struct model_options exam_model_options(const struct exam *x, const struct side *s, enum model_use use);
// A model for measuring, built from config.json alone, and with --fp8-activations from the heads of the weights too, if they are there;
// NULL with err filled.
struct model *plan_model(struct exam *x, const struct side *s, enum model_use use, struct err *err);
void probe_free(struct probe *p);

// ---- checks -----------------------------------------------------------------------------------------------------------------------------

enum scope { EACH_MODEL, OF_TEACHER, OF_STUDENT, OF_PAIR, EACH_DATA };
enum needs { // of the model in hand, of both for a pair
    NEEDS_CONFIG = 1,
    NEEDS_ARCH = 2, // config.json is of an architecture that we know, and free of errors
    NEEDS_TOKENIZER = 4,
    NEEDS_TEMPLATE = 8,
    NEEDS_WEIGHTS = 16,
    NEEDS_STORE = 32, // the source is a store; of another the check does not speak
    NEEDS_TEACHER = 64,
    NEEDS_STUDENT = 128,
};
struct check {
    const char *name, *title;
    enum scope scope;
    unsigned needs;
    void (*run)(struct exam *x, struct finding *f);
};

// X(name, title, scope, needs), in the order of the report.
// clang-format off
#define DOCTOR_CHECKS(X) \
    /* doctor_files.c */ \
    X(files, "files", EACH_MODEL, 0) \
    X(architecture, "architecture", EACH_MODEL, NEEDS_CONFIG) \
    X(weights, "weights", EACH_MODEL, NEEDS_ARCH | NEEDS_WEIGHTS) \
    X(dtype, "dtype", EACH_MODEL, NEEDS_WEIGHTS) \
    X(tied_head, "tied head", EACH_MODEL, NEEDS_CONFIG | NEEDS_WEIGHTS) \
    X(context, "context", EACH_MODEL, NEEDS_CONFIG) \
    X(contexts, "contexts", OF_PAIR, NEEDS_CONFIG) \
    /* doctor_tokenizer.c */ \
    X(tokenizer, "tokenizer", OF_PAIR, NEEDS_TOKENIZER) \
    X(vocabulary, "vocabulary", EACH_MODEL, NEEDS_CONFIG | NEEDS_TOKENIZER) \
    X(vocabularies, "vocabularies", OF_PAIR, NEEDS_CONFIG) \
    X(end_token, "end token", EACH_MODEL, NEEDS_TOKENIZER) \
    X(end_tokens, "end tokens", OF_PAIR, NEEDS_TOKENIZER | NEEDS_TEMPLATE) \
    X(pad_token, "pad token", EACH_MODEL, NEEDS_TOKENIZER) \
    X(bos_token, "BOS token", EACH_MODEL, NEEDS_TOKENIZER) \
    /* doctor_template.c */ \
    X(chat_template, "chat template", EACH_MODEL, NEEDS_TOKENIZER) \
    X(chat_templates, "chat templates", OF_PAIR, NEEDS_TEMPLATE) \
    X(reasoning, "reasoning", EACH_MODEL, NEEDS_TEMPLATE) \
    X(generation_prompt, "generation prompt", EACH_MODEL, NEEDS_TEMPLATE) \
    X(loss_mask, "loss mask", OF_STUDENT, NEEDS_TEMPLATE) \
    /* doctor_probe.c */ \
    X(same_numbers, "own numbers", EACH_MODEL, NEEDS_ARCH | NEEDS_WEIGHTS) \
    X(logit_shift, "logit shift", OF_PAIR, NEEDS_ARCH | NEEDS_WEIGHTS) \
    /* doctor_memory.c */ \
    X(memory_gen, "memory of gen", OF_TEACHER, NEEDS_ARCH) \
    X(memory_train, "memory of train", OF_STUDENT, NEEDS_ARCH) \
    /* doctor_licence.c */ \
    X(licence, "licence", EACH_MODEL, 0) \
    X(licences, "licences", OF_PAIR, 0) \
    /* doctor_data.c */ \
    X(data_rows, "rows", EACH_DATA, 0) \
    X(data_lengths, "lengths", EACH_DATA, 0) \
    X(data_answers, "answers", EACH_DATA, 0) \
    X(data_finish, "finish reasons", EACH_DATA, NEEDS_STORE) \
    X(data_teacher, "store's teacher", EACH_DATA, NEEDS_STORE | NEEDS_TEACHER) \
    X(data_tokenizer, "store's tokenizer", EACH_DATA, NEEDS_STORE | NEEDS_STUDENT | NEEDS_TOKENIZER) \
    X(data_targets, "targets", EACH_DATA, NEEDS_STORE | NEEDS_STUDENT) \
    X(data_capture, "captured numbers", EACH_DATA, NEEDS_STORE | NEEDS_TEACHER | NEEDS_ARCH | NEEDS_WEIGHTS) \
    X(data_shift, "targets' shift", EACH_DATA, NEEDS_STORE | NEEDS_STUDENT | NEEDS_ARCH | NEEDS_WEIGHTS)
// clang-format on
#define DECLARE_CHECK(name, title, scope, needs) void check_##name(struct exam *x, struct finding *f);
DOCTOR_CHECKS(DECLARE_CHECK)
