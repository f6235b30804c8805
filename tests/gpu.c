// The GPU that tests run on, if there is one.
#include "tests/gpu.h"

#include "kernels/cuda/cuda.h"
#include "tests/simt/simt_state.h"
#include "tests/test.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

bool test_gpu(void)
{
    static int known = -1;
    if (!cuda_device_count) return false;
    simt_devices(1);
    if (known >= 0) return known;
    known = 0;
    fflush(NULL);
    const pid_t pid = fork();
    if (!pid) _exit(cuda_device_count() > 0 ? 0 : 1);
    int status = 1;
    if (pid > 0) waitpid(pid, &status, 0);
    known = pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!known && getenv("DISTILL_TEST_WANTS_GPU")) {
        fprintf(stderr, "there is no GPU, and DISTILL_TEST_WANTS_GPU is set\n");
        exit(EXIT_FAILURE);
    }
    return known;
}

const char *test_device(void)
{
    const char *name = getenv("DISTILL_TEST_DEVICE");
    if (!name || !*name) return "cpu";
    if (simt_devices) simt_devices(1); // it is to be there, real or emulated
    return name;
}
