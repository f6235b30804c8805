// Options of a command, from one table: parsing, --config FILE.json, --help, hints for a wrong name, effective settings, completion.
//
//     static const struct option options[] = {
//         {"teacher", OPT_STRING, .value = "DIR", .required = true, .help = "the teacher: a Hugging Face directory"},
//         {"top-p", OPT_REAL, .def = "1", .range = "(0, 1]", .group = "Sampling", .help = "keep the likeliest tokens that sum to P", .value
//         = "P"},
//         {"schedule", OPT_ENUM, .def = "cosine", .choices = "constant|linear|cosine", .help = "…"},
//         {"shuffle", OPT_BOOL, .def = "true", .help = "draw the rows in a new order each epoch"},   // --shuffle and --no-shuffle
//         {0}};
//
// Every command takes the common ones too (device, dtype, threads, seed, config, quiet, json, help). A flag wins over the config file,
// that over the default. Values are read by name: opt_real(o, "top-p"); asking for a name that is not in the table is a BUG().
#pragma once
#include "kernels/base/json.h"

enum option_type {
    OPT_INT,     // int64_t
    OPT_REAL,    // double
    OPT_STRING,  // text, a path
    OPT_BOOL,    // --x, --no-x; default false unless def = "true"
    OPT_ENUM,    // one of `choices`
    OPT_INTS,    // 1,2,3
    OPT_REALS,   // 1,0.5
    OPT_STRINGS, // a.jsonl,b.jsonl
};

struct option {
    const char *name; // without dashes
    enum option_type type;
    const char *def;     // as it would be typed; NULL: none (opt_has is false, opt_int 0, opt_str NULL, lists empty)
    const char *range;   // numbers: "[1, inf)", "(0, 1]"; NULL: any
    const char *choices; // OPT_ENUM: "a|b|c"
    const char *value;   // how help calls the value: "DIR"; NULL: N, X, TEXT, or the choices
    const char *group;   // heading in help; NULL: "Options"
    const char *help;
    bool required;
    bool not_a_setting; // not part of the effective settings (quiet, json, …)
    // A further check of the typed text (a string such as topk:64): fills err with what was wanted. NULL: none.
    enum status (*check)(const char *text, struct err *err);
};

struct command;
struct options;

// argv: what follows the command's name. On failure a usage error (ST_BAD_INPUT) that names the flag, the value, and the nearest known
// name. With --help among them nothing else is checked: ask opt_bool(o, "help"). *out is options_free'd in any case.
enum status options_parse(struct options **out, const struct command *cmd, int argc, char **argv, struct err *err);
void options_free(struct options *o);

int64_t opt_int(const struct options *o, const char *name);
double opt_real(const struct options *o, const char *name);
bool opt_bool(const struct options *o, const char *name);
const char *opt_str(const struct options *o, const char *name); // strings and enums; NULL without value
size_t opt_count(const struct options *o, const char *name);    // length of a list
int64_t opt_int_at(const struct options *o, const char *name, size_t i);
double opt_real_at(const struct options *o, const char *name, size_t i);
const char *opt_str_at(const struct options *o, const char *name, size_t i);
bool opt_has(const struct options *o, const char *name);   // has a value, be it the default
bool opt_given(const struct options *o, const char *name); // was given, by flag or config
int opt_n_arg(const struct options *o);
const char *opt_arg(const struct options *o, int i);

// Sets a value as if typed: for settings that follow from others (the number of threads found, say), so that the effective ones tell.
enum status options_set(struct options *o, const char *name, const char *text, struct err *err);
// {"command": "gen", "version": …, "settings": {every option of the table: value}} without --help, --quiet and the like; the settings may
// be given back as a --config file. Caller's.
json_t *options_effective_json(const struct options *o);

// ---- texts made of the tables (options_help.c) ----

void options_help(struct buf *out, const struct command *cmd); // ≤ 100 columns
void program_help(struct buf *out, const char *prefix);        // the commands; with a prefix ("data") those that begin with it
void completion_bash(struct buf *out);
// The nearest of the names to a mistyped one, or NULL if none is near: few letters off, or the beginning of it. names ends with NULL.
const char *nearest_name(const char *typed, const char *const *names);

// For options.c and options_help.c: the options of cmd in the table's order, then the common ones; NULL past the end.
const struct option *option_at(const struct command *cmd, size_t i);
// The range as words: "at least 1", "above 0", "in (0, 1]"; empty without one.
void option_range_text(const struct option *opt, char text[64]);
