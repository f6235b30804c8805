// Models of real shapes with random weights: made from a config.json in a temporary folder.
#include "distill/registry.h"
#include "kernels/base/file.h"
#include "tests/bench/bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define QWEN(layers)                                                                                                                       \
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"vocab_size\": 151936, \"hidden_size\": 896, "                \
    "\"intermediate_size\": 4864, \"num_hidden_layers\": " #layers ", \"num_attention_heads\": 14, \"num_key_value_heads\": 2, "           \
    "\"max_position_embeddings\": 32768, \"rope_theta\": 1000000.0, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", "                   \
    "\"use_sliding_window\": false, \"tie_word_embeddings\": true, \"initializer_range\": 0.02, \"attention_dropout\": 0.0}\n"
const char slice_qwen[] = QWEN(4), slice_qwen_whole[] = QWEN(24);
const char slice_v3[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\", \"vocab_size\": 32000, \"hidden_size\": 1024, "
    "\"intermediate_size\": 2816, \"moe_intermediate_size\": 512, \"num_hidden_layers\": 4, \"num_attention_heads\": 16, "
    "\"num_key_value_heads\": 16, \"n_shared_experts\": 1, \"n_routed_experts\": 32, \"num_experts_per_tok\": 4, \"n_group\": 4, "
    "\"topk_group\": 2, \"topk_method\": \"noaux_tc\", \"scoring_func\": \"sigmoid\", \"norm_topk_prob\": true, "
    "\"routed_scaling_factor\": 2.5, \"first_k_dense_replace\": 1, \"moe_layer_freq\": 1, \"q_lora_rank\": 384, \"kv_lora_rank\": 256, "
    "\"qk_nope_head_dim\": 64, \"qk_rope_head_dim\": 32, \"v_head_dim\": 64, \"max_position_embeddings\": 4096, \"rope_theta\": 10000.0, "
    "\"rope_scaling\": null, \"rope_interleave\": true, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", \"attention_bias\": false, "
    "\"tie_word_embeddings\": false}\n";

#define QWEN2(vocab, d, d_ff, layers, heads, kv, tied)                                                                                     \
    text("{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"vocab_size\": %d, \"hidden_size\": %d, "                \
         "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "                \
         "\"max_position_embeddings\": 32768, \"rope_theta\": 1000000.0, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", "              \
         "\"use_sliding_window\": false, \"tie_word_embeddings\": %s, \"initializer_range\": 0.02, \"attention_dropout\": 0.0}\n",         \
         vocab, d, d_ff, layers, heads, kv, tied)
const char *config_qwen_1_5b(void)
{
    return QWEN2(151936, 1536, 8960, 28, 12, 2, "true");
}
const char *config_qwen_7b(int layers)
{
    return QWEN2(152064, 3584, 18944, layers, 28, 4, "false");
}
#define QWEN3_MOE(vocab, d, d_ff, d_expert, layers, heads, kv, d_head, experts, top_k)                                                     \
    "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", \"vocab_size\": " #vocab ", \"hidden_size\": " #d       \
    ", \"intermediate_size\": " #d_ff ", \"moe_intermediate_size\": " #d_expert ", \"num_hidden_layers\": " #layers                        \
    ", \"num_attention_heads\": " #heads ", \"num_key_value_heads\": " #kv ", \"head_dim\": " #d_head ", \"num_experts\": " #experts       \
    ", \"num_experts_per_tok\": " #top_k ", \"norm_topk_prob\": true, \"decoder_sparse_step\": 1, \"mlp_only_layers\": [], "               \
    "\"max_position_embeddings\": 40960, \"rope_theta\": 1000000.0, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", "                   \
    "\"attention_bias\": false, \"use_sliding_window\": false, \"tie_word_embeddings\": false}\n"
const char slice_30b_a3b[] = QWEN3_MOE(151936, 2048, 6144, 768, 6, 32, 4, 128, 128, 8);
const char slice_smallest_moe[] = QWEN3_MOE(320, 64, 96, 32, 2, 4, 2, 16, 8, 2);
const char slice_smallest[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"vocab_size\": 320, \"hidden_size\": 64, "
    "\"intermediate_size\": 96, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"max_position_embeddings\": 32768, \"rope_theta\": 1000000.0, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", "
    "\"use_sliding_window\": false, \"tie_word_embeddings\": true, \"initializer_range\": 0.02, \"attention_dropout\": 0.0}\n";
const char slice_smallest_mla[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\", \"vocab_size\": 320, \"hidden_size\": 64, "
    "\"intermediate_size\": 96, \"moe_intermediate_size\": 32, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 4, \"n_shared_experts\": 1, \"n_routed_experts\": 8, \"num_experts_per_tok\": 2, \"n_group\": 2, "
    "\"topk_group\": 1, \"topk_method\": \"noaux_tc\", \"scoring_func\": \"sigmoid\", \"norm_topk_prob\": true, "
    "\"routed_scaling_factor\": 2.5, \"first_k_dense_replace\": 1, \"moe_layer_freq\": 1, \"q_lora_rank\": 32, \"kv_lora_rank\": 32, "
    "\"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 8, \"v_head_dim\": 16, \"max_position_embeddings\": 4096, \"rope_theta\": 10000.0, "
    "\"rope_scaling\": null, \"rope_interleave\": true, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", \"attention_bias\": false, "
    "\"tie_word_embeddings\": false}\n";
const char slice_v3_rank[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\", \"vocab_size\": 129280, \"hidden_size\": 7168, "
    "\"intermediate_size\": 18432, \"moe_intermediate_size\": 2048, \"num_hidden_layers\": 4, \"num_attention_heads\": 128, "
    "\"num_key_value_heads\": 128, \"n_shared_experts\": 1, \"n_routed_experts\": 32, \"num_experts_per_tok\": 8, \"n_group\": 8, "
    "\"topk_group\": 4, \"topk_method\": \"noaux_tc\", \"scoring_func\": \"sigmoid\", \"norm_topk_prob\": true, "
    "\"routed_scaling_factor\": 2.5, \"first_k_dense_replace\": 1, \"moe_layer_freq\": 1, \"q_lora_rank\": 1536, \"kv_lora_rank\": 512, "
    "\"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, \"v_head_dim\": 128, \"max_position_embeddings\": 4096, \"rope_theta\": 10000.0, "
    "\"rope_scaling\": null, \"rope_interleave\": true, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", \"attention_bias\": false, "
    "\"tie_word_embeddings\": false}\n";

static char dirs[16][64];
static int n_dir;

static void remove_dirs(void)
{
    struct err err;
    for (int i = 0; i < n_dir; i++) dir_remove(dirs[i], &err);
}

const char *slice_dir(const char *json)
{
    if (!n_dir) atexit(remove_dirs);
    char *dir = dirs[n_dir], path[80];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dirs[0], "%.40s/distill-bench.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    FILE *f = NULL;
    if (n_dir == 16 || !mkdtemp(dir) || (snprintf(path, sizeof path, "%s/config.json", dir), !(f = fopen(path, "w")))) {
        note("no temporary folder %s", dir);
        exit(1);
    }
    n_dir++;
    fputs(json, f);
    fclose(f);
    return dir;
}

void slice_open(struct slice *s, const char *json, const char *dir, enum model_use use, enum dtype dtype)
{
    struct err err = {0};
    *s = (struct slice){0};
    struct model_options opt = {.archs = all_archs, .use = use, .dtype = dtype, .random_init = json != NULL, .seed = 1};
    must(dev_open(&s->dev, bench_device, bench_threads, &err), &err);
    must(model_load(&s->model, &s->dev, dir ? dir : slice_dir(json), &opt, &err), &err);
}

void slice_close(struct slice *s)
{
    model_free(s->model);
    dev_close(&s->dev);
}

struct watch {
    pthread_t thread;
    atomic_bool done;
    const char *what;
    size_t before, peak;
};

static size_t resident(const char *what)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[200];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, what, strlen(what))) kib = strtoull(line + strlen(what), NULL, 10);
    if (f) fclose(f);
    return (size_t)kib << 10;
}

static void *watch_run(void *arg)
{
    struct watch *w = arg;
    while (!atomic_load(&w->done)) {
        const size_t now = resident(w->what);
        if (now > w->peak) w->peak = now;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
}

struct watch *watch_begin(const char *what)
{
    struct watch *w = NEW(struct watch);
    w->what = what;
    w->before = w->peak = resident(what);
    if (pthread_create(&w->thread, NULL, watch_run, w)) note("no thread to watch memory"), exit(1);
    return w;
}

size_t watch_end(struct watch *w)
{
    atomic_store(&w->done, true);
    pthread_join(w->thread, NULL);
    const size_t above = w->peak - w->before;
    mem_free(w);
    return above;
}
