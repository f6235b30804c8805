// Checks of config.json and the weight files.
#include "distill/compute.h"
#include "distill/doctor.h"
#include "distill/registry.h"

#include <string.h>

void check_files(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    const struct {
        const char *name;
        bool has, read;
        const struct err *err;
    } files[] = {{side_config_name(s), s->has_config, s->config, &s->config_err},
                 {side_tokenizer_name(s), s->has_tokenizer, s->tok, &s->tok_err},
                 {"weights", s->has_weights, s->n_weight, &s->weights_err},
                 {"generation_config.json", s->generation || s->generation_err.code, s->generation, &s->generation_err}};
    struct buf there = {0}, missing = {0};
    for (int i = 0; i < 4; i++) {
        if (files[i].has && !files[i].read) {
            say(f, V_FAIL, "%s", files[i].err->text);
            fix(f, "fetch the file again");
        }
        if (files[i].has) buf_printf(&there, "%s%s", there.size ? ", " : "", files[i].name);
        if (!files[i].has && i < 3) buf_printf(&missing, "%s%s", missing.size ? ", " : "", files[i].name);
    }
    if (f->verdict < V_FAIL) say(f, missing.size ? V_WARN : V_OK, "%s: %s", s->is_gguf ? "a GGUF file with" : "there", there.data);
    if (missing.size) {
        say(f, V_WARN, "missing: %s", missing.data);
        fix(f, s->is_gguf ? "take a file with all of a model; what needs them is skipped here"
                          : "fetch them before training; until then what needs them is skipped here");
    }
    buf_free(&there);
    buf_free(&missing);
}

void check_architecture(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    if (!s->arch) {
        say(f, V_FAIL, "%s", s->arch_err.text);
        fix(f, "take a model of a known architecture, or mend config.json as its makers publish it");
        return;
    }
    const struct model_config *c = &s->shape;
    say(f, V_OK, "%s, %lld layers of width %lld", c->model_type, (long long)c->n_layer, (long long)c->d_model);
    if (c->router.n_expert) say(f, V_OK, "%d experts, %d a token", c->router.n_expert, c->router.top_k);
    if (s == &x->student && (c->mla || c->router.n_expert)) {
        say(f, V_FAIL, "%s cannot be trained yet", c->mla ? "latent attention" : "a mixture of experts");
        fix(f, "take a dense student: qwen2, qwen3, llama");
    }
}

// The loader's own checks, without loading: names and shapes against config.json.
void check_weights(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    struct model *m = NULL;
    struct err err = {0};
    struct model_options mo = {.archs = all_archs, .use = MODEL_GENERATE, .dtype = run_dtype(x->o), .plan = true};
    if (model_load(&m, &x->dev, s->dir, &mo, &err)) {
        say(f, V_FAIL, "%s", err.text);
        fix(f, "config.json and the weight files must be of one model: fetch both again");
        return;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < s->n_weight; i++) bytes += s->weight[i].size_bytes;
    say(f, V_OK, "%.4g M parameters, %s in %zu file%s, every shape as %s say%s", (double)model_n_weight(m) * 1e-6, size_text(bytes).s,
        s->n_weight_file, s->n_weight_file == 1 ? "" : "s", s->is_gguf ? "the keys" : "config.json", s->is_gguf ? "" : "s");
    number(f, "parameters", (double)model_n_weight(m));
    number(f, "file_bytes", (double)bytes);
    model_free(m);
}

// ---- dtype ------------------------------------------------------------------------------------------------------------------------------

static const char *config_dtype(const struct side *s)
{
    const char *name = json_string_value(json_object_get(s->config, "torch_dtype"));
    if (!name) name = json_string_value(json_object_get(s->config, "dtype"));
    return !name ? NULL : !strcmp(name, "float32") ? "F32" : !strcmp(name, "float16") ? "F16" : !strcmp(name, "bfloat16") ? "BF16" : name;
}

void check_dtype(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    enum { N = 16 };
    const char *name[N];
    size_t bytes[N] = {0}, most = 0, n = 0;
    for (size_t i = 0; i < s->n_weight; i++) {
        size_t k = 0;
        while (k < n && strcmp(name[k], s->weight[i].dtype) != 0) k++;
        if (k == N) continue;
        if (k == n) name[n++] = s->weight[i].dtype;
        bytes[k] += s->weight[i].size_bytes;
    }
    struct buf list = {0};
    for (size_t k = 0; k < n; k++) {
        buf_printf(&list, "%s%s %s", k ? ", " : "", name[k], size_text(bytes[k]).s);
        if (bytes[k] > bytes[most]) most = k;
    }
    say(f, V_OK, "%s", list.size ? list.data : "no tensors");
    buf_free(&list);
    for (size_t k = 0; k < n; k++) {
        bool fp8 = !strncmp(name[k], "F8_", 3), plain = !strcmp(name[k], "F32") || !strcmp(name[k], "BF16") || !strcmp(name[k], "F16");
        if (plain || (fp8 && s != &x->student)) continue; // whether a teacher's FP8 is read, the loader says under "weights"
        if (s->is_gguf && !strcmp(name[k], "Q8_0")) {
            if (s == &x->student) say(f, V_OK, "Q8_0 is dequantised; what is trained is saved as BF16");
            continue;
        }
        say(f, V_FAIL, "%s weights cannot be %s", name[k], s == &x->student ? "trained" : "read");
        fix(f, "take the BF16 weights of the model, not a quantised version");
    }
    const char *config = s->is_gguf ? NULL : config_dtype(s); // a GGUF file says it of each tensor alone
    if (config && strcmp(config, name[most]) != 0 && strncmp(name[most], "F8_", 3) != 0)
        say(f, V_WARN, "config.json says %s: other loaders convert", config), fix(f, "set \"torch_dtype\" to what the files hold");
    if (!strcmp(name[most], "F16") && run_dtype(x->o) == DT_BF16) {
        say(f, V_WARN, "F16 has 10 bits of fraction, --dtype bf16 keeps 7");
        fix(f, "use --dtype f32 where the last digits matter");
    }
}

// ---- tied head --------------------------------------------------------------------------------------------------------------------------

static const struct weight *weight_find(const struct side *s, const char *name)
{
    for (size_t i = 0; i < s->n_weight; i++)
        if (!strcmp(s->weight[i].name, name)) return &s->weight[i];
    return NULL;
}

static bool same_tensor(const struct weight *a, const struct weight *b)
{
    return !strcmp(a->dtype, b->dtype) && a->size_bytes == b->size_bytes && (!a->size_bytes || !memcmp(a->data, b->data, a->size_bytes));
}

void check_tied_head(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    if (s->is_gguf) { // no key says whether it is tied, so nothing can disagree
        say(f, V_SKIP, "a GGUF file ties the head by having no output.weight, so nothing can disagree");
        return;
    }
    const struct weight *head = weight_find(s, "lm_head.weight"), *embed = weight_find(s, "model.embed_tokens.weight");
    const bool tied = json_is_true(json_object_get(s->config, "tie_word_embeddings"));
    if (tied && !head)
        say(f, V_OK, "tied, as in config.json: the embedding is the head");
    else if (!tied && head)
        say(f, V_OK, "not tied: the head has weights of its own");
    else if (!tied) {
        say(f, V_FAIL, "config.json does not tie the head (tie_word_embeddings), but the files have no lm_head.weight");
        fix(f, "set \"tie_word_embeddings\": true if the model's makers tie them, else fetch the missing weights");
    } else if (embed && same_tensor(head, embed))
        say(f, V_OK, "tied, and the files repeat the embedding as lm_head.weight");
    else {
        say(f, V_FAIL,
            "config.json ties the head (tie_word_embeddings), but the files have an lm_head.weight that is not the embedding: "
            "loaders would pass it over");
        fix(f, "set \"tie_word_embeddings\": false if that head was trained, else delete the tensor");
    }
}

// ---- context ----------------------------------------------------------------------------------------------------------------------------

// A key of YaRN's on which codes differ: vLLM multiplies cosines and sines by it, transformers does not know it.
static void check_attn_factor(const struct side *s, struct finding *f)
{
    const json_t *in = json_object_get(s->config, "rope_parameters"), *v;
    if (!json_is_object(in)) in = json_object_get(s->config, "rope_scaling");
    v = json_object_get(in, "attn_factor");
    if (!json_is_number(v) || s->shape.rope.scaling != ROPE_YARN) return;
    float inv_freq[1], mscale, softmax;
    rope_frequencies(&s->shape.rope, 2, inv_freq, &mscale, &softmax);
    say(f, V_WARN, "rope_scaling's attn_factor counts for nothing here, as in transformers; vLLM multiplies by its %g",
        json_number_value(v));
    fix(f, "leave it for transformers' numbers; for vLLM's write \"attention_factor\": %.6g in its place",
        (double)mscale * json_number_value(v));
}

void check_context(struct exam *x, struct finding *f)
{
    const struct side *s = x->side;
    const int64_t n = side_context(s);
    if (!n) {
        say(f, V_WARN, "config.json has no max_position_embeddings");
        fix(f, "add it as the model's makers publish it; without it other loaders guess");
        return;
    }
    say(f, V_OK, "%lld tokens", (long long)n);
    number(f, "context", (double)n);
    if (!s->arch) return;
    const struct rope_config *r = &s->shape.rope;
    if (r->scaling == ROPE_LINEAR)
        say(f, V_OK, "positions divided by %g", r->factor);
    else if (r->scaling != ROPE_PLAIN)
        say(f, V_OK, "stretched from %lld by %s", (long long)r->original_max_position, r->scaling == ROPE_YARN ? "YaRN" : "Llama 3's rule");
    if (s->shape.window) say(f, V_OK, "a query sees the last %d tokens in layers with a sliding window", s->shape.window);
    const int64_t stretched = (int64_t)((double)r->original_max_position * r->factor);
    if (r->scaling == ROPE_YARN && stretched < n) {
        say(f, V_WARN, "the scaling reaches %lld only (original_max_position_embeddings × factor)", (long long)stretched);
        fix(f, "lower max_position_embeddings or mend rope_scaling");
    }
    check_attn_factor(s, f);
}

void check_contexts(struct exam *x, struct finding *f)
{
    const int64_t t = side_context(&x->teacher), s = side_context(&x->student);
    if (!t || !s) {
        say(f, V_SKIP, "max_position_embeddings is not known of both");
        return;
    }
    if (s >= t)
        say(f, V_OK, "the student's %lld hold whatever the teacher's %lld do", (long long)s, (long long)t);
    else {
        say(f, V_WARN,
            "the student's context (%lld) is shorter than the teacher's (%lld): longer traces would be cut, and their end, the answer, "
            "lost",
            (long long)s, (long long)t);
        fix(f, "gen --max-tokens so that prompt and answer fit into %lld", (long long)s);
    }
}
