// Rotary angles: sine and cosine of pos * inv_freq, exact to f32 for any angle a context can have (libm's sinf leaves that to the
// platform, and its slow path is slow). The angle is rounded to f32 first, as PyTorch does it.
#pragma once
#include "kernels/rows/row.h"

// The argument is reduced in double: angle - n π/2 is good to 1e-11 for |angle| < 2^27. Polynomials: Taylor's, exact to f32 on |r| ≤ π/4.
// Written without branches so that compilers make vectors of it.
ROW_FN void row_sincos(float angle, float *sine, float *cosine)
{
    const double magic = 0x1.8p52; // adding it rounds to an integer, whose low bits then stand in the mantissa's
    double t = (double)angle * 0x1.45f306dc9c883p-1 + magic, n = t - magic;
    int quadrant = (int)n;
    double rd = (double)angle - n * 0x1.921fb54442d18p+0;
    float r = (float)rd, r2 = r * r;
    float s = r + r * r2 * (-1.6666666667e-1f + r2 * (8.3333333333e-3f + r2 * (-1.9841269841e-4f + r2 * 2.7557319224e-6f)));
    float c = 1.0f - r2 * (0.5f - r2 * (4.1666666667e-2f - r2 * (1.3888888889e-3f - r2 * (2.4801587302e-5f - r2 * 2.7557319224e-7f))));
    float a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
    *sine = quadrant & 2 ? -a : a;
    *cosine = (quadrant + 1) & 2 ? -b : b;
}
// The rotation of one pair; the inverse passes -s.
ROW_FN void row_rotate(float *x, float *y, float c, float s)
{
    float a = *x, b = *y;
    *x = a * c - b * s;
    *y = b * c + a * s;
}
