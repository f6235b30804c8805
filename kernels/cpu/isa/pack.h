// Packing one panel (panel.h) of a weight in rows.
//
// A panel is the transpose of PANEL_N rows of 32-bit words, a word being an f32 or a pair of bf16: tiles of VL × VL words are loaded from
// VL rows, converted on the way, transposed in registers and stored.
#pragma once
#include "kernels/cpu/isa/nonfinite.h"
#include "kernels/cpu/isa/panel.h"

// The first halves of a and b interleaved (a0 b0 a1 b1 …), and the second halves.
#if defined(VEC_512)
#define PACK_LO(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define PACK_HI(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX2__) && defined(__FMA__)
#define PACK_LO(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define PACK_HI(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define PACK_LO(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define PACK_HI(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

// Row i's word j becomes row j's word i: log2(VL) perfect shuffles.
VEC_FN void pack_transpose(vu v[VL])
{
#pragma GCC unroll 4
    for (int s = 1; s < VL; s *= 2) {
        vu t[VL];
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; i++) {
            t[2 * i] = PACK_LO(v[i], v[i + VL / 2]);
            t[2 * i + 1] = PACK_HI(v[i], v[i + VL / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) v[i] = t[i];
    }
}

// VL values, at any byte.
VEC_FN vf pack_values(const char *p, const enum dtype t)
{
    if (t == DT_E4M3) {
        float v[VL];
        for (int i = 0; i < VL; i++) v[i] = e4m3_to_f32((e4m3)p[i]);
        return vf_load(v);
    }
    return t == DT_F32 ? vf_load((const float *)p) : t == DT_BF16 ? vf_load_bf16((const bf16 *)p) : vf_load_f16((const f16 *)p);
}

VEC_FN int64_t pack_size(const enum dtype t)
{
    return t == DT_F32 ? 4 : t == DT_E4M3 ? 1 : 2;
}

// VL words of a row: VL values for f32, 2 VL for bf16. The carries of exponents that are all ones gather in `told`, which f32 and bf16
// have at the same place, and conversion keeps what is not finite.
VEC_FN vu pack_words(const char *p, const enum dtype from, const enum dtype to, vu *told)
{
    vu w;
    if (to == DT_F32) {
        w = (vu)pack_values(p, from);
        *told |= (w & exponent_bits(DT_F32)) + exponent_one(DT_F32);
        return w;
    }
    if (from == DT_BF16) {
        memcpy(&w, p, sizeof w);
        *told |= (w & exponent_bits(DT_BF16)) + exponent_one(DT_BF16);
        return w;
    }
    bf16 pair[2 * VL];
    vf_store_bf16(pair, pack_values(p, from));
    vf_store_bf16(pair + VL, pack_values(p + VL * pack_size(from), from));
    memcpy(&w, pair, sizeof w);
    *told |= (w & exponent_bits(DT_BF16)) + exponent_one(DT_BF16);
    return w;
}

// VL words to memory that is not read soon: past the caches where the CPU can, whole lines at once.
VEC_FN void pack_store(uint32_t *to, vu v, bool aligned)
{
#ifdef VEC_512
    if (aligned) {
        _mm512_stream_si512((__m512i *)to, (__m512i)v);
        return;
    }
#endif
    (void)aligned;
    memcpy(to, &v, sizeof v);
}

// Whether a value of the panel is, or became by rounding, not finite.
VEC_FN bool pack_panel_as(uint32_t *out, const char *w, int64_t row_bytes, int64_t n_row, int64_t k, const enum dtype from,
                          const enum dtype to)
{
    const int64_t size = pack_size(from), step = to == DT_BF16 ? 2 * VL : VL, words = panel_words(to, k) / PANEL_N;
    const bool aligned = (uintptr_t)out % sizeof(vu) == 0;
    vu told = {0};
    for (int64_t e = 0; e < k; e += step) {
        const int64_t word = to == DT_BF16 ? e / 2 : e, n_word = words - word < VL ? words - word : VL;
        for (int half = 0; half < 2; half++) {
            vu v[VL];
            for (int r = 0; r < VL; r++) {
                const int64_t row = half * VL + r;
                const char *p = w + row * row_bytes + e * size;
                if (row >= n_row) {
                    v[r] = (vu){0};
                } else if (e + step <= k) {
                    v[r] = pack_words(p, from, to, &told);
                } else {
                    char edge[2 * VL * 4] = {0};
                    memcpy(edge, p, (size_t)((k - e) * size));
                    v[r] = pack_words(edge, from, to, &told);
                }
            }
            pack_transpose(v);
            for (int64_t j = 0; j < n_word; j++) pack_store(out + (word + j) * PANEL_N + half * VL, v[j], aligned);
        }
    }
#ifdef VEC_512
    _mm_sfence(); // streamed stores are seen by others only after one
#endif
    uint32_t any = 0;
    for (int i = 0; i < VL; i++) any |= told[i];
    return any & exponent_carry(to);
}

// Panel `at` of a weight (n, k) in rows ldw apart. True if it may hold a value that is not finite (f32 near its end rounds to infinity).
static inline __attribute__((unused)) bool pack_panel(char *out, enum dtype out_type, const char *w, enum dtype w_type, int64_t ldw,
                                                      int64_t n, int64_t k, int64_t at)
{
    const int64_t first = at * PANEL_N, n_row = n - first < PANEL_N ? n - first : PANEL_N;
    const int64_t row_bytes = ldw * pack_size(w_type);
    uint32_t *to = (uint32_t *)out + at * panel_words(out_type, k);
    w += first * row_bytes;
    if (out_type == DT_BF16) {
        if (w_type == DT_F32) return pack_panel_as(to, w, row_bytes, n_row, k, DT_F32, DT_BF16);
        if (w_type == DT_BF16) return pack_panel_as(to, w, row_bytes, n_row, k, DT_BF16, DT_BF16);
        if (w_type == DT_E4M3) return pack_panel_as(to, w, row_bytes, n_row, k, DT_E4M3, DT_BF16);
        return pack_panel_as(to, w, row_bytes, n_row, k, DT_F16, DT_BF16);
    }
    if (w_type == DT_F32) return pack_panel_as(to, w, row_bytes, n_row, k, DT_F32, DT_F32);
    if (w_type == DT_BF16) return pack_panel_as(to, w, row_bytes, n_row, k, DT_BF16, DT_F32);
    return pack_panel_as(to, w, row_bytes, n_row, k, DT_F16, DT_F32);
}
