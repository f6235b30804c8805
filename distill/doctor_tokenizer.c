// Checks of tokenizers: whether ids mean the same, vocabularies and their padding, and the tokens that begin, end and fill.
#include "datasets/tokenizer/compare.h"
#include "distill/doctor.h"

#include <string.h>

static char *shown(const struct tokenizer *t, int64_t id) // mem_free it
{
    struct buf b = {0};
    tokenizer_show(t, (int32_t)id, &b);
    return b.data;
}

// "12: "a" against "b", …": examples of ids, as one or both tokenizers have them.
static void list_ids(struct buf *out, const int32_t *ids, int32_t n, const struct tokenizer *a, const struct tokenizer *b)
{
    for (int32_t i = 0; i < n && i < TOKENIZER_EXAMPLES; i++) {
        buf_puts(out, i ? ", " : "");
        tokenizer_show(a, ids[i], out);
        if (!b) continue;
        buf_puts(out, " against ");
        tokenizer_show(b, ids[i], out);
    }
    if (n > TOKENIZER_EXAMPLES) buf_puts(out, ", …");
}

// ---- do ids mean the same ---------------------------------------------------------------------------------------------------------------

static void say_differences(struct finding *f, const struct tokenizer_diff *d, const struct tokenizer *t, const struct tokenizer *s)
{
    const struct {
        const char *what;
        const int32_t *ids;
        int32_t n;
        const struct tokenizer *a, *b;
    } lists[] = {{"mean something else", d->differ, d->n_differ, t, s},
                 {"only the teacher has", d->only_a, d->n_only_a, t, NULL},
                 {"only the student has", d->only_b, d->n_only_b, s, NULL},
                 {"are special in one alone", d->flag, d->n_flag, t, NULL}};
    say(f, V_FAIL, "not the same tokenizer: of %d and %d ids %d mean the same", d->n_a, d->n_b, d->n_agree);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct buf b = {0};
        list_ids(&b, lists[i].ids, lists[i].n, lists[i].a, lists[i].b);
        if (lists[i].n) say(f, V_FAIL, "%d %s: %s", lists[i].n, lists[i].what, b.data);
        buf_free(&b);
    }
    if (d->n_merge) say(f, V_FAIL, "%lld merges differ", (long long)d->n_merge);
    if (d->n_text_differ) say(f, V_FAIL, "%d of %d test texts are cut otherwise", d->n_text_differ, d->n_text);
}

void check_tokenizer(struct exam *x, struct finding *f)
{
    const struct tokenizer *t = x->teacher.tok, *s = x->student.tok;
    struct tokenizer_diff d;
    tokenizer_compare(&d, t, s);
    number(f, "n_agree", d.n_agree);
    number(f, "n_differ", d.n_differ);
    number(f, "n_only_teacher", d.n_only_a);
    number(f, "n_only_student", d.n_only_b);
    number(f, "n_merge_differ", (double)d.n_merge);
    number(f, "n_text_differ", d.n_text_differ);
    if (d.same_file) {
        say(f, V_OK, "the same file: %d tokens", d.n_a);
        return;
    }
    const int64_t rows = side_vocab(&x->student);
    if (!tokenizer_compatible(&d)) {
        say_differences(f, &d, t, s);
        fix(f, "take a student with the teacher's tokenizer; or learn from the text alone: distill data export --messages, then distill "
               "train --data on that file");
    } else if (!d.n_only_a && !d.n_only_b && !d.n_flag) {
        say(f, V_FAIL, "all %d ids, merges and cuts are the same, but the files differ, and train compares stores by the file's hash",
            d.n_agree);
        fix(f, "cp %s/tokenizer.json %s/", x->teacher.dir, x->student.dir);
    } else {
        say_differences(f, &d, t, s);
        if (d.n_only_a && rows && rows < d.n_a)
            fix(f, "the student's embedding has %lld rows and the teacher writes ids up to %d: take a student with more rows",
                (long long)rows, d.n_a - 1);
        else if (d.n_only_b)
            fix(f, "ids that both have mean the same: cp %s/tokenizer.json %s/, unless the student needs the tokens that it alone has",
                x->teacher.dir, x->student.dir);
        else
            fix(f,
                "ids that both have mean the same: cp %s/tokenizer.json %s/ and tokenizer_config.json with it; the new ids take rows of "
                "the student's padding, which are untrained until they are learned",
                x->teacher.dir, x->student.dir);
    }
}

// ---- vocabularies -----------------------------------------------------------------------------------------------------------------------

// added_tokens.json says ids, too; where the tokenizer gives its tokens others, some program that reads it will not agree.
static void judge_added_tokens(const struct side *s, struct finding *f)
{
    struct err err = {0};
    struct buf differ = {0};
    json_t *ids = NULL, *id;
    const char *token;
    int n = 0;
    char *path = path_join(s->dir, "added_tokens.json");
    if (!s->is_gguf && file_exists(path)) json_read(&ids, path, &err);
    json_object_foreach(ids, token, id)
    {
        const int32_t own = tokenizer_id(s->tok, token);
        if (own == json_integer_value(id) || n++ >= 3) continue;
        buf_printf(&differ, "%s\"%s\" is %lld there, ", differ.size ? "; " : "", token, (long long)json_integer_value(id));
        if (own >= 0)
            buf_printf(&differ, "%d here", own);
        else
            buf_puts(&differ, "no token here");
    }
    if (n) {
        say(f, V_WARN, "added_tokens.json contradicts tokenizer.json: %s%s", differ.data, n > 3 ? "; …" : "");
        fix(f, "tokenizer.json counts, beside tokenizer_config.json; remove added_tokens.json if tokenizer.json's ids are the model's");
    }
    buf_free(&differ);
    json_decref(ids);
    mem_free(path);
}

void check_vocabulary(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    const int64_t rows = side_vocab(s), ids = tokenizer_n_vocab(s->tok);
    number(f, "vocab_size", (double)rows);
    number(f, "n_token", (double)ids);
    if (!rows) {
        say(f, V_FAIL, "config.json has no vocab_size");
        fix(f, "fetch config.json again");
    } else if (rows < ids) {
        say(f, V_FAIL,
            "the tokenizer has ids up to %lld, but the embedding only %lld rows (vocab_size): they do not belong together, and train, gen "
            "and eval refuse them",
            (long long)ids - 1, (long long)rows);
        fix(f, "take the tokenizer that came with the weights, or resize the embedding where the tokens were added");
    } else if (rows == ids)
        say(f, V_OK, "%lld rows, a token each", (long long)rows);
    else
        say(f, V_OK, "%lld rows for %lld tokens: %lld are padding, never drawn and never targets", (long long)rows, (long long)ids,
            (long long)(rows - ids));
    judge_added_tokens(s, f);
}

void check_vocabularies(struct exam *x, struct finding *f)
{
    const struct side *t = &x->teacher, *s = &x->student;
    const int64_t a = side_vocab(t), b = side_vocab(s), tokens = t->tok ? tokenizer_n_vocab(t->tok) : a;
    if (!a || !b) {
        say(f, V_SKIP, "vocab_size is not known of both");
        return;
    }
    if (t->tok && s->tok) {
        struct tokenizer_diff d;
        tokenizer_compare(&d, t->tok, s->tok);
        if (d.n_differ) {
            say(f, V_SKIP, "the tokenizers differ: the same ids are other words");
            return;
        }
    }
    if (b < tokens) {
        say(f, V_FAIL, "the teacher writes ids up to %lld, the student has only %lld rows", (long long)tokens - 1, (long long)b);
        fix(f, "take a student with at least %lld rows", (long long)tokens);
    } else if (a == b)
        say(f, V_OK, "%lld rows in both", (long long)a);
    else
        say(f, V_OK,
            "%lld rows in the teacher, %lld in the student: padded differently; only the first %lld, which both have, are compared",
            (long long)a, (long long)b, (long long)(a < b ? a : b));
}

// ---- the tokens that end ----------------------------------------------------------------------------------------------------------------

static bool stops_at(const struct side *s, int32_t id)
{
    for (size_t i = 0; i < s->stops.n; i++)
        if (s->stops.v[i] == id) return true;
    return false;
}

// eos_token_id of one file: a number or a list.
static bool names_id(const json_t *object, const char *key, int64_t id)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_integer(v)) return json_integer_value(v) == id;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (json_integer_value(json_array_get(v, i)) == id) return true;
    return false;
}

static void list_stops(struct buf *out, const struct side *s)
{
    for (size_t i = 0; i < s->stops.n; i++) {
        buf_puts(out, i ? ", " : "");
        tokenizer_show(s->tok, s->stops.v[i], out);
    }
}

void check_end_token(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    const int32_t end = s->turn_end;
    if (!s->stops.n) {
        say(f, V_FAIL, "no end token in generation_config.json, config.json or tokenizer_config.json: generation would never stop");
        fix(f, "add \"eos_token_id\" to generation_config.json");
        return;
    }
    struct buf list = {0};
    char *name = end >= 0 ? shown(s->tok, end) : NULL;
    list_stops(&list, s);
    say(f, V_OK, "answers end at %s", list.data);
    for (size_t i = 0; i < s->stops.n; i++)
        if (s->stops.v[i] >= tokenizer_n_vocab(s->tok)) {
            say(f, V_FAIL, "%d is no token", (int)s->stops.v[i]);
            fix(f, "correct eos_token_id: the tokenizer has ids up to %d", tokenizer_n_vocab(s->tok) - 1);
        }
    if (s->chat && end < 0) {
        say(f, V_FAIL, "the chat template writes no token after an answer: a student would never learn to stop");
        fix(f, "end the assistant's turn in the template with the end token");
    } else if (end >= 0 && !stops_at(s, end)) {
        say(f, V_WARN,
            "the chat template ends a turn with %s, which is not among them: here that is known from the template, other programs "
            "would repeat endlessly",
            name);
        fix(f, "add %d to \"eos_token_id\" in generation_config.json", (int)end);
    } else if (end >= 0 && s->generation && json_object_get(s->generation, "eos_token_id") &&
               !names_id(s->generation, "eos_token_id", end)) {
        say(f, V_WARN, "generation_config.json does not name %s, which ends a turn: other programs would not stop there", name);
        fix(f, "add %d to its \"eos_token_id\"", (int)end);
    } else if (end >= 0)
        say(f, V_OK, "the template ends a turn with %s", name);
    buf_free(&list);
    mem_free(name);
}

void check_end_tokens(struct exam *x, struct finding *f)
{
    const struct side *t = &x->teacher, *s = &x->student;
    if (t->turn_end < 0) {
        say(f, V_SKIP, "the teacher's template shows no end of a turn");
        return;
    }
    struct buf text = {0};
    struct err ignored = {0};
    char *name = shown(t->tok, t->turn_end);
    // By its text: where the tokenizers differ an id says nothing, and the check of tokenizers has said so.
    tokenizer_decode(t->tok, &t->turn_end, 1, false, &text, &ignored);
    int32_t theirs = text.size ? tokenizer_id(s->tok, text.data) : -1;
    if (theirs >= 0 && (theirs == s->turn_end || stops_at(s, theirs)))
        say(f, V_OK, "the student stops where the teacher's turns end: %s", name);
    else {
        say(f, V_FAIL, "the teacher's turns end with %s, at which the student does not stop: it would learn to write it and go on", name);
        if (theirs >= 0)
            fix(f, "add %d to \"eos_token_id\" in the student's generation_config.json", (int)theirs);
        else
            fix(f, "the student has no such token: take a student with the teacher's tokenizer");
    }
    mem_free(name);
    buf_free(&text);
}

// ---- the tokens that fill and begin -----------------------------------------------------------------------------------------------------

void check_pad_token(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    const int32_t pad = tokenizer_pad(s->tok);
    const int64_t config = side_int(s->config, "pad_token_id"), generation = side_int(s->generation, "pad_token_id");
    const int64_t found = pad >= 0 ? pad : config >= 0 ? config : generation;
    if (found < 0) {
        say(f, V_OK, "none, and none is needed here: rows are packed, not padded");
        return;
    }
    char *name = shown(s->tok, found);
    say(f, V_OK, "%s", name);
    if (found == tokenizer_eos(s->tok) || found == s->turn_end) {
        say(f, V_WARN,
            "it is also what ends an answer: trainers that take the loss off padding take it off the end token too, and the "
            "student never learns to stop. Here the loss goes by position, so training is not harmed");
        fix(f, "for other programs set \"pad_token\" in tokenizer_config.json to a token that nothing else uses");
    }
    if ((config >= 0 && config != found) || (generation >= 0 && generation != found)) {
        say(f, V_WARN, "config.json (%lld), generation_config.json (%lld) and the tokenizer (%d) do not name the same", (long long)config,
            (long long)generation, (int)pad);
        fix(f, "let \"pad_token_id\" be %lld in all", (long long)found);
    }
    mem_free(name);
}

// How many BOS tokens the template itself writes at the start.
static int leading_bos(const struct side *s, int32_t bos)
{
    json_t *request = json_pack("{s:[{s:s, s:s}], s:b}", "messages", "role", "user", "content", "Hello", "add_generation_prompt", 1);
    struct ids ids = {0};
    struct err ignored = {0};
    int n = 0;
    if (!chat_render(s->chat, request, NULL, &ids, &ignored))
        while ((size_t)n < ids.n && ids.v[n] == bos) n++;
    ids_free(&ids);
    json_decref(request);
    return n;
}

void check_bos_token(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    const int32_t bos = tokenizer_bos(s->tok);
    const int64_t config = side_int(s->config, "bos_token_id");
    const bool adds = json_is_true(json_object_get(tokenizer_config(s->tok), "add_bos_token"));
    if (bos < 0) {
        say(f, V_OK, s->is_gguf ? "none in the tokenizer keys" : "none in tokenizer_config.json");
        return;
    }
    char *name = shown(s->tok, bos);
    const int n = s->chat ? leading_bos(s, bos) : 0;
    say(f, V_OK, "%s", name);
    if (config >= 0 && config != bos) {
        say(f, V_WARN, "config.json says %lld", (long long)config);
        fix(f, "set \"bos_token_id\" to %d", (int)bos);
    }
    if (n > 1) {
        say(f, V_WARN, "the chat template writes it %d times", n);
        fix(f, "let the template write it once");
    } else if (n == 1)
        say(f, V_OK,
            adds ? "written by the chat template; add_bos_token is set too, so programs that render and then tokenize may double it. Here "
                   "it is written once"
                 : "written by the chat template");
    mem_free(name);
}
