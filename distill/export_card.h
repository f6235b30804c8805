// Where a model comes from, for the file it is exported to.
#pragma once
#include "kernels/base/gguf.h"

// general.type, name, and, where DIR/README.md's front matter or DIR/run.json tell them, license, license.name, license.link and the base
// model. A GGUF file in the place of DIR gives only the name.
enum status export_card(struct gguf_writer *w, const char *dir, struct err *err);
