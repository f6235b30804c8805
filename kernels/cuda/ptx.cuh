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

// 16 bytes from global to shared memory, or zeros if not `there` (the address must be valid all the same): begun here, there after
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
#else
#include "ptx_twin.h"
#endif
