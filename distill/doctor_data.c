// Data: stores and JSONL, read through once by source_open; then what was counted is judged.
#include "datasets/jsonl.h"
#include "distill/doctor.h"
#include "distill/identity.h"
#include "student/batch.h"

#include <string.h>
#include <sys/stat.h>

enum { N_BAD_SHOWN = 3, N_DOC = 4, DOC_ANSWER = 96, DOC_MOST = 512 };

static void note_bad(struct data_source *s, const char *text)
{
    if (s->n_bad++ < N_BAD_SHOWN) buf_printf(&s->bad, "%s%s", s->bad.size ? "; " : "", text);
}

// The student's context; where there is no student, the teacher's. 0: not known.
static int64_t row_context(const struct exam *x)
{
    return side_context(x->student.dir ? &x->student : &x->teacher);
}

static void count_row(struct data_source *s, const struct exam *x, int n_tok, int n_prompt)
{
    const int64_t context = row_context(x);
    s->counted = true;
    if (n_tok > s->longest) s->longest = n_tok;
    if (n_prompt > s->longest_prompt) s->longest_prompt = n_prompt;
    if (context) s->n_long += n_tok > context, s->n_prompt_long += n_prompt >= context;
}

// ---- a store ----------------------------------------------------------------------------------------------------------------------------

// Sample `at` of `of`, where it is a turn for the probe: texts spread over the store, which begins with the shortest samples.
static void keep_doc(struct data_source *s, size_t at, size_t of, const struct sample *m, struct targets *t)
{
    if (s->n_doc == N_DOC || at * N_DOC < s->n_doc * of || m->n_tok < 4 || m->n_prompt < 1 || m->n_prompt > DOC_MOST - DOC_ANSWER) return;
    if (!s->doc) s->doc = NEW_N(struct probe_doc, N_DOC);
    struct probe_doc *d = &s->doc[s->n_doc++];
    *d = (struct probe_doc){.first = m->n_prompt, .targets = *t};
    *t = (struct targets){0};
    int n = m->n_tok < DOC_ANSWER ? m->n_tok : DOC_ANSWER;
    for (int i = 0; i < m->n_prompt; i++) ids_push(&d->ids, m->prompt_ids[i]);
    for (int i = 0; i < n; i++) ids_push(&d->ids, m->token_ids[i]);
    if (d->targets.n_tok > n) d->targets.n_tok = n;
}

static void read_sample(struct data_source *s, const struct exam *x, size_t i)
{
    struct sample m = {0};
    struct targets t = {0};
    struct err err = {0};
    s->n_row++;
    if (store_read(s->store, i, &m, &t, &err)) {
        note_bad(s, err.text);
        return;
    }
    s->n_length += !strcmp(m.finish_reason, "length");
    s->n_error += !strcmp(m.finish_reason, "error") || !strcmp(m.finish_reason, "refusal");
    s->n_empty += !*sample_content(&m);
    s->n_answer += m.answer != NULL;
    count_row(s, x, m.n_prompt + m.n_tok, m.n_prompt);
    for (int k = 0; k < m.n_prompt; k++)
        if (m.prompt_ids[k] > s->max_id) s->max_id = m.prompt_ids[k];
    for (int k = 0; k < m.n_tok; k++)
        if (m.token_ids[k] > s->max_id) s->max_id = m.token_ids[k];
    keep_doc(s, i, store_n_sample(s->store), &m, &t);
    sample_free(&m);
    targets_free(&t);
}

// ---- JSONL ------------------------------------------------------------------------------------------------------------------------------

struct reading {
    struct data_source *s;
    const struct exam *x;
};

static bool is_assistant(const json_t *m)
{
    const char *role = json_string_value(json_object_get(m, "role"));
    return role && !strcmp(role, "assistant");
}

static bool says_nothing(const json_t *m, const json_t *text)
{
    return !json_string_length(text) && !json_string_length(json_object_get(m, "reasoning_content")) && !json_object_get(m, "tool_calls");
}

// A conversation: as train reads it.
static enum status read_chat(struct reading *r, const json_t *row, const json_t *messages, struct err *err)
{
    struct data_source *s = r->s;
    const struct side *side = r->x->student.chat ? &r->x->student : &r->x->teacher;
    size_t i;
    const json_t *m;
    bool empty = false;
    json_array_foreach(messages, i, m)
    {
        if (!is_assistant(m)) continue;
        json_t *text = chat_content_text(json_object_get(m, "content"));
        empty |= says_nothing(m, text);
        s->n_reasoning += json_string_length(json_object_get(m, "reasoning_content")) > 0;
        s->n_think += text && strstr(json_string_value(text), "</think>");
        json_decref(text);
    }
    s->n_chat++;
    s->n_empty += empty;
    if (!side->chat) return ST_OK;
    struct ids ids = {0};
    uint8_t *mask = NULL;
    TRY(chat_training_row(side->chat, row, &ids, &mask, NULL, err));
    int first = 0;
    while ((size_t)first < ids.n && !mask[first]) first++;
    count_row(s, r->x, (int)ids.n, first);
    mem_free(mask);
    if (s->n_doc == N_DOC) {
        ids_free(&ids);
        return ST_OK;
    }
    if (!s->doc) s->doc = NEW_N(struct probe_doc, N_DOC);
    if (ids.n > DOC_MOST / 2) ids.n = DOC_MOST / 2;
    s->doc[s->n_doc++] = (struct probe_doc){.ids = ids, .first = 1};
    return ST_OK;
}

// A prompt: as gen reads it.
static enum status read_prompt(struct reading *r, json_t *row, const json_t *messages, struct err *err)
{
    const struct side *side = r->x->teacher.chat ? &r->x->teacher : &r->x->student;
    const json_t *answer = json_object_get(row, "answer"), *prompt = json_object_get(row, "prompt");
    r->s->n_prompt++;
    r->s->n_answer += json_is_number(answer) || json_string_length(answer) > 0;
    if (!side->chat) return ST_OK;
    json_t *list = messages ? json_incref((json_t *)(uintptr_t)messages) : json_pack("[{s:s, s:O}]", "role", "user", "content", prompt);
    json_t *request = chat_row_vars(row);
    json_object_set_new(request, "messages", list);
    json_object_set_new(request, "add_generation_prompt", json_true());
    struct ids ids = {0};
    enum status st = chat_render(side->chat, request, NULL, &ids, err);
    if (!st) count_row(r->s, r->x, (int)ids.n, (int)ids.n);
    ids_free(&ids);
    json_decref(request);
    return st;
}

static enum status read_line(void *arg, json_t *row, long line, struct err *ignored)
{
    struct reading *r = arg;
    const json_t *messages = json_object_get(row, "messages"), *m;
    struct err err = {0};
    enum status st = ST_OK;
    bool chat = false;
    size_t i;
    (void)ignored;
    r->s->n_row++;
    if (messages ? !json_array_size(messages) : !json_is_string(json_object_get(row, "prompt")))
        st = err_set(&err, ST_BAD_INPUT, "wanted \"messages\": [{\"role\": …, \"content\": …}] or \"prompt\": \"…\"");
    json_array_foreach(messages, i, m)
    {
        chat |= is_assistant(m);
        if (!json_is_string(json_object_get(m, "role"))) st = err_set(&err, ST_BAD_INPUT, "messages[%zu]: no \"role\"", i);
    }
    if (!st) st = chat ? read_chat(r, row, messages, &err) : read_prompt(r, row, messages, &err);
    if (!st) return ST_OK;
    char *text = mem_printf("line %ld: %s", line, err.text);
    note_bad(r->s, text);
    mem_free(text);
    return ST_OK;
}

// ---- opening ----------------------------------------------------------------------------------------------------------------------------

enum status data_open(struct data_source *s, const char *path, const struct exam *x, struct err *err)
{
    struct stat st;
    *s = (struct data_source){.path = path, .max_id = -1};
    if (stat(path, &st)) return err_errno(err, "look at", path);
    if (S_ISDIR(st.st_mode)) {
        TRY(store_open_read(&s->store, path, err));
        for (size_t i = 0; i < store_n_sample(s->store); i++) read_sample(s, x, i);
        return ST_OK;
    }
    struct reading r = {s, x};
    size_t n_skipped = 0;
    TRY(jsonl_each(path, true, &n_skipped, read_line, &r, err));
    if (n_skipped) { // lines that are no JSON: the first of them is named by reading up to it
        struct data_source again = {.max_id = -1};
        struct reading first = {&again, x};
        struct err why = {0};
        if (jsonl_each(path, false, NULL, read_line, &first, &why)) note_bad(s, why.text);
        s->n_bad += n_skipped - 1;
        s->n_row += n_skipped;
        data_close(&again);
    }
    return ST_OK;
}

void data_close(struct data_source *s)
{
    struct err ignored = {0};
    if (s->store) store_close(s->store, &ignored);
    for (size_t i = 0; i < s->n_doc; i++) {
        ids_free(&s->doc[i].ids);
        targets_free(&s->doc[i].targets);
    }
    mem_free(s->doc);
    buf_free(&s->bad);
    *s = (struct data_source){0};
}

// ---- checks -----------------------------------------------------------------------------------------------------------------------------

void check_data_rows(struct exam *x, struct finding *f)
{
    const struct data_source *s = x->in_hand;
    number(f, "n", (double)s->n_row);
    number(f, "n_bad", (double)s->n_bad);
    if (!s->n_row) {
        say(f, V_FAIL, "nothing is in it");
        fix(f, "give a store that gen wrote, or JSONL of {\"messages\": […]}");
        return;
    }
    if (s->store)
        say(f, V_OK, "a store of %zu samples", s->n_row);
    else if (s->n_chat && s->n_prompt) {
        say(f, V_WARN, "%zu conversations with an answer and %zu without: train refuses these, gen would answer the others again",
            s->n_chat, s->n_prompt);
        fix(f, "make two files of it");
    } else if (s->n_chat)
        say(f, V_OK, "%zu conversations, to train on", s->n_chat);
    else
        say(f, V_OK, "%zu prompts, to generate from or to evaluate by; train wants the answers too", s->n_prompt);
    if (s->n_bad) {
        say(f, V_FAIL, "%zu of %zu are no good: %s%s", s->n_bad, s->n_row, s->bad.data, s->n_bad > N_BAD_SHOWN ? "; …" : "");
        fix(f, s->store ? "distill data verify %s tells what is damaged" : "mend the lines in %s, or use --skip-bad", s->path);
    }
    if (s->store && store_n_torn(s->store)) {
        say(f, V_WARN, "%llu bytes of a sample that was being written are passed over", (unsigned long long)store_n_torn(s->store));
        fix(f, "run gen again on the store: it makes that sample again");
    }
}

void check_data_lengths(struct exam *x, struct finding *f)
{
    const struct data_source *s = x->in_hand;
    const int64_t context = row_context(x);
    if (!s->counted) {
        say(f, V_SKIP, "lengths in tokens need a chat template that can be run");
        return;
    }
    number(f, "longest", s->longest);
    number(f, "longest_prompt", s->longest_prompt);
    number(f, "n_long", (double)s->n_long);
    number(f, "n_prompt_long", (double)s->n_prompt_long);
    say(f, V_OK, "longest row %d tokens, longest prompt %d", s->longest, s->longest_prompt);
    if (!context) {
        say(f, V_OK, "the context is not known");
        return;
    }
    if (s->n_prompt_long) {
        say(f, V_FAIL, "%zu of %zu prompts leave no room for an answer in the context of %lld", s->n_prompt_long, s->n_row,
            (long long)context);
        fix(f, "drop them (gen --skip-bad passes over them)");
    }
    if (s->n_long > s->n_prompt_long) {
        say(f, V_WARN, "%zu of %zu rows are longer than the context of %lld: train cuts their ends off", s->n_long, s->n_row,
            (long long)context);
        fix(f, "drop them, generate with a smaller --max-tokens, or take a student with a longer context");
    }
    if (!s->n_long) say(f, V_OK, "all within the context of %lld", (long long)context);
}

void check_data_answers(struct exam *x, struct finding *f)
{
    const struct data_source *s = x->in_hand;
    number(f, "n_answer", (double)s->n_answer);
    number(f, "n_empty", (double)s->n_empty);
    const size_t n = s->store ? s->n_row : s->n_prompt;
    if (n) say(f, V_OK, "%zu of %zu prompts say the right answer", s->n_answer, n);
    if (n && s->n_answer < n) {
        if (s->n_answer) f->verdict = V_WARN;
        fix(f, "the answers of the others cannot be judged: add \"answer\" where eval or data verify --kind is to judge");
    }
    if (s->n_chat) say(f, V_OK, "%zu conversations, %zu turns with reasoning", s->n_chat, s->n_reasoning);
    if (s->n_empty) {
        say(f, 2 * s->n_empty > s->n_row ? V_FAIL : V_WARN, "%zu of %zu answers are empty%s", s->n_empty, s->n_row,
            s->store ? ": reasoning that did not come to an end, mostly" : "");
        fix(f, s->store ? "generate with a larger --max-tokens, or filter them out" : "drop those rows");
    }
    if (s->n_think && side_strips_think(&x->student)) {
        say(f, V_FAIL,
            "%zu answers have their reasoning inside the content, from where the student's chat template strips it: it would be lost "
            "without a word",
            s->n_think);
        fix(f, "move what stands between <think> and </think> to reasoning_content, which train puts back");
    }
}

void check_data_finish(struct exam *x, struct finding *f)
{
    const struct data_source *s = x->in_hand;
    if (!s->n_row) {
        say(f, V_SKIP, "no samples");
        return;
    }
    const double share = (double)s->n_length / (double)s->n_row;
    number(f, "n_length", (double)s->n_length);
    number(f, "share_length", share);
    number(f, "n_error", (double)s->n_error);
    say(f, V_OK, "%.1f%% of %zu samples were cut off at the length limit", 100 * share, s->n_row);
    if (share > 0.1) { // more than that teaches not to finish
        say(f, share > 0.5 ? V_FAIL : V_WARN, "such samples have no end token: the student learns to go on");
        fix(f, "generate with a larger --max-tokens, or filter them out");
    }
    if (s->n_error) {
        say(f, V_WARN, "%zu ended in refusal or error; train passes over them", s->n_error);
        fix(f, "look at them: distill data show %s", s->path);
    }
}

// ---- a store against the models ----

const json_t *data_identity(const struct data_source *s, const char *key)
{
    return json_object_get(json_object_get(store_manifest(s->store), "identity"), key);
}

void check_data_teacher(struct exam *x, struct finding *f)
{
    json_t *now = NULL;
    struct err err = {0};
    const json_t *then = json_object_get(data_identity(x->in_hand, "teacher"), "files");
    if (!then) {
        say(f, V_WARN, "the store does not say which files its teacher had");
        fix(f, "keep the teacher's folder beside the store: its provenance rests on your word");
        return;
    }
    if (identity_of_model(&now, x->teacher.dir, &err)) {
        say(f, V_SKIP, "%s", err.text);
        return;
    }
    const char *name;
    json_t *file, *files = json_object_get(now, "files");
    struct buf differ = {0};
    json_object_foreach((json_t *)(uintptr_t)then, name, file) if (!json_equal(file, json_object_get(files, name)))
        buf_printf(&differ, "%s%s%s", differ.size ? ", " : "", name, json_object_get(files, name) ? "" : " (not there now)");
    json_object_foreach(files, name, file) if (!json_object_get(then, name))
        buf_printf(&differ, "%s%s (not there then)", differ.size ? ", " : "", name);
    if (!differ.size)
        say(f, V_OK, "written by this teacher: all %zu files have the hashes of then", json_object_size(then));
    else {
        say(f, V_FAIL, "the store was written by another teacher; these differ: %s", differ.data);
        fix(f,
            "give the teacher that wrote the store, or generate again: gen refuses to add to it, and its numbers are not this teacher's");
    }
    buf_free(&differ);
    json_decref(now);
}

void check_data_tokenizer(struct exam *x, struct finding *f)
{
    const char *then = json_string_value(json_object_get(data_identity(x->in_hand, "tokenizer"), "sha256"));
    const char *now = tokenizer_sha256(x->student.tok);
    if (!then) {
        say(f, V_WARN, "the store does not say with which tokenizer it was written");
        fix(f, "make sure that it was the student's");
    } else if (!strcmp(then, now))
        say(f, V_OK, "the student's");
    else {
        say(f, V_FAIL, "another than the student's (sha256 %.12s… against %.12s…): train refuses the store", then, now);
        fix(f, "see tokenizer above; or learn from the text alone: distill data export %s --messages F.jsonl", x->in_hand->path);
    }
}

void check_data_targets(struct exam *x, struct finding *f)
{
    const struct data_source *s = x->in_hand;
    const struct targets_spec *spec = store_spec(s->store);
    const int64_t rows = side_vocab(&x->student);
    if (rows && s->max_id >= rows) {
        say(f, V_FAIL, "token id %d is outside the student's %lld rows", (int)s->max_id, (long long)rows);
        fix(f, "take a student with the teacher's vocabulary");
    }
    if (spec->kind == TARGETS_NONE) {
        say(f, V_WARN, "none: the store can teach by its text alone (--loss ce)");
        fix(f, "distill gen --targets topk:64");
        return;
    }
    struct buf at = {0};
    for (int i = 0; i < spec->n_temperature; i++) buf_printf(&at, "%s%g", i ? ", " : "", (double)spec->temperature[i]);
    say(f, V_OK, "%s:%d, log Z at temperature %s", spec->kind == TARGETS_TOPK ? "topk" : "sampled", spec->k, at.size ? at.data : "1");
    buf_free(&at);
    // What train itself asks, of the loss it takes when none is named.
    struct rows_source source = {.path = (char *)(uintptr_t)s->path, .store = s->store, .spec = *spec};
    struct rows r = {.source = &source, .n_source = 1};
    struct loss_spec loss;
    struct targets_use use;
    struct err err = {0};
    if (loss_parse(&loss, "fkl", &err) ||
        targets_use_init(&use, &r, &loss, (float)opt_real(x->o, "kd-temperature"), rows ? (int)rows : INT32_MAX, &err)) {
        say(f, V_FAIL, "%s", err.text);
        fix(f, "choose one of those temperatures, or capture again");
    } else
        say(f, V_OK, "losses: %s; %d of the student's columns count",
            loss.kind->sampled && spec->kind == TARGETS_SAMPLED ? "fkl" : "fkl, rkl, jsd", use.n_vocab);
}
