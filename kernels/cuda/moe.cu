// What surrounds the experts' products: the router, the sort of choices by expert, gathering rows and adding them up again.
//
// The router is a warp a token, its scores in shared memory: at decode it is a few microseconds of latency, at prefill bound by reading the
// logits. Gathering and adding up are bound by bytes. The sort (sort.cuh) never asks the host: who has how many rows is known to `first`
// alone.
#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/sort.cuh"
#include "kernels/rows/router.h"

// ---- router -----------------------------------------------------------------------------------------------------------------------------

enum { ROUTER_WARPS = 4 };

// The index of what comes first among x[0, n), by row_router_before: -1 if all are NaN. The whole warp calls and is given it.
__device__ __forceinline__ int router_best(smem<float> x, int n)
{
    int best = -1;
    float most = 0;
    for (int i = threadIdx.x % 32; i < n; i += 32) {
        const float v = x[i];
        if (!row_router_before(v, i, most, best)) continue;
        best = i;
        most = v;
    }
    for (int by = 16; by > 0; by /= 2) {
        const int o = __shfl_xor_sync(0xffffffffu, best, by);
        const float v = __shfl_xor_sync(0xffffffffu, most, by);
        if (o < 0 || !row_router_before(v, o, most, best)) continue;
        best = o;
        most = v;
    }
    return best;
}
// Scores of the logits at x, lane by lane: its own every 32nd.
__device__ __forceinline__ void router_scores(smem<float> score, const float *x, int n, enum router_scoring scoring)
{
    const int lane = threadIdx.x % 32;
    if (scoring == ROUTER_SIGMOID) {
        for (int i = lane; i < n; i += 32) score[i] = row_router_sigmoid(x[i]);
        return;
    }
    float max = -INFINITY, sum = 0;
    for (int i = lane; i < n; i += 32) max = cu_max()(x[i], max);
    max = cu_warp_reduce(max, cu_max());
    for (int i = lane; i < n; i += 32) {
        const float e = expf(x[i] - max);
        score[i] = e;
        sum += e;
    }
    sum = cu_warp_reduce(sum, cu_add());
    for (int i = lane; i < n; i += 32) score[i] = score[i] / sum;
}
// Groups that are not among the topk_group best count as -inf. worth: n_group floats.
__device__ __forceinline__ void router_groups(smem<float> choice, smem<float> worth, bool biased, const struct router *r)
{
    const int lane = threadIdx.x % 32, per = r->n_expert / r->n_group;
    for (int g = lane; g < r->n_group; g += 32) {
        float a = -INFINITY, b = -INFINITY;
        for (int j = 0; j < per; j++) // each lane begins elsewhere: groups of 32 lie in the same banks
            row_router_two_best(&a, &b, choice[g * per + (j + g) % per]);
        worth[g] = row_router_worth(a, b, per, biased);
    }
    __syncwarp();
    for (int k = 0; k < r->topk_group; k++) {
        const int best = router_best(worth, r->n_group);
        __syncwarp();
        if (lane == 0) worth[best] = NAN; // taken
        __syncwarp();
    }
    for (int i = lane; i < r->n_expert; i += 32) {
        const float w = worth[i / per];
        if (w == w) choice[i] = -INFINITY;
    }
    __syncwarp();
}
__global__ void router_kernel(int32_t *expert, float *weight, const float *logits, const float *bias, struct router r, int64_t n_tok)
{
    cu_wait_earlier();
    CU_SHARED_DYNAMIC(memory);
    const int lane = threadIdx.x % 32, n = r.n_expert, each = 2 * n + r.n_group;
    const int64_t t = (int64_t)blockIdx.x * ROUTER_WARPS + threadIdx.x / 32;
    if (t >= n_tok) return; // the warp whole; no barrier of the block follows
    const smem<float> score = memory.as<float>() + threadIdx.x / 32 * each, choice = score + n;
    router_scores(score, logits + t * n, n, r.scoring);
    for (int i = lane; i < n; i += 32) choice[i] = bias ? score[i] + bias[i] : (float)score[i];
    __syncwarp();
    if (r.topk_group < r.n_group) router_groups(choice, choice + n, bias != NULL, &r);
    float sum = 0;
    for (int k = 0; k < r.top_k; k++) {
        int best = router_best(choice, n);
        if (best < 0) best = 0; // NaN logits: the step's check will say so; here only stay in bounds
        sum += score[best];
        if (lane == k % 32) expert[t * r.top_k + k] = best;
        __syncwarp();
        if (lane == 0) choice[best] = NAN;
        __syncwarp();
    }
    for (int k = lane; k < r.top_k; k += 32) weight[t * r.top_k + k] = row_router_weight(score[expert[t * r.top_k + k]], sum, &r);
}
extern "C" void cuda_router(struct device *dev, struct tensor expert, struct tensor weight, struct tensor logits, struct tensor bias,
                            const struct router *r)
{
    const int64_t n_tok = logits.shape[0];
    const size_t shared = ROUTER_WARPS * (size_t)(2 * r->n_expert + r->n_group) * sizeof(float);
    CU_LAUNCH_EARLY(dev, router_kernel, cu_blocks(n_tok, ROUTER_WARPS), ROUTER_WARPS * 32, shared, (int32_t *)expert.data,
                    (float *)weight.data, (const float *)logits.data, (const float *)bias.data, *r, n_tok);
}

// ---- choices by expert ------------------------------------------------------------------------------------------------------------------

struct choice_key {
    const int32_t *expert;
    int n_expert;
    unsigned top_k;
    struct cuda_trouble *trouble;
    __device__ __forceinline__ int operator()(int64_t i) const
    {
        const int e = expert[i];
        if (e >= 0 && e < n_expert) return e;
        cu_trouble(trouble, TROUBLE_CHOICE, (int)((unsigned)i / top_k), e, n_expert);
        return 0; // in bounds, until the host is told
    }
};
struct choice_emit {
    int32_t *row_token, *token_row;
    unsigned top_k;
    __device__ __forceinline__ void operator()(int64_t i, int at) const
    {
        token_row[i] = at;
        row_token[at] = (int)((unsigned)i / top_k);
    }
};
extern "C" void cuda_moe_sort(struct device *dev, struct tensor first, struct tensor row_token, struct tensor token_row,
                              struct tensor expert, int n_expert)
{
    const int64_t n = tensor_numel(expert);
    void *scratch = dev_scratch(dev, sort_scratch(n, n_expert));
    if (dev->measuring) return;
    const unsigned top_k = (unsigned)expert.shape[1];
    const struct choice_key key = {(const int32_t *)expert.data, n_expert, top_k, cuda_of(dev)->trouble};
    const struct choice_emit emit = {(int32_t *)row_token.data, (int32_t *)token_row.data, top_k};
    sort_stable(dev, key, emit, (int32_t *)first.data, n, n_expert, scratch);
}

extern "C" void cuda_gather_rows(struct device *dev, struct tensor out, struct tensor x, struct tensor row)
{
    gather(dev, out, x, row, TROUBLE_ROW);
}

extern "C" void cuda_scatter_rows(struct device *dev, struct tensor out, struct tensor x, struct tensor row)
{
    scatter(dev, out, x, row, TROUBLE_ROW_TO);
}

// ---- adding up --------------------------------------------------------------------------------------------------------------------------

// A block a token, or a piece of one; the slots' rows are on their way all together.
template <class To, class From, bool WIDE>
__global__ void combine_kernel(To *out, const From *y, const int32_t *token_row, const float *weight, int top_k, int64_t d)
{
    cu_wait_earlier();
    enum { N = 16 / (sizeof(To) > sizeof(From) ? sizeof(To) : sizeof(From)), AT_ONCE = 8 };
    const int64_t t = blockIdx.x, step = (int64_t)gridDim.y * blockDim.x * N;
    const int32_t *row = token_row + t * top_k;
    const float *w = weight + t * top_k;
    for (int64_t i = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * N; i < d; i += step) {
        cu_chunk<To, N> to = cu_load<WIDE, N>(out + t * d, i, d);
        float sum[N];
        CU_UNROLL
        for (int j = 0; j < N; j++) sum[j] = cu_f32(to.v[j]);
        for (int s = 0; s < top_k; s += AT_ONCE) {
            cu_chunk<From, N> c[AT_ONCE];
            CU_UNROLL
            for (int l = 0; l < AT_ONCE; l++)
                if (s + l < top_k) c[l] = cu_load<WIDE, N>(y + row[s + l] * d, i, d);
            CU_UNROLL
            for (int l = 0; l < AT_ONCE; l++)
                if (s + l < top_k) {
                    CU_UNROLL
                    for (int j = 0; j < N; j++) sum[j] = fmaf(w[s + l], cu_f32(c[l].v[j]), sum[j]);
                }
        }
        CU_UNROLL
        for (int j = 0; j < N; j++) to.v[j] = cu_from<To>(sum[j]);
        cu_store<WIDE, N>(out + t * d, i, d, to);
    }
}
extern "C" void cuda_moe_combine(struct device *dev, struct tensor out, struct tensor y, struct tensor token_row, struct tensor weight)
{
    const int64_t d = out.shape[1];
    const int n = out.dtype == DT_BF16 && y.dtype == DT_BF16 ? 8 : 4;
    const int64_t n_chunk = (d + n - 1) / n;
    const dim3 grid((unsigned)out.shape[0], cu_row_pieces(n_chunk));
    const struct tensor all[] = {out, y};
    const bool wide = cu_wide(n, all, 2);
    CU_DTYPE(out.dtype, To, CU_DTYPE(y.dtype, From, CU_WIDE(wide, WIDE, {
                                         CU_LAUNCH_EARLY(dev, (combine_kernel<To, From, WIDE>), grid, cu_row_threads(n_chunk), 0,
                                                         (To *)out.data, (const From *)y.data, (const int32_t *)token_row.data,
                                                         (const float *)weight.data, (int)token_row.shape[1], d);
                                     });););
}
