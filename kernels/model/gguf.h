// What the keys and tensors of a GGUF file mean for a model, in both directions: the configuration as config.json has it, and the tensors
// under Hugging Face's names and in its order of rows. The container is kernels/base/gguf.h, the tokenizer datasets/tokenizer/gguf.h.
//
// Source of names and layouts: llama.cpp's converter (convert_hf_to_gguf) and its loader.
#pragma once
#include "kernels/base/gguf.h"
#include "kernels/model/arch.h"

// ---- names (gguf_names.c) ----

// How a tensor lies in GGUF.
enum gguf_form {
    GGUF_SAME,
    GGUF_Q,       // arch llama only: each head's rows interleaved, (2, d/2) → (d/2, 2); elsewhere as GGUF_SAME
    GGUF_K,       // the same over the key heads
    GGUF_EXPERTS, // the experts' matrices stacked: (expert, out, in); the name is that of expert N with "%d" for N
    GGUF_KV_B,    // kv_b split by head: attn_k_b (h, kv_lora, nope) transposed, attn_v_b (h, v, kv_lora)
};
struct gguf_name {
    const char *hf, *gguf; // within layer N: after "model.layers.N." and "blk.N."
    enum gguf_form form;
};
extern const struct gguf_name gguf_layer_names[], gguf_top_names[]; // end with {0}

struct gguf_family {
    const char *arch;       // general.architecture
    const char *model_type; // config.json's
    const char *class_name; // config.json's architectures[0]
    bool permutes;          // GGUF_Q and GGUF_K mean something
};
extern const struct gguf_family gguf_families[];                       // ends with {0}; the first of an arch is what reading makes of it
const struct gguf_family *gguf_family_of_type(const char *model_type); // NULL: none

// ---- rotary scaling (gguf_rope.c) ----

// What llama3's scaling divides each inverse frequency by: the tensor rope_freqs.weight (d_rope / 2).
void gguf_llama3_divisors(const struct rope_config *r, int64_t d_rope, float *divisor);
// The reverse: rope_scaling's object for which gguf_llama3_divisors gives these, NULL if there is none.
json_t *gguf_llama3_config(const float *divisor, int64_t d_rope, double theta);

// ---- reading ----

// What config.json would say of the model in g. ST_BAD_INPUT names keys.
enum status gguf_config(json_t **config, const struct gguf *g, struct err *err);
// gguf_config of the file at `path`.
enum status gguf_config_read(json_t **config, const char *path, struct err *err);
// n values of a row, from value `first` on, as f32. Types: F32, F16, BF16, Q8_0 (first and n whole blocks or not).
void gguf_decode(float *out, uint32_t type, const uint8_t *row, int64_t first, int64_t n);

// ---- writing ----

// Declares the keys of the architecture for a file whose matrices are of `type`. What llama.cpp would compute otherwise than the
// configuration says is refused: all of it, by name. *note: what the user should know though it is done (static text), or NULL.
enum status gguf_put_config(struct gguf_writer *w, const struct model_config *c, enum ggml_type type, const char **note, const char *where,
                            struct err *err);
// Values to bytes: n f32 as `type` (Q8_0: whole blocks). False: a value does not fit (F16 ends at 65504) or is not finite.
bool gguf_encode(uint8_t *out, enum ggml_type type, const float *v, int64_t n);

// The tensors of a model for the file: declared by gguf_plan_tensors (the source holds what model_check wants, and outlives the plan),
// written by gguf_write_tensors after gguf_begin. One-dimensional tensors, norms and the router's gate are F32; a matrix whose rows are no
// whole blocks of Q8_0 is F16. `done` (may be NULL) hears how many tensors are written
// and says whether to go on; ST_INTERRUPTED if it says no before the last.
struct source;
struct gguf_plan;
struct gguf_plan *gguf_plan_tensors(struct gguf_writer *w, const struct source *src, const struct model_config *c, enum ggml_type type);
size_t gguf_plan_count(const struct gguf_plan *p);
enum status gguf_write_tensors(struct gguf_writer *w, const struct gguf_plan *p, bool (*done)(void *arg, size_t n), void *arg,
                               struct err *err);
void gguf_plan_free(struct gguf_plan *p); // NULL is fine
