// Trained reality: karpathy's stories260K, a Llama of 260 thousand parameters that tells stories, made a Hugging Face folder here from
// llama2.c's own layout. At temperature 0 it must say what its makers' program says.
#include "datasets/tokenizer/tokenizer.h"
#include "kernels/base/gguf.h"
#include "kernels/model/model.h"
#include "teacher/engine.h"
#include "tests/test.h"

extern const struct arch arch_llama;
static const struct arch *const archs[] = {&arch_llama, NULL};

struct header { // of the .bin, in this order
    int32_t d_model, d_ff, n_layer, n_head, n_kv_head, n_vocab, max_position;
};

enum part { EMBED, NORM1, WQ, WK, WV, WO, NORM2, GATE, DOWN, UP, FINAL, N_PART }; // the file's order
static const char *const names[N_PART] = {"model.embed_tokens.weight",
                                          "input_layernorm.weight",
                                          "self_attn.q_proj.weight",
                                          "self_attn.k_proj.weight",
                                          "self_attn.v_proj.weight",
                                          "self_attn.o_proj.weight",
                                          "post_attention_layernorm.weight",
                                          "mlp.gate_proj.weight",
                                          "mlp.down_proj.weight",
                                          "mlp.up_proj.weight",
                                          "model.norm.weight"};

// Rows and columns of a part; cols 0: one-dimensional.
static void part_shape(const struct header *h, enum part p, int64_t shape[2])
{
    const int64_t d = h->d_model, kv = d / h->n_head * h->n_kv_head;
    const int64_t rows[N_PART] = {h->n_vocab, d, d, kv, kv, d, d, h->d_ff, d, h->d_ff, d},
                  cols[N_PART] = {d, 0, d, d, d, d, 0, d, h->d_ff, d, 0};
    shape[0] = rows[p], shape[1] = cols[p];
}

static bool in_layers(enum part p)
{
    return p != EMBED && p != FINAL;
}

static char *part_name(enum part p, int layer)
{
    return in_layers(p) ? mem_printf("model.layers.%d.%s", layer, names[p]) : mem_strdup(names[p]);
}

static const float *part_data(const struct header *h, const float *weights, enum part p, int layer)
{
    int64_t shape[2];
    for (enum part q = EMBED; q < p; q++) {
        part_shape(h, q, shape);
        weights += shape[0] * (shape[1] ? shape[1] : 1) * (in_layers(q) ? h->n_layer : 1);
    }
    part_shape(h, p, shape);
    return weights + (in_layers(p) ? layer : 0) * shape[0] * (shape[1] ? shape[1] : 1);
}

// llama2.c rotates neighbours (2i, 2i + 1) of a head; Hugging Face's order keeps the pairs half a head apart.
static void put_part(struct st_writer *w, const struct header *h, const float *data, enum part p)
{
    struct err err = {0};
    int64_t shape[2];
    part_shape(h, p, shape);
    const int64_t cols = shape[1] ? shape[1] : 1, d_head = h->d_model / h->n_head;
    for (int64_t r = 0; r < shape[0]; r++) {
        const int64_t head = r / d_head, i = r % d_head, half = d_head / 2;
        const int64_t from = p == WQ || p == WK ? head * d_head + 2 * (i % half) + i / half : r;
        ck_ok(st_put(w, data + from * cols, (size_t)cols * sizeof *data, &err));
    }
}

static void write_folder(const char *dir, const struct header *h, const float *weights)
{
    struct err err = {0};
    struct st_writer *w;
    char *path = path_join(dir, "model.safetensors"), *config = path_join(dir, "config.json");
    char *text =
        mem_printf("{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": %d, "
                   "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
                   "\"vocab_size\": %d, \"max_position_embeddings\": %d, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, "
                   "\"hidden_act\": \"silu\", \"tie_word_embeddings\": true, \"bos_token_id\": 1, \"eos_token_id\": 2}\n",
                   h->d_model, h->d_ff, h->n_layer, h->n_head, h->n_kv_head, h->n_vocab, h->max_position);
    ck_ok(file_write_atomic(config, text, strlen(text), &err));
    ck_ok(st_create(&w, path, &err));
    for (int pass = 0; pass < 2; pass++) { // declared, then written
        if (pass) ck_ok(st_begin(w, &err));
        for (enum part p = EMBED; p < N_PART; p++)
            for (int l = 0; l < (in_layers(p) ? h->n_layer : 1); l++) {
                int64_t shape[2];
                char *name = part_name(p, l);
                part_shape(h, p, shape);
                if (pass)
                    put_part(w, h, part_data(h, weights, p, l), p);
                else
                    st_declare(w, name, "F32", shape[1] ? 2 : 1, shape);
                mem_free(name);
            }
    }
    ck_ok(st_finish(w, &err));
    mem_free(path);
    mem_free(config);
    mem_free(text);
}

// The text of ids by llama2.c's vocabulary file: int32 longest, then for each token f32 score, int32 length, bytes. Bytes are "<0x0A>"; the
// space that begins a text is dropped.
static void decode(struct buf *out, const char *vocab_path, const int32_t *ids, int n)
{
    struct err err = {0};
    struct buf b = {0};
    ck_ok(file_read(&b, vocab_path, 1 << 20, &err));
    for (int i = 0; i < n; i++) {
        size_t at = 4;
        int32_t len = 0;
        for (int32_t id = 0; id <= ids[i]; id++) {
            at += id ? (size_t)len : 0;
            ck_assert(at + 8 <= b.size);
            memcpy(&len, b.data + at + 4, 4);
            at += 8;
        }
        ck_assert(len >= 0 && at + (size_t)len <= b.size);
        unsigned byte;
        char piece[64];
        snprintf(piece, sizeof piece, "%.*s", (int)len, b.data + at);
        if (len == 6 && sscanf(piece, "<0x%02X>", &byte) == 1)
            buf_putc(out, (char)byte);
        else
            buf_puts(out, i == 0 && piece[0] == ' ' ? piece + 1 : piece);
    }
    buf_free(&b);
}

static void continue_greedily(struct buf *text, const char *dir, const char *vocab, enum dtype dtype, const char *device)
{
    struct err err = {0};
    struct device dev;
    struct model *m;
    struct engine *e;
    struct generation g;
    static const int32_t bos = 1, eos[] = {1, 2};
    struct model_options mo = {.archs = archs, .use = MODEL_GENERATE, .dtype = dtype};
    ck_ok(dev_open(&dev, device, 2, &err));
    ck_ok(model_load(&m, &dev, dir, &mo, &err));
    struct engine_options eo = {.eos = eos, .n_eos = 2, .max_prompt = 1, .max_len = 200};
    ck_ok(engine_open(&e, m, &eo, &err));
    struct engine_request r = {
        .id = "story", .ids = &bos, .n_ids = 1, .samples = (int[]){0}, .n_sample = 1, .max_tokens = 120, .sampling = {.top_p = 1}};
    ck_ok(engine_add(e, &r, &err));
    while (engine_busy(e)) ck_ok(engine_step(e, &err));
    ck_assert(engine_next(e, &g));
    decode(text, vocab, g.token_ids, g.n_tok);
    generation_free(&g);
    engine_close(e);
    model_free(m);
    dev_close(&dev);
}

START_TEST(stories260k_tells_its_story)
{
    static const char story[] = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";
    const char *bin = test_material("models/stories260K/stories260K.bin"), *vocab = test_material("models/stories260K/tok512.bin");
    if (!bin || !vocab) return;
    struct err err = {0};
    struct buf b = {0};
    ck_ok(file_read(&b, bin, 16 << 20, &err));
    struct header h;
    memcpy(&h, b.data, sizeof h);
    ck_assert_int_eq(h.n_vocab, 512); // positive: the head is the embedding
    const char *dir = test_tmpdir();
    write_folder(dir, &h, (const float *)(const void *)(b.data + sizeof h));
    buf_free(&b);
    static const struct {
        enum dtype dtype;
        const char *device;
    } runs[] = {{DT_F32, "cpu"}, {DT_F32, "cpu:generic"}, {DT_BF16, "cpu"}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        struct buf text = {0};
        continue_greedily(&text, dir, vocab, runs[i].dtype, runs[i].device);
        ck_assert_msg(!strncmp(text.data, story, strlen(story)), "%s %s: %s", dtype_name(runs[i].dtype), runs[i].device, text.data);
        buf_free(&text);
    }
}
END_TEST

// llama2.c's vocabulary with its scores as the keys of a GGUF file, as llama.cpp's converter names them.
static const char *write_vocabulary(const char *vocab_path)
{
    static char path[256];
    struct err err = {0};
    struct buf b = {0}, pool = {0};
    struct gguf_writer *w;
    static const struct gguf_text roles[] = {{"<unk>", 5}, {"<s>", 3}, {"</s>", 4}};
    struct gguf_text text[512];
    size_t begin[513], at = 4;
    int32_t type[512];
    float score[512];
    ck_ok(file_read(&b, vocab_path, 1 << 20, &err));
    for (int id = 0; id < 512; id++) {
        int32_t len;
        memcpy(&score[id], b.data + at, 4);
        memcpy(&len, b.data + at + 4, 4);
        begin[id] = pool.size;
        for (int32_t i = 0; i < len; i++)
            buf_puts(&pool, b.data[at + 8 + (size_t)i] == ' ' ? "▁" : (char[]){b.data[at + 8 + (size_t)i], '\0'});
        type[id] = id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1;
        at += 8 + (size_t)len;
    }
    begin[512] = pool.size;
    for (int id = 0; id < 512; id++) text[id] = id < 3 ? roles[id] : (struct gguf_text){pool.data + begin[id], begin[id + 1] - begin[id]};
    snprintf(path, sizeof path, "%s/vocabulary.gguf", test_tmpdir());
    ck_ok(gguf_create(&w, path, &err));
    gguf_put_string(w, "tokenizer.ggml.model", "llama");
    gguf_put_strings(w, "tokenizer.ggml.tokens", text, 512);
    gguf_put_f32s(w, "tokenizer.ggml.scores", score, 512);
    gguf_put_i32s(w, "tokenizer.ggml.token_type", type, 512);
    ck_ok(gguf_begin(w, &err));
    ck_ok(gguf_finish(w, &err));
    buf_free(&b);
    buf_free(&pool);
    return path;
}

// The ids that llama.cpp's greedy continuation has for these words are those of the text, and the text theirs.
START_TEST(its_vocabulary_as_a_gguf_file_has_the_storys_ids)
{
    static const char words[] = "Once upon a time, there was a little girl named Lily.";
    static const int32_t wanted[] = {403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426};
    const char *vocab = test_material("models/stories260K/tok512.bin");
    if (!vocab) return;
    struct err err = {0};
    struct tokenizer *t;
    struct ids ids = {0};
    struct buf back = {0};
    ck_ok(tokenizer_load(&t, write_vocabulary(vocab), &err));
    ck_ok(tokenizer_encode(t, words, strlen(words), &ids, &err));
    ck_assert_uint_eq(ids.n, sizeof wanted / sizeof *wanted);
    ck_assert_mem_eq(ids.v, wanted, sizeof wanted);
    ck_ok(tokenizer_decode(t, ids.v, ids.n, false, &back, &err));
    ck_assert_str_eq(back.data, words);
    ids_free(&ids);
    buf_free(&back);
    tokenizer_free(t);
}
END_TEST

Suite *suite_stories(void)
{
    Suite *s = suite_create("stories");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, stories260k_tells_its_story);
    tcase_add_test(t, its_vocabulary_as_a_gguf_file_has_the_storys_ids);
    suite_add_tcase(s, t);
    return s;
}
