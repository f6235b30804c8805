// How much of kernels/cuda the suites have executed: every __global__ function of its files, and which of them never ran.
#include "tests/simt/simt_state.h"

#include <ctype.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 512 };

// Kernels that the emulation cannot execute, with the reason. None today.
static const struct {
    const char *name, *why;
} not_emulated[] = {{NULL, NULL}};

// The name of the function that begins behind __global__: the identifier before the first parenthesis that is not an attribute's.
static const char *kernel_name(const char *p, char name[128])
{
    for (;;) {
        const char *open = strchr(p, '(');
        if (!open) return NULL;
        const char *end = open;
        while (end > p && isspace((unsigned char)end[-1])) end--;
        const char *begin = end;
        while (begin > p && (isalnum((unsigned char)begin[-1]) || begin[-1] == '_')) begin--;
        const size_t n = (size_t)(end - begin);
        if (n >= 128) return NULL;
        memcpy(name, begin, n);
        name[n] = '\0';
        if (strcmp(name, "__launch_bounds__")) return open;
        int depth = 0;
        do depth += *open == '(' ? 1 : *open == ')' ? -1 : 0;
        while (*++open && depth);
        p = open;
    }
}

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = f ? malloc(1 << 20) : NULL;
    if (text) text[fread(text, 1, (1 << 20) - 1, f)] = '\0';
    if (f) fclose(f);
    return text;
}

// Prints "emulated kernels: N of M" and the names of those that did not run; how many of these have no reason.
int simt_report(void)
{
    const char *ran[MAX_NAME];
    const int n_ran = simt_kernels(ran, MAX_NAME);
    int n = 0, m = 0, unexplained = 0;
    glob_t files;
    char missing[8192] = "";
    if (glob("kernels/cuda/*.cu*", 0, NULL, &files)) return 0;
    for (size_t f = 0; f < files.gl_pathc; f++) {
        char *text = read_all(files.gl_pathv[f]), name[128];
        for (const char *p = text; p && (p = strstr(p, "__global__"));) {
            p += strlen("__global__");
            if (!kernel_name(p, name)) continue;
            m++;
            int found = 0, why = -1;
            for (int i = 0; i < n_ran; i++) found |= !strcmp(ran[i], name);
            n += found;
            for (int i = 0; not_emulated[i].name; i++)
                if (!strcmp(not_emulated[i].name, name)) why = i;
            unexplained += !found && why < 0;
            const size_t at = strlen(missing);
            if (!found && at < sizeof missing - 256)
                snprintf(missing + at, sizeof missing - at, "  not run: %s%s%s\n", name, why < 0 ? "" : ": ",
                         why < 0 ? "" : not_emulated[why].why);
        }
        free(text);
    }
    globfree(&files);
    printf("emulated kernels: %d of %d\n%s", n, m, missing);
    return unexplained;
}
