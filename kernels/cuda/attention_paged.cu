// Attention over the paged cache: decode, and prefill with several rows a segment.
//
// Bound by bytes where rows are few: each key and value is read once for all the heads of its group (16 or 64 rows of tensor cores, idle
// ones cost nothing), 64 keys at a time by cp.async into the other of two stages, the pages' numbers two blocks ahead. Absorbed MLA (576
// and 512, values a view of keys) reads its rows once for both products. The warps share a block's keys for the scores and the columns of
// values for the sums, so no fragment is read twice; probabilities pass through shared memory, and are summed up by a column of ones.
//
// Positions are cut from 0 on into splits of a fixed length. A row's state (largest score, sum, weighted values) starts anew in each, and
// the states are merged in order: by a second kernel when rows are few and splits go to different blocks, else by the block itself as it
// walks on. Both do the same arithmetic, and keys that a row must not see leave its state as it is (attention.cu), so a row's bits depend
// on its own keys and positions only.
#include "kernels/cuda/attn_paged.cuh"

// ---- tensor cores -----------------------------------------------------------------------------------------------------------------------

// VIEW: values are the first columns of keys. In the scores a warp has 16 keys of S_MT tiles of rows, in the sums DV / WARPS columns of
// all.
template <int DK_, int DV_, int MT_, int WARPS_, bool VIEW_> struct decode {
    static constexpr bool VIEW = VIEW_;
    static constexpr int DK = DK_, DV = DV_, VW = VIEW ? DK : DV, MT = MT_, WARPS = WARPS_, THREADS = 32 * WARPS, ROWS = 16 * MT, KEYS = 64;
    static constexpr int SPLIT = DV > 256 ? 512 : 256, S_MT = MT * 4 / WARPS, NO = DV / 8 / WARPS;
    static constexpr int Q = 0, K = Q + ROWS * DK * 2, V = VIEW ? K : K + 2 * KEYS * DK * 2, P = V + 2 * KEYS * VW * 2; // bytes
    static constexpr int BEST = P + ROWS * KEYS * 2, WHERE = BEST + 4 * ROWS * 4, SHARED = WHERE + 2 * KEYS * 8;
    static_assert(WARPS % 4 == 0 && S_MT >= 1 && NO % 2 == 0, "four warps share 64 keys; fragments of values come in pairs");
};
template <class D>
__device__ __forceinline__ void find_keys(smem<unsigned char> room, const struct paged<bf16> &f, const struct work &w, int j0, int stage)
{
    const int i = threadIdx.x, j = j0 + i;
    if (i < D::KEYS) room.as<int2>(D::WHERE)[stage * D::KEYS + i] = j >= w.from && j <= w.to ? slot_at(f, w.seg, j) : make_int2(-1, 0);
}
template <class D, int WIDTH>
__device__ __forceinline__ void pages_load(smem<unsigned char> room, smem<bf16> tile, const struct pages<bf16> &x, const struct work &w,
                                           int stage)
{
    enum { PIECES = WIDTH / 8 };
    const bf16 *base = x.p + w.kv * x.head;
#pragma unroll 4
    for (int i = threadIdx.x; i < D::KEYS * PIECES; i += D::THREADS) {
        const int r = i / PIECES, c = i % PIECES;
        const int2 at = room.as<int2>(D::WHERE)[stage * D::KEYS + r];
        const int n = at.x >= 0 ? min(8, x.d - c * 8) : 0;
        piece_load(tile + tile_at<WIDTH>(r, c), n > 0 ? base + at.x * x.page + at.y * x.slot + c * 8 : x.p, n, x.wide);
    }
}
template <class D>
__device__ __forceinline__ void keys_load(smem<unsigned char> room, const struct paged<bf16> &f, const struct work &w, int stage)
{
    pages_load<D, D::DK>(room, room.as<bf16>(D::K) + stage * D::KEYS * D::DK, f.k, w, stage);
    if (!D::VIEW) pages_load<D, D::VW>(room, room.as<bf16>(D::V) + stage * D::KEYS * D::VW, f.v, w, stage);
    cu_async_commit();
}

// Scores of keys [j0, j0 + 64), what they do to `top`, and the probabilities into shared memory. at: positions of the lane's rows.
template <class D>
__device__ __forceinline__ void block_scores(smem<unsigned char> room, const int (*at)[2], float (*top)[2], float (*keep)[2], int j0,
                                             int stage, bool masked, int window, float scale)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, part = warp % 4, m0 = warp / 4 * D::S_MT;
    const smem<float> best = room.as<float>(D::BEST);
    float s[D::S_MT][2][4] = {};
    mma_rows<D::DK, D::S_MT, 2>(s, room.as<bf16>(D::Q), m0 * 16, room.as<bf16>(D::K) + (stage * D::KEYS + part * 16) * D::DK);
#pragma unroll
    for (int m = 0; m < D::S_MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = -INFINITY;
            const int pos = D::S_MT == D::MT || m0 == 0 ? at[m][i] : at[D::MT - D::S_MT + m][i];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float *x = &s[m][e / 2][2 * i + e % 2];
                if (masked && !sees(pos, j0 + part * 16 + e / 2 * 8 + 2 * t + e % 2, window)) *x = -INFINITY;
                most = fmaxf(most, *x);
            }
            most = quad_reduce(most, cu_max());
            if (t == 0) best[part * D::ROWS + (m0 + m) * 16 + 8 * i + g] = most;
        }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < D::MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = -INFINITY;
#pragma unroll
            for (int k = 0; k < 4; k++) most = fmaxf(most, best[k * D::ROWS + m * 16 + 8 * i + g]);
            const float now = fmaxf(top[m][i], most * scale), base = now == -INFINITY ? 0.0f : now;
            keep[m][i] = cu_exp2(top[m][i] - base);
            top[m][i] = now;
            if (m < m0 || m >= m0 + D::S_MT) continue;
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const float *x = &s[D::S_MT == D::MT ? m : m % D::S_MT][n][2 * i];
                room.as<unsigned>(D::P)[(tile_at<64>(m * 16 + 8 * i + g, part * 2 + n) + 2 * t) / 2] =
                    cu_pair_bf16(cu_exp2(fmaf(x[0], scale, -base)), cu_exp2(fmaf(x[1], scale, -base)));
            }
        }
    __syncthreads();
}
// o, sum += probabilities · (values, ones): the warp's columns.
template <class D>
__device__ __forceinline__ void block_sums(smem<unsigned char> room, float (*o)[D::NO][4], float (*sum)[4], const float (*keep)[2],
                                           int stage)
{
    const smem<bf16> tile = room.as<bf16>(D::V) + stage * D::KEYS * D::VW;
    const int piece = threadIdx.x / 32 * D::NO;
    const unsigned ones[2] = {0x3f803f80u, 0x3f803f80u};
#pragma unroll
    for (int m = 0; m < D::MT; m++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            sum[m][e] *= keep[m][e / 2];
#pragma unroll
            for (int n = 0; n < D::NO; n++) o[m][n][e] *= keep[m][e / 2];
        }
#pragma unroll
    for (int k = 0; k < D::KEYS / 16; k++) {
        unsigned a[D::MT][4];
#pragma unroll
        for (int m = 0; m < D::MT; m++) {
            frag_a<64>(a[m], room.as<bf16>(D::P), m * 16, k);
            cu_mma_bf16(sum[m], a[m], ones);
        }
#pragma unroll
        for (int n = 0; n < D::NO; n += 2) {
            unsigned b[4];
            frag_bt<D::VW>(b, tile, k, piece + n);
#pragma unroll
            for (int m = 0; m < D::MT; m++) {
                cu_mma_bf16(o[m][n], a[m], b);
                cu_mma_bf16(o[m][n + 1], a[m], b + 2);
            }
        }
    }
}

// A split has ended: its state to its slot, or merged into what the block has (all_top, all_sum, and the weighted values in slot 0), and on
// the last split to the output.
template <class D>
__device__ __forceinline__ void split_end(const struct paged<bf16> &f, const struct work &w, float (*o)[D::NO][4], const float (*sum)[4],
                                          const float (*top)[2], float (*all_top)[2], float (*all_sum)[2], bool last)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < D::MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = m * 16 + 8 * i + g;
            if (r >= w.n) continue;
            const int64_t state = work_state(w, f, r);
            float *at = f.o + state * f.v.d;
            const bool before = all_top[m][i] != -INFINITY;
            float by = 0, later_by = 1;
            if (f.n_slot == 1) merge<false>(&all_top[m][i], &all_sum[m][i], top[m][i], sum[m][2 * i], &by, &later_by);
            const float over = f.n_slot == 1 && last ? 1.0f / all_sum[m][i] : 1.0f;
            bf16 *out = f.out.p + work_row(w, f.out, f.group, r);
            if (f.n_slot > 1 && warp == 0 && t == 0) {
                f.stat[2 * state] = top[m][i];
                f.stat[2 * state + 1] = sum[m][2 * i];
            }
#pragma unroll
            for (int n = 0; n < D::NO; n++) {
                const int c = (warp * D::NO + n) * 8 + 2 * t;
                float x[2];
#pragma unroll
                for (int e = 0; e < 2; e++)
                    x[e] = fmaf(o[m][n][2 * i + e], later_by, (before && c + e < f.v.d ? at[c + e] : 0.0f) * by) * over;
                if (f.n_slot == 1 && last)
                    pair_store(out, c, f.out.d, f.out.pairs, x[0], x[1]);
                else
#pragma unroll
                    for (int e = 0; e < 2; e++)
                        if (c + e < f.v.d) at[c + e] = x[e];
            }
        }
}

template <class D> __global__ void __launch_bounds__(D::THREADS) attention_paged_kernel(const struct paged<bf16> f)
{
    cu_wait_earlier();
    CU_SHARED_DYNAMIC(room);
    const int g = threadIdx.x % 32 / 4;
    struct work w;
    if (!work_of(&w, f, (int)blockIdx.x, D::ROWS, D::SPLIT)) return;
    float o[D::MT][D::NO][4] = {}, sum[D::MT][4] = {}, top[D::MT][2], all_top[D::MT][2], all_sum[D::MT][2] = {}, keep[D::MT][2];
    int at[D::MT][2];
#pragma unroll
    for (int m = 0; m < D::MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            top[m][i] = all_top[m][i] = -INFINITY;
            at[m][i] = work_pos(w, min(m * 16 + 8 * i + g, w.n - 1), f.group);
        }
    const int oldest = work_pos(w, 0, f.group), newest = work_pos(w, w.n - 1, f.group), start = w.from / D::KEYS * D::KEYS;
    const float scale = f.scale * LOG2_E;

    find_keys<D>(room, f, w, start, 0);
    find_keys<D>(room, f, w, start + D::KEYS, 1);
    for (int i = threadIdx.x; i < D::ROWS * D::DK / 8; i += D::THREADS) {
        const int r = i / (D::DK / 8), c = i % (D::DK / 8), n = r < w.n ? min(8, f.q.d - c * 8) : 0;
        piece_load(room.as<bf16>(D::Q) + tile_at<D::DK>(r, c), n > 0 ? f.q.p + work_row(w, f.q, f.group, r) + c * 8 : f.q.p, n, f.q.wide);
    }
    __syncthreads();
    keys_load<D>(room, f, w, 0);
    for (int j0 = start, stage = 0; j0 <= w.to; j0 += D::KEYS, stage ^= 1) {
        cu_async_wait<0>();
        __syncthreads(); // this block is here, the other stage is free, and it is known where the next block lies
        if (j0 + D::KEYS <= w.to) keys_load<D>(room, f, w, stage ^ 1);
        if (j0 + 2 * D::KEYS <= w.to) find_keys<D>(room, f, w, j0 + 2 * D::KEYS, stage);
        const bool masked = j0 < w.from || j0 + D::KEYS - 1 > oldest || (f.window && j0 <= newest - f.window);
        block_scores<D>(room, at, top, keep, j0, stage, masked, f.window, scale);
        block_sums<D>(room, o, sum, keep, stage);
        const bool last = j0 + D::KEYS > w.to;
        if (!last && (j0 + D::KEYS) % D::SPLIT) continue;
        split_end<D>(f, w, o, sum, top, all_top, all_sum, last);
#pragma unroll
        for (int m = 0; m < D::MT; m++) {
            top[m][0] = top[m][1] = -INFINITY;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                sum[m][e] = 0;
#pragma unroll
                for (int n = 0; n < D::NO; n++) o[m][n][e] = 0;
            }
        }
    }
}

// ---- without tensor cores: 8 rows, 32 keys at a time; a warp has 2 rows of scores, a thread N columns of values
// -----------------------------

enum { FEW_ROWS = 8, FEW_KEYS = 32, FEW_STEPS = 64, FEW_THREADS = 128, FEW_SPLIT = 256 };

template <class T, int N> __global__ void __launch_bounds__(FEW_THREADS) attention_paged_simt_kernel(const struct paged<T> f)
{
    CU_SHARED(float, q_room, FEW_ROWS *FEW_STEPS);
    CU_SHARED(float, k_room, FEW_KEYS *(FEW_STEPS + 1));
    CU_SHARED(float, prob, FEW_ROWS *FEW_KEYS);
    CU_SHARED(float, factor, 4 * FEW_ROWS); // of a row: what o is kept of; at a split's end of all, of the split, and over the sum
    CU_SHARED(int2, where, FEW_KEYS);
    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32, col = (int)blockIdx.y * N * FEW_THREADS;
    struct work w;
    if (!work_of(&w, f, (int)blockIdx.x, FEW_ROWS, FEW_SPLIT)) return;
    const T *keys = f.k.p + w.kv * f.k.head, *values = f.v.p + w.kv * f.v.head;
    float o[FEW_ROWS][N] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {}, all_top[2] = {-INFINITY, -INFINITY}, all_sum[2] = {};
    bool before = false;
    for (int j0 = w.from / FEW_KEYS * FEW_KEYS; j0 <= w.to; j0 += FEW_KEYS) {
        const int lo = max(w.from, j0), hi = min(w.to, j0 + FEW_KEYS - 1);
        float s[2] = {};
        __syncthreads();
        if (tid < FEW_KEYS && j0 + tid >= lo && j0 + tid <= hi) where[tid] = slot_at(f, w.seg, j0 + tid);
        for (int c0 = 0; c0 < f.q.d; c0 += FEW_STEPS) {
            __syncthreads();
            for (int i = tid; i < FEW_ROWS * FEW_STEPS; i += FEW_THREADS) {
                const int r = i / FEW_STEPS, c = c0 + i % FEW_STEPS;
                q_room[i] = r < w.n && c < f.q.d ? cu_f32(f.q.p[work_row(w, f.q, f.group, r) + c]) : 0.0f;
            }
            for (int i = tid; i < FEW_KEYS * FEW_STEPS; i += FEW_THREADS) {
                const int r = i / FEW_STEPS, c = c0 + i % FEW_STEPS;
                float x = 0;
                if (j0 + r >= lo && j0 + r <= hi && c < f.q.d) {
                    const int2 at = where[r];
                    x = cu_f32(keys[at.x * f.k.page + at.y * f.k.slot + c]);
                }
                k_room[r * (FEW_STEPS + 1) + i % FEW_STEPS] = x;
            }
            __syncthreads();
            for (int c = 0; c < FEW_STEPS; c++) {
                const float x = k_room[lane * (FEW_STEPS + 1) + c];
                for (int i = 0; i < 2; i++) s[i] += q_room[(2 * warp + i) * FEW_STEPS + c] * x;
            }
        }
        for (int i = 0; i < 2; i++) {
            const int r = 2 * warp + i;
            const bool seen = r < w.n && sees(work_pos(w, r, f.group), j0 + lane, f.window) && j0 + lane >= lo;
            const float x = seen ? s[i] * f.scale : -INFINITY, now = fmaxf(top[i], cu_warp_reduce(x, cu_max()));
            const float base = now == -INFINITY ? 0.0f : now, keep = expf(top[i] - base), p = expf(x - base);
            top[i] = now;
            sum[i] = fmaf(sum[i], keep, cu_warp_reduce(p, cu_add()));
            prob[r * FEW_KEYS + lane] = p;
            if (lane == 0) factor[r] = keep;
        }
        __syncthreads();
#pragma unroll
        for (int n = 0; n < N; n++) {
            const int c = col + n * FEW_THREADS + tid;
            if (c >= f.v.d) continue;
#pragma unroll
            for (int r = 0; r < FEW_ROWS; r++) o[r][n] *= factor[r];
            for (int j = lo - j0; j <= hi - j0; j++) {
                const int2 at = where[j];
                const float x = cu_f32(values[at.x * f.v.page + at.y * f.v.slot + c]);
#pragma unroll
                for (int r = 0; r < FEW_ROWS; r++) o[r][n] += prob[r * FEW_KEYS + j] * x;
            }
        }
        const bool last = j0 + FEW_KEYS > w.to;
        if (!last && (j0 + FEW_KEYS) % FEW_SPLIT) continue;
        for (int i = 0; i < 2; i++) {
            const int r = 2 * warp + i;
            const int64_t state = r < w.n ? work_state(w, f, r) : 0;
            float by = 0, later_by = 1;
            if (f.n_slot == 1)
                merge<true>(&all_top[i], &all_sum[i], top[i], sum[i], &by, &later_by);
            else if (lane == 0 && col == 0 && r < w.n)
                f.stat[2 * state] = top[i], f.stat[2 * state + 1] = sum[i];
            if (lane == 0) {
                factor[FEW_ROWS + r] = by, factor[2 * FEW_ROWS + r] = later_by;
                factor[3 * FEW_ROWS + r] = f.n_slot == 1 && last ? 1.0f / all_sum[i] : 1.0f;
            }
            top[i] = -INFINITY, sum[i] = 0;
        }
        __syncthreads();
#pragma unroll
        for (int n = 0; n < N; n++) {
            const int c = col + n * FEW_THREADS + tid;
            if (c >= f.v.d) continue;
#pragma unroll
            for (int r = 0; r < FEW_ROWS; r++) {
                if (r >= w.n) break;
                float *at = f.o + work_state(w, f, r) * f.v.d + c;
                const float x = fmaf(o[r][n], factor[2 * FEW_ROWS + r], (before ? *at : 0.0f) * factor[FEW_ROWS + r]);
                o[r][n] = 0;
                if (f.n_slot == 1 && last)
                    f.out.p[work_row(w, f.out, f.group, r) + c] = cu_from<T>(x * factor[3 * FEW_ROWS + r]);
                else
                    *at = x;
            }
        }
        before = f.n_slot == 1;
    }
}

// ---- states of splits together
// ------------------------------------------------------------------------------------------------------------

enum { JOIN_THREADS = 128 };
template <class T, bool NATURAL> __global__ void attention_join_kernel(const struct paged<T> f, int split_len)
{
    cu_wait_earlier();
    const int64_t row = blockIdx.x / f.n_head, head = blockIdx.x % f.n_head;
    const int pos = f.pos[row], first = f.window ? max(0, pos - f.window + 1) / split_len : 0, last = pos / split_len;
    const int64_t state = (row * f.n_head + head) * f.n_slot;
    for (int c = threadIdx.x; c < f.v.d; c += JOIN_THREADS) {
        float x = 0, top = -INFINITY, sum = 0;
#pragma unroll 4
        for (int s = first; s <= last; s++) {
            float by, later_by;
            merge<NATURAL>(&top, &sum, f.stat[2 * (state + s)], f.stat[2 * (state + s) + 1], &by, &later_by);
            x = fmaf(f.o[(state + s) * f.v.d + c], later_by, x * by);
        }
        f.out.p[row * f.out.row + head * f.out.head + c] = cu_from<T>(x * (1.0f / sum));
    }
}

// ---- the op -----------------------------------------------------------------------------------------------------------------------------

static const size_t PARTS_MOST = (size_t)128 << 20; // bytes of states while splits are apart

// The tiles and slots for tiles of `rows` rows, and how many blocks that makes.
template <class T>
static unsigned plan(struct device *dev, struct paged<T> *f, const struct segments *seg, int rows, int split_len, size_t parts_bytes)
{
    const int n_split = (seg->max_pos + split_len - 1) / split_len;
    f->n_tile = (int)((int64_t)seg->n_tok * f->group / rows) + seg->n_seg;
    const int64_t blocks = (int64_t)f->n_tile * f->n_kv;
    const bool apart = n_split > 1 && parts_bytes <= PARTS_MOST && blocks <= 4 * (int64_t)cuda_of(dev)->n_sm;
    f->n_slot = apart ? n_split : 1;
    return (unsigned)(blocks * f->n_slot);
}
template <bool NATURAL, class T> static void join(struct device *dev, const struct paged<T> &f, const struct segments *seg, int split_len)
{
    if (f.n_slot > 1)
        CU_LAUNCH_EARLY(dev, (attention_join_kernel<T, NATURAL>), (unsigned)(seg->n_tok * f.n_head), JOIN_THREADS, 0, f, split_len);
}
template <class D> static void run(struct device *dev, struct paged<bf16> f, const struct segments *seg, size_t parts_bytes)
{
    const unsigned grid = plan(dev, &f, seg, D::ROWS, D::SPLIT, parts_bytes);
    CU_LAUNCH_EARLY(dev, attention_paged_kernel<D>, grid, D::THREADS, D::SHARED, f);
    join<false>(dev, f, seg, D::SPLIT);
}
// Tiles of 16 rows for one query of a few heads, else of 16 MT.
template <int D, int MT>
static void run_rows(struct device *dev, const struct paged<bf16> &f, const struct segments *seg, size_t parts_bytes)
{
    if ((int64_t)seg->max_len * f.group <= 16)
        run<decode<D, D, 1, 4, false>>(dev, f, seg, parts_bytes);
    else
        run<decode<D, D, MT, 4, false>>(dev, f, seg, parts_bytes);
}
static bool run_tensor_cores(struct device *dev, const struct paged<bf16> &f, const struct segments *seg, size_t parts_bytes)
{
    const int most = f.k.d > f.v.d ? f.k.d : f.v.d;
    const bool view = f.k.p == f.v.p && f.k.page == f.v.page && f.k.slot == f.v.slot && f.k.head == f.v.head && f.v.d <= f.k.d;
    if (most <= 64)
        run_rows<64, 4>(dev, f, seg, parts_bytes);
    else if (most <= 128)
        run_rows<128, 4>(dev, f, seg, parts_bytes);
    else if (most <= 256 && fits<decode<256, 256, 2, 4, false>>(dev))
        run_rows<256, 2>(dev, f, seg, parts_bytes);
    else if (most > 256 && view && f.k.d <= 576 && f.v.d <= 512 && fits<decode<576, 512, 2, 8, true>>(dev))
        run<decode<576, 512, 2, 8, true>>(dev, f, seg, parts_bytes);
    else
        return false;
    return true;
}
static bool run_tensor_cores(struct device *, const struct paged<float> &, const struct segments *, size_t)
{
    return false;
}
template <class T> static void run_simt(struct device *dev, struct paged<T> f, const struct segments *seg, size_t parts_bytes)
{
    const unsigned grid = plan(dev, &f, seg, FEW_ROWS, FEW_SPLIT, parts_bytes);
    if (f.v.d <= FEW_THREADS)
        CU_LAUNCH(dev, (attention_paged_simt_kernel<T, 1>), grid, FEW_THREADS, 0, f);
    else
        CU_LAUNCH(dev, (attention_paged_simt_kernel<T, 4>), dim3(grid, cu_blocks(f.v.d, 4 * FEW_THREADS)), FEW_THREADS, 0, f);
    join<true>(dev, f, seg, FEW_SPLIT);
}

extern "C" void cuda_attention_paged(struct device *dev, struct tensor out, struct tensor q, struct tensor keys, struct tensor values,
                                     const struct segments *seg, float scale, int window)
{
    // One state a row and head when blocks walk; one a split too, while that is not too much: so a plan for many rows holds for few.
    const size_t rows = (size_t)(q.shape[0] * q.shape[1]), state = (size_t)(values.shape[3] + 2) * sizeof(float);
    const size_t parts_bytes = rows * state * (size_t)((seg->max_pos + FEW_SPLIT - 1) / FEW_SPLIT);
    size_t room = parts_bytes < PARTS_MOST ? parts_bytes : PARTS_MOST;
    if (room < rows * state) room = rows * state;
    float *scratch = (float *)dev_scratch(dev, room);
    if (dev->measuring || !values.shape[3]) return;
    CU_DTYPE(q.dtype, T, {
        struct paged<T> f = {
        };
        f.q = heads_of<const T>(q), f.out = heads_of<T>(out), f.k = pages_of<T>(keys), f.v = pages_of<T>(values);
        f.start = seg->start, f.pos = seg->pos, f.page = seg->page;
        f.n_seg = seg->n_seg, f.max_page = seg->max_page, f.page_len = seg->page_len;
        f.n_head = (int)q.shape[1], f.n_kv = (int)keys.shape[2], f.group = f.n_head / f.n_kv;
        f.scale = scale, f.window = window;
        f.stat = scratch; // 2 a state; PARTS_MOST or less, so the states that are apart fit
        f.o = scratch + 2 * rows * (parts_bytes <= PARTS_MOST && seg->max_pos > FEW_SPLIT ? (seg->max_pos + FEW_SPLIT - 1) / FEW_SPLIT : 1);
        if (!run_tensor_cores(dev, f, seg, parts_bytes)) run_simt<T>(dev, f, seg, parts_bytes);
    });
}
