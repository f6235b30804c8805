// For tests that run on the CPU and on a GPU alike.
#pragma once
#include <stdbool.h>

// Whether there is a GPU, a real one or the emulated one (which this takes). Asked of a process beside this one: a driver that was begun
// here would not work in the tests, which are processes forked from this. With
// DISTILL_TEST_WANTS_GPU set, none ends the program.
bool test_gpu(void);
// Where the golden models and their training are run: $DISTILL_TEST_DEVICE, else "cpu".
const char *test_device(void);
