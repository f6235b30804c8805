// A GPU: opening it, its memory, waiting for it, and what is said when something goes wrong.
#include "kernels/cuda/blaslt.cuh"
#include "kernels/cuda/cudnn.cuh"
#include "kernels/cuda/device.cuh"

enum { ARCH_MIN = 80 };

extern "C" int cuda_device_count(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n)) {
        cudaGetLastError();
        return 0;
    }
    return n;
}

static enum status version_text(struct err *err, const char *name, const char *why)
{
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (!driver)
        return err_set(err, ST_BAD_INPUT, "device %s: no NVIDIA driver was found (%s). Install the driver, or use --device cpu", name, why);
    return err_set(
        err, ST_BAD_INPUT,
        "device %s: the driver knows CUDA %d.%d, and this distill was built with CUDA %d.%d (%s). Update the driver, build with the "
        "older toolkit, or use --device cpu",
        name, driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, why);
}

static enum status failed(struct err *err, const char *name, const char *what, cudaError_t e)
{
    return err_set(err, ST_FAIL, "device %s: %s: %s (%s)", name, what, cudaGetErrorString(e), cudaGetErrorName(e));
}

static enum status open_device(struct device *dev, struct cuda_state *s, struct err *err)
{
    const char *name = dev->backend->name;
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver) return version_text(err, name, cudaGetErrorString(e));
    if (e == cudaErrorNoDevice || (!e && n == 0))
        return err_set(err, ST_BAD_INPUT, "device %s: no NVIDIA GPU was found. Use --device cpu", name);
    if (e) return failed(err, name, "looking for GPUs", e);
    s->index = atoi(name + strcspn(name, ":") + 1);
    if (s->index >= n)
        return err_set(err, ST_BAD_INPUT, "device %s: this machine has %d GPU%s: cuda:0%s", name, n, n > 1 ? "s" : "",
                       n > 1 ? " and following" : "");
    if ((e = cudaSetDevice(s->index))) return failed(err, name, "taking it", e);
    struct cudaDeviceProp p;
    if ((e = cudaGetDeviceProperties(&p, s->index))) return failed(err, name, "asking for its properties", e);
    s->n_sm = p.multiProcessorCount;
    s->arch = p.major * 10 + p.minor;
#if defined(CUDA_SM_90A) || !defined(__CUDACC__)
    s->wgmma = s->arch == 90;
#endif
    const char *early = getenv("DISTILL_CUDA_EARLY");
    // TRAP: what runs there must be built for sm_90 or newer, or no kernel would wait: the Makefile builds no PTX of older ones.
    s->early = s->arch >= 90 && !(early && !strcmp(early, "0"));
    s->shared_max = p.sharedMemPerBlockOptin;
    s->l2_bytes = (size_t)p.l2CacheSize;
    if (s->arch < ARCH_MIN)
        return err_set(err, ST_BAD_INPUT, "device %s: %s is sm_%d, and distill's kernels need sm_%d (A100) or newer. Use --device cpu",
                       name, p.name, s->arch, ARCH_MIN);
    if ((e = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking))) return failed(err, name, "making a stream", e);
    e = cudaMallocHost((void **)&s->stage.host, N_STAGE * STAGE_BYTES);
    for (int i = 0; i < N_STAGE && !e; i++) {
        e = cudaEventCreateWithFlags(&s->stage.free[i], cudaEventDisableTiming);
        if (!e) e = cudaEventRecord(s->stage.free[i], s->stream);
    }
    if (!e) e = cudaMallocHost((void **)&s->trouble, sizeof *s->trouble);
    if (e) return failed(err, name, "taking pinned memory of the host", e);
    memset(s->trouble, 0, sizeof *s->trouble);
    return ST_OK;
}

extern "C" enum status cuda_open(struct device *dev, struct err *err)
{
    struct cuda_state *s = (struct cuda_state *)calloc(1, sizeof *s);
    if (!s) return err_set(err, ST_FAIL, "out of memory");
    if (dev->n_thread <= 0) dev->n_thread = 1;
    dev->state = s;
    enum status st = open_device(dev, s, err);
    if (st) cuda_close(dev);
    return st;
}

extern "C" void cuda_close(struct device *dev)
{
    struct cuda_state *s = cuda_of(dev);
    if (!s) return;
    if (s->stream) {
        cudaStreamSynchronize(s->stream);
        cudaStreamDestroy(s->stream);
    }
    for (int i = 0; i < N_STAGE; i++)
        if (s->stage.free[i]) cudaEventDestroy(s->stage.free[i]);
    if (s->stage.host) cudaFreeHost(s->stage.host);
    if (s->trouble) cudaFreeHost(s->trouble);
    blaslt_close(s->blaslt);
    cudnn_close(s->cudnn);
    graphs_free(s->graphs);
    free(s);
    dev->state = NULL;
}

// ---- trouble ----------------------------------------------------------------------------------------------------------------------------

bool cuda_ok(struct device *dev, cudaError_t e, const char *what)
{
    if (!e) return true;
    dev_fail_op(dev, "%s: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
    cudaGetLastError();
    return false;
}

bool cuda_launch_begin(struct device *dev, const char *name, dim3 grid)
{
    (void)name;
    return !dev->error.code && grid.x && grid.y && grid.z;
}

void cuda_launch_end(struct device *dev, const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaError_t e)
{
    if (!e) return;
    char what[200];
    snprintf(what, sizeof what, "launching %s, (%u, %u, %u) blocks of (%u, %u, %u) threads, %zu bytes shared", name, grid.x, grid.y, grid.z,
             block.x, block.y, block.z, shared_bytes);
    cuda_ok(dev, e, what);
}

static void tell_trouble(struct device *dev)
{
    struct cuda_trouble t = *cuda_of(dev)->trouble;
    if (t.code == TROUBLE_TOKEN) dev_fail(dev, "op_embed", "token id %d in row %d: the vocabulary has %d", t.found, t.row, t.limit);
    if (t.code == TROUBLE_TOKEN_BWD) dev_fail(dev, "op_embed_bwd", "token id %d in row %d: the vocabulary has %d", t.found, t.row, t.limit);
    if (t.code == TROUBLE_CHOICE) dev_fail(dev, "op_moe_sort", "expert %d of token %d: there are %d", t.found, t.row, t.limit);
    if (t.code == TROUBLE_ROW) dev_fail(dev, "op_gather_rows", "row %d: there are %d", t.found, t.limit);
    if (t.code == TROUBLE_ROW_TO) dev_fail(dev, "op_scatter_rows", "row %d: there are %d", t.found, t.limit);
    if (t.code == TROUBLE_TARGET)
        dev_fail(dev, "op_loss", "a label or a target id, %d in row %d, lies outside the vocabulary of %d", t.found, t.row, t.limit);
    if (t.code == TROUBLE_EXPERT) dev_fail(dev, "op_grouped_linear", "expert %d has %d rows but no weights on this device", t.found, t.row);
    cuda_of(dev)->trouble->code = TROUBLE_NONE;
}
extern "C" void cuda_sync(struct device *dev)
{
    if (!cuda_ok(dev, cudaStreamSynchronize(cuda_stream(dev)),
                 dev->sync ? "running it" : "found while waiting for the device (--sync finds the op)"))
        return;
    if (cuda_of(dev)->trouble->code) tell_trouble(dev);
}

// ---- memory
// -------------------------------------------------------------------------------------------------------------------------------

extern "C" size_t cuda_mem_free_bytes(struct device *dev)
{
    size_t free_bytes = 0, total = 0;
    cudaSetDevice(cuda_of(dev)->index);
    if (cudaMemGetInfo(&free_bytes, &total)) cudaGetLastError();
    const size_t spare = total / 64; // what the driver and the libraries still take for themselves
    return free_bytes > spare ? free_bytes - spare : 0;
}

extern "C" enum status cuda_mem_take(struct device *dev, void **out, size_t size_bytes, const char *name, struct err *err)
{
    const double gib = 1 << 30;
    cudaSetDevice(cuda_of(dev)->index);
    cudaError_t e = cudaMalloc(out, size_bytes ? size_bytes : 256);
    if (!e) return ST_OK;
    cudaGetLastError();
    if (e != cudaErrorMemoryAllocation) return failed(err, dev->backend->name, name, e);
    return err_set(err, ST_FAIL, "out of memory on %s: %s needs %.2f GiB (%zu bytes), it has %.2f GiB free", dev->backend->name, name,
                   (double)size_bytes / gib, size_bytes, (double)cuda_mem_free_bytes(dev) / gib);
}

extern "C" void cuda_mem_give(void *p)
{
    cudaFree(p); // waits for the device
}
