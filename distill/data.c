// distill data verify, show, stats: looking into a trace store.
#include "distill/data.h"

#include "datasets/chat.h"
#include "datasets/tokenizer/tokenizer.h"
#include "datasets/verify/verify.h"
#include "distill/command.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void data_describe_targets(struct buf *out, const struct targets_spec *spec)
{
    static const char *const kind[] = {"none", "topk", "sampled"};
    buf_puts(out, kind[spec->kind]);
    if (spec->kind != TARGETS_NONE) buf_printf(out, ":%d", spec->k);
    for (int i = 0; i < spec->n_temperature; i++) buf_printf(out, "%s%g", i ? ", " : " at T = ", (double)spec->temperature[i]);
}

static void print_json(json_t *j) // steals
{
    struct buf out = {0};
    json_append_line(&out, j);
    fwrite(out.data, 1, out.size, stdout);
    buf_free(&out);
    json_decref(j);
}

static void close_store(struct store *s)
{
    struct err ignored = {0};
    store_close(s, &ignored);
}

// ---- verify

struct judged {
    size_t n, n_correct, n_no_answer, n_no_reference;
};

static enum status judge_all(const struct store *s, const struct verifier *v, FILE *out, const char *path, struct judged *r,
                             struct err *err)
{
    struct buf line = {0};
    enum status st = ST_OK;
    for (size_t i = 0; !st && i < store_n_sample(s); i++) {
        struct sample x;
        struct verdict verdict;
        if ((st = store_read(s, i, &x, NULL, err))) break;
        if (!x.answer) {
            r->n_no_reference++;
            sample_free(&x);
            continue;
        }
        v->judge(&verdict, sample_content(&x), x.answer);
        r->n++;
        r->n_correct += verdict.correct;
        r->n_no_answer += !verdict.extracted[0];
        if (out) {
            json_t *row = json_pack("{s:s, s:i, s:b, s:s, s:s}", "id", x.id, "sample", x.sample, "correct", verdict.correct, "extracted",
                                    verdict.extracted, "answer", x.answer);
            buf_clear(&line);
            json_append_line(&line, row);
            json_decref(row);
            if (fwrite(line.data, 1, line.size, out) != line.size) st = err_errno(err, "write", path);
        }
        sample_free(&x);
    }
    buf_free(&line);
    return st;
}

static const struct option verify_options[] = {
    {"kind", OPT_ENUM, .choices = "math|exact", .help = "judge each answer against its prompt's: math compares values, exact texts"},
    {"out", OPT_STRING, .value = "F.jsonl", .help = "with --kind: write each verdict, a line a sample"},
    {0}};

static enum status run_judge(struct options *o, const char *dir, json_t *report, struct err *err)
{
    const char *kind = opt_str(o, "kind"), *path = opt_str(o, "out");
    struct judged r = {0};
    struct store *s;
    TRY(store_open_read(&s, dir, err));
    FILE *out = path ? fopen(path, "wb") : NULL;
    enum status st = path && !out ? err_errno(err, "write", path) : ST_OK;
    if (!st) st = judge_all(s, verifier_find(kind), out, path, &r, err);
    if (out && fclose(out) && !st) st = err_errno(err, "write", path);
    close_store(s);
    if (st) return st;
    double rate = r.n ? (double)r.n_correct / (double)r.n : 0;
    json_object_set_new(report, "kind", json_string(kind));
    json_object_set_new(report, "n_judged", json_integer((json_int_t)r.n));
    json_object_set_new(report, "n_correct", json_integer((json_int_t)r.n_correct));
    json_object_set_new(report, "n_no_answer", json_integer((json_int_t)r.n_no_answer));
    json_object_set_new(report, "n_no_reference", json_integer((json_int_t)r.n_no_reference));
    json_object_set_new(report, "correct", json_real(rate));
    if (opt_bool(o, "json")) return ST_OK;
    printf("%s: %zu of %zu answers correct (%.3f), %zu without an answer", kind, r.n_correct, r.n, rate, r.n_no_answer);
    if (r.n_no_reference) printf("; %zu samples have no reference and were not judged", r.n_no_reference);
    printf("\n");
    return ST_OK;
}

static enum status run_verify(struct options *o, struct err *err)
{
    const char *dir = opt_arg(o, 0);
    size_t n;
    uint64_t n_torn;
    if (opt_str(o, "out") && !opt_str(o, "kind")) return err_set(err, ST_BAD_INPUT, "--out takes the verdicts of --kind; give that too");
    enum status st = store_verify(dir, &n, &n_torn, err);
    json_t *report = json_pack("{s:b, s:I, s:I}", "ok", !st, "n_sample", (json_int_t)n, "n_torn_bytes", (json_int_t)n_torn);
    if (st) json_object_set_new(report, "problems", json_string(err->text));
    if (!st && !opt_bool(o, "json")) {
        printf("%s: %zu samples, all whole\n", dir, n);
        if (n_torn)
            printf("%llu bytes of a sample that was being written are torn; the next writer cuts them\n", (unsigned long long)n_torn);
    }
    if (!st && opt_str(o, "kind")) st = run_judge(o, dir, report, err);
    if (opt_bool(o, "json"))
        print_json(report);
    else
        json_decref(report);
    return st;
}

const struct command command_data_verify = {
    .name = "data verify",
    .summary = "check every line, frame and checksum of a store; judge its answers",
    .args = "STORE",
    .n_arg_min = 1,
    .n_arg_max = 1,
    .notes = "Exits 1 if anything is damaged. A torn tail, as a killed writer leaves it, is not damage.\n",
    .options = verify_options,
    .run = run_verify,
};

// ---- show

// Control characters would drive the terminal; a line of text may have line ends and tabs.
static void print_text(const char *text, size_t n, bool one_line)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n' && one_line)
            fputs("\\n", stdout);
        else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F)
            printf("\\x%02x", c);
        else
            putchar(c);
    }
}

static void print_block(const char *title, const json_t *content)
{
    json_t *text = chat_content_text(content);
    if (json_string_length(text)) {
        printf("%s:\n", title);
        print_text(json_string_value(text), json_string_length(text), false);
        printf("\n");
    }
    json_decref(text);
}

static void print_token(const struct tokenizer *tok, int32_t id)
{
    struct buf b = {0};
    struct err ignored = {0};
    if (tok && !tokenizer_decode(tok, &id, 1, false, &b, &ignored)) {
        printf("%d \"", id);
        print_text(b.data ? b.data : "", b.size, true);
        printf("\"");
    } else {
        printf("%d", id);
    }
    buf_free(&b);
}

static void print_positions(const struct sample *x, const struct targets *t, const struct tokenizer *tok, int n_position, int n_candidate)
{
    for (int r = 0; r < t->n_tok && r < n_position; r++) {
        printf("  %d: drew ", r);
        print_token(tok, x->token_ids[r]);
        printf("  |");
        for (int j = 0; j < t->k && j < n_candidate; j++) {
            size_t at = (size_t)r * (size_t)t->k + (size_t)j;
            if (t->ids[at] < 0) break;
            printf(" ");
            print_token(tok, t->ids[at]);
            if (t->count)
                printf(" x%d", t->count[at]);
            else
                printf(" %.4f", exp((double)t->logprob[at]));
        }
        if (t->tail_logprob) printf("  tail %.2g", exp((double)t->tail_logprob[r]));
        printf("\n");
    }
}

static void print_sample(const struct sample *x, const struct targets *t, const struct tokenizer *tok, int n_position, int n_candidate)
{
    size_t i, n = json_array_size(x->messages);
    json_t *m;
    printf("=== %s, sample %d: %d tokens after a prompt of %d, %s, seed %llu\n", x->id, x->sample, x->n_tok, x->n_prompt, x->finish_reason,
           (unsigned long long)x->seed);
    json_array_foreach(x->messages, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        if (i + 1 == n) print_block("reasoning", json_object_get(m, "reasoning_content"));
        print_block(i + 1 == n ? "answer" : role ? role : "?", json_object_get(m, "content"));
    }
    if (x->answer) {
        struct verdict v;
        verify_math.judge(&v, sample_content(x), x->answer);
        printf("reference: %s  (taken from the answer: %s, %s)\n", x->answer, v.extracted[0] ? v.extracted : "nothing",
               v.correct ? "correct" : "wrong");
    }
    if (x->verdicts) {
        struct buf b = {0};
        json_append_line(&b, x->verdicts);
        printf("verdicts: %s", b.data);
        buf_free(&b);
    }
    if (t->n_tok) printf("targets:\n");
    print_positions(x, t, tok, n_position, n_candidate);
    printf("\n");
}

static const struct option show_options[] = {
    {"n", OPT_INT, .def = "3", .range = "[1, inf)", .help = "how many samples"},
    {"id", OPT_STRING, .value = "ID", .help = "only samples of this prompt"},
    {"positions", OPT_INT, .def = "8", .range = "[0, inf)", .help = "positions of each sample whose candidates are shown"},
    {"candidates", OPT_INT, .def = "4", .range = "[1, inf)", .help = "candidates a position"},
    {"model", OPT_STRING, .value = "DIR", .help = "show tokens as text, by the tokenizer of this model (else as ids)"},
    {0}};

static enum status run_show(struct options *o, struct err *err)
{
    struct store *s;
    struct tokenizer *tok = NULL;
    const char *only = opt_str(o, "id");
    TRY(store_open_read(&s, opt_arg(o, 0), err));
    enum status st = opt_str(o, "model") ? tokenizer_load(&tok, opt_str(o, "model"), err) : ST_OK;
    int64_t n_shown = 0;
    for (size_t i = 0; !st && i < store_n_sample(s) && n_shown < opt_int(o, "n"); i++) {
        struct sample x;
        struct targets t;
        if (only && strcmp(only, store_id(s, i, NULL, NULL)) != 0) continue;
        if ((st = store_read(s, i, &x, &t, err))) break;
        n_shown++;
        if (opt_bool(o, "json"))
            print_json(json_incref(x.line));
        else
            print_sample(&x, &t, tok, (int)opt_int(o, "positions"), (int)opt_int(o, "candidates"));
        sample_free(&x);
        targets_free(&t);
    }
    if (!st && only && !n_shown) st = err_set(err, ST_BAD_INPUT, "%s: no sample of \"%s\"", opt_arg(o, 0), only);
    tokenizer_free(tok);
    close_store(s);
    return st;
}

const struct command command_data_show = {
    .name = "data show",
    .summary = "print samples: prompt, reasoning, answer, and what the teacher thought likely",
    .args = "STORE",
    .n_arg_min = 1,
    .n_arg_max = 1,
    .options = show_options,
    .run = run_show,
};

// ---- stats

static int by_value(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static enum status run_stats(struct options *o, struct err *err)
{
    struct store *s;
    TRY(store_open_read(&s, opt_arg(o, 0), err));
    size_t n = store_n_sample(s), n_prompt = 0, n_row = 0;
    int *length = NEW_N(int, n + 1);
    int64_t n_tok = 0, n_prompt_tok = 0;
    double kept = 0;
    json_t *reasons = json_object();
    size_t *order = data_order(s);
    enum status st = ST_OK;
    for (size_t i = 0; !st && i < n; i++) {
        struct sample x;
        struct targets t;
        if ((st = store_read(s, order[i], &x, &t, err))) break;
        n_prompt += !i || strcmp(store_id(s, order[i - 1], NULL, NULL), x.id) != 0;
        length[i] = x.n_tok;
        n_tok += x.n_tok;
        n_prompt_tok += x.n_prompt;
        json_object_set_new(reasons, x.finish_reason, json_integer(json_integer_value(json_object_get(reasons, x.finish_reason)) + 1));
        for (int r = 0; t.tail_logprob && r < t.n_tok; r++, n_row++) kept += 1 - exp((double)t.tail_logprob[r]);
        sample_free(&x);
        targets_free(&t);
    }
    if (!st) {
        qsort(length, n, sizeof *length, by_value);
        struct buf targets = {0};
        data_describe_targets(&targets, store_spec(s));
        json_t *j = json_pack("{s:I, s:I, s:I, s:I, s:s, s:o, s:{s:f, s:i, s:i, s:i}}", "n_sample", (json_int_t)n, "n_prompt",
                              (json_int_t)n_prompt, "n_tok", (json_int_t)n_tok, "n_prompt_tok", (json_int_t)n_prompt_tok, "targets",
                              targets.data, "finish_reason", reasons, "n_tok_per_sample", "mean", n ? (double)n_tok / (double)n : 0,
                              "median", length[n / 2], "p90", length[n * 9 / 10], "max", n ? length[n - 1] : 0);
        if (n_row) json_object_set_new(j, "kept_mass", json_real(kept / (double)n_row));
        if (opt_bool(o, "json")) {
            print_json(j);
        } else {
            printf("%zu samples of %zu prompts, targets %s\n%lld tokens generated, %lld of prompts\n", n, n_prompt, targets.data,
                   (long long)n_tok, (long long)n_prompt_tok);
            printf("tokens a sample: mean %.1f, median %d, 90%% %d, longest %d\n", n ? (double)n_tok / (double)n : 0, length[n / 2],
                   length[n * 9 / 10], n ? length[n - 1] : 0);
            const char *reason;
            json_t *count;
            json_object_foreach(reasons, reason, count) printf("ended by %s: %lld\n", reason, (long long)json_integer_value(count));
            if (n_row) printf("the kept entries hold %.4f of the probability\n", kept / (double)n_row);
            json_decref(j);
        }
        buf_free(&targets);
    } else {
        json_decref(reasons);
    }
    mem_free(length);
    mem_free(order);
    close_store(s);
    return st;
}

static const struct option no_options[] = {{0}};

const struct command command_data_stats = {
    .name = "data stats",
    .summary = "count a store's samples, tokens, endings and the mass its targets keep",
    .args = "STORE",
    .n_arg_min = 1,
    .n_arg_max = 1,
    .options = no_options,
    .run = run_stats,
};
