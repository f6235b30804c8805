// Llama 3.1's rotary scaling as GGUF stores it: a table of divisors instead of the four numbers that it is computed from.
#include "kernels/model/gguf.h"

#include <math.h>

// The divisor at a wavelength, from the factor and the two wavelengths between which it blends.
static double divisor_at(double wavelength, double factor, double longest, double shortest)
{
    if (wavelength > longest) return factor;
    if (wavelength < shortest) return 1;
    double smooth = (1 / wavelength - 1 / longest) / (1 / shortest - 1 / longest);
    return 1 / ((1 - smooth) / factor + smooth);
}

static double wavelength_of(int64_t i, int64_t d_rope, double theta)
{
    return 2 * M_PI * pow(theta, (double)(2 * i) / (double)d_rope);
}

void gguf_llama3_divisors(const struct rope_config *r, int64_t d_rope, float *divisor)
{
    double orig = (double)r->original_max_position;
    for (int64_t i = 0; i < d_rope / 2; i++)
        divisor[i] =
            (float)divisor_at(wavelength_of(i, d_rope, r->theta), r->factor, orig / r->low_freq_factor, orig / r->high_freq_factor);
}

static bool reproduces(const float *divisor, int64_t d_rope, double theta, double factor, double longest, double shortest)
{
    for (int64_t i = 0; i < d_rope / 2; i++) {
        double want = divisor_at(wavelength_of(i, d_rope, theta), factor, longest, shortest);
        if (!(fabs((double)divisor[i] - want) <= 2e-6 * want)) return false;
    }
    return true;
}

static json_t *llama3(double factor, double low, double high, int64_t orig)
{
    return json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", factor, "low_freq_factor", low, "high_freq_factor", high,
                     "original_max_position_embeddings", (json_int_t)orig);
}

// Between the two wavelengths 1/divisor is linear in 1/wavelength, so two entries give the line, and the line both ends.
static json_t *solve(const float *divisor, int64_t d_rope, double theta, double factor)
{
    int64_t a = -1, b = -1;
    for (int64_t i = 0; i < d_rope / 2; i++)
        if (divisor[i] > 1 && (double)divisor[i] < factor) b = i, a = a < 0 ? i : a;
    if (a < 0 || a == b) return NULL;
    double xa = 1 / wavelength_of(a, d_rope, theta), xb = 1 / wavelength_of(b, d_rope, theta);
    double sa = (1 / (double)divisor[a] - 1 / factor) / (1 - 1 / factor), sb = (1 / (double)divisor[b] - 1 / factor) / (1 - 1 / factor);
    double slope = (sa - sb) / (xa - xb), at_long = xa - sa / slope, at_short = xa + (1 - sa) / slope;
    enum { ORIG = 8192 }; // any will do: only its ratio to the factors counts
    return reproduces(divisor, d_rope, theta, factor, 1 / at_long, 1 / at_short) ? llama3(factor, ORIG * at_long, ORIG * at_short, ORIG)
                                                                                 : NULL;
}

json_t *gguf_llama3_config(const float *divisor, int64_t d_rope, double theta)
{
    double factor = 1;
    for (int64_t i = 0; i < d_rope / 2; i++) factor = fmax(factor, (double)divisor[i]);
    // The released models first (low 1, high 4): their numbers come back as they were. 8192 before the others.
    for (int k = 0; k <= 17; k++) {
        int64_t orig = k ? (int64_t)8 << k : 8192;
        if (reproduces(divisor, d_rope, theta, factor, (double)orig, (double)orig / 4)) return llama3(factor, 1, 4, orig);
    }
    return solve(divisor, d_rope, theta, factor);
}
