// A small store whose every byte follows from the sample's number: what an interrupted writer leaves is compared with what one that was not
// leaves.
#pragma once
#include "datasets/store/store.h"
#include "tests/test.h"

extern const struct targets_spec spec_topk;    // k = 3, temperatures 1 and 2
extern const struct targets_spec spec_sampled; // 5 draws

json_t *test_identity(const char *teacher); // caller's
// Sample `i` is sample i % 2 of prompt i / 2. Free with sample_free, targets_free.
void make_sample(struct sample *s, struct targets *t, const struct targets_spec *spec, int i);
void ck_samples_equal(const struct sample *a, const struct targets *ta, const struct sample *b, const struct targets *tb);
// Opens dir for writing, appends those of samples 0 .. n-1 that are not there, closes. shard_bytes 0: default.
void fill_store(const char *dir, const struct targets_spec *spec, int n, uint64_t shard_bytes);
// The store holds exactly samples 0 .. n-1, each equal to its maker's, and verifies.
void ck_store_is(const char *dir, const struct targets_spec *spec, int n);
