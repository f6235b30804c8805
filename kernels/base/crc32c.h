// CRC-32C (Castagnoli, reflected 0x82F63B78), the checksum of store frames. crc32c(0, "123456789", 9) == 0xE3069283.
#pragma once
#include <stddef.h>
#include <stdint.h>
uint32_t crc32c(uint32_t crc, const void *data, size_t size); // crc of the bytes before, 0 at the start
uint32_t crc32c_portable(uint32_t crc, const void *data,
                         size_t size); // the same by table: where there is no instruction, and the test's oracle
