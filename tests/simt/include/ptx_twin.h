// What kernels/cuda/ptx.cuh's instructions do, lane by lane: the layouts of fragments are those of the PTX ISA, written from its tables a
// second time. Copies that go on by themselves happen when they are waited for, so that a wait that is missing or too short shows.
#pragma once

namespace simt
{
inline float bf16_half(unsigned pair, int high)
{
    return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}
} // namespace simt

static inline void cu_mma_bf16(float d[4], const unsigned a[4], const unsigned b[2])
{
    unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    simt::exchange(0xffffffffu, mine, sizeof mine, "mma.m16n8k16");
    const int g = simt::lane() / 4, t = simt::lane() % 4;
    for (int i = 0; i < 4; i++) {
        const int row = g + i / 2 * 8, col = 2 * t + i % 2;
        float sum = d[i];
        for (int k = 0; k < 16; k++) {
            // A(row, k): group row % 8, member (k % 8) / 2, register (k / 8) * 2 + row / 8. B(col, k): group col, register k / 8
            const unsigned *pa = (const unsigned *)simt::peer(row % 8 * 4 + k % 8 / 2),
                           *pb = (const unsigned *)simt::peer(col * 4 + k % 8 / 2);
            sum += simt::bf16_half(pa[k / 8 * 2 + row / 8], k % 2) * simt::bf16_half(pb[4 + k / 8], k % 2);
        }
        d[i] = sum;
    }
}

namespace simt
{
inline void ldmatrix(unsigned r[4], const void *row, bool transposed)
{
    if ((uintptr_t)row % 16) fail("ldmatrix of an address that is not at 16 bytes");
    shared_touch(row, 16, false);
    exchange(0xffffffffu, &row, sizeof row, transposed ? "ldmatrix.trans" : "ldmatrix");
    const int g = lane() / 4, t = lane() % 4;
    for (int j = 0; j < 4; j++) {
        uint16_t v[2];
        for (int i = 0; i < 2; i++) {
            const int at_row = transposed ? 2 * t + i : g, at_col = transposed ? g : 2 * t + i;
            v[i] = (*(const uint16_t *const *)peer(j * 8 + at_row))[at_col];
        }
        r[j] = v[0] | (unsigned)v[1] << 16;
    }
}
struct copy16 {
    void *to;
    const void *from;
    bool there;
};
} // namespace simt
static inline void cu_ldmatrix(unsigned r[4], const void *row)
{
    simt::ldmatrix(r, row, false);
}
static inline void cu_ldmatrix_t(unsigned r[4], const void *row)
{
    simt::ldmatrix(r, row, true);
}

static inline void cu_async_copy16(void *shared, const void *global, bool there = true)
{
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) simt::fail("cp.async of 16 bytes at an address that is not at 16 bytes");
    simt::shared_touch(shared, 16, true);
    memset(shared, 0xff, 16);
    simt::copy16 c = {shared, global, there};
    simt::defer(
        [](const void *p) {
            const simt::copy16 *c = (const simt::copy16 *)p;
            if (c->there)
                memcpy(c->to, c->from, 16);
            else
                memset(c->to, 0, 16);
            simt::shared_touch(c->to, 16, true);
        },
        &c, sizeof c);
}
static inline void cu_async_commit()
{
    simt::commit();
}
template <int N_LEFT> static inline void cu_async_wait()
{
    simt::wait_groups(N_LEFT);
}

static inline unsigned cu_pair_bf16(float lo, float hi)
{
    return f32_to_bf16(lo) | (unsigned)f32_to_bf16(hi) << 16;
}
static inline float cu_exp2(float x)
{
    return exp2f(x);
}

static inline void cu_async_copy4(void *shared, const void *global, bool there = true)
{
    if ((uintptr_t)shared % 4 || (uintptr_t)global % 4) simt::fail("cp.async of 4 bytes at an address that is not at 4 bytes");
    simt::shared_touch(shared, 4, true);
    memset(shared, 0xff, 4);
    simt::copy16 c = {shared, global, there};
    simt::defer(
        [](const void *p) {
            const simt::copy16 *c = (const simt::copy16 *)p;
            if (c->there)
                memcpy(c->to, c->from, 4);
            else
                memset(c->to, 0, 4);
            simt::shared_touch(c->to, 4, true);
        },
        &c, sizeof c);
}
