// Training rows: what a student learns from, read from trace stores and from JSONL of conversations alike.
//
// A row is one document: token ids, a mask that says which of them carry loss, and, in a store with targets, where what the teacher said
// of them lies. Ids and masks stay in memory; targets are read when their row's turn comes.
#pragma once
#include "datasets/chat.h"
#include "datasets/store/store.h"

struct row {
    int32_t *ids;  // (n_tok)
    uint8_t *mask; // (n_tok) 1: loss falls on this token; never on the first, which nothing predicts
    int n_tok, n_loss;
    int source;   // index into rows.source
    size_t index; // sample of a store; line order of a JSONL file
    int n_prompt; // store: token n_prompt + i has the targets' row i
};

struct rows_source {
    char *path;
    struct store *store;      // NULL: JSONL
    struct targets_spec spec; // kind TARGETS_NONE for JSONL
    size_t n_row;
    char sha256[65]; // JSONL: of the file; store: of its manifest
};

struct rows {
    struct row *v;
    size_t n;
    struct rows_source *source;
    int n_source;
    int64_t n_tok, n_loss;
    int max_tok;              // of the longest row
    size_t n_cut, n_tok_cut;  // rows cut at max_len, and the tokens lost so
    size_t n_skipped;         // bad lines passed over (skip_bad), and samples that ended in refusal or error
    size_t n_reasoning_added; // JSONL rows whose reasoning the chat template leaves out and that have it nevertheless
    size_t n_without_loss;    // rows on which no loss falls; kept, they only cost time
    struct ids ends;          // tokens that loss falls on and answers end with: a template's end of a turn, what a teacher stopped with
    char sha256[65];          // of all ids and masks in order: what the student will see
    size_t cap;
};

struct rows_options {
    int max_len;                       // tokens; longer rows are cut at the end
    int n_vocab;                       // ids at or above it are refused
    const struct tokenizer *tokenizer; // NULL: no check against the store's, and no JSONL
    const char *tokenizer_dir;         // where it is from, for messages
    const struct chat *chat;           // for JSONL; NULL: refused, with chat_why as the reason
    const char *chat_why;
    bool skip_bad;
};

// `paths`: a store or a JSONL file, or several by comma, concatenated in that order. JSONL rows are {"messages":[…]}, with
// "tools" and "chat_template_kwargs" where the template should see them. A store whose
// tokenizer is not the student's is refused (ST_BAD_INPUT, both named).
enum status rows_load(struct rows *out, const char *paths, const struct rows_options *opt, struct err *err);
void rows_free(struct rows *r);
// The targets of row i, which comes from a store that has some; targets_free it.
enum status rows_targets(const struct rows *r, size_t i, struct targets *out, struct err *err);
// Where the store's teacher was, as its manifest's info says; NULL if it does not.
const char *rows_teacher(const struct rows_source *src);
