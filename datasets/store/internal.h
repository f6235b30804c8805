// What the files of the store share among themselves. The formats are in docs/formats.md; everything is little-endian.
//
//   spec.c      which targets are captured, and their arrays
//   frame.c     targets of one sample  <->  a frame of targets-NNNNN.bin
//   line.c      a sample  <->  a line of traces-NNNNN.jsonl
//   index.c     (id, sample) -> entry, by hash
//   shard.c     finding a shard's whole samples, and the end of what is whole
//   manifest.c  manifest.json, and comparing identities
//   store.c     opening, appending, reading, closing
//   check.c     store_verify
#pragma once
#include "datasets/store/store.h"

enum { STORE_VERSION = 1, FRAME_VERSION = 1 }; // of manifest and lines; of frames

// ---- frame.c

enum { FRAME_HEAD = 32, FRAME_MAX_ID = 65535 };
enum codec { CODEC_RAW = 0 };

struct frame_head {
    int kind, codec, n_temperature;
    uint32_t sample, n_tok, k;
    uint64_t size_bytes; // of the whole frame, CRC included
    float temperature[8];
    const char *id; // points into the frame, not NUL-terminated
    size_t id_bytes;
    size_t payload; // offset of the payload
};
// Appends the frame. ST_BAD_INPUT when the targets break the contract (sampled: more draws than 65535, a count below 1).
enum status frame_encode(struct buf *out, const char *id, int sample, const struct targets_spec *spec, const struct targets *t,
                         struct err *err);
// Checks a whole frame of `size` bytes: magic, version, lengths, CRC. `where` names the file, `at` the place in it. ST_BAD_INPUT for a
// frame of a newer version; ST_FAIL for damage.
enum status frame_check(struct frame_head *h, const uint8_t *frame, uint64_t size, const char *where, uint64_t at, struct err *err);
// Arrays of a checked frame, allocated here.
enum status frame_decode(struct targets *t, const struct frame_head *h, const uint8_t *frame, const char *where, uint64_t at,
                         struct err *err);

// ---- line.c

enum { LINE_TAIL = 22 }; // bytes of ,"crc32c":"xxxxxxxx"} and the newline

struct line_key { // the head of a line
    char *id;     // mem_free it
    int sample, n_tok;
    uint64_t frame_at, frame_bytes; // 0, 0: no frame
};
enum status line_encode(struct buf *out, const struct sample *s, uint64_t frame_at, uint64_t frame_bytes, struct err *err);
// Only the head, without parsing the line (n bytes, the newline not counted). False when it is not the head of a line.
bool line_head(struct line_key *key, const char *line, size_t n);
bool line_crc_ok(const char *line, size_t n);
enum status line_decode(struct sample *out, const char *line, size_t n, const char *where, long line_number, struct err *err);

// ---- index.c

struct entry {
    uint64_t hash, line_at, frame_at, frame_bytes;
    uint64_t id_at; // in index.ids
    uint32_t line_bytes, line_number;
    int32_t sample, n_tok, shard; // shard: place in store.shards
};
struct index {
    struct entry *v;
    size_t n, cap;
    uint32_t *slot; // entry + 1, 0 is free
    size_t n_slot;  // a power of two, at most half full
    struct buf ids; // NUL-terminated ids, one after the other
};
const struct entry *index_find(const struct index *ix, const char *id, int sample);
void index_add(struct index *ix, const struct entry *e, const char *id); // fills hash and id_at; the key must not be there
void index_free(struct index *ix);
static inline const char *index_id(const struct index *ix, const struct entry *e)
{
    return ix->ids.data + e->id_at;
}

// ---- shard.c

struct shard {
    int number;
    char *traces_path, *targets_path;
    uint64_t traces_bytes, targets_bytes; // the ends of what is whole
    uint64_t traces_size, targets_size;   // of the files as found; larger where a tail is torn
    size_t n_sample;
    uint64_t n_tok;
    size_t n_double; // lines whose (id, sample) had been there before: passed over
    bool changed;    // written to or cut since the manifest's entry
};
void shard_name(struct shard *sh, const char *dir, int number); // fills number and paths
void shard_free(struct shard *sh);
// Numbers of the shards in dir, rising; *n of them. mem_free it.
enum status shard_list(int **numbers, int *n, const char *dir, struct err *err);
// Adds the whole samples to the index and finds both ends. ST_FAIL for damage that is not a torn tail.
enum status shard_scan(struct shard *sh, struct index *ix, int place, enum targets_kind kind, struct err *err);

// ---- manifest.c

enum status spec_from_json(struct targets_spec *out, const json_t *j, const char *where, struct err *err);
json_t *spec_to_json(const struct targets_spec *spec);
enum status manifest_read(json_t **out, struct targets_spec *spec, const char *path, struct err *err);
// The text has a CRC of its own as its last member.
enum status manifest_write(const json_t *manifest, const char *path, struct err *err);
// False when the file's text does not match its CRC. Without one (edited by hand and the member removed): whether it has the known members
// only, lest a damaged name pass for a missing one.
bool manifest_crc_ok(const json_t *manifest, const char *text, size_t n);
json_t *manifest_new(const json_t *identity, const struct targets_spec *spec);
// Every difference between stored and given identity, and spec, by err_add. ST_OK if none.
enum status manifest_compare(const json_t *manifest, const char *path, const json_t *identity, const struct targets_spec *spec,
                             struct err *err);
// The entry of a shard in the manifest (borrowed), NULL if none.
json_t *manifest_shard(const json_t *manifest, const struct shard *sh);
// Hashes the shard's files and puts its entry, unless the present one is still right. *wrote says whether the manifest changed.
enum status manifest_put_shard(json_t *manifest, const struct shard *sh, bool *wrote, struct err *err);
// The first n bytes of a file.
enum status hash_prefix(const char *path, uint64_t n, char hex[65], struct err *err);

// ---- store.c

struct store {
    char *dir, *manifest_path;
    json_t *manifest;
    struct targets_spec spec;
    struct index index;
    struct shard *shards;
    int n_shard;
    uint64_t n_torn, shard_bytes;
    bool writing, info_changed, broken; // broken: a failed write could not be undone
    int lock_fd, traces_fd, targets_fd; // the files of the last shard, open once something is appended; else -1
    struct buf line, frame;             // reused by append
};
