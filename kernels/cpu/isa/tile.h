// The inner tile of every product of ours: c (rows, 2 vectors or 4) = [c +] x (rows, k) · w (k, the same), for linear layers over packed
// weights and for both products of attention.
//
// An element of c is one accumulator, added to in the order of k by one kind of instruction, in tiles of every size: which rows share a
// tile never shows in the bits, and a sum may be cut along k and continued from memory. Strides of x are in bytes and free, so that x may
// be a transposed matrix; w comes as panels (panel.h) or as f32 rows ldw apart.
#pragma once
#include "kernels/cpu/isa/panel.h"

#ifdef VEC_512
enum { TILE_M = 12 }; // rows of a full tile: 24 of 32 registers hold sums
#elif defined(__AVX2__) && defined(__FMA__)
enum { TILE_M = 6 };
#else
enum { TILE_M = 4 };
#endif
#if defined(VEC_512) && defined(__AVX512BF16__)
#define TILE_DP 1 // vdpbf16ps
#endif

struct tile {
    int64_t k;          // steps along k
    const void *x;      // f32, or bf16 pairs for tile_hh
    int64_t x_row, x_k; // bytes from row to row, from step to step (a step of tile_hh is a pair)
    const void *w, *w2; // w2: the second pair of vectors, when there are four
    int64_t ldw;        // words from step to step
    float *c;
    int64_t ldc; // elements; the second pair of vectors stands at c + 2 * VL
    bool add;    // to what c holds, else to 0
};

// x at row r: three bases and two strides keep it within the addressing modes.
#define TILE_X(T, r) ((const T *)(((r) < 4 ? b0 : (r) < 8 ? b1 : b2) + ((r)&3) * t->x_row))
#define TILE_BASES const char *b0 = t->x, *b1 = b0 + (mr > 4 ? 4 * t->x_row : 0), *b2 = b0 + (mr > 8 ? 8 * t->x_row : 0)

VEC_FN void tile_begin(const struct tile *t, const int mr, const int nv, vf acc[TILE_M][4])
{
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) acc[r][j] = t->add ? vf_load(t->c + r * t->ldc + j * VL) : vf_zero();
}
VEC_FN void tile_end(const struct tile *t, const int mr, const int nv, vf acc[TILE_M][4])
{
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) vf_store(t->c + r * t->ldc + j * VL, acc[r][j]);
}

// f32 x, f32 w.
VEC_FN void tile_ff_body(const struct tile *t, const int mr, const int nv)
{
    vf acc[TILE_M][4];
    tile_begin(t, mr, nv, acc);
    TILE_BASES;
    const float *w = t->w, *w2 = t->w2;
    for (int64_t i = 0; i < t->k; i++) {
        vf b[4];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) b[j] = vf_load(j < 2 ? w + j * VL : w2 + (j - 2) * VL);
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++) {
            vf a = vf_set1(*TILE_X(float, r));
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[r][j] = vf_fma(a, b[j], acc[r][j]);
        }
        w += t->ldw;
        if (nv > 2) w2 += t->ldw;
        b0 += t->x_k;
        if (mr > 4) b1 += t->x_k;
        if (mr > 8) b2 += t->x_k;
    }
    tile_end(t, mr, nv, acc);
}

// f32 x, bf16 pairs w: the low half is the even step, the high half the odd one. k counts single steps here.
VEC_FN void tile_fh_body(const struct tile *t, const int mr, const int nv)
{
    vf acc[TILE_M][4];
    tile_begin(t, mr, nv, acc);
    TILE_BASES;
    const uint32_t *w = t->w, *w2 = t->w2;
    for (int64_t i = 0; i < t->k; i++) {
        vf b[4];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            vu u = (vu)vf_load((const float *)(j < 2 ? w + j * VL : w2 + (j - 2) * VL));
            b[j] = i & 1 ? (vf)(u & 0xffff0000u) : (vf)(u << 16);
        }
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++) {
            vf a = vf_set1(*TILE_X(float, r));
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[r][j] = vf_fma(a, b[j], acc[r][j]);
        }
        if (i & 1) {
            w += t->ldw;
            if (nv > 2) w2 += t->ldw;
        }
        b0 += t->x_k;
        if (mr > 4) b1 += t->x_k;
        if (mr > 8) b2 += t->x_k;
    }
    tile_end(t, mr, nv, acc);
}

#ifdef TILE_DP
// bf16 pairs x, bf16 pairs w.
VEC_FN void tile_hh_body(const struct tile *t, const int mr, const int nv)
{
    vf acc[TILE_M][4];
    tile_begin(t, mr, nv, acc);
    TILE_BASES;
    const uint32_t *w = t->w, *w2 = t->w2;
    for (int64_t i = 0; i < t->k; i++) {
        __m512bh b[4];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) b[j] = (__m512bh)_mm512_loadu_si512(j < 2 ? w + j * VL : w2 + (j - 2) * VL);
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++) {
            int32_t pair;
            memcpy(&pair, TILE_X(char, r), 4); // a row may start between words
            __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[r][j] = _mm512_dpbf16_ps(acc[r][j], a, b[j]);
        }
        w += t->ldw;
        if (nv > 2) w2 += t->ldw;
        b0 += t->x_k;
        if (mr > 4) b1 += t->x_k;
        if (mr > 8) b2 += t->x_k;
    }
    tile_end(t, mr, nv, acc);
}
#endif

// mr 1 .. TILE_M rows; wide (four vectors) up to TILE_M / 2 rows.
#define TILE_ONE(body, n)                                                                                                                  \
    case n:                                                                                                                                \
        if (n <= TILE_M) body(t, n <= TILE_M ? n : 1, 2);                                                                                  \
        break;
#define TILE_WIDE(body, n)                                                                                                                 \
    case n:                                                                                                                                \
        if (n <= TILE_M / 2) body(t, n <= TILE_M / 2 ? n : 1, 4);                                                                          \
        break;
#define TILE_ENTRY(name, body)                                                                                                             \
    static __attribute__((noinline, unused)) void name(const struct tile *t, int mr)                                                       \
    {                                                                                                                                      \
        switch (mr) {                                                                                                                      \
            TILE_ONE(body, 1)                                                                                                              \
            TILE_ONE(body, 2)                                                                                                              \
            TILE_ONE(body, 3)                                                                                                              \
            TILE_ONE(body, 4)                                                                                                              \
            TILE_ONE(body, 5)                                                                                                              \
            TILE_ONE(body, 6)                                                                                                              \
            TILE_ONE(body, 7)                                                                                                              \
            TILE_ONE(body, 8)                                                                                                              \
            TILE_ONE(body, 9)                                                                                                              \
            TILE_ONE(body, 10)                                                                                                             \
            TILE_ONE(body, 11)                                                                                                             \
            TILE_ONE(body, 12)                                                                                                             \
        }                                                                                                                                  \
    }                                                                                                                                      \
    static __attribute__((noinline, unused)) void name##_wide(const struct tile *t, int mr)                                                \
    {                                                                                                                                      \
        switch (mr) {                                                                                                                      \
            TILE_WIDE(body, 1)                                                                                                             \
            TILE_WIDE(body, 2)                                                                                                             \
            TILE_WIDE(body, 3)                                                                                                             \
            TILE_WIDE(body, 4)                                                                                                             \
            TILE_WIDE(body, 5)                                                                                                             \
            TILE_WIDE(body, 6)                                                                                                             \
        }                                                                                                                                  \
    }
TILE_ENTRY(tile_ff, tile_ff_body)
TILE_ENTRY(tile_fh, tile_fh_body)
#ifdef TILE_DP
TILE_ENTRY(tile_hh, tile_hh_body)
#endif
