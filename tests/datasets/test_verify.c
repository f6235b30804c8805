// The verifiers: what counts as the final answer, and which answers are the same. The data sets' own solutions must pass.
#include "datasets/jsonl.h"
#include "datasets/verify/verify.h"
#include "tests/test.h"

struct row {
    const char *content, *reference, *extracted; // extracted NULL: not looked at
    bool correct;
};

static const struct row MATH[] = {
    // where the answer stands
    {"so \\boxed{7} and then \\boxed{12}.", "12", "12", true},
    {"\\boxed{\\frac{1}{2}} is it, not 3", "0.5", "\\frac{1}{2}", true},
    {"\\boxed{5} and a cut \\boxed{6", "5", "5", true},
    {"\\boxed 42", "42", "42", true},
    {"1 + 1 = 2\n#### 2\n", "2", "2", true},
    {"2\n#### 1,234", "1234", "1,234", true},
    {"The answer is 12. There were 30 before.", "12", "12", true},
    {"Answer: $1,050.50", "1050.5", NULL, true},
    {"**Answer:** 17 apples, of 20", "17", "17", true},
    {"the answer is: -3", "-3", "-3", true},
    {"The answer is blue.", "Blue", "blue", true},
    {"The answer is $\\frac{\\pi}{2}$.", "\\frac{\\pi}{2}", NULL, true},
    {"41 + 9 = 50, 50 + 48 = 98, 98 / 2 = 49", "49", "49", true},
    {"She has 3 left, which is 3/4 of 4.", "4", "4", true},
    {"it costs $18.", "18", "$18", true},
    {"16-3-4=9", "9", "9", true},
    {"from 12-5 get 5", "-5", "5", false},
    {"no number", "1", "", false},
    {"", "1", "", false},
    {"1", "", "", false},
    // a whole solution as the reference
    {"7", "2 + 5 = <<2+5=7>>7\n#### 7", "7", true},
    {"7", "so $\\boxed{7}$", "7", true},
    // which values are the same
    {"#### 3.50", "3.5", NULL, true},
    {"#### 1/3", "0.3333", NULL, false},
    {"#### 2/6", "1/3", NULL, true},
    {"#### +5", "5", NULL, true},
    {"#### \xE2\x88\x92"
     "5",
     "-5", NULL, true},
    {"#### 50%", "1/2", NULL, true},
    {"#### 50%", "50", NULL, true},
    {"#### 50\\%", "50%", NULL, true},
    {"#### 5000%", "50", NULL, true},
    {"#### 0.1", "0.10000000000000001", NULL, false},
    {"#### 12345678901234567890123", "12345678901234567890124", NULL, false},
    {"#### 123456789012345678901234567890123456789012345678901234567890", "123456789012345678901234567890123456789012345678901234567890",
     NULL, true},
    {"\\boxed{1\\frac{1}{2}}", "3/2", NULL, true},
    {"#### 1 1/2", "1.5", NULL, true},
    {"#### 9 (apples)", "9", NULL, true},
    {"#### 45 miles per hour", "45", NULL, true},
    {"\\boxed{10\\text{ cm}^2}", "10", NULL, true},
    {"\\boxed{90^\\circ}", "90", NULL, true},
    {"\\boxed{x = 5}", "5", NULL, true},
    {"\\boxed{5x}", "5", NULL, false},
    {"\\boxed{-\\dfrac34}", "-0.75", NULL, true},
    {"\\boxed{1e3}", "1000", NULL, true},
    {"\\boxed{007}", "7", NULL, true},
    {"\\boxed{7}", "8", NULL, false},
    {"\\boxed{-7}", "7", NULL, false},
    {"#### 10 000", "10000", NULL, true},
    // text
    {"\\boxed{\\text{Evelyn}}", "Evelyn", NULL, true},
    {"\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}", "(3,\\frac{\\pi}{2})", NULL, true},
    {"\\boxed{(0.5, 3)}", "(\\frac12,3)", NULL, true},
    {"\\boxed{[0.5, 3)}", "(\\frac12,3)", NULL, false},
    {"\\boxed{\\sqrt3}", "\\sqrt{3}", NULL, true},
    {"\\boxed{\\{1, 2\\}}", "\\{1,2\\}", NULL, true},
    {"\\boxed{x^2+1}", "x^2 + 1", NULL, true},
    {"\\boxed{x^2-1}", "x^2 + 1", NULL, false},
};

START_TEST(math_finds_the_answer_and_compares_values)
{
    for (size_t i = 0; i < sizeof MATH / sizeof *MATH; i++) {
        const struct row *r = &MATH[i];
        struct verdict v;
        verify_math.judge(&v, r->content, r->reference);
        ck_assert_msg(v.correct == r->correct, "\"%s\" against \"%s\": found \"%s\", %s", r->content, r->reference, v.extracted,
                      v.correct ? "taken as correct" : "taken as wrong");
        if (r->extracted) ck_assert_str_eq(v.extracted, r->extracted);
    }
}
END_TEST

START_TEST(any_text_is_judged_without_harm)
{
    static const char *const piece[] = {"\\boxed{", "}", "{",       "####", "answer is", "\\frac", "$", "1", ",", "/",
                                        "-",        "%", "\\text{", "\xE2", " ",         "\\",     "(", "^", "="};
    enum { N = sizeof piece / sizeof *piece };
    for (unsigned seed = 0; seed < 20000; seed++) {
        char text[200] = "", reference[100] = "";
        unsigned x = seed * 2654435761u + 1;
        for (int k = 0; k < 12; k++, x = x * 1664525u + 1013904223u) strcat(text, piece[(x >> 16) % N]);
        for (int k = 0; k < 6; k++, x = x * 1664525u + 1013904223u) strcat(reference, piece[(x >> 16) % N]);
        struct verdict v;
        verify_math.judge(&v, text, reference);
        ck_assert_uint_lt(strlen(v.extracted), sizeof v.extracted);
    }
    char *longest = mem_alloc(100001); // a long answer is cut for showing, not for comparing
    memset(longest, 'a', 100000);
    char *boxed = mem_printf("\\boxed{%s}", longest);
    struct verdict v;
    verify_math.judge(&v, boxed, longest);
    ck_assert(v.correct && strlen(v.extracted) == sizeof v.extracted - 1);
    mem_free(longest);
    mem_free(boxed);
}
END_TEST

START_TEST(exact_compares_all_but_white_space_around)
{
    struct verdict v;
    verify_exact.judge(&v, " 12\n", "12");
    ck_assert(v.correct);
    ck_assert_str_eq(v.extracted, "12");
    verify_exact.judge(&v, "12.0", "12");
    ck_assert(!v.correct);
    ck_assert_ptr_eq(verifier_find("exact"), &verify_exact);
    ck_assert_ptr_eq(verifier_find("math"), &verify_math);
    ck_assert_ptr_null(verifier_find("maths"));
}
END_TEST

struct rate {
    const char *content_key, *answer_key;
    int n, n_correct;
};

static enum status judge_row(void *arg, json_t *row, long line, struct err *err)
{
    struct rate *r = arg;
    const char *content = json_string_value(json_object_get(row, r->content_key));
    const char *answer = json_string_value(json_object_get(row, r->answer_key));
    if (!content || !answer) return err_set(err, ST_BAD_INPUT, "line %ld lacks %s or %s", line, r->content_key, r->answer_key);
    struct verdict v;
    verify_math.judge(&v, content, answer);
    r->n++;
    r->n_correct += v.correct;
    if (!v.correct && getenv("SHOW_WRONG")) printf("%ld: %s | %s\n", line, v.extracted, answer);
    return ST_OK;
}

static void judge_file(const char *path, const char *content_key, const char *answer_key, double at_least)
{
    struct err err = {0};
    struct rate r = {content_key, answer_key, 0, 0};
    ck_ok(jsonl_each(path, false, NULL, judge_row, &r, &err));
    printf("%s: %d of %d of the data set's own solutions verify\n", strstr(path, "datasets/"), r.n_correct, r.n);
    ck_assert_int_gt(r.n, 0);
    ck_assert_msg(r.n_correct >= at_least * r.n, "%d of %d", r.n_correct, r.n);
}

START_TEST(gsm8k_solutions_verify)
{
    const char *path = test_material("datasets/gsm8k/test.jsonl");
    if (path) judge_file(path, "answer", "answer", 1);
}
END_TEST

// Without their "####" line, GSM8K's solutions end in the answer nearly always; the rest end in a remark.
static enum status judge_last_number(void *arg, json_t *row, long line, struct err *err)
{
    struct rate *r = arg;
    (void)line, (void)err;
    const char *text = json_string_value(json_object_get(row, "answer")), *mark = strstr(text, "####");
    char *solution = mem_strndup(text, (size_t)(mark - text));
    struct verdict v;
    verify_math.judge(&v, solution, mark);
    r->n++;
    r->n_correct += v.correct;
    mem_free(solution);
    return ST_OK;
}

START_TEST(gsm8k_solutions_verify_by_their_last_number)
{
    const char *path = test_material("datasets/gsm8k/test.jsonl");
    struct err err = {0};
    struct rate r = {0};
    if (!path) return;
    ck_ok(jsonl_each(path, false, NULL, judge_last_number, &r, &err));
    printf("gsm8k by the last number: %d of %d\n", r.n_correct, r.n);
    ck_assert_int_ge(r.n_correct * 100, r.n * 95);
}
END_TEST

START_TEST(math500_solutions_verify)
{
    const char *path = test_material("datasets/math500/math500.jsonl");
    if (path) judge_file(path, "solution", "answer", 0.99);
}
END_TEST

Suite *suite_verify(void);
Suite *suite_verify(void)
{
    Suite *s = suite_create("verify");
    TCase *c = tcase_create("verify");
    tcase_add_test(c, math_finds_the_answer_and_compares_values);
    tcase_add_test(c, any_text_is_judged_without_harm);
    tcase_add_test(c, exact_compares_all_but_white_space_around);
    tcase_add_test(c, gsm8k_solutions_verify);
    tcase_add_test(c, gsm8k_solutions_verify_by_their_last_number);
    tcase_add_test(c, math500_solutions_verify);
    suite_add_tcase(s, c);
    return s;
}
