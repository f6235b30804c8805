// A token by its place along the cumulative sum of a row's weights in the order of ids. A warp does it, all lanes together: first among the
// chunks' sums (vocab.cuh), then within the chunk, whose exponentials are computed again, added as they were the first time.
#pragma once
#include "kernels/cuda/vocab.cuh"

// Of the lanes' shares of a sum, in their order: the first whose end lies above `target` (rounding at the very end: the last that is not
// nothing), and what lies before it.
struct draw_lane {
    int lane;
    double before;
};
__device__ __forceinline__ struct draw_lane draw_lane_of(double share, double target)
{
    const int lane = threadIdx.x % 32;
    double end = share;
    for (int by = 1; by < 32; by *= 2) {
        const double left = __shfl_up_sync(0xffffffffu, end, (unsigned)by);
        if (lane >= by) end += left;
    }
    const unsigned above = __ballot_sync(0xffffffffu, end > target && share > 0), some = __ballot_sync(0xffffffffu, share > 0);
    const int l = above ? __ffs((int)above) - 1 : some ? 31 - __clz((int)some) : 0;
    const double before = __shfl_sync(0xffffffffu, end, l ? l - 1 : 0);
    return {l, l ? before : 0};
}
// The sum of all chunks, added up as draw_token does.
__device__ __forceinline__ double draw_chunks(const struct vocab &v, int64_t row, int t, float inv_t, float most, int *first, int *end)
{
    const int each = (v.n_chunk + 31) / 32, lane = threadIdx.x % 32;
    *first = min(v.n_chunk, lane * each);
    *end = min(v.n_chunk, *first + each);
    double share = 0;
    for (int c = *first; c < *end; c++) share += vocab_chunk_sum(v, row, c, t, inv_t, most);
    return share;
}
__device__ __forceinline__ double draw_total(const struct vocab &v, int64_t row, int t, float inv_t, float most)
{
    int first, end;
    return cu_warp_reduce(draw_chunks(v, row, t, inv_t, most, &first, &end), cu_add());
}

// Four weights, relative to the chunk's largest.
__device__ __forceinline__ void draw_weights(float w[4], const float *z, int at, int n, float base, float inv_t)
{
    vocab_load(w, z, at, n);
    vocab_shift(w, at, n, base);
    for (int i = 0; i < 4; i++) w[i] = expf(w[i] * inv_t);
}
__device__ static int draw_in_chunk(const float *z, int first, int n, float base, float inv_t, double target)
{
    const int n_four = (min(n - first, (int)VOCAB_CHUNK) + 3) / 4, each = (n_four + 31) / 32, lane = threadIdx.x % 32;
    const int from = min(n_four, lane * each), to = min(n_four, from + each);
    double share = 0;
    float w[4];
    for (int i = from; i < to; i++) {
        draw_weights(w, z, first + i * 4, n, base, inv_t);
        share += (double)(w[0] + w[1] + w[2] + w[3]);
    }
    const struct draw_lane l = draw_lane_of(share, target);
    int found = first;
    if (lane == l.lane) {
        double sum = l.before;
        bool done = false;
        for (int i = from; i < to && !done; i++) {
            draw_weights(w, z, first + i * 4, n, base, inv_t);
            float part = 0;
            for (int j = 0; j < 4 && !done; j++) {
                if (!(w[j] > 0)) continue;
                part += w[j];
                found = first + i * 4 + j;
                done = sum + (double)part > target;
            }
            sum += (double)part;
        }
    }
    return __shfl_sync(0xffffffffu, found, l.lane);
}
// The id whose share of the sum of exp((z - most) * inv_t) holds `target`, which is below draw_total.
__device__ static int draw_token(const struct vocab &v, int64_t row, int t, float inv_t, float most, double target)
{
    int first, end, chunk = 0;
    const struct draw_lane l = draw_lane_of(draw_chunks(v, row, t, inv_t, most, &first, &end), target);
    double sum = l.before;
    if ((int)(threadIdx.x % 32) == l.lane) {
        double before = sum;
        for (int c = first; c < end; c++) {
            const double s = vocab_chunk_sum(v, row, c, t, inv_t, most);
            if (!(s > 0)) continue;
            chunk = c;
            before = sum;
            sum += s;
            if (sum > target) break;
        }
        sum = before;
    }
    chunk = __shfl_sync(0xffffffffu, chunk, l.lane);
    sum = __shfl_sync(0xffffffffu, sum, l.lane);
    const float base = vocab_base(v.chunk_max[row * v.n_chunk + chunk]);
    const double scale = exp(((double)base - (double)vocab_base(most)) * (double)inv_t);
    return draw_in_chunk(v.z + row * v.stride, chunk * VOCAB_CHUNK, v.n, base, inv_t, (target - sum) / scale);
}
