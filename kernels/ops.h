// The ops: the seam between the model's text and what computes it. An op is a plain C function on a device; kernels/ops.c checks dtypes and
// shapes once and calls the backend's entry of the same name. A missing entry is an error naming op and dtype, never a silent detour.
// Ops are stream-ordered and never wait for the host. A new op: prototype and table entry here, check in ops.c, CPU, CUDA, a row in
// tests/kernels/test_ops.c.
//
// Dimensions: n_tok rows of flat tokens, d model width, n_head, n_kv heads of keys and values, dk / dv head sizes, v vocabulary, e experts.
// Activations `A` are f32 or bf16; matrices `W` f32 or bf16, one-dimensional parameters (norms, biases) always f32. Reductions, softmax,
// norms, router and loss are computed in f32. An output may not overlap an input unless its comment says so.
#pragma once
#include "kernels/base/fp8.h"
#include "kernels/device.h"

// ---- which rows belong together -----------------------------------------------------------------------------------------------------
// Flat tokens: a step works on n_tok rows; sequence s owns rows [start[s], start[s+1]). Row r stands at position pos[r] of its document.
// With a KV cache, the keys and values of position p of sequence s lie in page page[s][p / page_len], slot p % page_len.
struct segments {
    int n_seg, n_tok;
    int max_len;          // longest segment in this step (rows)
    int max_pos;          // largest position + 1 over the rows
    const int32_t *start; // (n_seg + 1), device memory
    const int32_t *pos;   // (n_tok), device memory; consecutive within a segment
    const int32_t *page;  // (n_seg, max_page), device memory; NULL without a cache
    int max_page, page_len;
};

// ---- memory -------------------------------------------------------------------------------------------------------------------------
void op_upload(struct device *dev, struct tensor out, const void *host); // contiguous; host may be reused when the op returns
void op_download(struct device *dev, void *host, struct tensor x);       // waits: the host needs the values
void op_zero(struct device *dev, struct tensor out);                     // contiguous
void op_copy(struct device *dev, struct tensor out, struct tensor x); // any strides (rank ≤ 3), converts between f32, bf16 (and from f16)
// w (n, k) f32|bf16|f16 rows → out LAYOUT_PANEL f32|bf16; w e4m3 → out as the backend's products read FP8 (struct backend: fp8_weight).
// nonfinite i32 (1) += NaN and infinities of w; none: not counted.
void op_pack(struct device *dev, struct tensor out, struct tensor w, struct tensor nonfinite);
void op_nonfinite(struct device *dev, struct tensor count,
                  struct tensor x); // count i32 (1) += NaN and infinities of x f32|bf16|f16, contiguous
size_t op_pack_bytes(const struct device *dev, enum dtype t, int64_t n, int64_t k);
// A weight may be packed in parts: rows from `first`, a multiple of OP_PACK_ROWS, begin op_pack_bytes(dev, t, first, k) into it.
enum { OP_PACK_ROWS = 64 };

// ---- element-wise and row-wise --------------------------------------------------------------------------------------------------------
void op_add(struct device *dev, struct tensor out, struct tensor a, struct tensor b); // A (n, d) each; out may be a or b
// out A (n_tok, d); table W (v, d), rows or panel; ids i32 (n_tok). Backward: dtable f32 (v, d) += ; deterministic.
void op_embed(struct device *dev, struct tensor out, struct tensor table, struct tensor ids);
void op_embed_bwd(struct device *dev, struct tensor dtable, struct tensor dout, struct tensor ids);
// y = x / sqrt(mean(x²) + eps) * w over the last dimension (Zhang & Sennrich 2019). x A (…, d) rank 2 or 3, may be strided by rows; w f32
// (d); rstd f32 (rows) kept if given.
void op_rmsnorm(struct device *dev, struct tensor out, struct tensor x, struct tensor w, float eps, struct tensor rstd);
// dx = (accumulate: dx +) …; dw f32 (d) += (skipped if none). rstd from forward.
void op_rmsnorm_bwd(struct device *dev, struct tensor dx, struct tensor dw, struct tensor dout, struct tensor x, struct tensor w,
                    struct tensor rstd, bool accumulate);
enum { OP_ROPE_MAX = 512, OP_EXPERT_MAX = 1024, OP_TEMPERATURE_MAX = 7 }; // largest d_rope, number of experts and of log Z kept
enum rope_order { ROPE_HALF, ROPE_PAIRS }; // pairs (i, i + d/2) as in Hugging Face; (2i, 2i+1) as in DeepSeek's checkpoints
// Rotates in place x A (n_tok, n_head, d_rope) (may be strided) by angle pos * inv_freq[i], cos and sin times `mscale`; inverse: by the
// negative angle, the backward of itself (times mscale again). Angles in f32 (pos * inv_freq rounded to f32, as PyTorch).
void op_rope(struct device *dev, struct tensor x, const struct segments *seg, struct tensor inv_freq, float mscale, enum rope_order order,
             bool inverse);
// out = gate * sigmoid(gate) * up; (n, d) each, gate and up may be strided by rows; out may be gate.
void op_silu_mul(struct device *dev, struct tensor out, struct tensor gate, struct tensor up);
void op_silu_mul_bwd(struct device *dev, struct tensor dgate, struct tensor dup, struct tensor dout, struct tensor gate, struct tensor up);

// ---- products -------------------------------------------------------------------------------------------------------------------------
// out (n_tok, n) = x (n_tok, k) · w (n, k)ᵀ + bias (n) f32 or none. out A or f32. w rows: the library's GEMM. w panel: our kernels,
// batch-invariant (without dev->batch_invariant a backend may hand many rows to the library all the same).
void op_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor bias);
// The product as DeepSeek computes it in FP8 (inference/kernel.py: act_quant, fp8_gemm). A row of x is cut into blocks of FP8_BLOCK, each
// divided by its fp8_scale and rounded to e4m3; out = the sum over blocks of (x_b · w_bᵀ) * x_scale * w_scale, + bias. w panel (n, k),
// packed from e4m3, without its scales; w_scale f32 (⌈n/128⌉, ⌈k/128⌉). Batch-invariant, but for many rows where op_linear would not be
// either.
void op_fp8_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w, struct tensor w_scale, struct tensor bias,
                   bool ue8m0);
// dx (n_tok, k) = [dx +] dout · w;   dw f32 (n, k) += doutᵀ · x;   dbias f32 (n) += column sums of dout
void op_linear_bwd_x(struct device *dev, struct tensor dx, struct tensor dout, struct tensor w, bool accumulate);
void op_linear_bwd_w(struct device *dev, struct tensor dw, struct tensor dout, struct tensor x);
void op_bias_bwd(struct device *dev, struct tensor dbias, struct tensor dout);
// One product a head: out (n_tok, h, n) = x (n_tok, h, k) · w_h (n, k)ᵀ with w (h, n, k) rows or panel by head (the two sides of absorbed
// MLA). x, out may be strided by head.
void op_head_linear(struct device *dev, struct tensor out, struct tensor x, struct tensor w);

// ---- attention (causal) -----------------------------------------------------------------------------------------------------------------
// Flat: sequence s has queries [q_start[s], q_start[s+1]) and keys [k_start[s], k_start[s+1]); the last query stands at the last key (so
// chunks of queries over longer keys work). Head h reads kv head h / (n_head / n_kv). window 0: none, else a query sees its last `window`
// keys.
struct attention {
    int n_seg, max_len;               // longest query segment
    const int32_t *q_start, *k_start; // (n_seg + 1) each, device memory
    float scale;
    int window;
};
// q A (n_tok, n_head, dk), k (n_key, n_kv, dk), v (n_key, n_kv, dv), out (n_tok, n_head, dv), all may be strided by row and head; lse f32
// (n_tok, n_head) if given: log-sum-exp of the scaled scores, what backward needs. A row's result depends on its own keys only, in one
// fixed order (without dev->batch_invariant a backend may hand queries that are their own keys, q_start the very list k_start, to a
// library, whose order it alone knows; the same values have the same bits all the same).
void op_attention(struct device *dev, struct tensor out, struct tensor lse, struct tensor q, struct tensor k, struct tensor v,
                  const struct attention *a);
// Flash-attention backward (Dao 2022): dq, dk, dv A written (not accumulated).
void op_attention_bwd(struct device *dev, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor dout, struct tensor q,
                      struct tensor k, struct tensor v, struct tensor out, struct tensor lse, const struct attention *a);
// Paged: writes the rows x A (n_tok, n_kv, d) to their slots in pages A (n_page, page_len, n_kv, d).
void op_kv_write(struct device *dev, struct tensor pages, struct tensor x, const struct segments *seg);
// Reads positions 0 .. pos of each segment's last row, segment after segment: out A (sum of lengths, n_kv, d); k_start as in struct
// attention.
void op_kv_read(struct device *dev, struct tensor out, struct tensor pages, const struct segments *seg, const int32_t *k_start);
// q (n_tok, n_head, dk) over keys (n_page, page_len, n_kv, dk) and values (n_page, page_len, n_kv, dv), positions 0 .. pos[row]. values may
// be a strided view of keys (absorbed MLA: the first kv_lora_rank columns). Each (row, head) alone, page after page: independent of what
// shares the step.
void op_attention_paged(struct device *dev, struct tensor out, struct tensor q, struct tensor keys, struct tensor values,
                        const struct segments *seg, float scale, int window);

// ---- mixture of experts -----------------------------------------------------------------------------------------------------------------
enum router_scoring { ROUTER_SOFTMAX, ROUTER_SIGMOID };
struct router {
    enum router_scoring scoring;
    int n_expert, top_k, n_group, topk_group; // n_group 1: no groups
    bool norm_topk_prob;
    float scale; // routed_scaling_factor
};
// TRAP: experts are chosen by score + bias and weighted by the score alone; masked groups count as -inf (DeepSeek-V3 inference/model.py).
// logits f32 (n_tok, e), bias f32 (e) or none → expert i32 (n_tok, top_k) by falling biased score (ties: lower id first), weight f32
// (n_tok, top_k).
void op_router(struct device *dev, struct tensor expert, struct tensor weight, struct tensor logits, struct tensor bias,
               const struct router *r);
// Sorts the n_tok * top_k choices by expert, stable in (token, slot): first i32 (e + 1) where each expert's rows begin; row_token i32
// (n_tok * top_k) the token of each sorted row; token_row i32 (n_tok, top_k) the sorted row of each choice.
void op_moe_sort(struct device *dev, struct tensor first, struct tensor row_token, struct tensor token_row, struct tensor expert,
                 int n_expert);
void op_gather_rows(struct device *dev, struct tensor out, struct tensor x, struct tensor row); // out A (m, d) = x[row[i]]
// out A (n, d): out[row[i]] = x[i] of x A (m, d). No row twice; those not named stay.
void op_scatter_rows(struct device *dev, struct tensor out, struct tensor x, struct tensor row);
// Where the weights of each expert are (the placement table's device view): slot[e] is the expert's panel-packed (n, k) matrix, NULL if it
// is not on this device.
struct expert_weights {
    int n_expert;
    int64_t n, k;
    enum dtype dtype;
    const void *const *slot; // (n_expert) pointers, device memory
    // NULL, or as in op_fp8_linear: the slots were packed from e4m3, and these are their scales; x is then quantised. Pointers in device
    // memory.
    const float *const *scale;
    bool ue8m0;
};
// Rows [first[e], first[e+1]) of x A (m, k) times expert e's wᵀ → out A (m, n). Batch-invariant. An expert with rows but no slot is an
// error.
void op_grouped_linear(struct device *dev, struct tensor out, struct tensor x, const struct expert_weights *w, struct tensor first);
// out A (n_tok, d) += sum over slots, in slot order, of weight[t][s] * y[token_row[t][s]] (f32 sum).
void op_moe_combine(struct device *dev, struct tensor out, struct tensor y, struct tensor token_row, struct tensor weight);

// ---- loss rows --------------------------------------------------------------------------------------------------------------------------
// A divergence is a sum over categories of a term in (log p of the teacher, log q of the student): rows/divergence.h.
enum divergence { DIV_NONE, DIV_FKL, DIV_RKL, DIV_JSD };
struct loss_mix {
    float ce_weight, kd_weight;
    enum divergence divergence;
    float beta;        // of jsd
    float temperature; // of both distributions in the kd part
    float kd_scale;    // 1, or temperature² to keep the gradient's size
    float grad_scale;  // 1 / number of valid tokens of the whole step
    bool full;         // targets cover the vocabulary: no tail category
    int n_vocab;       // columns beyond it are padding: masked out of every softmax
};
// What the teacher said of each row. Empty (k = 0) when kd_weight is 0. topk: ids i32 (n, k) (-1: unused), logprob f32 (n, k) at T = 1,
// tail_logprob f32 (n), log_z1 and log_zt f32 (n): log Z at T = 1 and at `temperature` (may be none when temperature is 1).
struct loss_targets {
    struct tensor ids, logprob, tail_logprob, log_z1, log_zt;
};
// logits f32 (n, v) → dlogits A or f32 (n, v) (may be the same memory if f32), ce f32 (n), kd f32 (n) (nats, unscaled by weights), label
// i32 (n) (-1: a row without loss: zero gradient, zeros). dlogits = grad_scale * (ce_weight * dCE + kd_weight * kd_scale * dKD).
void op_loss(struct device *dev, struct tensor dlogits, struct tensor ce, struct tensor kd, struct tensor logits, struct tensor label,
             const struct loss_targets *t, const struct loss_mix *mix);

// ---- capture and sampling
// ---------------------------------------------------------------------------------------------------------------- What the teacher's
// distribution was, before sampling filters: ids i32 (n, k), logprob f32 (n, k) falling (ties: lower id first), tail_logprob f32 (n), log_z
// f32 (n, n_temperature). k may equal v (tail -inf). logits f32 (n, v); only the first n_vocab columns count.
void op_capture_topk(struct device *dev, struct tensor ids, struct tensor logprob, struct tensor tail_logprob, struct tensor log_z,
                     struct tensor logits, int n_vocab, const float *temperature);
struct sample_row {                  // one row's settings; device memory
    float temperature, top_p, min_p; // temperature 0: greedy (lowest id among equals). top_p 1, min_p 0, top_k 0: off
    int32_t top_k;
    uint64_t seed, stream, counter; // the uniform number drawn is rng_uniform(seed, stream, counter): by prompt, sample and position only
};
// Filters in the order top-k, top-p (smallest set whose mass ≥ top_p), min-p (≥ min_p * largest), all after the temperature, as
// transformers does. out i32 (n).
void op_sample(struct device *dev, struct tensor out, struct tensor logits, int n_vocab, const struct sample_row *row);
// n_draw unbiased draws a row at T = 1: distinct ids ascending padded with -1, and counts, i32 (n, n_draw) each; log_z f32 (n,
// n_temperature).
void op_capture_sampled(struct device *dev, struct tensor ids, struct tensor count, struct tensor log_z, struct tensor logits, int n_vocab,
                        const float *temperature, const struct sample_row *row);

// ---- optimizer -----------------------------------------------------------------------------------------------------------------------
struct adamw {                                  // TRAP: double, as PyTorch's: 1 - 0.999f is off by 1.3e-5 of itself
    double lr, beta1, beta2, eps, weight_decay; // weight_decay already 0 for parameters that do not decay
    float grad_scale;                           // the clipping factor, multiplied into the gradient
    int64_t step;                               // 1-based, for the bias corrections
};
// Loshchilov & Hutter 2019, in PyTorch's order: w *= 1 - lr*wd; m, v updated; w -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps). master
// f32 (n) is the weight's exact value; w (n) f32|bf16 receives its rounding, unless w is f32 and the same memory. grad, m, v f32 (n).
void op_adamw(struct device *dev, struct tensor w, struct tensor master, struct tensor m, struct tensor v, struct tensor grad,
              const struct adamw *a);
enum { OP_ADAMW8_BLOCK = 256 };
struct adamw8 {
    struct adamw adamw;
    uint64_t seed, stream; // of the draws: the run's, the parameter's
    int64_t first;         // where w begins in its parameter, if it is a part of it: a multiple of OP_ADAMW8_BLOCK
};
// AdamW in 4 bytes a parameter: w (n) bf16 is the only copy of the weight (or f32, as norms are), m and v u8 (n) are codes in units of
// their block, m_unit and v_unit f32 (⌈n / OP_ADAMW8_BLOCK⌉); zeros are states of zero. All is rounded stochastically: rows/adamw8.h. The
// result is a function of the arguments: the same on any number of threads, and of a part as within the whole. grad f32 (n).
void op_adamw8(struct device *dev, struct tensor w, struct tensor m, struct tensor v, struct tensor m_unit, struct tensor v_unit,
               struct tensor grad, const struct adamw8 *a);
// out f64 (1 value of 8 bytes, device memory, passed as u8 (8)) += sum of squares of x f32: fixed blocks, so the same on any number of
// threads.
void op_sumsq(struct device *dev, struct tensor out, struct tensor x);

// ---- the table a backend fills
// ----------------------------------------------------------------------------------------------------------- Entries have the signature of
// the op above. Those marked S may take scratch with dev_scratch() and are called while measuring too (they take it and return); the others
// are not called then. NULL: not there.
struct backend {
    const char *name;      // "cpu"
    bool host_memory;      // its memory is the host's: a tensor may lie in a mapped file
    bool batch_dependent;  // unless dev->batch_invariant, a row's bits may depend on how many others share its step
    enum dtype fp8_weight; // of packed e4m3 weights: as they are, or bf16, which holds them all
    enum status (*open)(struct device *dev, struct err *err);
    void (*close)(struct device *dev);
    void (*sync)(
        struct device *dev); // waits until all ops have ended, moving their failures to dev->error. NULL: they end before they return
    bool (*step_begin)(struct device *dev, const void *key, size_t n); // NULL: steps are not recorded
    void (*step_pause)(struct device *dev);
    void (*step_resume)(struct device *dev);
    void (*step_end)(struct device *dev);
    // Without host_memory: memory of the device, mapped for good; needed against free in the message.
    enum status (*mem_take)(struct device *dev, void **out, size_t size_bytes, const char *name, struct err *err);
    void (*mem_give)(void *p);
    size_t (*mem_free_bytes)(struct device *dev);
    size_t (*pack_bytes)(const struct device *dev, enum dtype t, int64_t n, int64_t k);
    __typeof__(op_upload) *upload;
    __typeof__(op_download) *download;
    __typeof__(op_zero) *zero;
    __typeof__(op_copy) *copy;
    __typeof__(op_pack) *pack;
    __typeof__(op_nonfinite) *nonfinite;
    __typeof__(op_add) *add;
    __typeof__(op_embed) *embed;
    __typeof__(op_embed_bwd) *embed_bwd; // S
    __typeof__(op_rmsnorm) *rmsnorm;
    __typeof__(op_rmsnorm_bwd) *rmsnorm_bwd; // S
    __typeof__(op_rope) *rope;
    __typeof__(op_silu_mul) *silu_mul;
    __typeof__(op_silu_mul_bwd) *silu_mul_bwd;
    __typeof__(op_linear) *linear;               // S
    __typeof__(op_fp8_linear) *fp8_linear;       // S
    __typeof__(op_linear_bwd_x) *linear_bwd_x;   // S
    __typeof__(op_linear_bwd_w) *linear_bwd_w;   // S
    __typeof__(op_bias_bwd) *bias_bwd;           // S
    __typeof__(op_head_linear) *head_linear;     // S
    __typeof__(op_attention) *attention;         // S
    __typeof__(op_attention_bwd) *attention_bwd; // S
    __typeof__(op_kv_write) *kv_write;
    __typeof__(op_kv_read) *kv_read;
    __typeof__(op_attention_paged) *attention_paged; // S
    __typeof__(op_router) *router;
    __typeof__(op_moe_sort) *moe_sort; // S
    __typeof__(op_gather_rows) *gather_rows;
    __typeof__(op_scatter_rows) *scatter_rows;
    __typeof__(op_grouped_linear) *grouped_linear; // S
    __typeof__(op_moe_combine) *moe_combine;
    __typeof__(op_loss) *loss;                       // S
    __typeof__(op_capture_topk) *capture_topk;       // S
    __typeof__(op_sample) *sample;                   // S
    __typeof__(op_capture_sampled) *capture_sampled; // S
    __typeof__(op_adamw) *adamw;
    __typeof__(op_adamw8) *adamw8;
    __typeof__(op_sumsq) *sumsq; // S
};
void *dev_scratch(struct device *dev, size_t size_bytes); // for backends: step memory until the op returns
