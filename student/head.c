// Gather the rows that carry loss, go through them in chunks, scatter their gradients back.
#include "student/head.h"

struct param *head_param(struct model *m)
{
    return model_param(m, m->config.tied ? "model.embed_tokens.weight" : "lm_head.weight");
}

int64_t head_chunk(int64_t n_vocab)
{
    // Each chunk reads the head once and its gradient twice: fewer chunks cost less, and 256 MiB is little beside a head of that size.
    int64_t n = ((int64_t)256 << 20) / (n_vocab * (int64_t)sizeof(float)) / 64 * 64;
    return n < 64 ? 64 : n > 1024 ? 1024 : n;
}

// The chunk's share of the targets, on the device. Temporaries: the caller releases.
static struct loss_targets upload_targets(struct device *dev, const struct head_targets *t, int64_t first, int64_t n, float temperature)
{
    struct loss_targets d = {
        .ids = dev_2d(dev, DT_I32, n, t->k), .logprob = dev_2d(dev, DT_F32, n, t->k), .tail_logprob = dev_1d(dev, DT_F32, n)};
    op_upload(dev, d.ids, t->ids + first * t->k);
    op_upload(dev, d.logprob, t->logprob + first * t->k);
    op_upload(dev, d.tail_logprob, t->tail + first);
    if (temperature == 1) return d;
    d.log_z1 = dev_1d(dev, DT_F32, n);
    d.log_zt = dev_1d(dev, DT_F32, n);
    op_upload(dev, d.log_z1, t->log_z1 + first);
    op_upload(dev, d.log_zt, t->log_zt + first);
    return d;
}

void head_loss(struct model *m, struct device *dev, struct tensor dhidden, struct tensor ce, struct tensor kd, struct tensor hidden,
               const struct head_rows *rows, const struct loss_mix *mix)
{
    const bool backward = !tensor_none(dhidden);
    const int64_t n = rows->n_loss, d = hidden.shape[1], v = m->config.n_vocab, chunk = head_chunk(v);
    if (n == 0) {
        if (backward) op_zero(dev, dhidden);
        return;
    }
    struct param *w = head_param(m);
    size_t mark = dev_mark(dev);
    struct tensor x = dev_2d(dev, hidden.dtype, n, d);
    // One row more than there are loss rows: zeros, which rows without loss gather.
    struct tensor dx = backward ? dev_2d(dev, hidden.dtype, n + 1, d) : TENSOR_NONE;
    op_gather_rows(dev, x, hidden, rows->row);
    for (int64_t first = 0; first < n; first += chunk) {
        const int64_t len = n - first < chunk ? n - first : chunk;
        size_t inner = dev_mark(dev);
        struct tensor logits = dev_2d(dev, DT_F32, len, v), dlogits = logits, xc = tensor_rows(x, first, len);
        if (backward && hidden.dtype != DT_F32) dlogits = dev_2d(dev, hidden.dtype, len, v);
        struct loss_targets t = {0};
        if (rows->targets && rows->targets->k) t = upload_targets(dev, rows->targets, first, len, mix->temperature);
        model_logits(m, dev, logits, xc);
        op_loss(dev, dlogits, tensor_rows(ce, first, len), tensor_rows(kd, first, len), logits, tensor_rows(rows->label, first, len), &t,
                mix);
        if (backward) op_linear_bwd_x(dev, tensor_rows(dx, first, len), dlogits, w->weight, false);
        if (backward && !tensor_none(w->grad)) op_linear_bwd_w(dev, w->grad, dlogits, xc);
        dev_release(dev, inner);
    }
    if (backward) {
        op_zero(dev, tensor_rows(dx, n, 1));
        op_gather_rows(dev, dhidden, dx, rows->loss_of);
    }
    dev_release(dev, mark);
}
