// The trace store: what is written is read back bit for bit, whatever happens to the writer.
#include "kernels/base/crc32c.h"
#include "kernels/base/rng.h"
#include "tests/datasets/store_helpers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct targets_spec SPEC_NONE = {0};

// dir/name; the last eight live.
static const char *in(const char *dir, const char *name)
{
    static char *path[8];
    static int turn;
    char **p = &path[turn++ % 8];
    char *joined = path_join(dir, name); // before freeing: dir may be an older one
    mem_free(*p);
    return *p = joined;
}

static long size_of(const char *path)
{
    struct stat st;
    ck_assert_msg(!stat(path, &st), "%s: %s", path, strerror(errno));
    return (long)st.st_size;
}

// Without the fsync of file_copy: the tests copy thousands of times.
static void copy_store(const char *from, const char *to)
{
    struct err err = {0};
    DIR *d = opendir(from);
    struct dirent *e;
    if (file_exists(to)) ck_ok(dir_remove(to, &err));
    ck_ok(dir_make(to, &err));
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.') continue;
        struct buf b = {0};
        ck_ok(file_read(&b, in(from, e->d_name), 1 << 24, &err));
        FILE *f = fopen(in(to, e->d_name), "wb");
        ck_assert_uint_eq(fwrite(b.data, 1, b.size, f), b.size);
        fclose(f);
        buf_free(&b);
    }
    closedir(d);
}

static void ck_files_equal(const char *a, const char *b)
{
    struct err err = {0};
    struct buf x = {0}, y = {0};
    ck_ok(file_read(&x, a, 1 << 24, &err));
    ck_ok(file_read(&y, b, 1 << 24, &err));
    ck_assert_msg(x.size == y.size && !memcmp(x.data, y.data, x.size), "%s and %s differ", a, b);
    buf_free(&x);
    buf_free(&y);
}

static void flip(const char *path, long at, int bit)
{
    int fd = open(path, O_RDWR);
    unsigned char c;
    ck_assert_int_eq(pread(fd, &c, 1, at), 1);
    c ^= (unsigned char)(1 << bit);
    ck_assert_int_eq(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static const struct targets_spec *const SPECS[] = {&spec_topk, &spec_sampled, &SPEC_NONE};

START_TEST(what_is_appended_is_read_back_bit_for_bit)
{
    const char *dir = in(test_tmpdir(), "deep/store");
    fill_store(dir, SPECS[_i], 7, 0);
    ck_store_is(dir, SPECS[_i], 7);
    ck_assert(file_exists(in(dir, "targets-00000.bin")) == (SPECS[_i]->kind != TARGETS_NONE));
}
END_TEST

START_TEST(appending_goes_on_where_it_ended)
{
    const char *dir = test_tmpdir(), *whole = test_tmpdir();
    for (int n = 0; n <= 6; n += 2) fill_store(dir, &spec_topk, n, 0);
    fill_store(whole, &spec_topk, 6, 0);
    ck_store_is(dir, &spec_topk, 6);
    for (const char *const *f = (const char *const[]){"manifest.json", "traces-00000.jsonl", "targets-00000.bin", NULL}; *f; f++)
        ck_files_equal(in(dir, *f), in(whole, *f));
}
END_TEST

START_TEST(full_shards_are_followed_by_new_ones)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    fill_store(dir, &spec_topk, 3, 1); // each sample is over the size: a shard each
    fill_store(dir, &spec_topk, 5, 1);
    ck_assert(file_exists(in(dir, "traces-00004.jsonl")) && !file_exists(in(dir, "traces-00005.jsonl")));
    ck_store_is(dir, &spec_topk, 5);
    struct store *st;
    ck_ok(store_open_read(&st, dir, &err));
    ck_assert_uint_eq(json_array_size(json_object_get(store_manifest(st), "shards")), 5);
    ck_ok(store_close(st, &err));
    // A shard that a human removed is made again; a file of it alone is not enough.
    unlink(in(dir, "targets-00002.bin"));
    ck_fails(store_open_read(&st, dir, &err), ST_FAIL, "targets-00002.bin: missing");
    unlink(in(dir, "traces-00002.jsonl"));
    ck_fails(store_verify(dir, NULL, NULL, &err), ST_FAIL, "lists traces-00002.jsonl, which is missing");
    fill_store(dir, &spec_topk, 5, 1);
    ck_store_is(dir, &spec_topk, 5);
}
END_TEST

// A process that appends what is missing of n samples and ends without closing.
static void append_and_die(const char *dir, int n)
{
    pid_t child = fork();
    if (!child) {
        struct err err = {0};
        struct store *st;
        json_t *identity = test_identity("abc");
        if (store_open_write(&st, dir, identity, &spec_topk, &err)) _exit(1);
        for (int i = (int)store_n_sample(st); i < n; i++) {
            struct sample s;
            struct targets t;
            make_sample(&s, &t, &spec_topk, i);
            if (store_append(st, &s, &t, &err)) _exit(1);
        }
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
}

// Each file cut at each byte, as by a kill or a lost machine, then opened again and filled up: the same store, byte for byte.
START_TEST(a_file_cut_at_any_byte_is_mended_by_appending_again)
{
    enum { N = 2 };
    const char *whole = test_tmpdir(), *dir = test_tmpdir();
    const char *const file[] = {"traces-00000.jsonl", "targets-00000.bin"};
    struct err err = {0};
    fill_store(whole, &spec_topk, N, 0);
    long size = size_of(in(whole, file[_i]));
    for (long at = 0; at < size; at++) {
        copy_store(whole, dir);
        ck_assert_int_eq(truncate(in(dir, file[_i]), at), 0);
        struct store *st;
        ck_ok(store_open_read(&st, dir, &err)); // reading passes over the tail and changes nothing
        size_t n = store_n_sample(st);
        ck_assert_uint_lt(n, N);
        for (size_t k = 0; k < n; k++) {
            struct sample s;
            struct targets t;
            ck_ok(store_read(st, k, &s, &t, &err));
            sample_free(&s);
            targets_free(&t);
        }
        ck_ok(store_close(st, &err));
        ck_assert_int_eq(size_of(in(dir, file[_i])), at);
        ck_assert_int_eq(store_verify(dir, NULL, NULL, &err), ST_FAIL); // the manifest vouched for more
        err = (struct err){0};
        append_and_die(dir, N);
        for (int k = 0; k < 2; k++) ck_files_equal(in(dir, file[k]), in(whole, file[k]));
        if (at % 50) continue; // closing syncs to the disk, which takes its time
        ck_assert_int_eq(truncate(in(dir, file[_i]), at), 0);
        fill_store(dir, &spec_topk, N, 0);
        for (int k = 0; k < 2; k++) ck_files_equal(in(dir, file[k]), in(whole, file[k]));
        ck_files_equal(in(dir, "manifest.json"), in(whole, "manifest.json"));
    }
}
END_TEST

START_TEST(a_tail_of_zeros_after_a_power_cut_is_mended)
{
    const char *whole = test_tmpdir(), *dir = test_tmpdir();
    fill_store(whole, &spec_topk, 4, 0);
    copy_store(whole, dir);
    long traces = size_of(in(dir, "traces-00000.jsonl")), targets = size_of(in(dir, "targets-00000.bin"));
    ck_assert(!truncate(in(dir, "targets-00000.bin"), targets - 200) && !truncate(in(dir, "targets-00000.bin"), targets + 4096));
    ck_assert(!truncate(in(dir, "traces-00000.jsonl"), traces - 20) && !truncate(in(dir, "traces-00000.jsonl"), traces + 4096));
    fill_store(dir, &spec_topk, 4, 0);
    ck_files_equal(in(dir, "traces-00000.jsonl"), in(whole, "traces-00000.jsonl"));
    ck_files_equal(in(dir, "targets-00000.bin"), in(whole, "targets-00000.bin"));
}
END_TEST

START_TEST(a_flipped_bit_anywhere_is_found)
{
    const char *dir = test_tmpdir();
    const char *const file[] = {"traces-00000.jsonl", "targets-00000.bin", "manifest.json"};
    struct err err = {0};
    fill_store(dir, &spec_topk, 3, 0);
    for (int f = 0; f < 3; f++) {
        long size = size_of(in(dir, file[f]));
        for (long at = 0; at < size; at++) {
            int bit = (int)(at % 8);
            flip(in(dir, file[f]), at, bit);
            ck_assert_msg(store_verify(dir, NULL, NULL, &err) != ST_OK, "%s: bit %d of byte %ld", file[f], bit, at);
            ck_assert_msg(err.text[0], "no message");
            flip(in(dir, file[f]), at, bit);
        }
    }
    ck_ok(store_verify(dir, NULL, NULL, &err));
}
END_TEST

START_TEST(damage_in_the_middle_is_not_cut_but_refused)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct store *st;
    json_t *identity = test_identity("abc");
    fill_store(dir, &spec_topk, 4, 0);
    long size = size_of(in(dir, "traces-00000.jsonl"));
    flip(in(dir, "traces-00000.jsonl"), 3, 1);
    ck_fails(store_open_write(&st, dir, identity, &spec_topk, &err), ST_FAIL, "traces-00000.jsonl:1: the line is damaged");
    ck_assert_int_eq(size_of(in(dir, "traces-00000.jsonl")), size);
    json_decref(identity);
}
END_TEST

START_TEST(another_identity_is_refused_naming_every_difference)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct store *st;
    fill_store(dir, &spec_topk, 2, 0);
    json_t *identity = test_identity("other");
    json_object_set_new(json_object_get(identity, "sampling"), "temperature", json_real(0.9));
    json_object_set_new(json_object_get(identity, "sampling"), "top_p", json_real(0.95));
    struct targets_spec spec = spec_topk;
    spec.k = 4;
    ck_assert_int_eq(store_open_write(&st, dir, identity, &spec, &err), ST_BAD_INPUT);
    ck_assert(strstr(err.text, "identity.teacher.sha256: stored \"abc\", given \"other\""));
    ck_assert(strstr(err.text, "identity.sampling.temperature: stored 0.7, given 0.9"));
    ck_assert(strstr(err.text, "identity.sampling.top_p: stored nothing, given 0.95"));
    ck_assert(strstr(err.text, "targets.k: stored 3, given 4"));
    ck_assert(!strstr(err.text, "n_layer"));
    json_decref(identity);
    fill_store(dir, &spec_topk, 4, 0); // nothing was lost
    ck_store_is(dir, &spec_topk, 4);
}
END_TEST

START_TEST(info_is_kept_and_not_compared)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct store *st;
    json_t *identity = test_identity("abc");
    for (int i = 0; i < 2; i++) {
        ck_ok(store_open_write(&st, dir, identity, &spec_topk, &err));
        store_set_info(st, "licence", json_string(i ? "MIT" : "unknown"));
        ck_ok(store_close(st, &err));
    }
    ck_ok(store_open_read(&st, dir, &err));
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(store_manifest(st), "info"), "licence")), "MIT");
    ck_ok(store_close(st, &err));
    json_decref(identity);
}
END_TEST

START_TEST(the_identity_of_a_store_is_known_without_opening_it)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    json_t *found, *identity = test_identity("abc");
    ck_ok(store_identity(&found, dir, &err));
    ck_assert_ptr_null(found);
    fill_store(dir, &spec_topk, 2, 0);
    ck_ok(store_identity(&found, dir, &err));
    ck_assert(json_equal(found, identity));
    ck_ok(file_write_atomic(in(dir, "manifest.json"), "{}", 2, &err));
    json_decref(found);
    ck_fails(store_identity(&found, dir, &err), ST_BAD_INPUT, "not the manifest of a trace store");
    json_decref(identity);
}
END_TEST

START_TEST(a_second_writer_is_refused_and_the_first_named)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    int ready[2], done[2];
    char c;
    ck_assert(!pipe(ready) && !pipe(done));
    fill_store(dir, &spec_topk, 1, 0);
    json_t *identity = test_identity("abc");
    pid_t child = fork();
    if (!child) {
        struct store *st;
        if (store_open_write(&st, dir, identity, &spec_topk, &err) || write(ready[1], "x", 1) != 1) _exit(1);
        close(done[1]);
        if (read(done[0], &c, 1) < 0) _exit(1);
        _exit(store_close(st, &err));
    }
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    struct store *st;
    char holder[40];
    snprintf(holder, sizeof holder, "process %ld", (long)child);
    ck_fails(store_open_write(&st, dir, identity, &spec_topk, &err), ST_BAD_INPUT, holder);
    ck_store_is(dir, &spec_topk, 1); // reading is allowed meanwhile
    close(done[1]);
    int status;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
    ck_ok(store_open_write(&st, dir, identity, &spec_topk, &err));
    ck_ok(store_close(st, &err));
    json_decref(identity);
    for (int i = 0; i < 2; i++) close(ready[i]);
    close(done[0]);
}
END_TEST

// A file may not grow past a limit: to the program the same as a full disk.
START_TEST(a_full_disk_leaves_the_store_whole)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct store *st;
    json_t *identity = test_identity("abc");
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t limit = 1; limit < 4000; limit += 391) {
        struct rlimit old, low;
        getrlimit(RLIMIT_FSIZE, &old);
        low = (struct rlimit){.rlim_cur = limit, .rlim_max = old.rlim_max};
        if (file_exists(dir)) ck_ok(dir_remove(dir, &err));
        fill_store(dir, &spec_topk, 0, 0);
        ck_ok(store_open_write(&st, dir, identity, &spec_topk, &err));
        int n = 0;
        enum status status = ST_OK;
        setrlimit(RLIMIT_FSIZE, &low);
        while (!status && n < 20) {
            struct sample s;
            struct targets t;
            make_sample(&s, &t, &spec_topk, n);
            status = store_append(st, &s, &t, &err);
            sample_free(&s);
            targets_free(&t);
            if (!status) n++;
        }
        setrlimit(RLIMIT_FSIZE, &old);
        ck_assert_int_eq(status, ST_FAIL);
        ck_assert_msg(strstr(err.text, "is whole with") != NULL, "%s", err.text);
        err = (struct err){0};
        ck_ok(store_close(st, &err));
        ck_store_is(dir, &spec_topk, n);
        fill_store(dir, &spec_topk, 6, 0);
        ck_store_is(dir, &spec_topk, n > 6 ? n : 6);
    }
    json_decref(identity);
}
END_TEST

static void patch(const char *path, const char *from, const char *to)
{
    struct err err = {0};
    struct buf b = {0};
    ck_ok(file_read(&b, path, 1 << 24, &err));
    char *p = memmem(b.data, b.size, from, strlen(from));
    ck_assert(p && strlen(from) == strlen(to));
    memcpy(p, to, strlen(to));
    ck_ok(file_write_atomic(path, b.data, b.size, &err));
    buf_free(&b);
}

START_TEST(a_newer_version_is_refused)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct store *st;
    json_t *identity = test_identity("abc");
    fill_store(dir, &spec_topk, 1, 0);
    patch(in(dir, "manifest.json"), "\"version\": 1", "\"version\": 2");
    ck_fails(store_open_read(&st, dir, &err), ST_BAD_INPUT, "version 2; this distill reads stores up to version 1");
    ck_fails(store_open_write(&st, dir, identity, &spec_topk, &err), ST_BAD_INPUT, "take a newer distill");
    patch(in(dir, "manifest.json"), "\"version\": 2", "\"version\": 1");
    // A frame of version 2 whose CRC is right.
    struct buf b = {0};
    ck_ok(file_read(&b, in(dir, "targets-00000.bin"), 1 << 24, &err));
    b.data[4] = 2;
    uint32_t crc = crc32c(0, b.data, b.size - 4);
    memcpy(b.data + b.size - 4, &crc, 4);
    ck_ok(file_write_atomic(in(dir, "targets-00000.bin"), b.data, b.size, &err));
    ck_fails(store_open_read(&st, dir, &err), ST_BAD_INPUT, "of version 2; this distill reads frames up to version 1");
    ck_fails(store_open_write(&st, dir, identity, &spec_topk, &err), ST_BAD_INPUT, "version 2");
    ck_assert_int_eq(size_of(in(dir, "targets-00000.bin")), (long)b.size); // not taken for a torn tail
    buf_free(&b);
    json_decref(identity);
}
END_TEST

START_TEST(what_is_no_store_is_refused)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct store *st;
    ck_fails(store_open_read(&st, in(dir, "none"), &err), ST_BAD_INPUT, "no such folder");
    ck_fails(store_open_read(&st, dir, &err), ST_BAD_INPUT, "no manifest.json");
    ck_ok(file_write_atomic(in(dir, "manifest.json"), "{\"format\": \"x\"}", 15, &err));
    ck_fails(store_open_read(&st, dir, &err), ST_BAD_INPUT, "not the manifest of a trace store");
    ck_ok(file_write_atomic(in(dir, "manifest.json"), "{", 1, &err));
    ck_fails(store_open_write(&st, dir, NULL, &SPEC_NONE, &err), ST_BAD_INPUT, "manifest.json");
    unlink(in(dir, "manifest.json"));
    ck_ok(file_write_atomic(in(dir, "traces-00000.jsonl"), "", 0, &err));
    ck_fails(store_open_write(&st, dir, NULL, &SPEC_NONE, &err), ST_BAD_INPUT, "has traces but no manifest.json");
}
END_TEST

START_TEST(a_sample_that_does_not_fit_is_refused)
{
    const char *dir = test_tmpdir();
    struct err err = {0};
    struct store *st;
    struct sample s;
    struct targets t;
    json_t *identity = test_identity("abc");
    ck_ok(store_open_write(&st, dir, identity, &spec_topk, &err));
    make_sample(&s, &t, &spec_topk, 0);
    ck_fails(store_append(st, &s, NULL, &err), ST_BAD_INPUT, "lacks targets");
    t.k--;
    ck_fails(store_append(st, &s, &t, &err), ST_BAD_INPUT, "k 2");
    t.k++;
    s.seed = UINT64_MAX;
    ck_fails(store_append(st, &s, &t, &err), ST_BAD_INPUT, "2^63");
    s.seed = 1;
    ck_ok(store_append(st, &s, &t, &err));
    ck_fails(store_append(st, &s, &t, &err), ST_BAD_INPUT, "in the store already");
    ck_ok(store_close(st, &err));
    ck_ok(store_verify(dir, NULL, NULL, &err));
    sample_free(&s);
    targets_free(&t);
    json_decref(identity);
}
END_TEST

START_TEST(targets_are_parsed)
{
    struct err err = {0};
    struct targets_spec s;
    ck_ok(targets_spec_parse(&s, "topk:64", "2,1,0.5,2", 512, &err));
    ck_assert(s.kind == TARGETS_TOPK && s.k == 64 && s.n_temperature == 3);
    ck_assert(s.temperature[0] == 0.5f && s.temperature[1] == 1 && s.temperature[2] == 2);
    ck_ok(targets_spec_parse(&s, "topk:1000", NULL, 512, &err));
    ck_assert(s.k == 512 && s.n_temperature == 1 && s.temperature[0] == 1);
    ck_ok(targets_spec_parse(&s, "sampled:50", "1", 512, &err));
    ck_assert(s.kind == TARGETS_SAMPLED && s.k == 50);
    ck_ok(targets_spec_parse(&s, "none", "1,2", 512, &err));
    ck_assert(s.kind == TARGETS_NONE && s.k == 0);
    static const char *const bad[] = {"", "topk", "topk:", "topk:0", "topk:-1", "topk:4x", "top:4", "sampled:70000", "hidden", "head:3+4"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_fails(targets_spec_parse(&s, bad[i], "1", 512, &err), ST_BAD_INPUT, "--targets");
    static const char *const bad_t[] = {"0", "-1", "x", "1,", "1;2", "nan", "inf", "2,3,4,5,6,7,8,9"};
    for (size_t i = 0; i < sizeof bad_t / sizeof *bad_t; i++)
        ck_fails(targets_spec_parse(&s, "topk:4", bad_t[i], 512, &err), ST_BAD_INPUT, "--target-temperatures");
}
END_TEST

// A writer killed at any moment: each time all that it had said to be appended is there, and the end is the store of one never killed.
START_TEST(twenty_kills_lose_nothing_but_what_was_in_flight)
{
    enum { N = 400 };
    const char *dir = test_tmpdir(), *whole = test_tmpdir();
    struct err err = {0};
    fill_store(whole, &spec_topk, N, 40000);
    int n_before = 0, n_kill = 0;
    for (; n_kill < 20; n_kill++) {
        int said[2];
        ck_assert(!pipe(said));
        pid_t child = fork();
        if (!child) {
            struct store *st;
            json_t *identity = test_identity("abc");
            if (store_open_write(&st, dir, identity, &spec_topk, &err)) _exit(1);
            store_set_shard_bytes(st, 40000);
            for (int i = (int)store_n_sample(st); i < N; i++) {
                struct sample s;
                struct targets t;
                make_sample(&s, &t, &spec_topk, i);
                if (store_append(st, &s, &t, &err) || write(said[1], "x", 1) != 1) _exit(1);
                sample_free(&s);
                targets_free(&t);
            }
            _exit(store_close(st, &err) != ST_OK);
        }
        close(said[1]);
        // Killed once it has said some number of samples, and a random moment later.
        char c;
        uint64_t wait = rng_below(1, 1, (uint64_t)n_kill, 30);
        ssize_t got = 0;
        int n_said = 0;
        while ((uint64_t)n_said < wait && (got = read(said[0], &c, 1)) == 1) n_said++;
        nanosleep(&(struct timespec){.tv_nsec = (long)rng_below(1, 2, (uint64_t)n_kill, 2000000)}, NULL);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        ck_assert(WIFSIGNALED(status) || !WEXITSTATUS(status));
        while ((got = read(said[0], &c, 1)) == 1) n_said++;
        close(said[0]);
        struct store *st;
        if (!file_exists(in(dir, "manifest.json"))) continue; // killed before it began
        ck_ok(store_verify(dir, NULL, NULL, &err));
        ck_ok(store_open_read(&st, dir, &err));
        int n_now = (int)store_n_sample(st);
        ck_assert_msg(n_now == n_before + n_said || n_now == n_before + n_said + 1, "%d, then %d said, now %d", n_before, n_said, n_now);
        ck_ok(store_close(st, &err));
        n_before = n_now;
    }
    fill_store(dir, &spec_topk, N, 40000);
    ck_store_is(dir, &spec_topk, N);
    for (int i = 0;; i++) {
        char name[32];
        snprintf(name, sizeof name, "traces-%05d.jsonl", i);
        if (!file_exists(in(whole, name))) break;
        ck_files_equal(in(dir, name), in(whole, name));
        snprintf(name, sizeof name, "targets-%05d.bin", i);
        ck_files_equal(in(dir, name), in(whole, name));
    }
    ck_files_equal(in(dir, "manifest.json"), in(whole, "manifest.json"));
}
END_TEST

Suite *suite_store(void);
Suite *suite_store(void)
{
    Suite *s = suite_create("store");
    TCase *c = tcase_create("store");
    tcase_add_loop_test(c, what_is_appended_is_read_back_bit_for_bit, 0, 3);
    tcase_add_test(c, appending_goes_on_where_it_ended);
    tcase_add_test(c, full_shards_are_followed_by_new_ones);
    tcase_add_loop_test(c, a_file_cut_at_any_byte_is_mended_by_appending_again, 0, 2);
    tcase_add_test(c, a_tail_of_zeros_after_a_power_cut_is_mended);
    tcase_add_test(c, a_flipped_bit_anywhere_is_found);
    tcase_add_test(c, damage_in_the_middle_is_not_cut_but_refused);
    tcase_add_test(c, another_identity_is_refused_naming_every_difference);
    tcase_add_test(c, info_is_kept_and_not_compared);
    tcase_add_test(c, the_identity_of_a_store_is_known_without_opening_it);
    tcase_add_test(c, a_second_writer_is_refused_and_the_first_named);
    tcase_add_test(c, a_full_disk_leaves_the_store_whole);
    tcase_add_test(c, a_newer_version_is_refused);
    tcase_add_test(c, what_is_no_store_is_refused);
    tcase_add_test(c, a_sample_that_does_not_fit_is_refused);
    tcase_add_test(c, targets_are_parsed);
    tcase_add_test(c, twenty_kills_lose_nothing_but_what_was_in_flight);
    suite_add_tcase(s, c);
    return s;
}
