// What the attention kernels of sm_90 share: tiles in the layout of a warpgroup's products, how they come in, and the products.
//
// A tile of ROWS rows of D values is D / 64 panels, one after another, each of ROWS rows of 64 values (128 bytes) with the 128-byte
// swizzle; it begins at a whole 1024 bytes.
#pragma once
#include "kernels/cuda/attn.cuh"
#include "kernels/cuda/ring.cuh"

// Rows are whole pieces at 16 bytes, however many there are: one row alone takes the way that it takes among others.
template <class T> static bool pieces(const struct heads<T> &h)
{
    return (uintptr_t)h.p % 16 == 0 && h.d % 8 == 0 && h.row % 8 == 0 && h.head % 8 == 0;
}

// ---- the warpgroup that fills -----------------------------------------------------------------------------------------------------------
// n_row of ROWS rows of d ≤ D values to a tile, the rest zeros.
template <int D, int ROWS>
__device__ __forceinline__ void panels_load(smem<unsigned char> tile, const struct heads<const bf16> &h, int64_t row, int head, int n_row)
{
    const int tid = threadIdx.x % 128, piece = tid % 8, r0 = tid / 8;
#pragma unroll 1
    for (int c = 0; c < D / 64; c++) {
        const bool inside = 64 * c + 8 * piece < h.d;
        const smem<unsigned char> to = tile + (c * ROWS * 128 + r0 * 128 + (piece ^ r0 % 8) * 16);
        const bf16 *from = h.p + (row + r0) * h.row + head * h.head + 64 * c + 8 * piece;
#pragma unroll 4
        for (int r = 0; r < ROWS; r += 16, from += 16 * h.row) {
            const bool valid = inside && r0 + r < n_row;
            cu_async_copy16(to.raw(r * 128), valid ? from : h.p, valid);
        }
    }
}
// The slot's copies have begun: it is full when they have arrived.
template <int SLOTS> __device__ __forceinline__ void slot_begun(struct ring_place *at, smem<uint64_t> full)
{
    cu_async_arrive(full.raw(at->slot));
    ring_next<SLOTS>(at);
}

// ---- those that multiply ----------------------------------------------------------------------------------------------------------------
__device__ __forceinline__ void slot_wait(smem<uint64_t> full, int slot, int parity)
{
    cu_mbarrier_wait(full.raw(slot), parity);
    cu_async_fence(); // the copies are not wgmma's own way to shared memory
}
// s (64, N) = 64 rows of a tile from `a` on · (N rows of tile b)ᵀ over D columns: begun. a_rows, b_rows: of the whole tiles.
template <int D, int N>
__device__ __forceinline__ void tiles_begin(float *s, smem<unsigned char> a, int a_rows, smem<unsigned char> b, int b_rows)
{
    const uint64_t at = cu_wgmma_tile(a.raw()), bt = cu_wgmma_tile(b.raw());
    cu_wgmma_begin();
#pragma unroll
    for (int c = 0; c < D / 16; c++)
        cu_wgmma<N>(s, cu_wgmma_on(at, c / 4 * a_rows * 128 + c % 4 * 32), cu_wgmma_on(bt, c / 4 * b_rows * 128 + c % 4 * 32), c > 0);
    cu_wgmma_commit();
}
// o (64, D) += p (64, ROWS), as pairs · the tile's ROWS rows: begun.
template <int D, int ROWS> __device__ __forceinline__ void steps_begin(float *o, unsigned *p, smem<unsigned char> tile)
{
    const uint64_t at = cu_wgmma_steps(tile.raw(), ROWS * 128);
    cu_wgmma_hold<ROWS / 4>(p);
    cu_wgmma_hold<D / 2>(o);
    cu_wgmma_begin();
#pragma unroll
    for (int c = 0; c < ROWS / 16; c++) cu_wgmma_weigh<D>(o, p + 4 * c, cu_wgmma_on(at, 2048 * c));
    cu_wgmma_commit();
}
template <int NS> __device__ __forceinline__ void to_pairs(unsigned *prob, const float (*s)[4]) // d's layout is a's
{
#pragma unroll
    for (int n = 0; n < NS; n++) {
        prob[2 * n] = cu_pair_bf16(s[n][0], s[n][1]);
        prob[2 * n + 1] = cu_pair_bf16(s[n][2], s[n][3]);
    }
}
__device__ __forceinline__ void give_back(smem<uint64_t> barrier) // by each warp
{
    if (threadIdx.x % 32 == 0) cu_mbarrier_arrive(barrier.raw());
}
