// Runs CUDA kernels on the CPU, for tests: the same .cu text, compiled by g++ against include/, its threads run as fibers. What a kernel
// may not do is an error that names the kernel, the block and the thread: a barrier that not all threads reach, a shuffle whose lanes are
// elsewhere, shared memory out of bounds or read where another thread writes without a barrier between, memory of the device out of
// bounds (guard pages), the host touching memory of the device.
//
// Not emulated: time, caches, the order in which real blocks and warps run (here: blocks from last to first, threads in order until each
// waits).
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace simt
{
struct thread {
    uint3 idx;
    int linear; // x fastest
};
extern thread *self;
extern uint3 block_idx;
extern dim3 grid_dim, block_dim;
extern size_t shared_most; // what a block may have, its own and the launch's together
extern bool shared_asked;  // a test said so, not the architecture

// Runs `body(arg)` once a thread. `name` is kept in the list of kernels that have run. early: memory of the device is closed to a block
// (the first and the last, that is) until all its threads have called wait_earlier, which each must.
void launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes, bool early, void (*body)(void *), void *arg);
template <class F> void launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes, bool early, F &&f)
{
    launch(
        name, grid, block, shared_bytes, early, [](void *p) { (*(F *)p)(); }, (void *)&f);
}
void wait_earlier();
[[noreturn]] void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// ---- what threads wait for ----
// n_thread threads reach barrier `id`; 0: all of the block that have not ended.
void barrier(int id, int n_thread, const char *file, int line);
// As barrier, without waiting.
void barrier_arrive(int id, int n_thread);
// All lanes of `mask` come here with n bytes (at most 256) each; peer(lane) then reads what that lane brought, until this thread's next
// exchange. `what` names the instruction: all must be at the same.
void exchange(unsigned mask, const void *mine, size_t n, const char *what);
const void *peer(int lane);
unsigned exchange_mask();
void warp_sync(unsigned mask); // as an exchange of nothing, that orders shared memory too
// Waits until done() is true; something must change meanwhile. progress(): something did.
void wait_until(bool (*done)(void *), void *arg, const char *what);
void progress();
inline int lane()
{
    return self->linear % 32;
}

// ---- shared memory ----
void *shared_dynamic(); // the launch's shared_bytes, poisoned
size_t shared_dynamic_size();
void *shared_static(const void *key, size_t size, size_t align); // the same for all threads of a block, by key
// The thread reads or writes size bytes of shared memory: checked against its bounds and against the other threads.
void shared_touch(const void *p, size_t size, bool writes);
bool is_shared(const void *p);

// ---- memory of the device ----
void *device_alloc(size_t size); // ends at a guard page, filled with NaN; NULL when the device is full
bool device_free(void *p);
void device_open(bool open); // the host may touch it meanwhile: copies
bool is_device(const void *p, size_t size);
size_t device_free_bytes();

// Deferred work of a thread: cp.async and the like happen when they are waited for, so that a missing wait shows.
enum deferred_kind { DEFERRED_COPY, DEFERRED_WGMMA, N_DEFERRED };
void defer(void (*work)(const void *), const void *arg, size_t n,
           enum deferred_kind kind = DEFERRED_COPY); // n at most 128 bytes of argument, copied
void commit(enum deferred_kind kind = DEFERRED_COPY);
void wait_groups(int n_left, enum deferred_kind kind = DEFERRED_COPY); // all but the latest n_left groups are done

// For what threads meet at without waiting together: what happened before release() gave an epoch is ordered before what a thread does
// after acquire() of it.
int release();
void acquire(int epoch);
// fence.proxy.async of this thread; a read of shared memory by the async proxy (wgmma), which sees no write that was not fenced, by the
// thread that wrote or, behind a barrier between them, by the one that reads.
void async_fence();
void async_read(const void *p, size_t size);
} // namespace simt
