// distill, its suites and its benchmarks as one program, for make gpu-bundle: what they share is in it once. Which of them it is says its
// name, or else its first argument.
#include <stdio.h>
#include <string.h>

int distill_main(int argc, char **argv);
int suites_main(int argc, char **argv);
int bench_main(int argc, char **argv);

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
} programs[] = {{"distill", distill_main}, {"run-all", suites_main}, {"bench", bench_main}};

int main(int argc, char **argv)
{
    for (int i = 0; i < 2 && i < argc; i++) {
        const char *slash = strrchr(argv[i], '/'), *name = slash ? slash + 1 : argv[i];
        for (size_t k = 0; k < sizeof programs / sizeof *programs; k++)
            if (!strcmp(programs[k].name, name)) return programs[k].main(argc - i, argv + i);
    }
    fprintf(stderr, "usage: all distill|run-all|bench …\n");
    return 2;
}
