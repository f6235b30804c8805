// Writes tests/golden/gmma.txt: where CuTe, which is NVIDIA's own, says that the fragments of tensor-core instructions and the tiles that
// wgmma reads lie, and the descriptors that it makes of these tiles. What our kernels issue is held against it (tests/simt/layouts.cc).
// Needs CUTLASS (https://github.com/NVIDIA/cutlass) and the CUDA Toolkit's headers, no GPU:
//   g++ -std=c++17 -w -Icutlass/include -I$CUDA/include -I$CUDA/include/cccl -o gmma tests/golden/gmma.cc && ./gmma > tests/golden/gmma.txt
//
// A line each, layouts as CuTe prints them flattened, shape:stride, the first number fastest:
//   registers NAME LANES VALUES          value v of lane l is element LANES(l) + VALUES(v) of the matrix, by columns
//   tile NAME ROWS COLUMNS               element (r, c) is at ROWS(r) + COLUMNS(c), then swizzled: bits 4-6 of its address ^= bits 7-9
//   descriptor NAME BITS PARTS STEPS     of the tile at byte 1024; for part p, step k: + PARTS(p) + STEPS(k) (16 bytes) in the lower half
#include <cstddef>
#include <cstdint>
#include <cstdio>
#define CUTE_CVTA_GENERIC_TO_SHARED_ACTIVATED 1 // CuTe then takes addresses from here, on the host too
alignas(1024) static char room[1 << 18];
static inline size_t __cvta_generic_to_shared(const void *p)
{
    return (size_t)((const char *)p - room);
}
#include <cute/tensor.hpp>
using namespace cute;
typedef bfloat16_t bf16;
typedef float_e4m3_t e4m3;
static constexpr auto K = GMMA::Major::K, MN = GMMA::Major::MN;

template <class T> static void put_numbers(const T &t)
{
    int n = 0;
    if constexpr (is_tuple<T>::value)
        for_each(flatten(t), [&](auto v) { printf("%s%d", n++ ? "," : "", (int)v); });
    else
        printf("%d", (int)t);
}
template <class L> static void put_layout(const L &l)
{
    printf(" ");
    put_numbers(l.shape());
    printf(":");
    put_numbers(l.stride());
}
template <class L> static void registers(const char *name, const L &l)
{
    printf("registers %s", name);
    put_layout(get<0>(l));
    put_layout(get<1>(l));
    printf("\n");
}

template <class F> static void descriptor(const char *name, const char *side, int rows, int columns, const F &f)
{
    static_assert(decltype(rank(f.layout()))::value == 3 && decltype(size<0>(f.layout()))::value == 1);
    printf("descriptor %s-%dx%d-%s %016llx", name, rows, columns, side, (unsigned long long)(uint64_t)f(0, 0, 0));
    put_layout(get<1>(f.layout()));
    put_layout(get<2>(f.layout()));
    printf("\n");
}
// ROWS of COLUMNS along k, as A (64 rows a part) and as B of MMA's N.
template <class T, class MMA, int ROWS, int COLUMNS> static void rows_of_k(const char *name, bool a, bool b)
{
    const auto l = tile_to_shape(GMMA::Layout_K_SW128_Atom<T>{}, Shape<Int<ROWS>, Int<COLUMNS>>{});
    static_assert(is_same_v<decltype(l.layout_a()), Swizzle<3, 4, 3>>);
    printf("tile %s-%dx%d", name, ROWS, COLUMNS);
    put_layout(get<0>(l.layout_b()));
    put_layout(get<1>(l.layout_b()));
    printf("\n");
    const auto tile = make_tensor(make_smem_ptr((T *)(room + 1024)), l);
    const auto thread = make_tiled_mma(MMA{}).get_slice(0);
    if (a) descriptor(name, "a", ROWS, COLUMNS, thread.make_fragment_A(thread.partition_A(tile)));
    if (b) descriptor(name, "b", ROWS, COLUMNS, thread.make_fragment_B(thread.partition_B(tile)));
}
// ROWS of COLUMNS, the rows the steps: B of N = COLUMNS, which CuTe has as (COLUMNS, ROWS) with COLUMNS major.
template <class MMA, int ROWS, int COLUMNS> static void rows_as_steps(const char *name)
{
    const auto l = tile_to_shape(GMMA::Layout_MN_SW128_Atom<bf16>{}, Shape<Int<COLUMNS>, Int<ROWS>>{}, Step<_2, _1>{});
    static_assert(is_same_v<decltype(l.layout_a()), Swizzle<3, 4, 3>>);
    printf("tile %s-%dx%d", name, ROWS, COLUMNS);
    put_layout(get<1>(l.layout_b()));
    put_layout(get<0>(l.layout_b()));
    printf("\n");
    const auto thread = make_tiled_mma(MMA{}).get_slice(0);
    descriptor(name, "b", ROWS, COLUMNS, thread.make_fragment_B(thread.partition_B(make_tensor(make_smem_ptr((bf16 *)(room + 1024)), l))));
}

int main()
{
    printf("# by tests/golden/gmma.cc with CUTLASS 7107b05535f8977f5ecb9d01ee203205b1fd9bc4\n");
    typedef MMA_Traits<SM80_16x8x16_F32BF16BF16F32_TN> warp;
    registers("mma-a", warp::ALayout{});
    registers("mma-b", warp::BLayout{});
    registers("mma-d", warp::CLayout{});
    // bits of the matrices that the lanes' rows make, one after another
    registers("ldmatrix", Copy_Traits<SM75_U32x4_LDSM_N>::DstLayout{});
    registers("ldmatrix-t", Copy_Traits<SM75_U16x8_LDSM_T>::DstLayout{});
    registers("weigh-a", MMA_Traits<SM90_64x128x16_F32BF16BF16_RS<K, MN>>::ALayout{});
    registers("wgmma-d-8", MMA_Traits<SM90_64x8x16_F32BF16BF16_SS<K, K>>::CLayout{});
    registers("wgmma-d-32", MMA_Traits<SM90_64x32x16_F32BF16BF16_SS<K, K>>::CLayout{});
    registers("wgmma-d-64", MMA_Traits<SM90_64x64x16_F32BF16BF16_SS<K, K>>::CLayout{});
    registers("wgmma-d-96", MMA_Traits<SM90_64x96x16_F32BF16BF16_SS<K, K>>::CLayout{});
    registers("wgmma-d-128", MMA_Traits<SM90_64x128x16_F32BF16BF16_SS<K, K>>::CLayout{});
    registers("weigh-d-64", MMA_Traits<SM90_64x64x16_F32BF16BF16_RS<K, MN>>::CLayout{});
    registers("weigh-d-128", MMA_Traits<SM90_64x128x16_F32BF16BF16_RS<K, MN>>::CLayout{});
    registers("e4m3-d-128", MMA_Traits<SM90_64x128x32_F32E4M3E4M3_SS_TN<>>::CLayout{});

    // product_wgmma.cu: weights, then rows of x
    rows_of_k<bf16, SM90_64x64x16_F32BF16BF16_SS<K, K>, 64, 64>("k", true, true);
    rows_of_k<bf16, SM90_64x8x16_F32BF16BF16_SS<K, K>, 8, 64>("k", false, true);
    rows_of_k<bf16, SM90_64x32x16_F32BF16BF16_SS<K, K>, 32, 64>("k", false, true);
    rows_of_k<bf16, SM90_64x128x16_F32BF16BF16_SS<K, K>, 128, 64>("k", true, true);
    rows_of_k<bf16, SM90_64x128x16_F32BF16BF16_SS<K, K>, 256, 64>("k", true, false);
    rows_of_k<e4m3, SM90_64x128x32_F32E4M3E4M3_SS_TN<>, 128, 128>("e4m3", true, true);
    // attention_wgmma.cu, attention_bwd_wgmma.cu: left sides, then right ones
    rows_of_k<bf16, SM90_64x128x16_F32BF16BF16_SS<K, K>, 192, 64>("k", true, false);
    rows_of_k<bf16, SM90_64x128x16_F32BF16BF16_SS<K, K>, 128, 128>("k", true, true);
    rows_of_k<bf16, SM90_64x128x16_F32BF16BF16_SS<K, K>, 128, 192>("k", true, true);
    rows_of_k<bf16, SM90_64x64x16_F32BF16BF16_SS<K, K>, 64, 128>("k", false, true);
    rows_of_k<bf16, SM90_64x96x16_F32BF16BF16_SS<K, K>, 96, 128>("k", false, true);
    rows_as_steps<SM90_64x64x16_F32BF16BF16_RS<K, MN>, 128, 64>("steps");
    rows_as_steps<SM90_64x128x16_F32BF16BF16_RS<K, MN>, 128, 128>("steps");
    rows_as_steps<SM90_64x64x16_F32BF16BF16_RS<K, MN>, 64, 64>("steps");
    rows_as_steps<SM90_64x128x16_F32BF16BF16_RS<K, MN>, 64, 128>("steps");
    rows_as_steps<SM90_64x128x16_F32BF16BF16_RS<K, MN>, 96, 128>("steps");
}
