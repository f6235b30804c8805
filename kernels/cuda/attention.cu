// Attention over flat tokens (training, prefill), forward: an online softmax over blocks of keys (Milakov & Gimelshein 2018; Dao 2022,
// 2023).
//
// Bound by FLOPs: 4 d a pair of query and key, against tiles of 128 queries that read each key once. bf16: a block has 128 queries of one
// head, a warp 32 of them (so a fragment of keys read from shared memory serves two tensor-core products; with 16 the reading would
// bound), scores and probabilities stay in registers, keys and values come by cp.async while the block before is worked on. At d 128 that
// is 96 KiB and 2 blocks a multiprocessor. Longest tiles first, the heads that share keys side by side.
//
// A row's result does not depend on what shares its tile: blocks of keys are counted from the segment's first key, and one of which a row
// sees nothing leaves it as it is, to the bit: the largest score is kept in units of log 2, so that the factor e^(old - new) is exactly 1.
#include "kernels/cuda/attn.cuh"
#include "kernels/cuda/attn_simt.cuh"
#include "kernels/cuda/cudnn.cuh"

// A block's sizes, and where its tiles lie: 16 M_TILES rows a warp, keys and values in two stages.
template <int DK_, int DV_, int KEYS_, int M_TILES_, int WARPS> struct forward {
    enum { DK = DK_, DV = DV_, KEYS = KEYS_, M_TILES = M_TILES_, ROWS = 16 * M_TILES * WARPS, THREADS = 32 * WARPS };
    enum { Q = 0, K = Q + ROWS * DK * 2, V = K + 2 * KEYS * DK * 2, SHARED = V + 2 * KEYS * DV * 2 }; // bytes
};

template <class F> __global__ void __launch_bounds__(F::THREADS) attention_kernel(const struct flat<bf16> f, int n_tile)
{
    enum { DK = F::DK, DV = F::DV, BN = F::KEYS, MT = F::M_TILES, NS = BN / 8, NO = DV / 8 };
    CU_SHARED_DYNAMIC(room);
    const smem<bf16> q_tile = room.as<bf16>(F::Q), k_tile = room.as<bf16>(F::K), v_tile = room.as<bf16>(F::V);
    const int g = threadIdx.x % 32 / 4, row = threadIdx.x / 32 * 16 * MT;
    const int head = (int)(blockIdx.x % f.n_head), kv = head / f.group;
    struct place p;
    if (!place_of(&p, f, f.q_start, n_tile - 1 - (int)(blockIdx.x / f.n_head), F::ROWS)) return;

    const int pos = p.ahead + p.first, last = pos + p.n - 1, start = first_block<BN>(pos, f.window);
    const int w_first = pos + row, w_last = pos + min(row + 16 * MT, p.n) - 1; // positions of the warp's rows
    const float scale = f.scale * LOG2_E;
    float o[MT][NO][4] = {}, top[MT][2], sum[MT][2] = {};
#pragma unroll
    for (int m = 0; m < MT; m++) top[m][0] = top[m][1] = -INFINITY;

    const int64_t q_row = p.q0 + p.first;
    tile_load<DK, F::ROWS, F::THREADS>(q_tile, f.q.p + q_row * f.q.row + head * f.q.head, f.q.row, p.n, f.q.d, f.q.wide);
    if (start <= last) keys_values_load<F>(room, f, p, kv, start, 0);
    for (int j0 = start, stage = 0; j0 <= last; j0 += BN, stage ^= 1) {
        cu_async_wait<0>();
        __syncthreads(); // the block is here, and the other stage no longer read
        if (j0 + BN <= last) keys_values_load<F>(room, f, p, kv, j0 + BN, stage ^ 1);
        if (row >= p.n || j0 > w_last || (f.window && j0 + BN <= w_first - f.window + 1)) continue;
        float s[MT][NS][4] = {}, keep[MT][2];
        mma_rows<DK, MT, NS>(s, q_tile, row, k_tile + stage * BN * DK);
        const bool masked = j0 + BN - 1 > w_first || (f.window && j0 <= w_last - f.window);
        if (softmax_rows<MT, NS>(s, keep, top, sum, j0, w_first + g, masked, f.window, scale)) rows_scale<MT, NO>(o, keep);
        mma_steps<DV, MT, NS>(o, s, v_tile + stage * BN * DV);
    }
    rows_store<MT, NO>(f, o, top, sum, q_row + row, p.n - row, head);
}

// ---- without tensor cores: tiles of 64 queries, 64 keys; N * 64 columns of values a block, the others in other blocks
// ---------------------

// As softmax_block, of 4 × 4 scores a thread; top in natural units, what o is to be multiplied by in keep.
static __device__ __forceinline__ void softmax_tile(float s[4][4], float top[4], float sum[4], float keep[4], int j0, int pos, int window,
                                                    float scale)
{
    const int tx = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float best = -INFINITY, more = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = sees(pos + i, j0 + tx * 4 + j, window) ? s[i][j] * scale : -INFINITY;
            best = fmaxf(best, s[i][j]);
        }
        const float now = fmaxf(top[i], simt_reduce(best, cu_max())), base = now == -INFINITY ? 0.0f : now;
        keep[i] = expf(top[i] - base);
        top[i] = now;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = expf(s[i][j] - base);
            more += s[i][j];
        }
        sum[i] = fmaf(sum[i], keep[i], simt_reduce(more, cu_add()));
    }
}

template <class T, int N> __global__ void __launch_bounds__(SIMT_THREADS) attention_simt_kernel(const struct flat<T> f, int n_tile)
{
    CU_SHARED(float, x, SIMT_STEPS *SIMT_LD);
    CU_SHARED(float, y, SIMT_STEPS *SIMT_LD);
    CU_SHARED(float, prob, SIMT_TILE *SIMT_LD); // [key][query]
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, head = (int)(blockIdx.x % f.n_head), kv = head / f.group;
    const int col = (int)blockIdx.y * N * SIMT_TILE;
    struct place p;
    if (!place_of(&p, f, f.q_start, n_tile - 1 - (int)(blockIdx.x / f.n_head), SIMT_TILE)) return;

    const int pos = p.ahead + p.first, last = pos + p.n - 1;
    const int64_t q_row = p.q0 + p.first;
    const T *q = f.q.p + q_row * f.q.row + head * f.q.head;
    float o[N][4][4] = {}, top[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum[4] = {};
    for (int j0 = first_block<SIMT_TILE>(pos, f.window); j0 <= last; j0 += SIMT_TILE) {
        float s[4][4] = {}, keep[4];
        const int64_t at = p.k0 + j0;
        simt_rows(s, x, y, q, f.q.row, p.n, f.k.p + at * f.k.row + kv * f.k.head, f.k.row, p.n_key - j0, f.k.d);
        softmax_tile(s, top, sum, keep, j0, pos + ty * 4, f.window, f.scale);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                prob[(tx * 4 + j) * SIMT_LD + ty * 4 + i] = s[i][j];
#pragma unroll
                for (int v = 0; v < N; v++) o[v][i][j] *= keep[i];
            }
        simt_weigh<N>(o, prob, y, f.v.p + at * f.v.row + kv * f.v.head, f.v.row, p.n_key - j0, col, f.v.d);
    }
    float by[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        by[i] = sum[i] > 0 ? 1.0f / sum[i] : 0.0f;
        if (f.lse && col == 0 && tx == 0 && ty * 4 + i < p.n) f.lse[(q_row + ty * 4 + i) * f.n_head + head] = top[i] + logf(sum[i]);
    }
    simt_store<N>(f.to.p + q_row * f.to.row + head * f.to.head, f.to.row, p.n, col, f.to.d, o, by);
}

// ---- the op -----------------------------------------------------------------------------------------------------------------------------
template <class F> static void run_tiles(struct device *dev, const struct flat<bf16> &f, int64_t n_tok)
{
    const int64_t n_tile = tiles_of(n_tok, f.n_seg, F::ROWS);
    CU_LAUNCH(dev, attention_kernel<F>, (unsigned)(n_tile * f.n_head), F::THREADS, F::SHARED, f, (int)n_tile);
}
template <class T> static void run_simt(struct device *dev, const struct flat<T> &f, int64_t n_tok)
{
    const int64_t n_tile = tiles_of(n_tok, f.n_seg, SIMT_TILE);
    const unsigned grid = (unsigned)(n_tile * f.n_head);
    if (f.v.d <= 64)
        CU_LAUNCH(dev, (attention_simt_kernel<T, 1>), grid, SIMT_THREADS, 0, f, (int)n_tile);
    else
        CU_LAUNCH(dev, (attention_simt_kernel<T, 2>), dim3(grid, cu_blocks(f.v.d, 128)), SIMT_THREADS, 0, f, (int)n_tile);
}

// By tensor cores, if the heads fit their tiles.
static bool run_tensor_cores(struct device *dev, const struct flat<bf16> &f, int64_t n_tok)
{
    const int dk = f.q.d, dv = f.v.d;
    if (attention_wgmma(dev, f, n_tok)) return true;
    if (dv < 1 || dk > 256 || dv > 256) return false;
    if (dk <= 64 && dv <= 64)
        run_tiles<forward<64, 64, 64, 2, 4>>(dev, f, n_tok);
    else if (dk <= 128 && dv <= 128)
        run_tiles<forward<128, 128, 64, 2, 4>>(dev, f, n_tok);
    else if (dk <= 192 && dv <= 128)
        run_tiles<forward<192, 128, 32, 2, 4>>(dev, f, n_tok);
    else if (fits<forward<256, 256, 32, 1, 8>>(dev))
        run_tiles<forward<256, 256, 32, 1, 8>>(dev, f, n_tok);
    else
        run_tiles<forward<256, 256, 32, 1, 4>>(dev, f, n_tok);
    return true;
}
static bool run_tensor_cores(struct device *, const struct flat<float> &, int64_t)
{
    return false;
}

static void run_ours(struct device *dev, const struct attention_call *c)
{
    CU_DTYPE(c->q.dtype, T, {
        struct flat<T> f = flat_of<T>(c->q, c->k, c->v, c->a);
        f.next = (int *)c->scratch[0];
        f.to = heads_of<T>(c->out);
        f.lse = (float *)c->lse.data;
        if (!run_tensor_cores(dev, f, c->q.shape[0])) run_simt<T>(dev, f, c->q.shape[0]);
    });
}

extern "C" void cuda_attention(struct device *dev, struct tensor out, struct tensor lse, struct tensor q, struct tensor k, struct tensor v,
                               const struct attention *a)
{
    struct attention_call c = {};
    c.q = q, c.k = k, c.v = v, c.out = out, c.lse = lse, c.a = a;
    c.scratch[0] = dev_scratch(dev, sizeof(int));
    c.workspace_bytes = cudnn_workspace_bytes(dev, &c);
    c.workspace = dev_scratch(dev, c.workspace_bytes);
    if (!dev->measuring && !cudnn_attention(dev, &c, run_ours)) run_ours(dev, &c);
}
