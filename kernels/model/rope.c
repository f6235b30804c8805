// Rotary position embedding: what config.json says of it, and the frequencies that follow.
#include "kernels/model/arch.h"

#include <math.h>
#include <string.h>

// ---- reading -------------------------------------------------------------------------------------------------------------------------

static const json_t *object_of(const json_t *root, const char *key)
{
    const json_t *o = json_object_get(root, key);
    return json_is_object(o) && json_object_size(o) ? o : NULL;
}

// Which of the two has the key: the first, if it does, else the second.
static const json_t *holder(const json_t *first, const json_t *second, const char *key)
{
    const json_t *v = json_object_get(first, key);
    return v && !json_is_null(v) ? first : second;
}

// rope_parameters (transformers 5) or rope_scaling (4), NULL for none. A file with both must say the same twice.
static const json_t *rope_object(const json_t *root, const char *where, struct err *err)
{
    const json_t *p = object_of(root, "rope_parameters"), *old = object_of(root, "rope_scaling"), *v;
    const char *key;
    if (!p || !old) return p ? p : old;
    json_object_foreach((json_t *)old, key, v)
    {
        const json_t *same = json_object_get(p, strcmp(key, "type") ? key : "rope_type");
        if (!json_equal(v, same ? same : json_object_get(p, key)))
            err_add(err, ST_BAD_INPUT, "%s: rope_scaling and rope_parameters differ in %s; keep the one that holds", where, key);
    }
    return p;
}

// Few keys, all of them numbers that matter: one that is not known here is refused, not passed over.
static bool is_known_key(const char *key)
{
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "factor",
                                        "original_max_position_embeddings",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "mscale",
                                        "mscale_all_dim",
                                        "attention_factor",
                                        "attn_factor", // transformers passes it over, and so do we: docs/families.md
                                        "truncate",
                                        "partial_rotary_factor",
                                        "finetuned"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i], key)) return true;
    return false;
}

static void yarn_read(struct rope_config *r, const json_t *p, const char *where, struct err *err)
{
    r->beta_fast = json_get_real(p, "beta_fast", 32, false, where, err);
    r->beta_slow = json_get_real(p, "beta_slow", 1, false, where, err);
    r->mscale = json_get_real(p, "mscale", 0, false, where, err);
    r->mscale_all_dim = json_get_real(p, "mscale_all_dim", 0, false, where, err);
    r->attention_factor = json_get_real(p, "attention_factor", 0, false, where, err);
    r->exact_range = !json_get_bool(p, "truncate", true, false, where, err);
    if (!(r->beta_fast > 0) || !(r->beta_slow > 0))
        err_add(err, ST_BAD_INPUT, "%s: rope_scaling: beta_fast and beta_slow must be positive", where);
    // One of the two alone: DeepSeek's code takes 1 and 0 for the other, transformers then ignores both. With mscale 1 they agree.
    if ((r->mscale != 0) != (r->mscale_all_dim != 0) && r->mscale != 1)
        err_add(err, ST_BAD_INPUT, "%s: rope_scaling: mscale and mscale_all_dim must be given together: codes differ on one alone", where);
}

void rope_config_read(struct rope_config *r, const json_t *root, const char *where, struct err *err)
{
    static const char *const known[] = {[ROPE_PLAIN] = "default", [ROPE_LINEAR] = "linear", [ROPE_LLAMA3] = "llama3", [ROPE_YARN] = "yarn"};
    const json_t *p = rope_object(root, where, err), *v;
    const char *key;
    *r = (struct rope_config){.factor = 1};
    r->theta = json_get_real(holder(p, root, "rope_theta"), "rope_theta", 10000.0, false, where, err);
    if (!(r->theta > 0)) err_add(err, ST_BAD_INPUT, "%s: rope_theta: wanted a positive number", where);
    if (!p) return;
    json_object_foreach((json_t *)p, key, v)
    {
        if (!json_is_null(v) && !is_known_key(key))
            err_add(err, ST_BAD_INPUT, "%s: rope_%s: %s is not known", where,
                    json_object_get(root, "rope_parameters") ? "parameters" : "scaling", key);
    }
    double part = json_get_real(p, "partial_rotary_factor", 1, false, where, err);
    if (part != 1) err_add(err, ST_BAD_INPUT, "%s: rope_parameters: partial_rotary_factor: %g is not known (known: 1)", where, part);
    const char *type = json_get_str(p, "rope_type", json_get_str(p, "type", known[0], false, where, err), false, where, err);
    int kind = 0;
    while (kind <= ROPE_YARN && strcmp(known[kind], type)) kind++;
    if (!strcmp(type, "dynamic")) {
        err_add(err, ST_BAD_INPUT,
                "%s: rope_scaling: type \"dynamic\" is refused: its frequencies follow the longest sequence of a batch, so that a sample "
                "would depend on what it runs beside. Within max_position_embeddings it changes nothing: to use that context, set "
                "rope_scaling to null",
                where);
        return;
    }
    if (kind > ROPE_YARN) {
        err_add(err, ST_BAD_INPUT, "%s: rope_scaling: type \"%s\" is not known (known: default, linear, llama3, yarn)", where, type);
        return;
    }
    r->scaling = (enum rope_scaling)kind;
    if (kind == ROPE_PLAIN) return;
    const bool llama3 = kind == ROPE_LLAMA3;
    // A length beside rope_scaling goes before one inside it, as in transformers.
    r->original_max_position = json_get_int(holder(root, p, "original_max_position_embeddings"), "original_max_position_embeddings",
                                            json_get_int(root, "max_position_embeddings", 0, false, where, err), false, where, err);
    r->factor = json_get_real(p, "factor", 0, kind != ROPE_YARN, where, err);
    if (kind == ROPE_YARN && r->factor == 0 && r->original_max_position > 0) // YaRN without a factor: the ratio of the contexts
        r->factor = json_get_real(root, "max_position_embeddings", 1, false, where, err) / (double)r->original_max_position;
    r->low_freq_factor = json_get_real(p, "low_freq_factor", 1, llama3, where, err);
    r->high_freq_factor = json_get_real(p, "high_freq_factor", 4, llama3, where, err);
    if (kind == ROPE_YARN) yarn_read(r, p, where, err);
    if (!(r->factor > 0) || (kind != ROPE_LINEAR && r->original_max_position < 1))
        err_add(err, ST_BAD_INPUT, "%s: rope_scaling: factor and original_max_position_embeddings must be positive", where);
    if (llama3 && !(r->low_freq_factor > 0 && r->high_freq_factor > r->low_freq_factor))
        err_add(err, ST_BAD_INPUT, "%s: rope_scaling: wanted 0 < low_freq_factor < high_freq_factor", where);
}

// ---- frequencies ---------------------------------------------------------------------------------------------------------------------

// TRAP: in f32, step by step, as DeepSeek's code and transformers do it, the exponent included: at long positions the rounding of a
// frequency is a visible angle, and a better frequency gives other logits than the model's makers have.

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

// YaRN (Peng et al. 2023, as DeepSeek and transformers apply it): frequencies above beta_fast rotations in the original context stay, those
// below beta_slow are divided by factor, a ramp between. power: theta^(2i/d), the inverse of the frequency.
static void yarn(const struct rope_config *r, int64_t d, const float *power, float *inv_freq)
{
    double span = 2 * log(r->theta);
    double low = (double)d * log((double)r->original_max_position / (r->beta_fast * 2 * M_PI)) / span;
    double high = (double)d * log((double)r->original_max_position / (r->beta_slow * 2 * M_PI)) / span;
    if (!r->exact_range) low = floor(low), high = ceil(high);
    if (low < 0) low = 0;
    if (high > (double)(d - 1)) high = (double)(d - 1);
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < d / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float kept = 1 - ramp, stretched = 1.0f / ((float)r->factor * power[i]);
        inv_freq[i] = stretched * (1 - kept) + inv_freq[i] * kept;
    }
}

// Llama 3.1: wavelengths over original/low are divided by factor, those under original/high stay, a smooth blend between.
static void llama3(const struct rope_config *r, int64_t d, float *inv_freq)
{
    const double orig = (double)r->original_max_position;
    for (int64_t i = 0; i < d / 2; i++) {
        float inv = inv_freq[i], wavelength = (float)(2 * M_PI) / inv;
        if (wavelength > (float)(orig / r->low_freq_factor)) {
            inv_freq[i] = inv / (float)r->factor;
        } else if (wavelength >= (float)(orig / r->high_freq_factor)) {
            float smooth = ((float)orig / wavelength - (float)r->low_freq_factor) / (float)(r->high_freq_factor - r->low_freq_factor);
            inv_freq[i] = (1 - smooth) * inv / (float)r->factor + smooth * inv;
        }
    }
}

void rope_frequencies(const struct rope_config *r, int64_t d, float *inv_freq, float *mscale, float *softmax_factor)
{
    float *power = NEW_N(float, d / 2);
    for (int64_t i = 0; i < d / 2; i++) {
        power[i] = (float)pow(r->theta, (double)((float)(2 * i) / (float)d));
        inv_freq[i] = 1.0f / power[i];
        if (r->scaling == ROPE_LINEAR) inv_freq[i] /= (float)r->factor;
    }
    if (r->scaling == ROPE_LLAMA3) llama3(r, d, inv_freq);
    if (r->scaling == ROPE_YARN) yarn(r, d, power, inv_freq);
    mem_free(power);
    *mscale = *softmax_factor = 1;
    if (r->scaling != ROPE_YARN) return;
    if (r->attention_factor != 0)
        *mscale = (float)r->attention_factor;
    else if (r->mscale != 0 && r->mscale_all_dim != 0)
        *mscale = (float)(yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim));
    else
        *mscale = (float)yarn_mscale(r->factor, 1);
    if (r->mscale_all_dim != 0) {
        double m = yarn_mscale(r->factor, r->mscale_all_dim);
        *softmax_factor = (float)(m * m);
    }
}
