// One case a family, with its real template and tokenizer: the prompt that a generation begins from, the row that training sees with bars
// around what carries loss, and the token that ends a generation. Written by hand.
#include "tests/datasets/chat_helpers.h"

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define R(reasoning, text) "{\"role\":\"assistant\",\"reasoning_content\":\"" reasoning "\",\"content\":\"" text "\"}"
#define ONE "{\"messages\":[" U("q") "," R("r", "a") "]}"
#define TWO "{\"messages\":[" U("q") "," R("r", "a") "," U("p") "," R("s", "b") "]}"
#define OFF "{\"messages\":[" U("q") "," A("a") "],\"chat_template_kwargs\":{\"enable_thinking\":false}}"
#define EOS "<｜end▁of▁sentence｜>"
#define IM(role) "<|im_start|>" role "\n"
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

// The R1-Distill tokenizers are those of Qwen2.5 and Llama-3 with added tokens of other names.
static const struct token_name distill_qwen[] = {{151646, "<｜begin▁of▁sentence｜>"},
                                                 {151643, EOS},
                                                 {151644, "<｜User｜>"},
                                                 {151645, "<｜Assistant｜>"},
                                                 {151648, "<think>"},
                                                 {151649, "</think>"},
                                                 {0}};
static const struct token_name distill_llama[] = {{128000, "<｜begin▁of▁sentence｜>"},
                                                  {128001, EOS},
                                                  {128011, "<｜User｜>"},
                                                  {128012, "<｜Assistant｜>"},
                                                  {128013, "<think>"},
                                                  {128014, "</think>"},
                                                  {0}};
static const char r1[] = "llama.cpp-2026-07/llama-cpp-deepseek-r1.jinja", v3[] = "from-tokenizer_config/deepseek_v3.jinja",
                  v31[] = "llama.cpp-2026-07/deepseek-ai-DeepSeek-V3.1.jinja", qwen2_5[] = "from-tokenizer_config/qwen2_5.jinja",
                  qwen3[] = "from-tokenizer_config/qwen3.jinja", llama31[] = "llama.cpp-2026-07/meta-llama-Llama-3.1-8B-Instruct.jinja",
                  on_qwen[] = "llama.cpp-2026-07/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja",
                  on_llama[] = "llama.cpp-2026-07/deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja";

static const struct family {
    const char *name, *tokenizer, *template;
    const struct token_name *rename;
    const char *row;
    const char *prompt; // ends with this, when asked for all but the row's last message
    bool opened;        // the model goes on inside <think>
    const char *masked; // ends with this
    const char *stop;
} families[] = {
    {"DeepSeek-V3", "deepseek_v3", v3, NULL, ONE, "<｜User｜>q<｜Assistant｜>", false, "<｜Assistant｜>|<think>\nr\n</think>\n\na" EOS "|",
     EOS},
    {"DeepSeek-R1", "deepseek_v3", r1, NULL, ONE, "<｜Assistant｜><think>\n", true, "<｜Assistant｜><think>\n|r\n</think>\n\na" EOS "|",
     EOS},
    {"DeepSeek-R1, two turns", "deepseek_v3", r1, NULL, TWO, "<｜Assistant｜><think>\n", true,
     "q" EOS "<｜Assistant｜>|a" EOS "|<｜User｜>p" EOS "<｜Assistant｜><think>\n|s\n</think>\n\nb" EOS "|", EOS},
    {"DeepSeek-V3.1", "deepseek_v3", v31, NULL, ONE, "<｜Assistant｜><think></think>", false, "<｜Assistant｜><think>|r</think>a" EOS "|",
     EOS},
    {"R1-Distill-Qwen", "qwen2_5", on_qwen, distill_qwen, ONE, "<｜User｜>q<｜Assistant｜><think>\n</think>", false,
     "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>\n|r\n</think>\n\na" EOS "|", EOS},
    {"R1-Distill-Llama", "llama3", on_llama, distill_llama, ONE, "<｜User｜>q<｜Assistant｜><think>\n", true,
     "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>\n|r\n</think>\n\na" EOS "|", EOS},
    {"Qwen2.5", "qwen2_5", qwen2_5, NULL, ONE, IM("user") "q<|im_end|>\n" IM("assistant"), false,
     IM("assistant") "|<think>\nr\n</think>\n\na<|im_end|>|\n", "<|im_end|>"},
    {"Qwen3", "qwen3", qwen3, NULL, TWO, IM("user") "p<|im_end|>\n" IM("assistant"), false,
     IM("user") "q<|im_end|>\n" IM("assistant") "|a<|im_end|>|\n" IM("user") "p<|im_end|>\n" IM(
         "assistant") "|<think>\ns\n</think>\n\nb<|im_end|>|\n",
     "<|im_end|>"},
    {"Qwen3, no thinking", "qwen3", qwen3, NULL, OFF, IM("assistant") "<think>\n\n</think>\n\n", false,
     IM("assistant") "<think>\n\n</think>\n\n|a<|im_end|>|\n", "<|im_end|>"},
    {"Llama-3.1", "llama3", llama31, NULL, ONE, HEADER("user") "q<|eot_id|>" HEADER("assistant"), false,
     HEADER("assistant") "|<think>\nr\n</think>\n\na<|eot_id|>|", "<|eot_id|>"},
    {"Llama-3", "llama3", "trl/llama3.jinja", NULL, ONE, HEADER("user") "q<|eot_id|>" HEADER("assistant"), false,
     HEADER("assistant") "|<think>\nr\n</think>\n\na<|eot_id|>|", "<|eot_id|>"},
    {"DeepSeek-V3, a called tool", "deepseek_v3", v3, NULL,
     "{\"messages\":[" U(
         "q") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
              "\"{}\"}}]},{\"role\":\"tool\",\"content\":\"1\"}," A("a") "]}",
     "<｜tool▁output▁end｜><｜tool▁outputs▁end｜>", false,
     "<｜Assistant｜>|<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜>|<"
     "｜tool▁outputs▁begin｜>"
     "<｜tool▁output▁begin｜>1<｜tool▁output▁end｜><｜tool▁outputs▁end｜>|a" EOS "|",
     EOS},
    {"Kimi-K2", "qwen2_5", "llama.cpp-2026-07/Kimi-K2-Instruct.jinja", NULL, "{\"messages\":[" U("q") "," A("a") "]}", "<|im_middle|>",
     false, "<|im_assistant|>assistant<|im_middle|>|a<|im_end|>|", "<|im_end|>"},
};
enum { N_FAMILY = sizeof families / sizeof *families };

static void ck_ends(const char *family, const struct buf *text, const char *wanted)
{
    const size_t n = strlen(wanted);
    ck_assert_msg(text->size >= n && !memcmp(text->data + text->size - n, wanted, n), "%s:\n%.*s\nwanted at its end\n%s", family,
                  (int)text->size, text->data, wanted);
}

START_TEST(prompt_mask_and_stop_token_of_each_family)
{
    const struct family *w = &families[_i];
    struct err err = {0};
    struct chat_fixture f = {0};
    struct buf prompt = {0}, masked = {0};
    if (!test_material("tokenizers") || !test_material("chat-templates")) return;
    chat_fixture_open(&f, w->tokenizer, w->rename);
    chat_fixture_template(&f, w->template);
    json_t *row = test_json(w->row), *request = chat_row_vars(row), *before = json_copy(json_object_get(row, "messages"));
    json_array_remove(before, json_array_size(before) - 1);
    json_object_set_new(request, "messages", before);
    json_object_set_new(request, "add_generation_prompt", json_true());
    ck_ok(chat_render(f.chat, request, &prompt, NULL, &err));
    ck_ends(w->name, &prompt, w->prompt);
    ck_assert_int_eq(chat_ends_in_think(prompt.data, prompt.size), w->opened);
    ck_assert_msg(masked_text(&f, row, &masked, &err) == ST_OK, "%s: %s", w->name, err.text);
    ck_ends(w->name, &masked, w->masked);
    ck_assert_int_ge(tokenizer_id(f.tok, w->stop), 0);
    ck_assert_int_eq(chat_end_token(f.chat), tokenizer_id(f.tok, w->stop));
    json_decref(row);
    json_decref(request);
    buf_free(&prompt);
    buf_free(&masked);
    chat_fixture_close(&f);
}
END_TEST

// The tokenizer of the first Llama-3 names <|end_of_text|> as its eos; a turn ends with <|eot_id|> all the same.
START_TEST(the_templates_end_token_is_not_always_the_tokenizers_eos)
{
    struct chat_fixture f = {0};
    if (!test_material("tokenizers") || !test_material("chat-templates")) return;
    chat_fixture_open(&f, "llama3", NULL);
    chat_fixture_template(&f, "from-tokenizer_config/llama3.jinja");
    ck_assert_int_eq(tokenizer_eos(f.tok), tokenizer_id(f.tok, "<|end_of_text|>"));
    ck_assert_int_eq(chat_end_token(f.chat), tokenizer_id(f.tok, "<|eot_id|>"));
    chat_fixture_close(&f);
}
END_TEST

Suite *suite_chat_families(void)
{
    Suite *s = suite_create("chat_families");
    TCase *c = tcase_create("chat_families");
    tcase_set_timeout(c, 60); // loads real tokenizers
    tcase_add_loop_test(c, prompt_mask_and_stop_token_of_each_family, 0, N_FAMILY);
    tcase_add_test(c, the_templates_end_token_is_not_always_the_tokenizers_eos);
    suite_add_tcase(s, c);
    return s;
}
