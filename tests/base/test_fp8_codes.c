// e4m3 and e8m0: every code against the definition, rounding against the nearest of all codes, scales against their formula.
#include "kernels/base/fp8.h"
#include "kernels/base/rng.h"
#include "tests/test.h"

#include <math.h>

static double value_of(int c) // by definition; NaN codes aside
{
    const int exp = c >> 3 & 15, man = c & 7;
    const double size = exp ? ldexp(8 + man, exp - 10) : ldexp(man, -9);
    return c & 0x80 ? -size : size;
}

START_TEST(every_e4m3_has_the_value_of_its_definition_and_survives_the_way_through_f32)
{
    for (int c = 0; c < 256; c++) {
        const float f = e4m3_to_f32((e4m3)c);
        if ((c & 0x7f) == 0x7f) {
            ck_assert(isnan(f));
        } else {
            ck_assert_double_eq(f, value_of(c));
            ck_assert_int_eq(!!signbit(f), c >> 7);
        }
        ck_assert_uint_eq(f32_to_e4m3(f), c);
    }
}
END_TEST

// The nearest of the 127 magnitudes; of two equally near, the one with the even code.
static int nearest(double size)
{
    int best = 0;
    for (int c = 1; c < 0x7f; c++) {
        const double d = fabs(value_of(c) - size), to_best = fabs(value_of(best) - size);
        if (d < to_best || (d == to_best && c % 2 == 0)) best = c;
    }
    return best;
}

static void check_rounding(float f)
{
    const int want = nearest(fabs((double)f)) | (signbit(f) ? 0x80 : 0);
    if (f32_to_e4m3(f) != want || f32_round_e4m3(f) != value_of(want))
        ck_abort_msg("%a: code %d, value %a; wanted %d, %a", f, f32_to_e4m3(f), f32_round_e4m3(f), want, value_of(want));
}

START_TEST(f32_rounds_to_the_nearest_e4m3_ties_to_even_and_saturates)
{
    for (int c = 0; c < 0x7e; c++) { // ties, and their neighbours on both sides
        const float tie = (float)((value_of(c) + value_of(c + 1)) / 2);
        for (int s = -1; s <= 1; s += 2) {
            check_rounding((float)s * tie);
            check_rounding((float)s * nextafterf(tie, 0));
            check_rounding((float)s * nextafterf(tie, 1e9f));
        }
    }
    for (uint64_t i = 0; i < 20000; i++) {
        const struct rng_block w = rng_block(1, 2, i);
        check_rounding(ldexpf((float)(int32_t)w.v[0], (int)(w.v[1] % 24) - 42));
    }
    static const float far[] = {448, 449, 464, 465, 480, 1e30f, INFINITY, 0, 1e-40f};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) check_rounding(far[i]), check_rounding(-far[i]);
    ck_assert(isnan(f32_round_e4m3(NAN)));
    ck_assert_uint_eq(f32_to_e4m3(NAN) & 0x7f, 0x7f);
}
END_TEST

START_TEST(e8m0_is_a_power_of_two)
{
    for (int c = 0; c < 255; c++) ck_assert_double_eq(e8m0_to_f32((e8m0)c), ldexp(1, c - 127));
    ck_assert(isnan(e8m0_to_f32(255)));
}
END_TEST

START_TEST(scales_follow_the_recipe)
{
    ck_assert_float_eq(fp8_scale(0, false), 1e-4f / 448);
    ck_assert_float_eq(fp8_scale(3, false), 3.0f / 448);
    for (int e = -10; e < 10; e++) {
        const float s = ldexpf(1, e);
        ck_assert_float_eq(fp8_scale(448 * s, true), s); // a power of two stays
        ck_assert_float_eq(fp8_scale(448 * s * 1.0001f, true), 2 * s);
        ck_assert_float_eq(fp8_scale(448 * s * 0.9999f, true), s);
    }
    ck_assert_float_eq(fp8_scale(0, true), 0x1p-22f); // 2.2e-7 rounded up
}
END_TEST

Suite *suite_fp8_codes(void)
{
    Suite *s = suite_create("base: fp8");
    TCase *t = tcase_create("all");
    tcase_add_test(t, every_e4m3_has_the_value_of_its_definition_and_survives_the_way_through_f32);
    tcase_add_test(t, f32_rounds_to_the_nearest_e4m3_ties_to_even_and_saturates);
    tcase_add_test(t, e8m0_is_a_power_of_two);
    tcase_add_test(t, scales_follow_the_recipe);
    suite_add_tcase(s, t);
    return s;
}
