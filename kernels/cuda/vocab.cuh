// A row of logits, read once: what losses, capture and sampling ask of it.
//
// A row is cut into chunks of VOCAB_CHUNK columns, a block each, so that one row alone keeps many multiprocessors busy. A chunk leaves its
// largest logit and, for each temperature, its sum of exp((z - largest) / T) in f64; whoever needs the row's sum joins the chunks' (75 at
// 152k columns). A group of VOCAB_GROUP neighbouring columns leaves its largest: the k best logits stand in the k best groups, so that
// top-k reads a sixteenth of the row and a few groups of it, instead of the row again (top.cuh).
//
// All of it depends on the row and on n alone: chunks, the threads of a block, the order of the sums. Nothing on how many rows there are.
#pragma once
#include "kernels/cuda/ptx.cuh"
#include "kernels/rows/draw.h"

enum { VOCAB_CHUNK = 2048, VOCAB_GROUP = 16, VOCAB_SUMS = OP_TEMPERATURE_MAX + 1 };
struct vocab {
    const float *z;
    int64_t stride; // from row to row
    int n;          // columns that count
    int n_chunk, n_group, n_sum;
    float inv_t[VOCAB_SUMS];
    float *chunk_max;  // (rows, n_chunk); -inf: no number but -inf
    double *chunk_sum; // (rows, n_chunk, n_sum)
    float *group_max;  // (rows, n_group), NaN passed over; NULL: not asked for
};
// Which rows and temperatures: rows with a negative label are left out; with settings, a row's one temperature is its own (greedy: none).
struct vocab_rows {
    int64_t n;
    const int32_t *label;
    const struct sample_row *settings;
};
// Takes the scratch; then, unless the device measures, reads the rows. n_sum temperatures inv_t.
void vocab_read(struct device *dev, struct vocab *v, struct tensor logits, int n_vocab, const struct vocab_rows *rows, int n_sum,
                const float *inv_t, bool groups);
// Threads of a block that owns a row, given n alone.
static const unsigned VOCAB_THREADS_MAX = 512;
static inline unsigned vocab_row_threads(int n)
{
    const unsigned threads = ((unsigned)n + VOCAB_GROUP - 1) / VOCAB_GROUP;
    return threads >= VOCAB_THREADS_MAX ? VOCAB_THREADS_MAX : (threads + 31) / 32 * 32;
}
// The temperatures whose log Z is asked for, each once, T = 1 first: of[j] is where the j-th stands.
struct vocab_temperatures {
    int n_asked, n_sum, of[OP_TEMPERATURE_MAX];
    float inv_t[VOCAB_SUMS];
};
static inline struct vocab_temperatures vocab_temperatures_of(const float *temperature, int n)
{
    struct vocab_temperatures t = {};
    t.n_asked = n, t.n_sum = 1, t.inv_t[0] = 1;
    for (int j = 0; j < n; j++) {
        int at = 0;
        while (at < t.n_sum && t.inv_t[at] != 1.0f / temperature[j]) at++;
        if (at == t.n_sum) t.inv_t[t.n_sum++] = 1.0f / temperature[j];
        t.of[j] = at;
    }
    return t;
}

struct vocab_most { // passes over NaN
    __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct cu_min {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? a : b; }
};

// Four columns from `at`; those at n and beyond are NaN.
__device__ __forceinline__ void vocab_load(float x[4], const float *z, int at, int n)
{
    if (at + 4 <= n && (uintptr_t)(z + at) % 16 == 0) {
        const cu_vec<float, 4> v = *(const cu_vec<float, 4> *)(z + at);
        for (int i = 0; i < 4; i++) x[i] = v.v[i];
    } else {
        for (int i = 0; i < 4; i++) x[i] = at + i < n ? z[at + i] : NAN;
    }
}
// What is left of logits above `base`, columns beyond n as -inf: so that their exponentials are 0, and a NaN of the row shows.
__device__ __forceinline__ void vocab_shift(float x[4], int at, int n, float base)
{
    for (int i = 0; i < 4; i++) x[i] = at + i < n ? x[i] - base : -INFINITY;
}
__device__ __forceinline__ float vocab_base(float most) // of logits that are all -inf: 0
{
    return most == -INFINITY ? 0.0f : most;
}
__device__ __forceinline__ float vocab_max(const struct vocab &v, int64_t row, smem<float> room)
{
    float most = -INFINITY;
    for (int c = threadIdx.x; c < v.n_chunk; c += blockDim.x) most = fmaxf(most, v.chunk_max[row * v.n_chunk + c]);
    return cu_block_reduce(most, vocab_most(), -INFINITY, room);
}
// Of chunk c, relative to the row's largest logit.
__device__ __forceinline__ double vocab_chunk_sum(const struct vocab &v, int64_t row, int c, int t, float inv_t, float most)
{
    const int64_t at = row * v.n_chunk + c;
    return v.chunk_sum[at * v.n_sum + t] * exp(((double)v.chunk_max[at] - (double)vocab_base(most)) * (double)inv_t);
}
__device__ __forceinline__ double vocab_sum(const struct vocab &v, int64_t row, int t, float inv_t, float most, smem<double> room)
{
    double sum = 0;
    for (int c = threadIdx.x; c < v.n_chunk; c += blockDim.x) sum += vocab_chunk_sum(v, row, c, t, inv_t, most);
    return cu_block_reduce(sum, cu_add(), 0.0, room);
}
__device__ __forceinline__ double vocab_log_z(double sum, float most, float inv_t)
{
    return log(sum) + (double)vocab_base(most) * (double)inv_t;
}
// By the threads of a block together: log Z of every temperature that is asked for; returns that at T = 1.
__device__ __forceinline__ double vocab_log_zs(float *log_z, const struct vocab &v, const struct vocab_temperatures &t, int64_t row,
                                               float most, smem<double> room)
{
    double at_one = 0;
    for (int s = 0; s < v.n_sum; s++) {
        const double lse = vocab_log_z(vocab_sum(v, row, s, v.inv_t[s], most, room), most, v.inv_t[s]);
        if (s == 0) at_one = lse;
        if (threadIdx.x == 0)
            for (int j = 0; j < t.n_asked; j++)
                if (t.of[j] == s) log_z[row * t.n_asked + j] = (float)lse;
    }
    return at_one;
}
