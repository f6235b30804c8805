/* In the emulation's place where the suites are linked with the CUDA backend itself (make gpu-bundle). */
#include "tests/simt/simt_state.h"

int simt_here(void)
{
    return 0;
}
void simt_devices(int n)
{
    (void)n;
}
void simt_device_memory(size_t total_bytes)
{
    (void)total_bytes;
}
void simt_shared_memory(size_t bytes)
{
    (void)bytes;
}
void simt_fail(const char *call, int nth, int error)
{
    (void)call, (void)nth, (void)error;
}
int simt_layouts(const char *golden)
{
    (void)golden;
    return 0;
}
int simt_cudnn_runs(void)
{
    return 0;
}
