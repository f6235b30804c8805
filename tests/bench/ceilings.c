// What the device can do: on the CPU memory reads by all threads and the library's product of large matrices, on a GPU a copy and
// cuBLASLt's. Each call is one pass, for jobs to call in turn with what they measure.
#include "kernels/ops.h"
#include "tests/bench/bench.h"

static struct device dev; // of its own, so that a job's arena is left alone
static bool ceiling_open;
static struct arena memory;
static float *stream; // larger than any cache
static const int64_t stream_len = (256 << 20) / 4;
static struct tensor gemm[2][3], copied[2]; // gemm by dtype: out, x, w
int64_t ceiling_m = 1024, ceiling_n = 2048, ceiling_k = 2048;

void ceilings_open(void)
{
    if (ceiling_open) return;
    ceiling_open = true;
    struct err err = {0};
    must(dev_open(&dev, bench_device, bench_threads, &err), &err);
    must(dev_reserve(&dev, 256 << 20, &err), &err);
    if (on_gpu() && !bench_small) ceiling_m = ceiling_n = ceiling_k = 8192;
    if (bench_small) ceiling_m = ceiling_n = ceiling_k = 64;
    if (on_gpu()) {
        const int64_t n = bench_small ? 1 << 12 : 1 << 29; // 2 GiB
        for (int i = 0; i < 2; i++) copied[i] = tensor_1d(place(&dev, (size_t)n * 4), DT_F32, n);
        op_zero(&dev, copied[1]);
    } else {
        must(arena_init(&memory, "memory that is read", (size_t)stream_len * 4, &err), &err); // with huge pages, as weights have
        stream = arena_alloc(&memory, (size_t)stream_len * 4);
#pragma omp parallel for schedule(static) num_threads(dev.n_thread)
        for (int64_t i = 0; i < stream_len; i++) stream[i] = 1;
    }
    for (enum dtype t = DT_F32; t <= DT_BF16; t++) {
        gemm[t][0] = place_random(&dev, t, 2, ceiling_m, ceiling_n, 0);
        gemm[t][1] = place_random(&dev, t, 2, ceiling_m, ceiling_k, 0);
        gemm[t][2] = place_random(&dev, t, 2, ceiling_n, ceiling_k, 0);
        ceiling_gemm(t);
    }
    ceiling_bytes();
}

void ceilings_close(void)
{
    if (!ceiling_open) return;
    place_free();
    if (stream) arena_free(&memory);
    dev_close(&dev);
    stream = NULL;
    ceiling_open = false;
}

typedef float v16 __attribute__((vector_size(64)));
#ifdef __x86_64__
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
static float
read_sum(const float *x, int64_t n) // n a multiple of 128
{
    v16 sum[8] = {{0}};
    for (const v16 *v = (const v16 *)x, *end = v + n / 16; v < end; v += 8)
        for (int j = 0; j < 8; j++) sum[j] += v[j];
    float total = 0;
    for (int j = 0; j < 128; j++) total += sum[j / 16][j % 16];
    return total;
}

static double copy_bytes(void)
{
    const int n_call = bench_small ? 1 : 8;
    double t = device_now_s(&dev);
    for (int i = 0; i < n_call; i++) op_copy(&dev, copied[0], copied[1]);
    t = (device_now_s(&dev) - t) / n_call;
    struct err err = {0};
    must(dev_check(&dev, &err), &err);
    return 2.0 * (double)tensor_bytes(copied[0]) / t;
}

double ceiling_bytes(void)
{
    if (on_gpu()) return copy_bytes();
    double t = now_s();
    float total = 0;
#pragma omp parallel num_threads(dev.n_thread) reduction(+ : total)
    {
        int64_t begin, end;
        cpu_slice(stream_len / 128, &begin, &end);
        total += read_sum(stream + begin * 128, (end - begin) * 128);
    }
    t = now_s() - t;
    static volatile float keep;
    keep = total;
    (void)keep;
    return (double)stream_len * 4 / t;
}

double ceiling_gemm(enum dtype t)
{
    const size_t mark = dev_mark(&dev);
    const int n_call = on_gpu() && !bench_small && t == DT_BF16 ? 8 : 1;
    double s = device_now_s(&dev);
    for (int i = 0; i < n_call; i++) {
        op_linear(&dev, gemm[t][0], gemm[t][1], gemm[t][2], TENSOR_NONE);
        dev_release(&dev, mark);
    }
    s = (device_now_s(&dev) - s) / n_call;
    struct err err = {0};
    must(dev_check(&dev, &err), &err);
    return 2.0 * (double)(ceiling_m * ceiling_n) * (double)ceiling_k / s;
}

const char *flops_text(double flops)
{
    return flops >= 1e12 ? text("%.0f TFLOP/s", flops / 1e12) : text("%.0f GFLOP/s", flops / 1e9);
}

const char *bytes_text(double bytes)
{
    return bytes >= 1e12 ? text("%.2f TB/s", bytes / 1e12) : text("%.1f GB/s", bytes / 1e9);
}

void job_ceilings(void)
{
    enum { N = 21 };
    double read[N], f32[N], half[N];
    ceilings_open();
    const int n = on_gpu() ? 5 : N;
    for (int i = 0; i < n; i++) read[i] = ceiling_bytes(), f32[i] = ceiling_gemm(DT_F32), half[i] = ceiling_gemm(DT_BF16);
    const double bytes = median(read, n), flops = median(half, n);
    if (on_gpu())
        row("ceiling: copy on the device", text("%.2f TB/s", bytes / 1e12),
            text("%.0f MiB, read and written", (double)tensor_bytes(copied[0]) / (1 << 20)), -1);
    else
        row("memory read", text("%.1f GB/s", bytes / 1e9), text("256 MiB, %d threads", dev.n_thread), -1);
    const char *shape = text("%s, %d × %d × %d", on_gpu() ? "cuBLASLt" : "the library", (int)ceiling_m, (int)ceiling_n, (int)ceiling_k);
    row(on_gpu() ? "ceiling: product bf16" : "product bf16", flops_text(flops), shape, -1);
    row(on_gpu() ? "ceiling: product f32" : "product f32", flops_text(median(f32, n)), shape, -1);
}
