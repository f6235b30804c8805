// What the attention kernels share: which rows a block works on, tiles of bf16 in shared memory and their fragments for the tensor cores.
//
// A tile holds rows of D bf16, D a multiple of 64, in pieces of 16 bytes. Piece c of row r lies at place c ^ (r % 8): the 8 rows that an
// ldmatrix reads at once lie in different banks, and so do the pieces that a warp copies. Rows and columns that are not there are zeros.
#pragma once
#include "kernels/cuda/ptx.cuh"

static constexpr float LOG2_E = 1.44269504088896340736f, LN_2 = 0.69314718055994530942f;

// (rows, heads, d), strides in elements.
template <class T> struct heads {
    T *p;
    int64_t row, head;
    int d;
    bool wide, pairs; // all rows begin at 16 bytes and are whole pieces; at 4 bytes, of whole pairs
};
template <class T> static struct heads<T> heads_of(struct tensor t) {
    struct heads<T> h = {
        (T *)t.data, t.stride[0], t.stride[1], (int)t.shape[2], false, false
    };
    const bool many = t.shape[0] > 1, more = t.shape[1] > 1;
    h.wide = (uintptr_t)t.data % 16 == 0 && h.d % 8 == 0 && (!many || h.row % 8 == 0) && (!more || h.head % 8 == 0);
    h.pairs = (uintptr_t)t.data % 4 == 0 && h.d % 2 == 0 && (!many || h.row % 2 == 0) && (!more || h.head % 2 == 0);
    return h;
}

// ---- flat segments: op_attention, op_attention_bwd --------------------------------------------------------------------------------------
template <class T>
struct flat {
    struct heads<const T> q, k, v, out, dout; // out, dout: of the backward pass
    struct heads<T> to, dq, dk, dv;           // to: the forward's output
    float *lse;                               // (n_tok, n_head), NULL: not wanted
    float *dot;                               // backward: Σ dout · out, (n_tok, n_head)
    const int32_t *q_start, *k_start;
    int n_seg, n_head, n_kv, group;
    float scale;
    int window;
    int *next; // forward: items that were taken, beyond one a block
};
// A tile of the rows [first, first + n) of segment s. TRAP: n_key may be less than the segment's queries: the first ones then see nothing.
struct place {
    int seg, first, n;
    int q0, n_q, k0, n_key; // the segment's rows
    int ahead;              // query i stands at key ahead + i
};
// Tile `tile` of `each` rows when segments begin at whole tiles: segment s at tile start[s] / each + s, which is room enough; there are
// n / each + n_seg tiles in all, some of them empty (false).
template <class T>
__device__ __forceinline__ bool place_of(struct place *p, const struct flat<T> &f, const int32_t *start, int tile, int each)
{
    int lo = 0, hi = f.n_seg;
    while (hi - lo > 1) {
        const int mid = (lo + hi) / 2;
        if (start[mid] / each + mid <= tile)
            lo = mid;
        else
            hi = mid;
    }
    p->seg = lo;
    p->first = (tile - start[lo] / each - lo) * each;
    p->n = min(each, start[lo + 1] - start[lo] - p->first);
    p->q0 = f.q_start[lo], p->n_q = f.q_start[lo + 1] - p->q0;
    p->k0 = f.k_start[lo], p->n_key = f.k_start[lo + 1] - p->k0;
    p->ahead = p->n_key - p->n_q;
    return p->n > 0;
}
static inline int64_t tiles_of(int64_t n, int n_seg, int each)
{
    return n / each + n_seg;
}
template <class T> static struct flat<T> flat_of(struct tensor q, struct tensor k, struct tensor v, const struct attention *a) {
    struct flat<T> f = {
    };
    f.q = heads_of<const T>(q), f.k = heads_of<const T>(k), f.v = heads_of<const T>(v);
    f.q_start = a->q_start, f.k_start = a->k_start, f.n_seg = a->n_seg;
    f.n_head = (int)q.shape[1], f.n_kv = (int)k.shape[1], f.group = f.n_head / f.n_kv;
    f.scale = a->scale, f.window = a->window;
    return f;
}
// Where the blocks of `each` keys begin that a query at position pos sees.
template <int each>
__device__ __forceinline__ int first_block(int pos, int window)
{
    return window && pos - window + 1 > 0 ? (pos - window + 1) / each * each : 0;
}
// Whether the query at position pos sees key j.
__device__ __forceinline__ bool sees(int pos, int j, int window)
{
    return (unsigned)(pos - j) < (window ? (unsigned)window : 0x80000000u);
}

// Whether a block of sizes F fits the device's shared memory: an L40 has 99 KiB where an H100 has 227.
template <class F> static bool fits(const struct device *dev)
{
    return (size_t)F::SHARED <= cuda_of(dev)->shared_max;
}

// ---- tiles ------------------------------------------------------------------------------------------------------------------------------
template <int D> __device__ __forceinline__ int tile_at(int row, int piece)
{
    static_assert(D % 64 == 0, "a tile's rows are whole groups of 8 pieces, which the exclusive or permutes");
    return row * D + ((piece ^ (row & 7)) << 3);
}
// Piece `to` of a tile from n ≤ 8 elements; `wide` as in struct heads. Needs cu_async_commit, a wait and a barrier before it is read.
__device__ __forceinline__ void piece_load(smem<bf16> to, const bf16 *from, int n, bool wide)
{
    if (wide) {
        cu_async_copy16(to.raw(), from, n > 0);
        return;
    }
    cu_vec<bf16, 8> v;
    for (int i = 0; i < 8; i++) v.v[i] = i < n ? from[i] : (bf16)0;
    to.as<cu_vec<bf16, 8>>()[0] = v;
}
// n_row of ROWS rows of d elements.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void tile_load(smem<bf16> tile, const bf16 *from, int64_t stride, int n_row, int d, bool wide)
{
    enum { PIECES = D / 8 };
#pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * PIECES; i += THREADS) {
        const int r = i / PIECES, c = i % PIECES, n = r < n_row ? min(8, d - c * 8) : 0;
        // without a branch around the product, which would cost the kernels registers
        piece_load(tile + tile_at<D>(r, c), from + (n > 0 ? r : 0) * stride + (n > 0 ? c * 8 : 0), n, wide);
    }
}

// The keys and values from j0 on of the place's segment, on their way into stage 0 or 1 of the tiles of B: KEYS rows of DK and DV values,
// at bytes K and V.
template <class B>
__device__ __forceinline__ void keys_values_load(smem<unsigned char> room, const struct flat<bf16> &f, const struct place &p, int kv,
                                                 int j0, int stage)
{
    const int64_t at = p.k0 + j0;
    tile_load<B::DK, B::KEYS, B::THREADS>(room.as<bf16>(B::K) + stage * B::KEYS * B::DK, f.k.p + at * f.k.row + kv * f.k.head, f.k.row,
                                          p.n_key - j0, f.k.d, f.k.wide);
    tile_load<B::DV, B::KEYS, B::THREADS>(room.as<bf16>(B::V) + stage * B::KEYS * B::DV, f.v.p + at * f.v.row + kv * f.v.head, f.v.row,
                                          p.n_key - j0, f.v.d, f.v.wide);
    cu_async_commit();
}

// a of cu_mma_bf16: rows [row, row + 16), columns [16 k, 16 k + 16).
template <int D> __device__ __forceinline__ void frag_a(unsigned a[4], smem<bf16> tile, int row, int k)
{
    const int lane = threadIdx.x % 32;
    cu_ldmatrix(a, tile.raw(tile_at<D>(row + lane % 16, 2 * k + lane / 16)));
}
// b of two products with the tile's transpose: rows [row, row + 8) in b[0], b[1], the next 8 in b[2], b[3]; columns [16 k, 16 k + 16).
template <int D> __device__ __forceinline__ void frag_b(unsigned b[4], smem<bf16> tile, int row, int k)
{
    const int lane = threadIdx.x % 32;
    cu_ldmatrix(b, tile.raw(tile_at<D>(row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2)));
}
// b of two products with the tile itself, its rows [16 k, 16 k + 16) the steps: columns of piece `piece` in b[0], b[1], of the next in
// b[2], b[3].
template <int D> __device__ __forceinline__ void frag_bt(unsigned b[4], smem<bf16> tile, int k, int piece)
{
    const int lane = threadIdx.x % 32;
    cu_ldmatrix_t(b, tile.raw(tile_at<D>(16 * k + lane % 16, piece + lane / 16)));
}
// d (16 MT, 8 N) += rows [row, row + 16 MT) of x · (rows [0, 8 N) of y)ᵀ over D columns.
template <int D, int MT, int N> __device__ __forceinline__ void mma_rows(float (*d)[N][4], smem<bf16> x, int row, smem<bf16> y)
{
#pragma unroll 4 // the permutation of pieces repeats
    for (int k = 0; k < D / 16; k++) {
        unsigned a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) frag_a<D>(a[m], x, row + 16 * m, k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned b[4];
            frag_b<D>(b, y, 8 * n, k);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                cu_mma_bf16(d[m][n], a[m], b);
                cu_mma_bf16(d[m][n + 1], a[m], b + 2);
            }
        }
    }
}
// d (16 MT, D) += p (16 MT, 8 N), rounded to bf16, · the tile's 8 N rows. p is d of another product: its layout is that of a.
template <int D, int MT, int N> __device__ __forceinline__ void mma_steps(float (*d)[D / 8][4], const float (*p)[N][4], smem<bf16> tile)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        unsigned a[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) a[m][i] = cu_pair_bf16(p[m][2 * k + i / 2][i % 2 * 2], p[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            unsigned b[4];
            frag_bt<D>(b, tile, k, n);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                cu_mma_bf16(d[m][n], a[m], b);
                cu_mma_bf16(d[m][n + 1], a[m], b + 2);
            }
        }
    }
}
// Values c and c + 1 of a row of n.
__device__ __forceinline__ void pair_store(bf16 *row, int c, int n, bool pairs, float x, float y)
{
    if (pairs && c < n) {
        *(unsigned *)(row + c) = cu_pair_bf16(x, y);
        return;
    }
    if (c < n) row[c] = f32_to_bf16(x);
    if (c + 1 < n) row[c + 1] = f32_to_bf16(y);
}
// Over the four lanes that share a row of a fragment.
template <class Op> __device__ __forceinline__ float quad_reduce(float v, Op op)
{
    v = op(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return op(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

// ---- the forward's softmax, of fragments ------------------------------------------------------------------------------------------------
// Scores (16 MT, 8 NS) of keys from j0 on become probabilities; top, sum follow, and what was summed before is to be multiplied by keep:
// false if by 1 in all of the warp. pos: of the lane's first row.
template <int MT, int NS>
__device__ __forceinline__ bool softmax_rows(float (*s)[NS][4], float (*keep)[2], float (*top)[2], float (*sum)[2], int j0, int pos,
                                             bool masked, int window, float scale)
{
    const int t = threadIdx.x % 4;
    if (masked) {
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < NS; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!sees(pos + 16 * m + e / 2 * 8, j0 + 8 * n + 2 * t + e % 2, window)) s[m][n][e] = -INFINITY;
    }
    bool changed = false;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float best = -INFINITY;
#pragma unroll
            for (int n = 0; n < NS; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) best = fmaxf(best, s[m][n][2 * i + e]);
            const float now = fmaxf(top[m][i], quad_reduce(best, cu_max()) * scale), base = now == -INFINITY ? 0.0f : now;
            keep[m][i] = cu_exp2(top[m][i] - base);
            changed |= top[m][i] != now;
            top[m][i] = now;
            float more = 0;
#pragma unroll
            for (int n = 0; n < NS; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[m][n][2 * i + e];
                    *x = cu_exp2(fmaf(*x, scale, -base));
                    more += *x;
                }
            sum[m][i] = fmaf(sum[m][i], keep[m][i], more);
        }
    return __any_sync(0xffffffffu, changed);
}
template <int MT, int NO> __device__ __forceinline__ void rows_scale(float (*o)[NO][4], const float (*keep)[2])
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NO; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) o[m][n][e] *= keep[m][e / 2];
}
// The warp's sums, of rows from q_row on, `left` of them there, to the output; and lse.
template <int MT, int NO>
__device__ __forceinline__ void rows_store(const struct flat<bf16> &f, const float (*o)[NO][4], const float (*top)[2],
                                           const float (*sum)[2], int64_t q_row, int left, int head)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const bool whole = f.to.pairs && f.to.d == 8 * NO;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float l = quad_reduce(sum[m][i], cu_add()), by = l > 0 ? 1.0f / l : 0.0f;
            const int r = 16 * m + 8 * i + g;
            if (r >= left) continue;
            bf16 *to = f.to.p + (q_row + r) * f.to.row + head * f.to.head;
            if (whole) {
#pragma unroll
                for (int n = 0; n < NO; n++) *(unsigned *)(to + 8 * n + 2 * t) = cu_pair_bf16(o[m][n][2 * i] * by, o[m][n][2 * i + 1] * by);
            } else {
#pragma unroll
                for (int n = 0; n < NO; n++)
                    pair_store(to, 8 * n + 2 * t, f.to.d, f.to.pairs, o[m][n][2 * i] * by, o[m][n][2 * i + 1] * by);
            }
            if (f.lse && t == 0) f.lse[(q_row + r) * f.n_head + head] = top[m][i] * LN_2 + logf(l);
        }
}

// A gradient's 16 rows from row of n, times `by`, to the rows from row0 on.
template <int D>
__device__ __forceinline__ void back_store(const struct heads<bf16> &to, int64_t row0, int head, int n, int row, const float (*d)[4],
                                           float by)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = row + 8 * i + g;
        if (r >= n) continue;
#pragma unroll
        for (int c = 0; c < D / 8; c++)
            pair_store(to.p + (row0 + r) * to.row + head * to.head, 8 * c + 2 * t, to.d, to.pairs, d[c][2 * i] * by, d[c][2 * i + 1] * by);
    }
}

// attention_wgmma.cu: on sm_90, heads of up to 192 by 128 whose rows are whole pieces of 16 bytes; false: not of this kind.
bool attention_wgmma(struct device *dev, const struct flat<bf16> &f, int64_t n_tok);
// attention_bwd_wgmma.cu: dq, dk, dv, heads of up to 128. parts: as many bytes of scratch as the first one says.
size_t attention_bwd_wgmma_bytes(const struct device *dev, struct tensor q, struct tensor k, struct tensor v);
bool attention_bwd_wgmma(struct device *dev, const struct flat<bf16> &f, int64_t n_tok, int64_t n_key, float *parts);
