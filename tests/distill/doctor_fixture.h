// What the suites of `distill doctor` share: copies of the shipped models with one thing changed, and what the doctor finds in them.
#pragma once
#include "distill/command.h"
#include "distill/doctor.h"
#include "tests/test.h"

#define TEACHER "teacher/tiny/moe"
#define STUDENT "teacher/tiny/base"
extern const struct command command_doctor, command_gen, command_export;

// ---- folders; paths live until the test ends

const char *copy_of(const char *model);                                          // a copy in a folder of its own
void put(const char *dir, const char *name, const char *text);                   // writes a file
void drop(const char *dir, const char *name);                                    // removes one
void set(const char *dir, const char *name, const char *key, const char *value); // a key of a JSON file; value as JSON, "-" takes it away
void set_template(const char *dir, const char *text);                            // chat_template.jinja
json_t *json_of_file(const char *dir, const char *name);                         // caller's
void write_json(const char *dir, const char *name, json_t *root);                // steals
#define tokenizer_json(dir) json_of_file(dir, "tokenizer.json")
#define write_tokenizer(dir, root) write_json(dir, "tokenizer.json", root)
// The weights again, with `lm_head.weight` (a copy of the embedding, its first value changed or not), without one tensor, with an embedding
// that is called I32, or with one tensor that holds one value (bits of BF16) throughout.
struct rewrite {
    bool head, head_differs, embed_as_i32;
    const char *without, *fill;
    uint16_t value;
};
void rewrite(const char *dir, struct rewrite how);

// `distill export` of a model's folder to a GGUF file of its own; type as --type takes it.
const char *gguf_of(const char *model, const char *type);

// Chat templates of the shipped form in parts: with reasoning in all turns, in the last, or (TURN_BEGIN TURN_END) in none.
#define TURN_BEGIN "{% for m in messages %}<|im_start|>{{ m.role }}\n"
#define TURN_END "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
#define REASON "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
#define REASON_LAST "{% if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"

// ---- running

extern struct findings all;                                    // of the last run
enum status try_run(struct err *err, const char *const *args); // the doctor with these arguments, NULL-terminated
void must_run(const char *const *args);
void close_run(void); // after each test
#define RUN(...) must_run((const char *const[]){__VA_ARGS__, "--threads", "1", NULL})
#define RUN_TEACHER(dir) RUN("--teacher", dir, "--no-probe")
#define RUN_STUDENT(dir) RUN("--student", dir, "--no-probe")
#define RUN_BOTH(t, s) RUN("--teacher", t, "--student", s, "--no-probe")

const struct finding *find(const char *check); // the first of that check
// It has this verdict and says `part`, in what was found or in the fix.
void expect(const char *check, enum verdict v, const char *part);
double numbered(const char *check, const char *key);

// What a check says of the shipped student with other keys in its files and another template; NULL: its own.
struct doctor_case {
    const char *check;
    enum verdict verdict;
    const char *part, *template, *keys; // keys: lines of KEYS()
};
#define KEYS(file, key, value) file " " key " " value "\n" // for set()
#define CONFIG(key, value) KEYS("config.json", key, value)
#define GENERATION(key, value) KEYS("generation_config.json", key, value)
#define TOKENIZER(key, value) KEYS("tokenizer_config.json", key, value)
void set_keys(const char *dir, const char *keys);
void check_case(const struct doctor_case *c);
