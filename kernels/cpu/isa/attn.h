// What the attention kernels share: the two forms in which tile.h wants rows of queries, keys and values, and one row's softmax.
//
// Everything is counted in 32-bit words. With `dp` (both sides bf16 and the CPU multiplies bf16 pairs) a word is a pair, else an f32:
//   x form: a row after another, words along the row (pairs along the row)
//   w form: the rows are the steps of the product: f32 [col / PANEL_N][row][PANEL_N], dp the same with rows 2i and 2i+1 paired in a word
//   panels: the columns are the steps: [row / PANEL_N][col (pairs)][PANEL_N], as a packed weight
// Columns are padded with zeros to words_x() or cols_pad(), rows to whole pairs and panels.
#pragma once
#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/tile.h"

#ifdef TILE_DP
enum { ATTN_DP = 1 };
#else
enum { ATTN_DP = 0 };
#endif
enum {
    ATTN_KEYS = 128,        // keys of a block, counted from position 0 of the document: part of the result's definition
    ATTN_ROWS = 4 * TILE_M, // rows (query, head of the group) of a task
};

VEC_FN int64_t round_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b * b;
}
VEC_FN int64_t cols_pad(int64_t d)
{
    return round_up(d, PANEL_N);
}
VEC_FN int64_t words_x(int64_t d, bool dp)
{
    return dp ? (d + 1) / 2 : d;
}
VEC_FN const char *elem(struct tensor t, int64_t off)
{
    return (const char *)t.data + off * (t.dtype == DT_BF16 ? 2 : 4);
}

// One row of d elements in x form.
static inline void row_x(uint32_t *out, const void *src, bool bf16_src, int64_t d, bool dp)
{
    if (dp) {
        memcpy(out, src, (size_t)d * 2);
        if (d % 2) ((bf16 *)out)[d] = 0;
        return;
    }
    int64_t i = 0;
    for (; i + VL <= d; i += VL) vf_store((float *)out + i, vf_load_any(src, bf16_src, i));
    if (i < d) vf_store_n((float *)out + i, vf_load_any_n(src, bf16_src, i, (int)(d - i)), (int)(d - i));
}

// One step of the w form: one row, or with dp rows a and b (NULL: zeros) paired. `next` words from PANEL_N columns to the next.
static inline void row_w(uint32_t *out, int64_t next, const void *a, const void *b, bool bf16_src, int64_t d, bool dp)
{
    for (int64_t i = 0; i < d; i += PANEL_N, out += next)
        for (int64_t j = i; j < i + PANEL_N; j += VL) {
            const int n = d - j >= VL ? VL : d - j > 0 ? (int)(d - j) : 0;
            float *to = (float *)out + (j - i);
            if (dp) {
                vf lo = n == VL ? vf_load_bf16((const bf16 *)a + j) : vf_load_bf16_n((const bf16 *)a + j, n), hi = vf_zero();
                if (b) hi = n == VL ? vf_load_bf16((const bf16 *)b + j) : vf_load_bf16_n((const bf16 *)b + j, n);
                vf_store(to, (vf)((vu)lo >> 16 | (vu)hi));
            } else {
                vf_store(to, n == VL ? vf_load_any(a, bf16_src, j) : vf_load_any_n(a, bf16_src, j, n));
            }
        }
}

// VL rows of VL words turned: out[i * ld + r] = in[r][i].
static inline void turn(uint32_t *out, int64_t ld, const uint32_t *in, int64_t in_ld)
{
#ifdef VEC_512
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(in + i * in_ld);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { // a[i + c]: column c of each 128-bit part, rows i .. i + 3
        a[i] = (__m512)_mm512_unpacklo_pd((__m512d)b[i], (__m512d)b[i + 2]);
        a[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)b[i], (__m512d)b[i + 2]);
        a[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)b[i + 1], (__m512d)b[i + 3]);
        a[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)b[i + 1], (__m512d)b[i + 3]);
    }
    for (int c = 0; c < 4; c++) {
        b[c] = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88); // parts 0, 2 of both
        b[4 + c] = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd);
        b[8 + c] = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
        b[12 + c] = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
    }
    for (int c = 0; c < 4; c++) {
        _mm512_storeu_ps(out + c * ld, _mm512_shuffle_f32x4(b[c], b[8 + c], 0x88));
        _mm512_storeu_ps(out + (8 + c) * ld, _mm512_shuffle_f32x4(b[c], b[8 + c], 0xdd));
        _mm512_storeu_ps(out + (4 + c) * ld, _mm512_shuffle_f32x4(b[4 + c], b[12 + c], 0x88));
        _mm512_storeu_ps(out + (12 + c) * ld, _mm512_shuffle_f32x4(b[4 + c], b[12 + c], 0xdd));
    }
#else
    for (int r = 0; r < VL; r++)
        for (int i = 0; i < VL; i++) out[i * ld + r] = in[r * in_ld + i];
#endif
}

// One panel from n ≤ PANEL_N rows in x form, in_ld words apart: out [words][PANEL_N].
static inline void panel_of(uint32_t *out, const uint32_t *in, int64_t in_ld, int64_t n, int64_t words)
{
    for (int64_t r = 0; r < PANEL_N; r += VL) {
        int64_t i = 0;
        if (n - r >= VL)
            for (; i + VL <= words; i += VL) turn(out + i * PANEL_N + r, PANEL_N, in + r * in_ld + i, in_ld);
        for (; i < words; i++)
            for (int64_t j = r; j < r + VL; j++) out[i * PANEL_N + j] = j < n ? in[j * in_ld + i] : 0;
    }
}

// c (rows, cols) = [c +] x · w: rows in tiles, columns in steps of PANEL_N; cols is rounded up, so c and w are that wide.
// w_next: words from PANEL_N columns of w to the next.
static inline void attn_product(bool dp, int64_t rows, int64_t cols, int64_t k, const void *x, int64_t x_row, int64_t x_k,
                                const uint32_t *w, int64_t w_next, float *c, int64_t ldc, bool add)
{
    for (int64_t r = 0; r < rows; r += TILE_M)
        for (int64_t j = 0; j < cols; j += PANEL_N) {
            struct tile t = {.k = k,
                             .x = (const char *)x + r * x_row,
                             .x_row = x_row,
                             .x_k = x_k,
                             .w = w + j / PANEL_N * w_next,
                             .ldw = PANEL_N,
                             .c = c + r * ldc + j,
                             .ldc = ldc,
                             .add = add};
            const int n = rows - r < TILE_M ? (int)(rows - r) : TILE_M;
#ifdef TILE_DP
            if (dp) {
                tile_hh(&t, n);
                continue;
            }
#endif
            (void)dp;
            tile_ff(&t, n);
        }
}

// Scores s[0 .. n) of one row, those before lo hidden: scaled in place, the hidden ones (up to a whole vector) -inf. Returns the largest.
static __attribute__((noinline, unused)) float row_scale(float *s, int64_t lo, int64_t n, float scale)
{
    const vf hidden = vf_set1(-INFINITY), by = vf_set1(scale);
    vf top = hidden;
    for (int64_t j = 0; j < n; j += VL) {
        vf a = vf_load(s + j) * by;
        if (n - j < VL) a = vf_select_n((int)(n - j), a, hidden);
        if (lo > j) a = vf_select_n(lo - j < VL ? (int)(lo - j) : VL, hidden, a);
        vf_store(s + j, a);
        top = vf_max(a, top);
    }
    return vf_hmax(top);
}
VEC_FN void store_p(float *p, int64_t j, vf a, bool dp)
{
#ifdef TILE_DP
    if (dp) {
        _mm256_storeu_si256((__m256i *)((bf16 *)p + j), (__m256i)_mm512_cvtneps_pbh(a));
        return;
    }
#endif
    (void)dp;
    vf_store(p + j, a);
}
// p[0 .. n) = e^(s - top), zeros up to `end`; p in x form (bf16 with dp; else it may be s). Returns the sum, added in a fixed order.
// TRAP: with dp the sum is of the unrounded numbers, as the backward pass has it.
static __attribute__((noinline, unused)) float row_exp(void *p, const float *s, int64_t n, int64_t end, float top, bool dp)
{
    vf sum = vf_zero();
    int64_t j = 0;
    for (; j < n; j += VL) {
        vf a = vf_exp(vf_load(s + j) - vf_set1(top));
        sum = sum + a;
        store_p(p, j, a, dp);
    }
    for (; j < end; j += VL) store_p(p, j, vf_zero(), dp);
    return vf_sum(sum);
}
static __attribute__((noinline, unused)) void row_times(float *o, int64_t n, float a)
{
    for (int64_t j = 0; j < n; j += VL) vf_store(o + j, vf_load(o + j) * vf_set1(a));
}
// out = o / l in the activations' type.
static __attribute__((noinline, unused)) void row_out(void *out, bool is_bf16, const float *o, int64_t d, float l)
{
    const vf by = vf_set1(l > 0 ? 1.0f / l : 0.0f);
    int64_t j = 0;
    for (; j + VL <= d; j += VL) vf_store_any(out, is_bf16, j, vf_load(o + j) * by);
    if (j < d) vf_store_any_n(out, is_bf16, j, vf_load(o + j) * by, (int)(d - j));
}
