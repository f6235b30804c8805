// The instructions that C++ has no word for: tensor cores, copies that go on by themselves. All inline PTX stands here, each instruction in
// one function whose comment gives its layout of fragments (PTX ISA 8.5, 9.7.14). For tests, tests/simt/include/ptx_twin.h has a twin of
// each that works lane by lane with the same layout, so that the kernels above are executed as they stand.
//
// A warp's lane l is seen as group g = l / 4 and member t = l % 4. bf16 come in pairs, the lower index in the lower half.
#pragma once
#include "kernels/cuda/device.cuh"

#ifdef __CUDACC__
__device__ __forceinline__ unsigned cu_shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}
// Of a tile for wgmma, which begins at a whole 1024 bytes.
__device__ __forceinline__ unsigned cu_tile_address(const void *p)
{
    return cu_shared_address(p);
}

// d (16, 8) f32 += a (16, 16) bf16 · b (8, 16)ᵀ bf16.
//   a[0] row g columns 2t, 2t+1; a[1] row g+8; a[2] row g columns 2t+8, 2t+9; a[3] row g+8 of those
//   b[0] row g columns 2t, 2t+1; b[1] columns 2t+8, 2t+9
//   d[0], d[1] row g columns 2t, 2t+1; d[2], d[3] row g+8
__device__ __forceinline__ void cu_mma_bf16(float d[4], const unsigned a[4], const unsigned b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of f16.
__device__ __forceinline__ void cu_mma_f16(float d[4], const unsigned a[4], const unsigned b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four e4m3, the first in the lowest byte, as f16, which has them all: r[0] the first two, the first in the lower half; r[1] the others.
// A NaN need not come out as one.
__device__ __forceinline__ void cu_f16_e4m3(unsigned r[2], unsigned four)
{
#if __CUDA_ARCH__ >= 890
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.rn.f16x2.e4m3x2 %0, low;\ncvt.rn.f16x2.e4m3x2 %1, high;\n}\n"
        : "=r"(r[0]), "=r"(r[1])
        : "r"(four));
#else
    for (int i = 0; i < 2; i++) { // bits to f16's fields, whose exponents mean 2^8 less, for subnormals too
        const unsigned pair = __byte_perm(four, 0, i ? 0x3424 : 0x1404);
        asm("mul.rn.f16x2 %0, %1, %2;\n" : "=r"(r[i]) : "r"((pair & 0x80008000) | (pair >> 1 & 0x3f803f80)), "r"(0x5c005c00)); // 256
    }
#endif
}

// Four matrices of 8 rows of 16 bytes (8 bf16). Lane l gives the shared address of row l % 8 of matrix l / 8, at 16 bytes.
//   r[j] row g of matrix j, columns 2t, 2t+1; with cu_ldmatrix_t: rows 2t, 2t+1 of column g
__device__ __forceinline__ void cu_ldmatrix(unsigned r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(cu_shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void cu_ldmatrix_t(unsigned r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(cu_shared_address(row))
                 : "memory");
}

// 16 bytes from global to shared memory, or zeros if not `there` (nothing is read then, wherever the address is): begun here, there after
// cu_async_wait of the group that the next cu_async_commit closes, and a barrier for the other threads.
__device__ __forceinline__ void cu_async_copy16(void *shared, const void *global, bool there = true)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(cu_shared_address(shared)), "l"(global), "r"(there ? 16 : 0)
                 : "memory");
}
__device__ __forceinline__ void cu_async_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}
// All groups but the latest N_LEFT have arrived.
template <int N_LEFT> __device__ __forceinline__ void cu_async_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N_LEFT) : "memory");
}

// Two f32 as a pair of bf16, lo in the lower half; rounded to nearest, ties to even.
__device__ __forceinline__ unsigned cu_pair_bf16(float lo, float hi)
{
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
// 2^x, good to 2 ulp; -inf gives 0.
__device__ __forceinline__ float cu_exp2(float x)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(r) : "f"(x));
    return r;
}
// As cu_async_copy16, of 4 bytes.
__device__ __forceinline__ void cu_async_copy4(void *shared, const void *global, bool there = true)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(cu_shared_address(shared)), "l"(global), "r"(there ? 4 : 0)
                 : "memory");
}

// ---- sm_90a: products of a warpgroup (128 threads) from shared memory, and barriers to meet at

// d (64, N) f32 = [d +] a (64, 16) bf16 · b (N, 16)ᵀ bf16, both in shared memory, rows of k (PTX ISA 8.5, 9.7.15.5). Begun here, done after
// cu_wgmma_wait; meanwhile neither d nor the tiles may be touched.
//   Warp w of the group has rows 16w .. 16w+15: d[4j], d[4j+1] row g columns 8j+2t, 8j+2t+1; d[4j+2], d[4j+3] row g+8
template <int N> __device__ __forceinline__ void cu_wgmma(float *d, uint64_t a, uint64_t b, bool add);
#define CU_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
template <> __device__ __forceinline__ void cu_wgmma<8>(float *d, uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3"
                 "}, %4, %5, p, 1, 1, 0, 0;\n}\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "l"(a), "l"(b), "r"((int)add));
}
template <> __device__ __forceinline__ void cu_wgmma<32>(float *d, uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
                 "}, %16, %17, p, 1, 1, 0, 0;\n}\n"
                 : CU_D8(0), CU_D8(8)
                 : "l"(a), "l"(b), "r"((int)add));
}
template <> __device__ __forceinline__ void cu_wgmma<64>(float *d, uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, %32, %33, p, 1, 1, 0, 0;\n}\n"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24)
                 : "l"(a), "l"(b), "r"((int)add));
}
template <> __device__ __forceinline__ void cu_wgmma<96>(float *d, uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %50, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
                 "}, %48, %49, p, 1, 1, 0, 0;\n}\n"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24), CU_D8(32), CU_D8(40)
                 : "l"(a), "l"(b), "r"((int)add));
}
template <> __device__ __forceinline__ void cu_wgmma<128>(float *d, uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24), CU_D8(32), CU_D8(40), CU_D8(48), CU_D8(56)
                 : "l"(a), "l"(b), "r"((int)add));
}
// d (64, 128) f32 = [d +] a (64, 32) e4m3 · b (128, 32)ᵀ e4m3, likewise. TRAP: the sums keep about 14 bits: no more than 128 along k.
__device__ __forceinline__ void cu_wgmma_e4m3(float *d, uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, p, 1, 1;\n}\n"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24), CU_D8(32), CU_D8(40), CU_D8(48), CU_D8(56)
                 : "l"(a), "l"(b), "r"((int)add));
}
// d (64, N) f32 += a (64, 16) bf16 of registers · b (16, N) bf16 of shared memory, its rows the steps (PTX ISA 8.5, 9.7.15.5: B is
// N-major). Begun here, done after cu_wgmma_wait; meanwhile neither d nor a nor the tile may be touched.
//   Warp w of the group has rows 16w .. 16w+15 of a, laid out as a of cu_mma_bf16, and of d as above
template <int N> __device__ __forceinline__ void cu_wgmma_weigh(float *d, const unsigned a[4], uint64_t b);
template <> __device__ __forceinline__ void cu_wgmma_weigh<64>(float *d, const unsigned a[4], uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <> __device__ __forceinline__ void cu_wgmma_weigh<128>(float *d, const unsigned a[4], uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
                 : CU_D8(0), CU_D8(8), CU_D8(16), CU_D8(24), CU_D8(32), CU_D8(40), CU_D8(48), CU_D8(56)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef CU_D8
// Values that products in flight have written or will read: arithmetic with them stays on its side of this place.
template <int N> __device__ __forceinline__ void cu_wgmma_hold(float *d)
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N> __device__ __forceinline__ void cu_wgmma_hold(unsigned *a)
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(a[i])::"memory");
}
__device__ __forceinline__ void cu_wgmma_begin() // before the first of some products: d is what it is seen to be
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void cu_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int N_LEFT> __device__ __forceinline__ void cu_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N_LEFT) : "memory");
}
// What has been written to shared memory, by this thread or by others before a barrier that it has met, is there for wgmma: of PTX ISA's
// memory consistency model, a proxy fence anywhere on the path from the write to the read ("proxy-preserved base causality order").
__device__ __forceinline__ void cu_async_fence()
{
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}
// Of each thread: more or fewer registers from here on, all warps of the group alike.
template <int N> __device__ __forceinline__ void cu_registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}
template <int N> __device__ __forceinline__ void cu_registers_fewer()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}

// An mbarrier: its phase ends when `count` threads have arrived, and the next begins. Phases alternate between parity 0 and 1.
__device__ __forceinline__ void cu_mbarrier_init(uint64_t *bar, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(cu_shared_address(bar)), "r"(count) : "memory");
}
__device__ __forceinline__ void cu_mbarrier_arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(cu_shared_address(bar)) : "memory");
}
// The same, for this thread, by its copies that go on by themselves, when all that were begun so far have arrived. TRAP: nothing is said
// of what the thread itself has written.
__device__ __forceinline__ void cu_async_arrive(uint64_t *bar)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(cu_shared_address(bar)) : "memory");
}
// Until the phase of this parity has ended; before the first one, parity 1 counts as ended.
__device__ __forceinline__ void cu_mbarrier_wait(uint64_t *bar, int parity)
{
    unsigned done;
    do
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                     : "=r"(done)
                     : "r"(cu_shared_address(bar)), "r"(parity)
                     : "memory");
    while (!done);
}
// Barrier `id` (1 to 15) of n threads, whole warps.
__device__ __forceinline__ void cu_barrier(int id, int n)
{
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(n) : "memory");
}
// As cu_barrier, but without waiting: these threads have come, and others wait for them.
__device__ __forceinline__ void cu_barrier_arrive(int id, int n)
{
    asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(n) : "memory");
}

// What a kernel that is launched by CU_LAUNCH_EARLY begins with, all threads, before they touch memory that an earlier kernel writes: the
// next kernel's blocks may be placed from now on, and all that the stream did before this one is done and seen.
__device__ __forceinline__ void cu_wait_earlier()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
// The line at p into L2, some time; p need not be read in the end. Of weights, which no kernel writes, before cu_wait_earlier.
__device__ __forceinline__ void cu_prefetch(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(p));
}
#else
#include <ptx_twin.h> // tests/simt/include
#endif

// ---- sm_90a: where wgmma finds its tiles (PTX ISA 8.5, 9.7.15.5.1), held against CuTe's words by tests/golden/gmma.txt
// A tile of rows of 128 bytes (64 bf16 or 128 e4m3), eight rows after the other, the 16-byte piece c of row r at c ^ r % 8 (128-byte
// swizzle). Bits 0-13: its address, 16-29: leading offset, 32-45: stride offset (from eight rows to the next), all in 16 bytes; 62-63: the
// swizzle.
//   rows of k, for cu_wgmma: the leading offset counts for nothing
__device__ __forceinline__ uint64_t cu_wgmma_tile(const void *tile)
{
    return (cu_tile_address(tile) & 0x3ffff) >> 4 | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
//   rows as steps, for cu_wgmma_weigh: 64 columns, more of them `panel` bytes further on (the leading offset)
__device__ __forceinline__ uint64_t cu_wgmma_steps(const void *tile, int panel)
{
    return (cu_tile_address(tile) & 0x3ffff) >> 4 | (uint64_t)(panel >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
// The same `bytes` further on: 32 a product along k of rows of k, 2048 one along rows as steps. In the lower half alone, which costs one
// addition: no tile goes beyond the address's bits.
__device__ __forceinline__ uint64_t cu_wgmma_on(uint64_t tile, int bytes)
{
    return (tile & 0xffffffff00000000u) | (uint32_t)((uint32_t)tile + (bytes >> 4));
}
