// The LM head with its loss, forward and backward, as the trainer runs it: 8192 rows that all carry loss, width 4096, a vocabulary of
// 131072. The floor is three products of the logits' size. What it takes beside X, W, dX and dW is the plan's.
#include "student/head.h"

#include "kernels/ops.h"
#include "tests/bench/bench.h"

static const char *config(int vocab, int d)
{
    return text(
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": %d, \"hidden_size\": %d, "
        "\"intermediate_size\": 64, \"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"num_key_value_heads\": 1, \"head_dim\": 64, "
        "\"max_position_embeddings\": 4096, \"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-06, \"hidden_act\": \"silu\", "
        "\"tie_word_embeddings\": true}\n",
        vocab, d);
}

void job_head(void)
{
    enum { N_REP = 8 };
    const int n = bench_small ? 5
                  : on_gpu()  ? 8192
                              : 256,
              d = bench_small ? 48
                  : on_gpu()  ? 4096
                              : 512,
              v = bench_small ? 300
                  : on_gpu()  ? 131072
                              : 16384;
    struct slice s;
    struct arena grads;
    struct err err = {0};
    double mine[N_REP], share[N_REP];
    ceilings_open();
    slice_open(&s, config(v, d), NULL, MODEL_TRAIN, DT_BF16);
    struct device *dev = &s.dev;
    arena_measure(&grads, "gradients");
    model_alloc_grads(s.model, &grads);
    must(dev_arena(dev, &grads, "gradients", grads.peak, &err), &err);
    model_alloc_grads(s.model, &grads);
    int32_t *ints = NEW_N(int32_t, n);
    for (int i = 0; i < n; i++) ints[i] = i;
    struct head_rows rows = {.n_loss = n, .row = place_ints(dev, ints, n)};
    for (int i = 0; i < n; i++) ints[i] = (int32_t)(rng_uniform(3, 1, (uint64_t)i) * v);
    rows.label = place_ints(dev, ints, n);
    struct loss_mix mix = {.ce_weight = 1, .temperature = 1, .kd_scale = 1, .grad_scale = 1 / (float)n, .n_vocab = v};
    struct tensor x = place_random(dev, DT_BF16, 2, n, d, 0), dx = place_random(dev, DT_BF16, 2, n, d, 0),
                  ce = place_random(dev, DT_F32, 1, n, 0, 0), kd = place_random(dev, DT_F32, 1, n, 0, 0);
    dev_measure(dev);
    head_loss(s.model, dev, dx, ce, kd, x, &rows, &mix);
    const size_t beyond = dev->arena.peak;
    must(dev_reserve(dev, beyond, &err), &err);
    const int n_rep = bench_small ? 1 : N_REP;
    for (int i = bench_small ? 0 : -1; i < n_rep; i++) {
        const double gemm = ceiling_gemm(DT_BF16), begin = device_now_s(dev);
        head_loss(s.model, dev, dx, ce, kd, x, &rows, &mix);
        const double t = device_now_s(dev) - begin;
        must(dev_check(dev, &err), &err);
        if (i >= 0) mine[i] = t, share[i] = 6.0 * n * (double)d * v / t / gemm;
    }
    const double t = median(mine, n_rep);
    row(text("head and loss, forward and backward, %d rows, %d wide, vocabulary %d, bf16", n, d, v),
        text("%.2f ms, %s; %.0f MB beyond X, W, dX, dW", t * 1e3, flops_text(6.0 * n * (double)d * v / t), (double)beyond / 1e6),
        text("product %d³", (int)ceiling_m), median(share, n_rep));
    mem_free(ints);
    ceilings_close();
    arena_free(&grads);
    slice_close(&s);
}
