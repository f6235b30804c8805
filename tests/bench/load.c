// Loading a checkpoint of Qwen2.5-1.5B's shapes (random bf16, 3.1 GB, made on the spot) against reading its bytes: the same file, cached
// alike, read by as many threads into a buffer each; and the memory it takes against the weights.
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

static const char config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"vocab_size\": 151936, \"hidden_size\": 1536, "
    "\"intermediate_size\": 8960, \"num_hidden_layers\": 28, \"num_attention_heads\": 12, \"num_key_value_heads\": 2, "
    "\"max_position_embeddings\": 32768, \"rope_theta\": 1000000.0, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", "
    "\"use_sliding_window\": false, \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\"}\n";

static const struct part {
    const char *name;
    int64_t rows, cols; // cols 0: one-dimensional
} once[] = {{"model.embed_tokens.weight", 151936, 1536}, {"model.norm.weight", 1536, 0}},
  layer[] = {{"input_layernorm.weight", 1536, 0},    {"self_attn.q_proj.weight", 1536, 1536}, {"self_attn.q_proj.bias", 1536, 0},
             {"self_attn.k_proj.weight", 256, 1536}, {"self_attn.k_proj.bias", 256, 0},       {"self_attn.v_proj.weight", 256, 1536},
             {"self_attn.v_proj.bias", 256, 0},      {"self_attn.o_proj.weight", 1536, 1536}, {"post_attention_layernorm.weight", 1536, 0},
             {"mlp.gate_proj.weight", 8960, 1536},   {"mlp.up_proj.weight", 8960, 1536},      {"mlp.down_proj.weight", 1536, 8960}};
enum { N_ONCE = sizeof once / sizeof *once, N_LAYER_PART = sizeof layer / sizeof *layer, N_LAYER = 28 };

// Part i of the checkpoint, and its name.
static const struct part *part_at(int i, char name[96])
{
    const struct part *p = i < N_ONCE ? &once[i] : &layer[(i - N_ONCE) % N_LAYER_PART];
    if (i < N_ONCE)
        snprintf(name, 96, "%s", p->name);
    else
        snprintf(name, 96, "model.layers.%d.%s", (i - N_ONCE) / N_LAYER_PART, p->name);
    return p;
}

static char *make_checkpoint(const char *dir)
{
    struct err err = {0};
    struct st_writer *w;
    enum { N = N_ONCE + N_LAYER * N_LAYER_PART, BLOCK = 1 << 20 };
    char name[96], *path = path_join(dir, "model.safetensors");
    bf16 *block = NEW_N(bf16, BLOCK);
    for (int64_t i = 0; i < BLOCK; i++) block[i] = (bf16)(rng_block(1, 1, (uint64_t)i).v[0] & 0xbcff); // any sign, magnitudes below 2^-7
    must(st_create(&w, path, &err), &err);
    for (int i = 0; i < N; i++) {
        const struct part *p = part_at(i, name);
        st_declare(w, name, "BF16", p->cols ? 2 : 1, (const int64_t[]){p->rows, p->cols});
    }
    must(st_begin(w, &err), &err);
    for (int i = 0; i < N; i++) {
        const struct part *p = part_at(i, name);
        for (int64_t left = p->rows * (p->cols ? p->cols : 1), n; left; left -= n) {
            n = left < BLOCK ? left : BLOCK;
            must(st_put(w, block, (size_t)n * sizeof *block, &err), &err);
        }
    }
    must(st_finish(w, &err), &err);
    mem_free(block);
    return path;
}

// Seconds to read the whole file, each thread its share, a MiB at a time into the same buffer.
static double read_all(const char *path, int n_thread, size_t *size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const off_t end = lseek(fd, 0, SEEK_END);
    enum { BLOCK = 1 << 20 };
    atomic_bool failed = fd < 0;
    double t = now_s();
#pragma omp parallel num_threads(n_thread)
    {
        int64_t first, last;
        char *buffer = mem_alloc(BLOCK);
        cpu_slice((end + BLOCK - 1) / BLOCK, &first, &last);
        for (int64_t i = first; i < last; i++)
            if (pread(fd, buffer, BLOCK, (off_t)i * BLOCK) <= 0) failed = true;
        mem_free(buffer);
    }
    t = now_s() - t;
    if (failed) note("cannot read %s", path), exit(1);
    close(fd);
    *size = (size_t)end;
    return t;
}

static void measure(const char *dir, const char *path, enum model_use use, enum dtype dtype)
{
    enum { N = 5 };
    double load[N], read[N], ratio[N];
    size_t size = 0, weights = 0, peak = 0, stage = 0;
    for (int i = 0; i < N; i++) {
        struct slice s;
        struct watch *w = watch_begin("VmRSS:");
        load[i] = now_s();
        slice_open(&s, NULL, dir, use, dtype);
        load[i] = now_s() - load[i];
        const size_t above = watch_end(w);
        if (above > peak) peak = above;
        weights = s.model->weights.size;
        stage = s.dev.arena.size;
        const int n_thread = s.dev.n_thread;
        slice_close(&s);
        read[i] = read_all(path, n_thread, &size);
        ratio[i] = read[i] / load[i];
    }
    const double r = median(ratio, N), gb = (double)size / 1e9, mib = 1 << 20;
    const char *what = text("Qwen2.5-1.5B shapes, bf16 to %s %s", dtype_name(dtype), use == MODEL_TRAIN ? "rows" : "panels");
    row(text("load, %s", what), text("%.2f GB/s", gb / median(load, N)), text("read() of the same file, %.2f GB/s", gb / median(read, N)),
        r);
    row(text("memory of loading, %s", what), text("%.0f MiB above start, mapped pages included", (double)peak / mib),
        text("weights %.0f MiB, chunks %.0f MiB", (double)weights / mib, (double)stage / mib), (double)peak / (double)weights);
}

void job_load(void)
{
    const char *dir = slice_dir(config);
    char *path = make_checkpoint(dir);
    measure(dir, path, MODEL_GENERATE, DT_BF16);
    measure(dir, path, MODEL_GENERATE, DT_F32);
    measure(dir, path, MODEL_TRAIN, DT_BF16);
    mem_free(path);
}
