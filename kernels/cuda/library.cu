// Where libraries are looked for.
#include "kernels/cuda/library.cuh"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *open_in(const char *folder, size_t n, const char *stem)
{
    static const char *const versions[] = {".13", ".12", ".9", ""}; // of cuBLASLt 13 and 12, of cuDNN 9
    char path[1024];
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        snprintf(path, sizeof path, "%.*s%slib%s.so%s", (int)n, folder, n ? "/" : "", stem, versions[i]);
        void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        if (library) return library;
    }
    return NULL;
}

void *library_open(const char *stem)
{
    const char *list = getenv("DISTILL_CUDA_LIBS"), *home = getenv("CUDA_HOME");
    void *library = NULL;
    for (const char *p = list; p && *p && !library; p += strcspn(p, ":"), p += *p == ':')
        if (strcspn(p, ":")) library = open_in(p, strcspn(p, ":"), stem);
    if (!library) library = open_in("", 0, stem);
    if (!library && home) {
        char folder[1024];
        snprintf(folder, sizeof folder, "%s/lib64", home);
        library = open_in(folder, strlen(folder), stem);
    }
    static const char usual[] = "/usr/local/cuda/lib64";
    return library ? library : open_in(usual, strlen(usual), stem);
}

void *library_symbol(void *library, const char *name)
{
    return dlsym(library, name);
}
