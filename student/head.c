// Gather the rows that carry loss, block by block; scatter their gradients back.
#include "student/head.h"

struct param *head_param(struct model *m)
{
    return model_param(m, m->config.tied ? "model.embed_tokens.weight" : "lm_head.weight");
}

// A chunk reads the head's weight once, a block reads and writes its f32 gradient once, so both should be many; what they take stays below
// 300 MB at any vocabulary. In rows of bf16 gradients, a chunk's f32 logits count twice: 20 of 34 parts to the block and 2 × 7 to the chunk
// take about the same time for each.
struct head_sizes head_sizes(int64_t n_vocab, enum dtype t)
{
    enum { BYTES = 290000000, MOST = 1024, LEAST = 32 };
    const int64_t n = BYTES / (2 * n_vocab); // rows of two bytes a column
    struct head_sizes s = {n * 7 / 34 / 32 * 32, n * 20 / 34 / 64 * 64};
    if (t == DT_F32) s.chunk = s.block = n / 2 / 64 * 64;
    if (s.chunk > MOST) s.chunk = MOST;
    if (s.chunk < LEAST) s.chunk = LEAST;
    if (s.block > MOST) s.block = MOST;
    if (s.block < s.chunk) s.block = s.chunk;
    return s;
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

// A block of rows, of which x (n, d) is the hidden state: ce and kd, and with dx not none the gradients.
static void block_loss(struct model *m, struct device *dev, struct tensor dx, struct tensor ce, struct tensor kd, struct tensor x,
                       struct tensor label, const struct head_targets *targets, int64_t first, const struct loss_mix *mix, int64_t chunk)
{
    const bool backward = !tensor_none(dx);
    const int64_t n = x.shape[0], v = m->config.n_vocab;
    struct tensor logits = dev_2d(dev, DT_F32, n < chunk ? n : chunk, v), dlogits = logits;
    if (backward && x.dtype != DT_F32) dlogits = dev_2d(dev, x.dtype, n, v);
    for (int64_t at = 0; at < n; at += chunk) {
        const int64_t len = n - at < chunk ? n - at : chunk;
        struct tensor z = tensor_rows(logits, 0, len), dz = dlogits.data == logits.data ? z : tensor_rows(dlogits, at, len);
        struct loss_targets t = {0};
        size_t mark = dev_mark(dev);
        if (targets && targets->k) t = upload_targets(dev, targets, first + at, len, mix->temperature);
        model_logits(m, dev, z, tensor_rows(x, at, len));
        op_loss(dev, dz, tensor_rows(ce, at, len), tensor_rows(kd, at, len), z, tensor_rows(label, at, len), &t, mix);
        dev_release(dev, mark);
    }
    if (!backward) return;
    struct param *w = head_param(m);
    op_linear_bwd_x(dev, dx, dlogits, w->weight, false);
    if (!tensor_none(w->grad)) op_linear_bwd_w(dev, w->grad, dlogits, x);
}

void head_loss(struct model *m, struct device *dev, struct tensor dhidden, struct tensor ce, struct tensor kd, struct tensor hidden,
               const struct head_rows *rows, const struct loss_mix *mix)
{
    const bool backward = !tensor_none(dhidden);
    const int64_t n = rows->n_loss, d = hidden.shape[1];
    const struct head_sizes size = rows->size ? *rows->size : head_sizes(m->config.n_vocab, hidden.dtype);
    if (backward) op_zero(dev, dhidden);
    for (int64_t first = 0; first < n; first += size.block) {
        const int64_t len = n - first < size.block ? n - first : size.block;
        size_t mark = dev_mark(dev);
        struct tensor row = tensor_rows(rows->row, first, len), x = dev_2d(dev, hidden.dtype, len, d);
        struct tensor dx = backward ? dev_2d(dev, hidden.dtype, len, d) : TENSOR_NONE;
        op_gather_rows(dev, x, hidden, row);
        block_loss(m, dev, dx, tensor_rows(ce, first, len), tensor_rows(kd, first, len), x, tensor_rows(rows->label, first, len),
                   rows->targets, first, mix, size.chunk);
        if (backward) op_scatter_rows(dev, dhidden, dx, row);
        dev_release(dev, mark);
    }
}
