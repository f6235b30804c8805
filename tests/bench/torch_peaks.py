"""What PyTorch reaches on this GPU, as rows of tests/gpu-check's table: a product of large matrices, a copy, causal attention by cuDNN and by
FlashAttention.

    torch_peaks.py cuda|cpu [small]
"""
import sys
import time

import torch

device, small = sys.argv[1], "small" in sys.argv
cuda = device == "cuda"


def seconds(work, n):
    """Of one call: the median of 5 groups of n."""
    found = []
    for group in range(6):
        if cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(n):
            work()
        if cuda:
            torch.cuda.synchronize()
        if group:
            found.append((time.perf_counter() - begin) / n)
    return sorted(found)[2]


def row(job, ours, peer="", ratio=""):
    print(f"| PyTorch: {job} | {ours} | {peer} | {ratio} |", flush=True)


n = 64 if small else 8192
a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
t = seconds(lambda: a @ b, 1 if small else 10)
gemm = 2 * n**3 / t
row(f"product bf16 {n}³", f"{gemm / 1e12:.0f} TFLOP/s")
size = 1 << 12 if small else 1 << 29
x, y = (torch.zeros(size, device=device) for _ in range(2))
row("copy", f"{8 * size / seconds(lambda: y.copy_(x), 1 if small else 8) / 1e12:.2f} TB/s", f"{4 * size >> 20} MiB, read and written")
del x, y

length, heads, kv, d = (32, 4, 2, 64) if small else (8192, 32, 8, 128)
backends = ["CUDNN_ATTENTION", "FLASH_ATTENTION"] if cuda else ["MATH"]
q = torch.randn(1, heads, length, d, device=device, dtype=torch.bfloat16, requires_grad=True)
flops = 4 * 0.5 * length * (length + 1) * heads * d
for name, grouped in [(name, grouped) for name in backends for grouped in (True, False)]:
    # Some versions have a backend for as many heads of keys as of queries only: then so many are given to it, at the same FLOPs.
    if grouped:
        done = False
        k, v = (torch.randn(1, kv, length, d, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    elif done:
        continue
    else:
        k, v = (x.detach().repeat_interleave(heads // kv, 1).requires_grad_() for x in (k, v))
    try:
        with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, name)):
            attend = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
            with torch.no_grad():
                forward = seconds(attend, 1 if small else 10)
            out = attend()
            grad = torch.randn_like(out)
            backward = seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), 1 if small else 5)
    except RuntimeError as e:
        row(f"attention {name}, heads {heads}/{k.shape[1]}", f"not to be had: {str(e).splitlines()[0][:120]}")
        continue
    done = True
    what = f"attention 1 × {length}, heads {heads}/{k.shape[1]} of {d} bf16, {name}"
    row(what, f"{forward * 1e6:.1f} µs, {flops / forward / 1e12:.0f} TFLOP/s", "its product", f"{flops / forward / gemm:.2f}")
    row(what + ", backward", f"{backward * 1e6:.1f} µs, {2.5 * flops / backward / 1e12:.0f} TFLOP/s", "its product", f"{2.5 * flops / backward / gemm:.2f}")
