// Reading rows of logits once: see vocab.cuh. Bound by the bytes of the logits (4 a column read, 4/16 written); at several temperatures by
// the exponentials. A thread has two loads of 16 bytes in flight and keeps its 8 logits in registers: the largest first, then the sums.
#include "kernels/cuda/vocab.cuh"

static const unsigned READ_THREADS_MAX = VOCAB_CHUNK / 8;

__global__ void vocab_read_kernel(const __grid_constant__ struct vocab v, const int32_t *label, const struct sample_row *settings)
{
    cu_wait_earlier();
    CU_SHARED(float, room, 32);
    CU_SHARED(double, sums, VOCAB_CHUNK / 8 / 32 * VOCAB_SUMS);
    const int chunk = (int)(blockIdx.x % (unsigned)v.n_chunk), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t row = blockIdx.x / (unsigned)v.n_chunk;
    if (label && label[row] < 0) return;
    const float *z = v.z + row * v.stride;
    const int first = chunk * VOCAB_CHUNK + (int)threadIdx.x * 4, step = (int)blockDim.x * 4;
    float x[2][4], most = -INFINITY;
    for (int j = 0; j < 2; j++) vocab_load(x[j], z, first + j * step, v.n);
    for (int j = 0; j < 2; j++) {
        float g = fmaxf(fmaxf(x[j][0], x[j][1]), fmaxf(x[j][2], x[j][3]));
        most = fmaxf(most, g);
        if (!v.group_max) continue;
        g = fmaxf(g, __shfl_xor_sync(0xffffffffu, g, 1)); // four lanes hold a group
        g = fmaxf(g, __shfl_xor_sync(0xffffffffu, g, 2));
        const int at = first + j * step;
        if (threadIdx.x % 4 == 0 && at < v.n) v.group_max[row * v.n_group + at / VOCAB_GROUP] = g;
    }
    most = cu_block_reduce(most, vocab_most(), -INFINITY, room);
    if (threadIdx.x == 0) v.chunk_max[row * v.n_chunk + chunk] = most;
    for (int j = 0; j < 2; j++) vocab_shift(x[j], first + j * step, v.n, vocab_base(most));
    for (int t = 0; t < v.n_sum; t++) {
        const float inv_t = settings ? 1.0f / settings[row].temperature : v.inv_t[t];
        if (settings && !(settings[row].temperature > 0)) return; // greedy: the largest is all it needs
        double s = 0;
        for (int j = 0; j < 2; j++)
            s += (double)(expf(x[j][0] * inv_t) + expf(x[j][1] * inv_t) + expf(x[j][2] * inv_t) + expf(x[j][3] * inv_t));
        s = cu_warp_reduce(s, cu_add());
        if (lane == 0) sums[warp * VOCAB_SUMS + t] = s;
    }
    __syncthreads();
    if ((int)threadIdx.x >= v.n_sum) return;
    double s = 0;
    for (int w = 0; w < (int)blockDim.x / 32; w++) s += sums[w * VOCAB_SUMS + (int)threadIdx.x];
    v.chunk_sum[(row * v.n_chunk + chunk) * v.n_sum + threadIdx.x] = s;
}

void vocab_read(struct device *dev, struct vocab *v, struct tensor logits, int n_vocab, const struct vocab_rows *rows, int n_sum,
                const float *inv_t, bool groups)
{
    *v = {};
    v->z = (const float *)logits.data;
    v->stride = logits.stride[0];
    v->n = n_vocab;
    v->n_chunk = (n_vocab + VOCAB_CHUNK - 1) / VOCAB_CHUNK;
    v->n_group = (n_vocab + VOCAB_GROUP - 1) / VOCAB_GROUP;
    v->n_sum = n_sum;
    for (int t = 0; t < n_sum && inv_t; t++) v->inv_t[t] = inv_t[t];
    const size_t n = (size_t)rows->n;
    v->chunk_max = (float *)dev_scratch(dev, n * v->n_chunk * sizeof(float));
    v->chunk_sum = (double *)dev_scratch(dev, n * v->n_chunk * n_sum * sizeof(double));
    if (groups) v->group_max = (float *)dev_scratch(dev, n * v->n_group * sizeof(float));
    if (dev->measuring) return;
    const int part = n_vocab < VOCAB_CHUNK ? n_vocab : VOCAB_CHUNK;
    unsigned threads = (unsigned)((part + 7) / 8 + 31) / 32 * 32;
    if (threads > READ_THREADS_MAX) threads = READ_THREADS_MAX;
    CU_LAUNCH_EARLY(dev, vocab_read_kernel, (unsigned)(rows->n * v->n_chunk), threads, 0, *v, rows->label, rows->settings);
}
