// Files: mapping, reading, and atomic replacement by a temporary file, fsync and rename.
#include "kernels/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum status file_map(struct file_map *m, const char *path, struct err *err)
{
    *m = (struct file_map){0};
    struct stat st;
    enum status status = ST_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "open", path);
    if (fstat(fd, &st)) {
        status = err_errno(err, "stat", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = err_set(err, ST_BAD_INPUT, "%s: is %s, wanted a file", path, S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
    } else if (st.st_size) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            status = err_errno(err, "map", path);
        else
            m->data = p, m->size = (size_t)st.st_size;
    }
    close(fd);
    if (!status) m->path = mem_strdup(path);
    return status;
}

void file_unmap(struct file_map *m)
{
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    mem_free(m->path);
    *m = (struct file_map){0};
}

// A hint: what the system does of it is its own affair. The pages at both ends may be shared with others, who then get them again.
static void advise(const void *bytes, size_t size, int advice)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)bytes / page * page;
    if (size) (void)madvise((void *)begin, (uintptr_t)bytes + size - begin, advice);
}

void file_map_ahead(const void *bytes, size_t size)
{
    advise(bytes, size, MADV_WILLNEED);
}

void file_map_forget(const void *bytes, size_t size)
{
    advise(bytes, size, MADV_DONTNEED);
}

// read() that is not disturbed by signals; -1 with errno on failure.
static ssize_t read_some(int fd, void *into, size_t n)
{
    ssize_t got;
    do got = read(fd, into, n);
    while (got < 0 && errno == EINTR);
    return got;
}

enum status file_read(struct buf *out, const char *path, size_t max_bytes, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "open", path);
    enum status st = ST_OK;
    size_t start = out->size;
    char chunk[64 * 1024];
    ssize_t n;
    buf_put(out, "", 0); // an empty file is an empty string too
    while ((n = read_some(fd, chunk, sizeof chunk)) > 0) {
        if ((size_t)n > max_bytes - (out->size - start)) {
            st = err_set(err, ST_BAD_INPUT, "%s: larger than the %zu bytes such a file may have", path, max_bytes);
            break;
        }
        buf_put(out, chunk, (size_t)n);
    }
    if (n < 0) st = err_errno(err, "read", path);
    close(fd);
    return st;
}

// ---- atomic replacement ----

struct file_out {
    char *path, *tmp;
    int fd, failed; // errno of the first failed write
};

enum status file_out_open(struct file_out **out, const char *path, struct err *err)
{
    struct file_out *f = NEW(struct file_out);
    *out = NULL;
    f->path = mem_strdup(path);
    f->tmp = mem_printf("%s.tmp.%ld", path, (long)getpid());
    f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        enum status st = err_errno(err, "create", f->tmp);
        file_out_abort(f);
        return st;
    }
    *out = f;
    return ST_OK;
}

enum status file_out_put(struct file_out *f, const void *data, size_t size, struct err *err)
{
    const char *p = data;
    while (size && !f->failed) {
        ssize_t n = write(f->fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            f->failed = errno;
        } else {
            p += n;
            size -= (size_t)n;
        }
    }
    if (!f->failed) return ST_OK;
    errno = f->failed;
    return err_errno(err, "write", f->path);
}

// The folder that holds path, mem_free it.
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? mem_strdup(".") : slash == path ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

enum status file_out_commit(struct file_out *f, struct err *err)
{
    enum status st = file_out_put(f, "", 0, err);                                     // reports an earlier failure
    if (!st && fsync(f->fd) && errno != EINVAL) st = err_errno(err, "sync", f->path); // EINVAL: a file system that cannot
    int fd = f->fd;
    f->fd = -1;
    if (close(fd) && !st) st = err_errno(err, "close", f->path);
    if (!st && rename(f->tmp, f->path)) st = err_errno(err, "rename to", f->path);
    if (st) {
        file_out_abort(f);
        return st;
    }
    char *dir = parent_of(f->path);
    st = dir_sync(dir, err);
    mem_free(dir);
    mem_free(f->tmp); // renamed: nothing to unlink
    mem_free(f->path);
    mem_free(f);
    return st;
}

void file_out_abort(struct file_out *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    unlink(f->tmp);
    mem_free(f->tmp);
    mem_free(f->path);
    mem_free(f);
}

enum status file_write_atomic(const char *path, const void *data, size_t size, struct err *err)
{
    struct file_out *f;
    TRY(file_out_open(&f, path, err));
    enum status st = file_out_put(f, data, size, err);
    if (!st) return file_out_commit(f, err);
    file_out_abort(f);
    return st;
}

enum status file_copy(const char *from, const char *to, struct err *err)
{
    struct file_out *f = NULL;
    char chunk[64 * 1024];
    ssize_t n = 0;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "open", from);
    enum status st = file_out_open(&f, to, err);
    while (!st && (n = read_some(fd, chunk, sizeof chunk)) > 0) st = file_out_put(f, chunk, (size_t)n, err);
    if (!st && n < 0) st = err_errno(err, "read", from);
    close(fd);
    if (!st) return file_out_commit(f, err);
    file_out_abort(f);
    return st;
}

// ---- folders and names ----

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

enum status dir_make(const char *path, struct err *err)
{
    char *part = mem_strdup(path);
    enum status st = ST_OK;
    for (char *p = part + 1; !st && *path; p++) {
        char c = *p;
        if (c && c != '/') continue;
        *p = '\0';
        struct stat info;
        if (mkdir(part, 0777) && (errno != EEXIST || stat(part, &info) || !S_ISDIR(info.st_mode))) {
            if (errno == EEXIST) errno = ENOTDIR;
            st = err_errno(err, "make folder", part);
        }
        *p = c;
        if (!c) break;
    }
    mem_free(part);
    return st;
}

enum status dir_sync(const char *path, struct err *err)
{
    enum status st = ST_OK;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(err, "open folder", path);
    if (fsync(fd) && errno != EINVAL) st = err_errno(err, "sync folder", path);
    close(fd);
    return st;
}

enum status dir_remove(const char *path, struct err *err)
{
    DIR *dir = opendir(path);
    if (!dir) return err_errno(err, "open folder", path);
    enum status st = ST_OK;
    struct dirent *entry;
    while (!st && (errno = 0, entry = readdir(dir))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char *name = path_join(path, entry->d_name);
        struct stat info;
        if (lstat(name, &info)) // a link is removed, never followed
            st = err_errno(err, "stat", name);
        else if (S_ISDIR(info.st_mode))
            st = dir_remove(name, err);
        else if (unlink(name))
            st = err_errno(err, "remove", name);
        mem_free(name);
    }
    if (!st && errno) st = err_errno(err, "read folder", path);
    closedir(dir);
    if (!st && rmdir(path)) st = err_errno(err, "remove folder", path);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

size_t dir_names(char ***names, const char *path, const char *suffix)
{
    size_t n = 0, cap = 0;
    *names = NULL;
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const size_t len = strlen(entry->d_name), end = strlen(suffix);
        if (len < end || strcmp(entry->d_name + len - end, suffix) != 0) continue;
        if (n == cap) *names = mem_realloc(*names, (cap = cap ? 2 * cap : 8) * sizeof **names);
        (*names)[n++] = mem_strdup(entry->d_name);
    }
    if (dir) closedir(dir);
    if (n) qsort(*names, n, sizeof **names, by_name);
    return n;
}

void names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) mem_free(names[i]);
    mem_free(names);
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return mem_printf("%s%s%s", dir, n && dir[n - 1] != '/' ? "/" : "", name);
}
