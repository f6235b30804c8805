// config.json, with generation_config.json as a second part: of every family there is.
#include "kernels/model/arch.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

// ARCHS is X(NAME) for every teacher/arch/NAME.c and student/arch/NAME.c: the Makefile says so.
#define X(name) extern const struct arch arch_##name;
ARCHS
#undef X
#define X(name) &arch_##name,
static const struct arch *const archs[] = {ARCHS NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct part p[2];
    if (fuzz_parts(p, 2, data, size) == 2)
        fuzz_put("generation_config.json", p[1]);
    else
        fuzz_drop("generation_config.json");
    fuzz_put("config.json", p[0]);
    struct model_config c;
    const struct arch *arch;
    if (!fuzz_ok(model_config_read(&c, &arch, fuzz_dir(), archs, &err), &err)) return 0;
    FUZZ_CHECK(c.n_vocab > 0 && c.d_model > 0 && c.d_ff > 0 && c.n_layer > 0 && c.n_head > 0 && c.n_kv_head > 0 && c.d_head > 0);
    FUZZ_CHECK(c.mla || c.n_head % c.n_kv_head == 0);
    FUZZ_CHECK(c.n_eos >= 0 && c.n_eos <= (int)(sizeof c.eos / sizeof *c.eos));
    FUZZ_CHECK(isfinite(c.softmax_scale) && c.softmax_scale > 0);
    FUZZ_CHECK(!c.router.n_expert || (c.moe_layer && c.router.top_k >= 1 && c.router.top_k <= c.router.n_expert));
    int64_t d_rope = c.mla ? c.d_rope : c.d_head;
    if (d_rope <= 4096) {
        float *inv_freq = NEW_N(float, d_rope / 2), mscale, softmax_factor;
        rope_frequencies(&c.rope, d_rope, inv_freq, &mscale, &softmax_factor);
        mem_free(inv_freq);
    }
    model_config_free(&c);
    return 0;
}
