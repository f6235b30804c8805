// bf16 and f16: exhaustive against the definition, rounding to nearest even against double arithmetic.
#include "kernels/base/half.h"
#include "kernels/base/rng.h"
#include "tests/test.h"

#include <math.h>

START_TEST(every_bf16_survives_the_way_through_f32)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = bf16_to_f32((bf16)h);
        if (isnan(f))
            ck_assert(isnan(bf16_to_f32(f32_to_bf16(f))));
        else
            ck_assert_uint_eq(f32_to_bf16(f), h);
    }
}
END_TEST

START_TEST(f32_rounds_to_the_nearest_bf16_and_ties_to_even)
{
    for (uint64_t i = 0; i < 200000; i++) {
        uint32_t u = rng_block(1, 1, i).v[0];
        if (i % 3 == 0) u = (u & 0xffff0000u) | 0x8000u; // a tie
        float f;
        memcpy(&f, &u, 4);
        if (!isfinite(f)) continue;
        bf16 got = f32_to_bf16(f), down = (bf16)(u >> 16), up = (bf16)(down + 1);
        // The neighbours in magnitude; beyond the largest stands 2^128, which is infinity.
        double lo = bf16_to_f32(down), hi = (up & 0x7f80) == 0x7f80 ? copysign(0x1p128, lo) : (double)bf16_to_f32(up);
        double to_lo = fabs((double)f - lo), to_hi = fabs((double)f - hi);
        bf16 want = to_lo < to_hi ? down : to_hi < to_lo ? up : down & 1 ? up : down;
        ck_assert_uint_eq(got, want);
    }
}
END_TEST

START_TEST(every_f16_has_the_value_of_its_definition)
{
    for (uint32_t h = 0; h < 65536; h++) {
        int exp = (h >> 10) & 31, man = h & 0x3ff;
        float got = f16_to_f32((f16)h);
        if (exp == 31) {
            ck_assert(man ? isnan(got) : isinf(got));
        } else {
            double want = exp ? ldexp(1024 + man, exp - 25) : ldexp(man, -24);
            ck_assert_double_eq(got, h & 0x8000 ? -want : want);
        }
        ck_assert_int_eq(!!signbit(got), h >> 15);
    }
}
END_TEST

START_TEST(every_f16_survives_the_way_through_f32_and_what_lies_between_rounds_to_even)
{
    for (uint32_t h = 0; h < 0x7c00; h++) { // the finite ones from 0 on, and each with the next
        double lo = (double)f16_to_f32((f16)h), hi = h == 0x7bff ? 65536 : (double)f16_to_f32((f16)(h + 1)), mid = (lo + hi) / 2;
        ck_assert_uint_eq(f32_to_f16((float)lo), h);
        ck_assert_uint_eq(f32_to_f16((float)-lo), h | 0x8000);
        ck_assert_uint_eq(f32_to_f16((float)mid), h & 1 ? h + 1 : h);
        ck_assert_uint_eq(f32_to_f16(nextafterf((float)mid, 0)), h);
        ck_assert_uint_eq(f32_to_f16(nextafterf((float)mid, INFINITY)), h + 1);
    }
    ck_assert_uint_eq(f32_to_f16(INFINITY), 0x7c00);
    ck_assert(isnan(f16_to_f32(f32_to_f16(NAN))));
}
END_TEST

Suite *suite_half(void)
{
    Suite *s = suite_create("base: bf16 and f16");
    TCase *t = tcase_create("all");
    tcase_add_test(t, every_bf16_survives_the_way_through_f32);
    tcase_add_test(t, f32_rounds_to_the_nearest_bf16_and_ties_to_even);
    tcase_add_test(t, every_f16_has_the_value_of_its_definition);
    tcase_add_test(t, every_f16_survives_the_way_through_f32_and_what_lies_between_rounds_to_even);
    suite_add_tcase(s, t);
    return s;
}
