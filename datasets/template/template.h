// Chat templates: the part of Jinja2 that the shipped models' templates use, run, not imitated, as transformers configures it
// (trim_blocks, lstrip_blocks, loop controls, raise_exception, tojson). Sandboxed: bounded steps, depth and output.
// What it does not know is an error naming the construct and its line.
#pragma once
#include "kernels/base/json.h"

struct template; // opaque: a parsed template, immutable

enum status template_parse(struct template **out, const char *text, size_t n, struct err *err);
void template_free(struct template *t);
// Appends the rendered text to *out. `vars` is a JSON object of the global variables (messages, add_generation_prompt, bos_token, …).
enum status template_render(const struct template *t, const json_t *vars, struct buf *out, struct err *err);
