# SPDX-License-Identifier: Apache-2.0
"""Causal attention within packed documents beside FlashAttention-4's cu_seqlens path, in one run on one card.

    python3 bench/documents_baseline.py build/gpu/bench/bench_cuda_documents [--json FILE]

Rates are bursts, as cuda_kernel.cu defines them, in TFLOP/s of visible pairs; both sides are measured the same
way, one after the other, case by case. Our side is a call of DistAttn in a world of one; the time of a backward is
that of all its kernels on either side. Without FlashAttention-4 (its packages in PYTHONPATH) ours stands alone.
"""
import argparse
import itertools
import json
import subprocess
import time

import torch

try:
    from flash_attn.cute.interface import _flash_attn_bwd, _flash_attn_fwd
except ImportError:
    _flash_attn_fwd = None

MIXED = [120, 1128, 2984, 4096, 512, 8192, 300, 2048, 700, 5000, 1500, 6188]
SHORT = [1 + 37 * i % 50 for i in range(4096)]
PACKS = {
    "mixed": (32768, MIXED),
    "64 of 512": (32768, [512]),
    "16 of 2048": (32768, [2048]),
    "one of 32768": (32768, [32768]),
    "4096 of 1 to 50": (sum(SHORT), SHORT),
}
SHAPES = [dict(dim=128, heads=16, kv_heads=16), dict(dim=64, heads=32, kv_heads=32), dict(dim=128, heads=32, kv_heads=8)]


def all_lengths(tokens, lengths):
    """The documents' lengths, again and again until `tokens` are full."""
    result = []
    for length in itertools.cycle(lengths):
        if tokens == 0:
            return result
        result.append(min(length, tokens))
        tokens -= result[-1]


def burst(call, work):
    """The median of three: some 15 ms of work after 350 ms of idling."""
    begin, end = torch.cuda.Event(True), torch.cuda.Event(True)

    def rate(calls):
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        return work * calls / (1e-3 * begin.elapsed_time(end))

    rate(2)
    bursts = []
    for _ in range(3):
        time.sleep(0.35)
        rate(1)
        bursts.append(rate(max(2, int(0.015 * 600 / work))))
    return sorted(bursts)[1]


def theirs(lengths, dim, heads, kv_heads):
    """{pass: TFLOP/s} of FlashAttention-4."""
    if _flash_attn_fwd is None:
        return {}
    tokens = sum(lengths)
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device="cuda")

    def tensor(heads):
        return torch.randn(tokens, heads, dim, device="cuda", dtype=torch.bfloat16)

    q, k, v, d_o = tensor(heads), tensor(kv_heads), tensor(kv_heads), tensor(heads)
    packed = dict(cu_seqlens_q=ends, cu_seqlens_k=ends, max_seqlen_q=max(lengths), max_seqlen_k=max(lengths), causal=True)
    o, lse = _flash_attn_fwd(q, k, v, return_lse=True, **packed)[:2]
    pairs = sum(n * n / 2 for n in lengths)
    return {
        "forward": burst(lambda: _flash_attn_fwd(q, k, v, return_lse=True, **packed), 4e-12 * pairs * heads * dim),
        "backward": burst(lambda: _flash_attn_bwd(q, k, v, o, d_o, lse, **packed), 10e-12 * pairs * heads * dim),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    results = []
    print(f"{'case':44}{'lightseq':>10}{'FA4':>10}{'ratio':>8}   TFLOP/s")
    for (name, (tokens, lengths)), shape in itertools.product(PACKS.items(), SHAPES):
        words = ["--documents", ",".join(map(str, lengths)), "--tokens", str(tokens), "--brief"]
        for key, value in shape.items():
            words += ["--" + key.replace("_", "-"), str(value)]
        lines = subprocess.run([arguments.program, *words], capture_output=True, text=True, check=True).stdout
        rival = theirs(all_lengths(tokens, lengths), **shape)
        for ours in map(json.loads, lines.splitlines()):
            case = f"{name} d{shape['dim']} h{shape['heads']}/{shape['kv_heads']} {ours['pass']}"
            text = f"{case:44}{ours['burst']:10.0f}"
            if rival:
                ours["flash4_burst"] = rival[ours["pass"]]
                text += f"{ours['flash4_burst']:10.0f}{ours['burst'] / ours['flash4_burst']:8.2f}"
            print(text, flush=True)
            results.append({"pack": name, **ours})
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
