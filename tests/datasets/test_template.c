// The template interpreter against jinja2 as transformers sets it up (tests/golden/text/templates.py): one construct a case, and every real
// template over 84 conversations where the material is at hand. What must be refused; that nothing runs away.
#include "datasets/template/internal.h"
#include "tests/datasets/chat_helpers.h"
#include "tests/test.h"

#include <time.h>

static json_t *load(const char *path)
{
    struct err err = {0};
    json_t *root;
    ck_ok(json_read(&root, path, &err));
    return root;
}

static enum status render(const char *template, const json_t *vars, struct buf *out, struct err *err)
{
    struct template *t;
    TRY(template_parse(&t, template, strlen(template), err));
    const enum status st = template_render(t, vars, out, err);
    template_free(t);
    return st;
}

START_TEST(each_construct_writes_what_jinja_writes)
{
    json_t *root = load(test_golden("text/templates.json")), *cases = json_object_get(root, "cases"), *c;
    size_t i;
    json_array_foreach(cases, i, c)
    {
        struct err err = {0};
        struct buf out = {0};
        const char *template = json_string_value(json_object_get(c, "template"));
        const json_t *wanted = json_object_get(c, "text");
        const enum status st = render(template, json_object_get(root, "data"), &out, &err);
        if (json_is_null(wanted)) {
            ck_assert_msg(st == ST_BAD_INPUT && strncmp(err.text, "chat template, line ", 20) == 0, "%s: status %d: %s", template, st,
                          err.text);
        } else {
            ck_assert_msg(st == ST_OK, "%s: %s", template, err.text);
            ck_assert_msg(out.size == json_string_length(wanted) &&
                              (!out.size || memcmp(out.data, json_string_value(wanted), out.size) == 0),
                          "%s:\n%.*s\nwanted\n%s", template, (int)out.size, out.data ? out.data : "", json_string_value(wanted));
        }
        buf_free(&out);
    }
    json_decref(root);
}
END_TEST

// Today's date in each format that the template asks for becomes "never", as in the golden.
static void hide_dates(struct buf *text, const json_t *formats)
{
    const json_t *format;
    size_t i;
    const time_t now = time(NULL);
    json_array_foreach(formats, i, format)
    {
        char date[64];
        struct tm tm;
        struct buf out = {0};
        ck_assert_uint_gt(strftime(date, sizeof date, json_string_value(format), localtime_r(&now, &tm)), 0);
        const char *at = text->size ? text->data : "", *hit;
        for (; (hit = strstr(at, date)); at = hit + strlen(date)) {
            buf_put(&out, at, (size_t)(hit - at));
            buf_puts(&out, "never");
        }
        buf_puts(&out, at);
        buf_free(text);
        *text = out;
    }
}

// crc: of jinja2's text, or -2 where it refuses.
static void check_real(const char *name, size_t at, const char *template, const json_t *vars, const json_t *formats, json_int_t wanted)
{
    struct err err = {0};
    struct buf out = {0};
    const enum status st = render(template, vars, &out, &err);
    if (wanted == -2)
        ck_assert_msg(st == ST_BAD_INPUT, "%s, conversation %zu: not refused", name, at);
    else {
        ck_assert_msg(st == ST_OK, "%s, conversation %zu: %s", name, at, err.text);
        hide_dates(&out, formats);
        ck_assert_msg(crc32_of(&out) == (uint32_t)wanted, "%s, conversation %zu: wrote\n%.*s", name, at, (int)out.size,
                      out.data ? out.data : "");
    }
    buf_free(&out);
}

// Every conversation with every variant of its variables.
static size_t check_conversations(const char *name, const char *template, const json_t *root)
{
    const json_t *crcs = json_object_get(json_object_get(root, "crc32"), name),
                 *formats = json_object_get(json_object_get(root, "dates"), name);
    json_t *c, *v;
    size_t i, k, at = 0;
    json_array_foreach(json_object_get(root, "conversations"), i, c) json_array_foreach(json_object_get(root, "variants"), k, v)
    {
        json_t *vars = json_copy(c);
        json_object_update(vars, v);
        check_real(name, at, template, vars, formats, json_integer_value(json_array_get(crcs, at)));
        at++;
        json_decref(vars);
    }
    ck_assert_uint_eq(at, json_array_size(crcs));
    return at;
}

START_TEST(real_templates_write_what_jinja_writes)
{
    struct err err = {0};
    const char *dir = test_material("chat-templates"), *name;
    if (!dir) return;
    json_t *root = load(test_golden("text/templates_real.json")), *e2e = load(test_material("chat-templates/e2e.json")), *crcs;
    size_t n = 0, n_rendered = 0;
    json_object_foreach(json_object_get(root, "crc32"), name, crcs)
    {
        const json_t *inside = json_object_get(json_object_get(e2e, name), "chat_template");
        struct buf text = {0};
        char *path = path_join(dir, name);
        if (!inside) ck_ok(file_read(&text, path, 1 << 20, &err));
        n_rendered += check_conversations(name, inside ? json_string_value(inside) : text.data, root);
        n++;
        buf_free(&text);
        mem_free(path);
    }
    ck_assert_uint_eq(n, 84); // 30 files and 54 cases
    ck_assert_uint_eq(n_rendered, 84 * 14 * 6);
    json_decref(root);
    json_decref(e2e);
}
END_TEST

START_TEST(real_cases_write_what_jinja_writes)
{
    const char *path = test_material("chat-templates/e2e.json"), *name;
    if (!path) return;
    json_t *cases = load(path), *golden = load(test_golden("text/templates_real.json")), *c, *none = json_object();
    size_t n = 0;
    json_object_foreach(cases, name, c)
    {
        const json_t *crc = json_object_get(json_object_get(golden, "e2e_crc32"), name), *data = json_object_get(c, "data");
        ck_assert_msg(json_is_integer(crc), "%s: no golden", name);
        check_real(name, n++, json_string_value(json_object_get(c, "chat_template")), data ? data : none,
                   json_object_get(json_object_get(golden, "dates"), name), json_integer_value(crc));
    }
    ck_assert_uint_eq(n, 54);
    json_decref(none);
    json_decref(cases);
    json_decref(golden);
}
END_TEST

START_TEST(real_cases_give_their_targets)
{
    // Where Jinja itself does not give the target: a list printed as JSON (Hugging Face's JavaScript does), today's date, and a case that
    // is not about rendering. The test above compares these with Jinja's text.
    static const char *const others[] = {"MadeAgents/Hammer2.1", "HuggingFaceTB/SmolLM3-3B", "HuggingFaceTB/SmolVLM-Instruct"};
    const char *path = test_material("chat-templates/e2e.json"), *name;
    if (!path) return;
    json_t *cases = load(path), *c;
    int n = 0;
    json_object_foreach(cases, name, c)
    {
        struct err err = {0};
        struct buf out = {0};
        const char *target = json_string_value(json_object_get(c, "target"));
        bool skip = false;
        for (int i = 0; i < 3; i++) skip |= strcmp(name, others[i]) == 0;
        if (skip) continue;
        ck_ok(render(json_string_value(json_object_get(c, "chat_template")), json_object_get(c, "data"), &out, &err));
        ck_assert_msg(strcmp(out.data, target) == 0, "%s:\n%s\nwanted\n%s", name, out.data, target);
        buf_free(&out);
        n++;
    }
    ck_assert_int_eq(n, 51);
    json_decref(cases);
}
END_TEST

START_TEST(templates_that_loop_over_content_are_told_apart)
{
    static const struct {
        const char *template;
        bool parts;
    } cases[] = {
        {"{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}", true},
        {"{% for m in messages %}{% for p in m['content'] | list %}x{% endfor %}{% endfor %}", true},
        {"{% for m in messages if m.role %}{% for p in m.content[1:] if p %}x{% endfor %}{% endfor %}", true},
        {"{% set a = messages[1:] %}{% set b = a | reverse %}{% for m in b %}{% if m.content is string %}{{ m.content }}{% else %}"
         "{% for p in m.content %}x{% endfor %}{% endif %}{% endfor %}",
         true},
        {"{% for m in b %}{% for p in m.content %}x{% endfor %}{% endfor %}{% set b = a %}{% set a = messages %}", true},
        {"{% macro f() %}{% for m in messages %}{% for p in m.content %}x{% endfor %}{% endfor %}{% endmacro %}", true},
        {"{% for m in messages %}{% generation %}{% for p in m.content %}x{% endfor %}{% endgeneration %}{% endfor %}", true},
        {"{% for m in messages %}{{ m.content | trim }}{% endfor %}", false},
        {"{% for m in messages %}{% for c in m.tool_calls %}x{% endfor %}{{ m.content }}{% endfor %}", false},
        {"{% for m in messages %}{{ m.content }}{% endfor %}{% for p in content %}x{% endfor %}{% for p in n.content %}x{% endfor %}",
         false},
        // as in vLLM: what is put into a name, a namespace or a macro's parameter is not followed
        {"{% for m in messages %}{% set c = m.content %}{% for p in c %}x{% endfor %}{% endfor %}", false},
        {"{% macro f(c) %}{% for p in c %}x{% endfor %}{% endmacro %}{% for m in messages %}{{ f(m.content) }}{% endfor %}", false},
        {"{% set ns = namespace(m=messages) %}{% for m in ns.m %}{% for p in m.content %}x{% endfor %}{% endfor %}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        struct template *t;
        ck_ok(template_parse(&t, cases[i].template, strlen(cases[i].template), &err));
        ck_assert_msg(template_wants_parts(t) == cases[i].parts, "%s", cases[i].template);
        template_free(t);
    }
}
END_TEST

START_TEST(errors_name_the_construct_and_its_line)
{
    static const struct {
        const char *template, *message;
    } bad[] = {
        {"a\n\n{% frobnicate x %}", "line 3: statement 'frobnicate' is not known"},
        {"{{ 1 }}\n{{ 2 | nofilter }}", "line 2: filter 'nofilter' is not known"},
        {"\n{{ 2 is notest }}", "line 2: test 'notest' is not known"},
        {"{% if x %}\n\n", "line 1: a block is not closed"},
        {"{{ 'abc }}", "line 1: a string is not closed"},
        {"x\n{{ a $ b }}", "line 2: unexpected character '$'"},
        {"{# c", "a comment is not closed"},
        {"{% raw %}x", "{% raw %} is not closed"},
        {"\n\n{{ raise_exception('only user and assistant') }}", "line 3: the template refuses the conversation: only user and assistant"},
        {"{{ x.y }}", "'x' is undefined"},
        {"{{ 'a' + 1 }}", "'+' is not possible between str and int"},
        {"{{ [].append(1) }}", "list.append() would change a value in place"},
        {"{% include 'x' %}", "statement 'include' is not known"},
        {"{% for x in y recursive %}{% endfor %}", "recursive loops"},
        {"{% break %}", "'break' outside a loop"},
        {"\n{{ 'a'.casefold() }}", "line 2: method 'casefold' of a str is not known"},
        {"{{ [1] | select | tojson }}", "a generator cannot be written as JSON"},
        {"\n\n{{ 'a'.strip(1, 2) }}", "line 3: str.strip() takes 0 to 1 arguments, 2 given"},
        {"{% import 'x' as y %}", "statement 'import' is not known"},
        {"{{ cycler('a') }}", "'cycler' is undefined and cannot be called"},
    };
    json_t *vars = json_object();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        struct buf out = {0};
        ck_fails(render(bad[i].template, vars, &out, &err), ST_BAD_INPUT, bad[i].message);
        ck_assert_uint_eq(out.size, 0);
        buf_free(&out);
    }
    json_decref(vars);
}
END_TEST

START_TEST(nothing_runs_away)
{
    static const char *const bad[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{{ range(99999999999) }}",
        "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(64) %}{% set ns.s = ns.s | replace('a', ns.s) %}{% endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(64) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{{ [] | tojson(indent=-9223372036854775807) ~ 9223372036854775807 * 2 }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns.a == [ns] }}{{ ns }}",
    };
    json_t *vars = json_object();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        struct buf out = {0};
        const enum status st = render(bad[i], vars, &out, &err);
        ck_assert_msg(st == ST_BAD_INPUT, "%s: status %d", bad[i], st);
        buf_free(&out);
    }
    static const char *const deep[][3] = {{"(", "1", ")"},     {"[", "", "]"},   {"-", "1", ""},           {"not ", "1", ""},
                                          {"{'a':", "1", "}"}, {"x[", "1", "]"}, {"1 if 1 else ", "1", ""}};
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        struct err err = {0};
        struct buf text = {0}, out = {0};
        buf_puts(&text, "{{ ");
        for (int k = 0; k < 100000; k++) buf_puts(&text, deep[i][0]);
        buf_puts(&text, deep[i][1]);
        for (int k = 0; k < 100000; k++) buf_puts(&text, deep[i][2]);
        buf_puts(&text, " }}");
        ck_fails(render(text.data, vars, &out, &err), ST_BAD_INPUT, "nested more than");
        buf_free(&text);
    }
    static const char *const chains[] = {"+1", "~'a'", " and 1", "|string", ".a", " if 1 else 2"};
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) { // long, not deep to read: the tree is
        struct err err = {0};
        struct buf text = {0}, out = {0};
        buf_puts(&text, "{{ 1");
        for (int k = 0; k < 100000; k++) buf_puts(&text, chains[i]);
        buf_puts(&text, " }}");
        ck_assert_int_eq(render(text.data, vars, &out, &err), ST_BAD_INPUT);
        buf_free(&text);
        buf_free(&out);
    }
    json_decref(vars);
}
END_TEST

START_TEST(generation_blocks_tell_what_they_wrote)
{
    static const char text[] = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}!{% "
                               "endgeneration %}{% endif %}\n{% endfor %}";
    static const char vars[] =
        "{\"messages\":[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":\"ab\"},{\"role\":\"assistant\",\"content\":\"c\"}]}";
    struct err err = {0};
    struct template *t;
    struct buf out = {0}, spans = {0};
    json_t *data;
    ck_ok(json_parse(&data, vars, strlen(vars), "vars", 0, &err));
    ck_ok(template_parse(&t, text, strlen(text), &err));
    ck_assert(template_has_generation(t));
    ck_ok(template_render_spans(t, data, &out, &spans, &err));
    ck_assert_str_eq(out.data, "<user><assistant>ab!<assistant>c!");
    const size_t wanted[4] = {17, 20, 31, 33};
    ck_assert_uint_eq(spans.size, sizeof wanted);
    ck_assert(memcmp(spans.data, wanted, sizeof wanted) == 0);
    template_free(t);
    json_decref(data);
    buf_free(&out);
    buf_free(&spans);
}
END_TEST

Suite *suite_template(void)
{
    Suite *s = suite_create("template");
    TCase *c = tcase_create("template");
    tcase_add_test(c, each_construct_writes_what_jinja_writes);
    tcase_add_test(c, real_templates_write_what_jinja_writes);
    tcase_add_test(c, real_cases_write_what_jinja_writes);
    tcase_add_test(c, real_cases_give_their_targets);
    tcase_add_test(c, templates_that_loop_over_content_are_told_apart);
    tcase_add_test(c, errors_name_the_construct_and_its_line);
    tcase_add_test(c, nothing_runs_away);
    tcase_add_test(c, generation_blocks_tell_what_they_wrote);
    suite_add_tcase(s, c);
    return s;
}
