// Rows, their order, steps and micro-batches.
#include "datasets/pack.h"
#include "tests/test.h"

enum { N_ROW = 40 };

// Rows of 3 to 21 tokens, of which the first two carry no loss; ids tell row and position.
static void make_rows(struct rows *r)
{
    *r = (struct rows){.v = NEW_N(struct row, N_ROW), .n = N_ROW};
    for (int i = 0; i < N_ROW; i++) {
        struct row *row = &r->v[i];
        row->n_tok = 3 + i * 7 % 19;
        row->ids = NEW_N(int32_t, row->n_tok);
        row->mask = NEW_N(uint8_t, row->n_tok);
        for (int k = 0; k < row->n_tok; k++) row->ids[k] = i * 100 + k;
        for (int k = 2; k < row->n_tok; k++) row->n_loss += row->mask[k] = k != 5;
        r->n_tok += row->n_tok;
        r->n_loss += row->n_loss;
        if (row->n_tok > r->max_tok) r->max_tok = row->n_tok;
    }
}

START_TEST(steps_hold_whole_rows_in_order_as_many_as_fit_and_end_with_the_epoch)
{
    struct rows r;
    struct pack p;
    make_rows(&r);
    pack_open(&p, &r, &(struct pack_options){.batch_tokens = 64, .micro_tokens = 30});
    size_t row = 0;
    for (size_t s = 0; s < p.n_step; s++) {
        int n = 0;
        ck_assert_uint_eq(p.step_first[s], row);
        for (; row < p.step_first[s + 1]; row++) {
            ck_assert_uint_eq(p.order[row], row);
            n += r.v[row].n_tok;
        }
        ck_assert_int_eq(n, pack_n_tok(&p, s));
        ck_assert_int_le(n, 64);
        if (row < r.n) ck_assert_int_gt(n + r.v[row].n_tok, 64); // the next row did not fit
    }
    ck_assert_uint_eq(row, r.n);
    pack_close(&p);
    rows_free(&r);
}
END_TEST

START_TEST(epochs_are_permutations_that_depend_on_seed_and_epoch_alone)
{
    struct rows r;
    struct pack p, q;
    make_rows(&r);
    struct pack_options o = {.batch_tokens = 64, .micro_tokens = 64, .shuffle = true, .seed = 5};
    pack_open(&p, &r, &o);
    uint32_t orders[3][N_ROW];
    int64_t first[4] = {0};
    for (int e = 0; e < 3; e++) {
        pack_seek(&p, first[e]);
        ck_assert_int_eq((int)p.epoch, e);
        ck_assert_int_eq((int)p.epoch_step, (int)first[e]);
        memcpy(orders[e], p.order, sizeof orders[e]);
        first[e + 1] = first[e] + (int64_t)p.n_step;
        bool seen[N_ROW] = {false};
        for (int i = 0; i < N_ROW; i++) seen[p.order[i]] = true;
        for (int i = 0; i < N_ROW; i++) ck_assert(seen[i]);
    }
    ck_assert(memcmp(orders[0], orders[1], sizeof orders[0]) != 0);
    // A run that begins in the middle finds the same order, and going back too.
    pack_open(&q, &r, &o);
    ck_assert_uint_eq(pack_seek(&q, first[2] + 1), 1);
    ck_assert_int_eq(memcmp(orders[2], q.order, sizeof orders[2]), 0);
    ck_assert_uint_eq(pack_seek(&q, first[1] - 1), (size_t)(first[1] - 1));
    ck_assert_int_eq(memcmp(orders[0], q.order, sizeof orders[0]), 0);
    ck_assert_int_eq((int)pack_count(&q, 3), (int)first[3]);
    pack_close(&q);
    o.seed = 6;
    pack_open(&q, &r, &o);
    ck_assert(memcmp(orders[0], q.order, sizeof orders[0]) != 0);
    pack_close(&q);
    pack_close(&p);
    rows_free(&r);
}
END_TEST

START_TEST(micro_batches_split_a_step_in_order_and_their_tables_name_each_label)
{
    struct rows r;
    struct pack p;
    make_rows(&r);
    pack_open(&p, &r, &(struct pack_options){.batch_tokens = 100, .micro_tokens = 30, .shuffle = true, .seed = 1});
    struct micro bounds = pack_bounds(&r, 30);
    int32_t ids[64], pos[64], start[64], loss_row[64], label[64];
    struct micro_tables t = {.ids = ids, .pos = pos, .start = start, .loss_row = loss_row, .label = label};
    for (size_t s = 0; s < p.n_step; s++) {
        int n_tok = 0, n_loss = 0;
        size_t first = p.step_first[s];
        for (struct micro m; (m = pack_micro(&p, s, first)).n_row; first += (size_t)m.n_row) {
            ck_assert(m.n_tok <= bounds.n_tok && m.n_loss <= bounds.n_loss && m.n_row <= bounds.n_row && m.max_len <= bounds.max_len);
            ck_assert(m.n_tok <= 30 || m.n_row == 1);
            pack_fill(&p, &m, &t);
            ck_assert_int_eq(start[m.n_row], m.n_tok);
            for (int i = 0; i < m.n_loss; i++) {
                int at = loss_row[i]; // the row that predicts label[i] holds the token before it, of the same document
                ck_assert_int_eq(label[i], ids[at] + 1);
                ck_assert_int_eq(label[i] % 100, pos[at] + 1);
                if (i) ck_assert_int_lt(loss_row[i - 1], at);
                ck_assert(r.v[label[i] / 100].mask[label[i] % 100]);
            }
            n_tok += m.n_tok;
            n_loss += m.n_loss;
        }
        ck_assert_uint_eq(first, p.step_first[s + 1]);
        ck_assert_int_eq(n_tok, pack_n_tok(&p, s));
        ck_assert_int_eq(n_loss, pack_n_loss(&p, s));
    }
    pack_close(&p);
    rows_free(&r);
}
END_TEST

START_TEST(a_row_longer_than_the_budget_makes_a_step_and_a_micro_batch_alone)
{
    struct rows r;
    struct pack p;
    make_rows(&r);
    pack_open(&p, &r, &(struct pack_options){.batch_tokens = 2, .micro_tokens = 1});
    ck_assert_uint_eq(p.n_step, N_ROW);
    ck_assert_int_eq(pack_micro(&p, 3, 3).n_tok, r.v[3].n_tok);
    ck_assert_int_eq(pack_bounds(&r, 1).n_tok, r.max_tok);
    pack_close(&p);
    rows_free(&r);
}
END_TEST

// A store of three samples, the second of which ended in an error.
static void make_store(const char *dir, const char *tokenizer)
{
    struct err err = {0};
    struct targets_spec spec = {.kind = TARGETS_NONE};
    json_t *identity = json_pack("{s:{s:s}}", "tokenizer", "sha256", tokenizer);
    struct store *store;
    ck_ok(store_open_write(&store, dir, identity, &spec, &err));
    int32_t prompt[] = {1, 2, 3}, ids[] = {4, 5, 6, 7};
    for (int i = 0; i < 3; i++) {
        struct sample s = {.id = "p",
                           .sample = i,
                           .messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "x"),
                           .prompt_ids = prompt,
                           .n_prompt = 3,
                           .token_ids = ids,
                           .n_tok = 4,
                           .finish_reason = i == 1 ? "error" : "stop"};
        ck_ok(store_append(store, &s, NULL, &err));
        json_decref(s.messages);
    }
    ck_ok(store_close(store, &err));
    json_decref(identity);
}

START_TEST(rows_of_a_store_carry_loss_on_what_was_generated_and_are_cut_at_max_len)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    make_store(dir, "a");
    struct rows r, cut, twice;
    struct rows_options o = {.max_len = 100, .n_vocab = 8};
    ck_ok(rows_load(&r, dir, &o, &err));
    ck_assert_uint_eq(r.n, 2);
    ck_assert_uint_eq(r.n_skipped, 1);
    ck_assert(r.v[0].n_tok == 7 && r.v[0].n_loss == 4 && r.v[0].n_prompt == 3 && !r.v[0].mask[2] && r.v[0].mask[3] && r.v[0].ids[6] == 7);
    ck_assert_uint_eq(r.v[1].index, 2);
    ck_assert(r.ends.n == 1 && r.ends.v[0] == 7);
    o.max_len = 5;
    ck_ok(rows_load(&cut, dir, &o, &err));
    ck_assert(cut.v[0].n_tok == 5 && cut.v[0].n_loss == 2 && cut.n_cut == 2 && cut.n_tok_cut == 4);
    ck_assert_str_ne(cut.sha256, r.sha256);
    ck_assert_uint_eq(cut.ends.n, 0); // no answer is seen to its end
    char both[512];
    snprintf(both, sizeof both, "%s,%s", dir, dir);
    ck_ok(rows_load(&twice, both, &o, &err));
    ck_assert_uint_eq(twice.n, 4);
    ck_assert_int_eq(twice.v[3].source, 1);
    rows_free(&r);
    rows_free(&cut);
    rows_free(&twice);
    o.n_vocab = 7;
    o.max_len = 100;
    ck_fails(rows_load(&r, dir, &o, &err), ST_BAD_INPUT, "outside the student's vocabulary of 7");
    ck_fails(rows_load(&r, "/nowhere", &o, &err), ST_BAD_INPUT, "/nowhere");
}
END_TEST

Suite *suite_pack(void)
{
    Suite *s = suite_create("pack");
    TCase *t = tcase_create("all");
    tcase_add_test(t, steps_hold_whole_rows_in_order_as_many_as_fit_and_end_with_the_epoch);
    tcase_add_test(t, epochs_are_permutations_that_depend_on_seed_and_epoch_alone);
    tcase_add_test(t, micro_batches_split_a_step_in_order_and_their_tables_name_each_label);
    tcase_add_test(t, a_row_longer_than_the_budget_makes_a_step_and_a_micro_batch_alone);
    tcase_add_test(t, rows_of_a_store_carry_loss_on_what_was_generated_and_are_cut_at_max_len);
    suite_add_tcase(s, t);
    return s;
}
