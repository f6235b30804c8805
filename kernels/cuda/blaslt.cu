// cuBLASLt: plans by shape. A plan holds the library's descriptions and the algorithm, which is measured the first time that a shape of
// its size comes (the number of tokens varies from step to step: sizes are taken in steps), if the product is large enough to be worth
// it. What was measured is kept in a file beside other caches of the user's, so that later runs make the same choices: the choice decides
// in which order a sum is made, hence its last bits.
#include "kernels/cuda/blaslt.cuh"
#include "kernels/cuda/choices.cuh"
#include "kernels/cuda/library.cuh"

#include <cublasLt.h>

// clang-format off
#define BLASLT_CALLS(X)                                                                                                                    \
    X(Create) X(Destroy) X(GetVersion)                                                                                                     \
    X(MatmulDescCreate) X(MatmulDescDestroy) X(MatmulDescSetAttribute)                                                                     \
    X(MatrixLayoutCreate) X(MatrixLayoutDestroy)                                                                                           \
    X(MatmulPreferenceCreate) X(MatmulPreferenceDestroy) X(MatmulPreferenceSetAttribute)                                                   \
    X(MatmulAlgoGetHeuristic) X(MatmulAlgoCheck) X(Matmul)
// clang-format on

struct key { // all of a product but its addresses; compared as bytes, so cleared before it is filled
    int64_t m, n, k, lda, ldb, ldd;
    int8_t ta, tb, type, td, bias, add, align[3];
};
struct choice { // what was measured, for sizes up to key's
    struct key key;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
};
struct plan {
    struct key key;
    bool refused; // the library has no algorithm
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
};
struct blaslt {
#define X(name) __typeof__(&cublasLt##name) name;
    BLASLT_CALLS(X)
#undef X
    cublasLtHandle_t handle;
    void *workspace;
    struct plan *plan; // open addressing by the key's hash
    int n_plan;
    struct choices choices;
};
#ifdef __CUDACC__
static const size_t WORKSPACE = 32 << 20; // what NVIDIA advises on Hopper
#else
static const size_t WORKSPACE = 1 << 16;
#endif
enum { N_PLAN = 4096, N_CANDIDATE = 8 };

// ---- opening and closing
// ------------------------------------------------------------------------------------------------------------------

static struct blaslt *blaslt_of(struct device *dev)
{
    struct cuda_state *s = cuda_of(dev);
    if (s->blaslt) return s->blaslt;
    void *library = library_open("cublasLt");
    if (!library) {
        dev_fail_op(dev, "cuBLASLt was not found. Install the CUDA Toolkit or NVIDIA's wheel nvidia-cublas, and name its folder in "
                         "DISTILL_CUDA_LIBS if it is not where the loader looks");
        return NULL;
    }
    struct blaslt *b = (struct blaslt *)calloc(1, sizeof *b);
    if (b) b->plan = (struct plan *)calloc(N_PLAN, sizeof *b->plan);
    if (!b || !b->plan) abort();
#define X(name)                                                                                                                            \
    if (!(*(void **)&b->name = library_symbol(library, "cublasLt" #name))) {                                                               \
        dev_fail_op(dev, "cuBLASLt lacks cublasLt" #name ": it is too old");                                                               \
        blaslt_close(b);                                                                                                                   \
        return NULL;                                                                                                                       \
    }
    BLASLT_CALLS(X)
#undef X
    struct cudaDeviceProp p;
    cublasStatus_t st = b->Create(&b->handle);
    if (st || !cuda_ok(dev, cudaMalloc(&b->workspace, WORKSPACE), "taking cuBLASLt's workspace") ||
        !cuda_ok(dev, cudaGetDeviceProperties(&p, s->index), "asking for its name")) {
        if (st) dev_fail_op(dev, "cuBLASLt does not start: status %d", (int)st);
        blaslt_close(b);
        return NULL;
    }
    choices_open(&b->choices, "blaslt.txt", p.name, b->GetVersion(), sizeof(struct key), sizeof(struct choice));
    return s->blaslt = b;
}

static void plan_free(struct blaslt *b, struct plan *p)
{
    if (p->desc) b->MatmulDescDestroy(p->desc);
    if (p->a) b->MatrixLayoutDestroy(p->a);
    if (p->b) b->MatrixLayoutDestroy(p->b);
    if (p->d) b->MatrixLayoutDestroy(p->d);
    memset(p, 0, sizeof *p);
}

void blaslt_close(struct blaslt *b)
{
    if (!b) return;
    choices_close(&b->choices);
    for (int i = 0; i < N_PLAN; i++) plan_free(b, &b->plan[i]);
    if (b->workspace) cudaFree(b->workspace);
    if (b->handle) b->Destroy(b->handle);
    free(b->plan);
    free(b);
}

// ---- choosing
// -----------------------------------------------------------------------------------------------------------------------------

static cudaDataType_t library_type(enum dtype t)
{
    return t == DT_F32 ? CUDA_R_32F : t == DT_E4M3 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
}
static int8_t alignment(const void *p) // in bytes, 16 at most
{
    const uintptr_t low = (uintptr_t)p | 16;
    return (int8_t)(low & (~low + 1));
}
static struct key key_of(const struct library_product *p)
{
    struct key key;
    memset(&key, 0, sizeof key);
    key.m = p->m, key.n = p->n, key.k = p->k, key.lda = p->lda, key.ldb = p->ldb, key.ldd = p->ldd;
    key.ta = p->ta, key.tb = p->tb, key.type = (int8_t)p->type, key.td = (int8_t)p->td, key.bias = p->bias != NULL, key.add = p->add;
    key.align[0] = alignment(p->a), key.align[1] = alignment(p->b), key.align[2] = alignment(p->d);
    return key;
}
// The number of tokens is n in a forward product and k in a weight's gradient: both are taken in steps of an eighth of their size.
static int64_t step_up(int64_t x)
{
    int64_t step = 8;
    while (step * 16 <= x) step *= 2;
    return (x + step - 1) / step * step;
}
static struct key size_class(struct key key)
{
    key.n = step_up(key.n);
    key.k = step_up(key.k);
    return key;
}

// What of a description changes from call to call.
static void point(struct blaslt *b, const struct plan *p, const struct library_product *x)
{
    if (x->bias) b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias, sizeof x->bias);
    if (x->type != DT_E4M3) return;
    b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &x->a_scale, sizeof x->a_scale);
    b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x->b_scale, sizeof x->b_scale);
}
static void describe(struct blaslt *b, struct plan *p, const struct library_product *x)
{
    const int32_t blocks = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F, pieces = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    const cublasOperation_t yes = CUBLAS_OP_T, no = CUBLAS_OP_N;
    const cublasLtEpilogue_t with_bias = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t ab = library_type(x->type), d = library_type(x->td);
    b->MatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, x->ta ? &yes : &no, sizeof yes);
    b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, x->tb ? &yes : &no, sizeof yes);
    if (x->bias) {
        b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &with_bias, sizeof with_bias);
        b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &d, sizeof d);
    }
    if (x->type == DT_E4M3) // a library before 12.9 does not know them
        p->refused = b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &blocks, sizeof blocks) ||
                     b->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &pieces, sizeof pieces);
    point(b, p, x);
    b->MatrixLayoutCreate(&p->a, ab, (uint64_t)(x->ta ? x->k : x->m), (uint64_t)(x->ta ? x->m : x->k), x->lda);
    b->MatrixLayoutCreate(&p->b, ab, (uint64_t)(x->tb ? x->n : x->k), (uint64_t)(x->tb ? x->k : x->n), x->ldb);
    b->MatrixLayoutCreate(&p->d, d, (uint64_t)x->m, (uint64_t)x->n, x->ldd);
}

static int candidates(struct blaslt *b, const struct plan *p, cublasLtMatmulHeuristicResult_t *out, int most)
{
    cublasLtMatmulPreference_t pref = NULL;
    int n = 0;
    uint32_t align[3];
    for (int i = 0; i < 3; i++) align[i] = (uint32_t)p->key.align[i];
    if (b->MatmulPreferenceCreate(&pref)) return 0;
    b->MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE);
    b->MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align[0], sizeof align[0]);
    b->MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align[1], sizeof align[1]);
    b->MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align[2], sizeof align[2]);
    b->MatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align[2], sizeof align[2]);
    if (b->MatmulAlgoGetHeuristic(b->handle, p->desc, p->a, p->b, p->d, p->d, pref, most, out, &n)) n = 0;
    b->MatmulPreferenceDestroy(pref);
    return n;
}

static cublasStatus_t run(struct device *dev, struct blaslt *b, const struct plan *p, const struct library_product *x, void *d,
                          const cublasLtMatmulAlgo_t *algo)
{
    const float one = 1, beta = x->add ? 1 : 0;
    return b->Matmul(b->handle, p->desc, &one, x->a, p->a, x->b, p->b, &beta, d, p->d, d, p->d, algo, b->workspace, WORKSPACE,
                     cuda_stream(dev));
}

// Milliseconds of the middle one of five runs; into memory of its own, for the product may add to d.
static float time_of(struct device *dev, struct blaslt *b, const struct plan *p, const struct library_product *x, void *d,
                     const cublasLtMatmulAlgo_t *algo, cudaEvent_t begin, cudaEvent_t end)
{
    float ms[5];
    for (int i = -1; i < 5; i++) {
        cudaEventRecord(begin, cuda_stream(dev));
        if (run(dev, b, p, x, d, algo)) return INFINITY;
        cudaEventRecord(end, cuda_stream(dev));
        if (cudaEventSynchronize(end)) return INFINITY;
        if (i < 0) continue;
        float t = INFINITY;
        cudaEventElapsedTime(&t, begin, end);
        int at = i;
        for (; at > 0 && ms[at - 1] > t; at--) ms[at] = ms[at - 1];
        ms[at] = t;
    }
    return ms[2];
}

static int fastest(struct device *dev, struct blaslt *b, const struct plan *p, const struct library_product *x,
                   const cublasLtMatmulHeuristicResult_t *c, int n)
{
    const size_t size = (size_t)(x->ldd * x->n) * dtype_size(x->td);
    cudaEvent_t begin = NULL, end = NULL;
    void *d = NULL;
    int best = 0;
    float least = INFINITY;
    if (n < 2 || cuda_of(dev)->recording || 2.0 * (double)x->m * (double)x->n * (double)x->k < 1e9) return 0;
    if (!cudaMalloc(&d, size) && !cudaEventCreateWithFlags(&begin, 0) && !cudaEventCreateWithFlags(&end, 0)) {
        for (int i = 0; i < n; i++) {
            const float ms = time_of(dev, b, p, x, d, &c[i].algo, begin, end);
            if (ms < least * 0.98f) least = ms, best = i; // the library's order stands unless another is clearly faster
        }
        b->choices.changed = true;
    }
    cudaGetLastError(); // no memory to measure in: the library's first
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    cudaFree(d);
    return best;
}

static void choose(struct device *dev, struct blaslt *b, struct plan *p, const struct library_product *x)
{
    const struct key cls = size_class(p->key);
    cublasLtMatmulHeuristicResult_t c[N_CANDIDATE];
    const struct choice *known = (const struct choice *)choices_find(&b->choices, &cls);
    if (known && !b->MatmulAlgoCheck(b->handle, p->desc, p->a, p->b, p->d, p->d, &known->algo, &c[0]) && c[0].workspaceSize <= WORKSPACE) {
        p->algo = known->algo;
        return;
    }
    const int n = candidates(b, p, c, N_CANDIDATE);
    p->refused = n == 0;
    if (!n) return;
    const int best = fastest(dev, b, p, x, c, n);
    p->algo = c[best].algo;
    struct choice keep;
    memset(&keep, 0, sizeof keep);
    keep.key = cls;
    keep.algo = p->algo;
    keep.workspace = c[best].workspaceSize;
    choices_keep(&b->choices, &keep);
}

static struct plan *plan_for(struct device *dev, struct blaslt *b, const struct library_product *x)
{
    const struct key key = key_of(x);
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < sizeof key; i++) hash = (hash ^ ((const unsigned char *)&key)[i]) * 1099511628211u;
    if (b->n_plan > N_PLAN / 2) { // the number of tokens has had too many values
        for (int i = 0; i < N_PLAN; i++) plan_free(b, &b->plan[i]);
        b->n_plan = 0;
    }
    struct plan *p = &b->plan[hash % N_PLAN];
    while (p->key.m && memcmp(&p->key, &key, sizeof key)) p = p + 1 < b->plan + N_PLAN ? p + 1 : b->plan;
    if (p->key.m) return p;
    p->key = key;
    b->n_plan++;
    describe(b, p, x);
    if (!p->refused) choose(dev, b, p, x);
    return p;
}

// ---- multiplying
// --------------------------------------------------------------------------------------------------------------------------

// Any shape, alignment and stride: what the library refuses. Tiles of 16 by 16, sums in order of k.
enum { TILE = 16 };
template <class T, class D> __global__ void plain_product_kernel(struct library_product p)
{
    CU_SHARED(float, a, TILE *(TILE + 1));
    CU_SHARED(float, b, TILE *(TILE + 1));
    const int64_t row0 = (int64_t)blockIdx.x * TILE, i = threadIdx.x % TILE, j = threadIdx.x / TILE;
    for (int64_t col0 = (int64_t)blockIdx.y * TILE; col0 < p.n; col0 += (int64_t)gridDim.y * TILE) {
        float sum = 0;
        for (int64_t k0 = 0; k0 < p.k; k0 += TILE) {
            const int64_t ka = k0 + (p.ta ? i : j), ra = row0 + (p.ta ? j : i), kb = k0 + (p.tb ? j : i), cb = col0 + (p.tb ? i : j);
            const float va = ka < p.k && ra < p.m ? cu_f32(((const T *)p.a)[p.ta ? ra * p.lda + ka : ka * p.lda + ra]) : 0;
            const float vb = kb < p.k && cb < p.n ? cu_f32(((const T *)p.b)[p.tb ? kb * p.ldb + cb : cb * p.ldb + kb]) : 0;
            __syncthreads();
            a[(int)((p.ta ? i : j) * (TILE + 1) + (p.ta ? j : i))] = va; // a[k][row], b[k][column]
            b[(int)((p.tb ? j : i) * (TILE + 1) + (p.tb ? i : j))] = vb;
            __syncthreads();
            for (int k = 0; k < TILE; k++) sum += a[k * (TILE + 1) + (int)i] * b[k * (TILE + 1) + (int)j];
        }
        const int64_t r = row0 + i, c = col0 + j;
        if (r >= p.m || c >= p.n) continue;
        D *d = (D *)p.d + c * p.ldd + r;
        if (p.bias) sum += cu_f32(((const D *)p.bias)[r]);
        *d = cu_from<D>(p.add ? cu_f32(*d) + sum : sum);
    }
}
static void plain_product(struct device *dev, const struct library_product *p)
{
    const unsigned columns = cu_blocks(p->n, TILE);
    const dim3 grid(cu_blocks(p->m, TILE), columns < 65535 ? columns : 65535);
    CU_DTYPE(p->type, T, {
        if (p->td == DT_F32)
            CU_LAUNCH(dev, (plain_product_kernel<T, float>), grid, TILE * TILE, 0, *p);
        else
            CU_LAUNCH(dev, (plain_product_kernel<T, bf16>), grid, TILE * TILE, 0, *p);
    });
}

bool blaslt_try(struct device *dev, const struct library_product *x)
{
    struct blaslt *b = dev->error.code ? NULL : blaslt_of(dev);
    if (!b) return true;
    struct plan *p = plan_for(dev, b, x);
    if (p->refused) return false;
    point(b, p, x);
    const cublasStatus_t st = run(dev, b, p, x, x->d, &p->algo);
    const cudaError_t e = st ? cudaGetLastError() : cudaSuccess; // its failure may be CUDA's
    if (st)
        dev_fail_op(dev, "launching a product (%lld, %lld, %lld) by cuBLASLt: status %d%s%s", (long long)x->m, (long long)x->n,
                    (long long)x->k, (int)st, e ? ", " : "", e ? cudaGetErrorString(e) : "");
    return true;
}
void blaslt_multiply(struct device *dev, const struct library_product *x)
{
    if (!blaslt_try(dev, x)) plain_product(dev, x);
}
