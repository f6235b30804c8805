// Settings and seeds of sampling; the drawing itself is op_sample's.
#include "teacher/sampler.h"

#include "kernels/base/mem.h"
#include "kernels/base/rng.h"

enum status sampling_check(const struct sampling *s, struct err *err)
{
    enum status st = ST_OK;
    if (!(s->temperature >= 0 && s->temperature < 1e6f))
        st = err_add(err, ST_BAD_INPUT, "--temperature %g: wanted 0 (greedy) or more", (double)s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        st = err_add(err, ST_BAD_INPUT, "--top-p %g: wanted more than 0, at most 1 (off)", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) st = err_add(err, ST_BAD_INPUT, "--min-p %g: wanted 0 (off) to 1", (double)s->min_p);
    if (s->top_k < 0) st = err_add(err, ST_BAD_INPUT, "--top-k %d: wanted 0 (off) or more", s->top_k);
    return st;
}

uint64_t sample_seed(uint64_t seed, const char *id, int sample)
{
    struct buf key = {0};
    buf_printf(&key, "%llu/%d/%s", (unsigned long long)seed, sample, id);
    uint64_t hash = rng_hash(key.data, key.size);
    buf_free(&key);
    return hash >> 11;
}

struct sample_row sampling_row(const struct sampling *s, uint64_t seed, uint64_t stream, int index)
{
    return (struct sample_row){.temperature = s->temperature,
                               .top_p = s->top_p,
                               .min_p = s->min_p,
                               .top_k = s->top_k,
                               .seed = seed,
                               .stream = stream,
                               .counter = (uint64_t)index};
}
