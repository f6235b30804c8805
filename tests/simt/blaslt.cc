// cuBLASLt as its documentation defines it, computed plainly: layouts by columns, op, epilogue, beta. It refuses what the library's fast
// algorithms refuse (bf16 columns that do not begin at 16 bytes), so that our own product has its turn. FP8 as cuBLAS 13's documentation
// has it under "128-element 1D and 128x128 2D block scaling": which pairs of modes, how scales lie, what must be a multiple of what.
#include "kernels/base/fp8.h"
#include "kernels/base/half.h"

#include <cublasLt.h>
#include <vector>

struct simt_blaslt {
    int none;
};
struct simt_matmul {
    cublasOperation_t ta, tb;
    cublasLtEpilogue_t epilogue;
    const void *bias;
    cudaDataType_t bias_type;
    int32_t scale_mode[2]; // of a and b
    const float *scale[2];
};
struct simt_layout {
    cudaDataType_t type;
    int64_t rows, cols, ld;
};
struct simt_preference {
    unsigned align[4];
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = new simt_blaslt();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion()
{
    return 0;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *d = new simt_matmul();
    (*d)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t which, const void *value, size_t size)
{
    void *to = nullptr;
    size_t want = 4;
    switch (which) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        to = &d->ta;
        break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
        to = &d->tb;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        to = &d->epilogue;
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        to = &d->bias;
        want = sizeof d->bias;
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        to = &d->bias_type;
        break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
        to = &d->scale_mode[which - CUBLASLT_MATMUL_DESC_A_SCALE_MODE];
        break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        to = &d->scale[which - CUBLASLT_MATMUL_DESC_A_SCALE_POINTER];
        want = sizeof d->scale[0];
        break;
    }
    if (!to || size != want) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols, int64_t ld)
{
    *l = new simt_layout{type, (int64_t)rows, (int64_t)cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    *p = new simt_preference{{256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t which,
                                                    const void *value, size_t size)
{
    if (which == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return size == 8 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    if (size != 4) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&p->align[which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, 4);
    return CUBLAS_STATUS_SUCCESS;
}

namespace
{
size_t size_of(cudaDataType_t t)
{
    return t == CUDA_R_32F ? 4 : t == CUDA_R_8F_E4M3 ? 1 : 2;
}
float get(const void *p, cudaDataType_t t, int64_t i)
{
    if (t == CUDA_R_8F_E4M3) return e4m3_to_f32(((const e4m3 *)p)[i]);
    return t == CUDA_R_32F ? ((const float *)p)[i] : bf16_to_f32(((const bf16 *)p)[i]);
}
bool fits(const simt_matmul *d, const simt_layout *a, const simt_layout *b, const simt_layout *c)
{
    const int64_t m = d->ta ? a->cols : a->rows, k = d->ta ? a->rows : a->cols, k2 = d->tb ? b->cols : b->rows,
                  n = d->tb ? b->rows : b->cols;
    const bool fp8 = a->type == CUDA_R_8F_E4M3, blocks[2] = {d->scale_mode[0] == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F,
                                                             d->scale_mode[1] == CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F};
    for (int i = 0; i < 2; i++)
        if (fp8 ? !blocks[i] && d->scale_mode[i] != CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F : d->scale_mode[i] != 0) return false;
    if (fp8 && (!d->ta || d->tb || m % 4 || n % 4 || (blocks[0] && blocks[1]) || d->epilogue != CUBLASLT_EPILOGUE_DEFAULT ||
                (uintptr_t)d->scale[0] % 16 || (uintptr_t)d->scale[1] % 16 || !d->scale[0] || !d->scale[1]))
        return false;
    return a->type == b->type && c->type != CUDA_R_8F_E4M3 && k == k2 && c->rows == m && c->cols == n && a->ld >= a->rows &&
           b->ld >= b->rows && c->ld >= c->rows && (a->type != CUDA_R_32F || c->type == CUDA_R_32F);
}
} // namespace

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t p, int most,
                                              cublasLtMatmulHeuristicResult_t *result, int *n)
{
    *n = 0;
    if (c != out || !fits(d, a, b, out) || most < 1) return CUBLAS_STATUS_INVALID_VALUE;
    const bool even = a->ld * size_of(a->type) % 16 == 0 && b->ld * size_of(b->type) % 16 == 0 && out->ld * size_of(out->type) % 16 == 0 &&
                      p->align[0] >= 16 && p->align[1] >= 16 && p->align[3] >= 16;
    if (a->type != CUDA_R_32F && !even) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a->type == CUDA_R_8F_E4M3 && a->rows % 16) return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(result, 0, sizeof *result);
    *n = 1;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    memset(result, 0, sizeof *result);
    return CUBLAS_STATUS_SUCCESS;
}

namespace
{
// The scale of op(a)'s row (op(b)'s column) i at k: pieces of 128 along k, the rows along; or 128 × 128, k along.
float scale_at(const simt_matmul &d, int which, int64_t i, int64_t n, int64_t k, int64_t k_len)
{
    const int64_t l4 = ((k_len + 127) / 128 + 3) / 4 * 4;
    if (!d.scale_mode[which]) return 1;
    return d.scale[which][d.scale_mode[which] == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F ? k / 128 * n + i : i / 128 * l4 + k / 128];
}
void compute(const simt_matmul &d, float al, const void *a, const simt_layout &la, const void *b, const simt_layout &lb, float be,
             void *out, const simt_layout &lo)
{
    const int64_t k_len = d.ta ? la.rows : la.cols;
    simt::device_open(true);
    std::vector<float> row((size_t)(lo.rows * k_len)), column((size_t)k_len); // op(a) by rows, a column of op(b)
    for (int64_t i = 0; i < lo.rows; i++)
        for (int64_t k = 0; k < k_len; k++)
            row[(size_t)(i * k_len + k)] = get(a, la.type, d.ta ? i * la.ld + k : k * la.ld + i) * scale_at(d, 0, i, lo.rows, k, k_len);
    for (int64_t j = 0; j < lo.cols; j++) {
        for (int64_t k = 0; k < k_len; k++)
            column[(size_t)k] = get(b, lb.type, d.tb ? k * lb.ld + j : j * lb.ld + k) * scale_at(d, 1, j, lo.cols, k, k_len);
        for (int64_t i = 0; i < lo.rows; i++) {
            const float *x = row.data() + i * k_len;
            double part[4] = {0, 0, 0, 0};
            int64_t k = 0;
            for (; k + 4 <= k_len; k += 4)
                for (int l = 0; l < 4; l++) part[l] += (double)x[k + l] * column[(size_t)(k + l)];
            for (; k < k_len; k++) part[0] += (double)x[k] * column[(size_t)k];
            double v = al * (part[0] + part[1] + part[2] + part[3]);
            if (d.epilogue == CUBLASLT_EPILOGUE_BIAS) v += get(d.bias, d.bias_type, i);
            if (be != 0) v += be * get(out, lo.type, j * lo.ld + i);
            if (lo.type == CUDA_R_32F)
                ((float *)out)[j * lo.ld + i] = (float)v;
            else
                ((bf16 *)out)[j * lo.ld + i] = f32_to_bf16((float)v);
        }
    }
    simt::device_open(false);
}
} // namespace

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void *alpha, const void *a, cublasLtMatrixLayout_t la,
                              const void *b, cublasLtMatrixLayout_t lb, const void *beta, const void *c, cublasLtMatrixLayout_t, void *out,
                              cublasLtMatrixLayout_t lo, const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t)
{
    if (simt_launch_check()) return (cublasStatus_t)13; // execution failed
    if (!fits(d, la, lb, lo) || c != out) return CUBLAS_STATUS_INVALID_VALUE;
    const float al = *(const float *)alpha, be = *(const float *)beta;
    const simt_matmul desc = *d;
    const simt_layout a_is = *la, b_is = *lb, out_is = *lo;
    simt_run([=] { compute(desc, al, a, a_is, b, b_is, be, out, out_is); });
    return CUBLAS_STATUS_SUCCESS;
}
