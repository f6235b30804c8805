// AdamW with states of 8 bits: a block of the parameter at a time, its states in f32 on the stack. Loops are plain C over a block, in
// which compilers find the vectors.
#include "kernels/rows/adamw8.h"

#include "kernels/cpu/isa/isa.h"

struct block8 {
    void *w;
    uint8_t *m, *v;
    float *m_unit, *v_unit;
    const float *grad;
    uint64_t pair; // of the first element, in the parameter
};

static void adamw8_block(const struct block8 *b, int n, bool bf, const struct adamw_row *row, const struct adamw8 *a)
{
    float x[OP_ADAMW8_BLOCK], m[OP_ADAMW8_BLOCK], v[OP_ADAMW8_BLOCK], m_most = 0, v_most = 0;
    uint32_t word[OP_ADAMW8_BLOCK / 2][4]; // two an element
    uint8_t m_code[OP_ADAMW8_BLOCK], v_code[OP_ADAMW8_BLOCK];
    const struct adamw_row r = *row;
    float m_unit = *b->m_unit, v_unit = *b->v_unit;
    for (int i = 0; i < n; i++) x[i] = bf ? bf16_to_f32(((bf16 *)b->w)[i]) : ((float *)b->w)[i];
    for (int i = 0; i < n; i++) m[i] = row_m_value(b->m[i], m_unit);
    for (int i = 0; i < n; i++) v[i] = row_v_value(b->v[i], v_unit);
    for (int i = 0; i < n; i++) row_adamw(&x[i], &m[i], &v[i], b->grad[i], &r);
    for (int i = 0; i < n; i++) {
        m_most = fabsf(m[i]) > m_most ? fabsf(m[i]) : m_most;
        v_most = v[i] > v_most ? v[i] : v_most;
    }
    for (int i = 0; i < (n + 1) / 2; i++) {
        const struct rng_block w = row_adamw8_draw(a, b->pair + (uint64_t)i);
        for (int k = 0; k < 4; k++) word[i][k] = w.v[k];
    }
    const uint32_t *draw = word[0];
    m_unit = m_most / ROW_M_MOST, v_unit = v_most / ROW_V_MOST;
    for (int i = 0; i < n; i++) m_code[i] = row_m_code(m[i], m_unit, draw[2 * i] >> 16);
    for (int i = 0; i < n; i++) v_code[i] = row_v_code(v[i], v_unit, draw[2 * i + 1] & 0xffff);
    memcpy(b->m, m_code, (size_t)n);
    memcpy(b->v, v_code, (size_t)n);
    *b->m_unit = m_unit, *b->v_unit = v_unit;
    if (bf)
        for (int i = 0; i < n; i++) ((bf16 *)b->w)[i] = row_bf16_by_chance(x[i], draw[2 * i] & 0xffff);
    else
        memcpy(b->w, x, (size_t)n * sizeof *x);
}

void ISA_NAME(adamw8)(struct device *dev, struct tensor w, struct tensor m, struct tensor v, struct tensor m_unit, struct tensor v_unit,
                      struct tensor grad, const struct adamw8 *a)
{
    enum { EACH = OP_ADAMW8_BLOCK };
    const struct adamw_row row = adamw_prepare(&a->adamw);
    const int64_t n = w.shape[0], n_block = (n + EACH - 1) / EACH, size = (int64_t)dtype_size(w.dtype);
    CPU_FOR(dev, (double)n * 6.0, p, n_block, {
        const int64_t i = p * EACH;
        const struct block8 b = {(char *)w.data + i * size,   (uint8_t *)m.data + i,    (uint8_t *)v.data + i,
                                 (float *)m_unit.data + p,    (float *)v_unit.data + p, (const float *)grad.data + i,
                                 (uint64_t)(a->first + i) / 2};
        adamw8_block(&b, (int)(n - i < EACH ? n - i : EACH), w.dtype == DT_BF16, &row, a);
    });
}
