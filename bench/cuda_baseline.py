# SPDX-License-Identifier: Apache-2.0
"""The Hopper kernels beside cuDNN's, and the portable ones beside FlashAttention-2's, both of which PyTorch
calls, in one run on one card.

    python3 bench/cuda_baseline.py build/gpu/bench/bench_cuda_kernel [SELECTION] [--json FILE]

SELECTION is main (the default), lengths, dims, other, portable or all of these, which are forwards; or backward,
backward_lengths, backward_other or backward_portable. Burst and sustained are defined in cuda_kernel.cu; both
sides are measured the same way, one after the other, case by case. The time of a backward is that of all its
kernels on either side.
"""
import argparse
import json
import subprocess
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def case(
    mask="full",
    dim=128,
    batch=4,
    seqlen=8192,
    heads=16,
    kv_heads=None,
    type="bf16",
    carry=False,
    portable=False,
    backward=False,
    deterministic=False,
):
    kv_heads = kv_heads or heads
    return dict(locals())


BOTH = ("full", "causal")
SELECTIONS = {
    "main": [case(mask, 128) for mask in BOTH] + [case(mask, 64, heads=32) for mask in BOTH],
    "lengths": [
        case(mask, 128, batch=max(1, 32768 // s), seqlen=s) for s in (1024, 2048, 16384, 32768) for mask in BOTH
    ],
    "dims": [case(mask, dim, heads=2048 // dim // 8 * 8 or 8) for dim in (96, 192, 256) for mask in BOTH]
    + [case(mask, 128, type="fp16") for mask in BOTH]
    + [case(mask, 64, heads=32, type="fp16") for mask in BOTH],
    "other": [case(mask, 128, batch=2, heads=32, kv_heads=8) for mask in BOTH]
    + [case("4096", 128, batch=1, seqlen=32768)]
    + [case(mask, 128, batch=1, heads=32, carry=carry) for mask in BOTH for carry in (False, True)],
    "portable": [case(mask, 128, portable=True) for mask in BOTH]
    + [case(mask, 64, heads=32, portable=True) for mask in BOTH],
}
BACKWARD = {
    "backward": [
        case(mask, dim, heads=2048 // dim, backward=True, deterministic=deterministic)
        for deterministic in (False, True)
        for dim in (128, 64)
        for mask in BOTH
    ],
    "backward_lengths": [
        case(mask, 128, batch=max(1, 32768 // s), seqlen=s, backward=True)
        for s in (1024, 2048, 4096, 16384)
        for mask in BOTH
    ],
    "backward_other": [case(mask, 128, heads=32, kv_heads=8, backward=True) for mask in BOTH]
    + [case(mask, 128, type="fp16", backward=True) for mask in BOTH]
    + [case(mask, dim, heads=2048 // dim // 8 * 8, backward=True) for dim in (96, 192, 256) for mask in BOTH],
    "backward_portable": [
        case(mask, dim, heads=2048 // dim, backward=True, portable=True) for dim in (128, 64) for mask in BOTH
    ],
}


def work(c):
    n = c["seqlen"]
    if c["mask"] == "full":
        pairs = n * n
    elif c["mask"] == "causal":
        pairs = n * (n + 1) / 2
    else:
        window = int(c["mask"]) + 1
        pairs = n * window - window * (window - 1) / 2
    return (10e-12 if c["backward"] else 4e-12) * c["batch"] * c["heads"] * pairs * c["dim"]


def baseline(c):
    """(burst, sustained) of PyTorch's kernel in TFLOP/s, or None where it has none for the case."""
    type = torch.bfloat16 if c["type"] == "bf16" else torch.float16

    def tensor(heads):
        return torch.randn(c["batch"], c["seqlen"], heads, c["dim"], device="cuda", dtype=type).transpose(1, 2)

    q, k, v = tensor(c["heads"]), tensor(c["kv_heads"]), tensor(c["kv_heads"])
    begin, end = torch.cuda.Event(True), torch.cuda.Event(True)

    def forward():
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=c["mask"] == "causal", enable_gqa=c["heads"] != c["kv_heads"]
        )

    backend = SDPBackend.FLASH_ATTENTION if c["portable"] else SDPBackend.CUDNN_ATTENTION
    call = forward
    if c["backward"]:
        for x in (q, k, v):
            x.requires_grad_()
        d_o = tensor(c["heads"])
        try:
            with sdpa_kernel([backend]):
                o = forward()
        except RuntimeError:
            return None

        def call():
            torch.autograd.grad(o, (q, k, v), d_o, retain_graph=True)

    def rate(launches):
        begin.record()
        for _ in range(launches):
            call()
        end.record()
        torch.cuda.synchronize()
        return work(c) * launches / (1e-3 * begin.elapsed_time(end))

    def launches(seconds):
        return max(4, int(seconds * 600 / work(c)))

    with torch.set_grad_enabled(c["backward"]), sdpa_kernel([backend]):
        try:
            rate(2)
        except RuntimeError:
            return None
        bursts = []
        for _ in range(3):
            time.sleep(0.35)
            rate(1)
            bursts.append(rate(launches(0.015)))
        rate(launches(0.7))
        return sorted(bursts)[1], rate(launches(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("selection", nargs="?", default="main", choices=[*SELECTIONS, *BACKWARD, "all"])
    parser.add_argument("--json")
    arguments = parser.parse_args()
    chosen = SELECTIONS if arguments.selection == "all" else [arguments.selection]
    selections = SELECTIONS | BACKWARD
    results = []
    print(f"{'case':60}{'lightseq':>14}{'cuDNN or FA2':>14}{'ratio':>14}   burst / sustained, TFLOP/s")
    for c in [c for name in chosen for c in selections[name]]:
        words = ["--pass", "backward" if c["backward"] else "forward"]
        for key in ("type", "mask", "dim", "batch", "seqlen", "heads", "kv_heads"):
            words += ["--" + key.replace("_", "-"), str(c[key])]
        words += ["--" + option for option in ("carry", "portable", "deterministic") if c[option]]
        line = subprocess.run([arguments.program, *words], capture_output=True, text=True, check=True).stdout
        ours = json.loads(line)
        # cuDNN's windows are not in PyTorch, nor does it carry.
        theirs = None if c["carry"] or c["mask"] not in BOTH else baseline(c)
        name = (
            f"{c['type']} d{c['dim']} {c['mask']} b{c['batch']} s{c['seqlen']} h{c['heads']}/{c['kv_heads']}"
            f"{' carry' if c['carry'] else ''}{' portable' if c['portable'] else ''}"
            f"{' backward' if c['backward'] else ''}{' deterministic' if c['deterministic'] else ''}"
        )
        text = f"{name:60}{ours['burst']:7.0f}{ours['sustained']:7.0f}"
        if theirs:
            rival = "flash2" if c["portable"] else "cudnn"
            ours |= {f"{rival}_burst": theirs[0], f"{rival}_sustained": theirs[1]}
            text += f"{theirs[0]:7.0f}{theirs[1]:7.0f}"
            text += f"{ours['burst'] / theirs[0]:7.2f}{ours['sustained'] / theirs[1]:7.2f}"
        print(text, flush=True)
        results.append(ours)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
