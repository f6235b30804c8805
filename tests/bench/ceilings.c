// What this machine can do: memory reads by all threads, and oneDNN's product of large matrices. Each call is one pass, for jobs to call
// in turn with what they measure.
#include "kernels/cpu/dnnl.h"
#include "tests/bench/bench.h"

static struct device dev; // of its own, so that a job's arena is left alone
static struct arena memory;
static float *stream; // larger than any cache
static const int64_t stream_len = (256 << 20) / 4;
static struct tensor gemm[2][3]; // by dtype: out, x, w

static struct tensor filled(enum dtype t, int64_t rows, int64_t cols)
{
    struct tensor out = tensor_2d(aligned_alloc(64, (size_t)(rows * cols) * dtype_size(t)), t, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) {
        const float x = (float)rng_uniform(1, (uint64_t)rows, (uint64_t)i) - 0.5f;
        if (t == DT_BF16)
            ((bf16 *)out.data)[i] = f32_to_bf16(x);
        else
            ((float *)out.data)[i] = x;
    }
    return out;
}

void ceilings_open(void)
{
    if (stream) return;
    struct err err = {0};
    must(dev_open(&dev, "cpu", bench_threads, &err), &err);
    must(dev_reserve(&dev, 256 << 20, &err), &err);
    must(arena_init(&memory, "memory that is read", (size_t)stream_len * 4, &err), &err); // with huge pages, as weights have
    stream = arena_alloc(&memory, (size_t)stream_len * 4);
#pragma omp parallel for schedule(static) num_threads(dev.n_thread)
    for (int64_t i = 0; i < stream_len; i++) stream[i] = 1;
    for (enum dtype t = DT_F32; t <= DT_BF16; t++) {
        gemm[t][0] = filled(t, CEILING_GEMM_M, CEILING_GEMM_N);
        gemm[t][1] = filled(t, CEILING_GEMM_M, CEILING_GEMM_K);
        gemm[t][2] = filled(t, CEILING_GEMM_N, CEILING_GEMM_K);
        ceiling_gemm(t);
    }
    ceiling_read();
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

double ceiling_read(void)
{
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
    double s = now_s();
    cpu_dnnl_linear(&dev, gemm[t][0], gemm[t][1], gemm[t][2], TENSOR_NONE);
    s = now_s() - s;
    dev_release(&dev, mark);
    struct err err = {0};
    must(dev_check(&dev, &err), &err);
    return 2.0 * CEILING_GEMM_M * CEILING_GEMM_N * CEILING_GEMM_K / s;
}

void job_ceilings(void)
{
    enum { N = 21 };
    double read[N], f32[N], half[N];
    ceilings_open();
    for (int i = 0; i < N; i++) read[i] = ceiling_read(), f32[i] = ceiling_gemm(DT_F32), half[i] = ceiling_gemm(DT_BF16);
    row("memory read", text("%.1f GB/s", median(read, N) / 1e9), text("256 MiB, %d threads", dev.n_thread), -1);
    const char *shape = text("oneDNN, %d × %d × %d", CEILING_GEMM_M, CEILING_GEMM_N, CEILING_GEMM_K);
    row("product f32", text("%.0f GFLOP/s", median(f32, N) / 1e9), shape, -1);
    row("product bf16", text("%.0f GFLOP/s", median(half, N) / 1e9), shape, -1);
}
