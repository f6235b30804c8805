// What the fuzz targets share. A target is one file, tests/fuzz/NAME.c, that defines LLVMFuzzerTestOneInput for one parser; the Makefile
// finds it by its name. Its seeds are corpus/NAME/*, its words, if it has any, dict/NAME.
//
// Parsers read files: an input, or the parts of it, is written to a folder in memory and read from there. Parts are divided by a line of
// four equal signs. Beside what the sanitizers see, a target checks what must hold whatever the input is: FUZZ_CHECK.
#pragma once
#include "kernels/base/file.h"

#include <stdlib.h>

// Ends the process with a sentence and a trace if the condition does not hold.
#define FUZZ_CHECK(condition)                                                                                                              \
    do {                                                                                                                                   \
        if (!(condition)) fuzz_failed(__FILE__, __LINE__, #condition);                                                                     \
    } while (0)
void fuzz_failed(const char *file, int line, const char *condition) __attribute__((noreturn));
// A failure must be of the user's making (ST_BAD_INPUT) or a damaged file (ST_FAIL), and say something. Returns whether it succeeded.
bool fuzz_ok(enum status st, const struct err *err);

struct part {
    const uint8_t *p;
    size_t n;
};
// Divides the input into at most `max` parts (the last takes all the rest); returns how many there are, at least 1.
int fuzz_parts(struct part *out, int max, const uint8_t *data, size_t size);

const char *fuzz_dir(void);                          // a folder of this process, removed when it ends
const char *fuzz_path(const char *name);             // FOLDER/name; of the last few calls, each stays valid
const char *fuzz_put(const char *name, struct part); // writes that file, returns its path
void fuzz_drop(const char *name);                    // removes it if it is there

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
