// The option tables: parsing, ranges, config files, hints, help, effective settings.
#include "distill/command.h"
#include "tests/test.h"

static enum status check_targets(const char *text, struct err *err)
{
    if (!strcmp(text, "none") || !strncmp(text, "topk:", 5)) return ST_OK;
    return err_set(err, ST_BAD_INPUT, "wanted none or topk:K");
}

static const struct option OPTIONS[] = {
    {"teacher", OPT_STRING, .value = "DIR", .required = true, .help = "the teacher"},
    {"n", OPT_INT, .def = "4", .range = "[1, inf)", .group = "Sampling", .help = "samples a prompt"},
    {"temperature", OPT_REAL, .def = "1", .range = "[0, inf)", .group = "Sampling", .help = "of the softmax"},
    {"top-p", OPT_REAL, .def = "1", .range = "(0, 1]", .group = "Sampling",
     .help = "keep the likeliest tokens whose probabilities sum to this much, and a long text here so that it must be broken into lines"},
    {"schedule", OPT_ENUM, .def = "cosine", .choices = "constant|linear|cosine", .help = "of the learning rate"},
    {"shuffle", OPT_BOOL, .def = "true", .help = "draw the rows in a new order each epoch"},
    {"resume", OPT_BOOL, .help = "go on where a run stopped"},
    {"target-temperatures", OPT_REALS, .def = "1", .range = "(0, inf)", .help = "temperatures of log Z"},
    {"data", OPT_STRINGS, .value = "FILE,…", .help = "rows"},
    {"sizes", OPT_INTS, .help = "sizes"},
    {"targets", OPT_STRING, .def = "none", .value = "none|topk:K", .check = check_targets, .help = "what is kept"},
    {"dtype", OPT_ENUM, .def = "f32", .choices = "bf16|f32", .help = "replaces the common one"},
    {0}};
static const struct command COMMAND = {
    .name = "try", .summary = "a command of the tests", .args = "[STORE]", .n_arg_max = 1, .options = OPTIONS};

// Parses a line of words; the caller frees.
static enum status parse(struct options **o, const char *line, struct err *err)
{
    static char copy[1000];
    char *argv[50];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *save = NULL, *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) argv[argc++] = w;
    return options_parse(o, &COMMAND, argc, argv, err);
}

static void refused(const char *line, const char *part)
{
    struct err err = {0};
    struct options *o;
    ck_fails(parse(&o, line, &err), ST_BAD_INPUT, part);
    options_free(o);
}

START_TEST(defaults_flags_and_lists_are_read_by_name)
{
    struct err err = {0};
    struct options *o;
    ck_ok(parse(&o,
                "--teacher dir --top-p=0.9 --no-shuffle --target-temperatures 1,2.5 --data a.jsonl,b --resume store --seed "
                "9223372036854775807 --temperature 0",
                &err));
    ck_assert_str_eq(opt_str(o, "teacher"), "dir");
    ck_assert_int_eq(opt_int(o, "n"), 4);
    ck_assert(!opt_given(o, "n") && opt_has(o, "n") && !opt_has(o, "sizes") && opt_given(o, "top-p"));
    ck_assert_double_eq(opt_real(o, "top-p"), 0.9);
    ck_assert_double_eq(opt_real(o, "temperature"), 0);
    ck_assert(!opt_bool(o, "shuffle") && opt_bool(o, "resume") && !opt_bool(o, "quiet"));
    ck_assert_uint_eq(opt_count(o, "target-temperatures"), 2);
    ck_assert_double_eq(opt_real_at(o, "target-temperatures", 1), 2.5);
    ck_assert_uint_eq(opt_count(o, "data"), 2);
    ck_assert_str_eq(opt_str_at(o, "data", 1), "b");
    ck_assert_uint_eq(opt_count(o, "sizes"), 0);
    ck_assert_int_eq(opt_int(o, "seed"), INT64_MAX);
    ck_assert_str_eq(opt_str(o, "dtype"), "f32"); // the command's own default, not the common one
    ck_assert_str_eq(opt_str(o, "device"), "auto");
    ck_assert_int_eq(opt_n_arg(o), 1);
    ck_assert_str_eq(opt_arg(o, 0), "store");
    options_free(o);
    ck_ok(parse(&o, "--teacher a --teacher b --shuffle=false -- --store", &err)); // the last wins
    ck_assert_str_eq(opt_str(o, "teacher"), "b");
    ck_assert(!opt_bool(o, "shuffle"));
    ck_assert_str_eq(opt_arg(o, 0), "--store");
    ck_ok(options_set(o, "n", "9", &err));
    ck_assert_int_eq(opt_int(o, "n"), 9);
    options_free(o);
}
END_TEST

START_TEST(mistakes_are_named_with_what_was_wanted)
{
    refused("", "--teacher DIR missing");
    refused("--teacher", "--teacher needs a value: DIR");
    refused("--teacher --resume", "--teacher needs a value");
    refused("--teacher=", "--teacher: the value is empty");
    refused("--teacher d --n 0", "--n 0: out of range, wanted a number at least 1");
    refused("--teacher d --n 1.5", "--n 1.5: wanted an integer at least 1");
    refused("--teacher d --n 4k", "--n 4k: wanted an integer");
    refused("--teacher d --n -", "--n -: wanted an integer");
    refused("--teacher d --n 99999999999999999999", "too large");
    refused("--teacher d --top-p 1.5", "--top-p 1.5: out of range, wanted a number in (0, 1]");
    refused("--teacher d --top-p 0", "--top-p 0: out of range, wanted a number in (0, 1]");
    refused("--teacher d --top-p nan", "--top-p nan: wanted a number in (0, 1]");
    refused("--teacher d --top-p 0x1p-1", "wanted a number");
    refused("--teacher d --temperature 1e999", "too large");
    refused("--teacher d --target-temperatures 1,,2", "an empty item");
    refused("--teacher d --target-temperatures 1,0", "--target-temperatures 0: out of range");
    refused("--teacher d --sizes 1,x", "--sizes x: wanted an integer");
    refused("--teacher d --resume=yes", "--resume=yes: wanted true or false");
    refused("--teacher d --no-resume=true", "--no-resume takes no value");
    refused("--teacher d --schedule cosin", "wanted one of constant|linear|cosine; did you mean cosine?");
    refused("--teacher d --targets tpk:4", "--targets tpk:4: wanted none or topk:K");
    refused("--teacher d a b", "unexpected \"b\"");
    refused("--teacher d -n 4", "unknown option -n");
}
END_TEST

START_TEST(an_unknown_option_names_the_nearest)
{
    refused("--temprature 1", "unknown option --temprature; did you mean --temperature?");
    refused("--temp 1", "did you mean --temperature?");
    refused("--top_p 1", "did you mean --top-p?");
    refused("--tecaher d", "did you mean --teacher?");
    struct err err = {0};
    struct options *o;
    ck_assert_int_eq(parse(&o, "--zzzzzz 1", &err), ST_BAD_INPUT);
    ck_assert_str_eq(err.text, "unknown option --zzzzzz"); // nothing near, nothing guessed
    options_free(o);
}
END_TEST

static char *config(const char *text)
{
    struct err err = {0};
    char *path = path_join(test_tmpdir(), "c.json");
    ck_ok(file_write_atomic(path, text, strlen(text), &err));
    return path;
}

START_TEST(flags_win_over_the_config_file_and_that_over_defaults)
{
    struct err err = {0};
    struct options *o;
    char *path = config("{\"teacher\": \"d\", \"n\": 7, \"top_p\": 0.5, \"temperature\": 2, \"shuffle\": false, \"data\": [\"a\", \"b\"], "
                        "\"sizes\": [3, 4],"
                        " \"target-temperatures\": [1, 2.5], \"schedule\": null}");
    char *line = mem_printf("--n 9 --config %s", path);
    ck_ok(parse(&o, line, &err));
    ck_assert_int_eq(opt_int(o, "n"), 9);
    ck_assert_double_eq(opt_real(o, "top-p"), 0.5);
    ck_assert_double_eq(opt_real(o, "temperature"), 2);
    ck_assert(!opt_bool(o, "shuffle"));
    ck_assert_uint_eq(opt_count(o, "data"), 2);
    ck_assert_int_eq(opt_int_at(o, "sizes", 1), 4);
    ck_assert_double_eq(opt_real_at(o, "target-temperatures", 1), 2.5);
    ck_assert_str_eq(opt_str(o, "schedule"), "cosine");
    ck_assert(opt_given(o, "top-p") && !opt_given(o, "schedule"));
    options_free(o);
    mem_free(line);
    mem_free(path);
}
END_TEST

START_TEST(all_mistakes_of_a_config_file_are_reported_at_once)
{
    char *path =
        config("{\"tempratur\": 1, \"n\": \"x\", \"top-p\": 1.5, \"data\": [[1]], \"config\": \"y\", \"resume\": 1, \"temperature\": 1, "
               "\"schedule\": \"wild\"}");
    char *line = mem_printf("--teacher d --config %s", path);
    refused(line, "unknown key \"tempratur\"; did you mean temperature?\n");
    refused(line, "\"n\": wanted an integer, found \"x\"\n");
    refused(line, "--top-p 1.5: out of range, wanted a number in (0, 1]\n");
    refused(line, "\"data\": wanted a list of strings, found [[1]]\n");
    refused(line, "unknown key \"config\"");
    refused(line, "\"resume\": wanted true or false, found 1\n");
    refused(line, "wanted one of constant|linear|cosine");
    mem_free(line);
    mem_free(path);
    refused("--teacher d --config /nowhere.json", "/nowhere.json");
    path = config("[1]");
    line = mem_printf("--teacher d --config %s", path);
    refused(line, "wanted a JSON object of options");
    mem_free(line);
    mem_free(path);
}
END_TEST

START_TEST(effective_settings_may_be_given_back_as_config)
{
    struct err err = {0};
    struct options *o, *again;
    ck_ok(parse(&o, "--teacher d --top-p 0.7 --data a,b --no-shuffle --quiet --target-temperatures 0.1,3", &err));
    json_t *j = options_effective_json(o), *settings = json_object_get(j, "settings");
    ck_assert_str_eq(json_string_value(json_object_get(j, "command")), "try");
    ck_assert_ptr_null(json_object_get(settings, "quiet"));
    ck_assert(json_is_null(json_object_get(settings, "sizes")));
    char *path = path_join(test_tmpdir(), "c.json"), *line = mem_printf("--config %s", path);
    ck_ok(json_write_atomic(settings, path, &err));
    ck_ok(parse(&again, line, &err));
    json_t *second = options_effective_json(again);
    ck_assert(json_equal(j, second));
    json_decref(j);
    json_decref(second);
    options_free(o);
    options_free(again);
    mem_free(path);
    mem_free(line);
}
END_TEST

START_TEST(help_names_every_option_and_fits_100_columns)
{
    struct buf b = {0};
    options_help(&b, &COMMAND);
    for (size_t i = 0; option_at(&COMMAND, i); i++)
        ck_assert_msg(strstr(b.data, option_at(&COMMAND, i)->name) != NULL, "%s", option_at(&COMMAND, i)->name);
    ck_assert_ptr_nonnull(strstr(b.data, "Usage: distill try [STORE] --teacher DIR [options]\n"));
    ck_assert_ptr_nonnull(strstr(b.data, "--[no-]shuffle"));
    ck_assert_ptr_nonnull(strstr(b.data, "\nSampling\n"));
    ck_assert_ptr_nonnull(strstr(b.data, "of the softmax (default: 1, at least 0)"));
    ck_assert_ptr_null(strstr(strstr(b.data, "--dtype") + 1, "--dtype")); // the replaced common option stands once
    size_t column = 0;
    for (const char *p = b.data; *p; p++) {
        if (*p == '\n')
            column = 0;
        else if (((unsigned char)*p & 0xc0) != 0x80)
            column++;
        ck_assert_uint_le(column, 100);
    }
    buf_free(&b);
    struct err err = {0};
    struct options *o;
    ck_ok(parse(&o, "--wrong --help", &err)); // help asks for nothing else
    ck_assert(opt_bool(o, "help"));
    options_free(o);
}
END_TEST

START_TEST(the_tables_of_all_commands_are_sound)
{
    for (const struct command *const *c = all_commands; *c; c++) {
        struct err err = {0};
        struct options *o;
        char *argv[] = {NULL};
        // Bad defaults are BUGs; what is required may be missing, and only that.
        if (options_parse(&o, *c, 0, argv, &err)) ck_assert_msg(strstr(err.text, "missing") != NULL, "%s: %s", (*c)->name, err.text);
        for (size_t i = 0; option_at(*c, i); i++) {
            const struct option *opt = option_at(*c, i);
            ck_assert_msg(opt->help && *opt->help, "%s --%s has no help", (*c)->name, opt->name);
            ck_assert_msg((opt->type == OPT_ENUM) == (opt->choices != NULL), "%s --%s: choices", (*c)->name, opt->name);
            for (size_t k = 0; k < i; k++)
                ck_assert_msg(strcmp(option_at(*c, k)->name, opt->name), "%s --%s stands twice", (*c)->name, opt->name);
        }
        options_free(o);
        struct buf b = {0};
        options_help(&b, *c);
        size_t column = 0;
        for (const char *p = b.data; *p; p++) {
            column = *p == '\n' ? 0 : column + (((unsigned char)*p & 0xc0) != 0x80);
            ck_assert_msg(column <= 100, "%s --help: wider than 100 columns at: %.60s", (*c)->name, p - 59);
        }
        buf_free(&b);
    }
}
END_TEST

Suite *suite_options(void)
{
    Suite *s = suite_create("distill: options");
    TCase *t = tcase_create("all");
    tcase_add_test(t, defaults_flags_and_lists_are_read_by_name);
    tcase_add_test(t, mistakes_are_named_with_what_was_wanted);
    tcase_add_test(t, an_unknown_option_names_the_nearest);
    tcase_add_test(t, flags_win_over_the_config_file_and_that_over_defaults);
    tcase_add_test(t, all_mistakes_of_a_config_file_are_reported_at_once);
    tcase_add_test(t, effective_settings_may_be_given_back_as_config);
    tcase_add_test(t, help_names_every_option_and_fits_100_columns);
    tcase_add_test(t, the_tables_of_all_commands_are_sound);
    suite_add_tcase(s, t);
    return s;
}
