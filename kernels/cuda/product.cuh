// Products of packed weights: out_p (m, n) = x_p (m, k) · w_pᵀ + bias, for one weight, one a head, or one an expert with its own rows.
//
// A row's bits depend on its own values, their types and k alone: every kernel adds in one order. k is cut into n_chunk chunks; a chunk is
// summed forwards from 0, by the same instructions in the same order, and the chunks' sums are added in their order, then the bias. So a
// kernel may give each chunk to a warp (thin), to a block (tile, split), or take one after the other (tile), at any number of rows.
#pragma once
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ptx.cuh"

enum {
    CHUNK_UNIT = 128,     // chunks are multiples of it: FP8_BLOCK, and the lines that are read
    CHUNK_MAX = 8,        // the warps of a block of product_thin
    CHUNK_MAX_EXACT = 32, // of exact sums: a router's few columns shall keep many multiprocessors busy
};

struct product {
    const void *x, *w; // element strides follow: from row to row, and from one product to the next
    void *out;
    int64_t x_row, x_each, w_row, w_each, out_row, out_each;
    int64_t n_product, m, n, k;
    const float *bias; // may be NULL
    bool out_bf16;
    bool out_wide; // four values of out at once
    int64_t chunk; // values of k
    int n_chunk;
    float *part; // split: the chunks' sums (n_chunk, all rows, n) go there, and sum_kernel adds them; else NULL
    // FP8: of x's rows (n_block, all rows), of each w (⌈n/128⌉, n_block); else NULL
    const float *x_scale, *w_scale;
    int n_block;
    // An expert's product p has rows [first[p], first[p + 1]) of all, weights slot[p], scales scale[p]; else first is NULL
    const int32_t *first;
    const void *const *slot;
    const float *const *scale;
    struct cuda_trouble *trouble;
};

// What x and w are: 16-byte pieces for the tensor cores (both bf16 or, with scales, both e4m3; rows begun at 16 bytes and filled with
// zeros to them), or any values for exact f32 sums.
void product_run(struct device *dev, struct product *p, enum dtype x_type, enum dtype w_type);         // S
void product_thin(struct device *dev, const struct product *p);                                        // product_thin.cu
void product_tile(struct device *dev, const struct product *p);                                        // product_tile.cu
void product_exact(struct device *dev, const struct product *p, enum dtype x_type, enum dtype w_type); // product_exact.cu
void product_wgmma(struct device *dev, const struct product *p);                                       // product_wgmma.cu: experts on sm_90
bool product_tile_fits(const struct device *dev, const struct product *p); // hundreds of experts do not where a block has 99 KiB
bool product_tile_wants_split(const struct device *dev, const struct product *p);
bool product_exact_wants_split(const struct device *dev, const struct product *p);
// x (rank 2 or 3) as the tensor cores read it: itself if it is so, or a copy in scratch.
struct tensor product_pieces(struct device *dev, struct tensor x); // S

// x (m, k) in FP8 (fp8.cu): p's x, m, k, x_row, x_scale and n_block. Scratch.
void product_quantise(struct device *dev, struct product *p, struct tensor x, bool ue8m0); // S

static inline void product_cut(struct product *p, bool exact)
{
    const int64_t n_unit = (p->k + CHUNK_UNIT - 1) / CHUNK_UNIT;
    const int64_t wanted = exact ? CHUNK_MAX_EXACT : p->k >= 4096 ? CHUNK_MAX : CHUNK_MAX / 2;
    p->chunk = (n_unit + wanted - 1) / wanted * CHUNK_UNIT;
    p->n_chunk = (int)((p->k + p->chunk - 1) / p->chunk);
}
static inline int64_t product_rows(const struct product *p) // all of them, in order
{
    return p->first ? p->m : p->n_product * p->m;
}
// Tiles at most: what experts have is known to the device alone.
static inline int64_t product_tiles(const struct product *p, int64_t bm, int64_t bn)
{
    const int64_t n_col = (p->n + bn - 1) / bn;
    if (!p->first) return p->n_product * ((p->m + bm - 1) / bm) * n_col;
    return ((p->m < p->n_product ? p->m : p->n_product) + p->m / bm) * n_col;
}
static inline size_t product_plan_bytes(const struct product *p)
{
    return p->first ? (size_t)(p->n_product + 1) * sizeof(int) : 0;
}

// ---- in kernels: which tile is whose
// -----------------------------------------------------------------------------------------------------

struct product_spot {
    int64_t each, row, col; // product; first row (experts: of all rows); first weight row
    int n_row;              // rows of x from there, at most a tile's
};

// How many tiles of bm rows by bn columns there are. All threads of a block of whole warps call it; begin: product_plan_bytes of shared
// memory, for product_spot_of.
__device__ __forceinline__ int64_t product_plan(const struct product &p, smem<int> begin, int bm, int bn)
{
    const int64_t n_col = (p.n + bn - 1) / bn;
    if (!p.first) return p.n_product * ((p.m + bm - 1) / bm) * n_col;
    const int n = (int)p.n_product;
    for (int e = threadIdx.x; e < n; e += blockDim.x) {
        const int rows = p.first[e + 1] - p.first[e];
        const bool lost = rows > 0 && !p.slot[e];
        if (lost) cu_trouble(p.trouble, TROUBLE_EXPERT, rows, e, 0);
        begin[e + 1] = lost ? 0 : (rows + bm - 1) / bm;
    }
    __syncthreads();
    if (threadIdx.x < 32) { // the sums of what stands before
        const int lane = threadIdx.x;
        int sum = 0;
        for (int at = 0; at < n; at += 32) {
            int v = at + lane < n ? (int)begin[at + lane + 1] : 0;
            for (int by = 1; by < 32; by *= 2) {
                const int before = __shfl_up_sync(0xffffffffu, v, by);
                if (lane >= by) v += before;
            }
            v += sum;
            if (at + lane < n) begin[at + lane + 1] = v;
            sum = __shfl_sync(0xffffffffu, v, 31);
        }
        if (lane == 0) begin[0] = 0;
    }
    __syncthreads();
    return (int64_t)begin[n] * n_col;
}

// Tile `item`. Neighbours in time share weights, then rows: eight tiles of rows, column after column.
__device__ __forceinline__ struct product_spot product_spot_of(const struct product &p, smem<int> begin, int64_t item, int bm, int bn)
{
    const int64_t n_col = (p.n + bn - 1) / bn;
    struct product_spot s;
    int64_t n_row, m, first = 0;
    if (p.first) {
        int low = 0, high = (int)p.n_product - 1; // the last product that begins at or before it
        const int tile = (int)(item / n_col);
        while (low < high) {
            const int mid = (low + high + 1) / 2;
            if ((int)begin[mid] <= tile)
                low = mid;
            else
                high = mid - 1;
        }
        s.each = low;
        n_row = (int)begin[low + 1] - (int)begin[low];
        item -= (int)begin[low] * n_col;
        first = p.first[low];
        m = p.first[low + 1] - first;
    } else {
        n_row = (p.m + bm - 1) / bm;
        s.each = item / (n_row * n_col);
        item -= s.each * n_row * n_col;
        m = p.m;
    }
    const int64_t group = item / (8 * n_col), in = item - group * 8 * n_col, rows = n_row - group * 8 < 8 ? n_row - group * 8 : 8;
    const int64_t row = (group * 8 + in % rows) * bm;
    s.row = first + row;
    s.col = in / rows * bn;
    s.n_row = m - row < bm ? (int)(m - row) : bm;
    return s;
}
template <class T> __device__ __forceinline__ const T *product_x(const struct product &p, const struct product_spot &s)
{
    return (const T *)p.x + (p.first ? 0 : s.each * p.x_each) + s.row * p.x_row;
}
template <class T> __device__ __forceinline__ const T *product_w(const struct product &p, const struct product_spot &s)
{
    return p.first ? (const T *)p.slot[s.each] : (const T *)p.w + s.each * p.w_each;
}
// Scales of the weights at s.col, one a block of k.
__device__ __forceinline__ const float *product_w_scale(const struct product &p, const struct product_spot &s)
{
    return (p.first ? p.scale[s.each] : p.w_scale) + s.col / CHUNK_UNIT * p.n_block;
}
// Of the rows from s.row on, in the first block; the next block's are p.m further.
__device__ __forceinline__ const float *product_x_scale(const struct product &p, const struct product_spot &s)
{
    return p.x_scale + s.row;
}

// ---- in kernels: fragments
// ---------------------------------------------------------------------------------------------------------------

template <bool FP8> struct product_values { // of a 16-byte piece
    typedef bf16 T;
    enum { N = 8 };
};
template <> struct product_values<true> {
    typedef e4m3 T;
    enum { N = 16 };
};
// Four values of a piece as a member holds them: bf16, or e4m3 as f16.
template <bool FP8> __device__ __forceinline__ void product_four(unsigned four[2], const uint4 &piece, int i)
{
    if (FP8) {
        cu_f16_e4m3(four, i == 0 ? piece.x : i == 1 ? piece.y : i == 2 ? piece.z : piece.w);
    } else {
        four[0] = i ? piece.z : piece.x;
        four[1] = i ? piece.w : piece.y;
    }
}
// d (NN times 16 weight rows, NM times 8 rows of x) += one piece each of a (rows g and g + 8) times one each of b. The order along k:
// member t of a group holds piece t of four neighbours, and each mma takes four values of each member, the first first.
template <bool FP8, int NN, int NM> __device__ __forceinline__ void product_mma(float d[NN][NM][4], const uint4 a[NN][2], const uint4 b[NM])
{
#pragma unroll
    for (int i = 0; i < product_values<FP8>::N / 4; i++) {
        unsigned low[NN][2], high[NN][2], x[NM][2];
        for (int n = 0; n < NN; n++) {
            product_four<FP8>(low[n], a[n][0], i);
            product_four<FP8>(high[n], a[n][1], i);
        }
        for (int m = 0; m < NM; m++) product_four<FP8>(x[m], b[m], i);
        for (int n = 0; n < NN; n++)
            for (int m = 0; m < NM; m++) {
                const unsigned w[4] = {low[n][0], high[n][0], low[n][1], high[n][1]};
                if (FP8)
                    cu_mma_f16(d[n][m], w, x[m]);
                else
                    cu_mma_bf16(d[n][m], w, x[m]);
            }
    }
}
// A block of FP8: its sum times its scales, added.
__device__ __forceinline__ float product_scaled(float sum, float x_scale, float w_scale, float before)
{
    return fmaf(sum * x_scale, w_scale, before);
}

// ---- in kernels: results
// -----------------------------------------------------------------------------------------------------------------

// Sums of row `row` of the spot, columns from s.col + at: N of them, those within n, with the bias or to the parts of chunk `chunk`.
template <int N>
__device__ __forceinline__ void product_put(const struct product &p, const struct product_spot &s, int row, int at, const float *v,
                                            int chunk)
{
    const int64_t col = s.col + at;
    if (p.part) {
        const int64_t rows = p.first ? p.m : p.n_product * p.m;
        float *to = p.part + ((chunk * rows + (p.first ? 0 : s.each * p.m) + s.row + row) * p.n + col);
        for (int i = 0; i < N && col + i < p.n; i++) to[i] = v[i];
        return;
    }
    const int64_t to = (p.first ? 0 : s.each * p.out_each) + (s.row + row) * p.out_row + col;
    if (N == 4 && p.out_wide) {
        if (col >= p.n) return;
        cu_vec<float, 4> f;
        for (int i = 0; i < 4; i++) f.v[i] = v[i % N] + (p.bias ? p.bias[col + i] : 0.0f);
        if (p.out_bf16) {
            cu_vec<bf16, 4> h;
            for (int i = 0; i < 4; i++) h.v[i] = cu_from<bf16>(f.v[i]);
            *(cu_vec<bf16, 4> *)((bf16 *)p.out + to) = h;
        } else
            *(cu_vec<float, 4> *)((float *)p.out + to) = f;
        return;
    }
    for (int i = 0; i < N && col + i < p.n; i++) {
        const float f = v[i] + (p.bias ? p.bias[col + i] : 0.0f);
        if (p.out_bf16)
            ((bf16 *)p.out)[to + i] = cu_from<bf16>(f);
        else
            ((float *)p.out)[to + i] = f;
    }
}
