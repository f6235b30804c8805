// Real tokenizers with real chat templates, and what the suites of templates and chats share.
#pragma once
#include "datasets/chat.h"
#include "tests/test.h"

struct chat_fixture {
    struct tokenizer *tok;
    struct chat *chat;
};
// The material's tokenizers/NAME with its tokenizer_config.json. rename: pairs of an id and what the added token of that id is called
// instead (for tokenizers that differ in names alone: bos and eos first), ended by {0}; or NULL.
struct token_name {
    int id;
    const char *name;
};
void chat_fixture_open(struct chat_fixture *f, const char *name, const struct token_name *rename);
void chat_fixture_template(struct chat_fixture *f, const char *path); // another template, of the material's chat-templates
void chat_fixture_close(struct chat_fixture *f);                      // a zeroed one too

json_t *test_json(const char *text); // parsed; caller's
// The row's text with bars around each masked stretch. Also checks, where no reasoning was added, that the ids are those of the rendered
// text.
enum status masked_text(const struct chat_fixture *f, const json_t *row, struct buf *out, struct err *err);
uint32_t crc32_of(const struct buf *b); // IEEE, as Python's zlib has it
