// Attention's backward pass by recomputing the scores (Dao 2022): P = exp(scale · q kᵀ - lse), dP = dout vᵀ, dS = scale · P (dP - D) with
// D = Σ dout · out; then dv = Pᵀ dout, dk = dSᵀ q, dq = dS k.
//
// Bound by FLOPs. Two passes, each of which alone writes its results, so that there is nothing to add up between blocks and no order but
// one: 7 products where one pass with atomics has 5. Keys: a block has the keys of a tile and one head, a warp 16 of them, and goes through
// the queries of all heads that read them; scores are kept transposed, so that Pᵀ and dSᵀ are in registers what the products that follow
// want of their left side. Queries: a block has the queries of a tile and one head, and goes through their keys. What is gone through comes
// by cp.async into the other of two stages. Heads of 256 take dk and dv in turn: both do not fit a warp's registers.
#include "kernels/cuda/attn.cuh"
#include "kernels/cuda/attn_simt.cuh"
#include "kernels/cuda/cudnn.cuh"

// dot (n_tok, n_head) = Σ dout · out: a warp a row and head.
enum { DOT_THREADS = 256 };
template <class T> __global__ void attention_dot_kernel(const struct flat<T> f, int64_t n)
{
    const int64_t i = ((int64_t)blockIdx.x * DOT_THREADS + threadIdx.x) / 32;
    if (i >= n) return;
    const int64_t r = i / f.n_head, h = i % f.n_head;
    const T *a = f.dout.p + r * f.dout.row + h * f.dout.head, *b = f.out.p + r * f.out.row + h * f.out.head;
    float sum = 0;
    for (int c = threadIdx.x % 32; c < f.out.d; c += 32) sum += cu_f32(a[c]) * cu_f32(b[c]);
    sum = cu_warp_reduce(sum, cu_add());
    if (threadIdx.x % 32 == 0) f.dot[i] = sum;
}

// ---- keys -------------------------------------------------------------------------------------------------------------------------------

// STEP queries at once; WHAT: which results.
enum { BACK_DK = 1, BACK_DV = 2 };
template <int DK_, int DV_, int STEP_, int WARPS, int WHAT_> struct back_keys {
    enum { DK = DK_, DV = DV_, STEP = STEP_, ROWS = 16 * WARPS, THREADS = 32 * WARPS, WHAT = WHAT_ };
    enum { K = 0, V = K + ROWS * DK * 2, Q = V + ROWS * DV * 2, G = Q + 2 * STEP * DK * 2, ROW = G + 2 * STEP * DV * 2 }; // bytes
    enum { SHARED = ROW + 2 * STEP * 8 };                                                                                 // lse, dot
};
// Queries [i0, i0 + STEP) of the place's segment and one head.
template <class B>
__device__ __forceinline__ void queries_load(smem<unsigned char> room, const struct flat<bf16> &f, const struct place &p, int head, int i0,
                                             int stage)
{
    const int64_t at = p.q0 + i0;
    const int n = p.n_q - i0, i = threadIdx.x % B::STEP;
    tile_load<B::DK, B::STEP, B::THREADS>(room.as<bf16>(B::Q) + stage * B::STEP * B::DK, f.q.p + at * f.q.row + head * f.q.head, f.q.row, n,
                                          f.q.d, f.q.wide);
    tile_load<B::DV, B::STEP, B::THREADS>(room.as<bf16>(B::G) + stage * B::STEP * B::DV, f.dout.p + at * f.dout.row + head * f.dout.head,
                                          f.dout.row, n, f.dout.d, f.dout.wide);
    if (threadIdx.x < 2 * B::STEP) {
        const float *from = threadIdx.x < B::STEP ? f.lse : f.dot;
        cu_async_copy4(room.as<float>(B::ROW).raw((stage * 2 + threadIdx.x / B::STEP) * B::STEP + i),
                       from + (i < n ? (at + i) * f.n_head + head : 0), i < n);
    }
    cu_async_commit();
}
// Scores s and ds = dP (16 keys, STEP queries) become P and dS. first: the position of the step's first query; key: of the lane's row.
template <int N>
__device__ __forceinline__ void back_scores(float (*s)[4], float (*ds)[4], smem<float> lse, smem<float> dot, int first, int key,
                                            bool masked, int window, float scale)
{
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = 8 * n + 2 * t + e % 2;
            const float p =
                !masked || sees(first + i, key + e / 2 * 8, window) ? cu_exp2(fmaf(s[n][e], scale * LOG2_E, -lse[i] * LOG2_E)) : 0.0f;
            s[n][e] = p;
            ds[n][e] = scale * p * (ds[n][e] - dot[i]);
        }
}
template <class B> __global__ void __launch_bounds__(B::THREADS) attention_bwd_keys_kernel(const struct flat<bf16> f)
{
    enum { DK = B::DK, DV = B::DV, STEP = B::STEP, N = STEP / 8 };
    CU_SHARED_DYNAMIC(room);
    const smem<bf16> k_tile = room.as<bf16>(B::K), v_tile = room.as<bf16>(B::V);
    const int row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4, kv = (int)(blockIdx.x % f.n_kv);
    struct place p;
    if (!place_of(&p, f, f.k_start, (int)(blockIdx.x / f.n_kv), B::ROWS)) return;

    // Queries that see one of these keys, in steps counted from the segment's first query; heads one after another.
    const int i_first = max(0, p.first - p.ahead) / STEP * STEP;
    const int i_end = f.window ? min(p.n_q, p.first + p.n - 1 + f.window - p.ahead) : p.n_q;
    const int n_step = i_end > i_first ? (i_end - i_first + STEP - 1) / STEP : 0, n_all = n_step * f.group;
    float dk[DK / 8][4] = {}, dv[DV / 8][4] = {};

    const int64_t k_row = p.k0 + p.first;
    tile_load<DK, B::ROWS, B::THREADS>(k_tile, f.k.p + k_row * f.k.row + kv * f.k.head, f.k.row, p.n, f.k.d, f.k.wide);
    tile_load<DV, B::ROWS, B::THREADS>(v_tile, f.v.p + k_row * f.v.row + kv * f.v.head, f.v.row, p.n, f.v.d, f.v.wide);
    int i0 = i_first, head = kv * f.group;
    if (n_all) queries_load<B>(room, f, p, head, i0, 0);
    for (int step = 0, stage = 0; step < n_all; step++, stage ^= 1) {
        cu_async_wait<0>();
        __syncthreads();
        const int now = i0;
        i0 += STEP;
        if (i0 >= i_end) i0 = i_first, head++;
        if (step + 1 < n_all) queries_load<B>(room, f, p, head, i0, stage ^ 1);
        const int pos = p.ahead + now, key = p.first + row; // the first query and the warp's first key
        if (row >= p.n || pos + STEP - 1 < key || (f.window && pos - f.window >= key + 15)) continue;
        const smem<bf16> q_tile = room.as<bf16>(B::Q) + stage * STEP * DK, g_tile = room.as<bf16>(B::G) + stage * STEP * DV;
        const smem<float> lse = room.as<float>(B::ROW) + stage * 2 * STEP;
        const bool masked = pos < key + 15 || (f.window && pos + STEP - 1 - f.window >= key);
        float s[1][N][4] = {}, ds[1][N][4] = {};
        mma_rows<DK, 1, N>(s, k_tile, row, q_tile);
        if (B::WHAT & BACK_DK) mma_rows<DV, 1, N>(ds, v_tile, row, g_tile);
        back_scores<N>(s[0], ds[0], lse, lse + STEP, pos, key + g, masked, f.window, f.scale);
        if (B::WHAT & BACK_DV) mma_steps<DV, 1, N>(&dv, s, g_tile);
        if (B::WHAT & BACK_DK) mma_steps<DK, 1, N>(&dk, ds, q_tile);
    }
    if (B::WHAT & BACK_DK) back_store<DK>(f.dk, k_row, kv, p.n, row, dk, 1);
    if (B::WHAT & BACK_DV) back_store<DV>(f.dv, k_row, kv, p.n, row, dv, 1);
}

// ---- queries ----------------------------------------------------------------------------------------------------------------------------

template <int DK_, int DV_, int KEYS_, int M_TILES_, int WARPS> struct back_queries {
    enum { DK = DK_, DV = DV_, KEYS = KEYS_, M_TILES = M_TILES_, ROWS = 16 * M_TILES_ * WARPS, THREADS = 32 * WARPS };
    enum { Q = 0, G = Q + ROWS * DK * 2, K = G + ROWS * DV * 2, V = K + 2 * KEYS * DK * 2, ROW = V + 2 * KEYS * DV * 2 }; // bytes
    enum { SHARED = ROW + 2 * ROWS * 4 };                                                                                 // lse, dot
};
template <class B> __global__ void __launch_bounds__(B::THREADS) attention_bwd_queries_kernel(const struct flat<bf16> f, int n_tile)
{
    enum { DK = B::DK, DV = B::DV, BN = B::KEYS, MT = B::M_TILES, N = BN / 8 };
    CU_SHARED_DYNAMIC(room);
    const smem<bf16> q_tile = room.as<bf16>(B::Q), g_tile = room.as<bf16>(B::G);
    const int row = threadIdx.x / 32 * 16 * MT, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int head = (int)(blockIdx.x % f.n_head), kv = head / f.group;
    struct place p;
    if (!place_of(&p, f, f.q_start, n_tile - 1 - (int)(blockIdx.x / f.n_head), B::ROWS)) return;

    const int pos = p.ahead + p.first, last = pos + p.n - 1, start = first_block<BN>(pos, f.window);
    const int w_first = pos + row, w_last = pos + min(row + 16 * MT, p.n) - 1;
    const int64_t q_row = p.q0 + p.first;
    float dq[MT][DK / 8][4] = {};
    const smem<float> lse = room.as<float>(B::ROW), dot = lse + B::ROWS; // there is no register left for them
    for (int r = threadIdx.x; r < B::ROWS; r += B::THREADS) {
        lse[r] = r < p.n ? f.lse[(q_row + r) * f.n_head + head] * LOG2_E : 0.0f;
        dot[r] = r < p.n ? f.dot[(q_row + r) * f.n_head + head] : 0.0f;
    }
    tile_load<DK, B::ROWS, B::THREADS>(q_tile, f.q.p + q_row * f.q.row + head * f.q.head, f.q.row, p.n, f.q.d, f.q.wide);
    tile_load<DV, B::ROWS, B::THREADS>(g_tile, f.dout.p + q_row * f.dout.row + head * f.dout.head, f.dout.row, p.n, f.dout.d, f.dout.wide);
    if (start <= last) keys_values_load<B>(room, f, p, kv, start, 0);
    for (int j0 = start, stage = 0; j0 <= last; j0 += BN, stage ^= 1) {
        cu_async_wait<0>();
        __syncthreads();
        if (j0 + BN <= last) keys_values_load<B>(room, f, p, kv, j0 + BN, stage ^ 1);
        if (row >= p.n || j0 > w_last || (f.window && j0 + BN <= w_first - f.window + 1)) continue;
        const smem<bf16> k_tile = room.as<bf16>(B::K) + stage * BN * DK, v_tile = room.as<bf16>(B::V) + stage * BN * DV;
        const bool masked = j0 + BN - 1 > w_first || (f.window && j0 <= w_last - f.window);
        float s[MT][N][4] = {}, ds[MT][N][4] = {};
        mma_rows<DK, MT, N>(s, q_tile, row, k_tile);
        mma_rows<DV, MT, N>(ds, g_tile, row, v_tile);
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int r = row + 16 * m + e / 2 * 8 + g;
                    const bool seen = !masked || sees(pos + r, j0 + 8 * n + 2 * t + e % 2, f.window);
                    const float prob = seen ? cu_exp2(fmaf(s[m][n][e], f.scale * LOG2_E, -lse[r])) : 0.0f;
                    ds[m][n][e] = f.scale * prob * (ds[m][n][e] - dot[r]);
                }
        mma_steps<DK, MT, N>(dq, ds, k_tile);
    }
#pragma unroll
    for (int m = 0; m < MT; m++) back_store<DK>(f.dq, q_row, head, p.n, row + 16 * m, dq[m], 1);
}

// ---- without tensor cores: tiles of 64 × 64, N * 64 columns of dk, dv, dq a block
// -----------------------------------------------------------

// P and dS of 4 × 4 queries and keys a thread, from the scores and dP. pos, key: of the thread's first ones; n: queries left of it.
template <class T>
__device__ __forceinline__ void simt_back_scores(float s[4][4], float ds[4][4], const struct flat<T> &f, int64_t q_row, int n, int head,
                                                 int pos, int key)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t at = (q_row + i) * f.n_head + head;
        const float lse = i < n ? f.lse[at] : 0.0f, dot = i < n ? f.dot[at] : 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = i < n && sees(pos + i, key + j, f.window) ? expf(s[i][j] * f.scale - lse) : 0.0f;
            ds[i][j] = f.scale * s[i][j] * (ds[i][j] - dot);
        }
    }
}
template <class T, int N> __global__ void __launch_bounds__(SIMT_THREADS) attention_bwd_keys_simt_kernel(const struct flat<T> f)
{
    CU_SHARED(float, x, SIMT_STEPS *SIMT_LD);
    CU_SHARED(float, y, SIMT_STEPS *SIMT_LD);
    CU_SHARED(float, w, SIMT_TILE *SIMT_LD); // [query][key]
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, kv = (int)(blockIdx.x % f.n_kv), col = (int)blockIdx.y * N * SIMT_TILE;
    struct place p;
    if (!place_of(&p, f, f.k_start, (int)(blockIdx.x / f.n_kv), SIMT_TILE)) return;
    const int i_first = max(0, p.first - p.ahead) / SIMT_TILE * SIMT_TILE;
    const int i_end = f.window ? min(p.n_q, p.first + p.n - 1 + f.window - p.ahead) : p.n_q;
    const int64_t k_row = p.k0 + p.first;
    const T *k = f.k.p + k_row * f.k.row + kv * f.k.head, *v = f.v.p + k_row * f.v.row + kv * f.v.head;
    float dk[N][4][4] = {}, dv[N][4][4] = {};
    for (int head = kv * f.group; head < (kv + 1) * f.group; head++)
        for (int i0 = i_first; i0 < i_end; i0 += SIMT_TILE) {
            const int64_t q_row = p.q0 + i0;
            const int n = p.n_q - i0;
            const T *q = f.q.p + q_row * f.q.row + head * f.q.head, *dout = f.dout.p + q_row * f.dout.row + head * f.dout.head;
            float s[4][4] = {}, ds[4][4] = {};
            simt_rows(s, x, y, q, f.q.row, n, k, f.k.row, p.n, f.k.d);
            simt_rows(ds, x, y, dout, f.dout.row, n, v, f.v.row, p.n, f.v.d);
            simt_back_scores(s, ds, f, q_row + ty * 4, n - ty * 4, head, p.ahead + i0 + ty * 4, p.first + tx * 4);
            for (int part = 0; part < 2; part++) {
                __syncthreads(); // w is free
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) w[(ty * 4 + i) * SIMT_LD + tx * 4 + j] = part ? ds[i][j] : s[i][j];
                if (part)
                    simt_weigh<N>(dk, w, y, q, f.q.row, n, col, f.q.d);
                else
                    simt_weigh<N>(dv, w, y, dout, f.dout.row, n, col, f.dout.d);
            }
        }
    const float one[4] = {1, 1, 1, 1};
    simt_store<N>(f.dk.p + k_row * f.dk.row + kv * f.dk.head, f.dk.row, p.n, col, f.dk.d, dk, one);
    simt_store<N>(f.dv.p + k_row * f.dv.row + kv * f.dv.head, f.dv.row, p.n, col, f.dv.d, dv, one);
}
template <class T, int N> __global__ void __launch_bounds__(SIMT_THREADS) attention_bwd_queries_simt_kernel(const struct flat<T> f)
{
    CU_SHARED(float, x, SIMT_STEPS *SIMT_LD);
    CU_SHARED(float, y, SIMT_STEPS *SIMT_LD);
    CU_SHARED(float, w, SIMT_TILE *SIMT_LD); // [key][query]
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16, head = (int)(blockIdx.x % f.n_head), kv = head / f.group;
    const int col = (int)blockIdx.y * N * SIMT_TILE;
    struct place p;
    if (!place_of(&p, f, f.q_start, (int)(blockIdx.x / f.n_head), SIMT_TILE)) return;
    const int pos = p.ahead + p.first;
    const int64_t q_row = p.q0 + p.first;
    const T *q = f.q.p + q_row * f.q.row + head * f.q.head, *dout = f.dout.p + q_row * f.dout.row + head * f.dout.head;
    float dq[N][4][4] = {};
    for (int j0 = first_block<SIMT_TILE>(pos, f.window); j0 < pos + p.n; j0 += SIMT_TILE) {
        const T *k = f.k.p + (int64_t)(p.k0 + j0) * f.k.row + kv * f.k.head, *v = f.v.p + (int64_t)(p.k0 + j0) * f.v.row + kv * f.v.head;
        float s[4][4] = {}, ds[4][4] = {};
        simt_rows(s, x, y, q, f.q.row, p.n, k, f.k.row, p.n_key - j0, f.k.d);
        simt_rows(ds, x, y, dout, f.dout.row, p.n, v, f.v.row, p.n_key - j0, f.v.d);
        simt_back_scores(s, ds, f, q_row + ty * 4, p.n - ty * 4, head, pos + ty * 4, j0 + tx * 4);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) w[(tx * 4 + j) * SIMT_LD + ty * 4 + i] = ds[i][j];
        simt_weigh<N>(dq, w, y, k, f.k.row, p.n_key - j0, col, f.k.d);
    }
    const float one[4] = {1, 1, 1, 1};
    simt_store<N>(f.dq.p + q_row * f.dq.row + head * f.dq.head, f.dq.row, p.n, col, f.dq.d, dq, one);
}

// ---- the op -----------------------------------------------------------------------------------------------------------------------------
template <class B> static void run_keys(struct device *dev, const struct flat<bf16> &f, int64_t n_key)
{
    CU_LAUNCH(dev, attention_bwd_keys_kernel<B>, (unsigned)(tiles_of(n_key, f.n_seg, B::ROWS) * f.n_kv), B::THREADS, B::SHARED, f);
}
template <class B> static void run_queries(struct device *dev, const struct flat<bf16> &f, int64_t n_tok)
{
    const int64_t n_tile = tiles_of(n_tok, f.n_seg, B::ROWS);
    CU_LAUNCH(dev, attention_bwd_queries_kernel<B>, (unsigned)(n_tile * f.n_head), B::THREADS, B::SHARED, f, (int)n_tile);
}
// The larger tiles where they fit.
template <class LARGE, class SMALL> static void run_keys_fit(struct device *dev, const struct flat<bf16> &f, int64_t n_key)
{
    fits<LARGE>(dev) ? run_keys<LARGE>(dev, f, n_key) : run_keys<SMALL>(dev, f, n_key);
}
template <class LARGE, class SMALL> static void run_queries_fit(struct device *dev, const struct flat<bf16> &f, int64_t n_tok)
{
    fits<LARGE>(dev) ? run_queries<LARGE>(dev, f, n_tok) : run_queries<SMALL>(dev, f, n_tok);
}
static bool run_tensor_cores(struct device *dev, const struct flat<bf16> &f, int64_t n_tok, int64_t n_key, float *parts)
{
    enum { BOTH = BACK_DK | BACK_DV };
    const int dk = f.q.d, dv = f.v.d;
    if (attention_bwd_wgmma(dev, f, n_tok, n_key, parts)) return true;
    if (dk < 1 || dv < 1 || dk > 256 || dv > 256) return false;
    if (dk <= 64 && dv <= 64) {
        run_keys<back_keys<64, 64, 64, 8, BOTH>>(dev, f, n_key);
        run_queries<back_queries<64, 64, 32, 2, 4>>(dev, f, n_tok);
    } else if (dk <= 128 && dv <= 128) {
        run_keys_fit<back_keys<128, 128, 64, 8, BOTH>, back_keys<128, 128, 32, 4, BOTH>>(dev, f, n_key);
        run_queries<back_queries<128, 128, 32, 2, 4>>(dev, f, n_tok);
    } else if (dk <= 192 && dv <= 128) {
        run_keys_fit<back_keys<192, 128, 32, 8, BOTH>, back_keys<192, 128, 32, 4, BOTH>>(dev, f, n_key);
        run_queries_fit<back_queries<192, 128, 32, 1, 8>, back_queries<192, 128, 32, 1, 4>>(dev, f, n_tok);
    } else {
        run_keys_fit<back_keys<256, 256, 32, 8, BACK_DK>, back_keys<256, 256, 16, 4, BACK_DK>>(dev, f, n_key);
        run_keys_fit<back_keys<256, 256, 32, 8, BACK_DV>, back_keys<256, 256, 16, 4, BACK_DV>>(dev, f, n_key);
        run_queries_fit<back_queries<256, 256, 32, 1, 8>, back_queries<256, 256, 16, 1, 4>>(dev, f, n_tok);
    }
    return true;
}
static bool run_tensor_cores(struct device *, const struct flat<float> &, int64_t, int64_t, float *)
{
    return false;
}
template <class T> static void run_simt(struct device *dev, const struct flat<T> &f, int64_t n_tok, int64_t n_key)
{
    const int most = f.q.d > f.v.d ? f.q.d : f.v.d;
    const unsigned keys = (unsigned)(tiles_of(n_key, f.n_seg, SIMT_TILE) * f.n_kv);
    const unsigned queries = (unsigned)(tiles_of(n_tok, f.n_seg, SIMT_TILE) * f.n_head);
    if (most <= 64) {
        CU_LAUNCH(dev, (attention_bwd_keys_simt_kernel<T, 1>), keys, SIMT_THREADS, 0, f);
        CU_LAUNCH(dev, (attention_bwd_queries_simt_kernel<T, 1>), queries, SIMT_THREADS, 0, f);
    } else {
        CU_LAUNCH(dev, (attention_bwd_keys_simt_kernel<T, 2>), dim3(keys, cu_blocks(most, 128)), SIMT_THREADS, 0, f);
        CU_LAUNCH(dev, (attention_bwd_queries_simt_kernel<T, 2>), dim3(queries, cu_blocks(f.q.d, 128)), SIMT_THREADS, 0, f);
    }
}

static void run_ours(struct device *dev, const struct attention_call *c)
{
    const int64_t n_row = c->q.shape[0] * c->q.shape[1];
    CU_DTYPE(c->q.dtype, T, {
        struct flat<T> f = flat_of<T>(c->q, c->k, c->v, c->a);
        f.out = heads_of<const T>(c->out), f.dout = heads_of<const T>(c->dout);
        f.dq = heads_of<T>(c->dq), f.dk = heads_of<T>(c->dk), f.dv = heads_of<T>(c->dv);
        f.lse = (float *)c->lse.data, f.dot = (float *)c->scratch[0];
        CU_LAUNCH(dev, attention_dot_kernel<T>, cu_blocks(n_row, DOT_THREADS / 32), DOT_THREADS, 0, f, n_row);
        if (!run_tensor_cores(dev, f, c->q.shape[0], c->k.shape[0], (float *)c->scratch[1]))
            run_simt<T>(dev, f, c->q.shape[0], c->k.shape[0]);
    });
}

extern "C" void cuda_attention_bwd(struct device *dev, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor dout,
                                   struct tensor q, struct tensor k, struct tensor v, struct tensor out, struct tensor lse,
                                   const struct attention *a)
{
    struct attention_call c = {};
    c.backward = true, c.a = a;
    c.q = q, c.k = k, c.v = v, c.out = out, c.lse = lse, c.dout = dout, c.dq = dq, c.dk = dk, c.dv = dv;
    c.scratch[0] = dev_scratch(dev, (size_t)(q.shape[0] * q.shape[1]) * sizeof(float));
    c.scratch[1] = dev_scratch(dev, attention_bwd_wgmma_bytes(dev, q, k, v));
    c.workspace_bytes = cudnn_workspace_bytes(dev, &c);
    c.workspace = dev_scratch(dev, c.workspace_bytes);
    if (!dev->measuring && !cudnn_attention(dev, &c, run_ours)) run_ours(dev, &c);
}
