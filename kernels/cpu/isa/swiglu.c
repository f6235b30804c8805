// Element-wise ops: add, and SwiGLU's silu(gate) * up with its backward.
#include "kernels/cpu/isa/rowvec.h"
#include "kernels/rows/silu.h"

VEC_FN void add_piece(void *out, const void *a, const void *b, int64_t n, bool bf)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf_store_any(out, bf, i, vf_load_any(a, bf, i) + vf_load_any(b, bf, i));
    int rest = (int)(n - i);
    if (rest) vf_store_any_n(out, bf, i, vf_load_any_n(a, bf, i, rest) + vf_load_any_n(b, bf, i, rest), rest);
}

void ISA_NAME(add)(struct device *dev, struct tensor out, struct tensor a, struct tensor b)
{
    struct pieces p = pieces_of(a.shape[0], a.shape[1], true);
    bool bf = a.dtype == DT_BF16;
    int64_t size = (int64_t)dtype_size(a.dtype);
    CPU_FOR(dev, (double)p.d * 0.2, i, p.n_piece, {
        int64_t at = i * PIECE * size, len = p.d - i * PIECE < PIECE ? p.d - i * PIECE : PIECE;
        if (bf)
            add_piece((char *)out.data + at, (char *)a.data + at, (char *)b.data + at, len, true);
        else
            add_piece((char *)out.data + at, (char *)a.data + at, (char *)b.data + at, len, false);
    });
}

VEC_FN void silu_piece(void *out, const void *g, const void *u, int64_t n, bool bf)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL) vf_store_any(out, bf, i, row_silu_mul(vf_load_any(g, bf, i), vf_load_any(u, bf, i)));
    int rest = (int)(n - i);
    if (rest) vf_store_any_n(out, bf, i, row_silu_mul(vf_load_any_n(g, bf, i, rest), vf_load_any_n(u, bf, i, rest)), rest);
}

void ISA_NAME(silu_mul)(struct device *dev, struct tensor out, struct tensor gate, struct tensor up)
{
    struct pieces p = pieces_of(gate.shape[0], gate.shape[1], tensor_contiguous(out) && tensor_contiguous(gate) && tensor_contiguous(up));
    CPU_FOR(dev, (double)(p.n * p.d) * 0.5, i, p.n_piece, {
        int64_t row = i / p.per_row, col = i % p.per_row * PIECE, len = p.d - col < PIECE ? p.d - col : PIECE;
        if (gate.dtype == DT_BF16)
            silu_piece(row_at(out, row, col), row_at(gate, row, col), row_at(up, row, col), len, true);
        else
            silu_piece(row_at(out, row, col), row_at(gate, row, col), row_at(up, row, col), len, false);
    });
}

VEC_FN void silu_bwd_piece(void *dg, void *du, const void *dout, const void *g, const void *u, int64_t n, bool bf)
{
    for (int64_t i = 0; i < n; i += VL) {
        vf a, b;
        if (i + VL <= n) {
            row_silu_mul_bwd(&a, &b, vf_load_any(dout, bf, i), vf_load_any(g, bf, i), vf_load_any(u, bf, i));
            vf_store_any(dg, bf, i, a);
            vf_store_any(du, bf, i, b);
        } else {
            int rest = (int)(n - i);
            row_silu_mul_bwd(&a, &b, vf_load_any_n(dout, bf, i, rest), vf_load_any_n(g, bf, i, rest), vf_load_any_n(u, bf, i, rest));
            vf_store_any_n(dg, bf, i, a, rest);
            vf_store_any_n(du, bf, i, b, rest);
        }
    }
}

void ISA_NAME(silu_mul_bwd)(struct device *dev, struct tensor dgate, struct tensor dup, struct tensor dout, struct tensor gate,
                            struct tensor up)
{
    struct pieces p = pieces_of(gate.shape[0], gate.shape[1],
                                tensor_contiguous(dgate) && tensor_contiguous(dup) && tensor_contiguous(dout) && tensor_contiguous(gate) &&
                                    tensor_contiguous(up));
    CPU_FOR(dev, (double)(p.n * p.d) * 0.7, i, p.n_piece, {
        int64_t row = i / p.per_row, col = i % p.per_row * PIECE, len = p.d - col < PIECE ? p.d - col : PIECE;
        if (gate.dtype == DT_BF16)
            silu_bwd_piece(row_at(dgate, row, col), row_at(dup, row, col), row_at(dout, row, col), row_at(gate, row, col),
                           row_at(up, row, col), len, true);
        else
            silu_bwd_piece(row_at(dgate, row, col), row_at(dup, row, col), row_at(dout, row, col), row_at(gate, row, col),
                           row_at(up, row, col), len, false);
    });
}
