// The probe: the models are run over a little text, and what they say is compared as training will compare it.
//
//   texts     samples of the stores, else conversations, else built-in text, else (no tokenizer) random ids
//   teacher   run by generation's kernels, as gen runs it: its top K at every token
//   student   run by training's kernels, as train runs it: compared with those, with the stores' targets, and with itself by generation's
//
// Targets of token t are what the model said at the token before, so they belong to row t - 1. Taken there the divergence must be least;
// one row off it is the classic mistake of shifted labels, which trains without complaint. Each model is loaded twice and let go again.
#include "datasets/tokenizer/compare.h"
#include "distill/compute.h"
#include "distill/doctor.h"
#include "kernels/base/rng.h"

#include <math.h>
#include <string.h>

enum { TOP_K = 64, MAX_DOC_TOKENS = 128, CHUNK = 32 };

struct gap {      // how far two distributions of the same tokens are apart
    double kl[3]; // mean nats a token; the second's rows taken one before, at, and one behind their place
    int n;
};

struct probe {
    struct probe_doc *doc; // borrowed texts of the sources, or own
    size_t n_doc;
    bool own;
    const char *kind;
    int n_vocab, k;
    // For each model: what it said by generation's kernels, and the gaps found; why it could not be run.
    struct half {
        struct targets *said;           // (n_doc) row i: token i + 1
        struct gap self, pair, *stored; // stored: (n_source) the stores' targets against training's kernels
        struct gap *captured;           // (n_source) the stores' targets against generation's kernels
        struct err why;                 // why it could not be run
        bool nonfinite;
    } teacher, student;
};

// ---- texts ------------------------------------------------------------------------------------------------------------------------------

static const char *const built_in[] = {
    "The sum of two even numbers is even. Let the numbers be 2a and 2b; then their sum is 2(a + b), which is twice a whole number.",
    "A train leaves at 9:15 and arrives at 11:40. How long does the journey take? From 9:15 to 11:15 are two hours, and 25 minutes more.",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))  # 5\n",
};

static bool fits(const struct probe_doc *d, int n_vocab)
{
    for (size_t i = 0; i < d->ids.n; i++)
        if (d->ids.v[i] < 0 || d->ids.v[i] >= n_vocab) return false;
    return d->ids.n >= 4;
}

static void add_own(struct probe *p, struct ids ids)
{
    struct probe_doc d = {.ids = ids, .first = 1};
    if (fits(&d, p->n_vocab))
        p->doc[p->n_doc++] = d;
    else
        ids_free(&d.ids);
}

static void take_texts(struct exam *x, struct probe *p)
{
    for (size_t i = 0; i < x->n_data; i++)
        for (size_t k = 0; k < x->data[i].n_doc; k++) p->n_doc += fits(&x->data[i].doc[k], p->n_vocab);
    if (p->n_doc) {
        p->doc = NEW_N(struct probe_doc, p->n_doc);
        p->n_doc = 0;
        for (size_t i = 0; i < x->n_data; i++)
            for (size_t k = 0; k < x->data[i].n_doc; k++)
                if (fits(&x->data[i].doc[k], p->n_vocab)) p->doc[p->n_doc++] = x->data[i].doc[k];
        p->kind = "the data";
        return;
    }
    const struct tokenizer *tok = x->teacher.tok ? x->teacher.tok : x->student.tok;
    p->own = true;
    p->kind = tok ? "built-in text" : "random ids";
    p->doc = NEW_N(struct probe_doc, sizeof built_in / sizeof *built_in);
    for (size_t i = 0; i < sizeof built_in / sizeof *built_in; i++) {
        struct ids ids = {0};
        struct err ignored = {0};
        if (tok)
            tokenizer_encode(tok, built_in[i], strlen(built_in[i]), &ids, &ignored);
        else
            for (uint64_t t = 0; t < 24; t++) ids_push(&ids, (int32_t)rng_below(i, 0, t, (uint64_t)p->n_vocab));
        if (ids.n > MAX_DOC_TOKENS) ids.n = MAX_DOC_TOKENS;
        add_own(p, ids);
    }
}

// ---- running a model --------------------------------------------------------------------------------------------------------------------

struct runner {
    struct device *dev;
    struct model *m;
    int max_tok;
    int32_t *ints; // ids, positions, start of the text in hand
    float *logits; // (CHUNK, n_vocab of the head)
};

static void forward(struct runner *r, struct tensor hidden, int n)
{
    struct tensor ints = dev_1d(r->dev, DT_I32, 2 * n + 2);
    op_upload(r->dev, ints, r->ints);
    const int32_t *at = ints.data;
    struct segments seg = {.n_seg = 1, .n_tok = n, .max_len = n, .max_pos = n, .pos = at + n, .start = at + 2 * n};
    struct run run = {.dev = r->dev, .mode = RUN_FLAT, .seg = &seg};
    model_forward(r->m, &run, hidden, tensor_rows(ints, 0, n));
}

static void head(struct runner *r, struct tensor hidden, int first, int n)
{
    size_t mark = dev_mark(r->dev);
    struct tensor logits = dev_2d(r->dev, DT_F32, n, r->m->config.n_vocab);
    model_logits(r->m, r->dev, logits, tensor_rows(hidden, first, n));
    op_download(r->dev, r->logits, logits);
    dev_release(r->dev, mark);
}

static enum status runner_open(struct runner *r, struct exam *x, const struct side *s, enum model_use use, int max_tok, struct err *err)
{
    *r = (struct runner){.dev = &x->dev, .max_tok = max_tok};
    struct model *plan = plan_model(x, s, use, err);
    if (!plan) return ST_FAIL;
    const size_t need = plan->weights.peak + plan->weights.peak / 10, have = dev_available_bytes(r->dev);
    model_free(plan);
    if (need > have) return err_set(err, ST_FAIL, "loading the %s takes %s and %s are free", s->role, size_text(need).s, size_text(have).s);
    const struct model_options mo = exam_model_options(x, s, use);
    TRY(model_load(&r->m, r->dev, s->dir, &mo, err));
    r->ints = NEW_N(int32_t, 2 * max_tok + 2);
    r->logits = NEW_N(float, CHUNK * r->m->config.n_vocab);
    dev_measure(r->dev);
    struct tensor hidden = dev_2d(r->dev, r->m->dtype, max_tok, r->m->config.d_model);
    size_t inner = dev_mark(r->dev);
    forward(r, hidden, max_tok);
    dev_release(r->dev, inner);
    head(r, hidden, 0, CHUNK < max_tok ? CHUNK : max_tok);
    TRY(dev_check(r->dev, err));
    return dev_reserve(r->dev, r->dev->arena.peak, err);
}

static void runner_close(struct runner *r)
{
    model_free(r->m);
    mem_free(r->ints);
    mem_free(r->logits);
}

typedef void row_fn(void *arg, size_t doc, int row, const float *logits);

// Every row of every text, a chunk at a time.
static enum status run_texts(struct runner *r, const struct probe *p, row_fn *fn, void *arg, struct err *err)
{
    enum status st = ST_OK;
    for (size_t d = 0; !st && d < p->n_doc; d++) {
        const int n = (int)p->doc[d].ids.n;
        for (int i = 0; i < n; i++) r->ints[i] = p->doc[d].ids.v[i], r->ints[n + i] = i;
        r->ints[2 * n] = 0;
        r->ints[2 * n + 1] = n;
        size_t mark = dev_mark(r->dev);
        struct tensor hidden = dev_2d(r->dev, r->m->dtype, n, r->m->config.d_model);
        size_t inner = dev_mark(r->dev);
        forward(r, hidden, n);
        dev_release(r->dev, inner);
        for (int first = 0; !st && first < n; first += CHUNK) {
            const int len = n - first < CHUNK ? n - first : CHUNK;
            head(r, hidden, first, len);
            st = dev_check(r->dev, err);
            for (int i = 0; !st && i < len; i++) fn(arg, d, first + i, r->logits + (int64_t)i * r->m->config.n_vocab);
        }
        dev_release(r->dev, mark);
    }
    return st;
}

// ---- comparing --------------------------------------------------------------------------------------------------------------------------

static double log_z(const float *logits, int n)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        if ((double)logits[i] > max) max = (double)logits[i];
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    return max + log(sum);
}

// KL of the targets' row against the distribution that the logits are: on the tokens kept and, as one more, all the others together. It is
// at most the divergence over the whole vocabulary, and zero for the same distribution.
static double divergence(const struct targets *t, int row, const float *logits, int n_vocab)
{
    const double z = log_z(logits, n_vocab);
    const int32_t *id = t->ids + (size_t)row * (size_t)t->k;
    const float *lp = t->logprob + (size_t)row * (size_t)t->k;
    double kl = 0, p_kept = 0, q_kept = 0;
    for (int i = 0; i < t->k; i++) {
        if (id[i] < 0 || id[i] >= n_vocab) continue;
        const double p = exp((double)lp[i]), log_q = (double)logits[id[i]] - z;
        p_kept += p;
        q_kept += exp(log_q);
        if (p > 0) kl += p * ((double)lp[i] - log_q);
    }
    const double p_rest = 1 - p_kept, q_rest = 1 - q_kept, least = 1e-12; // below it the rest is rounding
    if (p_rest > least) kl += p_rest * (log(p_rest) - log(q_rest > least ? q_rest : least));
    return kl;
}

static void keep_top(const struct targets *t, int row, const float *logits, int n_vocab)
{
    const double z = log_z(logits, n_vocab);
    int32_t *id = t->ids + (size_t)row * (size_t)t->k;
    float *lp = t->logprob + (size_t)row * (size_t)t->k;
    int n = 0;
    for (int v = 0; v < n_vocab; v++) {
        if (n == t->k && logits[v] <= lp[n - 1]) continue;
        int at = n < t->k ? n++ : n - 1;
        for (; at > 0 && lp[at - 1] < logits[v]; at--) lp[at] = lp[at - 1], id[at] = id[at - 1];
        lp[at] = logits[v];
        id[at] = v;
    }
    for (int i = 0; i < n; i++) lp[i] = (float)((double)lp[i] - z);
}

static void add_gap(struct gap *g, const struct targets *t, int first, int n_tok, int row, const float *logits, int n_vocab)
{
    // Row r of the logits against the targets of token r + 1 - shift, for those tokens all three of whose rows exist.
    for (int shift = -1; shift <= 1; shift++) {
        const int token = row + 1 - shift, i = token - first;
        if (i < 0 || i >= t->n_tok || token - 2 < 0 || token >= n_tok) continue;
        g->kl[shift + 1] += divergence(t, i, logits, n_vocab);
        g->n += shift == 0;
    }
}

static void finish_gap(struct gap *g)
{
    for (int i = 0; i < 3 && g->n; i++) {
        g->kl[i] /= g->n;
        if (g->kl[i] < 0) g->kl[i] = 0; // the rounding of doubles, near 1e-17
    }
}

struct pass { // one model's run by one kind of kernels
    struct exam *x;
    struct probe *p;
    struct half *half;
    const struct half *other; // whose targets to compare with; NULL: none
    bool generate;
};

static const struct probe_doc *source_doc(const struct exam *x, const struct probe_doc *d, size_t *source)
{
    for (size_t i = 0; i < x->n_data; i++)
        for (size_t k = 0; k < x->data[i].n_doc; k++)
            if (x->data[i].doc[k].ids.v == d->ids.v) return *source = i, &x->data[i].doc[k];
    return NULL;
}

static void take_row(void *arg, size_t doc, int row, const float *logits)
{
    struct pass *a = arg;
    const struct probe_doc *d = &a->p->doc[doc];
    const int n = (int)d->ids.n, v = a->p->n_vocab;
    size_t source;
    for (int i = 0; i < v; i++) a->half->nonfinite |= !isfinite(logits[i]);
    if (a->generate && row + 1 < n) keep_top(&a->half->said[doc], row, logits, v);
    if (!a->generate) add_gap(&a->half->self, &a->half->said[doc], 1, n, row, logits, v);
    if (!a->generate && a->other && a->other->said) add_gap(&a->half->pair, &a->other->said[doc], 1, n, row, logits, v);
    if (d->targets.n_tok && d->targets.logprob && source_doc(a->x, d, &source))
        add_gap(a->generate ? &a->half->captured[source] : &a->half->stored[source], &d->targets, d->first, n, row, logits, v);
}

static void run_side(struct exam *x, struct probe *p, const struct side *s, struct half *h, const struct half *other)
{
    struct err *err = &h->why;
    int longest = 0;
    enum status st = ST_OK;
    for (size_t i = 0; i < p->n_doc; i++) longest = (int)p->doc[i].ids.n > longest ? (int)p->doc[i].ids.n : longest;
    h->stored = NEW_N(struct gap, x->n_data + 1);
    h->captured = NEW_N(struct gap, x->n_data + 1);
    if (!p->n_doc) err_set(err, st = ST_FAIL, "no text has ids that both models know");
    if (!st && side_context(s) < longest) err_set(err, st = ST_FAIL, "the %s's context is too short for the test texts", s->role);
    for (int pass = 0; !st && pass < 2; pass++) {
        struct runner r = {0};
        struct pass a = {.x = x, .p = p, .half = h, .other = other, .generate = pass == 0};
        if (a.generate) {
            h->said = NEW_N(struct targets, p->n_doc);
            for (size_t i = 0; i < p->n_doc; i++)
                targets_alloc(&h->said[i], &(struct targets_spec){.kind = TARGETS_TOPK, .k = p->k, .n_temperature = 1},
                              (int)p->doc[i].ids.n - 1);
        }
        st = runner_open(&r, x, s, a.generate ? MODEL_GENERATE : MODEL_TRAIN, longest, err);
        if (!st) st = run_texts(&r, p, take_row, &a, err);
        runner_close(&r);
    }
    if (st) return;
    finish_gap(&h->self);
    finish_gap(&h->pair);
    for (size_t i = 0; i < x->n_data; i++) finish_gap(&h->stored[i]), finish_gap(&h->captured[i]);
}

static void narrow(int *n, const struct side *s)
{
    int64_t most = side_vocab(s);
    if (s->tok && tokenizer_n_vocab(s->tok) < most) most = tokenizer_n_vocab(s->tok);
    if (s->dir && s->arch && most < *n) *n = (int)most;
}

static struct probe *probe(struct exam *x)
{
    if (x->probe) return x->probe;
    struct probe *p = x->probe = NEW(struct probe);
    p->n_vocab = INT32_MAX;
    narrow(&p->n_vocab, &x->teacher);
    narrow(&p->n_vocab, &x->student);
    p->k = p->n_vocab < TOP_K ? p->n_vocab : TOP_K;
    if (opt_bool(x->o, "probe")) take_texts(x, p);
    const struct side *sides[] = {&x->teacher, &x->student};
    struct half *halves[] = {&p->teacher, &p->student};
    for (int i = 0; i < 2; i++) {
        const struct side *s = sides[i];
        if (!opt_bool(x->o, "probe"))
            err_set(&halves[i]->why, ST_FAIL, "--no-probe was given");
        else if (s->dir && s->arch && s->n_weight)
            run_side(x, p, s, halves[i], i ? &p->teacher : NULL);
        else
            err_set(&halves[i]->why, ST_FAIL, "the %s cannot be run", s->role);
    }
    return p;
}

static void half_free(struct half *h, size_t n_doc)
{
    for (size_t i = 0; h->said && i < n_doc; i++) targets_free(&h->said[i]);
    mem_free(h->said);
    mem_free(h->stored);
    mem_free(h->captured);
}

void probe_free(struct probe *p)
{
    if (!p) return;
    half_free(&p->teacher, p->n_doc);
    half_free(&p->student, p->n_doc);
    for (size_t i = 0; p->own && i < p->n_doc; i++) ids_free(&p->doc[i].ids);
    mem_free(p->doc);
    mem_free(p);
}

// ---- checks -----------------------------------------------------------------------------------------------------------------------------

// Two ways through the same weights differ by rounding alone: about 1e-7 nats a token in f32 and 1e-3 in bf16, whose 8 bits leave logits
// an error near 2^-8 of their size. A wrong tensor or a shift costs whole nats. Where the teacher's activations are quantised to e4m3 it is
// 2^-4, whose square is 256 times that; 0.03 nats were seen.
static struct rounding {
    double kl;
    const char *to;
} rounding(const struct exam *x, bool in_fp8)
{
    if (in_fp8) return (struct rounding){0.25, "FP8"};
    return run_dtype(x->o) == DT_F32 ? (struct rounding){1e-4, "f32"} : (struct rounding){5e-2, "bf16"};
}

static bool fp8_teacher(const struct exam *x)
{
    return exam_model_options(x, &x->teacher, MODEL_GENERATE).fp8_activations;
}

static void give_numbers(struct finding *f, const struct gap *g)
{
    number(f, "kl_before", g->kl[0]);
    number(f, "kl", g->kl[1]);
    number(f, "kl_behind", g->kl[2]);
    number(f, "n_tok", g->n);
}

// Where the second's rows fit best must be where they belong.
static void judge_shift(struct finding *f, const struct gap *g, const char *kind, const char *whose)
{
    give_numbers(f, g);
    const double other = g->kl[0] < g->kl[2] ? g->kl[0] : g->kl[2];
    say(f, V_OK, "KL %.4g nats a token over %d tokens of %s; %.4g with rows taken one early, %.4g one late", g->kl[1], g->n, kind, g->kl[0],
        g->kl[2]);
    if (g->kl[1] < other) return;
    if (other < 0.9 * g->kl[1]) {
        say(f, V_FAIL, "the student fits better one row %s: the labels are shifted", g->kl[0] < g->kl[2] ? "early" : "late");
        fix(f, "%s", whose);
    } else {
        say(f, V_WARN, "no place fits better than another: the student does not know such text yet, so a shift would not show");
        fix(f, "try a pretrained student, or other --data");
    }
}

static void judge_same(struct rounding most, struct finding *f, const struct gap *g, const char *what, const char *mend)
{
    if (g->kl[1] <= most.kl) return;
    say(f, V_FAIL, "more than rounding in %s explains (%g): %s", most.to, most.kl, what);
    fix(f, "%s", mend);
}

void check_same_numbers(struct exam *x, struct finding *f)
{
    struct probe *p = probe(x);
    const struct half *h = x->side == &x->teacher ? &p->teacher : &p->student;
    if (h->why.code) {
        const bool damaged = strstr(h->why.text, "NaN"); // the loader's word
        say(f, damaged ? V_FAIL : V_SKIP, "%s", h->why.text);
        if (damaged) fix(f, "the weights are damaged: fetch them again");
        return;
    }
    give_numbers(f, &h->self);
    say(f, V_OK, "KL %.3g nats a token between generation's kernels and training's, over %d tokens of %s", h->self.kl[1], h->self.n,
        p->kind);
    if (h->nonfinite) {
        say(f, V_FAIL, "some logits are not finite");
        fix(f, "try --dtype f32; if they stay so, the weights are damaged: fetch them again");
    }
    judge_same(rounding(x, h == &p->teacher && fp8_teacher(x)), f, &h->self, "the two do not compute the same model",
               "report it with config.json: this is our mistake");
}

void check_logit_shift(struct exam *x, struct finding *f)
{
    struct probe *p = probe(x);
    const struct half *t = &p->teacher, *s = &p->student;
    if (t->why.code || s->why.code) {
        say(f, V_SKIP, "%s", t->why.code ? t->why.text : s->why.text);
        return;
    }
    struct tokenizer_diff d = {0};
    if (x->teacher.tok && x->student.tok) tokenizer_compare(&d, x->teacher.tok, x->student.tok);
    if (d.n_differ) {
        say(f, V_SKIP, "the tokenizers differ: the same ids are other words");
        return;
    }
    judge_shift(f, &s->pair, p->kind, "report it with both config.json files: this is our mistake");
    if (!x->same_model) return;
    say(f, V_OK, "teacher and student are the same model");
    judge_same(rounding(x, fp8_teacher(x)), f, &s->pair, "the same model should differ by nothing",
               "report it with config.json: this is our mistake");
}

// The stores' targets against a model: what both checks of data begin with. NULL: skipped, and said why.
static const struct gap *stored(struct exam *x, struct finding *f, const struct half *h, const struct gap *of_sources)
{
    if (h->why.code) {
        say(f, V_SKIP, "%s", h->why.text);
        return NULL;
    }
    const struct gap *g = &of_sources[x->in_hand - x->data];
    if (!g->n) say(f, V_SKIP, "no top-k targets within reach of the probe");
    return g->n ? g : NULL;
}

void check_data_capture(struct exam *x, struct finding *f)
{
    struct probe *p = probe(x);
    const bool then = json_is_true(data_identity(x->in_hand, "fp8_activations")), now = fp8_teacher(x);
    const struct gap *g = stored(x, f, &p->teacher, p->teacher.captured);
    if (!g) return;
    if (then != now) {
        say(f, V_SKIP, "gen made the store %s --fp8-activations: compared only if the doctor runs so, too", then ? "with" : "without");
        return;
    }
    give_numbers(f, g);
    say(f, V_OK, "KL %.3g nats a token between what the store holds and what the teacher says now, over %d tokens", g->kl[1], g->n);
    judge_same(rounding(x, now), f, g, "the store is not of this teacher, or was captured in another way",
               "generate again with this teacher, or give the teacher that wrote the store");
}

void check_data_shift(struct exam *x, struct finding *f)
{
    struct probe *p = probe(x);
    const struct gap *g = stored(x, f, &p->student, p->student.stored);
    if (g) judge_shift(f, g, "the store", "the store's targets belong to other tokens: capture them again");
}
