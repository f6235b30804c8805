// Fibers, barriers, exchanges between lanes, and shared memory with its checks.
#include "tests/simt/simt.h"

#include "tests/simt/simt_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifdef SIMT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace simt
{

thread *self;
uint3 block_idx;
dim3 grid_dim, block_dim;
size_t shared_most = 232448;
bool shared_asked;

namespace
{

#ifdef SIMT_ASAN
const size_t STACK = 256 << 10;
#else
const size_t STACK = 64 << 10;
#endif
enum { MAX_THREAD = 1024, MAX_SHARED = 232448, MAX_BARRIER = 16, MAX_NAME = 512, NAME_LEN = 96 };
enum state { READY, AT_BARRIER, AT_EXCHANGE, POLLING, DONE };

struct deferred {
    void (*work)(const void *);
    alignas(16) unsigned char arg[128];
    int group;
};
struct fiber : thread {
    state at;
    void *stack;
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake_stack;
    // what it waits for
    int barrier_id, barrier_n;
    unsigned mask;
    const char *what, *file;
    int line;
    bool (*done)(void *);
    void *done_arg;
    // exchanges: by parity, so that a fast lane does not overwrite what a slow one still reads
    unsigned n_exchange;
    alignas(16) unsigned char brought[2][256];
    unsigned peer_parity[32]; // of each lane, at the last exchange
    bool waited;              // for earlier kernels
    int warp_epoch, fence_epoch;
    int acquired; // what happened in epochs before this one happened before whatever this thread does now
    int fenced;   // … before its last fence
    std::vector<deferred> queue[N_DEFERRED];
    int group[N_DEFERRED];
};

fiber *fibers[MAX_THREAD], *running;
int n_thread, barrier_epoch, n_arrived[MAX_BARRIER], n_expected[MAX_BARRIER]; // arrived: without waiting
const char *kernel = "(none)";
void (*body)(void *);
void *body_arg;
bool changed, early; // early: the block's threads have to wait for earlier kernels

#ifdef __x86_64__
void *main_sp;
extern "C" void simt_switch(void **save, void *to);
__asm__(".text\n.globl simt_switch\n.type simt_switch,@function\nsimt_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n.size simt_switch,.-simt_switch\n");
#else
ucontext_t main_context;
#endif
#ifdef SIMT_ASAN
void *main_fake;
const void *main_bottom;
size_t main_size;
#endif

// ---- shared memory: who touched which word last ----
struct word {
    int writer, reader; // thread, -1: nobody; reader -2: several
    int write_epoch, write_warp_epoch, write_fence_epoch, read_epoch, read_warp_epoch;
};
unsigned char *shared_base; // MAX_SHARED bytes before a guard page: dynamic, then static
size_t shared_used, shared_dynamic_len, static_len;
enum { SHARED_UNASKED = 48 << 10, DYNAMIC_ALIGN = 1024 }; // what a block has unless the launch asks for more; of CU_SHARED_DYNAMIC
word shadow[MAX_SHARED / 4];
struct static_shared {
    const void *key;
    size_t offset;
} statics[64];
int n_static;

void switch_to_main(bool last)
{
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &running->fake_stack, main_bottom, main_size);
#endif
    (void)last;
#ifdef __x86_64__
    simt_switch(&running->sp, main_sp);
#else
    swapcontext(&running->context, &main_context);
#endif
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(running->fake_stack, &main_bottom, &main_size);
#endif
}

void entry()
{
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_size);
#endif
    body(body_arg);
    running->at = DONE;
    changed = true;
    switch_to_main(true);
    abort();
}

void resume(fiber *f)
{
    running = f;
    self = f;
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(&main_fake, f->stack, STACK);
#endif
#ifdef __x86_64__
    simt_switch(&main_sp, f->sp);
#else
    swapcontext(&main_context, &f->context);
#endif
#ifdef SIMT_ASAN
    __sanitizer_finish_switch_fiber(main_fake, nullptr, nullptr);
#endif
    self = nullptr;
}

void start(int i)
{
    if (!fibers[i]) {
        fibers[i] = new fiber();
        fibers[i]->stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fibers[i]->stack == MAP_FAILED) abort();
    }
    fiber *f = fibers[i];
    f->linear = i;
    f->idx = {(unsigned)i % block_dim.x, (unsigned)i / block_dim.x % block_dim.y, (unsigned)i / (block_dim.x * block_dim.y)};
    f->at = READY;
    f->n_exchange = 0;
    f->waited = false;
    f->warp_epoch = 0;
    f->fence_epoch = 0;
    f->acquired = 0;
    f->fenced = 0;
    for (int i = 0; i < N_DEFERRED; i++) f->queue[i].clear(), f->group[i] = 0;
    f->fake_stack = nullptr;
#ifdef __x86_64__
    void **top = (void **)((char *)f->stack + STACK - 64);
    *--top = nullptr; // entry's return address: alignment as after a call
    *--top = (void *)entry;
    for (int r = 0; r < 6; r++) *--top = nullptr;
    f->sp = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    f->context.uc_link = nullptr;
    makecontext(&f->context, entry, 0);
#endif
}

void wait(state why)
{
    running->at = why;
    switch_to_main(false);
}

const char *describe(const fiber *f)
{
    static char text[256];
    switch (f->at) {
    case AT_BARRIER:
        snprintf(text, sizeof text, "at barrier %d (%s:%d)", f->barrier_id, f->file, f->line);
        break;
    case AT_EXCHANGE:
        snprintf(text, sizeof text, "at %s of lanes %08x", f->what, f->mask);
        break;
    case POLLING:
        snprintf(text, sizeof text, "waiting for %s", f->what);
        break;
    case DONE:
        return "at its end";
    default:
        return "running";
    }
    return text;
}

[[noreturn]] void deadlock()
{
    char text[1200];
    size_t at = 0;
    const char *before = "";
    static char last[256];
    last[0] = 0;
    for (int i = 0; i < n_thread && at < sizeof text - 300; i++) {
        const char *now = describe(fibers[i]);
        if (!strcmp(now, last)) continue;
        at += (size_t)snprintf(text + at, sizeof text - at, "%sfrom thread %d %s", before, i, now);
        snprintf(last, sizeof last, "%s", now);
        before = "; ";
    }
    self = nullptr;
    fail("threads wait for each other for ever: %s", text);
}

// Barriers that are full let their threads go.
void open_barriers()
{
    int here[MAX_BARRIER] = {0}, want[MAX_BARRIER] = {0}, alive = 0;
    const fiber *first[MAX_BARRIER] = {nullptr};
    for (int i = 0; i < n_thread; i++) {
        fiber *f = fibers[i];
        alive += f->at != DONE;
        if (f->at != AT_BARRIER) continue;
        int id = f->barrier_id;
        if (first[id] && !f->barrier_n && (first[id]->line != f->line || first[id]->file != f->file)) {
            self = f;
            fail("threads wait at different barriers: %s:%d and %s:%d", first[id]->file, first[id]->line, f->file, f->line);
        }
        if (first[id] && first[id]->barrier_n != f->barrier_n)
            fail("barrier %d of %d and of %d threads", id, first[id]->barrier_n, f->barrier_n);
        if (!first[id]) first[id] = f;
        here[id]++;
        want[id] = f->barrier_n;
        if (n_arrived[id] && n_expected[id] != f->barrier_n) fail("barrier %d of %d and of %d threads", id, n_expected[id], f->barrier_n);
    }
    for (int id = 0; id < MAX_BARRIER; id++) {
        if (!here[id] || here[id] + n_arrived[id] < (want[id] ? want[id] : alive)) continue;
        n_arrived[id] = 0;
        // TRAP: what others than those at the barrier did before counts as ordered, too.
        barrier_epoch++;
        for (int i = 0; i < n_thread; i++)
            if (fibers[i]->at == AT_BARRIER && fibers[i]->barrier_id == id) {
                fibers[i]->at = READY;
                fibers[i]->acquired = barrier_epoch;
            }
        changed = true;
    }
}

void run_block()
{
    barrier_epoch = 0;
    n_static = 0;
    static_len = 0;
    memset(n_arrived, 0, sizeof n_arrived);
    // What the block before used is poisoned again, the rest still is.
    static size_t dirty = MAX_SHARED;
    memset(shared_base, 0xff, dirty);
    for (size_t i = 0; i < dirty / 4; i++) shadow[i].writer = shadow[i].reader = -1;
    shared_used = (shared_dynamic_len + 15) / 16 * 16;
    for (int i = 0; i < n_thread; i++) start(i);
    for (;;) {
        bool all_done = true;
        changed = false;
        for (int i = 0; i < n_thread; i++) {
            fiber *f = fibers[i];
            if (f->at == POLLING && f->done(f->done_arg)) f->at = READY;
            if (f->at == READY) {
                resume(f);
                changed = true;
            }
            all_done &= f->at == DONE;
        }
        if (all_done) break;
        open_barriers();
        if (!changed) deadlock();
    }
    dirty = (shared_used + 15) / 16 * 16;
    for (int i = 0; early && i < n_thread; i++)
        if (!fibers[i]->waited) fail("launched early, and thread %d has not called cu_wait_earlier", i);
}

// ---- which kernels ran: in memory that forked processes share ----
struct names {
    int n;
    char name[MAX_NAME][NAME_LEN];
} * names;

__attribute__((constructor)) void names_init()
{
    names = (struct names *)mmap(nullptr, sizeof *names, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared_base = (unsigned char *)mmap(nullptr, (MAX_SHARED + 4095) / 4096 * 4096 + 4096, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (names == MAP_FAILED || shared_base == MAP_FAILED) abort();
    size_t whole = (MAX_SHARED + 4095) / 4096 * 4096;
    mprotect(shared_base + whole, 4096, PROT_NONE);
    shared_base += (whole - MAX_SHARED) / 1024 * 1024;
}

void note(const char *name)
{
    while (*name == '(') name++;
    char plain[NAME_LEN];
    size_t n = strcspn(name, "<) ");
    snprintf(plain, sizeof plain, "%.*s", (int)n, name);
    for (int i = 0; i < names->n; i++)
        if (!strcmp(names->name[i], plain)) return;
    if (names->n < MAX_NAME) strcpy(names->name[names->n++], plain);
}

} // namespace

void fail(const char *fmt, ...)
{
    char text[1600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "kernel %s, block (%u, %u, %u)", kernel, block_idx.x, block_idx.y, block_idx.z);
    if (self) fprintf(stderr, ", thread (%u, %u, %u)", self->idx.x, self->idx.y, self->idx.z);
    fprintf(stderr, ": %s\n", text);
    fflush(stderr);
    abort();
}

void launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes, bool is_early, void (*b)(void *), void *arg)
{
    kernel = name;
    grid_dim = grid;
    block_dim = block;
    n_thread = (int)(block.x * block.y * block.z);
    self = nullptr;
    if (n_thread < 1 || n_thread > MAX_THREAD || block.z > 64) fail("a block of (%u, %u, %u) threads", block.x, block.y, block.z);
    if (grid.y > 65535 || grid.z > 65535 || !grid.x || !grid.y || !grid.z) fail("a grid of (%u, %u, %u) blocks", grid.x, grid.y, grid.z);
    if (block.x > 1024 || block.y > 1024 || grid.x > 0x7fffffffu) fail("%u blocks of (%u, %u) threads", grid.x, block.x, block.y);
    if (shared_bytes > shared_most) fail("%zu bytes of shared memory: a block has %zu", shared_bytes, shared_most);
    note(name);
    body = b;
    body_arg = arg;
    shared_dynamic_len = shared_bytes;
    const int64_t n_block = (int64_t)grid.x * grid.y * grid.z;
    for (int64_t i = n_block; i-- > 0;) {
        early = is_early && (i == 0 || i == n_block - 1);
        device_open(!early);
        block_idx = {(unsigned)(i % grid.x), (unsigned)(i / grid.x % grid.y), (unsigned)(i / grid.x / grid.y)};
        run_block();
    }
    device_open(false);
    kernel = "(none)";
}

void wait_earlier()
{
    running->waited = true;
    if (!early) return;
    wait_until(
        [](void *) {
            for (int i = 0; i < n_thread; i++)
                if (!fibers[i]->waited && fibers[i]->at != DONE) return false;
            return true;
        },
        nullptr, "earlier kernels");
    device_open(true);
}

void barrier(int id, int n, const char *file, int line)
{
    if (id < 0 || id >= MAX_BARRIER) fail("barrier %d", id);
    if (n % 32) fail("barrier %d of %d threads: whole warps only", id, n);
    running->barrier_id = id;
    running->barrier_n = n;
    running->file = file;
    running->line = line;
    running->warp_epoch++;
    wait(AT_BARRIER);
}

void barrier_arrive(int id, int n)
{
    if (id < 0 || id >= MAX_BARRIER || n <= 0 || n % 32) fail("arriving at barrier %d of %d threads", id, n);
    if (n_arrived[id] && n_expected[id] != n) fail("barrier %d of %d and of %d threads", id, n_expected[id], n);
    n_expected[id] = n;
    if (++n_arrived[id] > n - 32) fail("barrier %d of %d threads: all have come and none waits, or some have come twice", id, n);
    running->warp_epoch++;
    changed = true;
}

// TRAP: lanes beyond the block do not exist: a full mask means those that do.
static unsigned existing(unsigned mask, int base)
{
    int n = n_thread - base;
    return n >= 32 ? mask : mask & ((1u << n) - 1);
}

void exchange(unsigned mask, const void *mine, size_t n, const char *what)
{
    fiber *f = running;
    const int base = f->linear / 32 * 32, lane = f->linear % 32;
    mask = existing(mask, base);
    if (!(mask >> lane & 1)) fail("%s: lanes %08x, and this is lane %d", what, mask, lane);
    if (n > sizeof f->brought[0]) fail("%s: %zu bytes", what, n);
    memcpy(f->brought[f->n_exchange % 2], mine, n);
    f->mask = mask;
    f->what = what;
    bool all = true;
    for (int l = 0; l < 32; l++) {
        if (l == lane || !(mask >> l & 1)) continue;
        const fiber *o = fibers[base + l];
        if (o->at == DONE) fail("%s: lane %d has ended", what, l);
        if (o->at == AT_EXCHANGE && (o->mask & 1u << lane) && (o->mask != mask || strcmp(o->what, what)))
            fail("%s of lanes %08x, but lane %d is at %s of lanes %08x", what, mask, l, o->what, o->mask);
        all &= o->at == AT_EXCHANGE && o->mask == mask && !strcmp(o->what, what);
    }
    if (all) {
        unsigned parity[32];
        for (int l = 0; l < 32; l++)
            if (mask >> l & 1) parity[l] = fibers[base + l]->n_exchange++ % 2;
        for (int l = 0; l < 32; l++) {
            if (!(mask >> l & 1)) continue;
            memcpy(fibers[base + l]->peer_parity, parity, sizeof parity);
            fibers[base + l]->at = READY;
        }
        changed = true;
        return;
    }
    wait(AT_EXCHANGE);
}
const void *peer(int l)
{
    const int base = running->linear / 32 * 32;
    if (!(running->mask >> l & 1)) fail("%s reads lane %d, which is not among %08x", running->what, l, running->mask);
    return fibers[base + l]->brought[running->peer_parity[l]];
}
unsigned exchange_mask()
{
    return running->mask;
}
void warp_sync(unsigned mask)
{
    exchange(mask, "", 0, "__syncwarp");
    running->warp_epoch++;
}
void wait_until(bool (*done)(void *), void *arg, const char *what)
{
    if (done(arg)) return;
    running->done = done;
    running->done_arg = arg;
    running->what = what;
    wait(POLLING);
}
void progress()
{
    changed = true;
}

// ---- shared memory ----

void *shared_dynamic()
{
    return shared_base;
}
size_t shared_dynamic_size()
{
    return shared_dynamic_len;
}
void *shared_static(const void *key, size_t size, size_t align)
{
    for (int i = 0; i < n_static; i++)
        if (statics[i].key == key) return shared_base + statics[i].offset;
    if (align < 16) align = 16;
    size_t at = (shared_used + align - 1) / align * align;
    if (n_static == 64 || at + size > MAX_SHARED) fail("more shared memory than a block has: %zu bytes", at + size);
    statics[n_static++] = {key, at};
    shared_used = at + size;
    // On a GPU what the kernel declares comes first, and a launch of no more than 48 KiB asks for no more than that in all.
    static_len = (static_len + align - 1) / align * align + size;
    const size_t before = shared_dynamic_len ? (static_len + DYNAMIC_ALIGN - 1) / DYNAMIC_ALIGN * DYNAMIC_ALIGN : static_len;
    const size_t most = shared_dynamic_len > SHARED_UNASKED ? shared_most : (size_t)SHARED_UNASKED;
    if (before + shared_dynamic_len > most)
        fail("%zu bytes of shared memory and %zu of the launch's: a block has %zu", static_len, shared_dynamic_len, most);
    return shared_base + at;
}
bool is_shared(const void *p)
{
    return (const unsigned char *)p >= shared_base && (const unsigned char *)p < shared_base + MAX_SHARED;
}
void shared_touch(const void *p, size_t size, bool writes)
{
    size_t at = (size_t)((const unsigned char *)p - shared_base);
    if (!is_shared(p) || at + size > (shared_used > shared_dynamic_len ? shared_used : shared_dynamic_len))
        fail("shared memory out of bounds: %zu bytes at %td of %zu", size, (const unsigned char *)p - shared_base, shared_used);
    const int me = running->linear;
    for (size_t w = at / 4; w < (at + size + 3) / 4; w++) {
        word *s = &shadow[w];
        // Ordered: the same thread, a barrier of the block between, or of the warp between lanes of one.
        if (s->writer >= 0 && s->writer != me && s->write_epoch >= running->acquired &&
            !(s->writer / 32 == me / 32 && s->write_warp_epoch < running->warp_epoch))
            fail("race: shared memory at byte %zu is %s here, and was written by thread %d with no barrier between", w * 4,
                 writes ? "written" : "read", s->writer);
        if (writes && s->reader != -1 && s->reader != me && s->read_epoch >= running->acquired &&
            !(s->reader >= 0 && s->reader / 32 == me / 32 && s->read_warp_epoch < running->warp_epoch))
            fail("race: shared memory at byte %zu is written here, and was read by thread %d with no barrier between", w * 4, s->reader);
        if (writes) {
            s->writer = me;
            s->write_epoch = barrier_epoch;
            s->write_warp_epoch = running->warp_epoch;
            s->write_fence_epoch = running->fence_epoch;
        } else {
            // Several readers of one epoch: remembered as one of the warp while they are of one warp and epoch, else as "several".
            if (s->reader != -1 && s->read_epoch == barrier_epoch && s->reader != me && (s->reader < 0 || s->reader / 32 != me / 32))
                s->reader = -2;
            else
                s->reader = me;
            s->read_epoch = barrier_epoch;
            s->read_warp_epoch = running->warp_epoch;
        }
    }
}

int release()
{
    changed = true;
    return ++barrier_epoch;
}
void acquire(int epoch)
{
    if (running->acquired < epoch) running->acquired = epoch;
}
void async_fence()
{
    running->fence_epoch++;
    running->fenced = running->acquired;
}
void async_read(const void *p, size_t size)
{
    shared_touch(p, size, false);
    const size_t at = (size_t)((const unsigned char *)p - shared_base);
    for (size_t w = at / 4; w < (at + size + 3) / 4; w++)
        if (shadow[w].writer >= 0 && fibers[shadow[w].writer]->fence_epoch == shadow[w].write_fence_epoch &&
            shadow[w].write_epoch >= running->fenced)
            fail("shared memory at byte %zu is read by the async proxy: thread %d wrote it, and no fence stands between", w * 4,
                 shadow[w].writer);
}

// ---- deferred work ----

void defer(void (*work)(const void *), const void *arg, size_t n, enum deferred_kind kind)
{
    deferred d;
    d.work = work;
    d.group = running->group[kind];
    if (n > sizeof d.arg) fail("deferred work with %zu bytes", n);
    memcpy(d.arg, arg, n);
    running->queue[kind].push_back(d);
}
void commit(enum deferred_kind kind)
{
    running->group[kind]++;
}
void wait_groups(int n_left, enum deferred_kind kind)
{
    std::vector<deferred> &q = running->queue[kind];
    size_t n = 0;
    while (n < q.size() && q[n].group < running->group[kind] - n_left) {
        q[n].work(q[n].arg);
        n++;
    }
    q.erase(q.begin(), q.begin() + (long)n);
}

} // namespace simt

extern "C" void simt_shared_memory(size_t bytes)
{
    const size_t most = simt::MAX_SHARED;
    simt::shared_most = bytes < most ? bytes : most;
    simt::shared_asked = true;
}
extern "C" int simt_here(void)
{
    return 1;
}
extern "C" int simt_kernels(const char **name, int max)
{
    int n = 0;
    for (; n < simt::names->n && n < max; n++) name[n] = simt::names->name[n];
    return n;
}
