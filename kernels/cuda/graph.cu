// Steps that repeat, as CUDA graphs: a token's decode or a small micro-batch is hundreds of kernels of a few microseconds each.
//
// A key that comes a second time is recorded, for many come only once; the graphs of the keys used longest ago make room. A step has a part
// more than it has pauses, each a graph; all are recorded in one coming and replayed in one, for what a part leaves on the host (where
// tensors lie) the next one wants.
#include "kernels/cuda/device.cuh"

enum {
    N_STEP = 128,
    KEY_BYTES = 96 /* what dev_step_begin gives at most */,
    NODES_MOST = 1 << 17
}; // a node takes about a kilobyte, so all of them about 128 MiB of the host's
struct step {
    unsigned char key[KEY_BYTES];
    size_t n_key; // 0: free
    uint64_t used;
    int n_part; // 0: seen once
    size_t n_node;
    cudaGraphExec_t part[DEV_STEP_PARTS];
};
struct graphs {
    struct step v[N_STEP];
    uint64_t now;
    size_t n_node;
    struct step *open; // between its begin and its end, recorded or replayed
    bool replayed;
    int at; // its part that comes next
};

static void drop_parts(struct graphs *all, struct step *s)
{
    for (int i = 0; i < DEV_STEP_PARTS; i++) {
        if (s->part[i]) cudaGraphExecDestroy(s->part[i]);
        s->part[i] = NULL;
    }
    all->n_node -= s->n_node;
    s->n_node = 0;
    s->n_part = 0;
}

static void forget(struct graphs *all, struct step *s)
{
    drop_parts(all, s);
    memset(s, 0, sizeof *s);
}

void graphs_free(struct graphs *all)
{
    for (int i = 0; all && i < N_STEP; i++) forget(all, &all->v[i]);
    free(all);
}

// The step of that key, or the one that was used longest ago, emptied for it.
static struct step *step_of(struct graphs *all, const void *key, size_t n)
{
    struct step *oldest = &all->v[0];
    for (struct step *s = all->v; s < all->v + N_STEP; s++) {
        if (s->n_key == n && !memcmp(s->key, key, n)) return s;
        if (s->used < oldest->used) oldest = s;
    }
    forget(all, oldest);
    memcpy(oldest->key, key, n);
    oldest->n_key = n;
    return oldest;
}

static void make_room(struct graphs *all)
{
    while (all->n_node > NODES_MOST) {
        struct step *oldest = NULL;
        for (struct step *s = all->v; s < all->v + N_STEP; s++)
            if (s != all->open && s->n_node && (!oldest || s->used < oldest->used)) oldest = s;
        if (!oldest) return;
        forget(all, oldest);
    }
}

static bool begin_part(struct device *dev)
{
    struct cuda_state *s = cuda_of(dev);
    if (!cuda_ok(dev, cudaStreamBeginCapture(cuda_stream(dev), cudaStreamCaptureModeThreadLocal), "recording a step")) return false;
    s->recording = true;
    return true;
}

// Ends the recording of a part, and runs it.
static void end_part(struct device *dev)
{
    struct cuda_state *s = cuda_of(dev);
    struct graphs *all = s->graphs;
    if (!s->recording) return;
    s->recording = false;
    cudaGraph_t graph = NULL;
    size_t n_node = 0;
    cudaError_t e = cudaStreamEndCapture(cuda_stream(dev), &graph);
    if (!e && !dev->error.code) e = cudaGraphGetNodes(graph, NULL, &n_node);
    if (!e && !dev->error.code) e = cudaGraphInstantiate(&all->open->part[all->at], graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (!cuda_ok(dev, e, "recording a step") || dev->error.code) return;
    all->open->n_node += n_node;
    all->n_node += n_node;
    cuda_ok(dev, cudaGraphLaunch(all->open->part[all->at], cuda_stream(dev)), "launching a recorded step");
}

extern "C" bool cuda_step_begin(struct device *dev, const void *key, size_t n)
{
    struct cuda_state *s = cuda_of(dev);
    if (!s->graphs && !(s->graphs = (struct graphs *)calloc(1, sizeof *s->graphs))) return false;
    struct graphs *all = s->graphs;
    struct step *step = step_of(all, key, n);
    const bool first = !step->used;
    step->used = ++all->now;
    if (first) return false;
    all->at = 0;
    all->replayed = step->n_part > 0;
    all->open = step;
    if (all->replayed)
        cuda_ok(dev, cudaGraphLaunch(step->part[0], cuda_stream(dev)), "launching a recorded step");
    else if (!begin_part(dev))
        all->open = NULL;
    return all->replayed;
}

extern "C" void cuda_step_pause(struct device *dev)
{
    struct graphs *all = cuda_of(dev)->graphs;
    if (!all || !all->open) return;
    end_part(dev);
    all->at++;
}

extern "C" void cuda_step_resume(struct device *dev)
{
    struct graphs *all = cuda_of(dev)->graphs;
    if (!all || !all->open || dev->error.code) return;
    if (all->replayed)
        cuda_ok(dev, cudaGraphLaunch(all->open->part[all->at], cuda_stream(dev)), "launching a recorded step");
    else
        begin_part(dev);
}

extern "C" void cuda_step_end(struct device *dev)
{
    struct graphs *all = cuda_of(dev)->graphs;
    if (!all || !all->open) return;
    end_part(dev);
    if (!all->replayed && !dev->error.code) all->open->n_part = all->at + 1;
    if (!all->replayed && dev->error.code) drop_parts(all, all->open);
    make_room(all);
    all->open = NULL;
}
