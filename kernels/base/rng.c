// What need not be inline of the counter-based random numbers: keys from strings, permutations, normal deviates.
#include "kernels/base/rng.h"

#include <math.h>

uint64_t rng_hash(const void *data, uint64_t size)
{
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a
    for (uint64_t i = 0; i < size; i++) h = (h ^ p[i]) * 0x100000001b3u;
    // The finaliser of MurmurHash3: FNV leaves the upper bits of short keys alike.
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

void rng_shuffle(uint64_t seed, uint64_t stream, uint32_t *items, uint64_t n)
{
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = rng_below(seed, stream, i, i);
        uint32_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    struct rng_block b = rng_block(seed, stream, counter);
    uint64_t hi = ((uint64_t)b.v[0] << 32) | b.v[1], lo = ((uint64_t)b.v[2] << 32) | b.v[3];
    double u = ((double)(hi >> 11) + 1.0) * 0x1.0p-53; // (0, 1]: its log is finite
    double v = (double)(lo >> 11) * 0x1.0p-53;
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.14159265358979323846 * v);
}
