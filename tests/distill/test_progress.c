// Progress when piped, and the two signals: the first asks, the second kills.
#include "distill/progress.h"
#include "distill/signals.h"
#include "tests/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
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

#define LINE "\r\033[Kgen  7 samples  0.0 sample/s" // 28 columns
// What a terminal of 50 columns gets of one step. False: this machine makes no terminals.
static bool on_a_terminal(char *got, size_t size, const char *text, const char *tail)
{
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    const struct winsize w = {.ws_row = 24, .ws_col = 50};
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) return false;
    ck_assert_int_eq(ioctl(terminal, TIOCSWINSZ, &w), 0);
    ck_assert_ptr_nonnull(freopen(ptsname(terminal), "w", stderr));
    struct progress p = progress_start("gen", "sample", 0, 7, NULL, false);
    p.tail = tail;
    progress_step(&p, 7, 0, "%s", text);
    fflush(stderr);
    const ssize_t n = read(terminal, got, size - 1);
    ck_assert_int_gt(n, 0);
    got[n] = '\0';
    close(terminal);
    return true;
}

START_TEST(on_a_terminal_the_line_is_as_wide_as_that)
{
    static const struct {
        const char *text, *tail, *line;
    } cases[] = {
        {"x", NULL, LINE "  x"},
        {"x", "and so on, and so on", LINE "  x  … on, and so on"},
        {"", "and so on", LINE "  …and so on"},
        {"0123456789", "and so on, and so on", LINE "  0123456789"}, // too little is left
        {"0123456789abcdefghijk", NULL, LINE "  0123456789abcdefghi"},
        {"0123456789abcdefg\u4e2d\u6587", NULL, LINE "  0123456789abcdefg\u4e2d"}, // two columns each
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char got[512];
        if (!on_a_terminal(got, sizeof got, cases[i].text, cases[i].tail)) {
            printf("skipped: %s (no pseudo-terminal)\n", __func__);
            return;
        }
        ck_assert_str_eq(got, cases[i].line);
    }
}
END_TEST

START_TEST(the_end_of_a_text_is_whole_characters_of_that_width)
{
    static const struct {
        const char *text;
        size_t columns;
        const char *end;
    } cases[] = {{"abc", 9, "abc"},
                 {"abc", 2, "bc"},
                 {"abc", 0, ""},
                 {"", 3, ""},
                 {"\u4e2d\u6587", 4, "\u4e2d\u6587"},
                 {"\u4e2d\u6587", 3, "\u6587"},
                 {"a\u0301b\u0301", 1, "b\u0301"},
                 {"a\u0301b", 1, "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) ck_assert_str_eq(text_end(cases[i].text, cases[i].columns), cases[i].end);
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
    tcase_add_test(t, on_a_terminal_the_line_is_as_wide_as_that);
    tcase_add_test(t, the_end_of_a_text_is_whole_characters_of_that_width);
    tcase_add_test(t, the_first_signal_asks_and_the_second_kills);
    suite_add_tcase(s, t);
    return s;
}
