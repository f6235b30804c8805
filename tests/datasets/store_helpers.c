#include "tests/datasets/store_helpers.h"

#include "kernels/base/rng.h"

#include <math.h>

const struct targets_spec spec_topk = {.kind = TARGETS_TOPK, .k = 3, .n_temperature = 2, .temperature = {1, 2}};
const struct targets_spec spec_sampled = {.kind = TARGETS_SAMPLED, .k = 5, .n_temperature = 1, .temperature = {1}};

json_t *test_identity(const char *teacher)
{
    return json_pack("{s:{s:s, s:i}, s:{s:f, s:i}}", "teacher", "sha256", teacher, "n_layer", 4, "sampling", "temperature", 0.7, "top_k",
                     0);
}

// Any text: quotes, line ends, U+0000, characters of two to four bytes.
static json_t *text(int i)
{
    static const char ODD[] = "a \"quoted\" \\ line\nend\t\x01 \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x8D\x8E nul:\0:";
    char head[32];
    int n = snprintf(head, sizeof head, "%d ", i);
    struct buf b = {0};
    buf_put(&b, head, (size_t)n);
    buf_put(&b, ODD, sizeof ODD - 1);
    json_t *s = json_stringn(b.data, b.size);
    buf_free(&b);
    return s;
}

static void make_targets(struct targets *t, const struct targets_spec *spec, int i, int n_tok)
{
    targets_alloc(t, spec, n_tok);
    for (int r = 0; r < n_tok; r++) {
        uint64_t at = (uint64_t)r;
        for (int j = 0; j < spec->k; j++) {
            int c = r * spec->k + j;
            if (spec->kind == TARGETS_TOPK) {
                t->ids[c] = (int32_t)rng_below((uint64_t)i, at, (uint64_t)j, 130000);
                t->logprob[c] = -0.1f * (float)(j + 1) - (float)rng_uniform((uint64_t)i, at, 7) * 0x1p-20f;
            } else {
                bool there = j <= r % spec->k;
                t->ids[c] = there ? 1000 * j + i : -1;
                t->count[c] = there ? 1 + j * 13000 : 0;
            }
        }
        if (t->tail_logprob) t->tail_logprob[r] = r ? -3.25f - (float)r : -INFINITY;
        for (int j = 0; j < spec->n_temperature; j++) t->log_z[r * spec->n_temperature + j] = 11.5f / (float)(j + 1) + (float)i;
    }
}

void make_sample(struct sample *s, struct targets *t, const struct targets_spec *spec, int i)
{
    *s = (struct sample){.sample = i % 2, .seed = rng_hash(&i, sizeof i) >> 1, .n_tok = 2 + i % 5, .n_prompt = 3};
    s->id = i / 2 == 1 ? mem_strdup("with \"quote\"") : mem_printf("p%d", i / 2);
    s->messages = json_pack("[{s:s, s:o}, {s:s, s:o, s:o}]", "role", "user", "content", text(i), "role", "assistant", "content",
                            text(2 * i), "reasoning_content", text(3 * i));
    s->token_ids = NEW_N(int32_t, s->n_tok);
    s->prompt_ids = NEW_N(int32_t, s->n_prompt);
    for (int k = 0; k < s->n_tok; k++) s->token_ids[k] = 100 * i + k;
    for (int k = 0; k < s->n_prompt; k++) s->prompt_ids[k] = k ? INT32_MAX - k : 0;
    s->finish_reason = i % 3 ? "stop" : "length";
    s->answer = i % 2 ? "1/2" : NULL;
    s->cost = i % 2 ? json_pack("{s:i}", "n_tok", s->n_tok) : NULL;
    *t = (struct targets){0};
    if (spec->kind != TARGETS_NONE) make_targets(t, spec, i, s->n_tok);
}

static void ck_json_equal(const json_t *a, const json_t *b)
{
    ck_assert(a == b || json_equal(a, b));
}

void ck_samples_equal(const struct sample *a, const struct targets *ta, const struct sample *b, const struct targets *tb)
{
    ck_assert_str_eq(a->id, b->id);
    ck_assert_int_eq(a->sample, b->sample);
    ck_assert(a->seed == b->seed);
    ck_assert_int_eq(a->n_tok, b->n_tok);
    ck_assert_int_eq(a->n_prompt, b->n_prompt);
    ck_assert_mem_eq(a->token_ids, b->token_ids, sizeof(int32_t) * (size_t)a->n_tok);
    ck_assert_mem_eq(a->prompt_ids, b->prompt_ids, sizeof(int32_t) * (size_t)a->n_prompt);
    ck_assert_str_eq(a->finish_reason, b->finish_reason);
    ck_assert_pstr_eq(a->answer, b->answer);
    ck_json_equal(a->messages, b->messages);
    ck_json_equal(a->verdicts, b->verdicts);
    ck_json_equal(a->cost, b->cost);
    ck_assert_int_eq(ta->n_tok, tb->n_tok);
    ck_assert_int_eq(ta->k, tb->k);
    ck_assert_int_eq(ta->n_temperature, tb->n_temperature);
    size_t rows = (size_t)ta->n_tok, cells = rows * (size_t)ta->k;
    if (!ta->ids) return;
    // Bit for bit: the store keeps what was captured.
    ck_assert_mem_eq(ta->ids, tb->ids, cells * 4);
    ck_assert_mem_eq(ta->log_z, tb->log_z, rows * (size_t)ta->n_temperature * 4);
    ck_assert(!ta->count == !tb->count && !ta->logprob == !tb->logprob);
    if (ta->count) ck_assert_mem_eq(ta->count, tb->count, cells * 4);
    if (ta->logprob) ck_assert_mem_eq(ta->logprob, tb->logprob, cells * 4);
    if (ta->tail_logprob) ck_assert_mem_eq(ta->tail_logprob, tb->tail_logprob, rows * 4);
}

void fill_store(const char *dir, const struct targets_spec *spec, int n, uint64_t shard_bytes)
{
    struct err err = {0};
    struct store *st;
    json_t *identity = test_identity("abc");
    ck_ok(store_open_write(&st, dir, identity, spec, &err));
    json_decref(identity);
    if (shard_bytes) store_set_shard_bytes(st, shard_bytes);
    for (int i = 0; i < n; i++) {
        struct sample s;
        struct targets t;
        make_sample(&s, &t, spec, i);
        if (!store_has(st, s.id, s.sample)) ck_ok(store_append(st, &s, t.ids ? &t : NULL, &err));
        ck_assert(store_has(st, s.id, s.sample));
        sample_free(&s);
        targets_free(&t);
    }
    ck_ok(store_close(st, &err));
}

void ck_store_is(const char *dir, const struct targets_spec *spec, int n)
{
    struct err err = {0};
    struct store *st;
    size_t n_sample;
    ck_ok(store_verify(dir, &n_sample, NULL, &err));
    ck_assert_uint_eq(n_sample, (size_t)n);
    ck_ok(store_open_read(&st, dir, &err));
    ck_assert_uint_eq(store_n_sample(st), (size_t)n);
    ck_assert_int_eq(store_spec(st)->kind, spec->kind);
    bool *seen = NEW_N(bool, n);
    for (size_t k = 0; k < (size_t)n; k++) {
        struct sample got, want;
        struct targets got_t, want_t;
        int sample, n_tok, i = 0;
        const char *id = store_id(st, k, &sample, &n_tok);
        ck_ok(store_read(st, k, &got, &got_t, &err));
        ck_assert_str_eq(id, got.id);
        ck_assert_int_eq(sample, got.sample);
        ck_assert_int_eq(n_tok, got.n_tok);
        for (; i < n; i++) { // in any order
            make_sample(&want, &want_t, spec, i);
            if (!strcmp(want.id, got.id) && want.sample == got.sample) break;
            sample_free(&want);
            targets_free(&want_t);
        }
        ck_assert_int_lt(i, n);
        ck_assert(!seen[i]);
        seen[i] = true;
        ck_samples_equal(&want, &want_t, &got, &got_t);
        sample_free(&want);
        targets_free(&want_t);
        sample_free(&got);
        targets_free(&got_t);
    }
    mem_free(seen);
    ck_ok(store_close(st, &err));
}
