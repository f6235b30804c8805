// Embedding rows and its backward, and the bias's backward. All are bound by bytes.
//
// The embedding's gradient adds rows whose token is the same, in the order of the rows: the rows are sorted by token (sort.cuh, some digits
// of the token at a time), then each token's run is summed by a warp, or, beyond EMBED_LONG rows, by a block that has eight of them on
// their way at once: of a common token there may be thousands. Which of the two, and the order of a sum, depends on the run's length alone.
#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/sort.cuh"

extern "C" void cuda_embed(struct device *dev, struct tensor out, struct tensor table, struct tensor ids)
{
    struct tensor rows = table;
    rows.stride[0] = weight_stride(table); // a panel's rows lie as they are
    rows.stride[1] = 1;
    gather(dev, out, rows, ids, TROUBLE_TOKEN);
}

// ---- backward ---------------------------------------------------------------------------------------------------------------------------

enum { EMBED_THREADS = 256, EMBED_LONG = 64 };

struct token_rows { // rows by token
    int32_t *id, *row;
};
// A digit of the token. Ids out of the vocabulary count as the one after its last: they come last, and are told when they are summed.
struct token_key {
    const int32_t *id;
    int n_vocab, shift, mask;
    __device__ __forceinline__ int operator()(int64_t i) const
    {
        const int k = id[i];
        return (k < 0 || k > n_vocab ? n_vocab : k) >> shift & mask;
    }
};
struct token_emit {
    struct token_rows to;
    const int32_t *id, *row; // row NULL: not sorted yet
    __device__ __forceinline__ void operator()(int64_t i, int at) const
    {
        to.id[at] = id[i];
        to.row[at] = row ? row[i] : (int)i;
    }
};

struct embed_args {
    struct token_rows sorted;
    int64_t n, d;
    int n_vocab;
    struct cuda_trouble *trouble;
};
// Whether sorted item p is of the vocabulary; if not, it is told.
__device__ __forceinline__ bool embed_known(const struct embed_args &a, int64_t p)
{
    const int k = a.sorted.id[p];
    if (k >= 0 && k < a.n_vocab) return true;
    cu_trouble(a.trouble, TROUBLE_TOKEN_BWD, a.sorted.row[p], k, a.n_vocab);
    return false;
}
// How many of the EMBED_LONG items next to p (direction 1: after it, -1: before it) have its token; the warp calls.
__device__ __forceinline__ int embed_beside(const struct embed_args &a, int64_t p, int direction)
{
    const int k = a.sorted.id[p];
    int n = 0;
    for (int by = 1 + threadIdx.x % 32; by <= EMBED_LONG; by += 32) {
        const int64_t q = p + direction * by;
        n += __popc(__ballot_sync(0xffffffffu, q >= 0 && q < a.n && a.sorted.id[q] == k)); // sorted: these are the nearest
    }
    return n;
}
template <int N, class T> __device__ __forceinline__ void embed_add(cu_chunk<float, N> &sum, cu_chunk<T, N> c)
{
    CU_UNROLL
    for (int j = 0; j < N; j++) sum.v[j] += cu_f32(c.v[j]);
}

// A warp for each item: if its token's run begins here and is not long, it sums it.
template <class T, bool WIDE> __global__ void embed_runs_kernel(float *dtable, const T *dout, struct embed_args a)
{
    enum { N = 16 / sizeof(T) };
    const int lane = threadIdx.x % 32;
    const int64_t p = ((int64_t)blockIdx.x * EMBED_THREADS + threadIdx.x) / 32;
    if (p >= a.n || (p && a.sorted.id[p - 1] == a.sorted.id[p]) || !embed_known(a, p)) return; // a warp whole
    const int len = 1 + embed_beside(a, p, 1);
    if (len > EMBED_LONG) return;
    float *to = dtable + a.sorted.id[p] * a.d;
    for (int64_t i = ((int64_t)blockIdx.y * 32 + lane) * N; i < a.d; i += (int64_t)gridDim.y * 32 * N) {
        cu_chunk<float, N> sum = cu_load<WIDE, N>((const float *)to, i, a.d);
        for (int r = 0; r < len; r++) embed_add(sum, cu_load<WIDE, N>(dout + a.sorted.row[p + r] * a.d, i, a.d));
        cu_store<WIDE, N>(to, i, a.d, sum);
    }
}
// The rows of a block's threads, [first, end) in steps of the block's eight warps, are summed to sum of warp 0.
template <int N> __device__ __forceinline__ void sum_of_warps(cu_chunk<float, N> &sum, smem<float> room)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads(); // room may still be read from the columns before
    CU_UNROLL
    for (int j = 0; j < N; j++) room[(warp * N + j) * 32 + lane] = sum.v[j];
    __syncthreads();
    if (warp) return;
    for (int w = 1; w < EMBED_THREADS / 32; w++) {
        CU_UNROLL
        for (int j = 0; j < N; j++) sum.v[j] += room[(w * N + j) * 32 + lane];
    }
}
// A block for each item that is a multiple of EMBED_LONG: a long run holds such items, and the first of them sums it.
template <class T, bool WIDE> __global__ void embed_long_kernel(float *dtable, const T *dout, struct embed_args a)
{
    enum { N = 16 / sizeof(T) };
    CU_SHARED(float, room, EMBED_THREADS *N);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t p = (int64_t)blockIdx.x * EMBED_LONG;
    const int k = a.sorted.id[p];
    if (k < 0 || k >= a.n_vocab || (p && a.sorted.id[p - EMBED_LONG] == k)) return; // the block whole
    const int64_t first = p - embed_beside(a, p, -1);
    int64_t end = p + 1, high = a.n; // token k up to end, and not from high on
    while (end < high) {
        const int64_t mid = (end + high) / 2;
        if (a.sorted.id[mid] == k)
            end = mid + 1;
        else
            high = mid;
    }
    if (end - first <= EMBED_LONG) return;
    float *to = dtable + k * a.d;
    for (int64_t c = (int64_t)blockIdx.y * 32 * N; c < a.d; c += (int64_t)gridDim.y * 32 * N) {
        const int64_t i = c + lane * N;
        cu_chunk<float, N> sum = {};
        for (int64_t r = first + warp; r < end; r += EMBED_THREADS / 32)
            embed_add(sum, cu_load<WIDE, N>(dout + a.sorted.row[r] * a.d, i, a.d));
        sum_of_warps(sum, room);
        if (warp == 0 && i < a.d) {
            embed_add(sum, cu_load<WIDE, N>((const float *)to, i, a.d));
            cu_store<WIDE, N>(to, i, a.d, sum);
        }
    }
}
extern "C" void cuda_embed_bwd(struct device *dev, struct tensor dtable, struct tensor dout, struct tensor ids)
{
    const int64_t n = dout.shape[0], d = dout.shape[1];
    int bits = 1;
    while (dtable.shape[0] >> bits) bits++;
    const int n_pass = (bits + 9) / 10, digit = (bits + n_pass - 1) / n_pass; // 1 << 10 is SORT_BINS
    struct token_rows side[2];
    for (int i = 0; i < 2; i++) {
        side[i].id = (int32_t *)dev_scratch(dev, (size_t)n * sizeof(int32_t));
        side[i].row = (int32_t *)dev_scratch(dev, (size_t)n * sizeof(int32_t));
    }
    void *scratch = dev_scratch(dev, sort_scratch(n, 1 << digit));
    if (dev->measuring) return;
    struct token_emit from = {side[0], (const int32_t *)ids.data, NULL};
    for (int i = 0; i < n_pass; i++) {
        const struct token_key key = {from.id, (int)dtable.shape[0], i * digit, (1 << digit) - 1};
        sort_stable(dev, key, from, NULL, n, 1 << digit, scratch);
        from = {side[(i + 1) % 2], from.to.id, from.to.row};
    }
    const struct embed_args a = {{(int32_t *)from.id, (int32_t *)from.row}, n, d, (int)dtable.shape[0], cuda_of(dev)->trouble};
    const struct tensor all[] = {dtable, dout};
    const int each = 16 / (int)dtype_size(dout.dtype);
    const bool wide = cu_wide(each, all, 2);
    const unsigned pieces = cu_blocks(d, 32 * each), short_pieces = cu_blocks(pieces, 4);
    CU_DTYPE(dout.dtype, T, CU_WIDE(wide, WIDE, {
                 CU_LAUNCH(dev, (embed_runs_kernel<T, WIDE>), dim3(cu_blocks(n, EMBED_THREADS / 32), short_pieces < 64 ? short_pieces : 64),
                           EMBED_THREADS, 0, (float *)dtable.data, (const T *)dout.data, a);
                 CU_LAUNCH(dev, (embed_long_kernel<T, WIDE>), dim3(cu_blocks(n, EMBED_LONG), pieces < 64 ? pieces : 64), EMBED_THREADS, 0,
                           (float *)dtable.data, (const T *)dout.data, a);
             }););
}

// ---- sums of columns --------------------------------------------------------------------------------------------------------------------

// A block: 32 chunks of columns, `per` rows, eight at once.
template <class T, bool WIDE> __global__ void bias_part_kernel(float *part, const T *x, int64_t n, int64_t d, int64_t stride, int64_t per)
{
    enum { N = 16 / sizeof(T) };
    CU_SHARED(float, room, EMBED_THREADS *N);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t i = ((int64_t)blockIdx.x * 32 + lane) * N, begin = blockIdx.y * per, end = begin + per < n ? begin + per : n;
    cu_chunk<float, N> sum = {};
    for (int64_t r = begin + warp; r < end; r += EMBED_THREADS / 32) embed_add(sum, cu_load<WIDE, N>(x + r * stride, i, d));
    sum_of_warps(sum, room);
    if (warp == 0 && i < d) cu_store<false, N>(part + blockIdx.y * d, i, d, sum);
}
extern "C" void cuda_bias_bwd(struct device *dev, struct tensor dbias, struct tensor dout)
{
    const int64_t n = dout.shape[0], d = dout.shape[1], most = 128, per = n > 128 * most ? (n + most - 1) / most : 128;
    const unsigned n_part = cu_blocks(n, per);
    float *part = (float *)dev_scratch(dev, (size_t)n_part * (size_t)d * sizeof(float));
    if (dev->measuring) return;
    const int each = 16 / (int)dtype_size(dout.dtype);
    const bool wide = cu_wide(each, &dout, 1);
    CU_DTYPE(dout.dtype, T, CU_WIDE(wide, WIDE, {
                 CU_LAUNCH(dev, (bias_part_kernel<T, WIDE>), dim3(cu_blocks(d, 32 * each), n_part), EMBED_THREADS, 0, part,
                           (const T *)dout.data, n, d, dout.stride[0], per);
             }););
    column_add(dev, dbias, part, (int)n_part);
}
