// Whether cuDNN has plans for the attention that kernels/cuda/cudnn.cu asks of it, on an H100, without one: the library makes plans for a
// device that is only described (NVIDIA's "deviceless" compilation). The graphs are built by the program's own code; the library checks
// them, chooses engines, compiles their kernels and says what memory they need. What the kernels compute is not seen here.
#include "kernels/cuda/cudnn_graph.cuh"
#include "kernels/cuda/library.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace
{
const char h100[] =
    "{\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":13000,\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
    "\"regsPerBlock\":65536,\"multiProcessorCount\":132,\"smCountOrigin\":0,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"oversizedSharedMemoryPerBlock\":0,\"reservedSharedMemoryPerBlock\":1024,"
    "\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,"
    "\"isTccDriver\":0,\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000,\"memoryBusWidth\":5120,"
    "\"l2CacheSize\":52428800,\"totalGlobalMem\":85028765696,\"deviceName\":\"NVIDIA H100 80GB HBM3\"}";

struct shape {
    const char *name;
    int n_seg, max_len, n_head, n_kv, dk, dv, window;
    int64_t n_row;
    bool wide; // rows of q and its gradient are those of a fused projection
};
const shape shapes[] = {
    {"0.5B, 8 documents", 8, 4096, 14, 2, 64, 64, 0, 16384, false},
    {"1.5B, 8 documents", 8, 4096, 12, 2, 128, 128, 0, 16384, false},
    {"1.5B, 64 documents", 64, 1024, 12, 2, 128, 128, 0, 16384, false},
    {"7B, one document", 1, 32768, 28, 4, 128, 128, 0, 32768, false},
    {"a head of keys a head", 4, 2048, 16, 16, 128, 128, 0, 8192, false},
    {"a window", 4, 8192, 32, 8, 128, 128, 1024, 16384, false},
    {"short rows", 256, 128, 12, 2, 64, 64, 0, 8192, false},
    {"heads of 96", 4, 2048, 16, 8, 96, 96, 0, 4096, false},
    {"heads of 192 and 128", 4, 2048, 16, 16, 192, 128, 0, 8192, false},
    {"heads of 256", 4, 2048, 8, 4, 256, 256, 0, 8192, false},
    {"a fused projection's rows", 4, 2048, 12, 2, 128, 128, 0, 8192, true},
};

sdpa sdpa_of(const shape &x, bool backward)
{
    sdpa s;
    memset(&s, 0, sizeof s);
    s.backward = backward;
    s.n_seg = x.n_seg, s.max_len = x.max_len, s.n_head = x.n_head, s.n_kv = x.n_kv, s.dk = x.dk, s.dv = x.dv, s.window = x.window;
    s.n_row = backward ? x.n_row : 0;
    for (int i = 0; i < (backward ? (int)N_SDPA : SDPA_DOUT); i++) {
        const bool keys = i == SDPA_K || i == SDPA_V || i == SDPA_DK || i == SDPA_DV;
        const int64_t d = i == SDPA_LSE ? 1 : i == SDPA_V || i == SDPA_OUT || i == SDPA_DOUT || i == SDPA_DV ? x.dv : x.dk;
        s.head[i] = d;
        s.row[i] = d * (keys ? x.n_kv : x.n_head);
        if (x.wide && (i == SDPA_Q || i == SDPA_DQ)) s.row[i] = d * (x.n_head + 2 * x.n_kv);
    }
    return s;
}
} // namespace

int main()
{
    static sdpa_plan p;
    cudnn_calls lib;
    cudnn_target target = {NULL, NULL};
    void *library = library_open("cudnn");
    if (!library) {
        fprintf(stderr, "libcudnn was not found: name its folder in DISTILL_CUDA_LIBS\n");
        return 1;
    }
#define X(name)                                                                                                                            \
    if (!(*(void **)&lib.name = library_symbol(library, "cudnn" #name))) {                                                                 \
        fprintf(stderr, "libcudnn lacks cudnn" #name "\n");                                                                                \
        return 1;                                                                                                                          \
    }
    CUDNN_CALLS(X)
#undef X
    cudnnStatus_t st = lib.BackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &target.device);
    if (!st) st = lib.BackendSetAttribute(target.device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, sizeof h100, h100);
    if (!st) st = lib.BackendFinalize(target.device);
    if (st) {
        fprintf(stderr, "cuDNN %zu takes no description of a device: status %d\n", lib.GetVersion(), (int)st);
        return 1;
    }
    int missing = 0;
    printf("cuDNN %zu, plans for an H100\n\n| shape | rows | segments up to | heads | of | | engine | workspace, bytes | s |\n"
           "|---|---|---|---|---|---|---|---|---|\n",
           lib.GetVersion());
    for (const shape &x : shapes)
        for (int backward = 0; backward < 2; backward++) {
            const sdpa s = sdpa_of(x, backward);
            const int64_t sums = backward ? sdpa_sums_bytes(s.n_row, s.n_head, s.n_kv, s.row[SDPA_DQ], s.row[SDPA_DK], s.row[SDPA_DV]) : 0;
            timespec begin, end;
            clock_gettime(CLOCK_MONOTONIC, &begin);
            const bool there = sdpa_plan_make(&lib, &target, &s, sums + SDPA_SPARE, &p);
            clock_gettime(CLOCK_MONOTONIC, &end);
            printf("| %s | %ld | %d of %d | %d/%d | %d, %d | %s | ", x.name, (long)x.n_row, x.n_seg, x.max_len, x.n_head, x.n_kv, x.dk,
                   x.dv, backward ? "backward" : "forward");
            if (there)
                printf("%ld | %ld ", (long)p.engine, (long)p.workspace);
            else
                printf("none: %s, status %d | ", p.what, p.status);
            printf("| %.1f |\n", (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
            if (there) sdpa_plan_free(&lib, &p);
            missing += !there;
        }
    printf("\n%s\n", missing ? "not all have a plan" : "all have a plan");
    return missing != 0;
}
