// Status and messages: how every library function of distill reports failure.
//
// A function that can fail returns `enum status` and takes `struct err *` last. On failure it fills a message the user can act on: which
// file, which field, what was found, what was wanted, how to mend it. Only distill/ prints it and exits; the status IS the exit code.
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum status {
    ST_OK = 0,
    ST_FAIL = 1,          // the job failed: disk full, damaged store, NaN
    ST_BAD_INPUT = 2,     // bad usage or bad input: wrong flag, lying file, mismatched models
    ST_INTERRUPTED = 130, // stopped by SIGINT/SIGTERM after saving
};

// The message of the first failure, or of all mismatches found together (one a line). Zero-initialise; holds no resources.
struct err {
    enum status code;
    int n_line;      // lines gathered by err_add
    char text[4096]; // NUL-terminated, no trailing newline; over-long text is cut at a line and says so
};

// Replaces the message and returns `code`, so that `return err_set(err, ST_FAIL, …)` reads well.
enum status err_set(struct err *err, enum status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Appends a line and returns `code`: for reporting all mismatches at once. The code of the first line is kept in err->code.
enum status err_add(struct err *err, enum status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Puts "context: " before the message, e.g. the file name; returns err->code.
enum status err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// For failed system calls: "<what> <path>: <strerror>"; a full disk (ENOSPC, EDQUOT) says what to do. Returns ST_FAIL, or ST_BAD_INPUT
// when the file does not exist or may not be read.
enum status err_errno(struct err *err, const char *what, const char *path);

// Forwards a failure to the caller. For functions with cleanup, use `if ((st = f(…))) goto out;` and one label.
#define TRY(expr)                                                                                                                          \
    do {                                                                                                                                   \
        enum status try_status_ = (expr);                                                                                                  \
        if (try_status_) return try_status_;                                                                                               \
    } while (0)

// Our fault, never the user's: prints file, line and the sentence, and aborts.
#define BUG(...) bug_at(__FILE__, __LINE__, __VA_ARGS__)
void bug_at(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4), noreturn));
