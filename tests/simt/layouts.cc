// Holds what our kernels take for the layouts of tensor-core instructions against what CuTe says (tests/golden/gmma.txt): matrices are laid
// out by CuTe's layouts, multiplied through the functions of the kernels by the emulated instructions, and read by CuTe's layouts; and the
// descriptors are compared bit by bit. The emulation was written from the same reading of the PTX ISA as the kernels; CuTe was not.
#include "kernels/cuda/attn_wgmma.cuh"
#include "tests/simt/simt_state.h"

namespace
{
struct layout { // shape:stride, the first mode fastest
    int n, shape[8], stride[8];
    int size() const
    {
        int all = 1;
        for (int i = 0; i < n; i++) all *= shape[i];
        return all;
    }
    int operator()(int at) const
    {
        int sum = 0;
        for (int i = 0; i < n; at /= shape[i++]) sum += at % shape[i] * stride[i];
        return sum;
    }
};
struct line {
    char kind[16], name[32];
    struct layout of[2]; // registers: lanes, values. tile: rows, columns. descriptor: parts, steps
    uint64_t bits;
} lines[64];
int n_line, n_held;

// ---- the file ---------------------------------------------------------------------------------------------------------------------------
bool read_layout(struct layout *l, char *text)
{
    char *stride = strchr(text, ':'), *rest = NULL;
    if (!stride) return false;
    *stride++ = '\0';
    for (l->n = 0; l->n < 8; l->n++) {
        char *shape = strtok_r(l->n ? NULL : text, ",", &rest);
        if (!shape) break;
        l->shape[l->n] = atoi(shape);
    }
    for (int i = 0; i < l->n; i++) l->stride[i] = (int)strtol(stride, &stride, 10), stride += *stride == ',';
    return l->n > 0 && !*stride;
}
void read_lines(const char *path)
{
    FILE *f = fopen(path, "r");
    char text[256], word[2][96];
    if (!f) simt::fail("%s cannot be read", path);
    for (n_line = 0; fgets(text, sizeof text, f);) {
        if (*text == '#') continue;
        struct line *l = &lines[n_line++];
        int at = 0;
        bool ok = n_line <= 64 && sscanf(text, "%15s %31s%n", l->kind, l->name, &at) == 2;
        if (ok && !strcmp(l->kind, "descriptor")) {
            unsigned long long bits;
            int more = 0;
            ok = sscanf(text + at, "%llx%n", &bits, &more) == 1;
            l->bits = bits, at += more;
        }
        ok = ok && sscanf(text + at, "%95s %95s", word[0], word[1]) == 2 && read_layout(&l->of[0], word[0]) &&
             read_layout(&l->of[1], word[1]);
        if (!ok) simt::fail("%s: %s", path, text);
    }
    fclose(f);
}
const struct line &named(const char *kind, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const struct line &named(const char *kind, const char *fmt, ...)
{
    char name[32];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    for (int i = 0; i < n_line; i++)
        if (!strcmp(lines[i].kind, kind) && !strcmp(lines[i].name, name)) return lines[i];
    simt::fail("no %s %s", kind, name);
}

// ---- matrices of small whole numbers ----------------------------------------------------------------------------------------------------
float value(int matrix, int row, int col)
{
    return (float)((uint32_t)(row * 2654435761u + col * 40503u + matrix * 97u) >> 7 & 15) - 7;
}
template <class T> T code(float x);
template <> bf16 code(float x)
{
    return f32_to_bf16(x);
}
template <> half_t code(float x)
{
    return {f32_to_f16(x)};
}
template <> e4m3 code(float x)
{
    return f32_to_e4m3(x);
}
template <class T> unsigned pair(float low, float high)
{
    const T v[2] = {code<T>(low), code<T>(high)};
    unsigned r;
    memcpy(&r, v, sizeof r);
    return r;
}
// Of all threads: the matrix where CuTe has it.
template <class T> void fill(smem<unsigned char> tile, const struct line &l, int matrix)
{
    for (int r = threadIdx.x; r < l.of[0].size(); r += blockDim.x)
        for (int c = 0; c < l.of[1].size(); c++) {
            uintptr_t at = sizeof(T) * (uintptr_t)(l.of[0](r) + l.of[1](c));
            at ^= at >> 3 & 0x70;
            const T v = code<T>(value(matrix, r, c));
            memcpy(tile.raw((int)at), &v, sizeof v);
            simt::shared_touch(tile.raw((int)at), sizeof v, true);
        }
}
void same(const struct line &l, int part, int step, uint64_t bits, uint64_t tile_at, uint64_t unread = 0)
{
    uint64_t want = l.bits + (uint64_t)(l.of[0](part) + l.of[1](step)) - (1024 >> 4) + (tile_at >> 4);
    if ((bits & ~unread) != (want & ~unread))
        simt::fail("descriptor %s, part %d, step %d: %016llx, and CuTe's is %016llx", l.name, part, step, (unsigned long long)bits,
                   (unsigned long long)want);
    n_held += threadIdx.x == 0;
}
void equal(const struct line &l, int v, float found, float want)
{
    if (found != want) simt::fail("%s: value %d of lane %d is %g, not %g", l.name, v, (int)threadIdx.x, found, want);
    n_held++;
}
enum : uint64_t { LEADING = (uint64_t)0x3fff << 16, STRIDE = (uint64_t)0x3fff << 32 };

// ---- wgmma ------------------------------------------------------------------------------------------------------------------------------
template <int A_ROWS, int N, int COLUMNS> void rows_of_k()
{
    const struct line &at = named("tile", "k-%dx%d", A_ROWS, COLUMNS), &bt = named("tile", "k-%dx%d", N, COLUMNS),
                      &ad = named("descriptor", "k-%dx%d-a", A_ROWS, COLUMNS), &bd = named("descriptor", "k-%dx%d-b", N, COLUMNS),
                      &d = named("registers", "wgmma-d-%d", N);
    enum { A = A_ROWS * COLUMNS * 2, B = N * COLUMNS * 2 };
    simt::launch("wgmma of rows of k", dim3(1), dim3(128), A + B, false, [&] {
        CU_SHARED_DYNAMIC(room);
        fill<bf16>(room, at, 0);
        fill<bf16>(room + A, bt, 1);
        cu_async_fence();
        __syncthreads();
        for (int part = 0; part < A_ROWS / 64; part++) {
            float sum[N / 2];
            tiles_begin<COLUMNS, N>(sum, room + part * 64 * 128, A_ROWS, room + A, N);
            cu_wgmma_wait<0>();
            for (int v = 0; v < N / 2; v++) {
                const int e = d.of[0](threadIdx.x) + d.of[1](v);
                float want = 0;
                for (int k = 0; k < COLUMNS; k++) want += value(0, part * 64 + e % 64, k) * value(1, e / 64, k);
                equal(d, v, sum[v], want);
            }
            for (int c = 0; c < COLUMNS / 16; c++) {
                const int on = c % 4 * 32;
                same(ad, part, c, cu_wgmma_on(cu_wgmma_tile(room.raw(part * 64 * 128)), c / 4 * A_ROWS * 128 + on), 0);
                // one eight of rows: there is no next one for the stride to lead to
                same(bd, 0, c, cu_wgmma_on(cu_wgmma_tile(room.raw(A)), c / 4 * N * 128 + on), A, N == 8 ? (uint64_t)STRIDE : 0);
            }
        }
    });
}
void e4m3_rows_of_k()
{
    const struct line &t = named("tile", "e4m3-128x128"), &ad = named("descriptor", "e4m3-128x128-a"),
                      &bd = named("descriptor", "e4m3-128x128-b"), &d = named("registers", "e4m3-d-128");
    simt::launch("wgmma of e4m3", dim3(1), dim3(128), 2 * 16384, false, [&] {
        CU_SHARED_DYNAMIC(room);
        fill<e4m3>(room, t, 0);
        fill<e4m3>(room + 16384, t, 1);
        cu_async_fence();
        __syncthreads();
        const uint64_t x = cu_wgmma_tile(room.raw(16384));
        for (int part = 0; part < 2; part++) {
            const uint64_t w = cu_wgmma_tile(room.raw(part * 64 * 128));
            float sum[64];
            for (int j = 0; j < 4; j++) {
                same(ad, part, j, cu_wgmma_on(w, 32 * j), 0);
                same(bd, 0, j, cu_wgmma_on(x, 32 * j), 16384);
                cu_wgmma_e4m3(sum, cu_wgmma_on(w, 32 * j), cu_wgmma_on(x, 32 * j), j);
            }
            cu_wgmma_commit();
            cu_wgmma_wait<0>();
            for (int v = 0; v < 64; v++) {
                const int e = d.of[0](threadIdx.x) + d.of[1](v);
                float want = 0;
                for (int k = 0; k < 128; k++) want += value(0, part * 64 + e % 64, k) * value(1, e / 64, k);
                equal(d, v, sum[v], want);
            }
        }
    });
}
template <int ROWS, int N> void rows_as_steps()
{
    const struct line &t = named("tile", "steps-%dx%d", ROWS, N), &bd = named("descriptor", "steps-%dx%d-b", ROWS, N),
                      &a = named("registers", "weigh-a"), &d = named("registers", "weigh-d-%d", N);
    simt::launch("wgmma of rows as steps", dim3(1), dim3(128), ROWS * N * 2, false, [&] {
        CU_SHARED_DYNAMIC(room);
        fill<bf16>(room, t, 1);
        cu_async_fence();
        __syncthreads();
        unsigned left[ROWS / 4];
        float sum[N / 2] = {};
        for (int c = 0; c < ROWS / 16; c++)
            for (int v = 0; v < 8; v += 2) {
                const int e = a.of[0](threadIdx.x) + a.of[1](v), f = a.of[0](threadIdx.x) + a.of[1](v + 1);
                left[4 * c + v / 2] = pair<bf16>(value(0, e % 64, 16 * c + e / 64), value(0, f % 64, 16 * c + f / 64));
            }
        steps_begin<N, ROWS>(sum, left, room);
        cu_wgmma_wait<0>();
        for (int v = 0; v < N / 2; v++) {
            const int e = d.of[0](threadIdx.x) + d.of[1](v);
            float want = 0;
            for (int k = 0; k < ROWS; k++) want += value(0, e % 64, k) * value(1, k, e / 64);
            equal(d, v, sum[v], want);
        }
        for (int c = 0; c < ROWS / 16; c++) // 64 columns: there are no next ones
            same(bd, 0, c, cu_wgmma_on(cu_wgmma_steps(room.raw(), ROWS * 128), 2048 * c), 0, N == 64 ? (uint64_t)LEADING : 0);
    });
}

// ---- a warp's instructions --------------------------------------------------------------------------------------------------------------
template <class T> void warp_product(void product(float *, const unsigned *, const unsigned *))
{
    const struct line &al = named("registers", "mma-a"), &bl = named("registers", "mma-b"), &dl = named("registers", "mma-d");
    simt::launch("mma", dim3(1), dim3(32), 0, false, [&] {
        const int lane = threadIdx.x;
        unsigned a[4], b[2];
        float d[4] = {};
        for (int v = 0; v < 8; v += 2) {
            const int e = al.of[0](lane) + al.of[1](v), f = al.of[0](lane) + al.of[1](v + 1);
            a[v / 2] = pair<T>(value(0, e % 16, e / 16), value(0, f % 16, f / 16));
        }
        for (int v = 0; v < 4; v += 2) {
            const int e = bl.of[0](lane) + bl.of[1](v), f = bl.of[0](lane) + bl.of[1](v + 1);
            b[v / 2] = pair<T>(value(1, e % 8, e / 8), value(1, f % 8, f / 8));
        }
        product(d, a, b);
        for (int v = 0; v < 4; v++) {
            const int e = dl.of[0](lane) + dl.of[1](v);
            float want = 0;
            for (int k = 0; k < 16; k++) want += value(0, e % 16, k) * value(1, e / 16, k);
            equal(dl, v, d[v], want);
        }
    });
}
void matrices(const char *name, void load(unsigned *, const void *))
{
    const struct line &l = named("registers", "%s", name);
    simt::launch(name, dim3(1), dim3(32), 512, false, [&] {
        CU_SHARED_DYNAMIC(room);
        unsigned r[4];
        for (int i = 0; i < 8; i++) room.as<uint16_t>()[threadIdx.x * 8 + i] = (uint16_t)(threadIdx.x * 8 + i);
        __syncthreads();
        load(r, room.raw(16 * threadIdx.x));
        for (int i = 0; i < 8; i++)
            equal(l, 16 * i, (float)(r[i / 2] >> 16 * (i % 2) & 0xffff), (float)(l.of[0](threadIdx.x) + l.of[1](16 * i)) / 16);
    });
}
} // namespace

int simt_layouts(const char *golden)
{
    read_lines(golden);
    n_held = 0;
    warp_product<bf16>(cu_mma_bf16);
    warp_product<half_t>(cu_mma_f16);
    matrices("ldmatrix", cu_ldmatrix);
    matrices("ldmatrix-t", cu_ldmatrix_t);
    rows_of_k<64, 8, 64>(); // product_wgmma.cu
    rows_of_k<128, 32, 64>();
    rows_of_k<256, 128, 64>();
    e4m3_rows_of_k();
    rows_of_k<192, 128, 64>(); // attention_wgmma.cu
    rows_of_k<128, 128, 128>();
    rows_of_k<128, 128, 192>();
    rows_as_steps<128, 64>();
    rows_as_steps<128, 128>();
    rows_of_k<128, 64, 64>(); // attention_bwd_wgmma.cu
    rows_of_k<128, 64, 128>();
    rows_of_k<128, 128, 64>();
    rows_of_k<128, 96, 128>();
    rows_as_steps<64, 64>();
    rows_as_steps<64, 128>();
    rows_as_steps<96, 128>();
    return n_held;
}
