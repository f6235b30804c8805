// The libraries, as kernels/cuda/library.cu finds them. DISTILL_SIMT_NO_LIBRARY: it finds none; =cudnn: that one not.
#include "kernels/cuda/library.cuh"

#include <cublasLt.h>
#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

void *library_open(const char *stem)
{
    static int it;
    const char *none = getenv("DISTILL_SIMT_NO_LIBRARY");
    if (none && (strcmp(none, "cudnn") || !strcmp(stem, "cudnn"))) return nullptr;
    return strcmp(stem, "cublasLt") && strcmp(stem, "cudnn") ? nullptr : &it;
}
void *library_symbol(void *, const char *name)
{
#define CALL(f)                                                                                                                            \
    if (!strcmp(name, #f)) return (void *)f;
    CALL(cublasLtCreate)
    CALL(cublasLtDestroy)
    CALL(cublasLtGetVersion)
    CALL(cublasLtMatmulDescCreate)
    CALL(cublasLtMatmulDescDestroy)
    CALL(cublasLtMatmulDescSetAttribute)
    CALL(cublasLtMatrixLayoutCreate)
    CALL(cublasLtMatrixLayoutDestroy)
    CALL(cublasLtMatmulPreferenceCreate)
    CALL(cublasLtMatmulPreferenceDestroy)
    CALL(cublasLtMatmulPreferenceSetAttribute)
    CALL(cublasLtMatmulAlgoGetHeuristic)
    CALL(cublasLtMatmulAlgoCheck)
    CALL(cublasLtMatmul)
    CALL(cudnnCreate)
    CALL(cudnnDestroy)
    CALL(cudnnSetStream)
    CALL(cudnnGetVersion)
    CALL(cudnnBackendCreateDescriptor)
    CALL(cudnnBackendDestroyDescriptor)
    CALL(cudnnBackendSetAttribute)
    CALL(cudnnBackendGetAttribute)
    CALL(cudnnBackendFinalize)
    CALL(cudnnBackendExecute)
#undef CALL
    return nullptr;
}
