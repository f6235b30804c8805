// The GPU's trouble, on the emulated one: what is not there, too old, full or broken is told in a sentence, and nothing else goes wrong.
#include "kernels/base/arena.h"
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "kernels/cuda/cuda.h"
#include "kernels/ops.h"
#include "tests/simt/simt_state.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>

enum { NO_MEMORY = 2, OLD_DRIVER = 35, NO_DEVICE = 100, ECC = 214, NO_IMAGE = 209, LAUNCH_FAILURE = 719 }; // CUDA's numbers

// What goes wrong while a device is opened: the call that fails, with what, and what is said.
static const struct {
    int n_device;
    const char *call;
    int error;
    const char *name, *said;
    enum status status;
} openings[] = {
    {0, NULL, 0, "cuda", "no NVIDIA GPU was found. Use --device cpu", ST_BAD_INPUT},
    {1, "cudaGetDeviceCount", NO_DEVICE, "cuda", "no NVIDIA GPU was found", ST_BAD_INPUT},
    {1, "cudaGetDeviceCount", OLD_DRIVER, "cuda", "Update the driver", ST_BAD_INPUT},
    {1, NULL, 0, "cuda:1", "device cuda:1: this machine has 1 GPU: cuda:0", ST_BAD_INPUT},
    {2, NULL, 0, "cuda:2", "this machine has 2 GPUs", ST_BAD_INPUT},
    {1, NULL, 0, "cuda:x", "wanted cuda or cuda:N, N from 0 to 7", ST_BAD_INPUT},
    {1, NULL, 0, "cuda:8", "wanted cuda or cuda:N, N from 0 to 7", ST_BAD_INPUT},
    {1, "cudaSetDevice", ECC, "cuda", "uncorrectable ECC error", ST_FAIL},
    {1, "cudaMallocHost", NO_MEMORY, "cuda", "pinned memory of the host", ST_FAIL},
    {1, "arch", 75, "cuda", "sm_75, and distill's kernels need sm_80", ST_BAD_INPUT},
};
START_TEST(what_cannot_be_opened_is_said_in_a_sentence)
{
    struct err err = {0};
    struct device dev;
    simt_devices(openings[_i].n_device);
    if (openings[_i].call) simt_fail(openings[_i].call, 1, openings[_i].error);
    ck_fails(dev_open(&dev, openings[_i].name, 0, &err), openings[_i].status, openings[_i].said);
    dev_close(&dev);
}
END_TEST

static void open_gpu(struct device *dev)
{
    struct err err = {0};
    simt_devices(1);
    ck_ok(dev_open(dev, "cuda", 0, &err));
}

START_TEST(memory_that_is_not_there_is_counted)
{
    struct device dev;
    struct err err = {0};
    struct arena a;
    simt_device_memory(64 << 20);
    open_gpu(&dev);
    ck_assert(dev_available_bytes(&dev) <= 64 << 20);
    ck_fails(dev_arena(&dev, &a, "weights", 65 << 20, &err), ST_FAIL, "out of memory on cuda:0: weights needs 0.06 GiB");
    ck_fails(dev_reserve(&dev, (size_t)1 << 40, &err), ST_FAIL, "it has 0.06 GiB free");
    ck_ok(dev_arena(&dev, &a, "weights", 60 << 20, &err));
    arena_free(&a);
    ck_ok(dev_arena(&dev, &a, "weights", 60 << 20, &err)); // it was given back
    arena_free(&a);
    dev_close(&dev);
}
END_TEST

// A launch that fails, a fault that shows later: the op is named, and its shapes; nothing runs after it.
static const struct {
    const char *call;
    int nth, error;
    bool sync;
    const char *said;
} faults[] = {
    {"launch", 2, NO_IMAGE, false, "op_add on cuda:0: launching (add_kernel<T, "},
    {"launch", 2, NO_IMAGE, false, "no kernel image is available for execution on the device (cudaErrorNoKernelImageForDevice)"},
    {"launch", 2, NO_IMAGE, false, "its tensors: f32 (4, 8), f32 (4, 8), f32 (4, 8)"},
    {"cudaStreamSynchronize", 1, ECC, false, "found while waiting for the device (--sync finds the op)"},
    {"cudaStreamSynchronize", 3, LAUNCH_FAILURE, true, "op_add on cuda:0: running it: unspecified launch failure"},
    {"cudaMemcpyAsync", 1, ECC, false, "op_upload on cuda:0: uploading: uncorrectable ECC error"},
};
START_TEST(a_fault_names_the_op)
{
    struct device dev;
    struct err err = {0};
    float host[32] = {0}, back[32];
    open_gpu(&dev);
    dev.sync = faults[_i].sync;
    ck_ok(dev_reserve(&dev, 1 << 16, &err));
    simt_fail(faults[_i].call, faults[_i].nth, faults[_i].error);
    struct tensor x = dev_2d(&dev, DT_F32, 4, 8), y = dev_2d(&dev, DT_F32, 4, 8);
    op_upload(&dev, x, host);
    op_add(&dev, y, x, x);
    op_add(&dev, x, y, y);
    op_download(&dev, back, x);
    ck_fails(dev_check(&dev, &err), ST_FAIL, faults[_i].said);
    dev_close(&dev);
}
END_TEST

// A step that is recorded at its second coming does from then on what it did, with what its memory holds by then.
START_TEST(a_recorded_step_does_the_same_over_new_values)
{
    struct device dev;
    struct err err = {0};
    open_gpu(&dev);
    ck_ok(dev_reserve(&dev, 1 << 16, &err));
    struct tensor x = dev_2d(&dev, DT_F32, 4, 8), y = dev_2d(&dev, DT_F32, 4, 8);
    int n_run = 0;
    for (int round = 0; round < 5; round++) {
        float host[32], back[32];
        const int64_t key[2] = {7, round == 4}; // the last is another step
        for (int i = 0; i < 32; i++) host[i] = (float)(round * 100 + i);
        op_upload(&dev, x, host);
        if (!dev_step_begin(&dev, key, sizeof key)) {
            n_run++;
            op_zero(&dev, y);
            op_add(&dev, y, y, x);
            op_add(&dev, y, y, x);
        }
        dev_step_end(&dev);
        op_download(&dev, back, y);
        ck_ok(dev_check(&dev, &err));
        for (int i = 0; i < 32; i++) ck_assert_float_eq(back[i], 2 * host[i]);
    }
    ck_assert_int_eq(n_run, 3); // first, recorded, and the other key
    ck_assert(!dev_step_begin(&dev, "waits", 5) && !dev_step_begin(&dev, "waits", 5));
    dev.backend->sync(&dev);
    ck_fails(dev_check(&dev, &err), ST_FAIL, "waiting for the device");
    dev_close(&dev);
}
END_TEST

// What stands in a pause always runs, between the same neighbours, and may upload; a key that a recording failed for is recorded anew.
START_TEST(a_recorded_step_pauses_for_what_is_not_recorded)
{
    struct device dev;
    struct err err = {0};
    open_gpu(&dev);
    ck_ok(dev_reserve(&dev, 1 << 16, &err));
    struct tensor x = dev_2d(&dev, DT_F32, 4, 8), y = dev_2d(&dev, DT_F32, 4, 8);
    int n_run = 0;
    for (int round = 0; round < 5; round++) {
        float host[32], back[32];
        for (int i = 0; i < 32; i++) host[i] = (float)(round * 100 + i);
        op_upload(&dev, x, host);
        const bool again = dev_step_begin(&dev, "paused", 6);
        if (!again) op_add(&dev, y, x, x); // 2 x
        dev_step_pause(&dev);
        op_add(&dev, y, y, x); // 3 x
        for (int i = 0; i < 32; i++) host[i] = (float)round;
        op_upload(&dev, x, host);
        dev_step_resume(&dev);
        if (!again) op_add(&dev, y, y, x); // 3 x + round
        dev_step_end(&dev);
        n_run += !again;
        op_download(&dev, back, y);
        ck_ok(dev_check(&dev, &err));
        for (int i = 0; i < 32; i++) ck_assert_float_eq(back[i], (float)(3 * (round * 100 + i) + round));
    }
    ck_assert_int_eq(n_run, 2); // the first, and the one that is recorded
    simt_fail("cudaGraphInstantiate", 1, NO_MEMORY);
    for (int round = 0; round < 4; round++) {
        ck_assert(dev_step_begin(&dev, "failed", 6) == (round == 3));
        if (round < 3) op_add(&dev, y, x, x);
        dev_step_end(&dev);
        if (round == 1)
            ck_fails(dev_check(&dev, &err), ST_FAIL, "recording a step");
        else
            ck_ok(dev_check(&dev, &err));
    }
    dev_close(&dev);
}
END_TEST

// A recorded step stands on memory that its key need not name: it is not begun again when some was given back.
START_TEST(what_was_recorded_goes_with_the_memory)
{
    struct device dev;
    struct err err = {0};
    struct arena other;
    float host[32] = {1}, back[32];
    open_gpu(&dev);
    ck_ok(dev_reserve(&dev, 1 << 16, &err));
    struct tensor x = dev_2d(&dev, DT_F32, 4, 8), y = dev_2d(&dev, DT_F32, 4, 8);
    op_upload(&dev, x, host);
    for (int round = 0; round < 6; round++) {
        if (round % 3 == 0) {
            if (round) arena_free(&other);
            ck_ok(dev_arena(&dev, &other, "weights", 1 << 10, &err));
        }
        struct tensor w = tensor_2d(other.base, DT_F32, 4, 8);
        op_upload(&dev, w, host);
        const bool known = dev_step_begin(&dev, "step", 4);
        ck_assert_int_eq(known, round % 3 == 2);
        if (!known) op_add(&dev, y, x, w);
        dev_step_end(&dev);
        op_download(&dev, back, y);
        ck_ok(dev_check(&dev, &err));
        ck_assert_float_eq(back[0], 2);
    }
    arena_free(&other);
    dev_close(&dev);
}
END_TEST

// Many rows with a packed weight: by our kernel and by the library, as the device is told.
START_TEST(packed_weights_go_to_the_library_where_batches_may_matter)
{
    enum { M = 300, N = 24, K = 40 };
    static float x[M * K], w[N * K], out[2][M * N];
    struct device dev;
    struct err err = {0};
    open_gpu(&dev);
    ck_ok(dev_reserve(&dev, 1 << 20, &err));
    for (int i = 0; i < M * K; i++) x[i] = (float)(i % 17 - 8) / 8;
    for (int i = 0; i < N * K; i++) w[i] = (float)(i % 13 - 6) / 8;
    struct tensor xf = dev_2d(&dev, DT_F32, M, K), xb = dev_2d(&dev, DT_BF16, M, K), wf = dev_2d(&dev, DT_F32, N, K),
                  y = dev_2d(&dev, DT_F32, M, N);
    struct tensor panel = tensor_2d(dev_scratch(&dev, op_pack_bytes(&dev, DT_BF16, N, K)), DT_BF16, N, K);
    panel.layout = LAYOUT_PANEL;
    op_upload(&dev, xf, x);
    op_upload(&dev, wf, w);
    op_copy(&dev, xb, xf);
    op_pack(&dev, panel, wf, TENSOR_NONE);
    for (int i = 0; i < 2; i++) {
        dev.batch_invariant = i == 0;
        op_linear(&dev, y, xb, panel, TENSOR_NONE);
        op_download(&dev, out[i], y);
    }
    ck_ok(dev_check(&dev, &err));
    for (int i = 0; i < M * N; i++) // these numbers are exact in bf16, and so are their sums in f32
        if (out[0][i] != out[1][i]) ck_abort_msg("%d: %g %g", i, (double)out[0][i], (double)out[1][i]);
    setenv("DISTILL_SIMT_NO_LIBRARY", "1", 1);
    dev_close(&dev);
    open_gpu(&dev);
    dev.batch_invariant = false;
    ck_ok(dev_reserve(&dev, 1 << 20, &err));
    op_linear(&dev, dev_2d(&dev, DT_F32, M, N), dev_2d(&dev, DT_BF16, M, K), panel, TENSOR_NONE);
    ck_fails(dev_check(&dev, &err), ST_FAIL, "cuBLASLt was not found"); // it was the library
    dev_close(&dev);
}
END_TEST

// More small uploads than the pinned ring holds at once, with nothing on the device in between: each arrives as it was.
START_TEST(uploads_may_run_ahead_of_the_device)
{
    enum { EACH = 100003, N = 400 };
    struct device dev;
    struct err err = {0};
    open_gpu(&dev);
    ck_ok(dev_reserve(&dev, (size_t)EACH * N + N * ARENA_ALIGN, &err));
    struct tensor x[N];
    unsigned char *host = malloc(EACH);
    for (int i = 0; i < N; i++) {
        x[i] = dev_1d(&dev, DT_U8, EACH);
        memset(host, i % 251, EACH);
        op_upload(&dev, x[i], host);
    }
    for (int i = 0; i < N; i++) {
        op_download(&dev, host, x[i]);
        for (int j = 0; j < EACH; j += EACH / 7)
            if (host[j] != i % 251) ck_abort_msg("upload %d, byte %d: %d", i, j, host[j]);
    }
    ck_ok(dev_check(&dev, &err));
    free(host);
    dev_close(&dev);
}
END_TEST

// FP8 likewise: rows in whole fours by the library, the others and what does not fit it by our kernels.
START_TEST(fp8_goes_to_the_library_where_batches_may_matter)
{
    static const struct {
        int arch;
        int64_t m, n, k;
        bool bias, library;
    } c[] = {{90, 160, 136, 512, false, true}, {90, 131, 8, 500, false, true},  {90, 131, 132, 900, false, true},
             {90, 131, 8, 600, false, false},  {90, 131, 7, 512, false, false}, {90, 127, 8, 512, false, false},
             {90, 131, 8, 512, true, false},   {80, 131, 8, 512, false, false}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        const int64_t m = c[i].m, n = c[i].n, k = c[i].k, bn = (n + 127) / 128, bk = (k + 127) / 128;
        simt_fail("arch", 1, c[i].arch);
        struct device dev;
        struct err err = {0};
        open_gpu(&dev);
        ck_ok(dev_reserve(&dev, 8 << 20, &err));
        float *host = NEW_N(float, m *k), *out[2] = {NEW_N(float, m *n), NEW_N(float, m *n)};
        e4m3 *code = NEW_N(e4m3, n * k);
        for (int64_t j = 0; j < m * k; j++) host[j] = (float)rng_normal(1, 1, (uint64_t)j);
        for (int64_t j = 0; j < n * k; j++) code[j] = f32_to_e4m3((float)rng_normal(1, 2, (uint64_t)j) * 50);
        struct tensor x = dev_2d(&dev, DT_F32, m, k), w = dev_2d(&dev, DT_E4M3, n, k), p = w, s = dev_2d(&dev, DT_F32, bn, bk),
                      y = dev_2d(&dev, DT_F32, m, n), bias = dev_1d(&dev, DT_F32, n);
        op_upload(&dev, x, host);
        op_upload(&dev, w, code);
        for (int64_t j = 0; j < bn * bk; j++) host[j] = (float)(1 + j % 5);
        op_upload(&dev, s, host);
        op_zero(&dev, bias);
        p.data = dev_scratch(&dev, op_pack_bytes(&dev, DT_E4M3, n, k));
        p.layout = LAYOUT_PANEL;
        op_pack(&dev, p, w, TENSOR_NONE);
        if (!c[i].bias) bias = TENSOR_NONE;
        for (int by = 0; by < 2; by++) {
            dev.batch_invariant = by == 0;
            op_fp8_linear(&dev, y, x, p, s, bias, false);
            op_download(&dev, out[by], y);
        }
        ck_ok(dev_check(&dev, &err));
        double most = 0, off = 0;
        for (int64_t j = 0; j < m * n; j++) {
            most = fmax(most, fabs((double)out[0][j]));
            off = fmax(off, fabs((double)out[0][j] - (double)out[1][j]));
            if (!c[i].library || j / n >= m / 4 * 4) ck_assert(out[0][j] == out[1][j]);
        }
        ck_assert_msg(off < 1e-5 * most && (off > 0) == c[i].library, "case %d: off by %g of %g", (int)i, off, most);
        mem_free(host);
        mem_free(out[0]);
        mem_free(out[1]);
        mem_free(code);
        dev_close(&dev);
    }
}
END_TEST

START_TEST(a_library_that_is_not_there_is_named)
{
    struct device dev;
    struct err err = {0};
    setenv("DISTILL_SIMT_NO_LIBRARY", "1", 1);
    open_gpu(&dev);
    ck_ok(dev_reserve(&dev, 1 << 16, &err));
    struct tensor x = dev_2d(&dev, DT_F32, 4, 8);
    op_linear_bwd_x(&dev, x, dev_2d(&dev, DT_F32, 4, 8), dev_2d(&dev, DT_F32, 8, 8), false);
    ck_fails(dev_check(&dev, &err), ST_FAIL, "cuBLASLt was not found");
    dev_close(&dev);
}
END_TEST

START_TEST(the_default_is_a_gpu_if_there_is_one)
{
    simt_devices(0);
    ck_assert_str_eq(dev_default(), "cpu");
    simt_devices(1);
    ck_assert_str_eq(dev_default(), "cuda");
}
END_TEST

START_TEST(tensor_core_layouts_are_those_of_cute)
{
    ck_assert_int_gt(simt_layouts(test_golden("gmma.txt")), 100000);
}
END_TEST

Suite *suite_cuda(void)
{
    Suite *s = suite_create("cuda");
    if (!simt_here()) {
        printf("skipped: suite cuda (trouble can be made on the emulated GPU only)\n");
        return s;
    }
    TCase *t = tcase_create("trouble");
    tcase_add_loop_test(t, what_cannot_be_opened_is_said_in_a_sentence, 0, sizeof openings / sizeof *openings);
    tcase_add_test(t, memory_that_is_not_there_is_counted);
    tcase_add_loop_test(t, a_fault_names_the_op, 0, sizeof faults / sizeof *faults);
    tcase_add_test(t, a_recorded_step_does_the_same_over_new_values);
    tcase_add_test(t, a_recorded_step_pauses_for_what_is_not_recorded);
    tcase_add_test(t, what_was_recorded_goes_with_the_memory);
    tcase_add_test(t, packed_weights_go_to_the_library_where_batches_may_matter);
    tcase_add_test(t, uploads_may_run_ahead_of_the_device);
    tcase_add_test(t, fp8_goes_to_the_library_where_batches_may_matter);
    tcase_add_test(t, a_library_that_is_not_there_is_named);
    tcase_add_test(t, tensor_core_layouts_are_those_of_cute);
    tcase_add_test(t, the_default_is_a_gpu_if_there_is_one);
    suite_add_tcase(s, t);
    return s;
}
