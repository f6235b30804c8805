// GGUF: a file as it stands. What was accepted must lie in the file; its configuration, its tensors' values, and what it says of its
// tokenizer are read.
#include "datasets/tokenizer/gguf.h"

#include "kernels/model/gguf.h"
#include "tests/fuzz/fuzz.h"

static void use_tensors(const struct gguf *g)
{
    const uint8_t *end = g->map.data + g->map.size;
    for (size_t i = 0; i < g->n_tensor; i++) {
        const struct gguf_tensor *t = &g->tensor[i];
        FUZZ_CHECK(t->data >= g->map.data && t->data <= end && t->size_bytes <= (size_t)(end - t->data));
        FUZZ_CHECK(t->rank >= 1 && t->rank <= 4);
        FUZZ_CHECK(gguf_find_tensor(g, t->name) == t);
        bool known = t->type == GGML_F32 || t->type == GGML_F16 || t->type == GGML_BF16 || t->type == GGML_Q8_0;
        int64_t n = t->shape[t->rank - 1] < 100 ? t->shape[t->rank - 1] : 100;
        float values[100];
        if (known && t->size_bytes) gguf_decode(values, t->type, t->data, 0, n);
    }
    for (size_t i = 0; i < g->n_kv; i++) FUZZ_CHECK(g->kv[i].data >= g->map.data && g->kv[i].data <= end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf g;
    struct err err = {0};
    json_t *config, *tokenizer;
    const char *path = fuzz_put("model.gguf", (struct part){data, size});
    if (!fuzz_ok(gguf_open(&g, path, &err), &err)) return 0;
    use_tensors(&g);
    json_decref(gguf_json(&g, ""));
    if (fuzz_ok(gguf_config(&config, &g, &err), &err)) json_decref(config);
    // What a tokenizer.json would say; what is made of one is the tokenizer target's.
    if (fuzz_ok(gguf_tokenizer_json(&tokenizer, &config, &g, &err), &err)) {
        json_decref(tokenizer);
        json_decref(config);
    }
    gguf_close(&g);
    return 0;
}
