// Chats through templates: what is rendered, where the loss falls, and how a model's text is taken apart. The masks are written out by
// hand: the texts between bars are what carries loss.
#include "tests/datasets/chat_helpers.h"

static const char TINY[] = "teacher/tiny/moe";

// A folder with the tokenizer of `from` and another template (NULL: none at all).
static const char *with_template(const char *from, const char *template)
{
    struct err err = {0};
    const char *dir = test_tmpdir();
    char *a = path_join(from, "tokenizer.json"), *b = path_join(dir, "tokenizer.json"), *jinja = path_join(dir, "chat_template.jinja");
    ck_ok(file_copy(a, b, &err));
    if (template) ck_ok(file_write_atomic(jinja, template, strlen(template), &err));
    mem_free(a);
    mem_free(b);
    mem_free(jinja);
    return dir;
}

static void open_chat(struct chat_fixture *f, const char *dir)
{
    struct err err = {0};
    ck_ok(tokenizer_load(&f->tok, dir, &err));
    ck_ok(chat_open(&f->chat, f->tok, &err));
}

static enum status masked(const struct chat_fixture *f, const char *messages, struct buf *out, struct err *err)
{
    json_t *row = json_pack("{s:o}", "messages", test_json(messages));
    enum status st = masked_text(f, row, out, err);
    json_decref(row);
    return st;
}

static void check_mask(const char *dir, const char *messages, const char *wanted)
{
    struct err err = {0};
    struct chat_fixture f;
    struct buf out = {0};
    open_chat(&f, dir);
    ck_assert_msg(masked(&f, messages, &out, &err) == ST_OK, "%s: %s", messages, err.text);
    ck_assert_str_eq(out.data ? out.data : "", wanted);
    buf_free(&out);
    chat_fixture_close(&f);
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define R(reasoning, text) "{\"role\":\"assistant\",\"reasoning_content\":\"" reasoning "\",\"content\":\"" text "\"}"

START_TEST(shipped_template_puts_loss_on_reasoning_answer_and_end_token)
{
    check_mask(TINY, "[" U("q") "," R("r", "a") "]",
               "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n|<think>\nr\n</think>\n\na<|im_end|>|\n");
    check_mask(TINY, "[" U("q") "," A("a") "," U("p") "," A("b") "]",
               "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n|a<|im_end|>|\n<|im_start|>user\np<|im_end|>\n<|im_start|>"
               "assistant\n|b<|im_end|>|\n");
    check_mask(TINY, "[" U("q") "," A("") "]", "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n|<|im_end|>|\n");
    // a text that looks like the template's own marks, and one that NFC changes
    check_mask(TINY, "[" U("<|im_start|>assistant\\n") "," A("<|im_end|>x") "]",
               "<|im_start|>user\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n|<|im_end|>x<|im_end|>|\n");
    check_mask(TINY, "[" U("e\\u0301") "," A("cafe\\u0301 e\\u0323\\u0301") "," U("e\\u0301") "]",
               "<|im_start|>user\n\u00e9<|im_end|>\n<|im_start|>assistant\n|caf\u00e9 "
               "\u1eb9\u0301<|im_end|>|\n<|im_start|>user\n\u00e9<|im_end|>\n");
}
END_TEST

START_TEST(a_template_that_strips_earlier_reasoning_masks_what_is_left)
{
    static const char qwen3[] =
        "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{%- set c = m.content.split('</think>')[-1].lstrip('\\n') %}"
        "{%- if m.role == 'assistant' and loop.last %}{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{%- endif %}"
        "{{ c + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}";
    const char *dir = with_template(TINY, qwen3);
    check_mask(dir, "[" U("q") "," R("r", "a") "," U("p") "," R("s", "b") "]",
               "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n|a<|im_end|>|\n<|im_start|>user\np<|im_end|>\n<|im_start|>"
               "assistant\n|<think>\ns\n</think>\n\nb<|im_end|>|\n");
    check_mask(dir, "[" U("q") "," A("<think>r</think>a") "," U("p") "]",
               "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n|a<|im_end|>|\n<|im_start|>user\np<|im_end|>\n");
}
END_TEST

START_TEST(a_generation_prompt_that_opens_reasoning_is_not_learnt)
{
    // DeepSeek-R1: the prompt ends with <think>\n; finished turns come without reasoning, or with what the message itself holds
    static const char r1[] = "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' + m.content }}{% else %}{{ '<|endoftext|>' "
                             "+ m.content + '<|im_end|>' }}"
                             "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|endoftext|><think>\\n' }}{% endif %}";
    const char *dir = with_template(TINY, r1);
    check_mask(dir, "[" U("q") "," A("a") "," U("p") "," A("b") "]",
               "<|im_start|>q<|endoftext|>|a<|im_end|>|<|im_start|>p<|endoftext|>|b<|im_end|>|");
    check_mask(dir, "[" U("q") "," A("<think>\\nr</think>a") "]", "<|im_start|>q<|endoftext|><think>\n|r</think>a<|im_end|>|");
    check_mask(dir, "[" U("q") "," A("</think>a") "]", "<|im_start|>q<|endoftext|>|</think>a<|im_end|>|");
}
END_TEST

START_TEST(templates_without_generation_prompt_or_end_token_have_spans_too)
{
    static const char mistral[] = "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}{% else %}{{ "
                                  "m.content + '<|im_end|>' }}{% endif %}{% endfor %}";
    static const char bare[] = "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' + m.content }}{% endfor %}{% if "
                               "add_generation_prompt %}{{ '<|im_start|>assistant:' }}{% endif %}";
    check_mask(with_template(TINY, mistral), "[" U("q") "," A("a") "," U("p") "," A("b") "]",
               "[INST]q[/INST]|a<|im_end|>|[INST]p[/INST]|b<|im_end|>|");
    // <|im_start|> follows the turn but begins the next: no end token
    check_mask(with_template(TINY, bare), "[" U("q") "," A("a") "," U("p") "]",
               "<|im_start|>user:q<|im_start|>assistant:|a|<|im_start|>user:p");
}
END_TEST

START_TEST(generation_blocks_are_honoured)
{
    static const char template[] = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}\n{% else %}>{% generation %}{{ "
                                   "m.content }}<|im_end|>{% endgeneration %}\n{% endif %}{% endfor %}";
    check_mask(with_template(TINY, template), "[" U("q") "," A("a") "," U("p") "]", "q\n>|a<|im_end|>|p\n");
}
END_TEST

START_TEST(what_cannot_be_masked_is_refused_with_the_reason)
{
    static const struct {
        const char *template, *messages, *message;
    } bad[] = {
        {"{% for m in messages %}{{ m.content }}{% endfor %}", "[" U("q") "]", "no turn of the assistant"},
        {"{% for m in messages %}{{ m.role }}{% endfor %}", "[" U("q") "," A("a") "]", "does not write the turn's text"},
        {"{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "[" U("q") "," A("a") "]", "writes the turn's text twice"},
        {"{% for m in messages %}{{ m.content }};{{ m.content | length }}{% endfor %}", "[" U("q") "," A("a") "]",
         "what follows it depends on its text"},
        {"{{ messages[-1].content | length }}{% for m in messages %}{{ m.content }}{% endfor %}", "[" U("q") "," A("a") "]",
         "does not stand before the turn"},
        {"{% for m in messages %}<a>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<b>{% endif %}", "[" U("q") "," A("a") "]",
         "does not begin as the generation prompt says"},
        {"{{ raise_exception('never') }}", "[" U("q") "," A("a") "]", "never"},
        {"{{ 1 }}", "{}", "wanted an array"},
        {"{{ 1 }}", "[{\"content\":\"x\"}]", "messages[0]"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        struct chat_fixture f;
        struct buf out = {0};
        open_chat(&f, with_template(TINY, bad[i].template));
        const enum status st = masked(&f, bad[i].messages, &out, &err);
        ck_assert_msg(st == ST_BAD_INPUT && strstr(err.text, bad[i].message), "%s: status %d: %s", bad[i].template, st, err.text);
        buf_free(&out);
        chat_fixture_close(&f);
    }
}
END_TEST

START_TEST(reasoning_that_the_template_leaves_out_of_the_last_answer_is_learnt)
{
    static const char none[] = "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' + m.content + '<|im_end|>' }}{% endfor %}{% if "
                               "add_generation_prompt %}{{ '<|im_start|>assistant:' }}{% endif %}";
    static const char opens[] =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% "
        "endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant:<think>\n' }}{% endif %}";
    static const char asked[] =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' }}{% if m.role == 'assistant' %}{{ '</think>' }}{% "
        "endif %}{{ m.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant:' "
        "}}{{ '<think>' if thinking else '<think></think>' }}{% endif %}";
    const char *dir = with_template(TINY, none);
    check_mask(dir, "[" U("q") "," R(" r ", "a") "]",
               "<|im_start|>user:q<|im_end|><|im_start|>assistant:|<think>\nr\n</think>\n\na<|im_end|>|");
    // what is in the content is written by the template; empty reasoning is none; a field may have another name
    check_mask(dir, "[" U("q") "," A("<think>r</think>a") "]",
               "<|im_start|>user:q<|im_end|><|im_start|>assistant:|<think>r</think>a<|im_end|>|");
    check_mask(dir, "[" U("q") "," R(" ", "a") "]", "<|im_start|>user:q<|im_end|><|im_start|>assistant:|a<|im_end|>|");
    check_mask(dir, "[" U("q") ",{\"role\":\"assistant\",\"content\":\"a\",\"thinking\":\"r\"}]",
               "<|im_start|>user:q<|im_end|><|im_start|>assistant:|<think>\nr\n</think>\n\na<|im_end|>|");
    // earlier turns stay without, as the model sees them; of the turns after the user's last each has its own
    check_mask(
        dir, "[" U("q") "," R("r", "a") "," U("p") "," R("s", "b") "," R("t", "c") "]",
        "<|im_start|>user:q<|im_end|><|im_start|>assistant:|a<|im_end|>|<|im_start|>user:p<|im_end|><|im_start|>assistant:|<think>\ns\n"
        "</think>\n\nb<|im_end|>|<|im_start|>assistant:|<think>\nt\n</think>\n\nc<|im_end|>|");
    dir = with_template(TINY, opens);
    check_mask(dir, "[" U("q") "," R("r", "a") "]",
               "<|im_start|>user:q<|im_end|><|im_start|>assistant:<think>\n|r\n</think>\n\na<|im_end|>|");
    check_mask(dir, "[" U("q") "," A("<think>\\nr\\n</think>\\n\\na") "]",
               "<|im_start|>user:q<|im_end|><|im_start|>assistant:<think>\n|r\n</think>\n\na<|im_end|>|");
    check_mask(dir, "[" U("q") "," A("a") "]", "<|im_start|>user:q<|im_end|><|im_start|>assistant:|a<|im_end|>|");
    // a prompt that opens <think> only when asked to, without a line of its own; else the template closes it at once
    dir = with_template(TINY, asked);
    check_mask(dir, "[" U("q") "," R("r", "a") "]", "<|im_start|>user:q<|im_end|><|im_start|>assistant:<think>|r</think>a<|im_end|>|");
    check_mask(dir, "[" U("q") "," A("a") "]", "<|im_start|>user:q<|im_end|><|im_start|>assistant:</think>|a<|im_end|>|");
}
END_TEST

#define PARTS(role, a, b)                                                                                                                  \
    "{\"role\":\"" role "\",\"content\":[{\"type\":\"text\",\"text\":\"" a "\"},{\"type\":\"text\",\"text\":\"" b "\"}]}"
#define PARTS_LOOP                                                                                                                         \
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.content is string %}{{ m.content }}{% else %}{% for p in "        \
    "m.content "                                                                                                                           \
    "%}{{ p.text }}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' "   \
    "}}{% endif %}"

START_TEST(content_in_parts_reaches_the_template_in_the_form_it_takes)
{
    // a template that wants strings: a line each
    check_mask(TINY, "[" PARTS("user", "p", "q") "," PARTS("assistant", "a", "b") "]",
               "<|im_start|>user\np\nq<|im_end|>\n<|im_start|>assistant\n|a\nb<|im_end|>|\n");
    check_mask(TINY, "[" U("q") ",{\"role\":\"assistant\",\"content\":[]}]",
               "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n|<|im_end|>|\n");
    // one that loops over content gets it as it is, and strings, too
    check_mask(with_template(TINY, PARTS_LOOP), "[" U("q") "," PARTS("assistant", "a", "b") "," PARTS("user", "p", "q") "," A("c") "]",
               "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n|ab<|im_end|>|\n<|im_start|>user\npq<|im_end|>\n<|im_start|>"
               "assistant\n|c<|im_end|>|\n");
    // one that knows parts only
    check_mask(with_template(TINY, "{% for m in messages %}{{ m.role }}:{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{{ "
                                   "'<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"),
               "[" PARTS("user", "p", "q") "," PARTS("assistant", "a", "b") "," PARTS("user", "r", "s") "]",
               "user:pq<|im_end|>assistant:|ab<|im_end|>|user:rs<|im_end|>");
    // with {% generation %}
    check_mask(with_template(TINY, "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }};{% else %}{% generation %}{{ m.content "
                                   "}}<|im_end|>{% endgeneration %}{% endif %}{% endfor %}"),
               "[" PARTS("user", "p", "q") "," PARTS("assistant", "a", "b") "]", "p\nq;|a\nb<|im_end|>|");
    // reasoning in a part, left out by the template and put back
    check_mask(with_template(TINY, "{% for m in messages %}{{ m.role + ':' + m.content.split('</think>')[-1] | trim + '<|im_end|>' }}{% "
                                   "endfor %}{% if add_generation_prompt %}assistant:{% endif %}"),
               "[" U("q") "," PARTS("assistant", "<think>r</think>", "a") "]",
               "user:q<|im_end|>assistant:|<think>\nr\n</think>\n\na<|im_end|>|");
}
END_TEST

START_TEST(parts_that_are_no_text_are_refused_by_name)
{
    static const struct {
        const char *messages, *message;
    } bad[] = {
        {"[" U("q") ",{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"image_url\",\"image_url\":{}}]}," A(
             "a") "]",
         "messages[1].content[1]: a part of type \"image_url\"; only text is read"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}," A("a") "]", "messages[0].content[0]: wanted {\"type\":\"text\""},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},\"y\"]}," A("a") "]", "messages[0].content[1]: wanted"},
    };
    for (size_t i = 0; i < 2 * (sizeof bad / sizeof *bad); i++) {
        struct err err = {0};
        struct chat_fixture f;
        struct buf out = {0};
        open_chat(&f, i % 2 ? TINY : with_template(TINY, PARTS_LOOP));
        ck_fails(masked(&f, bad[i / 2].messages, &out, &err), ST_BAD_INPUT, bad[i / 2].message);
        chat_fixture_close(&f);
    }
}
END_TEST

START_TEST(what_a_tool_returned_may_be_any_list)
{
    check_mask(with_template(TINY, "{% for m in messages %}{{ m.content if m.content is string else m.content | tojson }}{{ '<|im_end|>' "
                                   "}}{% endfor %}"),
               "[" U("q") ",{\"role\":\"tool\",\"content\":[{\"type\":\"rain\",\"mm\":3},4]}," PARTS("tool", "x", "y") "," A("a") "]",
               "q<|im_end|>[{\"type\": \"rain\", \"mm\": 3}, 4]<|im_end|>x\ny<|im_end|>|a<|im_end|>|");
}
END_TEST

START_TEST(rows_bring_tools_and_variables_of_the_template)
{
    static const char template[] =
        "{% if tools %}{{ tools[0].name }};{% endif %}{{ flag }};{{ answer }};{% for m in messages %}{{ '<|im_start|>' + "
        "m.content + '<|im_end|>' }}{% endfor %}";
    struct err err = {0};
    struct chat_fixture f;
    struct buf out = {0};
    json_t *row = test_json("{\"messages\":[" U("q") "," A("a") "],\"tools\":[{\"name\":\"add\"}],\"answer\":\"no variable\","
                                                                "\"chat_template_kwargs\":{\"flag\":5}}");
    open_chat(&f, with_template(TINY, template));
    ck_ok(masked_text(&f, row, &out, &err));
    ck_assert_str_eq(out.data, "add;5;;<|im_start|>q<|im_end|>|<|im_start|>a<|im_end|>|");
    json_decref(row);
    buf_free(&out);
    chat_fixture_close(&f);
}
END_TEST

START_TEST(the_token_that_ends_a_turn_is_found)
{
    static const struct {
        const char *template, *token;
    } cases[] = {
        {"{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>\n{% endfor %}", "<|im_end|>"},
        {"{% for m in messages %}{{ m.content }} <|endoftext|>{% endfor %}", "<|endoftext|>"},
        {"{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}", NULL},
        {"{% for m in messages %}{{ m.content }}.<|im_end|>{% endfor %}", NULL},
        {"{% for m in messages %}{{ m.role }}{% endfor %}", NULL},
        {"{{ raise_exception('never') }}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_fixture f;
        open_chat(&f, with_template(TINY, cases[i].template));
        ck_assert_msg(chat_end_token(f.chat) == (cases[i].token ? tokenizer_id(f.tok, cases[i].token) : -1), "%s: %d", cases[i].template,
                      chat_end_token(f.chat));
        chat_fixture_close(&f);
    }
}
END_TEST

START_TEST(a_chat_is_rendered_with_the_variables_of_transformers)
{
    static const char template[] = "{{ bos_token }}|{{ eos_token }}|{{ tools is none }}|{{ add_generation_prompt }}|{{ extra }}|{{ "
                                   "messages[1].reasoning_content }}|{{ messages[1].thinking }}";
    struct err err = {0};
    struct tokenizer *t;
    struct chat *c;
    struct buf text = {0};
    struct ids ids = {0};
    const char *dir = with_template(TINY, template);
    char *config = path_join(dir, "tokenizer_config.json");
    static const char settings[] =
        "{\"bos_token\":{\"content\":\"<|endoftext|>\"},\"eos_token\":\"<|im_end|>\",\"model_max_length\":1000000000000000019884624838656}";
    ck_ok(file_write_atomic(config, settings, sizeof settings - 1, &err));
    json_t *request = test_json("{\"messages\":[" U("q") ",{\"role\":\"assistant\",\"content\":\"a\",\"reasoning\":\"why\"}],\"extra\":5}");
    ck_ok(tokenizer_load(&t, dir, &err));
    ck_assert_int_eq(tokenizer_bos(t), tokenizer_id(t, "<|endoftext|>"));
    ck_ok(chat_open(&c, t, &err));
    ck_ok(chat_render(c, request, &text, &ids, &err));
    ck_assert_str_eq(text.data, "<|endoftext|>|<|im_end|>|True|False|5|why|why");
    ck_assert_uint_gt(ids.n, 0);
    json_decref(request);
    mem_free(config);
    ids_free(&ids);
    buf_free(&text);
    chat_free(c);
    tokenizer_free(t);
}
END_TEST

START_TEST(a_tokenizer_without_template_is_refused)
{
    struct err err = {0};
    struct tokenizer *t;
    struct chat *c;
    ck_ok(tokenizer_load(&t, with_template(TINY, NULL), &err));
    ck_fails(chat_open(&c, t, &err), ST_BAD_INPUT, "no chat template");
    tokenizer_free(t);
    ck_ok(tokenizer_load(&t, with_template(TINY, "{% if %}"), &err));
    ck_fails(chat_open(&c, t, &err), ST_BAD_INPUT, "chat template, line 1");
    tokenizer_free(t);
}
END_TEST

START_TEST(reasoning_and_answer_are_taken_apart)
{
    static const struct {
        const char *text;
        bool opened;
        const char *reasoning, *content;
    } cases[] = {
        {"<think>\nr\n</think>\n\na", false, "r", "a"},
        {"\n<think>r</think>a", false, "r", "a"},
        {"r\n</think>\n\na\n", true, "r", "a"},
        {"r</think>a", false, "r", "a"}, // a prompt may have opened it unseen
        {"<think>\ncut off", false, "cut off", ""},
        {"cut off", true, "cut off", ""},
        {"plain answer ", false, "", "plain answer "},
        {"<think></think>", false, "", ""},
        {"", false, "", ""},
        {"", true, "", ""},
        {"a <think>b", false, "", "a <think>b"},
        {"<think>a</think>b</think>c", false, "a", "b</think>c"},
        {"a\xE4\xBD", false, "", "a\xEF\xBF\xBD"},
        {"\xFF\x80x", false, "", "\xEF\xBF\xBD\xEF\xBF\xBDx"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *m = chat_split_reasoning(cases[i].text, strlen(cases[i].text), cases[i].opened);
        ck_assert_str_eq(json_string_value(json_object_get(m, "role")), "assistant");
        ck_assert_str_eq(json_string_value(json_object_get(m, "reasoning_content")), cases[i].reasoning);
        ck_assert_str_eq(json_string_value(json_object_get(m, "content")), cases[i].content);
        json_decref(m);
    }
}
END_TEST

Suite *suite_chat(void)
{
    Suite *s = suite_create("chat");
    TCase *c = tcase_create("chat");
    tcase_add_test(c, shipped_template_puts_loss_on_reasoning_answer_and_end_token);
    tcase_add_test(c, a_template_that_strips_earlier_reasoning_masks_what_is_left);
    tcase_add_test(c, a_generation_prompt_that_opens_reasoning_is_not_learnt);
    tcase_add_test(c, templates_without_generation_prompt_or_end_token_have_spans_too);
    tcase_add_test(c, generation_blocks_are_honoured);
    tcase_add_test(c, what_cannot_be_masked_is_refused_with_the_reason);
    tcase_add_test(c, reasoning_that_the_template_leaves_out_of_the_last_answer_is_learnt);
    tcase_add_test(c, content_in_parts_reaches_the_template_in_the_form_it_takes);
    tcase_add_test(c, parts_that_are_no_text_are_refused_by_name);
    tcase_add_test(c, what_a_tool_returned_may_be_any_list);
    tcase_add_test(c, rows_bring_tools_and_variables_of_the_template);
    tcase_add_test(c, the_token_that_ends_a_turn_is_found);
    tcase_add_test(c, a_chat_is_rendered_with_the_variables_of_transformers);
    tcase_add_test(c, a_tokenizer_without_template_is_refused);
    tcase_add_test(c, reasoning_and_answer_are_taken_apart);
    suite_add_tcase(s, c);
    return s;
}
