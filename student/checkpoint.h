// A training run's directory: a Hugging Face model that other programs load as it is, and the state from which --resume goes on.
//
//   model.safetensors          weights of the last save, each tensor in the dtype of the checkpoint training began from
//   state/step-00000100/       the last save: optimizer.safetensors (per parameter NAME.master, NAME.m, NAME.v, and with 8-bit
//                            moments NAME.m_unit, NAME.v_unit: as they are in memory) and position.json
//   checkpoints/step-00000050/ models of older saves, if asked for (hard links where the file system has them)
//
// A save writes the model first (rename over the old one), then the state (a folder renamed into place): that rename is the commit. So a
// kill at any moment leaves a whole model and a whole state; if the model is newer than the state, the steps between are run again and
// give the same bytes.
#pragma once
#include "student/trainer.h"

struct run_dir {
    char *path;
    int lock_fd; // flock on the folder itself
};

// Makes the folder and locks it: ST_BAD_INPUT when another process trains there (its pid, if the system tells). Removes what a kill left
// half written.
enum status run_dir_open(struct run_dir *d, const char *path, struct err *err);
void run_dir_close(struct run_dir *d);

// Where a run stands: what position.json holds.
struct position {
    int64_t step;  // steps done; -1: nothing saved
    int64_t n_tok; // tokens trained on so far
    double t_s;    // seconds of training so far
};
enum status checkpoint_find(const struct run_dir *d, struct position *out, struct err *err);
// Copies config.json, the tokenizer's files and generation_config.json from the student's directory.
enum status checkpoint_copy_files(const struct run_dir *d, const char *student_dir, struct err *err);
// Has generation_config.json name the tokens by which the student ends an answer: transformers and vLLM stop at those of its eos_token_id,
// or of config.json's where there is no such file. What is named already stays, and goes first. *added (zeroed): those it did not name.
enum status checkpoint_name_ends(const struct run_dir *d, const struct ids *ends, struct ids *added, struct err *err);
// card: the text of README.md. keep: how many models of older saves stay.
enum status checkpoint_save(const struct run_dir *d, struct trainer *t, const struct position *pos, const char *card, int keep,
                            struct err *err);
// Puts masters, moments and the step of a position that checkpoint_find found into the trainer.
enum status checkpoint_load(const struct run_dir *d, const struct position *pos, struct trainer *t, struct err *err);
