// The runner of all suites: build/tests/run-all [NAME…].
//
// A new suite is one new file, tests/ROOM/test_NAME.c, that defines `Suite *suite_NAME(void)`; the Makefile finds it by its name and lists
// it in build/tests/suites.c. Without arguments all suites run, with names only those. Each prints Check's summary line and its failures.
//
// Every test runs in a process of its own (Check's fork mode), so it may crash, leak, or change limits without harm to others; CK_FORK=no
// runs them in this one, for a debugger. This process itself never starts OpenMP threads: a forked child of a process that did hangs at its
// first parallel region. So no unchecked fixtures that compute. A test has 120 s (CK_TIMEOUT_MULTIPLIER stretches it for sanitizers).
#include "kernels/base/spin.h"
#include "tests/simt/simt_state.h"
#include "tests/test.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int run(const struct suite_entry *e, int *n_run)
{
    if (simt_devices) simt_devices(0); // a suite that wants the emulated GPU says so
    SRunner *runner = srunner_create(e->make());
    double start = now_s();
    srunner_run_all(runner, CK_ENV);
    int n_failed = srunner_ntests_failed(runner);
    *n_run += srunner_ntests_run(runner);
    printf("%s: %.1f s\n", e->name, now_s() - start);
    fflush(stdout);
    srunner_free(runner);
    return n_failed;
}

int main(int argc, char **argv)
{
    spin_briefly(argv);
    setenv("CK_DEFAULT_TIMEOUT", "120", 0);
    setvbuf(stdout, NULL, _IOLBF, 0); // so that lines of the tests' processes and of Check come in order
    int n_run = 0, n_failed = 0, n_unknown = 0;
    if (chdir(test_root())) {
        perror(test_root());
        return EXIT_FAILURE;
    }
    for (const struct suite_entry *e = all_suites; argc < 2 && e->name; e++) n_failed += run(e, &n_run);
    for (int i = 1; i < argc; i++) {
        const struct suite_entry *e = all_suites;
        while (e->name && strcmp(e->name, argv[i])) e++;
        if (e->name) {
            n_failed += run(e, &n_run);
        } else {
            fprintf(stderr, "no suite %s; there are:", argv[i]);
            for (e = all_suites; e->name; e++) fprintf(stderr, " %s", e->name);
            fprintf(stderr, "\n");
            n_unknown++;
        }
    }
    if (argc < 2 && simt_report) n_failed += simt_report(); // each kernel must have run
    printf("Suites: %d tests, %d failed\n", n_run, n_failed);
    return n_failed || n_unknown ? EXIT_FAILURE : EXIT_SUCCESS;
}
