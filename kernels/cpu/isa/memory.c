// Moving memory: upload, download, zero, and copy between any strides and float types.
#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/nonfinite.h"
#include "kernels/cpu/isa/vec.h"

enum { CHUNK = 1 << 16 }; // bytes or elements a thread takes at a time

static void copy_bytes(struct device *dev, void *out, const void *in, size_t size)
{
    int64_t n = (int64_t)((size + CHUNK - 1) / CHUNK);
    CPU_FOR(dev, (double)size * 0.05, i, n, {
        size_t at = (size_t)i * CHUNK, len = size - at < CHUNK ? size - at : CHUNK;
        memcpy((char *)out + at, (const char *)in + at, len);
    });
}

void ISA_NAME(upload)(struct device *dev, struct tensor out, const void *host)
{
    copy_bytes(dev, out.data, host, tensor_bytes(out));
}

void ISA_NAME(download)(struct device *dev, void *host, struct tensor x)
{
    copy_bytes(dev, host, x.data, tensor_bytes(x));
}

void ISA_NAME(zero)(struct device *dev, struct tensor out)
{
    size_t size = tensor_bytes(out);
    int64_t n = (int64_t)((size + CHUNK - 1) / CHUNK);
    CPU_FOR(dev, (double)size * 0.05, i, n, {
        size_t at = (size_t)i * CHUNK, len = size - at < CHUNK ? size - at : CHUNK;
        memset((char *)out.data + at, 0, len);
    });
}

void ISA_NAME(nonfinite)(struct device *dev, struct tensor count, struct tensor x)
{
    const int64_t total = tensor_numel(x), n_chunk = (total + CHUNK - 1) / CHUNK, size = (int64_t)dtype_size(x.dtype);
    int32_t *out = count.data;
    CPU_FOR(dev, (double)total * 0.1, i, n_chunk, {
        const int64_t at = i * CHUNK, n = total - at < CHUNK ? total - at : CHUNK;
        const void *p = (const char *)x.data + at * size;
        const int64_t bad = nonfinite_values(p, x.dtype, n);
        if (bad) __atomic_fetch_add(out, (int32_t)bad, __ATOMIC_RELAXED);
    });
}

static float read_one(const void *p, enum dtype t, int64_t i)
{
    if (t == DT_F32) return ((const float *)p)[i];
    return t == DT_BF16 ? bf16_to_f32(((const bf16 *)p)[i]) : f16_to_f32(((const f16 *)p)[i]);
}

// n elements, distances so and si apart
static void copy_row(void *out, enum dtype to, int64_t so, const void *in, enum dtype from, int64_t si, int64_t n)
{
    int64_t size = (int64_t)dtype_size(to);
    if (to == from && so == 1 && si == 1) {
        memcpy(out, in, (size_t)(n * size));
    } else if (to == from) {
        for (int64_t i = 0; i < n; i++) memcpy((char *)out + i * so * size, (const char *)in + i * si * size, (size_t)size);
    } else if (so == 1 && si == 1 && from != DT_F16) {
        int64_t i = 0;
        for (; i + VL <= n; i += VL) vf_store_any(out, to == DT_BF16, i, vf_load_any(in, from == DT_BF16, i));
        if (i < n) vf_store_any_n(out, to == DT_BF16, i, vf_load_any_n(in, from == DT_BF16, i, (int)(n - i)), (int)(n - i));
    } else {
        for (int64_t i = 0; i < n; i++) {
            float x = read_one(in, from, i * si);
            if (to == DT_F32)
                ((float *)out)[i * so] = x;
            else
                ((bf16 *)out)[i * so] = f32_to_bf16(x);
        }
    }
}

// (n0, n1, n2) of any strides; contiguous ones become rows of CHUNK.
void ISA_NAME(copy)(struct device *dev, struct tensor out, struct tensor x)
{
    int64_t total = tensor_numel(x), n[3] = {1, 1, 1}, si[3] = {0, 0, 0}, so[3] = {0, 0, 0};
    size_t size_in = dtype_size(x.dtype), size_out = dtype_size(out.dtype);
    double ns = (double)total * 0.3;
    if (tensor_contiguous(x) && tensor_contiguous(out)) {
        int64_t n_chunk = (total + CHUNK - 1) / CHUNK;
        CPU_FOR(dev, ns, i, n_chunk, {
            int64_t at = i * CHUNK, len = total - at < CHUNK ? total - at : CHUNK;
            copy_row((char *)out.data + at * (int64_t)size_out, out.dtype, 1, (char *)x.data + at * (int64_t)size_in, x.dtype, 1, len);
        });
        return;
    }
    for (int i = 0; i < x.rank; i++) {
        n[3 - x.rank + i] = x.shape[i];
        si[3 - x.rank + i] = x.stride[i];
        so[3 - x.rank + i] = out.stride[i];
    }
    CPU_FOR(dev, ns, r, n[0] * n[1], {
        int64_t a = r / n[1], b = r % n[1];
        copy_row((char *)out.data + (a * so[0] + b * so[1]) * (int64_t)size_out, out.dtype, so[2],
                 (char *)x.data + (a * si[0] + b * si[1]) * (int64_t)size_in, x.dtype, si[2], n[2]);
    });
}
