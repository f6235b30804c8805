// What every suite shares: Check, the way to small golden files and to large material, and short assertions on status.
#pragma once
#include "kernels/base/file.h"
#include "kernels/base/status.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

struct suite_entry {
    const char *name; // of tests/ROOM/test_NAME.c
    Suite *(*make)(void);
};
extern const struct suite_entry all_suites[]; // made by the Makefile from the file names; ends with {0}

// The checkout, or what holds its files elsewhere: $DISTILL_TEST_ROOT, else where the suites were built. Tests run in it, so that
// "teacher/tiny/moe" is a path.
const char *test_root(void);

// The path of `sub` in the material, real files of other makers that are not part of the project: $DISTILL_MATERIAL, else
// ../shared/material beside the checkout. NULL where it is absent, and then a line names the test that is skipped; the test returns. The
// path lives until the test ends.
#define test_material(sub) test_material_at(__func__, sub)
const char *test_material_at(const char *test, const char *sub);
// The path of tests/golden/<file>. Lives until the test ends.
const char *test_golden(const char *file);
// A fresh empty folder for this test, removed with all it holds when the test's process ends.
const char *test_tmpdir(void);

// The call must succeed; else its message is shown.
#define ck_ok(expr)                                                                                                                        \
    do {                                                                                                                                   \
        enum status ck_st_ = (expr);                                                                                                       \
        ck_assert_msg(ck_st_ == ST_OK, "%s: status %d: %s", #expr, ck_st_, err.text);                                                      \
    } while (0)
// The call must fail with this status and a message that holds `part`. Both use a local `struct err err`.
#define ck_fails(expr, wanted, part)                                                                                                       \
    do {                                                                                                                                   \
        enum status ck_st_ = (expr);                                                                                                       \
        ck_assert_msg(ck_st_ == (wanted), "%s: status %d, wanted %d: %s", #expr, ck_st_, (int)(wanted), err.text);                         \
        ck_assert_msg(strstr(err.text, part) != NULL, "%s: the message \"%s\" lacks \"%s\"", #expr, err.text, part);                       \
        err = (struct err){0};                                                                                                             \
    } while (0)
