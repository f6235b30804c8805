// GGUF as a model: a file as it stands, whose configuration is that of a known family. Its tensors are listed under Hugging Face's names,
// and what is readable is read, the first and the last row of each.
#include "kernels/model/gguf.h"
#include "kernels/model/source.h"
#include "tests/fuzz/fuzz.h"

extern const struct arch arch_llama, arch_mistral, arch_qwen2, arch_qwen3, arch_qwen3_moe, arch_deepseek_v2, arch_deepseek_v3;
static const struct arch *const archs[] = {&arch_llama,     &arch_mistral,     &arch_qwen2,       &arch_qwen3,
                                           &arch_qwen3_moe, &arch_deepseek_v2, &arch_deepseek_v3, NULL};

static void use(const struct source *s)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct source_tensor *t = &s->v[i];
        FUZZ_CHECK(source_find(s, t->name) != NULL);
        FUZZ_CHECK(t->rank >= 1 && t->rank <= 4 && t->shape[0] >= 1);
        if (!t->readable) continue;
        int64_t n_col = 1;
        for (int k = 1; k < t->rank; k++) n_col *= t->shape[k];
        float *row = NEW_N(float, n_col);
        s->kind->rows(s, t, 0, 1, DT_F32, row);
        s->kind->rows(s, t, t->shape[0] - 1, 1, DT_BF16, row);
        mem_free(row);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct model_config c;
    const struct arch *arch;
    struct source s;
    const char *path = fuzz_put("model.gguf", (struct part){data, size});
    if (!fuzz_ok(model_config_read(&c, &arch, path, archs, &err), &err)) return 0;
    if (fuzz_ok(source_open(&s, path, &c, &err), &err)) {
        use(&s);
        source_close(&s);
    }
    model_config_free(&c);
    return 0;
}
