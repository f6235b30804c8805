// Steps that repeat, as CUDA graphs: decode launches hundreds of kernels a token, each of a few microseconds.
//
// A key that comes a second time is recorded, for many come only once; the graphs of the keys used longest ago make room.
#include "kernels/cuda/device.cuh"

enum { N_GRAPH = 128, KEY_BYTES = 96 };
struct graphs {
    struct graph {
        unsigned char key[KEY_BYTES];
        size_t n_key; // 0: free
        uint64_t used;
        cudaGraphExec_t exec; // NULL: seen once
    } v[N_GRAPH];
    uint64_t now;
    struct graph *open; // is being recorded
};

static void graph_free(struct graphs::graph *g)
{
    if (g->exec) cudaGraphExecDestroy(g->exec);
    memset(g, 0, sizeof *g);
}

void graphs_free(struct graphs *all)
{
    for (int i = 0; all && i < N_GRAPH; i++) graph_free(&all->v[i]);
    free(all);
}

extern "C" bool cuda_step_begin(struct device *dev, const void *key, size_t n)
{
    struct cuda_state *s = cuda_of(dev);
    if (n > KEY_BYTES) return false;
    if (!s->graphs && !(s->graphs = (struct graphs *)calloc(1, sizeof *s->graphs))) return false;
    struct graphs *all = s->graphs;
    struct graphs::graph *g = NULL, *oldest = &all->v[0];
    for (int i = 0; i < N_GRAPH && !g; i++) {
        if (all->v[i].n_key == n && !memcmp(all->v[i].key, key, n)) g = &all->v[i];
        if (all->v[i].used < oldest->used) oldest = &all->v[i];
    }
    all->now++;
    if (!g) {
        graph_free(oldest);
        memcpy(oldest->key, key, n);
        oldest->n_key = n;
        oldest->used = all->now;
        return false;
    }
    g->used = all->now;
    if (g->exec) {
        cuda_ok(dev, cudaGraphLaunch(g->exec, s->stream), "launching a recorded step");
        return true;
    }
    if (!cuda_ok(dev, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal), "recording a step")) return false;
    all->open = g;
    s->recording = true;
    return false;
}

extern "C" void cuda_step_end(struct device *dev)
{
    struct cuda_state *s = cuda_of(dev);
    struct graphs::graph *g = s->graphs ? s->graphs->open : NULL;
    if (!g) return;
    s->graphs->open = NULL;
    s->recording = false;
    cudaGraph_t graph = NULL;
    cudaError_t e = cudaStreamEndCapture(s->stream, &graph);
    if (!e && !dev->error.code) e = cudaGraphInstantiate(&g->exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (cuda_ok(dev, e, "recording a step") && g->exec) cuda_ok(dev, cudaGraphLaunch(g->exec, s->stream), "launching a recorded step");
}
