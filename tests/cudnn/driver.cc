// A CUDA driver for tests/cudnn/check, where there is none: it takes code as a GPU's driver does, and can run none. What cuDNN asks of a
// driver while it makes a plan for a device that is only described.
#include <cstddef>
#include <dlfcn.h>

namespace
{
int something;
enum { OK = 0, STUB = 34 }; // CUDA_ERROR_STUB_LIBRARY: this is no driver
int refused()
{
    return STUB;
}
} // namespace

extern "C" {
int cuInit(unsigned)
{
    return OK;
}
int cuDriverGetVersion(int *version)
{
    *version = 13000;
    return OK;
}
int cuGetErrorString(int, const char **text)
{
    *text = "the driver of tests/cudnn runs nothing";
    return OK;
}
int cuGetErrorName(int e, const char **text)
{
    return cuGetErrorString(e, text);
}
int cuModuleLoadData(void **module, const void *)
{
    *module = &something;
    return OK;
}
int cuModuleGetFunction(void **function, void *, const char *)
{
    *function = &something;
    return OK;
}
int cuModuleUnload(void *)
{
    return OK;
}
int cuLibraryLoadData(void **library, const void *, void *, void *, unsigned, void *, void *, unsigned)
{
    *library = &something;
    return OK;
}
int cuLibraryGetKernel(void **kernel, void *, const char *)
{
    *kernel = &something;
    return OK;
}
int cuLibraryUnload(void *)
{
    return OK;
}
int cuKernelGetFunction(void **function, void *)
{
    *function = &something;
    return OK;
}
int cuKernelSetAttribute(int, int, void *, int)
{
    return OK;
}
int cuFuncSetAttribute(void *, int, int)
{
    return OK;
}
#define REFUSED(name)                                                                                                                      \
    int name()                                                                                                                             \
    {                                                                                                                                      \
        return STUB;                                                                                                                       \
    }
REFUSED(cuCtxGetCurrent)
REFUSED(cuCtxGetLimit)
REFUSED(cuCtxPopCurrent)
REFUSED(cuCtxPushCurrent)
REFUSED(cuDeviceGet)
REFUSED(cuDeviceGetCount)
REFUSED(cuGetExportTable)
REFUSED(cuKernelGetAttribute)
REFUSED(cuLaunchCooperativeKernel)
REFUSED(cuLaunchKernel)
REFUSED(cuLaunchKernelEx)
REFUSED(cuLibraryLoadFromFile)
REFUSED(cuLinkAddData)
REFUSED(cuLinkComplete)
REFUSED(cuLinkCreate)
REFUSED(cuLinkDestroy)
REFUSED(cuOccupancyMaxPotentialClusterSize)
REFUSED(cuStreamGetCtx)
REFUSED(cuTensorMapEncodeIm2col)
REFUSED(cuTensorMapEncodeTiled)
int cuGetProcAddress_v2(const char *name, void **function, int, unsigned long, int *found)
{
    *function = dlsym(RTLD_DEFAULT, name);
    if (!*function) *function = (void *)refused;
    if (found) *found = 0;
    return OK;
}
}
