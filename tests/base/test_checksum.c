// CRC-32C and SHA-256 against published vectors, the processor's instruction against the table.
#include "kernels/base/crc32c.h"
#include "kernels/base/rng.h"
#include "tests/test.h"

START_TEST(crc32c_gives_the_vectors_of_rfc_3720)
{
    uint8_t b[32]; // RFC 3720, B.4
    ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xE3069283u);
    memset(b, 0, 32);
    ck_assert_uint_eq(crc32c(0, b, 32), 0x8A9136AAu);
    memset(b, 0xff, 32);
    ck_assert_uint_eq(crc32c(0, b, 32), 0x62A8AB43u);
    for (int i = 0; i < 32; i++) b[i] = (uint8_t)i;
    ck_assert_uint_eq(crc32c(0, b, 32), 0x46DD794Eu);
    for (int i = 0; i < 32; i++) b[i] = (uint8_t)(31 - i);
    ck_assert_uint_eq(crc32c(0, b, 32), 0x113FDB5Cu);
    ck_assert_uint_eq(crc32c(0, "", 0), 0);
}
END_TEST

START_TEST(crc32c_of_parts_is_that_of_the_whole_and_the_table_agrees)
{
    uint8_t b[1000];
    for (size_t i = 0; i < sizeof b; i++) b[i] = (uint8_t)rng_below(1, 2, i, 256);
    for (size_t n = 0; n < 300; n++) {
        size_t cut = rng_below(3, 4, n, n + 1), at = n % 9; // unaligned starts too
        uint32_t whole = crc32c(0, b + at, n);
        ck_assert_uint_eq(crc32c(crc32c(0, b + at, cut), b + at + cut, n - cut), whole);
        ck_assert_uint_eq(crc32c_portable(0, b + at, n), whole);
    }
    for (uint32_t i = 0; i < 256; i++) { // the table made again, a byte each: crc32c_portable of ~i's remainder
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = (c >> 1) ^ (c & 1 ? 0x82f63b78u : 0);
        uint8_t byte = (uint8_t)(i ^ 0xff);
        ck_assert_uint_eq(crc32c_portable(0, &byte, 1), ~(c ^ 0x00ffffffu));
    }
}
END_TEST

START_TEST(sha256_gives_the_vectors_of_fips_180)
{
    struct err err = {0};
    char hex[65];
    sha256_hex("abc", 3, hex);
    ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex("", 0, hex);
    ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    char *path = path_join(test_tmpdir(), "million");
    char *a = mem_alloc(1000000);
    memset(a, 'a', 1000000);
    ck_ok(file_write_atomic(path, a, 1000000, &err));
    ck_ok(file_sha256(path, hex, &err));
    ck_assert_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    ck_fails(file_sha256("/nowhere/x", hex, &err), ST_BAD_INPUT, "/nowhere/x");
    mem_free(a);
    mem_free(path);
}
END_TEST

Suite *suite_checksum(void)
{
    Suite *s = suite_create("base: checksums");
    TCase *t = tcase_create("all");
    tcase_add_test(t, crc32c_gives_the_vectors_of_rfc_3720);
    tcase_add_test(t, crc32c_of_parts_is_that_of_the_whole_and_the_table_agrees);
    tcase_add_test(t, sha256_gives_the_vectors_of_fips_180);
    suite_add_tcase(s, t);
    return s;
}
