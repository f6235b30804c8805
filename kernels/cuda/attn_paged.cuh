// What the kernels of paged attention share: which rows and keys a block works on, where they lie, and how states of splits are merged.
#pragma once
#include "kernels/cuda/attn.cuh"

template <class T> struct pages {
    const T *p;
    int64_t page, slot, head; // strides in elements
    int d;
    bool wide;
};
template <class T> struct paged {
    struct heads<const T> q;
    struct heads<T> out;
    struct pages<T> k, v;
    const int32_t *start, *pos, *page;
    int n_seg, max_page, page_len;
    int n_head, n_kv, group, n_tile, n_slot; // n_slot: splits that have a state of their own; 1: the block walks
    float scale;
    int window;
    float *o, *stat; // of (row, head, slot): dv weighted values; largest score, sum
};
template <class T> static struct pages<T> pages_of(struct tensor t) {
    struct pages<T> p = {
        (const T *)t.data, t.stride[0], t.stride[1], t.stride[2], (int)t.shape[3], false
    };
    p.wide = (uintptr_t)t.data % 16 == 0 && p.d % 8 == 0 && p.page % 8 == 0 && p.slot % 8 == 0 && p.head % 8 == 0;
    return p;
}
// What a block works on: rows [first, first + n) of a segment, row i query i / group and head i % group, and keys [from, to].
struct work {
    int seg, first, n, kv, slot;
    int row0, pos0; // token and position of the segment's first query
    int from, to;
};
template <class T> __device__ __forceinline__ bool work_of(struct work *w, const struct paged<T> &f, int block, int each, int split_len)
{
    int lo = 0, hi = f.n_seg;
    w->kv = block % f.n_kv;
    const int tile = block / f.n_kv % f.n_tile, split = block / f.n_kv / f.n_tile;
    while (hi - lo > 1) { // segment s begins at tile start[s] * group / each + s, as in place_of
        const int mid = (lo + hi) / 2;
        if ((int64_t)f.start[mid] * f.group / each + mid <= tile)
            lo = mid;
        else
            hi = mid;
    }
    w->seg = lo;
    w->row0 = f.start[lo];
    w->first = (int)((tile - (int64_t)w->row0 * f.group / each - lo) * each);
    w->n = min(each, (f.start[lo + 1] - w->row0) * f.group - w->first);
    if (w->n <= 0) return false;
    w->pos0 = f.pos[w->row0];
    const int oldest = w->pos0 + w->first / f.group, last = w->pos0 + (w->first + w->n - 1) / f.group;
    w->from = f.window ? max(0, oldest - f.window + 1) : 0;
    w->to = last;
    w->slot = 0;
    if (f.n_slot > 1) {
        w->slot = split;
        w->from = max(w->from, split * split_len);
        w->to = min(w->to, split * split_len + split_len - 1);
    }
    return w->from <= w->to;
}
__device__ __forceinline__ int work_pos(const struct work &w, int row, int group)
{
    return w.pos0 + (w.first + row) / group;
}
template <class T> __device__ __forceinline__ int64_t work_state(const struct work &w, const struct paged<T> &f, int row)
{
    const int at = w.first + row;
    return ((int64_t)(w.row0 + at / f.group) * f.n_head + w.kv * f.group + at % f.group) * f.n_slot + w.slot;
}
template <class H> __device__ __forceinline__ int64_t work_row(const struct work &w, const H &x, int group, int row)
{
    const int at = w.first + row;
    return (w.row0 + at / group) * x.row + (w.kv * group + at % group) * x.head;
}
// (page, slot) of position j.
template <class T> __device__ __forceinline__ int2 slot_at(const struct paged<T> &f, int seg, int j)
{
    return make_int2(f.page[(int64_t)seg * f.max_page + j / f.page_len], j % f.page_len);
}
// A state's largest score and sum become those of it and of a later one; what their values are to be multiplied by. NATURAL: scores in
// units of log e, not log 2.
template <bool NATURAL> __device__ __forceinline__ float power(float x)
{
    return NATURAL ? expf(x) : cu_exp2(x);
}
template <bool NATURAL>
__device__ __forceinline__ void merge(float *top, float *sum, float later_top, float later_sum, float *by, float *later_by)
{
    const float now = fmaxf(*top, later_top), base = now == -INFINITY ? 0.0f : now;
    *by = power<NATURAL>(*top - base);
    *later_by = power<NATURAL>(later_top - base);
    *top = now;
    *sum = fmaf(later_sum, *later_by, *sum * *by);
}
