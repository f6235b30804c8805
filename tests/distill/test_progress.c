// Progress when piped, and the two signals: the first asks, the second kills.
#include "distill/progress.h"
#include "distill/signals.h"
#include "tests/test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

// From here on stderr goes to a file, whose path is returned.
static char *catch_stderr(void)
{
    char *path = path_join(test_tmpdir(), "stderr");
    ck_assert_ptr_nonnull(freopen(path, "w", stderr));
    return path;
}

static char *caught(const char *path)
{
    struct err err = {0};
    struct buf b = {0};
    fflush(stderr);
    ck_ok(file_read(&b, path, 1 << 20, &err));
    return b.data;
}

START_TEST(piped_it_is_a_plain_line_a_step)
{
    char *path = catch_stderr();
    struct progress p = progress_start("train", "step", 3, 1, "tok", false);
    p.start_s -= 10; // as if ten seconds had passed
    progress_step(&p, 2, 20000, "loss %.4f", 1.25);
    progress_note(&p, "step %d: saved", 2);
    progress_step(&p, 3, 40000, "loss %.4f", 1.0);
    progress_end(&p);
    char *text = caught(path);
    ck_assert_str_eq(
        text, "train  2/3 steps  2.0k tok/s  loss 1.2500  ETA 10s\nstep 2: saved\ntrain  3/3 steps  4.0k tok/s  loss 1.0000  in 10s\n");
    mem_free(text);
    mem_free(path);
}
END_TEST

START_TEST(quiet_says_nothing)
{
    char *path = catch_stderr();
    struct progress p = progress_start("gen", "sample", 0, 0, NULL, true);
    progress_step(&p, 2, 0, NULL);
    progress_note(&p, "x");
    progress_end(&p);
    char *text = caught(path);
    ck_assert_str_eq(text, "");
    mem_free(text);
    mem_free(path);
}
END_TEST

START_TEST(plain_lines_may_be_spaced_in_time_but_the_last_is_printed)
{
    char *path = catch_stderr();
    struct progress p = progress_start("gen", "sample", 100, 0, NULL, false);
    p.plain_every_s = 1000;
    for (int i = 1; i <= 100; i++) progress_step(&p, i, 0, NULL);
    char *text = caught(path);
    int n_line = 0;
    for (char *c = text; *c; c++) n_line += *c == '\n';
    ck_assert_int_eq(n_line, 2);
    ck_assert_ptr_nonnull(strstr(text, "gen  100/100 samples"));
    mem_free(text);
    mem_free(path);
}
END_TEST

START_TEST(the_first_signal_asks_and_the_second_kills)
{
    pid_t child = fork();
    if (!child) {
        signals_install(true);
        if (stop_requested()) _exit(1);
        raise(SIGTERM);
        if (!stop_requested()) _exit(2);
        raise(SIGINT);
        _exit(3);
    }
    int status;
    waitpid(child, &status, 0);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT, "status %x", status);
}
END_TEST

Suite *suite_progress(void)
{
    Suite *s = suite_create("distill: progress and signals");
    TCase *t = tcase_create("all");
    tcase_add_test(t, piped_it_is_a_plain_line_a_step);
    tcase_add_test(t, quiet_says_nothing);
    tcase_add_test(t, plain_lines_may_be_spaced_in_time_but_the_last_is_printed);
    tcase_add_test(t, the_first_signal_asks_and_the_second_kills);
    suite_add_tcase(s, t);
    return s;
}
