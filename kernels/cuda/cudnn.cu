// When cuDNN does attention: where rows are their own keys (training, scoring), in bf16, without dev->batch_invariant, and where it wins.
//
// A plan is made for sizes rounded up to powers of two, for it takes the library a second. When its sizes first come, both ways are run on
// what came: the library's result must agree with ours as far as bf16 lets it, and with its own of another run to the bit; then both are
// timed, and the faster one is kept in a file beside other caches of the user's, so that later runs choose the same. Nothing of that
// happens while a step is recorded. DISTILL_CUDNN=0: never; =1: wherever it has a plan and agrees.
#include "kernels/cuda/choices.cuh"
#include "kernels/cuda/cudnn.cuh"
#include "kernels/cuda/cudnn_graph.cuh"
#include "kernels/cuda/library.cuh"

#if HAVE_CUDNN
enum { N_SEG_MAX = 4096, N_PLAN = 128, N_PART = 256, THREADS = 256, ALIGN = 256 /* of the workspace, as cudaMalloc gives it */ };
#ifdef __CUDACC__
static const size_t SPARE = SDPA_SPARE;
static const double WORTH = 1e9; // FLOPs from which measuring pays
#else
static const size_t SPARE = 4 << 10;
static const double WORTH = 2e6;
#endif

struct sdpa_choice { // in the file
    struct sdpa key;
    int64_t library;
};
struct sdpa_known {
    struct sdpa key;
    enum { BY_OURS, BY_LIBRARY } by;
    struct sdpa_plan plan;
};
struct cudnn {
    enum { NEVER, WHERE_IT_WINS, WHEREVER_IT_CAN } mode;
    struct cudnn_calls lib;
    cudnnHandle_t handle; // NULL: it is not there
    size_t version;
    int64_t *offset; // of the segments: N_SDPA times N_SEG_MAX + 1
    int32_t *len;    // N_SEG_MAX
    struct sdpa_known *known;
    int n_known;
    struct choices choices;
    bool warned;
    int64_t n_call; // that it has done
};

// ---- opening and closing ----------------------------------------------------------------------------------------------------------------

static bool open_library(struct device *dev, struct cudnn *c)
{
    struct cudaDeviceProp p;
    void *library = library_open("cudnn");
    if (!library) return false;
#define X(name)                                                                                                                            \
    if (!(*(void **)&c->lib.name = library_symbol(library, "cudnn" #name))) return false;
    CUDNN_CALLS(X)
#undef X
    c->version = c->lib.GetVersion();
    if (c->version < 92100 || cudaGetDeviceProperties(&p, cuda_of(dev)->index)) return false;
    c->known = (struct sdpa_known *)calloc(N_PLAN, sizeof *c->known);
    if (!c->known || cudaMalloc((void **)&c->offset, (size_t)N_SDPA * (N_SEG_MAX + 1) * sizeof *c->offset + N_SEG_MAX * sizeof *c->len))
        return false;
    c->len = (int32_t *)(c->offset + N_SDPA * (N_SEG_MAX + 1));
    if (c->lib.Create(&c->handle) || c->lib.SetStream(c->handle, cuda_stream(dev))) return false;
    choices_open(&c->choices, "cudnn.txt", p.name, c->version, sizeof(struct sdpa), sizeof(struct sdpa_choice));
    return true;
}
static void shut(struct cudnn *c)
{
    for (int i = 0; i < c->n_known; i++) sdpa_plan_free(&c->lib, &c->known[i].plan);
    c->n_known = 0;
    if (c->handle) c->lib.Destroy(c->handle);
    c->handle = NULL;
    if (c->offset) cudaFree(c->offset);
    c->offset = NULL;
    free(c->known);
    c->known = NULL;
}
// NULL: it is not to be asked. Whether it is there is found out once.
static struct cudnn *cudnn_of(struct device *dev)
{
    struct cuda_state *s = cuda_of(dev);
    if (!s->cudnn) {
        const char *mode = getenv("DISTILL_CUDNN");
        if (s->recording || !(s->cudnn = (struct cudnn *)calloc(1, sizeof *s->cudnn))) return NULL;
        s->cudnn->mode = !mode || !*mode ? cudnn::WHERE_IT_WINS : strcmp(mode, "0") ? cudnn::WHEREVER_IT_CAN : cudnn::NEVER;
        if (s->cudnn->mode != cudnn::NEVER && !open_library(dev, s->cudnn)) {
            cudaGetLastError();
            if (s->cudnn->mode == cudnn::WHEREVER_IT_CAN)
                fprintf(stderr, "DISTILL_CUDNN=1: cuDNN was not found, does not start or is older than 9.21; our own kernels are used\n");
            shut(s->cudnn);
        }
    }
    return s->cudnn->handle ? s->cudnn : NULL;
}
void cudnn_close(struct cudnn *c)
{
    if (!c) return;
    choices_close(&c->choices);
    shut(c);
    free(c);
}

// ---- what it is asked -------------------------------------------------------------------------------------------------------------------

static bool fits_it(struct tensor t, const struct attention_call *c) // rows and heads at 16 bytes, as its kernels load them
{
    const bool at = c->workspace ? (uintptr_t)t.data % 16 == 0 : true; // while measuring there are no addresses
    return at && t.shape[2] % 16 == 0 && t.shape[2] >= 16 && t.shape[2] <= 256 && t.stride[0] % 8 == 0 && t.stride[1] % 8 == 0;
}
// TRAP: memory is planned for the most rows and segments, and fewer must not need more of it: no limit to them here.
static bool is_asked(const struct device *dev, const struct attention_call *c)
{
    const int arch = cuda_of(dev)->arch;
    if (dev->batch_invariant || c->q.dtype != DT_BF16 || c->a->q_start != c->a->k_start || c->q.shape[0] != c->k.shape[0]) return false;
    if (c->backward ? arch != 90 : arch < 80) return false; // cudnn_graph.cu: sums in one order
    if (!fits_it(c->q, c) || !fits_it(c->k, c) || !fits_it(c->v, c) || !fits_it(c->out, c)) return false;
    return !c->backward || (fits_it(c->dout, c) && fits_it(c->dq, c) && fits_it(c->dk, c) && fits_it(c->dv, c));
}
static int64_t rows_up(int64_t n) // in steps of an eighth
{
    int64_t step = 64;
    while (step * 16 <= n) step *= 2;
    return (n + step - 1) / step * step;
}
static int32_t power_up(int64_t n, int32_t least)
{
    int64_t p = least;
    while (p < n) p *= 2;
    return p < INT32_MAX ? (int32_t)p : INT32_MAX;
}
size_t cudnn_workspace_bytes(struct device *dev, const struct attention_call *c)
{
    if (dev->error.code || !is_asked(dev, c) || !cudnn_of(dev)) return 0;
    // Without lse (a pass that will be done again for its gradients) the same plan is run, or its results would not be the same.
    if (!c->backward) return SPARE + (tensor_none(c->lse) ? (size_t)(c->q.shape[0] * c->q.shape[1]) * sizeof(float) : 0);
    return SPARE +
           (size_t)sdpa_sums_bytes(rows_up(c->q.shape[0]), c->q.shape[1], c->k.shape[1], c->dq.stride[0], c->dk.stride[0], c->dv.stride[0]);
}
static struct sdpa key_of(const struct attention_call *c)
{
    const struct tensor of[N_SDPA] = {c->q, c->k, c->v, c->out, c->lse, c->dout, c->dq, c->dk, c->dv};
    struct sdpa s;
    memset(&s, 0, sizeof s);
    s.backward = c->backward;
    s.n_seg = power_up(c->a->n_seg, 1), s.max_len = power_up(c->a->max_len, 128);
    s.n_head = (int32_t)c->q.shape[1], s.n_kv = (int32_t)c->k.shape[1], s.dk = (int32_t)c->q.shape[2], s.dv = (int32_t)c->v.shape[2];
    s.window = c->a->window >= s.max_len ? 0 : c->a->window; // it hides nothing
    s.n_row = c->backward ? rows_up(c->q.shape[0]) : 0;
    for (int i = 0; i < (c->backward ? (int)N_SDPA : SDPA_DOUT); i++) s.row[i] = of[i].stride[0], s.head[i] = of[i].stride[1];
    return s;
}

// ---- running it -------------------------------------------------------------------------------------------------------------------------

struct segments_of { // n of them, room for more: those are empty
    const int32_t *start;
    int n, room;
    int64_t row[N_SDPA];
    int64_t *offset; // (N_SDPA, N_SEG_MAX + 1)
    int32_t *len;
};
__global__ void segments_kernel(struct segments_of s)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i > s.room) return;
    const int64_t first = s.start[i < s.n ? i : s.n];
    if (i < s.room) s.len[i] = i < s.n ? (int32_t)(s.start[i + 1] - first) : 0;
    for (int t = 0; t < N_SDPA; t++)
        if (s.row[t]) s.offset[t * (N_SEG_MAX + 1) + i] = first * s.row[t];
}
static bool run_library(struct device *dev, struct cudnn *l, const struct sdpa_known *k, const struct attention_call *c)
{
    const struct tensor of[N_SDPA] = {c->q, c->k, c->v, c->out, c->lse, c->dout, c->dq, c->dk, c->dv};
    float scale = c->a->scale, masked = -INFINITY, window = (float)k->key.window;
    int64_t uid[N_SDPA_BOUND];
    void *pointer[N_SDPA_BOUND];
    int n = 0;
    struct segments_of s = {c->a->q_start, c->a->n_seg, k->key.n_seg, {}, l->offset, l->len};
    const auto bind = [&](int64_t u, void *p) { uid[n] = u, pointer[n++] = p; };
    for (int i = 0; i < N_SDPA; i++)
        if ((s.row[i] = k->key.row[i])) {
            bind(SDPA_TENSOR + i, of[i].data);
            bind(SDPA_OFFSET + i, l->offset + i * (N_SEG_MAX + 1));
        }
    bind(SDPA_LEN_Q, l->len), bind(SDPA_LEN_K, l->len);
    bind(SDPA_SCALE, &scale), bind(SDPA_MASKED, &masked);
    if (k->key.window) bind(SDPA_WINDOW, &window);
    CU_LAUNCH(dev, segments_kernel, cu_blocks(s.room + 1, THREADS), THREADS, 0, s);
    if (dev->error.code) return false;
    cuda_stream(dev); // what comes next is no kernel of ours
    void *workspace = (void *)(((uintptr_t)c->workspace + ALIGN - 1) / ALIGN * ALIGN);
    return !sdpa_plan_run(&l->lib, l->handle, &k->plan, uid, pointer, n, workspace);
}

// ---- comparing --------------------------------------------------------------------------------------------------------------------------

struct difference {
    float most, size, most2, size2; // the largest |a - b| and |a|, the sums of their squares. NaN where only one of them is finite
};
struct strided3 {
    const void *p;
    int64_t stride[3];
};
template <class T>
__global__ void difference_kernel(struct difference *out, struct strided3 a, struct strided3 b, int64_t n, int64_t heads, int64_t d)
{
    CU_SHARED(float, room, 32);
    struct difference r = {0, 0, 0, 0};
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t c = i % d, h = i / d % heads, row = i / d / heads;
        const float x = cu_f32(((const T *)a.p)[row * a.stride[0] + h * a.stride[1] + c]);
        const float y = cu_f32(((const T *)b.p)[row * b.stride[0] + h * b.stride[1] + c]);
        const float off = x == y ? 0.0f : fabsf(x - y); // -inf is its own equal
        r.most = fmaxf(r.most, off);
        if (isfinite(x)) r.size = fmaxf(r.size, fabsf(x)), r.size2 += x * x;
        r.most2 += off * off;
    }
    // The maximum loses a NaN; the sum of squares keeps it.
    r.most = cu_block_reduce(r.most, cu_max(), 0.0f, room), r.size = cu_block_reduce(r.size, cu_max(), 0.0f, room);
    r.most2 = cu_block_reduce(r.most2, cu_add(), 0.0f, room), r.size2 = cu_block_reduce(r.size2, cu_add(), 0.0f, room);
    if (threadIdx.x == 0) out[blockIdx.x] = r;
}
static bool differ_by(struct device *dev, struct difference *part, struct tensor a, struct tensor b, struct difference *sum)
{
    struct difference all[N_PART];
    const unsigned blocks = cu_blocks(tensor_numel(a), 16 * THREADS), n = blocks < N_PART ? blocks : (unsigned)N_PART;
    const int64_t heads = a.rank == 3 ? a.shape[1] : 1, d = a.shape[a.rank - 1];
    const struct strided3 x = {a.data, {a.stride[0], a.rank == 3 ? a.stride[1] : 0, 1}},
                          y = {b.data, {b.stride[0], b.rank == 3 ? b.stride[1] : 0, 1}};
    CU_DTYPE(a.dtype, T, { CU_LAUNCH(dev, difference_kernel<T>, n, THREADS, 0, part, x, y, tensor_numel(a), heads, d); });
    if (dev->error.code || cudaMemcpyAsync(all, part, n * sizeof *all, cudaMemcpyDeviceToHost, cuda_stream(dev)) ||
        cudaStreamSynchronize(cuda_stream(dev)))
        return false;
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < n; i++) {
        sum->most = fmaxf(sum->most, all[i].most), sum->size = fmaxf(sum->size, all[i].size);
        sum->most2 += all[i].most2, sum->size2 += all[i].size2;
    }
    return true;
}
// Both round P (backward: dS, too) and the result to bf16: what is off by one of 2^-8 adds up over the keys as noise does. A key seen by
// mistake, or not seen, shows in lse, whose f32 sums are exact to 1e-6. `largest`: of all results, for one of them may be noise alone.
static bool agrees(const struct difference *d, struct tensor t, float largest)
{
    if (!(d->most2 < INFINITY)) return false;
    if (t.dtype == DT_F32) return d->most <= 1e-4f * (1 + d->size);
    const float least = largest / 256, size = fmaxf(d->size, least), size2 = fmaxf(d->size2, least * least * (float)tensor_numel(t));
    return d->most <= size / 16 && d->most2 <= size2 / (64 * 64);
}

// ---- choosing ---------------------------------------------------------------------------------------------------------------------------

enum { N_RESULT = 3 };
static int results_of(struct attention_call *c, struct tensor *to[N_RESULT])
{
    if (c->backward)
        to[0] = &c->dq, to[1] = &c->dk, to[2] = &c->dv;
    else
        to[0] = &c->out, to[1] = &c->lse;
    return c->backward ? 3 : 2;
}
struct trial {
    struct device *dev;
    struct cudnn *l;
    struct sdpa_known *k;
    const struct attention_call *call;
    struct attention_call other; // the same, its results elsewhere
    struct difference *part;     // that memory, and …
    int n;
    struct tensor result[N_RESULT], copy[N_RESULT]; // … what it holds after the parts
    bool over;                                      // it has shown something about these sizes, not about this run or its data
    void (*ours)(struct device *, const struct attention_call *);
};
static bool trial_open(struct trial *t)
{
    struct tensor *from[N_RESULT], *to[N_RESULT];
    struct attention_call call = *t->call;
    t->other = call;
    t->n = results_of(&call, from);
    results_of(&t->other, to);
    size_t size = N_PART * sizeof *t->part;
    for (int i = 0; i < t->n; i++) size += (tensor_bytes(*from[i]) + 255) / 256 * 256;
    if (cudaMalloc((void **)&t->part, size)) return false;
    char *at = (char *)t->part + N_PART * sizeof *t->part;
    for (int i = 0; i < t->n; i++) {
        t->result[i] = *from[i];
        const struct tensor x = *from[i];
        *to[i] = x.rank == 3 ? tensor_3d(at, x.dtype, x.shape[0], x.shape[1], x.shape[2]) : tensor_2d(at, x.dtype, x.shape[0], x.shape[1]);
        t->copy[i] = *to[i];
        at += (tensor_bytes(x) + 255) / 256 * 256;
    }
    return true;
}
static void warn(struct cudnn *l, const struct sdpa *s, const char *what, const struct difference *d)
{
    if (!l->warned)
        fprintf(
            stderr,
            "warning: attention by cuDNN %zu %s (%s, heads %d/%d of %d and %d, up to %d segments of up to %d: off by %g of %g); our own "
            "kernels are used\n",
            l->version, what, s->backward ? "backward" : "forward", s->n_head, s->n_kv, s->dk, s->dv, s->n_seg, s->max_len, (double)d->most,
            (double)d->size);
    l->warned = true;
}
static void note(struct cudnn *l, const char *why, const struct sdpa *s)
{
    if (!l->warned)
        fprintf(stderr, "warning: attention by cuDNN %zu, %s, heads %d/%d of %d and %d: %s; our own kernels are used in this run\n",
                l->version, s->backward ? "backward" : "forward", s->n_head, s->n_kv, s->dk, s->dv, why);
    l->warned = true;
}
// Whether the library's results are right, and the same again. They are left in their place.
static bool is_right(struct trial *t)
{
    struct difference d[N_RESULT];
    float largest = 0;
    t->ours(t->dev, &t->other);
    if (!run_library(t->dev, t->l, t->k, t->call)) return false;
    for (int i = 0; i < t->n; i++) {
        if (!differ_by(t->dev, t->part, t->copy[i], t->result[i], &d[i])) return false;
        if (t->result[i].dtype != DT_F32) largest = fmaxf(largest, d[i].size);
    }
    for (int i = 0; i < t->n; i++)
        if (!agrees(&d[i], t->result[i], largest)) {
            t->over = d[i].most2 < INFINITY; // else the data may be what is not finite
            warn(t->l, &t->k->key, "does not agree with our own", &d[i]);
            return false;
        }
    for (int i = 0; i < t->n; i++) cuda_copy(t->dev, t->copy[i], t->result[i]);
    if (!run_library(t->dev, t->l, t->k, t->call)) return false;
    for (int i = 0; i < t->n; i++) {
        if (!differ_by(t->dev, t->part, t->copy[i], t->result[i], &d[i])) return false;
        if (d[i].most2 != 0) {
            t->over = true;
            warn(t->l, &t->k->key, "does not give the same bits again", &d[i]);
            return false;
        }
    }
    return t->over = true;
}
static bool is_faster(struct trial *t)
{
    enum { N_RUN = 5 };
    cudaEvent_t at[2] = {NULL, NULL};
    float least[2] = {INFINITY, INFINITY};
    bool good = !cudaEventCreateWithFlags(&at[0], 0) && !cudaEventCreateWithFlags(&at[1], 0);
    for (int i = 0; i < 2 * N_RUN && good; i++) {
        float ms = INFINITY;
        cudaEventRecord(at[0], cuda_stream(t->dev));
        if (i % 2 == 0)
            t->ours(t->dev, &t->other);
        else
            good = run_library(t->dev, t->l, t->k, t->call);
        cudaEventRecord(at[1], cuda_stream(t->dev));
        good = good && !t->dev->error.code && !cudaEventSynchronize(at[1]) && !cudaEventElapsedTime(&ms, at[0], at[1]);
        if (ms < least[i % 2]) least[i % 2] = ms;
    }
    for (int i = 0; i < 2; i++)
        if (at[i]) cudaEventDestroy(at[i]);
    return good && least[1] < least[0] * 0.98f;
}
// Whether these sizes are the library's, found out. The file is asked first.
static void choose(struct trial *t)
{
    struct cudnn *l = t->l;
    struct sdpa_known *k = t->k;
    const struct sdpa_choice *chosen = NULL;
    const struct cudnn_target target = {l->handle, NULL};
    if (l->mode == cudnn::WHERE_IT_WINS) {
        const double rows = (double)k->key.n_seg * k->key.max_len; // by the key alone: whichever of its calls comes first
        const double flops = 2.0 * rows * k->key.max_len * k->key.n_head * (k->key.dk + k->key.dv);
        chosen = (const struct sdpa_choice *)choices_find(&l->choices, &k->key);
        if (chosen ? !chosen->library : flops < WORTH) return;
    }
    if (!sdpa_plan_make(&l->lib, &target, &k->key, (int64_t)t->call->workspace_bytes - ALIGN, &k->plan)) {
        if (l->mode == cudnn::WHEREVER_IT_CAN)
            fprintf(stderr,
                    "DISTILL_CUDNN=1: cuDNN %zu has no plan (%s, heads %d/%d of %d and %d): %s, status %d; our own kernels are used\n",
                    l->version, k->key.backward ? "backward" : "forward", k->key.n_head, k->key.n_kv, k->key.dk, k->key.dv, k->plan.what,
                    k->plan.status);
        return;
    }
    if (chosen) {
        k->by = sdpa_known::BY_LIBRARY;
        return;
    }
    if (!trial_open(t)) {
        cudaGetLastError();
        note(l, "no memory is left to compare it and time it", &k->key);
        return;
    }
    const bool right = is_right(t);
    if (right && (l->mode == cudnn::WHEREVER_IT_CAN || is_faster(t))) k->by = sdpa_known::BY_LIBRARY;
    cudaFree(t->part);
    cudaGetLastError();
    if (l->mode != cudnn::WHERE_IT_WINS || t->dev->error.code || !t->over) return;
    struct sdpa_choice keep;
    memset(&keep, 0, sizeof keep);
    keep.key = k->key;
    keep.library = k->by == sdpa_known::BY_LIBRARY;
    choices_keep(&l->choices, &keep);
    l->choices.changed = true;
    choices_save(&l->choices); // a run that is stopped goes on with the same
}

bool cudnn_attention(struct device *dev, const struct attention_call *call, void (*ours)(struct device *, const struct attention_call *))
{
    if (!call->workspace_bytes || dev->error.code || !is_asked(dev, call) || call->a->max_len < 1 || call->a->n_seg > N_SEG_MAX)
        return false;
    struct cudnn *l = cudnn_of(dev);
    if (!l) return false;
    struct attention_call with = *call;
    const struct attention_call *c = &with;
    if (tensor_none(with.lse)) {
        with.workspace_bytes = SPARE;
        with.lse = tensor_2d((char *)with.workspace + SPARE, DT_F32, with.q.shape[0], with.q.shape[1]);
    }
    const struct sdpa key = key_of(c);
    struct sdpa_known *k = l->known;
    while (k < l->known + l->n_known && memcmp(&k->key, &key, sizeof key)) k++;
    if (k == l->known + l->n_known) {
        if (cuda_of(dev)->recording || l->n_known == N_PLAN) return false;
        memset(k, 0, sizeof *k);
        k->key = key;
        l->n_known++;
        struct trial t = {};
        t.dev = dev, t.l = l, t.k = k, t.call = c, t.ours = ours;
        choose(&t);
        if (k->by == sdpa_known::BY_OURS) sdpa_plan_free(&l->lib, &k->plan);
    }
    if (k->by == sdpa_known::BY_OURS) return false;
    if (!run_library(dev, l, k, c)) {
        note(l, "a plan that was made does not run", &k->key);
        k->by = sdpa_known::BY_OURS;
        return false;
    }
    l->n_call++;
    return true;
}
extern "C" int64_t cuda_library_attentions(const struct device *dev)
{
    return cuda_of(dev)->cudnn ? cuda_of(dev)->cudnn->n_call : 0;
}
#else
extern "C" int64_t cuda_library_attentions(const struct device *)
{
    return 0;
}
size_t cudnn_workspace_bytes(struct device *, const struct attention_call *)
{
    return 0;
}
bool cudnn_attention(struct device *, const struct attention_call *, void (*)(struct device *, const struct attention_call *))
{
    return false;
}
void cudnn_close(struct cudnn *) {}
#endif
