// Order among logits: falling value, ties by rising id. A key holds both in 64 bits such that the smaller key is the better logit; keys of
// a row differ, so any way of sorting gives the same result. NaN is worst of all.
#pragma once
#include "kernels/cpu/isa/softmax.h"
#include "kernels/rows/draw.h"

enum { KEYS_RANKED = 192 };

VEC_FN uint64_t key_of(float z, uint32_t id)
{
    return (uint64_t)row_order(z) << 32 | id;
}
VEC_FN int32_t key_id(uint64_t key)
{
    return (int32_t)(uint32_t)key;
}

static void keys_swap(uint64_t *a, uint64_t *b)
{
    uint64_t t = *a;
    *a = *b;
    *b = t;
}
// Hoare's partition around the median of three; returns the first index of the right part. n ≥ 3.
static int64_t keys_partition(uint64_t *key, int64_t n)
{
    uint64_t *mid = key + n / 2, *last = key + n - 1;
    if (*mid < key[0]) keys_swap(mid, key);
    if (*last < key[0]) keys_swap(last, key);
    if (*last < *mid) keys_swap(last, mid);
    uint64_t pivot = *mid;
    int64_t i = -1, j = n;
    for (;;) {
        do i++;
        while (key[i] < pivot);
        do j--;
        while (key[j] > pivot);
        if (i >= j) return j + 1;
        keys_swap(key + i, key + j);
    }
}
static void keys_insertion(uint64_t *key, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        uint64_t k = key[i];
        int64_t j = i;
        for (; j > 0 && key[j - 1] > k; j--) key[j] = key[j - 1];
        key[j] = k;
    }
}
static void keys_sort(uint64_t *key, int64_t n)
{
    while (n > 24) { // the larger part by the loop: the stack stays short
        int64_t at = keys_partition(key, n);
        if (at < n - at) {
            keys_sort(key, at);
            key += at;
            n -= at;
        } else {
            keys_sort(key + at, n - at);
            n = at;
        }
    }
    keys_insertion(key, n);
}
// Puts the k smallest first, in no order.
static void keys_select(uint64_t *key, int64_t n, int64_t k)
{
    while (n > 24) {
        int64_t at = keys_partition(key, n);
        if (k < at) {
            n = at;
        } else if (k > at) {
            key += at;
            n -= at;
            k -= at;
        } else {
            return;
        }
    }
    keys_insertion(key, n);
}

// Sorted by counting for each how many come before it: for short arrays quicker than any branching, since it is all vectors.
static void keys_rank_sort(uint64_t *key, int n)
{
    uint64_t copy[KEYS_RANKED];
    memcpy(copy, key, (size_t)n * sizeof *key);
    for (int i = 0; i < n; i++) {
        uint64_t rank = 0;
        for (int j = 0; j < n; j++) rank += copy[j] < copy[i];
        key[rank] = copy[i];
    }
}
// Many keys that stand in the order of their ids: four stable passes by a byte of the value each; tmp has room for n.
static void keys_radix_sort(uint64_t *key, uint64_t *tmp, int64_t n)
{
    for (int shift = 32; shift < 64; shift += 8) {
        int64_t at[257] = {0};
        for (int64_t i = 0; i < n; i++) at[(key[i] >> shift & 255) + 1]++;
        for (int i = 0; i < 256; i++) at[i + 1] += at[i];
        for (int64_t i = 0; i < n; i++) tmp[at[key[i] >> shift & 255]++] = key[i];
        uint64_t *t = key;
        key = tmp;
        tmp = t;
    }
}
// A bound with k to k + k/4 + 8 logits at or above it, found by halving an interval; fewer than k: there is none (NaN and -inf abound).
static int keys_bound(float *bound, const float *z, int n, int k)
{
    float hi = row_max(z, n), lo = hi, step = 1;
    int above = 0, count;
    for (int i = 0; i < 40 && above < k; i++, step *= 2) {
        if (above) hi = lo;
        lo = hi - step;
        above = 0;
        for (int j = 0; j < n; j++) above += z[j] >= lo;
    }
    for (int i = 0; i < 24 && above > k + k / 4 + 8; i++) { // ties may keep it from ever fitting
        float mid = 0.5f * lo + 0.5f * hi;
        count = 0;
        for (int j = 0; j < n; j++) count += z[j] >= mid;
        if (count >= k) {
            lo = mid;
            above = count;
        } else {
            hi = mid;
        }
    }
    *bound = lo;
    return above;
}

// The keys of the k best of n logits, sorted, in key[0 .. k). `key` has room for 2 n.
static __attribute__((unused)) void keys_top(uint64_t *key, const float *z, int n, int k)
{
    int64_t count = 0, cap = 4 * (int64_t)k > 512 ? 4 * (int64_t)k : 512;
    float bound;
    if (n <= 8192 && n / 4 > k && keys_bound(&bound, z, n, k) >= k) {
        for (int i = 0; i < n; i++) {
            key[count] = key_of(z[i], (uint32_t)i);
            count += z[i] >= bound;
        }
        if (count > KEYS_RANKED) keys_select(key, count, k);
        if (count <= KEYS_RANKED)
            keys_rank_sort(key, (int)count);
        else
            keys_sort(key, k);
        return;
    }
    if (cap + 4 * VL < n && n / 4 > k) { // few of many: candidates above the k-th best so far, gathered up to cap, then cut down to k
        float least = -INFINITY;
        for (int i = 0; i < n; i += 4 * VL) {
            int len = n - i < 4 * VL ? n - i : 4 * VL;
            if (len == 4 * VL) {
                vf m = vf_max(vf_max(vf_load(z + i), vf_load(z + i + VL)), vf_max(vf_load(z + i + 2 * VL), vf_load(z + i + 3 * VL)));
                if (!(vf_hmax(m) > least)) continue; // an equal one comes later, so loses its tie
            }
            for (int j = i; j < i + len; j++)
                if (z[j] > least) key[count++] = key_of(z[j], (uint32_t)j);
            if (count < cap - 4 * VL) continue;
            keys_select(key, count, k);
            count = k;
            uint64_t worst = 0;
            for (int j = 0; j < k; j++) worst = key[j] > worst ? key[j] : worst;
            least = z[key_id(worst)];
        }
        if (count >= k) {
            keys_select(key, count, k);
            keys_sort(key, k);
            return;
        } // else NaN or -inf abound: take the long way
    }
    for (int i = 0; i < n; i++) key[i] = key_of(z[i], (uint32_t)i);
    if (n > 256)
        keys_radix_sort(key, key + n, n);
    else
        keys_sort(key, n);
}
