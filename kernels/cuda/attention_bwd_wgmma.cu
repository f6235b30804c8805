// Attention's backward pass in bf16 on sm_90: the two passes of attention_bwd.cu by a warpgroup's products.
//
// Bound by FLOPs, and by shared memory beside them. Still 7 products in two passes, each of which alone writes its results: one pass has 5,
// but must add up dq between blocks, by atomics, or in turns that blocks wait for, and its dS goes through shared memory; here dS (and P)
// stay in the registers where they are made, as the left side of the products that follow, and nothing waits but for its operands. So what
// is lost in FLOPs is won back in part, and the order of every sum is fixed by the shapes.
//   Keys: two groups of 64 keys, dk and dv in registers; steps of 64 queries. S and dP transposed.
//   Queries: two groups of 64 queries, dq in registers; steps of 96 keys, 128 at d 64.
// A group's exponentials stand under the other group's products; within a group, the scores of a step are begun before the sums of the step
// before are waited for, where registers allow it. At d 128 a step of the first pass takes the tensor cores 2,048 cycles, shared memory
// 1,536 and what comes in 256 more, the exponentials 512. Expected: 0.65 of the tensor cores' rate at long rows, that is 0.46 of it for the
// 5 products that are counted. To be measured.
#include "kernels/cuda/attn_wgmma.cuh"

enum { BACK_ROWS = 128, BACK_THREADS = 384 }; // two groups of 64 rows, and one that fills
template <class B> __device__ __forceinline__ void barriers_init(smem<unsigned char> room)
{
    if (threadIdx.x < 2 * B::SLOTS) cu_mbarrier_init(room.as<uint64_t>(B::BARRIERS).raw(threadIdx.x), threadIdx.x < B::SLOTS ? 128 : 8);
    __syncthreads();
}

// ---- keys: dk, dv -----------------------------------------------------------------------------------------------------------------------
template <int D_, int SLOTS_> struct wgmma_back_keys {
    enum { D = D_, STEP = 64, SLOTS = SLOTS_ };
    enum { TILE = BACK_ROWS * D * 2, RING = 2 * TILE, DOUT = STEP * D * 2, ROW = 2 * DOUT }; // bytes; ROW: lse and dot of the queries
    enum { SLOT = ROW + 1024, BARRIERS = RING + SLOTS * SLOT, SHARED = BARRIERS + 16 * SLOTS };
};
// Few heads of keys and values are too few tiles for the multiprocessors (2 heads, 8,192 rows: 128 tiles, the longest twice the mean). Then
// a tile's heads of queries are shared out between `parts` blocks, whose sums in f32 are added up in their order afterwards.
struct back_parts {
    int n;
    float *sum; // (n, n_key, n_kv, dk + dv)
    int64_t n_key;
};
// The steps of a tile of keys: queries [first, end) of its segment, of heads from `head` on that read these keys, one after another.
struct steps {
    int first, end, n_all, head;
};
template <class B>
__device__ __forceinline__ struct steps steps_of(const struct flat<bf16> &f, const struct place &p, int kv, int part, int n)
{
    struct steps s;
    s.head = kv * f.group + part * (f.group / n);
    s.first = max(0, p.first - p.ahead) / B::STEP * B::STEP;
    s.end = f.window ? min(p.n_q, p.first + p.n - 1 + f.window - p.ahead) : p.n_q;
    s.n_all = s.end > s.first ? (s.end - s.first + B::STEP - 1) / B::STEP * (f.group / n) : 0;
    return s;
}
template <class B>
__device__ __forceinline__ void back_keys_fill(const struct flat<bf16> &f, smem<unsigned char> room, const struct place &p,
                                               const struct steps &s, int kv)
{
    const smem<uint64_t> full = room.as<uint64_t>(B::BARRIERS), empty = full + B::SLOTS;
    struct ring_place at = {0, 0};
    const int tid = threadIdx.x % 128, i = tid % B::STEP;
    int i0 = s.first, head = s.head;
    for (int step = 0; step < s.n_all; step++) {
        cu_mbarrier_wait(empty.raw(at.slot), at.parity ^ 1);
        const smem<unsigned char> slot = room + (B::RING + at.slot * B::SLOT);
        const int64_t row = (int64_t)p.q0 + i0;
        const int n = p.n_q - i0;
        if (step == 0) {
            panels_load<B::D, BACK_ROWS>(room, f.k, (int64_t)p.k0 + p.first, kv, p.n);
            panels_load<B::D, BACK_ROWS>(room + B::TILE, f.v, (int64_t)p.k0 + p.first, kv, p.n);
        }
        panels_load<B::D, B::STEP>(slot, f.q, row, head, n);
        panels_load<B::D, B::STEP>(slot + B::DOUT, f.dout, row, head, n);
        static_assert(2 * B::STEP == 128, "lse and dot: a thread each");
        const float *from = tid < B::STEP ? f.lse : f.dot;
        cu_async_copy4(slot.as<float>(B::ROW).raw(tid), from + (i < n ? (row + i) * f.n_head + head : 0), i < n);
        slot_begun<B::SLOTS>(&at, full);
        i0 += B::STEP;
        if (i0 >= s.end) i0 = s.first, head++;
    }
}
// Scores (keys, queries) become P. first: the position of the step's first query; key: of the lane's first row.
template <int N>
__device__ __forceinline__ void back_probs(float (*s)[4], smem<float> lse, int first, int key, bool masked, int window, float scale)
{
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float l = lse[8 * n + 2 * t + e] * LOG2_E;
#pragma unroll
            for (int i = 0; i < 2; i++) s[n][2 * i + e] = cu_exp2(fmaf(s[n][2 * i + e], scale, -l));
        }
    if (!masked) return;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (!sees(first + 8 * n + 2 * t + e % 2, key + e / 2 * 8, window)) s[n][e] = 0;
}
// As back_store, to rows of d f32, `stride` apart.
template <int D> __device__ __forceinline__ void part_store(float *to, int64_t stride, int d, int n, int row, const float (*x)[4], float by)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = row + 8 * i + g;
        if (r >= n) continue;
#pragma unroll
        for (int c = 0; c < D / 8; c++) // d is of whole eights
            if (8 * c < d) *(cu_vec<float, 2> *)(to + r * stride + 8 * c + 2 * t) = {{x[c][2 * i] * by, x[c][2 * i + 1] * by}};
    }
}
template <class B>
__device__ __forceinline__ void back_keys_multiply(const struct flat<bf16> &f, smem<unsigned char> room, const struct place &p,
                                                   const struct steps &c, int kv, const struct back_parts &parts, int part)
{
    enum { D = B::D, STEP = B::STEP, N = STEP / 8 };
    enum { ACROSS = D <= 64 }; // a step's last products are waited for in the next one, for which there are no registers at 128
    const smem<uint64_t> full = room.as<uint64_t>(B::BARRIERS), empty = full + B::SLOTS;
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4,
              t = threadIdx.x % 4;
    const smem<unsigned char> keys = room + group * 64 * 128, values = keys + B::TILE;
    struct ring_place at = {0, 0};
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    unsigned prob[2 * N], grad[2 * N];
    cu_wgmma_hold<4 * D / 8>(dk[0]), cu_wgmma_hold<4 * D / 8>(dv[0]); // no constants set in while products are in flight
    int i0 = c.first, before = 0;
    for (int step = 0; step < c.n_all; step++) {
        slot_wait(full, at.slot, at.parity);
        const smem<unsigned char> q = room + (B::RING + at.slot * B::SLOT), dout = q + B::DOUT;
        const smem<float> lse = q.as<float>(B::ROW), dot = lse + STEP;
        const int pos = p.ahead + i0, key = p.first + row;
        const bool masked = pos < key + 15 || (f.window && pos + STEP - 1 - f.window >= key);
        float s[N][4], ds[N][4];
        tiles_begin<D, STEP>(s[0], keys, BACK_ROWS, q, STEP);
        if (ACROSS && step > 0) { // the step before is over
            cu_wgmma_wait<1>();
            cu_wgmma_hold<4 * D / 8>(dk[0]), cu_wgmma_hold<4 * D / 8>(dv[0]);
            give_back(empty + before);
        }
        tiles_begin<D, STEP>(ds[0], values, BACK_ROWS, dout, STEP);
        cu_wgmma_wait<1>();
        cu_wgmma_hold<4 * N>(s[0]);
        back_probs<N>(s, lse, pos, key + g, masked, f.window, f.scale * LOG2_E);
        to_pairs<N>(prob, s);
        cu_wgmma_wait<0>();
        cu_wgmma_hold<4 * N>(ds[0]);
        steps_begin<D, STEP>(dv[0], prob, dout);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float dot0 = dot[8 * n + 2 * t], dot1 = dot[8 * n + 2 * t + 1];
#pragma unroll
            for (int i = 0; i < 2; i++) { // P as it weighs dout, of 16 bits: room for dS
                const float p0 = cu_f32((bf16)prob[2 * n + i]), p1 = cu_f32((bf16)(prob[2 * n + i] >> 16));
                grad[2 * n + i] = cu_pair_bf16(p0 * (ds[n][2 * i] - dot0), p1 * (ds[n][2 * i + 1] - dot1));
            }
        }
        steps_begin<D, STEP>(dk[0], grad, q);
        before = at.slot;
        if (!ACROSS) {
            cu_wgmma_wait<0>();
            cu_wgmma_hold<4 * D / 8>(dk[0]), cu_wgmma_hold<4 * D / 8>(dv[0]);
            give_back(empty + before);
        }
        ring_next<B::SLOTS>(&at);
        i0 += STEP;
        if (i0 >= c.end) i0 = c.first;
    }
    cu_wgmma_wait<0>();
    cu_wgmma_hold<4 * D / 8>(dk[0]), cu_wgmma_hold<4 * D / 8>(dv[0]);
    const int64_t k_row = (int64_t)p.k0 + p.first;
    if (parts.n > 1) {
        const int d = f.k.d + f.v.d;
        float *to = parts.sum + ((part * parts.n_key + k_row) * f.n_kv + kv) * d;
        part_store<D>(to, (int64_t)f.n_kv * d, f.k.d, p.n, row, dk, f.scale);
        part_store<D>(to + f.k.d, (int64_t)f.n_kv * d, f.v.d, p.n, row, dv, 1);
        return;
    }
    back_store<D>(f.dk, k_row, kv, p.n, row, dk, f.scale);
    back_store<D>(f.dv, k_row, kv, p.n, row, dv, 1);
}
template <class B>
__global__ void __launch_bounds__(BACK_THREADS, 1) attention_bwd_keys_wgmma_kernel(const struct flat<bf16> f, const struct back_parts parts)
{
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    CU_SHARED_DYNAMIC(room);
    const int part = (int)blockIdx.x % parts.n, kv = (int)blockIdx.x / parts.n % f.n_kv;
    struct place p;
    if (!place_of(&p, f, f.k_start, (int)blockIdx.x / parts.n / f.n_kv, BACK_ROWS)) return;
    barriers_init<B>(room);
    const struct steps s = steps_of<B>(f, p, kv, part, parts.n);
    if (threadIdx.x / 128 == 2) {
        cu_registers_fewer<40>();
        back_keys_fill<B>(f, room, p, s, kv);
    } else {
        cu_registers_more<232>();
        back_keys_multiply<B>(f, room, p, s, kv, parts, part);
    }
#else
    __trap(); // attention_bwd_wgmma takes it on sm_90 alone, whose code is built for sm_90a
#endif
}

// dk, dv from the parts, eight values a thread.
enum { MERGE_THREADS = 256 };
__global__ void attention_bwd_merge_kernel(const struct flat<bf16> f, const struct back_parts parts)
{
    const int d = f.k.d + f.v.d;
    const int64_t i = 8 * ((int64_t)blockIdx.x * MERGE_THREADS + threadIdx.x), all = parts.n_key * f.n_kv * d;
    if (i >= all) return;
    float sum[8] = {};
    for (int p = 0; p < parts.n; p++)
        for (int h = 0; h < 2; h++) {
            const cu_vec<float, 4> x = *(const cu_vec<float, 4> *)(parts.sum + p * all + i + 4 * h);
            for (int e = 0; e < 4; e++) sum[4 * h + e] += x.v[e];
        }
    const int c = (int)(i % d), kv = (int)(i / d % f.n_kv);
    const struct heads<bf16> &h = c < f.k.d ? f.dk : f.dv;
    bf16 *to = h.p + i / d / f.n_kv * h.row + kv * h.head;
    for (int e = 0; e < 8; e += 2) pair_store(to, (c < f.k.d ? c : c - f.k.d) + e, h.d, h.pairs, sum[e], sum[e + 1]);
}

// ---- queries: dq ------------------------------------------------------------------------------------------------------------------------
// Keys and values are slots of their own, in turn: a whole step more would not fit.
template <int D_, int STEP_, int SLOTS_> struct wgmma_back_queries {
    enum { D = D_, STEP = STEP_, SLOTS = SLOTS_ };
    enum { TILE = BACK_ROWS * D * 2, RING = 2 * TILE, SLOT = STEP * D * 2, BARRIERS = RING + SLOTS * SLOT, SHARED = BARRIERS + 16 * SLOTS };
};
template <class B>
__device__ __forceinline__ void back_queries_fill(const struct flat<bf16> &f, smem<unsigned char> room, const struct place &p, int head)
{
    const smem<uint64_t> full = room.as<uint64_t>(B::BARRIERS), empty = full + B::SLOTS;
    const int pos = p.ahead + p.first, kv = head / f.group;
    struct ring_place at = {0, 0};
    bool first = true;
    for (int j0 = first_block<B::STEP>(pos, f.window); j0 < pos + p.n; j0 += B::STEP, first = false) {
        cu_mbarrier_wait(empty.raw(at.slot), at.parity ^ 1);
        if (first) {
            panels_load<B::D, BACK_ROWS>(room, f.q, (int64_t)p.q0 + p.first, head, p.n);
            panels_load<B::D, BACK_ROWS>(room + B::TILE, f.dout, (int64_t)p.q0 + p.first, head, p.n);
        }
        panels_load<B::D, B::STEP>(room + (B::RING + at.slot * B::SLOT), f.k, (int64_t)p.k0 + j0, kv, p.n_key - j0);
        slot_begun<B::SLOTS>(&at, full);
        cu_mbarrier_wait(empty.raw(at.slot), at.parity ^ 1);
        panels_load<B::D, B::STEP>(room + (B::RING + at.slot * B::SLOT), f.v, (int64_t)p.k0 + j0, kv, p.n_key - j0);
        slot_begun<B::SLOTS>(&at, full);
    }
}
template <class B>
__device__ __forceinline__ void back_queries_multiply(const struct flat<bf16> &f, smem<unsigned char> room, const struct place &p, int head)
{
    enum { D = B::D, STEP = B::STEP, N = STEP / 8 };
    const smem<uint64_t> full = room.as<uint64_t>(B::BARRIERS), empty = full + B::SLOTS;
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4,
              t = threadIdx.x % 4;
    const int pos = p.ahead + p.first, w_first = pos + row, w_last = pos + min(row + 16, p.n) - 1;
    const smem<unsigned char> q = room + group * 64 * 128, dout = q + B::TILE;
    const int64_t q_row = (int64_t)p.q0 + p.first;
    float dq[D / 8][4] = {}, s[N][4], ds[N][4], lse[2], dot[2];
    unsigned grad[2 * N];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = row + g + 8 * i;
        lse[i] = r < p.n ? f.lse[(q_row + r) * f.n_head + head] * LOG2_E : 0.0f;
        dot[i] = r < p.n ? f.dot[(q_row + r) * f.n_head + head] : 0.0f;
    }
    struct ring_place at = {0, 0};
    const float scale = f.scale * LOG2_E;
    const int start = first_block<STEP>(pos, f.window);
    int before = 0;
    for (int j0 = start; j0 < pos + p.n; j0 += STEP) {
        slot_wait(full, at.slot, at.parity);
        const smem<unsigned char> k = room + (B::RING + at.slot * B::SLOT), v = k + B::SLOT;
        const bool masked = j0 + STEP - 1 > w_first || (f.window && j0 <= w_last - f.window);
        tiles_begin<D, STEP>(s[0], q, BACK_ROWS, k, STEP);
        if (j0 > start) { // the step before is over
            cu_wgmma_wait<1>();
            cu_wgmma_hold<4 * D / 8>(dq[0]);
            give_back(empty + before);
        }
        before = at.slot;
        ring_next<B::SLOTS>(&at);
        slot_wait(full, at.slot, at.parity);
        tiles_begin<D, STEP>(ds[0], dout, BACK_ROWS, v, STEP);
        cu_wgmma_wait<1>();
        cu_wgmma_hold<4 * N>(s[0]);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] = cu_exp2(fmaf(s[n][e], scale, -lse[e / 2]));
        if (masked) {
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!sees(w_first + g + e / 2 * 8, j0 + 8 * n + 2 * t + e % 2, f.window)) s[n][e] = 0;
        }
        cu_wgmma_wait<0>();
        cu_wgmma_hold<4 * N>(ds[0]);
        give_back(empty + at.slot);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                grad[2 * n + i] = cu_pair_bf16(s[n][2 * i] * (ds[n][2 * i] - dot[i]), s[n][2 * i + 1] * (ds[n][2 * i + 1] - dot[i]));
        steps_begin<D, STEP>(dq[0], grad, k);
        ring_next<B::SLOTS>(&at);
    }
    cu_wgmma_wait<0>();
    cu_wgmma_hold<4 * D / 8>(dq[0]);
    back_store<D>(f.dq, q_row, head, p.n, row, dq, f.scale);
}
template <class B>
__global__ void __launch_bounds__(BACK_THREADS, 1) attention_bwd_queries_wgmma_kernel(const struct flat<bf16> f, int n_tile)
{
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    CU_SHARED_DYNAMIC(room);
    const int head = (int)(blockIdx.x % f.n_head);
    struct place p;
    if (!place_of(&p, f, f.q_start, n_tile - 1 - (int)(blockIdx.x / f.n_head), BACK_ROWS)) return;
    barriers_init<B>(room);
    if (threadIdx.x / 128 == 2) {
        cu_registers_fewer<40>();
        back_queries_fill<B>(f, room, p, head);
    } else {
        cu_registers_more<232>();
        back_queries_multiply<B>(f, room, p, head);
    }
#else
    __trap(); // as above
#endif
}

template <int D, int KEY_SLOTS, int STEP, int QUERY_SLOTS>
static bool run(struct device *dev, const struct flat<bf16> &f, int64_t n_tok, const struct back_parts &parts)
{
    typedef wgmma_back_keys<D, KEY_SLOTS> KEYS;
    typedef wgmma_back_queries<D, STEP, QUERY_SLOTS> QUERIES;
    if (!fits<KEYS>(dev) || !fits<QUERIES>(dev)) return false;
    const int64_t n_tile = tiles_of(n_tok, f.n_seg, BACK_ROWS);
    CU_LAUNCH(dev, attention_bwd_keys_wgmma_kernel<KEYS>, (unsigned)(tiles_of(parts.n_key, f.n_seg, BACK_ROWS) * f.n_kv * parts.n),
              (unsigned)BACK_THREADS, KEYS::SHARED, f, parts);
    if (parts.n > 1)
        CU_LAUNCH(dev, attention_bwd_merge_kernel, cu_blocks(parts.n_key * f.n_kv * (f.k.d + f.v.d), 8 * MERGE_THREADS), MERGE_THREADS, 0,
                  f, parts);
    CU_LAUNCH(dev, attention_bwd_queries_wgmma_kernel<QUERIES>, (unsigned)(n_tile * f.n_head), (unsigned)BACK_THREADS, QUERIES::SHARED, f,
              (int)n_tile);
    return true;
}
// Rows of parts there may be. TRAP: memory is planned for the most keys, and fewer keys must not take more of it: so by rows, whatever the
// parts.
static int64_t part_rows(const struct device *dev, int64_t group, int64_t n_kv, int64_t n_key)
{
    const int64_t most = (int64_t)4 * BACK_ROWS * cuda_of(dev)->n_sm / n_kv;
    return group == 1 ? 0 : group * n_key < most ? group * n_key : most;
}
// Blocks that a tile of keys is shared out between: as few as give each multiprocessor two.
static int parts_of(const struct device *dev, const struct flat<bf16> &f, int64_t n_key)
{
    const int64_t n_item = tiles_of(n_key, f.n_seg, BACK_ROWS) * f.n_kv, most = part_rows(dev, f.group, f.n_kv, n_key);
    int n = 1;
    while (n < f.group && (n_item * n < 2 * cuda_of(dev)->n_sm || f.group % n)) n++;
    while (n > 1 && (n * n_key > most || f.group % n)) n--;
    return n;
}
static bool takes(const struct device *dev, int64_t dk, int64_t dv)
{
    return cuda_of(dev)->wgmma && dk >= 1 && dv >= 1 && dk <= 128 && dv <= 128;
}
size_t attention_bwd_wgmma_bytes(const struct device *dev, struct tensor q, struct tensor k, struct tensor v)
{
    const int64_t n_kv = k.shape[1], d = k.shape[2] + v.shape[2];
    if (q.dtype != DT_BF16 || !takes(dev, k.shape[2], v.shape[2])) return 0;
    return (size_t)(part_rows(dev, q.shape[1] / n_kv, n_kv, k.shape[0]) * n_kv * d) * sizeof(float);
}
bool attention_bwd_wgmma(struct device *dev, const struct flat<bf16> &f, int64_t n_tok, int64_t n_key, float *parts)
{
    if (!takes(dev, f.q.d, f.v.d) || !pieces(f.q) || !pieces(f.k) || !pieces(f.v) || !pieces(f.dout)) return false;
    const struct back_parts p = {parts_of(dev, f, n_key), parts, n_key};
    return f.q.d <= 64 && f.v.d <= 64 ? run<64, 6, 128, 8>(dev, f, n_tok, p) : run<128, 4, 96, 6>(dev, f, n_tok, p);
}
