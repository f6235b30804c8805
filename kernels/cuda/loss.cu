// Loss rows: cross entropy and a divergence from the teacher's targets, and their gradient. Formulas: kernels/rows/divergence.h.
//
// Bound by bytes: the logits are read twice and the gradient written once (in place: 12 bytes a column). Four launches: the row's sums in
// one read (vocab.cuh); a block a row for everything about its targets; the gradient as if no id were kept, one read and one write; the
// kept ids and the label, put right after it: from their own logits, since a rounded bf16 gradient must be replaced and not corrected, and
// computed beforehand, since the gradient may overwrite the logits.
#include "kernels/cuda/vocab.cuh"
#include "kernels/rows/divergence.h"

struct loss_row { // dlogits_j = a * exp(z_j - most) + b * exp((z_j - most) / T), but for kept ids and the label
    float most, a, b;
    int live; // bits: has a loss; has its label among its targets
};
struct loss_args {
    struct vocab v;
    struct loss_mix mix;
    int64_t k;
    float inv_t;
    const int32_t *label, *ids;
    const float *logprob, *tail, *log_z1, *log_zt;
    float *ce, *kd;
    struct loss_row *row;
    float *right; // (rows, k + 1): the gradient at each target, then at the label
    struct cuda_trouble *trouble;
};

// The divergence of the row; right[i] becomes the derivative g of each target's term. Both sums are every thread's.
__device__ static double row_kd(const struct loss_args &l, int64_t row, const float *z, double lset, double *per_q, double *g_sum,
                                smem<double> room)
{
    const int32_t *id = l.ids + row * l.k;
    const float *logprob = l.logprob + row * l.k;
    const double inv_t = 1.0 / (double)l.mix.temperature;
    const double z1 = l.log_z1 ? (double)l.log_z1[row] : 0, zt = l.log_zt ? (double)l.log_zt[row] : z1;
    double total = 0, p = 0, q = 0, g = 0, n_kept = 0;
    for (int64_t i = threadIdx.x; i < l.k; i += blockDim.x) {
        if (id[i] < 0) continue;
        const float lp = row_teacher_logprob(&l.mix, logprob[i], z1, zt), lq = (float)((double)z[id[i]] * inv_t - lset);
        const struct div_term d = row_divergence(l.mix.divergence, l.mix.beta, lp, lq);
        total += (double)d.term;
        p += (double)d.p;
        q += (double)d.q;
        g += (double)d.grad;
        n_kept += 1;
        l.right[row * (l.k + 1) + i] = d.grad;
    }
    total = cu_block_reduce(total, cu_add(), 0.0, room);
    p = cu_block_reduce(p, cu_add(), 0.0, room);
    q = cu_block_reduce(q, cu_add(), 0.0, room);
    g = cu_block_reduce(g, cu_add(), 0.0, room);
    n_kept = cu_block_reduce(n_kept, cu_add(), 0.0, room);
    *per_q = 0;
    if (!l.mix.full && n_kept < l.mix.n_vocab) {
        const struct div_term d = row_tail(&l.mix, l.tail ? l.tail[row] : NAN, p, q, per_q);
        total += (double)d.term;
        g += (double)d.grad;
    }
    *g_sum = g;
    return total;
}

// Whether label and targets lie in the vocabulary; told if not. All threads get the answer.
__device__ static bool targets_right(const struct loss_args &l, int64_t row, int32_t label, smem<int> room)
{
    int worst = label;
    for (int64_t i = threadIdx.x; i < l.k; i += blockDim.x) worst = max(worst, (int)l.ids[row * l.k + i]);
    worst = cu_block_reduce(worst, cu_max(), -1, room);
    if (worst < l.v.n) return true;
    if (threadIdx.x == 0) cu_trouble(l.trouble, TROUBLE_TARGET, (int)row, worst, l.v.n);
    return false;
}

__global__ void __launch_bounds__(VOCAB_THREADS_MAX, 1) loss_row_kernel(struct loss_args l)
{
    CU_SHARED(double, room, 32);
    CU_SHARED(float, room_f, 32);
    CU_SHARED(int, room_i, 32);
    const int64_t row = blockIdx.x;
    const int32_t label = l.label[row];
    if (label < 0 || !targets_right(l, row, label, room_i)) {
        if (threadIdx.x) return;
        const struct loss_row none = {};
        l.row[row] = none;
        l.ce[row] = l.kd[row] = 0;
        return;
    }
    const float *z = l.v.z + row * l.v.stride, most = vocab_max(l.v, row, room_f);
    const int last = l.v.n_sum - 1;
    const double sum_1 = vocab_sum(l.v, row, 0, 1, most, room), sum_t = last ? vocab_sum(l.v, row, last, l.inv_t, most, room) : sum_1;
    const double lse_1 = vocab_log_z(sum_1, most, 1), lse_t = last ? vocab_log_z(sum_t, most, l.inv_t) : lse_1;
    double per_q = 0, g_sum = 0, kd = 0;
    if (l.k) kd = row_kd(l, row, z, lse_t, &per_q, &g_sum, room);
    const float a = l.mix.grad_scale * l.mix.ce_weight;
    const float kd_scale = l.k ? l.mix.grad_scale * l.mix.kd_weight * l.mix.kd_scale * l.inv_t : 0;
    const float b = (float)((per_q - g_sum) * (double)kd_scale);
    float *right = l.right + row * (l.k + 1);
    int label_kept = 0;
    for (int64_t i = threadIdx.x; i < l.k; i += blockDim.x) { // the same targets as this thread had in row_kd
        const int32_t id = l.ids[row * l.k + i];
        if (id < 0) continue;
        const double zi = (double)z[id];
        const float s1 = expf((float)(zi - lse_1)), st = expf((float)(zi * (double)l.inv_t - lse_t));
        right[i] = a * (s1 - (id == label)) + kd_scale * (float)((double)right[i] - (double)st * g_sum);
        label_kept |= id == label;
    }
    label_kept = cu_block_reduce(label_kept, cu_max(), 0, room_i);
    if (threadIdx.x) return;
    const double zl = (double)z[label];
    right[l.k] = a * (expf((float)(zl - lse_1)) - 1) + b * expf((float)(zl * (double)l.inv_t - lse_t));
    l.ce[row] = (float)(lse_1 - zl);
    l.kd[row] = (float)kd;
    struct loss_row r = {vocab_base(most), (float)((double)a / sum_1), (float)((double)b / sum_t), 1 | label_kept << 1};
    if (!last) {
        r.a += r.b;
        r.b = 0;
    }
    l.row[row] = r;
}

template <class T> __device__ __forceinline__ void store_four(T *out, int at, int n, const float y[4])
{
    if (at + 4 <= n && (uintptr_t)(out + at) % (4 * sizeof(T)) == 0) {
        cu_vec<T, 4> v;
        for (int i = 0; i < 4; i++) v.v[i] = cu_from<T>(y[i]);
        *(cu_vec<T, 4> *)(out + at) = v;
    } else {
        for (int i = 0; i < 4; i++)
            if (at + i < n) out[at + i] = cu_from<T>(y[i]);
    }
}
enum { GRAD_THREADS = 256, GRAD_COLS = GRAD_THREADS * 8 };
// Rows from the last to the first: the last ones are still in the cache from the read before.
template <class T> __global__ void loss_grad_kernel(T *dlogits, int64_t stride, int n_col, int n_part, struct loss_args l)
{
    const int64_t row = (gridDim.x - 1 - blockIdx.x) / (unsigned)n_part;
    const int first = (int)((gridDim.x - 1 - blockIdx.x) % (unsigned)n_part) * GRAD_COLS + (int)threadIdx.x * 4;
    const float *z = l.v.z + row * l.v.stride;
    const struct loss_row r = l.row[row];
    T *out = dlogits + row * stride;
    float x[2][4] = {};
    if (r.live)
        for (int j = 0; j < 2; j++) vocab_load(x[j], z, first + j * GRAD_THREADS * 4, l.v.n);
    for (int j = 0; j < 2; j++) {
        const int at = first + j * GRAD_THREADS * 4;
        if (at >= n_col) return;
        float y[4] = {};
        for (int i = 0; i < 4 && r.live; i++) {
            if (at + i >= l.v.n) break; // padding
            const float d = x[j][i] - r.most;
            if (r.a != 0) y[i] = r.a * expf(d);
            if (r.b != 0) y[i] += r.b * expf(d * l.inv_t);
        }
        store_four(out, at, n_col, y);
    }
}
template <class T> __global__ void loss_right_kernel(T *dlogits, int64_t stride, int64_t n, struct loss_args l)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t row = i / (l.k + 1), j = i % (l.k + 1);
        const int live = l.row[row].live;
        if (!live || (j == l.k && live & 2)) continue;
        const int32_t id = j < l.k ? l.ids[row * l.k + j] : l.label[row];
        if (id >= 0) dlogits[row * stride + id] = cu_from<T>(l.right[i]);
    }
}

static const float *floats_of(struct tensor t)
{
    return (const float *)t.data;
}
extern "C" void cuda_loss(struct device *dev, struct tensor dlogits, struct tensor ce, struct tensor kd, struct tensor logits,
                          struct tensor label, const struct loss_targets *t, const struct loss_mix *mix)
{
    const int64_t n = logits.shape[0];
    const int n_col = (int)logits.shape[1];
    struct loss_args l = {};
    l.mix = *mix;
    l.inv_t = 1;
    if (mix->kd_weight != 0 && mix->divergence != DIV_NONE && t->ids.shape[1]) {
        l.k = t->ids.shape[1];
        l.inv_t = 1.0f / mix->temperature;
        l.ids = (const int32_t *)t->ids.data;
        l.logprob = floats_of(t->logprob), l.tail = floats_of(t->tail_logprob);
        l.log_z1 = floats_of(t->log_z1), l.log_zt = floats_of(t->log_zt);
    }
    l.label = (const int32_t *)label.data;
    l.ce = (float *)ce.data, l.kd = (float *)kd.data;
    l.trouble = cuda_of(dev)->trouble;
    l.row = (struct loss_row *)dev_scratch(dev, (size_t)n * sizeof *l.row);
    l.right = (float *)dev_scratch(dev, (size_t)(n * (l.k + 1)) * sizeof(float));
    const struct vocab_rows rows = {n, l.label, NULL};
    const float inv_t[] = {1, l.inv_t};
    vocab_read(dev, &l.v, logits, mix->n_vocab, &rows, l.inv_t == 1 ? 1 : 2, inv_t, false);
    if (dev->measuring) return;
    const int64_t work = l.k > l.v.n_chunk ? l.k : l.v.n_chunk;
    CU_LAUNCH(dev, loss_row_kernel, (unsigned)n, work >= (int64_t)VOCAB_THREADS_MAX ? VOCAB_THREADS_MAX : (unsigned)(work + 31) / 32 * 32,
              0, l);
    const int n_part = (n_col + GRAD_COLS - 1) / GRAD_COLS;
    const int64_t n_right = n * (l.k + 1);
    unsigned grid = cu_blocks(n_right, 256), most = (unsigned)cuda_of(dev)->n_sm * 8;
    if (grid > most) grid = most;
    CU_DTYPE(dlogits.dtype, T, {
        CU_LAUNCH(dev, loss_grad_kernel<T>, (unsigned)(n * n_part), GRAD_THREADS, 0, (T *)dlogits.data, dlogits.stride[0], n_col, n_part,
                  l);
        CU_LAUNCH(dev, loss_right_kernel<T>, grid, 256, 0, (T *)dlogits.data, dlogits.stride[0], n_right, l);
    });
}
