// Two tokenizers side by side: do their ids mean the same, and if not, how far are they apart; and a tokenizer beside an embedding.
#pragma once
#include "datasets/tokenizer/tokenizer.h"

enum { TOKENIZER_EXAMPLES = 4 };

struct tokenizer_diff {
    bool same_file;                       // tokenizer.json has the same bytes
    int32_t n_a, n_b;                     // ids: the largest + 1
    int32_t n_agree;                      // ids that stand for the same bytes in both
    int32_t n_differ, n_only_a, n_only_b; // ids that stand for others; ids that one alone has a token for
    int32_t n_flag;                       // ids with the same bytes that are special in one alone
    int32_t differ[TOKENIZER_EXAMPLES], only_a[TOKENIZER_EXAMPLES], only_b[TOKENIZER_EXAMPLES],
        flag[TOKENIZER_EXAMPLES]; // the first of each
    int64_t n_merge;              // merges that one alone has, or that rank otherwise
    int n_text, n_text_differ;    // texts of all scripts tried, and those that the two cut otherwise
};
void tokenizer_compare(struct tokenizer_diff *out, const struct tokenizer *a, const struct tokenizer *b);
// Texts are cut alike and every id that both have means the same: what is left is that one has more ids.
bool tokenizer_compatible(const struct tokenizer_diff *d);
// Appends the token's text quoted, and its id: "<|im_end|>" (151645). An id without a token: (151700, no token).
void tokenizer_show(const struct tokenizer *t, int32_t id, struct buf *out);

// Refuses a tokenizer with ids for which the model at `path` has no row, be they used or not: any text may hold them. Fewer ids than rows
// are fine: the rest is padding. ST_BAD_INPUT names the largest such id and its token.
enum status tokenizer_fits(const struct tokenizer *t, int64_t n_row, const char *path, struct err *err);
