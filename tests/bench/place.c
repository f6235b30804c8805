// Tensors on the device that is measured, and its clock.
#include "kernels/ops.h"
#include "tests/bench/bench.h"

const char *bench_device = "cpu";
bool bench_small;

bool on_gpu(void)
{
    return !strncmp(bench_device, "cuda", 4);
}

double device_now_s(struct device *dev)
{
    if (dev->backend->sync) dev->backend->sync(dev);
    return now_s();
}

enum { MAX_PLACED = 512, N_PATTERN = 1 << 22 };
static struct arena placed[MAX_PLACED];
static int n_placed;

void *place(struct device *dev, size_t size_bytes)
{
    struct err err = {0};
    if (n_placed == MAX_PLACED) note("more than %d tensors", MAX_PLACED), exit(1);
    must(dev_arena(dev, &placed[n_placed], "measured tensors", (size_bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN + ARENA_ALIGN,
                   &err),
         &err);
    return placed[n_placed++].base;
}

void place_free(void)
{
    while (n_placed) arena_free(&placed[--n_placed]);
}

// As much of one pattern of random numbers as fits, over and over: making billions of them would take longer than what is measured.
void fill_random(struct device *dev, struct tensor t)
{
    static void *pattern[N_DTYPE]; // f32, bf16, e4m3
    if (!pattern[t.dtype]) {
        void *to = pattern[t.dtype] = mem_alloc(N_PATTERN * dtype_size(t.dtype));
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < N_PATTERN; i++) {
            const float x = (float)rng_uniform(1, 7, (uint64_t)i) - 0.5f;
            if (t.dtype == DT_E4M3)
                ((e4m3 *)to)[i] = f32_to_e4m3(x * 100);
            else if (t.dtype == DT_BF16)
                ((bf16 *)to)[i] = f32_to_bf16(x);
            else
                ((float *)to)[i] = x;
        }
    }
    const int64_t n = tensor_numel(t);
    for (int64_t at = 0; at < n; at += N_PATTERN)
        op_upload(dev, tensor_1d((char *)t.data + (size_t)at * dtype_size(t.dtype), t.dtype, n - at < N_PATTERN ? n - at : N_PATTERN),
                  pattern[t.dtype]);
}

struct tensor place_random(struct device *dev, enum dtype t, int rank, int64_t a, int64_t b, int64_t c)
{
    void *data = place(dev, (size_t)(a * (rank > 1 ? b : 1) * (rank > 2 ? c : 1)) * dtype_size(t));
    struct tensor x = rank == 1 ? tensor_1d(data, t, a) : rank == 2 ? tensor_2d(data, t, a, b) : tensor_3d(data, t, a, b, c);
    fill_random(dev, x);
    return x;
}

struct tensor place_ints(struct device *dev, const int32_t *host, int64_t n)
{
    struct tensor x = tensor_1d(place(dev, (size_t)n * sizeof *host), DT_I32, n);
    op_upload(dev, x, host);
    return x;
}
