// A training step, through student/trainer.h as `distill train` runs it: packed rows, loss on every token, clipping, AdamW. PyTorch runs
// the same step in a process beside us (torch_step.py), in turn with ours, each waiting while the other works. On a GPU, where two do not
// fit, against its products; tests/gpu-check runs PyTorch on the same rows afterwards.
#include "student/trainer.h"
#include "tests/bench/bench.h"
#include "tests/bench/rows.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

struct setup {
    const char *name, *json, *dir; // as slice_open
    int n_row, min_len, max_len;   // lengths are spread evenly over the range
    int n_pair;
};

static void write_text(const char *path, const char *what)
{
    FILE *f = fopen(path, "w");
    if (!f) note("%s cannot be written", path), exit(1);
    fputs(what, f);
    fclose(f);
}

static void write_rows(const struct rows *r, const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f) note("%s cannot be written", path), exit(1);
    for (size_t i = 0; i < r->n; i++)
        for (int k = 0; k < r->v[i].n_tok; k++) fprintf(f, "%s%d%s", k ? " " : "", r->v[i].ids[k], k + 1 == r->v[i].n_tok ? "\n" : "");
    fclose(f);
}

// ---- PyTorch, beside us ----

struct peer {
    pid_t pid;
    FILE *to, *from;
    char how[200];
};

// False when it cannot be had: no interpreter, no torch, no transformers; it says why on stderr.
static bool peer_start(struct peer *p, const char *dir, bool pretrained, const char *rows, enum dtype dtype, int n_thread)
{
    int to[2], from[2];
    const char *python = getenv("PYTHON");
    char threads[16];
    snprintf(threads, sizeof threads, "%d", n_thread);
    *p = (struct peer){0};
    fflush(NULL);
    signal(SIGPIPE, SIG_IGN);
    if (pipe(to) || pipe(from) || (p->pid = fork()) < 0) return false;
    if (!p->pid) {
        dup2(to[0], 0), dup2(from[1], 1);
        close(to[0]), close(to[1]), close(from[0]), close(from[1]);
        setenv("OMP_NUM_THREADS", threads, 1);
        python = python && *python ? python : "python3";
        execlp(python, python, "tests/bench/torch_step.py", dir, pretrained ? "pretrained" : "random", rows, dtype_name(dtype), threads,
               (char *)NULL);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    p->to = fdopen(to[1], "w");
    p->from = fdopen(from[0], "r");
    if (p->to && p->from && fgets(p->how, sizeof p->how, p->from) && !strncmp(p->how, "ready ", 6)) {
        p->how[strcspn(p->how, "\n")] = '\0';
        return true;
    }
    return false;
}

// Seconds of one step there; its loss too.
static bool peer_step(struct peer *p, double *s, double *loss)
{
    char line[100];
    fputs("step\n", p->to);
    fflush(p->to);
    return fgets(line, sizeof line, p->from) && sscanf(line, "%lf %lf", s, loss) == 2;
}

static void peer_stop(struct peer *p)
{
    if (p->to) fclose(p->to); // the end of its input ends it
    if (p->from) fclose(p->from);
    if (p->pid > 0) waitpid(p->pid, NULL, 0);
}

// 6 FLOPs a token and parameter that multiplies, and causal attention: 4 a pair of positions, head and dimension forward, twice that
// backward. What is recomputed is not counted.
static double step_flops(const struct model *m, const struct rows *rows)
{
    const struct model_config *c = &m->config;
    double n_weight = 0, n_pair = 0;
    for (size_t i = 0; i < m->n_param; i++) {
        const struct param *p = &m->params[i];
        if (p->rank == 2 && (p != m->embed || c->tied)) n_weight += (double)p->shape[0] * (double)p->shape[1];
    }
    for (size_t i = 0; i < rows->n; i++) n_pair += 0.5 * (double)rows->v[i].n_tok * ((double)rows->v[i].n_tok + 1);
    return 6 * n_weight * (double)rows->n_tok + 12 * n_pair * (double)(c->n_head * c->d_head * c->n_layer);
}

// On a GPU: seconds a step, and what share of its products' speed that is. With $BENCH_ROWS the rows are written there under the name
// `rows_to`, for a peer.
static void measure_gpu(const struct setup *u, enum dtype dtype, const char *rows_to)
{
    enum { MAX_STEP = 16 };
    double mine[MAX_STEP], gemm[MAX_STEP], share[MAX_STEP], loss = 0;
    struct slice s;
    struct comm comm;
    ceilings_open();
    slice_open(&s, u->json, NULL, MODEL_TRAIN, dtype);
    struct rows rows = made_up_rows(u->n_row, u->min_len, u->max_len, s.model->config.n_vocab);
    const char *dir = getenv("BENCH_ROWS");
    if (dir && rows_to) write_rows(&rows, text("%s/%s", dir, rows_to)), write_text(text("%s/config.json", dir), u->json);
    struct trainer *t = made_up_trainer(&s, &rows, &comm);
    const double flops = step_flops(s.model, &rows);
    char plan[200];
    train_plan_describe(&t->plan, plan, sizeof plan);
    made_up_step(t, &loss);
    for (int i = 0; i < u->n_pair; i++) {
        gemm[i] = ceiling_gemm(dtype);
        mine[i] = made_up_step(t, &loss);
        share[i] = flops / mine[i] / gemm[i];
    }
    const double step = median(mine, u->n_pair);
    note("train %s %s: %.4f s a step, loss %.4f; %s", u->name, dtype_name(dtype), step, loss, plan);
    row(text("training step, %s, %s, %d tokens in %d %s rows", u->name, dtype_name(dtype), (int)rows.n_tok, u->n_row,
             u->min_len < u->max_len ? "uneven" : "equal"),
        text("%.0f tokens/s, %.0f ms, %s", (double)rows.n_tok / step, step * 1e3, flops_text(flops / step)),
        text("product %d³: %s", (int)ceiling_m, flops_text(median(gemm, u->n_pair))), median(share, u->n_pair));
    trainer_close(t);
    comm_close(&comm);
    rows_free(&rows);
    slice_close(&s);
}

static void measure(const struct setup *u, enum dtype dtype)
{
    enum { MAX_PAIR = 32 };
    double mine[MAX_PAIR], theirs[MAX_PAIR], ratio[MAX_PAIR], loss = 0, their_loss = 0;
    struct slice s;
    struct comm comm;
    const char *dir = u->json ? slice_dir(u->json) : u->dir, *rows_at = text("%s/rows.txt", slice_dir("{}\n"));
    slice_open(&s, u->json, dir, MODEL_TRAIN, dtype);
    struct rows rows = made_up_rows(u->n_row, u->min_len, u->max_len, s.model->config.n_vocab);
    write_rows(&rows, rows_at);

    // PyTorch tries its variants before our arenas are taken: room for both is all that is asked of the machine.
    struct peer peer;
    bool have = peer_start(&peer, dir, !u->json, rows_at, dtype, s.dev.n_thread);
    struct trainer *t = made_up_trainer(&s, &rows, &comm);
    made_up_step(t, &loss);
    for (int i = 0; i < u->n_pair; i++) {
        mine[i] = made_up_step(t, &loss);
        have = have && peer_step(&peer, &theirs[i], &their_loss);
        ratio[i] = have ? theirs[i] / mine[i] : 0;
        if (have)
            note("train %s %s: ours %.3f s, PyTorch %.3f s; losses %.4f, %.4f", u->name, dtype_name(dtype), mine[i], theirs[i], loss,
                 their_loss);
        if (!have) note("train %s %s: ours %.3f s", u->name, dtype_name(dtype), mine[i]);
    }
    const double n = (double)rows.n_tok;
    const char *job = text("training step, %s, %s", u->name, dtype_name(dtype)), *us = text("%.0f tokens/s", n / median(mine, u->n_pair));
    if (have)
        row(job, us, text("%.0f tokens/s, PyTorch (%s)", n / median(theirs, u->n_pair), peer.how + 6), median(ratio, u->n_pair));
    else
        row(job, us, "skipped: no PyTorch with transformers", -1);
    peer_stop(&peer);
    trainer_close(t);
    comm_close(&comm);
    rows_free(&rows);
    slice_close(&s);
}

void job_train(void)
{
    const struct setup qwen = {.name = "Qwen2.5-0.5B slice", .json = slice_qwen, .n_row = 3, .min_len = 298, .max_len = 384, .n_pair = 4};
    const struct setup tiny = {
        .name = "tiny student", .dir = "teacher/tiny/base", .n_row = 64, .min_len = 60, .max_len = 120, .n_pair = 16};
    if (bench_small || on_gpu()) {
        const int each = bench_small ? 1 : 256; // 8192 tokens in rows of one length, and of lengths evenly spread
        struct setup u = {.name = bench_small ? "smallest dense" : "Qwen2.5-1.5B",
                          .json = bench_small ? slice_smallest : config_qwen_1_5b(),
                          .n_row = 4,
                          .min_len = 8 * each,
                          .max_len = 8 * each,
                          .n_pair = bench_small ? 1 : 8};
        measure_gpu(&u, DT_BF16, "rows.txt");
        u.n_row = 8, u.min_len = each, u.max_len = 7 * each;
        measure_gpu(&u, DT_BF16, "uneven.txt");
        return;
    }
    const char *only = getenv("BENCH_TRAIN"); // "slice f32", say; for whoever looks at one of them
    for (enum dtype t = DT_F32; t <= DT_BF16; t++) {
        if (!only || (strstr(only, "slice") && strstr(only, dtype_name(t)))) measure(&qwen, t);
        if (!only || (strstr(only, "tiny") && strstr(only, dtype_name(t)))) measure(&tiny, t);
    }
}

// Of 28 layers as many as fit with gradients and optimizer, 18 bytes a parameter, and some room for activations.
void job_train_7b(void)
{
    if (bench_small) {
        job_train();
        return;
    }
    struct device dev;
    struct err err = {0};
    must(dev_open(&dev, bench_device, bench_threads, &err), &err);
    const double head = 2 * 152064.0 * 3584, layer = 2 * 3584.0 * (3584 + 512) + 3 * 3584.0 * 18944, room = 16e9;
    const int fit = (int)((((double)dev_available_bytes(&dev) - room) / 18 - head) / layer), layers = fit < 1 ? 1 : fit > 28 ? 28 : fit;
    dev_close(&dev);
    measure_gpu(&(struct setup){.name = text("Qwen2.5-7B shapes, %d of 28 layers", layers),
                                .json = config_qwen_7b(layers),
                                .n_row = 2,
                                .min_len = 4096,
                                .max_len = 4096,
                                .n_pair = 5},
                DT_BF16, NULL);
}
