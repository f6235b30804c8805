// Stores made from golden rows, students loaded, trainers opened.
#include "tests/student/train_fixture.h"

#include "tests/gpu.h"

#include <math.h>
#include <stdlib.h>

static json_t *read_json(const char *name)
{
    struct err err = {0};
    json_t *root = NULL;
    ck_ok(json_read(&root, test_golden(name), &err));
    return root;
}

static int32_t *int_array(const json_t *a, int *n)
{
    *n = (int)json_array_size(a);
    int32_t *v = NEW_N(int32_t, *n);
    for (int i = 0; i < *n; i++) v[i] = (int32_t)json_integer_value(json_array_get(a, (size_t)i));
    return v;
}

static const float *sort_logits; // of the row being ranked
static int by_logit(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    float fx = sort_logits[x], fy = sort_logits[y];
    return fx > fy ? -1 : fx < fy ? 1 : x - y;
}

static double log_sum_exp(const float *x, int n, double t)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) max = fmax(max, (double)x[i] / t);
    for (int i = 0; i < n; i++) sum += exp((double)x[i] / t - max);
    return max + log(sum);
}

// Row i of the targets from the teacher's logits, in double.
static void capture(struct targets *t, int i, const struct targets_spec *spec, const float *logits)
{
    int order[FIXTURE_VOCAB];
    double z = log_sum_exp(logits, FIXTURE_VOCAB, 1), tail = 0;
    for (int j = 0; j < FIXTURE_VOCAB; j++) order[j] = j;
    sort_logits = logits;
    qsort(order, FIXTURE_VOCAB, sizeof *order, by_logit);
    for (int j = 0; j < FIXTURE_VOCAB; j++) {
        double lp = (double)logits[order[j]] - z;
        if (j >= t->k) tail += exp(lp);
        if (j >= t->k) continue;
        t->ids[i * t->k + j] = order[j];
        t->logprob[i * t->k + j] = (float)lp;
    }
    t->tail_logprob[i] = (float)log(tail);
    for (int j = 0; j < spec->n_temperature; j++)
        t->log_z[i * spec->n_temperature + j] = (float)log_sum_exp(logits, FIXTURE_VOCAB, (double)spec->temperature[j]);
}

void fixture_store_of(const char *dir, int k, float temperature, const float *logits)
{
    struct err err = {0};
    struct targets_spec spec = {
        .kind = k ? TARGETS_TOPK : TARGETS_NONE, .k = k, .n_temperature = k ? 1 + (temperature > 1) : 0, .temperature = {1, temperature}};
    json_t *identity = json_pack("{s:{s:s, s:i}}", "teacher", "path", "made-up", "n_vocab", FIXTURE_VOCAB),
           *data = read_json("train/data.json");
    struct store *store;
    ck_ok(store_open_write(&store, dir, identity, &spec, &err));
    size_t r;
    json_t *row;
    json_array_foreach(json_object_get(data, "rows"), r, row)
    {
        char id[24];
        snprintf(id, sizeof id, "%zu", r);
        struct sample s = {.id = id, .messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "x"), .finish_reason = "stop"};
        s.prompt_ids = int_array(json_object_get(row, "prompt"), &s.n_prompt);
        s.token_ids = int_array(json_object_get(row, "ids"), &s.n_tok);
        struct targets t = {0};
        if (k) targets_alloc(&t, &spec, s.n_tok);
        for (int i = 0; k && i < s.n_tok; i++) capture(&t, i, &spec, logits + i * FIXTURE_VOCAB);
        if (k) logits += s.n_tok * FIXTURE_VOCAB;
        ck_ok(store_append(store, &s, k ? &t : NULL, &err));
        if (k) targets_free(&t);
        json_decref(s.messages);
        mem_free(s.prompt_ids);
        mem_free(s.token_ids);
    }
    ck_ok(store_close(store, &err));
    json_decref(identity);
    json_decref(data);
}

void fixture_store(const char *dir, int k, float temperature)
{
    struct err err = {0};
    struct st_set set = {0};
    ck_ok(st_open(&set, test_golden("train/teacher.safetensors"), &err));
    fixture_store_of(dir, k, temperature, (const float *)(const void *)st_find(&set, "logits")->data);
    st_close(&set);
}

void fixture_rows(struct rows *rows, const char *path)
{
    struct err err = {0};
    struct rows_options ro = {.max_len = 128, .n_vocab = FIXTURE_VOCAB};
    ck_ok(rows_load(rows, path, &ro, &err));
}

struct train_options fixture_options(void)
{
    struct err err = {0};
    struct train_options o = {.ce_weight = 1,
                              .kd_temperature = 1,
                              .lr = 3e-3,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .eps = 1e-8,
                              .weight_decay = 0.1,
                              .clip = 1,
                              .n_step = 10,
                              .pack = {.batch_tokens = 56, .micro_tokens = 56},
                              .recompute = RECOMPUTE_NONE};
    ck_ok(loss_parse(&o.loss, "ce", &err));
    return o;
}

struct train_options fixture_options_of(const char *loss, double kd_weight, double ce_weight)
{
    struct err err = {0};
    struct train_options o = fixture_options();
    ck_ok(loss_parse(&o.loss, loss, &err));
    o.kd_weight = kd_weight, o.ce_weight = ce_weight;
    return o;
}

void fixture_open(struct fixture *f, const char *arch, enum dtype dtype, const char *store)
{
    fixture_open_threads(f, arch, dtype, store, 1);
}

void fixture_open_threads(struct fixture *f, const char *arch, enum dtype dtype, const char *store, int n_thread)
{
    char dir[64];
    snprintf(dir, sizeof dir, "train/%s", arch);
    fixture_open_model(f, test_device(), test_golden(dir), dtype, store, n_thread);
}

void fixture_open_model(struct fixture *f, const char *device, const char *dir, enum dtype dtype, const char *store, int n_thread)
{
    struct err err = {0};
    *f = (struct fixture){0};
    ck_ok(dev_open(&f->dev, device, n_thread, &err));
    comm_open(&f->comm);
    struct model_options mo = {.archs = all_archs, .use = MODEL_TRAIN, .dtype = dtype};
    ck_ok(model_load(&f->model, &f->dev, dir, &mo, &err));
    fixture_rows(&f->rows, store);
}

void fixture_train(struct fixture *f, const struct train_options *opt)
{
    struct err err = {0};
    ck_ok(trainer_open(&f->trainer, f->model, &f->comm, &f->rows, opt, &err));
}

void fixture_start(struct fixture *f, const char *arch, enum dtype dtype, int k, const struct train_options *opt)
{
    const char *store = test_tmpdir();
    fixture_store(store, k, 1);
    fixture_open(f, arch, dtype, store);
    fixture_train(f, opt);
}

void fixture_close(struct fixture *f)
{
    trainer_close(f->trainer);
    model_free(f->model);
    rows_free(&f->rows);
    comm_close(&f->comm);
    dev_close(&f->dev);
}

struct step_result fixture_step(struct fixture *f)
{
    struct err err = {0};
    struct step_result r;
    ck_ok(trainer_step(f->trainer, &r, &err));
    return r;
}

static void put_values(struct buf *b, const struct fixture *f, struct tensor x)
{
    void *host = mem_alloc(tensor_bytes(x));
    op_download((struct device *)(uintptr_t)&f->dev, host, x);
    buf_put(b, host, tensor_bytes(x));
    mem_free(host);
}

struct buf fixture_weights(const struct fixture *f)
{
    struct buf b = {0};
    for (size_t i = 0; i < f->model->n_param; i++) put_values(&b, f, f->model->params[i].weight);
    return b;
}

struct buf fixture_grads(const struct fixture *f)
{
    struct buf b = {0};
    for (size_t i = 0; i < f->model->n_param; i++)
        if (!tensor_none(f->model->params[i].grad)) put_values(&b, f, f->model->params[i].grad);
    return b;
}
