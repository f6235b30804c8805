// Moving values: between host and device, between strides and dtypes, and into panels.
//
// A panel here is the plain rows of the weight, each begun at 16 bytes: the library's products read it as well as our own.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/panel.cuh"
#include "kernels/cuda/ptx.cuh"

extern "C" size_t cuda_pack_bytes(const struct device *dev, enum dtype t, int64_t n, int64_t k)
{
    (void)dev;
    return (size_t)(n * panel_stride(t, k)) * dtype_size(t);
}

// Through a ring of pinned memory: many small uploads share a piece, and the host waits only for a piece that is still being read, a whole
// ring ago. So it may run ahead of the device.
extern "C" void cuda_upload(struct device *dev, struct tensor out, const void *host)
{
    struct cuda_state *s = cuda_of(dev);
    const size_t size = tensor_bytes(out);
    for (size_t at = 0, n; at < size; at += n) {
        if (s->stage.used == STAGE_BYTES) {
            if (!cuda_ok(dev, cudaEventRecord(s->stage.free[s->stage.now], cuda_stream(dev)), "uploading")) return;
            s->stage.now = (s->stage.now + 1) % N_STAGE;
            s->stage.used = 0;
            if (!cuda_ok(dev, cudaEventSynchronize(s->stage.free[s->stage.now]), "waiting to upload")) return;
        }
        n = STAGE_BYTES - s->stage.used;
        if (n > size - at) n = size - at;
        char *piece = s->stage.host + (size_t)s->stage.now * STAGE_BYTES + s->stage.used;
        memcpy(piece, (const char *)host + at, n);
        if (!cuda_ok(dev, cudaMemcpyAsync((char *)out.data + at, piece, n, cudaMemcpyHostToDevice, cuda_stream(dev)), "uploading")) return;
        s->stage.used += (n + 15) / 16 * 16; // a multiple of it, as STAGE_BYTES is
    }
}

extern "C" void cuda_download(struct device *dev, void *host, struct tensor x)
{
    if (!cuda_ok(dev, cudaMemcpyAsync(host, x.data, tensor_bytes(x), cudaMemcpyDeviceToHost, cuda_stream(dev)), "downloading")) return;
    cuda_sync(dev);
}

// Of few bytes by a kernel: a copy engine's work between kernels would let none be launched early.
__global__ void zero_kernel(uint4 *out, int n)
{
    cu_wait_earlier();
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) out[i] = make_uint4(0, 0, 0, 0);
}
extern "C" void cuda_zero(struct device *dev, struct tensor out)
{
    const size_t size = tensor_bytes(out), few = 256 << 10;
    if (size <= few && size % 16 == 0 && (uintptr_t)out.data % 16 == 0) {
        CU_LAUNCH_EARLY(dev, zero_kernel, cu_blocks((int64_t)size, 16 * 256), 256, 0, (uint4 *)out.data, (int)(size / 16));
        return;
    }
    cuda_ok(dev, cudaMemsetAsync(out.data, 0, size, cuda_stream(dev)), "clearing");
}

// ---- copies
// -------------------------------------------------------------------------------------------------------------------------------

struct strided {
    int64_t shape[3], out[3], x[3]; // elements; rank 3, with ones in front
};
static struct strided strided_of(struct tensor out, struct tensor x)
{
    struct strided s = {{1, 1, 1}, {0, 0, 0}, {0, 0, 0}};
    for (int d = 0; d < x.rank; d++) {
        const int to = 3 - x.rank + d;
        s.shape[to] = x.shape[d];
        s.out[to] = out.stride[d];
        s.x[to] = x.stride[d];
    }
    return s;
}

template <class To, class From> __device__ __forceinline__ To convert(From x)
{
    return cu_from<To>(cu_f32(x));
}
template <> __device__ __forceinline__ int32_t convert<int32_t, int32_t>(int32_t x)
{
    return x;
}
template <> __device__ __forceinline__ uint8_t convert<uint8_t, uint8_t>(uint8_t x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 convert<bf16, bf16>(bf16 x)
{
    return x;
}
template <> __device__ __forceinline__ half_t convert<half_t, half_t>(half_t x)
{
    return x;
}

template <class To, class From> __global__ void copy_kernel(To *out, const From *x, struct strided s, int64_t n)
{
    cu_wait_earlier();
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t c = i % s.shape[2], r = i / s.shape[2], b = r % s.shape[1], a = r / s.shape[1];
        out[a * s.out[0] + b * s.out[1] + c * s.out[2]] = convert<To>(x[a * s.x[0] + b * s.x[1] + c * s.x[2]]);
    }
}
template <class To, class From> static void copy_as(struct device *dev, struct tensor out, struct tensor x)
{
    const int64_t n = tensor_numel(x);
    unsigned grid = cu_blocks(n, 256 * 4), most = (unsigned)cuda_of(dev)->n_sm * 16;
    CU_LAUNCH_EARLY(dev, (copy_kernel<To, From>), grid < most ? grid : most, 256, 0, (To *)out.data, (const From *)x.data,
                    strided_of(out, x), n);
}
template <class From> static void copy_from(struct device *dev, struct tensor out, struct tensor x)
{
    if (out.dtype == DT_F32)
        copy_as<float, From>(dev, out, x);
    else
        copy_as<bf16, From>(dev, out, x);
}

extern "C" void cuda_copy(struct device *dev, struct tensor out, struct tensor x)
{
    if (out.dtype == x.dtype && tensor_contiguous(out) && tensor_contiguous(x)) {
        cuda_ok(dev, cudaMemcpyAsync(out.data, x.data, tensor_bytes(x), cudaMemcpyDeviceToDevice, cuda_stream(dev)), "copying");
        return;
    }
    switch (x.dtype) {
    case DT_F32:
        copy_from<float>(dev, out, x);
        break;
    case DT_BF16:
        copy_from<bf16>(dev, out, x);
        break;
    case DT_F16:
        if (out.dtype == DT_F16)
            copy_as<half_t, half_t>(dev, out, x);
        else
            copy_from<half_t>(dev, out, x);
        break;
    case DT_I32:
        copy_as<int32_t, int32_t>(dev, out, x);
        break;
    default:
        copy_as<uint8_t, uint8_t>(dev, out, x);
        break;
    }
}

// ---- panels, and what is not finite
// -------------------------------------------------------------------------------------------------------

template <class From> __device__ __forceinline__ bool finite(From x)
{
    return isfinite(cu_f32(x));
}
template <> __device__ __forceinline__ bool finite<e4m3>(e4m3 x)
{
    return (x & 0x7f) != 0x7f;
}
template <class From> __global__ void nonfinite_kernel(int32_t *count, const From *x, int64_t n, int64_t cols, int64_t stride)
{
    CU_SHARED(int, room, 32);
    int bad = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        bad += !finite(x[i / cols * stride + i % cols]);
    bad = cu_block_reduce(bad, cu_add(), 0, room);
    if (threadIdx.x == 0 && bad) atomicAdd(count, bad); // of integers: any order gives the same
}
static void count_nonfinite(struct device *dev, struct tensor count, struct tensor x, int64_t cols, int64_t stride)
{
    const int64_t n = tensor_numel(x);
    unsigned grid = cu_blocks(n, 256 * 8), most = (unsigned)cuda_of(dev)->n_sm * 8;
    if (grid > most) grid = most;
    if (x.dtype == DT_F32)
        CU_LAUNCH(dev, nonfinite_kernel<float>, grid, 256, 0, (int32_t *)count.data, (const float *)x.data, n, cols, stride);
    else if (x.dtype == DT_BF16)
        CU_LAUNCH(dev, nonfinite_kernel<bf16>, grid, 256, 0, (int32_t *)count.data, (const bf16 *)x.data, n, cols, stride);
    else if (x.dtype == DT_E4M3)
        CU_LAUNCH(dev, nonfinite_kernel<e4m3>, grid, 256, 0, (int32_t *)count.data, (const e4m3 *)x.data, n, cols, stride);
    else
        CU_LAUNCH(dev, nonfinite_kernel<half_t>, grid, 256, 0, (int32_t *)count.data, (const half_t *)x.data, n, cols, stride);
}
extern "C" void cuda_nonfinite(struct device *dev, struct tensor count, struct tensor x)
{
    count_nonfinite(dev, count, x, tensor_numel(x), 0);
}
extern "C" void cuda_pack(struct device *dev, struct tensor out, struct tensor w, struct tensor nonfinite)
{
    struct tensor rows = out;
    rows.layout = LAYOUT_ROWS;
    rows.stride[0] = panel_stride(out.dtype, out.shape[1]);
    rows.stride[1] = 1;
    if (rows.stride[0] != out.shape[1]) // the rows' ends are multiplied, by zeros
        cuda_ok(dev, cudaMemsetAsync(out.data, 0, cuda_pack_bytes(dev, out.dtype, out.shape[0], out.shape[1]), cuda_stream(dev)),
                "clearing");
    cuda_copy(dev, rows, w);
    if (!tensor_none(nonfinite)) count_nonfinite(dev, nonfinite, w, w.shape[1], w.stride[0]);
}
