// SHA-256 of files and memory, by libcrypto.
#include "kernels/base/file.h"

#include <errno.h>
#include <openssl/evp.h>

static void hex_of(const unsigned char digest[32], char hex[65])
{
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void sha256_hex(const void *data, size_t size, char hex[65])
{
    unsigned char digest[32];
    if (!EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL)) BUG("libcrypto has no SHA-256");
    hex_of(digest, hex);
}

enum status file_sha256(const char *path, char hex[65], struct err *err)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_errno(err, "open", path);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || !EVP_DigestInit_ex(ctx, EVP_sha256(), NULL)) BUG("libcrypto has no SHA-256");
    unsigned char chunk[64 * 1024], digest[32];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) EVP_DigestUpdate(ctx, chunk, n);
    enum status st = ferror(f) ? err_errno(err, "read", path) : ST_OK;
    EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    fclose(f);
    if (!st) hex_of(digest, hex);
    return st;
}
