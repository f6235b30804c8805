// Files: atomic replacement under failure, mapping, copying, folders.
#include "tests/test.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char *text_of(const char *path)
{
    struct err err = {0};
    struct buf b = {0};
    ck_ok(file_read(&b, path, 1 << 20, &err));
    return b.data;
}

static int n_entry(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    while (readdir(d)) n++;
    closedir(d);
    return n - 2; // . and ..
}

START_TEST(write_atomic_replaces_and_leaves_no_temporary_file)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *path = path_join(dir, "f");
    ck_ok(file_write_atomic(path, "old", 3, &err));
    ck_ok(file_write_atomic(path, "newer", 5, &err));
    char *text = text_of(path);
    ck_assert_str_eq(text, "newer");
    ck_assert_int_eq(n_entry(dir), 1);
    ck_ok(file_write_atomic(path, NULL, 0, &err));
    mem_free(text);
    text = text_of(path);
    ck_assert_str_eq(text, "");
    mem_free(text);
    mem_free(path);
}
END_TEST

START_TEST(a_write_cut_short_keeps_the_old_file_and_removes_its_own)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *path = path_join(dir, "f"), *big = mem_alloc(1 << 20);
    ck_ok(file_write_atomic(path, "old", 3, &err));
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {100000, 100000}; // a write past it is short first, then fails
    setrlimit(RLIMIT_FSIZE, &limit);
    ck_fails(file_write_atomic(path, big, 1 << 20, &err), ST_FAIL, path);
    char *text = text_of(path);
    ck_assert_str_eq(text, "old");
    ck_assert_int_eq(n_entry(dir), 1);
    mem_free(text);
    mem_free(big);
    mem_free(path);
}
END_TEST

START_TEST(a_file_that_comes_in_pieces_appears_whole_or_not_at_all)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *path = path_join(dir, "f");
    struct file_out *f;
    ck_ok(file_out_open(&f, path, &err));
    ck_ok(file_out_put(f, "one ", 4, &err));
    ck_assert(!file_exists(path));
    ck_ok(file_out_put(f, "two", 3, &err));
    ck_ok(file_out_commit(f, &err));
    char *text = text_of(path);
    ck_assert_str_eq(text, "one two");
    ck_ok(file_out_open(&f, path, &err));
    ck_ok(file_out_put(f, "lost", 4, &err));
    file_out_abort(f);
    file_out_abort(NULL);
    ck_assert_int_eq(n_entry(dir), 1);
    mem_free(text);
    text = text_of(path);
    ck_assert_str_eq(text, "one two");
    mem_free(text);
    mem_free(path);
}
END_TEST

START_TEST(a_folder_that_is_missing_or_a_file_is_named)
{
    struct err err = {0};
    ck_fails(file_write_atomic("/nowhere/at/all", "x", 1, &err), ST_BAD_INPUT, "/nowhere/at/all");
    ck_fails(dir_make("/dev/null/x", &err), ST_BAD_INPUT, "/dev/null");
    struct buf b = {0};
    ck_fails(file_read(&b, test_tmpdir(), 100, &err), ST_BAD_INPUT, "Is a directory");
    ck_fails(file_read(&b, "/nowhere", 100, &err), ST_BAD_INPUT, "No such file");
    struct file_map m;
    ck_fails(file_map(&m, test_tmpdir(), &err), ST_BAD_INPUT, "is a folder");
    ck_fails(file_map(&m, "/dev/null", &err), ST_BAD_INPUT, "not a regular file");
    buf_free(&b);
}
END_TEST

START_TEST(read_refuses_more_than_the_limit)
{
    struct err err = {0};
    char *path = path_join(test_tmpdir(), "f");
    struct buf b = {0};
    ck_ok(file_write_atomic(path, "0123456789", 10, &err));
    ck_fails(file_read(&b, path, 9, &err), ST_BAD_INPUT, "larger than the 9 bytes");
    buf_clear(&b);
    ck_ok(file_read(&b, path, 10, &err));
    ck_assert_uint_eq(b.size, 10);
    buf_free(&b);
    mem_free(path);
}
END_TEST

START_TEST(map_and_copy_give_the_bytes)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *a = path_join(dir, "a"), *b = path_join(dir, "b"), *empty = path_join(dir, "empty");
    uint8_t bytes[200000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + i / 256);
    ck_ok(file_write_atomic(a, bytes, sizeof bytes, &err));
    ck_ok(file_copy(a, b, &err));
    struct file_map m;
    ck_ok(file_map(&m, b, &err));
    ck_assert_uint_eq(m.size, sizeof bytes);
    ck_assert_mem_eq(m.data, bytes, sizeof bytes);
    ck_assert_str_eq(m.path, b);
    file_unmap(&m);
    ck_ok(file_write_atomic(empty, "", 0, &err));
    ck_ok(file_map(&m, empty, &err));
    ck_assert_ptr_null(m.data);
    ck_assert_uint_eq(m.size, 0);
    file_unmap(&m);
    ck_fails(file_copy("/nowhere", b, &err), ST_BAD_INPUT, "/nowhere");
    ck_assert_int_eq(n_entry(dir), 3);
    mem_free(a);
    mem_free(b);
    mem_free(empty);
}
END_TEST

START_TEST(dir_make_makes_parents_and_dir_remove_follows_no_link)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *deep = path_join(dir, "x/y//z/"), *kept = path_join(dir, "kept"), *link = path_join(dir, "x/y/link"), *x = path_join(dir, "x");
    ck_ok(dir_make(deep, &err));
    ck_ok(dir_make(deep, &err));
    ck_ok(dir_make("/", &err));
    ck_ok(dir_make(kept, &err));
    ck_assert_int_eq(symlink(kept, link), 0);
    char *file = path_join(deep, "f"), *inside = path_join(kept, "f");
    ck_ok(file_write_atomic(file, "1", 1, &err));
    ck_ok(file_write_atomic(inside, "1", 1, &err));
    ck_ok(dir_remove(x, &err));
    ck_assert(!file_exists(x));
    ck_assert(file_exists(inside));
    ck_fails(dir_remove(x, &err), ST_BAD_INPUT, "x");
    mem_free(deep);
    mem_free(kept);
    mem_free(link);
    mem_free(x);
    mem_free(file);
    mem_free(inside);
}
END_TEST

START_TEST(names_of_a_folder_are_sorted_and_those_that_end_so)
{
    static const char *const put[] = {"b.jinja", "a.jinja", "a.jinja.txt", "jinja", ".jinja"};
    struct err err = {0};
    const char *dir = test_tmpdir();
    char **names, *none = path_join(dir, "none");
    for (size_t i = 0; i < sizeof put / sizeof *put; i++) {
        char *path = path_join(dir, put[i]);
        ck_ok(file_write_atomic(path, "1", 1, &err));
        mem_free(path);
    }
    size_t n = dir_names(&names, dir, ".jinja");
    ck_assert_uint_eq(n, 3);
    ck_assert_str_eq(names[0], ".jinja");
    ck_assert_str_eq(names[1], "a.jinja");
    ck_assert_str_eq(names[2], "b.jinja");
    names_free(names, n);
    ck_assert_uint_eq(dir_names(&names, none, ""), 0);
    names_free(names, 0);
    mem_free(none);
}
END_TEST

Suite *suite_file(void)
{
    Suite *s = suite_create("base: files");
    TCase *t = tcase_create("all");
    tcase_add_test(t, write_atomic_replaces_and_leaves_no_temporary_file);
    tcase_add_test(t, a_write_cut_short_keeps_the_old_file_and_removes_its_own);
    tcase_add_test(t, a_file_that_comes_in_pieces_appears_whole_or_not_at_all);
    tcase_add_test(t, a_folder_that_is_missing_or_a_file_is_named);
    tcase_add_test(t, read_refuses_more_than_the_limit);
    tcase_add_test(t, map_and_copy_give_the_bytes);
    tcase_add_test(t, dir_make_makes_parents_and_dir_remove_follows_no_link);
    tcase_add_test(t, names_of_a_folder_are_sorted_and_those_that_end_so);
    suite_add_tcase(s, t);
    return s;
}
