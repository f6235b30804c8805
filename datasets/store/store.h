// The trace store: a directory that holds what a teacher wrote and the distributions it wrote it from. docs/formats.md is its byte-exact
// description; this header is how the program uses it.
//
//   manifest.json        teacher identity and file hashes, tokenizer hash, chat template, sampling and capture settings, licence, tool
//                        version, shards with counts and checksums (counts/checksums of finished shards; refreshed on close)
//   traces-NNNNN.jsonl   a line a sample, with a CRC32C of its own; it names the place of its frame
//   targets-NNNNN.bin    append-only frames with CRC32C, keyed by (id, sample); a frame holds the targets of all positions of one sample
//   lock                 the writer holds a flock on it; the writer's pid stands in it
//   targets frame first, then its trace line: a sample exists iff its line and the frame it names are whole. At the next open for writing
//   torn tails are cut: lines whose frame is not whole, and frames after the last that a line names.
//
// One writing process a store for now; a second is refused, naming the holder's pid. The format already keeps writers' shards apart.
// Reading takes no lock. A handle belongs to one thread, but store_read may be called from many at once.
#pragma once
#include "kernels/base/json.h"

enum targets_kind { TARGETS_NONE, TARGETS_TOPK, TARGETS_SAMPLED }; // the numbers stand in the files

// How a store's targets were captured. Part of the manifest; a resume with other settings is refused.
struct targets_spec {
    enum targets_kind kind;
    int k; // topk: kept entries a position (at most the vocabulary: full, sorted by rank all the same); sampled: draws a position
    int n_temperature;    // log Z is kept for each
    float temperature[8]; // rising, no doubles; 1 is always among them
};
// temperatures may be NULL ("1"). n_vocab caps topk's k; 0: not known yet.
enum status targets_spec_parse(struct targets_spec *out, const char *targets, const char *temperatures, int n_vocab,
                               struct err *err); // "topk:64", "1,2"

// The targets of one sample: n_tok rows, row i belongs to token_ids[i] (the distribution from which it was drawn, before sampling filters,
// natural temperature).
struct targets {
    int n_tok, k, n_temperature;
    int32_t *ids;   // (n_tok, k) topk: by falling log-probability, ties by id; sampled: the draws' distinct ids, ascending, padded with -1
    float *logprob; // (n_tok, k) topk: natural log-probability at T = 1; NULL for sampled
    float *tail_logprob; // (n_tok) topk: log of the mass not kept (-INFINITY when k covers the vocabulary); NULL for sampled
    float *log_z;        // (n_tok, n_temperature) log sum exp(logit/T); with log_z at T and at 1 the kept logits are logprob + log_z[T=1]
    int32_t *count;      // (n_tok, k) sampled: how often each id was drawn, 0 where padded; NULL for topk
};
void targets_alloc(struct targets *t, const struct targets_spec *spec, int n_tok); // arrays by mem_alloc, zeroed
void targets_free(struct targets *t);

struct sample {
    char *id;           // not empty, at most 65535 bytes
    int sample;         // 0 .. n-1 of the prompt
    uint64_t seed;      // below 2^63: it is a JSON integer in the line
    json_t *messages;   // prompt messages and the assistant's with content and reasoning_content apart
    int32_t *token_ids; // generated tokens, the end token included when finish_reason is stop
    int n_tok;
    int32_t *prompt_ids; // the rendered prompt's ids: training needs no template
    int n_prompt;
    const char *finish_reason; // static: stop | length | refusal | error
    json_t *verdicts;          // object, may be NULL; cost: object, may be NULL
    json_t *cost;
    const char *answer; // reference answer of the prompt if it had one: kept in the line under "answer" for later judging; NULL if none
                        // (borrowed; after store_read it lies in `line`)
    json_t *line;       // after store_read: the whole line, as parsed; else NULL
};
void sample_free(struct sample *s); // for samples that store_read filled
// The text that the teacher answered: the last message's content, "" if none (borrowed). Reasoning likewise.
const char *sample_content(const struct sample *s);
const char *sample_reasoning(const struct sample *s);

struct store; // an open store

// Opens for writing, creating the folder and the manifest if absent. `identity` is the part of the manifest that must be equal on resume
// (teacher, tokenizer, template, sampling …; an object, kept under "identity"): any difference, in it or in spec, is ST_BAD_INPUT naming
// each key with stored and given values. Cuts torn tails and lists what is there. ST_BAD_INPUT when another process holds it (pid named).
enum status store_open_write(struct store **out, const char *dir, const json_t *identity, const struct targets_spec *spec, struct err *err);
// The identity of the store in dir, caller's; NULL where there is no manifest yet.
enum status store_identity(json_t **out, const char *dir, struct err *err);
// Opens for reading; never changes a byte; a torn tail is passed over (store_n_torn says so).
enum status store_open_read(struct store **out, const char *dir, struct err *err);
// Finishes: flushes, fsyncs, writes counts and checksums to the manifest (writers). Frees in any case.
enum status store_close(struct store *s, struct err *err);

// Bytes of torn tails that opening cut (writing) or passed over (reading).
uint64_t store_n_torn(const struct store *s);
// Keeps a value in the manifest under "info": said, not compared on resume (licence, command line, tool version). Steals value. Written at
// close.
void store_set_info(struct store *s, const char *key, json_t *value);
// A shard that has reached this many bytes (traces and targets together) is finished and the next begun. Default 256 MiB.
void store_set_shard_bytes(struct store *s, uint64_t shard_bytes);

bool store_has(const struct store *s, const char *id, int sample);
// Appends frame and line; `t` NULL for kind none. Each is handed to the system at once (write(2)), so that kill -9 loses only samples in
// flight. Starts a new shard past shard_bytes. ST_FAIL on a full disk, with the store still whole (what was written of the sample is cut)
// and open. ST_BAD_INPUT when (id, sample) is there already, or t does not fit the spec.
enum status store_append(struct store *s, const struct sample *sample, const struct targets *t, struct err *err);

size_t store_n_sample(const struct store *s);
const struct targets_spec *store_spec(const struct store *s);
const json_t *store_manifest(const struct store *s); // borrowed
// What the index knows without reading: the prompt's id (borrowed), the sample's number and its generated tokens.
const char *store_id(const struct store *s, size_t index, int *sample, int *n_tok);
// Reading: samples in file order; index < store_n_sample. Caller frees both (targets may be NULL: not wanted; with kind none t is zeroed).
// Both CRCs are checked: ST_FAIL names the file and the line.
enum status store_read(const struct store *s, size_t index, struct sample *out, struct targets *t, struct err *err);
// The targets alone: quicker where the texts are not wanted.
enum status store_read_targets(const struct store *s, size_t index, struct targets *t, struct err *err);
// Every frame and CRC, every line against its frame, counts and checksums against the manifest. Problems are listed in err (ST_FAIL). A
// torn tail beyond what the manifest vouches for is no damage: *n_torn counts its bytes (n_sample, n_torn may be NULL).
enum status store_verify(const char *dir, size_t *n_sample, uint64_t *n_torn, struct err *err);
