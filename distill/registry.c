// What is compiled in: a line a command, X(NAME) for the command_NAME of distill/NAME.c; in the order of `distill --help`.
#include "distill/command.h"

// clang-format off
#define COMMANDS(X) \
    /* X(gen) here, and so on */
// clang-format on

#define DECLARE(name) extern const struct command command_##name;
#define LIST(name) &command_##name,

COMMANDS(DECLARE)

const struct command *const all_commands[] = {COMMANDS(LIST) NULL};
