// Random numbers by counter, not by state: the n-th number of a stream is a function of (seed, stream, n), so a resumed run, another
// batch or another rank draws the same. Philox4x32-10 (Salmon et al., SC 2011). Inline: CPU and CUDA compile the same text.
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#define RNG_FN static inline __host__ __device__
#else
#define RNG_FN static inline
#endif

struct rng_block {
    uint32_t v[4];
};

// The counter-th block of four 32-bit numbers of stream (seed, stream).
RNG_FN struct rng_block rng_block(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    struct rng_block b = {{c0, c1, c2, c3}};
    return b;
}

// Uniform in [0, 1) with 53 bits.
RNG_FN double rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    struct rng_block b = rng_block(seed, stream, counter);
    return (double)((((uint64_t)b.v[0] << 32) | b.v[1]) >> 11) * 0x1.0p-53;
}
// Uniform integer in [0, n), n > 0, by multiply-shift (bias below 2^-32 for n < 2^32).
RNG_FN uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t n)
{
    struct rng_block b = rng_block(seed, stream, counter);
    return (uint64_t)(((unsigned __int128)(((uint64_t)b.v[0] << 32) | b.v[1]) * n) >> 64);
}
#undef RNG_FN

uint64_t rng_hash(const void *data, uint64_t size);                            // FNV-1a 64 finished by a mix: keys of streams from strings
void rng_shuffle(uint64_t seed, uint64_t stream, uint32_t *items, uint64_t n); // Fisher-Yates, a fixed permutation for (seed, stream, n)
double rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);           // standard normal, Box-Muller
