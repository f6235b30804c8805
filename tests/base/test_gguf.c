// The GGUF container: what is written is read back to the bit, and no lie in a header passes.
#include "kernels/base/gguf.h"
#include "tests/test.h"

#include <unistd.h>

static const char *in_tmp(const char *dir, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

// Every type the writer knows, and two tensors whose sizes need padding.
static void write_sample(const char *path)
{
    struct err err = {0};
    struct gguf_writer *w;
    const float a[3] = {1.5f, -2.25f, 3};
    const uint8_t q[68] = {1, 2, 3};
    ck_ok(gguf_create(&w, path, &err));
    gguf_put_string(w, "general.architecture", "llama");
    gguf_put_u32(w, "llama.block_count", 4000000000u);
    gguf_put_f32(w, "llama.eps", 1e-5f);
    gguf_put_bool(w, "yes", true);
    gguf_put_i32s(w, "types", (int32_t[]){1, -3, 4}, 3);
    gguf_put_bools(w, "flags", (bool[]){true, false}, 2);
    gguf_put_strings(w, "words", (struct gguf_text[]){{"a b", 3}, {"", 0}, {"\0x", 2}}, 3);
    gguf_declare(w, "z", GGML_F32, 1, (int64_t[]){3});
    gguf_declare(w, "a", GGML_Q8_0, 2, (int64_t[]){2, 32});
    ck_ok(gguf_begin(w, &err));
    ck_ok(gguf_put(w, a, 4, &err)); // in pieces
    ck_ok(gguf_put(w, a + 1, 8, &err));
    ck_ok(gguf_put(w, q, 68, &err));
    ck_ok(gguf_finish(w, &err));
}

START_TEST(what_is_written_is_read_back)
{
    struct err err = {0};
    struct gguf g;
    const char *path = in_tmp(test_tmpdir(), "m.gguf");
    write_sample(path);
    ck_assert(gguf_is(path));
    ck_ok(gguf_open(&g, path, &err));
    json_t *v = gguf_json(&g, ""), *llama = gguf_json(&g, "llama.");
    ck_assert_str_eq(json_string_value(json_object_get(v, "general.architecture")), "llama");
    ck_assert_int_eq(json_integer_value(json_object_get(v, "llama.block_count")), 4000000000);
    ck_assert(json_real_value(json_object_get(v, "llama.eps")) == (double)1e-5f);
    ck_assert(json_is_true(json_object_get(v, "yes")));
    ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(v, "types"), 1)), -3);
    ck_assert(json_is_false(json_array_get(json_object_get(v, "flags"), 1)));
    ck_assert_uint_eq(json_array_size(json_object_get(v, "words")), 3);
    ck_assert_uint_eq(json_string_length(json_array_get(json_object_get(v, "words"), 2)), 2);
    ck_assert_uint_eq(json_object_size(llama), 2);
    json_decref(v);
    json_decref(llama);
    const struct gguf_tensor *z = gguf_find_tensor(&g, "z"), *a = gguf_find_tensor(&g, "a");
    ck_assert(z && a && !gguf_find_tensor(&g, "b"));
    ck_assert_int_eq(z->rank, 1);
    ck_assert_uint_eq(z->size_bytes, 12);
    ck_assert(((const float *)(const void *)z->data)[1] == -2.25f);
    ck_assert_uint_eq(a->size_bytes, 68);
    ck_assert(a->shape[0] == 2 && a->shape[1] == 32 && a->data[2] == 3);
    gguf_close(&g);
}
END_TEST

START_TEST(a_file_cut_anywhere_is_refused)
{
    struct err err = {0};
    struct gguf g;
    struct buf all = {0};
    const char *dir = test_tmpdir();
    char path[256], cut[256];
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    snprintf(cut, sizeof cut, "%s/cut.gguf", dir);
    write_sample(path);
    ck_ok(file_read(&all, path, 1 << 20, &err));
    size_t whole = all.size - 28; // the last padding may be missing
    for (size_t n = 0; n < whole; n += n < 600 ? 1 : 7) {
        FILE *f = fopen(cut, "wb");
        ck_assert_uint_eq(fwrite(all.data, 1, n, f), n);
        fclose(f);
        ck_fails(gguf_open(&g, cut, &err), ST_BAD_INPUT, cut);
    }
    ck_ok(file_write_atomic(cut, all.data, whole, &err));
    ck_ok(gguf_open(&g, cut, &err));
    gguf_close(&g);
    buf_free(&all);
}
END_TEST

// ---- lies: headers made byte by byte ----

static void u32(struct buf *b, uint32_t v)
{
    buf_put(b, &v, 4);
}
static void u64(struct buf *b, uint64_t v)
{
    buf_put(b, &v, 8);
}
static void str(struct buf *b, const char *s)
{
    u64(b, strlen(s));
    buf_puts(b, s);
}
static void head(struct buf *b, uint32_t version, uint64_t n_tensor, uint64_t n_kv)
{
    buf_clear(b);
    buf_puts(b, "GGUF");
    u32(b, version);
    u64(b, n_tensor);
    u64(b, n_kv);
}
static void tensor(struct buf *b, const char *name, uint32_t rank, uint64_t dim, uint32_t type, uint64_t offset)
{
    str(b, name);
    u32(b, rank);
    for (uint32_t i = 0; i < rank && i < 9; i++) u64(b, dim);
    u32(b, type);
    u64(b, offset);
}
static void refused(struct buf *b, const char *part)
{
    struct err err = {0};
    struct gguf g;
    const char *path = in_tmp(test_tmpdir(), "lie.gguf");
    for (int i = 0; i < 4096; i++) buf_putc(b, 0);
    ck_ok(file_write_atomic(path, b->data, b->size, &err));
    ck_fails(gguf_open(&g, path, &err), ST_BAD_INPUT, part);
}

START_TEST(headers_that_lie_are_refused_by_name)
{
    struct buf b = {0};
    buf_puts(&b, "safetensors?");
    refused(&b, "not a GGUF file");
    head(&b, 1, 0, 0);
    refused(&b, "version 1, wanted 2 or 3");
    head(&b, 0x03000000, 0, 0);
    refused(&b, "big-endian");
    head(&b, 3, UINT64_MAX, 0);
    refused(&b, "the number of tensors");
    head(&b, 3, 0, 1 << 20);
    refused(&b, "the number of keys");
    head(&b, 3, 0, 1);
    u64(&b, UINT64_MAX);
    refused(&b, "a key says that it has 18446744073709551615 bytes");
    head(&b, 3, 0, 1), str(&b, ""), u32(&b, 4), u32(&b, 1);
    refused(&b, "a key of 0 bytes");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 13);
    refused(&b, "key k: value type 13 is not known");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 9), u32(&b, 9), u64(&b, 1);
    refused(&b, "key k: an array of type 9");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 9), u32(&b, 12), u64(&b, UINT64_MAX / 8 + 1);
    refused(&b, "key k: 2305843009213693952 items");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 9), u32(&b, 8), u64(&b, 1000000);
    refused(&b, "a string");
    head(&b, 3, 0, 1), str(&b, "k"), u32(&b, 7), buf_putc(&b, 2);
    refused(&b, "a bool of value 2");
    head(&b, 3, 0, 2), str(&b, "k"), u32(&b, 4), u32(&b, 1), str(&b, "k"), u32(&b, 4), u32(&b, 1);
    refused(&b, "key k stands there twice");
    for (int i = 0; i < 3; i++) {
        head(&b, 3, 0, 1), str(&b, "general.alignment"), u32(&b, 4), u32(&b, (uint32_t[]){0, 48, 4}[i]);
        refused(&b, "general.alignment");
    }
    head(&b, 3, 1, 0), tensor(&b, "t", 5, 1, 0, 0);
    refused(&b, "tensor t: 5 dimensions");
    head(&b, 3, 1, 0), tensor(&b, "t", 0, 1, 0, 0);
    refused(&b, "tensor t: 0 dimensions");
    head(&b, 3, 1, 0), tensor(&b, "0123456789012345678901234567890123456789012345678901234567890123", 1, 1, 0, 0);
    refused(&b, "a tensor's name of 64 bytes");
    head(&b, 3, 1, 0), tensor(&b, "t", 3, 1u << 31, 0, 0);
    refused(&b, "tensor t: a dimension");
    head(&b, 3, 1, 0), tensor(&b, "t", 2, 0, 0, 0);
    refused(&b, "tensor t: a dimension of 0");
    head(&b, 3, 1, 0), tensor(&b, "t", 1, 32, 31, 0);
    refused(&b, "tensor t: type 31 is not known; convert the model to F16, BF16 or Q8_0");
    head(&b, 3, 1, 0), tensor(&b, "t", 1, 33, 8, 0);
    refused(&b, "blocks of 32");
    head(&b, 3, 1, 0), tensor(&b, "t", 1, 32, 0, 32);
    refused(&b, "tensor t: offset 32, wanted 0");
    head(&b, 3, 2, 0), tensor(&b, "t", 1, 3, 0, 0), tensor(&b, "u", 1, 3, 0, 12);
    refused(&b, "tensor u: offset 12, wanted 32");
    head(&b, 3, 2, 0), tensor(&b, "t", 1, 3, 0, 0), tensor(&b, "t", 1, 3, 0, 32);
    refused(&b, "tensor t stands there twice");
    head(&b, 3, 1, 0), tensor(&b, "t", 1, 1 << 20, 0, 0);
    refused(&b, "truncated");
    buf_free(&b);
}
END_TEST

START_TEST(a_failed_write_leaves_nothing)
{
    struct err err = {0};
    struct gguf_writer *w;
    const char *dir = test_tmpdir();
    char path[256];
    ck_fails(gguf_create(&w, in_tmp(dir, "no/such/folder.gguf"), &err), ST_BAD_INPUT, "no/such/folder.gguf");
    snprintf(path, sizeof path, "%s", in_tmp(dir, "m.gguf"));
    ck_ok(gguf_create(&w, path, &err));
    gguf_declare(w, "t", GGML_F32, 1, (int64_t[]){8});
    ck_ok(gguf_begin(w, &err));
    gguf_abort(w);
    ck_assert(!file_exists(path));
    ck_assert_int_eq(rmdir(dir), 0); // and no temporary
}
END_TEST

Suite *suite_gguf(void)
{
    Suite *s = suite_create("gguf");
    TCase *t = tcase_create("container");
    tcase_add_test(t, what_is_written_is_read_back);
    tcase_add_test(t, a_file_cut_anywhere_is_refused);
    tcase_add_test(t, headers_that_lie_are_refused_by_name);
    tcase_add_test(t, a_failed_write_leaves_nothing);
    suite_add_tcase(s, t);
    return s;
}
