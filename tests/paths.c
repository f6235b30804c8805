// Where tests find their files, and folders to write in.
#include "tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Paths are kept until the test's process ends, in a list that LeakSanitizer can see.
struct kept {
    struct kept *next;
    char path[];
};
static struct kept *kept_paths;

static const char *keep(const char *dir, const char *sub)
{
    struct kept *k = mem_alloc(sizeof *k + strlen(dir) + strlen(sub) + 2);
    sprintf(k->path, "%s/%s", dir, sub);
    k->next = kept_paths;
    kept_paths = k;
    return k->path;
}

const char *test_root(void)
{
    const char *root = getenv("DISTILL_TEST_ROOT");
    return root && *root ? root : TEST_ROOT;
}

const char *test_material_at(const char *test, const char *sub)
{
    const char *dir = getenv("DISTILL_MATERIAL");
    const char *path = dir && *dir ? keep(dir, sub) : keep(keep(test_root(), "../shared/material"), sub);
    if (file_exists(path)) return path;
    size_t n = strlen(test); // Check names the function of START_TEST(name) name_fn
    if (n > 3 && !strcmp(test + n - 3, "_fn")) n -= 3;
    printf("skipped: %.*s (no ../shared/material/%s)\n", (int)n, test, sub);
    fflush(stdout);
    return NULL;
}

const char *test_golden(const char *file)
{
    return keep(keep(test_root(), "tests/golden"), file);
}

static char tmpdir[64];
static pid_t tmpdir_owner;

static void remove_tmpdir(void)
{
    struct err err;
    if (getpid() == tmpdir_owner) dir_remove(tmpdir, &err);
}

const char *test_tmpdir(void)
{
    static int n_dir;
    if (tmpdir_owner != getpid()) {
        strcpy(tmpdir, "/tmp/distill-test.XXXXXX");
        ck_assert_msg(mkdtemp(tmpdir) != NULL, "mkdtemp: %s", strerror(errno));
        tmpdir_owner = getpid();
        atexit(remove_tmpdir);
    }
    char name[16];
    snprintf(name, sizeof name, "%d", n_dir++);
    const char *path = keep(tmpdir, name);
    struct err err = {0};
    ck_ok(dir_make(path, &err));
    return path;
}
