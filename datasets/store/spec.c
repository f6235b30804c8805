// Which targets a store keeps: parsing --targets and --target-temperatures, and the arrays of one sample.
#include "datasets/store/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum status parse_temperatures(struct targets_spec *out, const char *text, struct err *err)
{
    out->n_temperature = 1;
    out->temperature[0] = 1;
    for (const char *p = text; *p;) {
        char *end;
        float t = strtof(p, &end);
        if (end == p || !isfinite(t) || t <= 0 || (*end && *end != ',') || (*end && !end[1]))
            return err_set(err, ST_BAD_INPUT, "--target-temperatures %s: wanted numbers above 0 with commas between, as in 1,2", text);
        p = *end ? end + 1 : end;
        int i = 0;
        while (i < out->n_temperature && out->temperature[i] < t) i++;
        if (i < out->n_temperature && !(out->temperature[i] > t)) continue; // there already
        if (out->n_temperature == 8)
            return err_set(err, ST_BAD_INPUT, "--target-temperatures %s: at most 8, with 1 always among them", text);
        memmove(&out->temperature[i + 1], &out->temperature[i], sizeof(float) * (size_t)(out->n_temperature - i));
        out->temperature[i] = t;
        out->n_temperature++;
    }
    return ST_OK;
}

enum status targets_spec_parse(struct targets_spec *out, const char *targets, const char *temperatures, int n_vocab, struct err *err)
{
    *out = (struct targets_spec){0};
    if (!strcmp(targets, "none")) return ST_OK;
    if (!strncmp(targets, "head:", 5) || !strcmp(targets, "hidden"))
        return err_set(err, ST_BAD_INPUT, "--targets %s: not in this version; there are none, topk:K and sampled:N", targets);
    const char *colon = strchr(targets, ':');
    size_t n = colon ? (size_t)(colon - targets) : 0;
    char *end = NULL;
    long k = colon && colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : 0;
    if (n == 4 && !memcmp(targets, "topk", n)) out->kind = TARGETS_TOPK;
    if (n == 7 && !memcmp(targets, "sampled", n)) out->kind = TARGETS_SAMPLED;
    if (!out->kind || !end || *end || k < 1 || k > 1 << 24)
        return err_set(err, ST_BAD_INPUT, "--targets %s: wanted none, topk:K or sampled:N, with K or N at least 1, as in topk:64", targets);
    if (out->kind == TARGETS_SAMPLED && k > 65535)
        return err_set(err, ST_BAD_INPUT, "--targets %s: at most 65535 draws a position", targets);
    if (out->kind == TARGETS_TOPK && n_vocab > 0 && k > n_vocab) k = n_vocab;
    out->k = (int)k;
    return parse_temperatures(out, temperatures ? temperatures : "1", err);
}

void targets_alloc(struct targets *t, const struct targets_spec *spec, int n_tok)
{
    *t = (struct targets){.n_tok = n_tok, .k = spec->k, .n_temperature = spec->n_temperature};
    if (spec->kind == TARGETS_NONE) return;
    size_t rows = (size_t)n_tok, cells = rows * (size_t)spec->k;
    t->ids = NEW_N(int32_t, cells);
    t->log_z = NEW_N(float, rows *(size_t)spec->n_temperature);
    if (spec->kind == TARGETS_TOPK) {
        t->logprob = NEW_N(float, cells);
        t->tail_logprob = NEW_N(float, rows);
    } else {
        t->count = NEW_N(int32_t, cells);
    }
}

void targets_free(struct targets *t)
{
    mem_free(t->ids);
    mem_free(t->logprob);
    mem_free(t->tail_logprob);
    mem_free(t->log_z);
    mem_free(t->count);
    *t = (struct targets){0};
}

// ---- in the manifest: {"kind": "topk", "k": 64, "temperatures": [1.0, 2.0]}

static const char *const KIND[] = {"none", "topk", "sampled"};

json_t *spec_to_json(const struct targets_spec *spec)
{
    json_t *t = json_array();
    for (int i = 0; i < spec->n_temperature; i++) {
        char text[32]; // the shortest number that is this float: 0.7, not 0.699999988079071
        for (int digits = 6; digits <= 9; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, (double)spec->temperature[i]);
            if (!(strtof(text, NULL) < spec->temperature[i]) && !(strtof(text, NULL) > spec->temperature[i])) break;
        }
        json_array_append_new(t, json_real(strtod(text, NULL)));
    }
    return json_pack("{s:s, s:i, s:o}", "kind", KIND[spec->kind], "k", spec->k, "temperatures", t);
}

enum status spec_from_json(struct targets_spec *out, const json_t *j, const char *where, struct err *err)
{
    *out = (struct targets_spec){0};
    const char *kind = json_string_value(json_object_get(j, "kind"));
    const json_t *k = json_object_get(j, "k"), *ts = json_object_get(j, "temperatures");
    size_t n = json_array_size(ts);
    int i = 0;
    while (kind && i < 3 && strcmp(KIND[i], kind) != 0) i++;
    if (!kind || i == 3)
        return err_set(err, ST_BAD_INPUT, "%s: targets.kind: found \"%s\", this distill knows none, topk, sampled", where,
                       kind ? kind : "");
    if (!json_is_integer(k) || json_integer_value(k) < 0 || json_integer_value(k) > 1 << 24 || n > 8)
        return err_set(err, ST_BAD_INPUT, "%s: targets: wanted an integer k and at most 8 temperatures", where);
    out->kind = (enum targets_kind)i;
    out->k = (int)json_integer_value(k);
    out->n_temperature = (int)n;
    for (size_t a = 0; a < n; a++) out->temperature[a] = (float)json_number_value(json_array_get(ts, a));
    return ST_OK;
}
