// distill export: a model as one file that other programs run. GGUF, as llama.cpp loads it.
#include "datasets/tokenizer/gguf.h"
#include "distill/command.h"
#include "distill/export_card.h"
#include "distill/progress.h"
#include "distill/registry.h"
#include "distill/signals.h"
#include "kernels/model/gguf.h"
#include "kernels/model/model.h"
#include "kernels/model/source.h"

#include <string.h>

// clang-format off
static const struct option options[] = {
    {"model", OPT_STRING, .value = "DIR", .required = true, .help = "the model: a Hugging Face directory, or a GGUF file to write with another type"},
    {"gguf", OPT_STRING, .value = "OUT.gguf", .required = true, .help = "the file to write"},
    {"type", OPT_ENUM, .def = "bf16", .choices = "f16|bf16|q8_0|f32", .help = "how matrices are stored; bf16 is exact for a bf16 checkpoint. Vectors, norms and routers stay f32"},
    {"force", OPT_BOOL, .not_a_setting = true, .help = "write over OUT.gguf if it is there"},
    {0}};
// clang-format on

struct export
{
    const struct options *o;
    const char *dir, *path;
    enum ggml_type type;
    struct model_config config;
    const struct arch *arch;
    struct source src;
    struct gguf_writer *w;
    struct gguf_plan *plan;
    struct progress progress;
};

static enum ggml_type type_of(const char *name)
{
    return !strcmp(name, "f32") ? GGML_F32 : !strcmp(name, "f16") ? GGML_F16 : !strcmp(name, "bf16") ? GGML_BF16 : GGML_Q8_0;
}

static bool on_tensor(void *arg, size_t n)
{
    struct export *x = arg;
    progress_step(&x->progress, (int64_t)n, 0, NULL);
    return !stop_requested();
}

// Keys and declarations; what cannot be said in GGUF is found here, before the first byte of a tensor.
static enum status declare(struct export *x, struct err *err)
{
    const char *notes[2]; // on the configuration, on the tokenizer
    TRY(model_config_read(&x->config, &x->arch, x->dir, all_archs, err));
    TRY(source_open(&x->src, x->dir, &x->config, err));
    TRY(model_check(&x->config, x->arch, &x->src, x->dir, err));
    TRY(gguf_create(&x->w, x->path, err));
    TRY(gguf_put_config(x->w, &x->config, x->type, &notes[0], x->dir, err));
    TRY(export_card(x->w, x->dir, err));
    TRY(gguf_put_tokenizer(x->w, x->dir, (int32_t)x->config.n_vocab, x->config.bos, x->config.eos, x->config.n_eos, &notes[1], err));
    x->plan = gguf_plan_tensors(x->w, &x->src, &x->config, x->type);
    for (int i = 0; i < 2; i++)
        if (notes[i] && !opt_bool(x->o, "quiet")) fprintf(stderr, "distill export: %s\n", notes[i]);
    return ST_OK;
}

static enum status write_all(struct export *x, struct err *err)
{
    TRY(gguf_begin(x->w, err));
    x->progress = progress_start("export", "tensor", (int64_t)gguf_plan_count(x->plan), 0, NULL, opt_bool(x->o, "quiet"));
    x->progress.plain_every_s = 5;
    enum status st = gguf_write_tensors(x->w, x->plan, on_tensor, x, err);
    progress_end(&x->progress);
    if (st == ST_INTERRUPTED) err_prefix(err, "%s was not written", x->path);
    if (st) return st;
    struct gguf_writer *w = x->w;
    x->w = NULL;
    return gguf_finish(w, err);
}

static void report(const struct export *x, uint64_t size_bytes)
{
    struct buf line = {0};
    json_t *j = json_pack("{s:s, s:s, s:I, s:I}", "out", x->path, "type", opt_str(x->o, "type"), "n_tensor",
                          (json_int_t)gguf_plan_count(x->plan), "tensor_bytes", (json_int_t)size_bytes);
    json_append_line(&line, j);
    if (opt_bool(x->o, "json"))
        fwrite(line.data, 1, line.size, stdout);
    else if (!opt_bool(x->o, "quiet"))
        fprintf(stderr, "%s: %zu tensors, %.1f MB, matrices in %s\n", x->path, gguf_plan_count(x->plan), (double)size_bytes / 1e6,
                opt_str(x->o, "type"));
    buf_free(&line);
    json_decref(j);
}

static enum status run(struct options *o, struct err *err)
{
    struct export x = {.o = o, .dir = opt_str(o, "model"), .path = opt_str(o, "gguf"), .type = type_of(opt_str(o, "type"))};
    if (file_exists(x.path) && !opt_bool(o, "force"))
        return err_set(err, ST_BAD_INPUT, "--gguf %s is there already: give another name, or add --force to write over it", x.path);
    enum status st = declare(&x, err);
    uint64_t size_bytes = st ? 0 : gguf_declared_bytes(x.w);
    if (!st) st = write_all(&x, err);
    if (!st) report(&x, size_bytes);
    gguf_abort(x.w);
    gguf_plan_free(x.plan);
    source_close(&x.src);
    model_config_free(&x.config);
    return st;
}

const struct command command_export = {
    .name = "export",
    .summary = "write a model as one GGUF file, which llama.cpp runs",
    .notes = "Weights, configuration, tokenizer and chat template go into the file, and name, licence and base\n"
             "model where README.md or run.json tell them. What llama.cpp would compute otherwise than the\n"
             "model's own configuration says, and a tokenizer it has no exact name for, are refused.\n"
             "\n"
             "  distill export --model runs/student --gguf student.gguf --type q8_0\n"
             "  llama-cli -m student.gguf\n",
    .options = options,
    .saves_on_stop = true,
    .run = run,
};
