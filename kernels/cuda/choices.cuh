// What was measured on a device, kept in a file beside other caches of the user's, so that later runs make the same choices: a choice
// decides in which order a sum is made, hence its last bits.
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct choices { // records of `size` bytes, the first `key_size` of them what was chosen for; compared as bytes, so cleared before filled
    const char *file; // "blaslt.txt"
    char who[64];     // the device and the library
    size_t key_size, size;
    unsigned char *all;
    int n, n_room;
    bool changed; // there is something to write
};
// Those of the device and the library's version that the file has.
void choices_open(struct choices *c, const char *file, const char *device_name, size_t version, size_t key_size, size_t size);
const void *choices_find(const struct choices *c, const void *key); // its record, NULL: none
void choices_keep(struct choices *c, const void *record);
void choices_save(struct choices *c); // to the file, all of them, if `changed` is set; choices_close does so, too
void choices_close(struct choices *c);
