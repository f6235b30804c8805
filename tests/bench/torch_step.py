"""The training step of train.c in PyTorch and transformers: forward, loss on every token, backward, clipping, AdamW.

    torch_step.py DIR pretrained|random ROWS f32|bf16 THREADS [cuda|cpu [small]]

ROWS holds a row of token ids a line. Of the ways PyTorch has to do the step, each is tried and the fastest kept: rows padded to the
longest, sorted by length into four batches of which each is padded, or packed into one sequence with restarting positions; bf16 by autocast over f32 weights, or with weights and AdamW's state in bf16
(less than we do: we keep f32 masters and moments). Prints "ready HOW", then for each line of input one step: "SECONDS LOSS".

With a device named: a row of tests/gpu-check's table for each way, eager and by torch.compile. Rows of one length then need no padding and no
mask, which is the best case for attention.
"""
import sys
import time

try:
    import torch
    import transformers
except ImportError as e:
    sys.exit(f"torch_step.py: {e}")

directory, init, rows_file, dtype, threads = sys.argv[1:6]
device = sys.argv[6] if len(sys.argv) > 6 else None
if int(threads):
    torch.set_num_threads(int(threads))
torch.manual_seed(0)
transformers.logging.set_verbosity_error()
clock = time.process_time if threads == "1" else time.monotonic  # as main.c
rows = [[int(i) for i in line.split()] for line in open(rows_file)]


count = sum(len(r) - 1 for r in rows)  # tokens with loss


def pad(some):
    n = max(map(len, some))
    ids, labels, mask = (torch.full((len(some), n), fill) for fill in (0, -100, 0))
    for i, r in enumerate(some):
        ids[i, : len(r)] = labels[i, : len(r)] = torch.tensor(r)
        mask[i, : len(r)] = 1
    return dict(input_ids=ids, labels=labels, attention_mask=mask)


def padded():
    return [pad(rows)]


def by_length():
    by = sorted(rows, key=len)
    n = -(-len(by) // 4)
    return [pad(by[i : i + n]) for i in range(0, len(by), n)]


def packed():
    ids = torch.tensor([[i for r in rows for i in r]])
    labels = torch.tensor([[-100 if k == 0 else i for r in rows for k, i in enumerate(r)]])
    return [dict(input_ids=ids, labels=labels, position_ids=torch.tensor([[k for r in rows for k in range(len(r))]]))]


def build(weights):
    if init == "random":
        config = transformers.AutoConfig.from_pretrained(directory)
        with torch.device(device or "cpu"):
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=weights)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa", dtype=weights)
    model.train()
    model.config.use_cache = False
    if device:
        model.to(device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)


def step(model, optimizer, batches, autocast):
    start = clock()
    total = 0.0
    for batch in batches:
        with torch.autocast(device or "cpu", torch.bfloat16, enabled=autocast):
            loss = model(**batch, num_items_in_batch=count).loss
        loss.backward()
        total += loss.detach() if device else loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return clock() - start, total


def equal_rows():
    """Rows of one length, one below the other: no mask, so that attention may be causal by itself."""
    ids = torch.tensor(rows)
    labels = ids.clone()
    labels[:, 0] = -100
    return [dict(input_ids=ids, labels=labels)]


def measure_on_device():
    small = "small" in sys.argv
    equal = len({len(r) for r in rows}) == 1
    way = equal_rows if equal else padded
    n_token = sum(map(len, rows))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for weights, autocast, how in [(torch.bfloat16, False, "bf16 weights and AdamW"), (torch.float32, True, "f32 weights, autocast")]:
        for compiled in [False] if small else [False, True]:
            model = optimizer = run = None
            job = f"PyTorch: training step, {'compiled' if compiled else 'eager'}, sdpa, {how}, {'equal rows' if equal else 'padded'}, {n_token} tokens"
            try:
                model, optimizer = build(weights)
                run = torch.compile(model) if compiled else model
                batches = [{k: v.to(device) for k, v in b.items()} for b in way()]
                times = []
                for i in range(2 if small else 8):
                    wait()
                    begin = time.perf_counter()
                    loss = step(run, optimizer, batches, autocast)[1]
                    wait()
                    times.append(time.perf_counter() - begin)
                t = sorted(times[len(times) // 3 :])[len(times) // 3]
                print(f"| {job} | {n_token / t:.0f} tokens/s, {t * 1e3:.0f} ms | loss {float(loss):.4f} | |", flush=True)
            except RuntimeError as e:  # out of memory above all
                print(f"| {job} | not measured: {str(e).splitlines()[0][:160]} | | |", flush=True)
            del model, optimizer, run
            if device == "cuda":
                torch.cuda.empty_cache()


if device:
    measure_on_device()
    sys.exit()

ways = [(torch.float32, False, "f32")] if dtype == "f32" else [
    (torch.bfloat16, False, "bf16 weights and AdamW"), (torch.float32, True, "autocast")]
best = None
for weights, autocast, how in ways:
    model, optimizer = build(weights)
    for way in (padded, by_length, packed):
        batch, name = way(), way.__name__.replace("_", " ")
        t = min(step(model, optimizer, batch, autocast)[0] for _ in range(1 if best and best[0] > 2 else 2))
        print(f"torch_step.py: {dtype} {how}, {name}: {t:.3f} s", file=sys.stderr)
        if best is None or t < best[0]:
            best = t, weights, autocast, batch, f"{how}, {name}"
    del model, optimizer

_, weights, autocast, batch, how = best
model, optimizer = build(weights)
step(model, optimizer, batch, autocast)
print("ready", how, flush=True)
for _ in sys.stdin:
    print(*step(model, optimizer, batch, autocast), flush=True)
