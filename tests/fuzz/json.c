// JSON values and --config files. What was read is written so that it reads the same.
#include "distill/command.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

const struct command *const all_commands[] = {NULL}; // options_help.c lists them; here there are none

static const struct option options[] = {{"lr", OPT_REAL, .def = "1", .range = "(0, 1]"},
                                        {"steps", OPT_INT, .range = "[1, inf)"},
                                        {"data", OPT_STRING, .value = "F"},
                                        {"schedule", OPT_ENUM, .def = "cosine", .choices = "constant|linear|cosine"},
                                        {"shuffle", OPT_BOOL, .def = "true"},
                                        {.name = "sizes", .type = OPT_INTS},
                                        {.name = "rates", .type = OPT_REALS},
                                        {.name = "files", .type = OPT_STRINGS},
                                        {0}};
static const struct command command = {.name = "fuzz", .options = options};

static void round_trip(const uint8_t *data, size_t size)
{
    struct err err = {0};
    json_t *root, *again;
    if (!fuzz_ok(json_parse(&root, (const char *)data, size, "in", 0, &err), &err)) return;
    for (int pretty = 0; pretty < 2; pretty++) {
        struct buf text = {0};
        if (pretty)
            json_append_pretty(&text, root);
        else
            json_append_line(&text, root);
        FUZZ_CHECK(fuzz_ok(json_parse(&again, text.data, text.size, "out", 0, &err), &err));
        FUZZ_CHECK(json_equal(root, again));
        json_decref(again);
        buf_free(&text);
    }
    json_get_int(root, "steps", 1, true, "in", &err);
    json_get_real(root, "lr", 1, true, "in", &err);
    json_get_str(root, "data", NULL, true, "in", &err);
    json_get_bool(root, "shuffle", true, false, "in", &err);
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    round_trip(data, size);
    char *argv[] = {"--config", (char *)(uintptr_t)fuzz_put("c.json", (struct part){data, size})};
    struct options *o;
    struct err err = {0};
    if (fuzz_ok(options_parse(&o, &command, 2, argv, &err), &err)) {
        FUZZ_CHECK(opt_real(o, "lr") > 0 && opt_real(o, "lr") <= 1);
        FUZZ_CHECK(!opt_has(o, "steps") || opt_int(o, "steps") >= 1);
        json_decref(options_effective_json(o));
    }
    options_free(o);
    return 0;
}
