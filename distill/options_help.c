// The texts made of the tables of options and commands: help, the nearest name, completion.
#include "distill/command.h"
#include "distill/options.h"

#include <stdlib.h>
#include <string.h>

enum { WIDTH = 100, COLUMN = 30 }; // of help; where its right column begins

// Columns of UTF-8 text, every character taken as one.
static size_t columns(const char *s)
{
    size_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

// Appends words from `column` on, broken before WIDTH, next lines indented to `indent`.
static void wrap(struct buf *out, const char *text, size_t column, size_t indent)
{
    while (*text) {
        size_t n = strcspn(text, " ");
        char *word = mem_strndup(text, n);
        size_t w = columns(word);
        if (column > indent && column + 1 + w > WIDTH) {
            buf_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            buf_putc(out, ' ');
            column++;
        }
        buf_puts(out, word);
        column += w;
        mem_free(word);
        text += n;
        while (*text == ' ') text++;
    }
    buf_putc(out, '\n');
}

static const char *value_name(const struct option *opt)
{
    static const char *const NAMES[] = {"N", "X", "TEXT", "", "", "N,…", "X,…", "TEXT,…"};
    return opt->value ? opt->value : opt->type == OPT_ENUM ? opt->choices : NAMES[opt->type];
}

static void help_option(struct buf *out, const struct option *opt)
{
    bool on = opt->type == OPT_BOOL && opt->def && !strcmp(opt->def, "true");
    char *left = mem_printf("  --%s%s%s%s", on ? "[no-]" : "", opt->name, opt->type == OPT_BOOL ? "" : " ", value_name(opt));
    struct buf right = {0};
    char range[64];
    option_range_text(opt, range);
    buf_puts(&right, opt->help ? opt->help : "");
    if (opt->required)
        buf_puts(&right, " (required)");
    else if (on)
        buf_puts(&right, " (default: on)");
    else if (opt->type != OPT_BOOL && opt->def)
        buf_printf(&right, " (default: %s%s%s)", opt->def, opt->range ? ", " : "", range);
    else if (opt->range)
        buf_printf(&right, " (%s)", range);
    buf_puts(out, left);
    size_t column = columns(left);
    if (column + 2 > COLUMN) {
        buf_putc(out, '\n');
        column = 0;
    }
    buf_printf(out, "%*s", (int)(COLUMN - column), "");
    wrap(out, right.data, COLUMN, COLUMN);
    buf_free(&right);
    mem_free(left);
}

static const char *group_of(const struct option *opt)
{
    return opt->group ? opt->group : "Options";
}

void options_help(struct buf *out, const struct command *cmd)
{
    const struct option *opt, *earlier;
    struct buf usage = {0};
    buf_printf(&usage, "distill %s: %s", cmd->name, cmd->summary);
    wrap(out, usage.data, 0, 0);
    buf_putc(out, '\n');
    buf_clear(&usage);
    buf_printf(&usage, "Usage: distill %s", cmd->name);
    if (cmd->args) buf_printf(&usage, " %s", cmd->args);
    for (size_t i = 0; (opt = option_at(cmd, i)); i++)
        if (opt->required) buf_printf(&usage, " --%s %s", opt->name, value_name(opt));
    buf_puts(&usage, " [options]");
    wrap(out, usage.data, 0, 0);
    buf_free(&usage);
    for (size_t i = 0; (opt = option_at(cmd, i)); i++) { // groups, in the order in which they first appear
        bool seen = false;
        for (size_t j = 0; j < i && (earlier = option_at(cmd, j)); j++) seen = seen || !strcmp(group_of(earlier), group_of(opt));
        if (seen) continue;
        buf_printf(out, "\n%s\n", group_of(opt));
        const struct option *member;
        for (size_t j = i; (member = option_at(cmd, j)); j++)
            if (!strcmp(group_of(member), group_of(opt))) help_option(out, member);
    }
    if (cmd->notes) buf_printf(out, "\n%s\n", cmd->notes);
}

void program_help(struct buf *out, const char *prefix)
{
    size_t n = prefix ? strlen(prefix) : 0;
    if (!prefix) buf_puts(out, "distill turns a large mixture-of-experts teacher into small dense students.\n\n");
    buf_printf(out, "Usage: distill %s%s<command> [options]\n\nCommands\n", prefix ? prefix : "", prefix ? " " : "");
    for (const struct command *const *c = all_commands; *c; c++) {
        if (prefix && (strncmp((*c)->name, prefix, n) || (*c)->name[n] != ' ')) continue;
        size_t column = 2 + columns((*c)->name), indent = 20;
        buf_printf(out, "  %s%*s", (*c)->name, column < indent ? (int)(indent - column) : 1, "");
        wrap(out, (*c)->summary, indent, indent);
    }
    if (prefix) return;
    buf_puts(out, "  help COMMAND      the options of a command\n"
                  "  completion bash   completion for the shell: source <(distill completion bash)\n"
                  "\ndistill --version prints the version. Exit codes: 0 done, 1 the job failed, 2 bad usage or bad input,\n"
                  "130 stopped by Ctrl-C after saving.\n");
}

// Optimal string alignment distance: insertions, deletions, replacements, swaps of neighbours.
static size_t distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t na = strlen(a), nb = strlen(b), d[3][MAX + 1];
    if (na > MAX || nb > MAX) return SIZE_MAX;
    size_t *before = d[0], *last = d[1], *now = d[2];
    for (size_t j = 0; j <= nb; j++) last[j] = j;
    for (size_t i = 1; i <= na; i++) {
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *t = before;
        before = last, last = now, now = t;
    }
    return last[nb];
}

const char *nearest_name(const char *typed, const char *const *names)
{
    const char *best = NULL;
    size_t n = strlen(typed), best_distance = SIZE_MAX;
    for (; *names; names++) {
        size_t d = distance(typed, *names);
        if (n >= 2 && !strncmp(*names, typed, n) && d > 1) d = 1; // the beginning of the name
        if (d < best_distance && d <= (n < 4 ? 1 : n / 3 > 3 ? 3 : n / 3 < 2 ? 2 : n / 3)) best = *names, best_distance = d;
    }
    return best;
}

// The first words of the commands' names, or the second words after `first`.
static void words(struct buf *out, const char *first)
{
    size_t n = first ? strlen(first) : 0;
    for (const struct command *const *c = all_commands; *c; c++) {
        const char *name = (*c)->name;
        int n_word = (int)strcspn(name, " ");
        if (first && !strncmp(name, first, n) && name[n] == ' ')
            buf_printf(out, "%s ", name + n + 1);
        else if (!first && (c == all_commands || strncmp(c[-1]->name, name, (size_t)n_word + 1))) // "data " once for all its commands
            buf_printf(out, "%.*s ", n_word, name);
    }
}

void completion_bash(struct buf *out)
{
    buf_puts(out, "# bash completion for distill: source <(distill completion bash)\n"
                  "_distill() {\n"
                  "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} cmd=${COMP_WORDS[1]} names=\n"
                  "    [[ $cur == = ]] && cur=\n"
                  "    [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
                  "    if ((COMP_CWORD == 1)); then\n        names='");
    words(out, NULL);
    buf_puts(out, "help completion --help --version'\n    else\n        case \"$cmd ${COMP_WORDS[2]}\" in\n");
    for (const struct command *const *c = all_commands; *c; c++) {
        const struct option *opt;
        buf_printf(out, "        '%s'%s)\n            case $prev in\n", (*c)->name, strchr((*c)->name, ' ') ? "" : "' '*");
        for (size_t i = 0; (opt = option_at(*c, i)); i++) {
            if (opt->type == OPT_BOOL) continue;
            buf_printf(out, "            --%s) names='", opt->name);
            for (const char *p = opt->choices ? opt->choices : ""; *p; p++) buf_putc(out, *p == '|' ? ' ' : *p);
            buf_puts(out, "' ;;\n");
        }
        buf_puts(out, "            *) [[ $cur == -* ]] && names='");
        for (size_t i = 0; (opt = option_at(*c, i)); i++)
            buf_printf(out, "--%s%s ", opt->type == OPT_BOOL && opt->def && !strcmp(opt->def, "true") ? "no-" : "", opt->name);
        buf_puts(out, "' ;;\n            esac ;;\n");
    }
    for (const struct command *const *c = all_commands; *c; c++) {
        const char *space = strchr((*c)->name, ' ');
        if (!space) continue;
        char *first = mem_strndup((*c)->name, (size_t)(space - (*c)->name));
        size_t n = strlen(first);
        if (c == all_commands || strncmp(c[-1]->name, first, n) || c[-1]->name[n] != ' ') {
            buf_printf(out, "        '%s '*) ((COMP_CWORD == 2)) && names='", first);
            words(out, first);
            buf_puts(out, "' ;;\n");
        }
        mem_free(first);
    }
    buf_puts(out, "        'help '*) names='");
    words(out, NULL);
    buf_puts(out, "' ;;\n        'completion '*) names=bash ;;\n        esac\n    fi\n"
                  "    COMPREPLY=($(compgen -W \"$names\" -- \"$cur\"))\n"
                  "}\ncomplete -o default -F _distill distill\n");
}
