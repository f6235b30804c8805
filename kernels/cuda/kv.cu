// The paged cache's writing and reading: copies of rows to and from their slots, bound by bytes. A block a row; its segment is found by
// halving the starts, which lie in the cache.
#include "kernels/cuda/chunk.cuh"

struct kv_args {
    const int32_t *start, *page; // of rows: segments' or k_start
    const int32_t *pos;          // NULL: counted from the segment's start
    int n_seg, max_page, page_len, n_kv;
    int64_t d;
    int64_t row, head;                 // strides of the plain tensor
    int64_t page_at, slot_at, head_at; // and of the pages
};
// The segment that row r belongs to (those without rows are passed over), or -1.
__device__ __forceinline__ int kv_segment(const int32_t *start, int n_seg, int64_t r)
{
    int low = 0, high = n_seg; // start[low] ≤ r < start[high]
    if (r < start[0] || r >= start[n_seg]) return -1;
    while (high - low > 1) {
        const int mid = (low + high) / 2;
        if (start[mid] <= r)
            low = mid;
        else
            high = mid;
    }
    return low;
}
template <class T, bool WIDE, bool WRITE> __global__ void kv_kernel(T *pages, T *x, struct kv_args a)
{
    cu_wait_earlier();
    enum { N = 16 / sizeof(T) };
    const int64_t r = blockIdx.x;
    const int s = kv_segment(a.start, a.n_seg, r);
    if (s < 0) return;
    const int pos = a.pos ? a.pos[r] : (int)(r - a.start[s]), per = (int)((a.d + N - 1) / N);
    T *slot = pages + a.page[(int64_t)s * a.max_page + pos / a.page_len] * a.page_at + pos % a.page_len * a.slot_at;
    for (int j = threadIdx.x; j < a.n_kv * per; j += blockDim.x) {
        T *there = slot + j / per * a.head_at, *here = x + r * a.row + j / per * a.head;
        const int64_t i = (int64_t)(j % per) * N;
        if (WRITE)
            cu_store<WIDE, N>(there, i, a.d, cu_load<WIDE, N>((const T *)here, i, a.d));
        else
            cu_store<WIDE, N>(here, i, a.d, cu_load<WIDE, N>((const T *)there, i, a.d));
    }
}
template <bool WRITE> static void kv_copy(struct device *dev, struct tensor pages, struct tensor x, struct kv_args a)
{
    a.n_kv = (int)x.shape[1], a.d = x.shape[2], a.row = x.stride[0], a.head = x.stride[1];
    a.page_at = pages.stride[0], a.slot_at = pages.stride[1], a.head_at = pages.stride[2];
    const struct tensor all[] = {pages, x};
    const int n = 16 / (int)dtype_size(x.dtype);
    const bool wide = cu_wide(n, all, 2);
    const unsigned threads = cu_row_threads((a.d + n - 1) / n * a.n_kv);
    CU_DTYPE(x.dtype, T, CU_WIDE(wide, WIDE, {
                 CU_LAUNCH_EARLY(dev, (kv_kernel<T, WIDE, WRITE>), (unsigned)x.shape[0], threads, 0, (T *)pages.data, (T *)x.data, a);
             }););
}
static struct kv_args kv_args_of(const struct segments *seg, const int32_t *start, const int32_t *pos)
{
    struct kv_args a = {};
    a.start = start, a.pos = pos, a.page = seg->page, a.n_seg = seg->n_seg, a.max_page = seg->max_page, a.page_len = seg->page_len;
    return a;
}
extern "C" void cuda_kv_write(struct device *dev, struct tensor pages, struct tensor x, const struct segments *seg)
{
    kv_copy<true>(dev, pages, x, kv_args_of(seg, seg->start, seg->pos));
}
extern "C" void cuda_kv_read(struct device *dev, struct tensor out, struct tensor pages, const struct segments *seg, const int32_t *k_start)
{
    kv_copy<false>(dev, pages, out, kv_args_of(seg, k_start, NULL));
}
