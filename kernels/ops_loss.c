// The dispatchers of loss rows, capture, sampling and the optimizer.
#include "kernels/ops_check.h"

void op_loss(struct device *dev, struct tensor dlogits, struct tensor ce, struct tensor kd, struct tensor logits, struct tensor label,
             const struct loss_targets *t, const struct loss_mix *mix)
{
    WANT(logits, T_F32, STRIDED, 2, ANY_N, ANY_N);
    int64_t n = logits.shape[0];
    WANT(dlogits, T_A, STRIDED, 2, n, logits.shape[1]);
    WANT(ce, T_F32, 0, 1, n);
    WANT(kd, T_F32, 0, 1, n);
    WANT(label, T_I32, 0, 1, n);
    REQUIRE(mix->n_vocab >= 1 && mix->n_vocab <= logits.shape[1], "n_vocab %d of %lld columns", mix->n_vocab, (long long)logits.shape[1]);
    if (mix->kd_weight != 0 && mix->divergence != DIV_NONE) {
        REQUIRE(mix->temperature > 0, "temperature %g: wanted > 0", (double)mix->temperature);
        REQUIRE(mix->divergence != DIV_JSD || (mix->beta >= 0 && mix->beta <= 1), "jsd: beta %g: wanted 0 to 1", (double)mix->beta);
        struct tensor ids = t->ids, logprob = t->logprob, tail_logprob = t->tail_logprob, log_z1 = t->log_z1, log_zt = t->log_zt;
        WANT(ids, T_I32, 0, 2, n, ANY_N);
        WANT(logprob, T_F32, 0, 2, n, ids.shape[1]);
        WANT(tail_logprob, T_F32, OPT, 1, n);
        WANT(log_z1, T_F32, mix->temperature == 1 ? OPT : 0, 1, n);
        WANT(log_zt, T_F32, mix->temperature == 1 ? OPT : 0, 1, n);
    }
    if (!tensor_numel(logits)) return;
    RUN_SCRATCH(loss, dlogits, ce, kd, logits, label, t, mix);
}

void op_capture_topk(struct device *dev, struct tensor ids, struct tensor logprob, struct tensor tail_logprob, struct tensor log_z,
                     struct tensor logits, int n_vocab, const float *temperature)
{
    WANT(logits, T_F32, STRIDED, 2, ANY_N, ANY_N);
    WANT(ids, T_I32, 0, 2, logits.shape[0], ANY_N);
    WANT(logprob, T_F32, 0, 2, logits.shape[0], ids.shape[1]);
    WANT(tail_logprob, T_F32, 0, 1, logits.shape[0]);
    WANT(log_z, T_F32, 0, 2, logits.shape[0], ANY_N);
    REQUIRE(n_vocab >= 1 && n_vocab <= logits.shape[1], "n_vocab %d of %lld columns", n_vocab, (long long)logits.shape[1]);
    REQUIRE(ids.shape[1] >= 1 && ids.shape[1] <= n_vocab, "k %lld of a vocabulary of %d", (long long)ids.shape[1], n_vocab);
    REQUIRE(log_z.shape[1] <= OP_TEMPERATURE_MAX, "%lld temperatures: at most %d", (long long)log_z.shape[1], OP_TEMPERATURE_MAX);
    for (int i = 0; i < log_z.shape[1]; i++) REQUIRE(temperature[i] > 0, "temperature %g: wanted > 0", (double)temperature[i]);
    if (!logits.shape[0]) return;
    RUN_SCRATCH(capture_topk, ids, logprob, tail_logprob, log_z, logits, n_vocab, temperature);
}

void op_sample(struct device *dev, struct tensor out, struct tensor logits, int n_vocab, const struct sample_row *row)
{
    WANT(logits, T_F32, STRIDED, 2, ANY_N, ANY_N);
    WANT(out, T_I32, 0, 1, logits.shape[0]);
    REQUIRE(n_vocab >= 1 && n_vocab <= logits.shape[1], "n_vocab %d of %lld columns", n_vocab, (long long)logits.shape[1]);
    if (!logits.shape[0]) return;
    RUN_SCRATCH(sample, out, logits, n_vocab, row);
}

void op_capture_sampled(struct device *dev, struct tensor ids, struct tensor count, struct tensor log_z, struct tensor logits, int n_vocab,
                        const float *temperature, const struct sample_row *row)
{
    WANT(logits, T_F32, STRIDED, 2, ANY_N, ANY_N);
    WANT(ids, T_I32, 0, 2, logits.shape[0], ANY_N);
    WANT(count, T_I32, 0, 2, logits.shape[0], ids.shape[1]);
    WANT(log_z, T_F32, 0, 2, logits.shape[0], ANY_N);
    REQUIRE(n_vocab >= 1 && n_vocab <= logits.shape[1], "n_vocab %d of %lld columns", n_vocab, (long long)logits.shape[1]);
    REQUIRE(log_z.shape[1] <= OP_TEMPERATURE_MAX, "%lld temperatures: at most %d", (long long)log_z.shape[1], OP_TEMPERATURE_MAX);
    for (int i = 0; i < log_z.shape[1]; i++) REQUIRE(temperature[i] > 0, "temperature %g: wanted > 0", (double)temperature[i]);
    if (!logits.shape[0]) return;
    RUN_SCRATCH(capture_sampled, ids, count, log_z, logits, n_vocab, temperature, row);
}

void op_adamw(struct device *dev, struct tensor w, struct tensor master, struct tensor m, struct tensor v, struct tensor grad,
              const struct adamw *a)
{
    WANT(master, T_F32, 0, 1, ANY_N);
    WANT(w, T_A, 0, 1, master.shape[0]);
    WANT(m, T_F32, 0, 1, master.shape[0]);
    WANT(v, T_F32, 0, 1, master.shape[0]);
    WANT(grad, T_F32, 0, 1, master.shape[0]);
    REQUIRE(a->step >= 1, "step %lld: the first is 1", (long long)a->step);
    if (!tensor_numel(master)) return;
    RUN(adamw, w, master, m, v, grad, a);
}

void op_adamw8(struct device *dev, struct tensor w, struct tensor m, struct tensor v, struct tensor m_unit, struct tensor v_unit,
               struct tensor grad, const struct adamw8 *a)
{
    WANT(w, T_A, 0, 1, ANY_N);
    const int64_t n = w.shape[0], n_block = (n + OP_ADAMW8_BLOCK - 1) / OP_ADAMW8_BLOCK;
    WANT(m, T_U8, 0, 1, n);
    WANT(v, T_U8, 0, 1, n);
    WANT(m_unit, T_F32, 0, 1, n_block);
    WANT(v_unit, T_F32, 0, 1, n_block);
    WANT(grad, T_F32, 0, 1, n);
    REQUIRE(a->adamw.step >= 1 && a->adamw.step < 1 << 24, "step %lld: wanted 1 to %d", (long long)a->adamw.step, (1 << 24) - 1);
    REQUIRE(a->first >= 0 && a->first % OP_ADAMW8_BLOCK == 0, "a part that begins at %lld: wanted a multiple of %d", (long long)a->first,
            OP_ADAMW8_BLOCK);
    if (!n) return;
    RUN(adamw8, w, m, v, m_unit, v_unit, grad, a);
}

void op_sumsq(struct device *dev, struct tensor out, struct tensor x)
{
    WANT(out, T_U8, 0, 1, 8);
    WANT(x, T_F32, 0, 1, ANY_N);
    if (!tensor_numel(x)) return;
    RUN_SCRATCH(sumsq, out, x);
}
