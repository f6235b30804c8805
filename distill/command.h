// A command of the program: one file of distill/ defines `const struct command command_NAME`, one line of registry.c lists it.
//
// A name may have two words ("data verify"): `distill data --help` then lists all commands that begin so.
#pragma once
#include "distill/options.h"

#define DISTILL_VERSION "0.1.0"

struct command {
    const char *name;
    const char *summary;          // one line, begins small, no full stop
    const char *args;             // what stands without a flag, as the usage shows it ("STORE"); NULL: nothing may
    int n_arg_min, n_arg_max;     // how many of those
    const char *notes;            // shown after the options: examples, what is read and written; NULL if none. Lines ≤ 100 columns.
    const struct option *options; // ends with {0}; an entry named as a common option replaces that one (another default, say)
    bool computes;                // opens a device: --device auto is resolved before it runs
    bool saves_on_stop;           // SIGINT and SIGTERM set stop_requested() (signals.h) instead of ending the process
    // Returns the exit code; on failure err holds the message, which main prints. Data goes to stdout, talk to stderr (progress.h).
    enum status (*run)(struct options *o, struct err *err);
};

extern const struct command *const all_commands[]; // registry.c; ends with NULL
