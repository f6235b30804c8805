// What is compiled in: a line a command, X(NAME) for the command_NAME of distill/NAME.c; in the order of `distill --help`.
#include "distill/registry.h"

#include "distill/command.h"

// clang-format off
#define COMMANDS(X) \
    /* X(gen) here, and so on */ \
    X(gen) X(train) X(eval) X(score) X(doctor) X(tokenize) X(data_show) X(data_stats) X(data_verify) X(data_export) X(export)
// clang-format on

#define DECLARE(name) extern const struct command command_##name;
#define LIST(name) &command_##name,

COMMANDS(DECLARE)

const struct command *const all_commands[] = {COMMANDS(LIST) NULL};

#define ARCHS(X) X(deepseek_v2) X(deepseek_v3) X(qwen3_moe) X(qwen2) X(qwen3) X(llama) X(mistral)

#define DECLARE_ARCH(name) extern const struct arch arch_##name;
#define LIST_ARCH(name) &arch_##name,

ARCHS(DECLARE_ARCH)

const struct arch *const all_archs[] = {ARCHS(LIST_ARCH) NULL};
