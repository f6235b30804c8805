// The CUDA runtime as the emulation has it: memory of the device between guard pages, copies at once, failures on demand.
#include "cuda_runtime.h"
#include "tests/simt/simt_state.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <vector>

namespace
{
struct block {
    unsigned char *map, *p;
    size_t map_size, size;
};
std::vector<block> blocks;
int n_device;
size_t total_bytes = (size_t)4 << 30, taken_bytes;
bool is_open;
int device_arch = 90; // DISTILL_SIMT_ARCH; a test may ask for another with simt_fail("arch", …)
// Of a block on this architecture, as CUDA's guide has it (compute capabilities, "maximum amount of shared memory per thread block").
size_t shared_of(int arch)
{
    return (size_t)(arch >= 120 || arch == 86 || arch == 89 ? 99 : arch >= 90 ? 227 : 163) << 10;
}
enum { PAGE = 4096, PROTECT_MAX = 1 << 20 }; // large memory stays open: closing it takes time by the page

} // namespace
struct simt_graph {
    std::vector<std::function<void()>> work;
    bool broken; // a call that may not come while recording did
};
namespace
{
simt_graph *recording;

struct planned_failure {
    char call[40];
    int nth, error;
} planned[8];
int n_planned;
cudaError_t last_error, sticky_error; // sticky: the context is lost, as after a fault in a kernel

__attribute__((constructor)) void init()
{
    const char *s = getenv("DISTILL_SIMT");
    if (s) n_device = atoi(s);
    if ((s = getenv("DISTILL_SIMT_ARCH"))) device_arch = atoi(s);
    if ((s = getenv("DISTILL_SIMT_MEMORY"))) total_bytes = (size_t)atoll(s);
    // DISTILL_SIMT_FAIL=cudaMalloc:3:2,launch:100:700
    char call[40];
    int nth, error, n;
    for (s = getenv("DISTILL_SIMT_FAIL"); s && sscanf(s, "%39[^:]:%d:%d%n", call, &nth, &error, &n) == 3; s += n + (s[n] == ',')) {
        simt_fail(call, nth, error);
        if (!s[n]) break;
    }
}

// Whether this call is one that is to fail.
cudaError_t injected(const char *call)
{
    if (sticky_error) return sticky_error;
    for (int i = 0; i < n_planned; i++) {
        if (strcmp(planned[i].call, call) || planned[i].nth <= 0 || --planned[i].nth) continue;
        last_error = (cudaError_t)planned[i].error;
        if (last_error == cudaErrorIllegalAddress || last_error == cudaErrorECCUncorrectable || last_error == cudaErrorLaunchFailure)
            sticky_error = last_error;
        return last_error;
    }
    return cudaSuccess;
}

void protect(const block &b, bool open)
{
    if (b.map_size <= PROTECT_MAX) mprotect(b.map, b.map_size - PAGE, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

struct upload {
    void *to;
    const void *from;
    size_t size;
};
std::vector<upload> uploads;
void flush()
{
    simt::device_open(true);
    for (const upload &u : uploads) memcpy(u.to, u.from, u.size);
    simt::device_open(false);
    uploads.clear();
}

cudaError_t no_device()
{
    return last_error = cudaErrorNoDevice;
}
// What may not be asked of a thread that is recording: the graph is lost as well.
cudaError_t recorded()
{
    if (!recording) return cudaSuccess;
    recording->broken = true;
    return last_error = cudaErrorStreamCaptureUnsupported;
}
#define NOT_RECORDED                                                                                                                       \
    if (cudaError_t e_ = recorded()) return e_
#define CALL(name)                                                                                                                         \
    if (cudaError_t e_ = injected(#name)) return e_;                                                                                       \
    if (!n_device) return no_device()

void on_fault(int sig, siginfo_t *info, void *)
{
    signal(sig, SIG_DFL);
    for (const block &b : blocks)
        if ((unsigned char *)info->si_addr >= b.map && (unsigned char *)info->si_addr < b.map + b.map_size) {
            if (!is_open && simt::self) simt::fail("launched early, and touches memory of the device before cu_wait_earlier");
            if (!is_open) {
                fprintf(stderr, "the host touches memory of the device, at byte %td of %zu\n", (unsigned char *)info->si_addr - b.p,
                        b.size);
                abort();
            }
            simt::fail("memory of the device out of bounds: byte %td of %zu", (unsigned char *)info->si_addr - b.p, b.size);
        }
    if (is_open) simt::fail("touches %p, which is no memory of the device", info->si_addr);
    raise(sig);
}
} // namespace

namespace simt
{
void device_open(bool open)
{
    if (is_open == open) return;
    is_open = open;
    for (const block &b : blocks) protect(b, open);
}
void *device_alloc(size_t size)
{
    size_t whole = (size + PAGE - 1) / PAGE * PAGE + PAGE;
    if (size > total_bytes - taken_bytes) return nullptr;
    static bool handler;
    if (!handler) {
        struct sigaction a = {};
        static unsigned char stack[64 << 10];
        stack_t alt = {};
        alt.ss_sp = stack;
        alt.ss_size = sizeof stack;
        sigaltstack(&alt, nullptr);
        a.sa_sigaction = on_fault;
        a.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &a, nullptr);
        handler = true;
    }
    block b = {};
    b.map_size = whole;
    b.size = size;
    b.map = (unsigned char *)mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b.map == MAP_FAILED) return nullptr;
    b.p = b.map + (whole - PAGE - size) / 16 * 16; // ends at the guard page, to 16 bytes
    if (size > PROTECT_MAX) b.p = b.map + (whole - PAGE - size) / 256 * 256;
    memset(b.map, 0xff, whole - PAGE);
    mprotect(b.map + whole - PAGE, PAGE, PROT_NONE);
    blocks.push_back(b);
    taken_bytes += size;
    if (!is_open) protect(b, false);
    return b.p;
}
bool device_free(void *p)
{
    for (size_t i = 0; i < blocks.size(); i++)
        if (blocks[i].p == p) {
            munmap(blocks[i].map, blocks[i].map_size);
            taken_bytes -= blocks[i].size;
            blocks.erase(blocks.begin() + (long)i);
            return true;
        }
    return false;
}
bool is_device(const void *p, size_t size)
{
    for (const block &b : blocks)
        if ((const unsigned char *)p >= b.p && (const unsigned char *)p + size <= b.p + b.size) return true;
    return false;
}
size_t device_free_bytes()
{
    return total_bytes - taken_bytes;
}
} // namespace simt

extern "C" {
void simt_devices(int n)
{
    n_device = n;
    last_error = sticky_error = cudaSuccess;
}
void simt_device_memory(size_t bytes)
{
    total_bytes = bytes;
}
void simt_fail(const char *call, int nth, int error)
{
    if (n_planned == 8) n_planned = 0;
    snprintf(planned[n_planned].call, sizeof planned[0].call, "%s", call);
    planned[n_planned].nth = nth;
    planned[n_planned++].error = error;
}
}

// ---- graphs ----

static int64_t n_work; // the emulation's clock: a millisecond a kernel, whatever it does
struct simt_event {
    int64_t at;
};
void simt_run(std::function<void()> f)
{
    n_work++;
    if (recording)
        recording->work.push_back(f);
    else
        f();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    CALL(cudaStreamBeginCapture);
    if (recording) return last_error = cudaErrorInvalidValue;
    recording = new simt_graph();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g)
{
    *g = recording;
    recording = nullptr;
    if (*g && (*g)->broken) {
        delete *g;
        *g = nullptr;
        return last_error = cudaErrorStreamCaptureInvalidated;
    }
    return *g ? cudaSuccess : (last_error = cudaErrorInvalidValue);
}
cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t *, size_t *n_node)
{
    *n_node = g->work.size();
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t g, unsigned long long)
{
    CALL(cudaGraphInstantiate);
    *exec = new simt_graph(*g);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t)
{
    flush();
    CALL(cudaGraphLaunch);
    for (auto &f : exec->work) f();
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t simt_launch_check()
{
    flush();
    CALL(launch);
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 0;
    CALL(cudaGetDeviceCount);
    *n = n_device;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int i)
{
    CALL(cudaSetDevice);
    return i >= 0 && i < n_device ? cudaSuccess : (last_error = cudaErrorInvalidDevice);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    CALL(cudaGetDeviceProperties);
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated");
    int arch = device_arch;
    for (int i = 0; i < n_planned; i++) // an older one, if a test asked for it
        if (!strcmp(planned[i].call, "arch")) arch = planned[i].error;
    p->major = arch / 10, p->minor = arch % 10;
    p->multiProcessorCount = 4; // few, so that persistent kernels go round
    if (!simt::shared_asked) simt::shared_most = shared_of(arch);
    p->sharedMemPerBlockOptin = simt::shared_most;
    p->totalGlobalMem = total_bytes;
    p->l2CacheSize = 1 << 20;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v)
{
    *v = 13000;
    CALL(cudaDriverGetVersion);
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    CALL(cudaMemGetInfo);
    *free_bytes = simt::device_free_bytes();
    *total = total_bytes;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t size)
{
    CALL(cudaMalloc);
    NOT_RECORDED;
    *p = simt::device_alloc(size);
    return *p ? cudaSuccess : (last_error = cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void *p)
{
    NOT_RECORDED;
    flush();
    return !p || simt::device_free(p) ? cudaSuccess : (last_error = cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void **p, size_t size)
{
    CALL(cudaMallocHost);
    NOT_RECORDED;
    *p = malloc(size);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t)
{
    CALL(cudaMemcpyAsync);
    bool ok = (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) == simt::is_device(to, size) &&
              (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) == simt::is_device(from, size);
    if (!ok && size) return last_error = cudaErrorInvalidValue;
    if (kind != cudaMemcpyDeviceToDevice) NOT_RECORDED; // from pinned memory it could be, and would copy what lies there later
    // From the host: begun, and done when something after it on the stream is; the host must leave its memory alone until then.
    if (kind == cudaMemcpyHostToDevice) {
        uploads.push_back({to, from, size});
        return cudaSuccess;
    }
    flush();
    simt_run([=] {
        simt::device_open(true);
        memmove(to, from, size);
        simt::device_open(false);
    });
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t s)
{
    for (size_t i = 0; i < height; i++)
        if (cudaError_t e = cudaMemcpyAsync((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width, kind, s)) return e;
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t size, cudaStream_t)
{
    flush();
    CALL(cudaMemsetAsync);
    if (!simt::is_device(p, size)) return last_error = cudaErrorInvalidValue;
    simt_run([=] {
        simt::device_open(true);
        memset(p, value, size);
        simt::device_open(false);
    });
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    CALL(cudaStreamCreateWithFlags);
    *s = (cudaStream_t)1;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t)
{
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    flush();
    CALL(cudaStreamSynchronize);
    NOT_RECORDED;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    static std::vector<simt_event *> &all = *new std::vector<simt_event *>(); // a device that a test leaves open leaves its own
    all.push_back(*e = new simt_event());
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t)
{
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t)
{
    e->at = n_work;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    flush();
    CALL(cudaEventSynchronize);
    NOT_RECORDED;
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    *ms = (float)(end->at - begin->at);
    return cudaSuccess;
}
cudaError_t cudaGetLastError()
{
    cudaError_t e = sticky_error ? sticky_error : last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError()
{
    return sticky_error ? sticky_error : last_error;
}
const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
        return "cudaErrorNoKernelImageForDevice";
    case cudaErrorECCUncorrectable:
        return "cudaErrorECCUncorrectable";
    case cudaErrorIllegalAddress:
        return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    default:
        return "cudaErrorInvalidValue";
    }
}
const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice:
        return "no kernel image is available for execution on the device";
    case cudaErrorECCUncorrectable:
        return "uncorrectable ECC error encountered";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    default:
        return "invalid argument";
    }
}
