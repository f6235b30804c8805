// Arenas: alignment, marks, and a measured plan that equals the real run.
#include "kernels/base/arena.h"
#include "tests/test.h"

// Some planning code: allocations with a released middle part, as a step has.
static void plan(struct arena *a)
{
    arena_alloc(a, 1000);
    size_t mark = arena_mark(a);
    for (size_t i = 1; i < 50; i++) arena_alloc(a, i * 1001);
    arena_release(a, mark);
    arena_alloc(a, 77);
}

START_TEST(measuring_yields_exactly_what_the_real_run_needs)
{
    struct err err = {0};
    struct arena a;
    arena_measure(&a, "plan");
    ck_assert(a.measuring);
    plan(&a);
    size_t peak = a.peak, used = a.used;
    arena_free(&a);
    ck_assert_uint_gt(peak, used);
    ck_ok(arena_init(&a, "real", peak, &err)); // one byte less would be a BUG(): the next test
    plan(&a);
    ck_assert_uint_eq(a.peak, peak);
    ck_assert_uint_eq(a.used, used);
    arena_free(&a);
}
END_TEST

START_TEST(running_past_the_plan_is_a_bug)
{
    struct err err = {0};
    struct arena a;
    ck_ok(arena_init(&a, "small", 1 << 20, &err));
    arena_alloc(&a, 1 << 20);
    ck_assert_ptr_nonnull(freopen("/dev/null", "w", stderr)); // the BUG() to come is wanted
    arena_alloc(&a, 1);                                       // aborts
}
END_TEST

START_TEST(memory_is_aligned_and_writable)
{
    struct err err = {0};
    struct arena a;
    size_t size = (size_t)5 << 20; // more than a huge page
    ck_ok(arena_init(&a, "write", size, &err));
    ck_assert_uint_eq((uintptr_t)a.base % ((size_t)2 << 20), 0);
    for (size_t n = 1; a.used + n + ARENA_ALIGN < size; n = n * 3 + 1) {
        char *p = arena_alloc(&a, n);
        ck_assert_uint_eq((uintptr_t)p % ARENA_ALIGN, 0);
        memset(p, 7, n);
    }
    arena_release(&a, 0);
    char *all = arena_alloc(&a, size);
    all[0] = all[size - 1] = 1;
    arena_free(&a);
    ck_assert_ptr_null(a.base);
}
END_TEST

START_TEST(more_than_the_machine_has_is_refused_with_both_numbers)
{
    struct err err = {0};
    struct arena a;
    ck_fails(arena_init(&a, "weights", SIZE_MAX / 2 - 4096, &err), ST_FAIL, "GiB free");
    ck_fails(arena_init(&a, "weights", SIZE_MAX, &err), ST_FAIL, "weights needs");
    size_t free_bytes = mem_available_bytes();
    ck_assert_uint_gt(free_bytes, 1 << 20);
    ck_assert_uint_lt(free_bytes, (size_t)1 << 50);
}
END_TEST

START_TEST(what_no_machine_has_is_measured_and_refused)
{
    struct err err = {0};
    struct arena a;
    arena_measure(&a, "plan");
    for (int i = 0; i < 5; i++) arena_alloc(&a, SIZE_MAX / 3);
    arena_alloc(&a, SIZE_MAX - 1);
    ck_assert_uint_gt(a.peak, SIZE_MAX / 3 * 1);
    size_t need = a.peak;
    arena_release(&a, 0);
    ck_fails(arena_init(&a, "weights", need, &err), ST_FAIL, "out of memory: weights needs");
}
END_TEST

Suite *suite_arena(void)
{
    Suite *s = suite_create("base: arena");
    TCase *t = tcase_create("all");
    tcase_add_test(t, what_no_machine_has_is_measured_and_refused);
    tcase_add_test(t, measuring_yields_exactly_what_the_real_run_needs);
    tcase_add_test_raise_signal(t, running_past_the_plan_is_a_bug, 6); // SIGABRT
    tcase_add_test(t, memory_is_aligned_and_writable);
    tcase_add_test(t, more_than_the_machine_has_is_refused_with_both_numbers);
    suite_add_tcase(s, t);
    return s;
}
