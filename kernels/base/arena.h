// Arenas own the memory of tensors. An arena is one reservation handed out in order and given back in reverse (mark/release).
//
// Measuring mode: arena_measure() makes an arena with no memory behind it. The same planning code (model load, a forward, a whole
// training step) run over it yields, in `peak`, the exact bytes the real run will need. Addresses handed out while measuring are fakes
// that must never be dereferenced (the device's ops return before touching data when it measures).
#pragma once
#include "kernels/base/status.h"

#include <stdint.h>

enum { ARENA_ALIGN = 64 }; // bytes; every allocation starts on this

struct arena {
    uint8_t *base;
    size_t size;              // bytes reserved; SIZE_MAX while measuring
    size_t used;              // bytes handed out now
    size_t peak;              // the most ever handed out
    bool measuring;           // no memory behind
    const char *name;         // for messages; static or outliving the arena
    void (*give)(void *base); // NULL: the host's memory. Else a device's (dev_arena), which this takes back; it is never read here
};

void arena_measure(struct arena *a, const char *name);
// Reserves size_bytes (huge pages where the system gives them). ST_FAIL when the machine has not that much free: says needed against free.
enum status arena_init(struct arena *a, const char *name, size_t size_bytes, struct err *err);
void arena_free(struct arena *a);
// Never NULL. Running past the end is a BUG(): the plan was wrong.
void *arena_alloc(struct arena *a, size_t size_bytes);
size_t arena_mark(const struct arena *a);
void arena_release(struct arena *a, size_t mark);
// Bytes of memory the system could still give (MemAvailable, and the cgroup's limit if lower).
size_t mem_available_bytes(void);
