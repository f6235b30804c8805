// Attention over flat tokens, forward, in bf16 on sm_90: a warpgroup's products from shared memory and registers, in the manner of
// FlashAttention-3 (Shah et al. 2024).
//
// Bound by FLOPs. A block is persistent and has one multiprocessor: one warpgroup fills a ring of tiles of 128 keys and of their values by
// cp.async, two or three attend to 64 queries each. Scores of a block of keys are multiplied while the probabilities of the block before,
// in registers, weigh its values; and the groups pass a token around (named barriers), so that one group's exponentials stand under the
// other's products. Only a block that a row does not see all of is masked. Items (a tile of queries, a head) are taken from a counter,
// longest first within a segment, the heads that share keys side by side; the next item's keys come in while the last one's rows go out.
//   d 64: 192 queries, 128 KiB of keys and values. 128 keys take the tensor cores 1,536 cycles, and the exponentials (16 a cycle) as many
//   d 128: 128 queries, 192 KiB. 2,048 cycles, beside 1,024 of exponentials
//   192/128: 128 queries, 160 KiB. 2,560 cycles, beside 1,024
// Expected of the tensor cores' rate at long rows: 0.70 to 0.75 at d 128, 0.50 at 64 (what FlashAttention-3 reports); causal rows of 4,096
// lose about 0.1 of it to the diagonal's blocks, half of which nobody sees. To be measured.
//
// A row's result does not depend on what shares its tile: as in attention.cu, whose blocks are of 64 keys. Which kernel runs depends on
// the device, the head's sizes and how rows are aligned, never on how many there are.
#include "kernels/cuda/attn_wgmma.cuh"

template <int DK_, int DV_, int GROUPS_, int STAGES_> struct wgmma_forward {
    enum { DK = DK_, DV = DV_, GROUPS = GROUPS_, STAGES = STAGES_, KEYS = 128, ROWS = 64 * GROUPS, THREADS = 128 * (GROUPS + 1) };
    enum { SLOTS = 2 * STAGES }; // keys and values in turn
    // bytes: keys, then values of a stage
    enum { RING = ROWS * DK * 2, VALUES = KEYS * DK * 2, STAGE = VALUES + KEYS * DV * 2, BARRIERS = RING + STAGES * STAGE };
    enum { ITEM = BARRIERS + 8 * (2 * SLOTS + 1), SHARED = ITEM + 2 * 24 };
    enum { FILL_REGISTERS = GROUPS == 3 ? 32 : 40, REGISTERS = GROUPS == 3 ? 160 : 232 };
};
// An item: n queries from row q_row on, the first of them at position pos of n_key keys from row k0 on. n 0: there are no more.
struct item {
    int q_row, n, pos, k0, n_key, head;
};
__device__ __forceinline__ int n_block_of(const struct item &w, int start, int keys)
{
    const int last = w.pos + w.n - 1;
    return last > start ? (last - start) / keys + 1 : 1; // one if nothing is seen, too, which leaves zeros
}

// ---- the warpgroup that fills -----------------------------------------------------------------------------------------------------------
template <class F> __device__ __forceinline__ struct item item_take(const struct flat<bf16> &f, int n_tile, bool first)
{
    struct item w = {};
    for (;; first = false) {
        const int i = first ? (int)blockIdx.x : (int)gridDim.x + atomicAdd(f.next, 1), head = i % f.n_head;
        if (i / f.n_head >= n_tile) return w;
        struct place p;
        if (!place_of(&p, f, f.q_start, n_tile - 1 - i / f.n_head, F::ROWS)) continue;
        w.q_row = p.q0 + p.first, w.n = p.n, w.pos = p.ahead + p.first, w.k0 = p.k0, w.n_key = p.n_key, w.head = head;
        return w;
    }
}
template <class F> __device__ __forceinline__ void attention_fill(const struct flat<bf16> &f, smem<unsigned char> room, int n_tile)
{
    const smem<uint64_t> full = room.as<uint64_t>(F::BARRIERS), empty = full + F::SLOTS, q_empty = empty + F::SLOTS;
    struct ring_place at = {0, 0};
    for (int turn = 0;; turn ^= 1) {
        // The turn before last is over for all who attend: their queries were given back before this thread went on to the last one.
        const smem<struct item> place = room.as<struct item>(F::ITEM) + (turn & 1);
        if (threadIdx.x % 128 == 0) place[0] = item_take<F>(f, n_tile, turn == 0 && at.slot == 0 && at.parity == 0);
        cu_barrier(F::GROUPS + 1, 128);
        const struct item w = place[0];
        const int kv = w.head / f.group, start = first_block<F::KEYS>(w.pos, f.window), n_block = n_block_of(w, start, F::KEYS);
        for (int b = 0; b < n_block; b++) {
            const int j0 = start + b * F::KEYS;
            const smem<unsigned char> stage = room + (F::RING + at.slot / 2 * F::STAGE);
            cu_mbarrier_wait(empty.raw(at.slot), at.parity ^ 1);
            if (w.n) panels_load<F::DK, F::KEYS>(stage, f.k, (int64_t)w.k0 + j0, kv, w.n_key - j0);
            if (b == 0) {
                cu_mbarrier_wait(q_empty.raw(), turn ^ 1);
                if (w.n) panels_load<F::DK, F::ROWS>(room, f.q, w.q_row, w.head, w.n);
            }
            if (threadIdx.x % 128 == 0) cu_mbarrier_arrive(full.raw(at.slot)); // what it has written, the item, is there
            slot_begun<F::SLOTS>(&at, full);
            if (!w.n) return;
            cu_mbarrier_wait(empty.raw(at.slot), at.parity ^ 1);
            panels_load<F::DV, F::KEYS>(stage + F::VALUES, f.v, (int64_t)w.k0 + j0, kv, w.n_key - j0);
            slot_begun<F::SLOTS>(&at, full);
        }
    }
}

// ---- those that attend ------------------------------------------------------------------------------------------------------------------
// Scores of the group's 64 queries with a tile of keys; probabilities · a tile of values: begun.
template <class F> __device__ __forceinline__ void scores_begin(float *s, smem<unsigned char> room, int group, int stage)
{
    tiles_begin<F::DK, F::KEYS>(s, room + group * 64 * 128, F::ROWS, room + (F::RING + stage * F::STAGE), F::KEYS);
}
template <class F> __device__ __forceinline__ void values_begin(float *o, unsigned *prob, smem<unsigned char> room, int stage)
{
    steps_begin<F::DV, F::KEYS>(o, prob, room + (F::RING + stage * F::STAGE + F::VALUES));
}
template <class F> __device__ __forceinline__ void attention_attend(const struct flat<bf16> &f, smem<unsigned char> room)
{
    enum { KEYS = F::KEYS, NS = KEYS / 8, NO = F::DV / 8 };
    const smem<uint64_t> full = room.as<uint64_t>(F::BARRIERS), empty = full + F::SLOTS, q_empty = empty + F::SLOTS;
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4;
    const int mine = 1 + group, next = 1 + (group + 1) % F::GROUPS; // the token's barriers
    const float scale = f.scale * LOG2_E;
    struct ring_place k_at = {0, 0}, v_at = {0, 0};
    if (group == F::GROUPS - 1) cu_barrier_arrive(next, 256);
    for (int turn = 0;; turn ^= 1) {
        slot_wait(full, 2 * k_at.slot, k_at.parity); // the first keys, and the queries
        const struct item w = (room.as<struct item>(F::ITEM) + turn)[0];
        if (!w.n) break;
        const int start = first_block<KEYS>(w.pos, f.window), n_block = n_block_of(w, start, KEYS);
        const int w_first = w.pos + row, w_last = w.pos + min(row + 16, w.n) - 1; // positions of the warp's rows
        float s[1][NS][4], o[1][NO][4] = {}, keep[1][2], top[1][2] = {{-INFINITY, -INFINITY}}, sum[1][2] = {};
        unsigned prob[2 * NS];
        for (int b = 0; b < n_block; b++) {
            const int j0 = start + b * KEYS;
            const bool masked = j0 + KEYS - 1 > w_first || (f.window && j0 <= w_last - f.window);
            if (b == 0) {
                scores_begin<F>(s[0][0], room, group, k_at.slot);
                cu_wgmma_wait<0>();
            } else {
                slot_wait(full, 2 * k_at.slot, k_at.parity);
                cu_barrier(mine, 256);
                scores_begin<F>(s[0][0], room, group, k_at.slot);
                slot_wait(full, 2 * v_at.slot + 1, v_at.parity);
                values_begin<F>(o[0][0], prob, room, v_at.slot);
                cu_barrier_arrive(next, 256);
                cu_wgmma_wait<1>();
            }
            cu_wgmma_hold<4 * NS>(s[0][0]);
            give_back(empty + 2 * k_at.slot);
            ring_next<F::STAGES>(&k_at);
            if (b == n_block - 1) give_back(q_empty);
            const bool changed = softmax_rows<1, NS>(s, keep, top, sum, j0, w_first + g, masked, f.window, scale);
            if (b > 0) {
                cu_wgmma_wait<0>();
                cu_wgmma_hold<4 * NO>(o[0][0]);
                give_back(empty + (2 * v_at.slot + 1));
                ring_next<F::STAGES>(&v_at);
                if (changed) rows_scale<1, NO>(o, keep);
            }
            to_pairs<NS>(prob, s[0]);
        }
        slot_wait(full, 2 * v_at.slot + 1, v_at.parity);
        values_begin<F>(o[0][0], prob, room, v_at.slot);
        cu_wgmma_wait<0>();
        cu_wgmma_hold<4 * NO>(o[0][0]);
        give_back(empty + (2 * v_at.slot + 1));
        ring_next<F::STAGES>(&v_at);
        rows_store<1, NO>(f, o, top, sum, (int64_t)w.q_row + row, w.n - row, w.head);
    }
    if (group == 0) cu_barrier(mine, 256); // the token comes home
}

template <class F> __global__ void __launch_bounds__(F::THREADS, 1) attention_wgmma_kernel(const struct flat<bf16> f, int n_tile)
{
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    CU_SHARED_DYNAMIC(room);
    const smem<uint64_t> full = room.as<uint64_t>(F::BARRIERS);
    if (threadIdx.x <= 2 * F::SLOTS) // keys: one thread comes twice
        cu_mbarrier_init(full.raw(threadIdx.x), threadIdx.x >= F::SLOTS ? 4 * F::GROUPS : threadIdx.x % 2 ? 128 : 129);
    __syncthreads();
    if (threadIdx.x / 128 == F::GROUPS) {
        cu_registers_fewer<F::FILL_REGISTERS>();
        attention_fill<F>(f, room, n_tile);
    } else {
        cu_registers_more<F::REGISTERS>();
        attention_attend<F>(f, room);
    }
#else
    __trap(); // attention_wgmma takes it on sm_90 alone, whose code is built for sm_90a
#endif
}

template <class F> static bool run(struct device *dev, const struct flat<bf16> &f, int64_t n_tok)
{
    if (!fits<F>(dev)) return false;
    const int64_t n_tile = tiles_of(n_tok, f.n_seg, F::ROWS), n_item = n_tile * f.n_head, n_sm = cuda_of(dev)->n_sm;
    cuda_ok(dev, cudaMemsetAsync(f.next, 0, sizeof *f.next, cuda_stream(dev)), "clearing the counter of items");
    CU_LAUNCH(dev, attention_wgmma_kernel<F>, (unsigned)(n_item < n_sm ? n_item : n_sm), (unsigned)F::THREADS, F::SHARED, f, (int)n_tile);
    return true;
}
bool attention_wgmma(struct device *dev, const struct flat<bf16> &f, int64_t n_tok)
{
    const int dk = f.q.d, dv = f.v.d;
    if (!cuda_of(dev)->wgmma || dk < 1 || dv < 1 || dk > 192 || dv > 128) return false;
    if (!pieces(f.q) || !pieces(f.k) || !pieces(f.v)) return false;
    if (dk <= 64 && dv <= 64) return run<wgmma_forward<64, 64, 3, 4>>(dev, f, n_tok);
    if (dk <= 128) return run<wgmma_forward<128, 128, 2, 3>>(dev, f, n_tok);
    return run<wgmma_forward<192, 128, 2, 2>>(dev, f, n_tok);
}
