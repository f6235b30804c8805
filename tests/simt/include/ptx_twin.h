// What kernels/cuda/ptx.cuh's instructions do, lane by lane: the layouts of fragments are those of the PTX ISA, written from its tables a
// second time. Copies that go on by themselves happen when they are waited for, so that a wait that is missing or too short shows.
#pragma once

namespace simt
{
inline float bf16_half(unsigned pair, int high)
{
    return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}
inline float f16_half(unsigned pair, int high)
{
    return f16_to_f32((f16)(high ? pair >> 16 : pair));
}
template <float half(unsigned, int)> inline void mma_m16n8k16(float d[4], const unsigned a[4], const unsigned b[2])
{
    unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    exchange(0xffffffffu, mine, sizeof mine, "mma.m16n8k16");
    const int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; i++) {
        const int row = g + i / 2 * 8, col = 2 * t + i % 2;
        float sum = d[i];
        for (int k = 0; k < 16; k++) {
            // A(row, k): group row % 8, member (k % 8) / 2, register (k / 8) * 2 + row / 8. B(col, k): group col, register k / 8
            const unsigned *pa = (const unsigned *)peer(row % 8 * 4 + k % 8 / 2), *pb = (const unsigned *)peer(col * 4 + k % 8 / 2);
            sum += half(pa[k / 8 * 2 + row / 8], k % 2) * half(pb[4 + k / 8], k % 2);
        }
        d[i] = sum;
    }
}
} // namespace simt

static inline void cu_mma_bf16(float d[4], const unsigned a[4], const unsigned b[2])
{
    simt::mma_m16n8k16<simt::bf16_half>(d, a, b);
}
static inline void cu_mma_f16(float d[4], const unsigned a[4], const unsigned b[2])
{
    simt::mma_m16n8k16<simt::f16_half>(d, a, b);
}
static inline void cu_f16_e4m3(unsigned r[2], unsigned four)
{
    for (int i = 0; i < 2; i++)
        r[i] = f32_to_f16(e4m3_to_f32((e4m3)(four >> 16 * i))) | (unsigned)f32_to_f16(e4m3_to_f32((e4m3)(four >> (16 * i + 8)))) << 16;
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

// ---- sm_90a ----

namespace simt
{
// The matrix descriptor: bits 0-13 address / 16, 32-45 bytes from eight rows to the next / 16, 62-63 swizzle (1: of 128 bytes).
inline const unsigned char *wgmma_piece(uint64_t tile, int row, int piece)
{
    if (tile >> 62 != 1) fail("wgmma: only tiles with 128-byte swizzle are emulated");
    uint64_t at =
        ((tile & 0x3fff) << 4) + (tile >> 32 & 0x3fff) * 16 * (uint64_t)(row / 8) + 128 * (uint64_t)(row % 8) + 16 * (uint64_t)piece;
    at ^= at >> 3 & 0x70; // the row within eight, wherever the address says it is
    const unsigned char *p = (const unsigned char *)shared_dynamic() + at;
    async_read(p, 16);
    return p;
}
inline float wgmma_value(const unsigned char *const piece[2], int k, bool fp8)
{
    uint16_t v;
    if (fp8) return e4m3_to_f32(piece[k / 16][k % 16]);
    memcpy(&v, piece[k / 8] + k % 8 * 2, 2);
    return bf16_to_f32(v);
}
struct wgmma {
    float *d;
    uint64_t a, b;
    int n;
    bool add, fp8;
};
inline void wgmma_work(const void *arg)
{
    const struct wgmma *w = (const struct wgmma *)arg;
    const int warp = self->linear / 32 % 4, g = lane() / 4, t = lane() % 4, n_k = w->fp8 ? 32 : 16;
    for (int half = 0; half < 2; half++) {
        const int row = 16 * warp + g + 8 * half;
        const unsigned char *a[2] = {wgmma_piece(w->a, row, 0), wgmma_piece(w->a, row, 1)};
        float av[32];
        for (int k = 0; k < n_k; k++) av[k] = wgmma_value(a, k, w->fp8);
        for (int j = 0; j < w->n / 8; j++)
            for (int i = 0; i < 2; i++) {
                const unsigned char *b[2] = {wgmma_piece(w->b, 8 * j + 2 * t + i, 0), wgmma_piece(w->b, 8 * j + 2 * t + i, 1)};
                float *d = &w->d[4 * j + 2 * half + i], sum = w->add ? *d : 0;
                for (int k = 0; k < n_k; k++) sum += av[k] * wgmma_value(b, k, w->fp8);
                *d = sum;
            }
    }
}
struct mbarrier {                                              // in the 8 bytes of the barrier
    unsigned pending : 16, count : 16, parity : 1, epoch : 31; // epoch: when the last phase ended
};
struct mbarrier_awaited {
    const mbarrier *bar;
    int parity;
};
inline void wgmma_begun(const wgmma &w)
{
    uint64_t mine[3] = {w.a, w.b, w.add};
    exchange(0xffffffffu, mine, sizeof mine, "wgmma");
    if (memcmp(mine, peer(0), sizeof mine)) fail("wgmma: the lanes of a warp differ in their tiles");
    for (int i = 0; i < w.n / 2; i++)
        if (!w.add) w.d[i] = __uint_as_float(0x7fffffffu); // not to be read before the wait
    defer(wgmma_work, &w, sizeof w, DEFERRED_WGMMA);
}
} // namespace simt

template <int N> static inline void cu_wgmma(float *d, uint64_t a, uint64_t b, bool add)
{
    simt::wgmma_begun({d, a, b, N, add, false});
}
static inline void cu_wgmma_e4m3(float *d, uint64_t a, uint64_t b, bool add)
{
    simt::wgmma_begun({d, a, b, 128, add, true});
}
static inline unsigned cu_tile_address(const void *tile)
{
    const size_t at = (size_t)((const unsigned char *)tile - (const unsigned char *)simt::shared_dynamic());
    if (at % 1024) simt::fail("wgmma: a tile at byte %zu, not at 1024", at);
    return (unsigned)at;
}
static inline void cu_wgmma_begin() {}
static inline void cu_wgmma_commit()
{
    simt::commit(simt::DEFERRED_WGMMA);
}
template <int N_LEFT> static inline void cu_wgmma_wait()
{
    simt::wait_groups(N_LEFT, simt::DEFERRED_WGMMA);
    simt::exchange(0xffffffffu, "", 0, "wgmma.wait_group"); // of the whole warp: no lane goes on before all tiles are read
}
static inline void cu_async_fence()
{
    simt::async_fence();
}
template <int N> static inline void cu_registers_more() {}
template <int N> static inline void cu_registers_fewer() {}

static inline void cu_mbarrier_init(uint64_t *bar, int count)
{
    if (count < 1 || count > 1024) simt::fail("mbarrier of %d", count);
    simt::mbarrier b = {(unsigned)count, (unsigned)count, 0, 0};
    memcpy(bar, &b, sizeof b);
}
static inline void cu_mbarrier_arrive(uint64_t *bar)
{
    simt::mbarrier b;
    memcpy(&b, bar, sizeof b);
    if (!b.pending) simt::fail("mbarrier: not initialised");
    if (--b.pending == 0) {
        b.pending = b.count;
        b.parity ^= 1;
        b.epoch = (unsigned)simt::release() & 0x7fffffffu;
    }
    memcpy(bar, &b, sizeof b);
}
static inline void cu_async_arrive(uint64_t *bar) // at once: the copies are over sooner than on a machine, never later
{
    simt::commit();
    simt::wait_groups(0);
    cu_mbarrier_arrive(bar);
}
static inline void cu_mbarrier_wait(uint64_t *bar, int parity)
{
    simt::mbarrier_awaited a = {(const simt::mbarrier *)bar, parity};
    simt::wait_until(
        [](void *p) {
            const simt::mbarrier_awaited *a = (const simt::mbarrier_awaited *)p;
            return (int)a->bar->parity != a->parity;
        },
        &a, "an mbarrier");
    simt::acquire((int)a.bar->epoch);
}
static inline void cu_barrier(int id, int n)
{
    simt::barrier(id, n, __FILE__, __LINE__);
}
static inline void cu_barrier_arrive(int id, int n)
{
    simt::barrier_arrive(id, n);
}

namespace simt
{
// Element (step k, column n) of a tile with its rows as steps: bits 16-29 bytes from 64 columns to the next / 16, 32-45 from eight steps to
// the next.
inline const unsigned char *wgmma_step_piece(uint64_t tile, int k, int piece) // piece: eight columns
{
    if (tile >> 62 != 1) fail("wgmma: only tiles with 128-byte swizzle are emulated");
    uint64_t at = ((tile & 0x3fff) << 4) + (tile >> 32 & 0x3fff) * 16 * (uint64_t)(k / 8) + 128 * (uint64_t)(k % 8) +
                  (tile >> 16 & 0x3fff) * 16 * (uint64_t)(piece / 8) + 16 * (uint64_t)(piece % 8);
    at ^= at >> 3 & 0x70;
    const unsigned char *p = (const unsigned char *)shared_dynamic() + at;
    async_read(p, 16);
    return p;
}
struct wgmma_weigh {
    float *d;
    const unsigned *a;
    uint64_t b;
    int n;
    unsigned was[4], row[2][8]; // a at the beginning: the lane's own, and its two rows
};
inline void wgmma_weigh_work(const void *arg)
{
    const struct wgmma_weigh *w = (const struct wgmma_weigh *)arg;
    const int t = lane() % 4;
    if (memcmp(w->a, w->was, sizeof w->was)) fail("wgmma: a register of a has changed before the wait");
    for (int j = 0; j < w->n / 8; j++) {
        const unsigned char *piece[16];
        for (int k = 0; k < 16; k++) piece[k] = wgmma_step_piece(w->b, k, j);
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 2; i++) {
                float *d = &w->d[4 * j + 2 * half + i], sum = *d;
                for (int k = 0; k < 16; k++) {
                    uint16_t v;
                    memcpy(&v, piece[k] + (2 * t + i) * 2, 2);
                    sum += bf16_half(w->row[half][k / 2], k % 2) * bf16_to_f32(v);
                }
                *d = sum;
            }
    }
}
} // namespace simt

template <int N> static inline void cu_wgmma_weigh(float *d, const unsigned a[4], uint64_t b)
{
    unsigned mine[6] = {a[0], a[1], a[2], a[3], (unsigned)b, (unsigned)(b >> 32)};
    simt::exchange(0xffffffffu, mine, sizeof mine, "wgmma with a in registers");
    if (memcmp(mine + 4, (const unsigned *)simt::peer(0) + 4, 8)) simt::fail("wgmma: the lanes of a warp differ in their tiles");
    simt::wgmma_weigh w = {d, a, b, N, {a[0], a[1], a[2], a[3]}, {}};
    for (int pair = 0; pair < 8; pair++) { // columns 2 pair, 2 pair + 1: member pair % 4; rows g, g + 8: registers 0, 1 of eight columns
        const unsigned *from = (const unsigned *)simt::peer(simt::lane() / 4 * 4 + pair % 4);
        for (int half = 0; half < 2; half++) w.row[half][pair] = from[pair / 4 * 2 + half];
    }
    simt::defer(simt::wgmma_weigh_work, &w, sizeof w, simt::DEFERRED_WGMMA);
}
template <int N, class T> static inline void cu_wgmma_hold(T *) {}

static inline void cu_wait_earlier()
{
    simt::wait_earlier();
}
static inline void cu_prefetch(const void *) {}
