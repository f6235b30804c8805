// distill: the command line. Finds the command in the registry, parses its options, runs it, prints its error, exits with its status.
#include "distill/command.h"
#include "distill/signals.h"
#include "kernels/base/spin.h"
#include "kernels/device.h"

#include <errno.h>
#include <string.h>

// Messages quote files, and files may hold what a terminal would obey: control characters are shown as \x1B.
static void put_message(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool c1 = p[0] == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0; // U+0080 to U+009F
        if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7F || c1)
            fprintf(stderr, "\\x%02X", c1 ? *++p : *p);
        else
            fputc(*p, stderr);
    }
    fputc('\n', stderr);
}

static int fail(const char *command, const struct err *err, enum status st)
{
    fprintf(stderr, "distill%s%s: ", command ? " " : "", command ? command : "");
    put_message(err->text[0] ? err->text : "failed");
    return (int)st;
}

static int print(struct buf *text)
{
    bool ok = fwrite(text->data, 1, text->size, stdout) == text->size && fflush(stdout) == 0;
    buf_free(text);
    if (ok) return ST_OK;
    struct err err = {0};
    err_errno(&err, "write to", "standard output");
    return fail(NULL, &err, ST_FAIL);
}

// The command named by argv[0], or by argv[0] and argv[1]; *n_word is how many words its name took.
static const struct command *find(int argc, char **argv, int *n_word)
{
    for (const struct command *const *c = all_commands; *c; c++) {
        size_t n = strlen(argv[0]);
        if (!strcmp((*c)->name, argv[0])) return *n_word = 1, *c;
        if (argc > 1 && !strncmp((*c)->name, argv[0], n) && (*c)->name[n] == ' ' && !strcmp((*c)->name + n + 1, argv[1]))
            return *n_word = 2, *c;
    }
    return NULL;
}

static bool begins_a_name(const char *word)
{
    size_t n = strlen(word);
    for (const struct command *const *c = all_commands; *c; c++)
        if (!strncmp((*c)->name, word, n) && (*c)->name[n] == ' ') return true;
    return false;
}

// No such command: names the nearest.
static int unknown(int argc, char **argv)
{
    bool two = begins_a_name(argv[0]);
    if (two && (argc == 1 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        struct buf text = {0};
        program_help(&text, argv[0]);
        if (argc > 1) return print(&text);
        fputs(text.data, stderr);
        buf_free(&text);
        return ST_BAD_INPUT;
    }
    char *typed = two ? mem_printf("%s %s", argv[0], argv[1]) : mem_strdup(argv[0]);
    const char *names[256] = {"help", "completion"};
    size_t n = 2;
    for (const struct command *const *c = all_commands; *c && n < 255; c++) names[n++] = (*c)->name;
    names[n] = NULL;
    const char *near = nearest_name(typed, names);
    struct err err = {0};
    err_set(&err, ST_BAD_INPUT, "unknown %s %s%s%s%s; `distill --help` lists the commands", typed[0] == '-' ? "option" : "command", typed,
            near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    mem_free(typed);
    return fail(NULL, &err, ST_BAD_INPUT);
}

static int run(const struct command *cmd, int argc, char **argv)
{
    struct options *o;
    struct err err = {0};
    enum status st = options_parse(&o, cmd, argc, argv, &err);
    if (!st && opt_bool(o, "help")) {
        struct buf text = {0};
        options_help(&text, cmd);
        st = print(&text);
    } else if (!st) {
        signals_install(cmd->saves_on_stop);
        // Named, so that what is recorded of a run says where it ran.
        if (cmd->computes && !strcmp(opt_str(o, "device"), "auto")) st = options_set(o, "device", dev_default(), &err);
        if (!st) st = cmd->run(o, &err);
        // A full disk behind stdout shows at the flush, if no sooner.
        if ((fflush(stdout) || ferror(stdout)) && !st) st = err_errno(&err, "write to", "standard output");
    }
    options_free(o);
    return st ? fail(cmd->name, &err, st) : ST_OK;
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    struct buf text = {0};
    int n_word;
    argc--, argv++;
    if (!argc) {
        program_help(&text, NULL);
        fputs(text.data, stderr);
        buf_free(&text);
        return ST_BAD_INPUT;
    }
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--version")) return puts("distill " DISTILL_VERSION) < 0 || fflush(stdout) ? ST_FAIL : ST_OK;
    bool help = !strcmp(argv[0], "help") || !strcmp(argv[0], "--help") || !strcmp(argv[0], "-h");
    if (help && argc == 1) {
        program_help(&text, NULL);
        return print(&text);
    }
    if (!strcmp(argv[0], "completion")) {
        if (argc == 2 && !strcmp(argv[1], "bash")) {
            completion_bash(&text);
            return print(&text);
        }
        fputs("distill completion: wanted the name of the shell: bash\n", stderr);
        return ST_BAD_INPUT;
    }
    if (help) argc--, argv++;
    const struct command *cmd = find(argc, argv, &n_word);
    if (!cmd && help && argc == 1 && begins_a_name(argv[0])) {
        program_help(&text, argv[0]);
        return print(&text);
    }
    if (!cmd) return unknown(argc, argv);
    if (help) {
        options_help(&text, cmd);
        return print(&text);
    }
    return run(cmd, argc - n_word, argv + n_word);
}
