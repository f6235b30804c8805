// Loading a checkpoint of Qwen2.5-1.5B's shapes (random bf16, 3.1 GB, made on the spot) against reading its bytes, in turn, by as many
// threads: from the disk, and from the system's cache of the file into a buffer that is used again, or into memory fresh from the system,
// which is where weights must go (on a virtual machine it may cost more than all else). And the memory that loading takes.
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
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

static void forget(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) note("cannot drop the cache of %s", path);
    close(fd);
}

// Seconds to read the whole file, each thread its share, a MiB at a time: into the same buffer, or each into its place of `into`.
static double read_all(const char *path, int n_thread, char *into)
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
            if (pread(fd, into ? into + i * BLOCK : buffer, BLOCK, (off_t)i * BLOCK) <= 0) failed = true;
        mem_free(buffer);
    }
    t = now_s() - t;
    if (failed) note("cannot read %s", path), exit(1);
    close(fd);
    return t;
}

static double read_fresh(const char *path, int n_thread, size_t size)
{
    struct arena a;
    struct err err = {0};
    must(arena_init(&a, "the file's bytes", size + (1 << 20), &err), &err);
    double t = now_s();
    char *into = arena_alloc(&a, size + (1 << 20));
    read_all(path, n_thread, into);
    t = now_s() - t;
    arena_free(&a);
    return t;
}

struct loading {
    double s;
    size_t weights, stage, peak; // bytes
    int n_thread;
};
// Timed, or watched: who reads a process's memory holds up its page faults.
static struct loading load(const char *dir, enum model_use use, enum dtype dtype, bool watched)
{
    struct slice s;
    struct watch *w = watched ? watch_begin("VmRSS:") : NULL;
    struct loading l = {.s = now_s()};
    slice_open(&s, NULL, dir, use, dtype);
    l.s = now_s() - l.s;
    l.peak = watched ? watch_end(w) : 0;
    l.weights = s.model->weights.used;
    l.stage = s.dev.arena.size;
    l.n_thread = s.dev.n_thread;
    slice_close(&s);
    return l;
}

static void measure(const char *dir, const char *path, size_t size, enum model_use use, enum dtype dtype)
{
    enum { N = 7 };
    double s[N], read[N], fresh[N], ratio[N], ratio_fresh[N];
    read_all(path, 2, NULL); // into the cache
    const struct loading l = load(dir, use, dtype, true);
    for (int i = 0; i < N; i++) {
        s[i] = load(dir, use, dtype, false).s;
        read[i] = read_all(path, l.n_thread, NULL);
        fresh[i] = read_fresh(path, l.n_thread, size);
        ratio[i] = read[i] / s[i];
        ratio_fresh[i] = fresh[i] / s[i];
    }
    const double gb = (double)size / 1e9, mib = 1 << 20;
    const char *what =
        text("Qwen2.5-1.5B shapes, bf16 to %s %s, %d threads", dtype_name(dtype), use == MODEL_TRAIN ? "rows" : "panels", l.n_thread);
    const double load_speed = gb / median(s, N);
    row(text("load, %s", what), text("%.2f GB/s", load_speed), text("read() into fresh memory, %.2f GB/s", gb / median(fresh, N)),
        median(ratio_fresh, N));
    row("the same", text("%.2f GB/s", load_speed), text("read() into a buffer in cache, %.2f GB/s", gb / median(read, N)),
        median(ratio, N));
    row("memory of it", text("%.0f MiB above start, mapped pages included", (double)l.peak / mib),
        text("weights %.0f MiB, chunks %.0f MiB", (double)l.weights / mib, (double)l.stage / mib), (double)l.peak / (double)l.weights);
}

static void measure_disk(const char *dir, const char *path, size_t size)
{
    enum { N = 3 };
    double s[N], read[N], ratio[N];
    for (int i = 0; i < N; i++) {
        forget(path);
        const struct loading l = load(dir, MODEL_GENERATE, DT_BF16, false);
        forget(path);
        s[i] = l.s;
        read[i] = read_all(path, l.n_thread, NULL);
        ratio[i] = read[i] / s[i];
    }
    const double gb = (double)size / 1e9;
    row("load from disk, bf16 to bf16 panels", text("%.2f GB/s", gb / median(s, N)), text("read(), %.2f GB/s", gb / median(read, N)),
        median(ratio, N));
}

void job_load(void)
{
    const char *dir = slice_dir(config);
    char *path = make_checkpoint(dir);
    struct stat st;
    if (stat(path, &st)) note("cannot stat %s", path), exit(1);
    measure_disk(dir, path, (size_t)st.st_size);
    measure(dir, path, (size_t)st.st_size, MODEL_GENERATE, DT_BF16);
    measure(dir, path, (size_t)st.st_size, MODEL_GENERATE, DT_F32);
    measure(dir, path, (size_t)st.st_size, MODEL_TRAIN, DT_BF16);
    mem_free(path);
}
