"""Proposals beside the stock generator's: python -m benchmarks.proposals [--model vit_b] [--side 32] [--device cuda]

Both make the proposals of the same frames, (224, 224), by the same random weights; the threshold of the predicted
IoU is set so that a share of the candidates (`--share`, default a tenth) is above it. Suppression of boxes is off,
so that every mask above the thresholds is compared: "differ" is the share of pixels of all masks that differ,
"IoU off" the largest difference of predicted IoU.

Each variant is measured in a process of its own that builds the model, makes one frame to warm up and then
`--frames` frames; rounds alternate between the variants, so that a slow spell of the machine hits all alike.
"s a frame" is the median of all frames. "CPU s" is the same in processor time, which other programs disturb less.
"peak MB" is how far resident memory (VmHWM, Linux), or memory allocated on the GPU, rises over what the model takes.
Without --model the rows are the miniature with 16 and with 32 points a side, and ViT-B with 8. The encoder takes the
same time whatever the points: ViT-B with 32 takes the stock generator minutes a frame.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator

from models.sam import SIZES
from tests.lively_sam import MINI, lively_sam
from zero_shot.proposals import ProposalOptions, propose
from zero_shot.segmenter import Segmenter

ROWS = [("mini", 16), ("mini", 32), ("vit_b", 8)]
VARIANTS = {
    "stock": "stock generator",
    "ours": "ours",
    "kept": "ours, embeddings kept",
    "again": "ours, proposals kept",
}
STABILITY = 0.5  # random weights make masks less sure of themselves than trained ones
EVERYTHING = ProposalOptions(8, -1e9, 0.0, 1.0, 1.0)


def frame_of(seed: int) -> np.ndarray:
    """A frame of plain fields, (224, 224, 3)."""
    fields = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return fields.repeat(32, axis=0).repeat(32, axis=1)


def resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (peak since start or reset) of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


class Peak:
    """The most memory since it was made, beyond what was held then, in MB."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
        else:
            self.before = resident_mb("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the present size

    def mb(self) -> float:
        return (torch.cuda.max_memory_allocated() / 2**20 if self.cuda else resident_mb("VmHWM")) - self.before


def threshold(segmenter: Segmenter, share: float) -> float:
    """A predicted IoU that a share of the first frame's candidates is above, in the widest gap near there."""
    scores = sorted(record["predicted_iou"] for record in propose(segmenter, [frame_of(0)], EVERYTHING)[0])
    place = round((1 - share) * (len(scores) - 1))
    near = np.array(scores[place - 3 : place + 4])
    widest = np.diff(near).argmax()
    return float(near[widest : widest + 2].mean())


def measure(variant: str, args: argparse.Namespace, results: Path) -> dict[str, Any]:
    """Seconds of each frame, wall and processor, and peak memory, in this process; the records go to `results`."""
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    sam = lively_sam(MINI if args.model == "mini" else args.model, seed=2).to(device)
    options = ProposalOptions(args.side, args.threshold, STABILITY, 1.0, 1.0)
    frames = [frame_of(seed) for seed in range(args.frames + 1)]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) if variant in ("kept", "again") else None
        segmenter = Segmenter(sam, cache=cache, precision=args.precision, memory_mib=args.memory)
        if variant == "threshold":
            return {"threshold": threshold(segmenter, args.share)}
        if variant == "kept":
            segmenter.embed(frames)
        if variant == "again":
            propose(segmenter, frames, options)
        generator = SamAutomaticMaskGenerator(sam, **vars(options))
        seconds, cpu = [], []
        records: list[dict[str, Any]] = []
        peak = Peak(device)
        for frame in frames:
            start, start_cpu = time.perf_counter(), time.process_time()
            found = generator.generate(frame) if variant == "stock" else propose(segmenter, [frame], options)[0]
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
            records += found
    np.savez(
        results,
        masks=np.packbits([record["segmentation"] for record in records], axis=-1),
        scores=[record["predicted_iou"] for record in records],
    )
    return {"seconds": seconds[1:], "cpu": cpu[1:], "peak": peak.mb(), "records": len(records)}


def measure_apart(variant: str, args: argparse.Namespace, results: Path) -> dict[str, Any]:
    """The same in a fresh process."""
    numbers = [item for name, value in vars(args).items() for item in (f"--{name}", str(value)) if value is not None]
    command = [sys.executable, "-m", "benchmarks.proposals", *numbers, "--variant", variant, "--results", str(results)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return dict(json.loads(lines[-1]))


def compare(one: Path, other: Path) -> str:
    """How far two files of records are apart."""
    a, b = np.load(one), np.load(other)
    if a["scores"].shape != b["scores"].shape:
        return f"{len(a['scores'])} and {len(b['scores'])} records"
    differ = np.unpackbits(a["masks"] ^ b["masks"]).sum() / max(1, a["masks"].size * 8)
    return f"{len(a['scores'])} records, differ {differ:.1e}, IoU off {np.abs(a['scores'] - b['scores']).max():.1e}"


def row(args: argparse.Namespace) -> None:
    """Measure all variants of one model and number of points, and print them."""
    with tempfile.TemporaryDirectory() as folder:
        files = {variant: Path(folder) / f"{variant}.npz" for variant in VARIANTS}
        args.threshold = measure_apart("threshold", args, Path(folder))["threshold"]
        runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
        for _ in range(args.rounds):
            for variant, measured in runs.items():
                measured.append(measure_apart(variant, args, files[variant]))
        print(f"{args.model}, {args.side} points a side, {args.precision}")
        print(f"{'variant':<24}{'s a frame':>10}{'faster':>9}{'CPU s':>9}{'less':>9}{'peak MB':>9}")
        base = {key: statistics.median(s for run in runs["stock"] for s in run[key]) for key in ("seconds", "cpu")}
        for variant, name in VARIANTS.items():
            wall, cpu = (statistics.median(s for run in runs[variant] for s in run[key]) for key in ("seconds", "cpu"))
            # What an earlier encoding leaves to the allocator would hide what a kept one spares.
            peak = f"{max(run['peak'] for run in runs[variant]):.0f}" if variant in ("stock", "ours") else ""
            gain, less = f"{base['seconds'] / wall:.1f}×", f"{base['cpu'] / cpu:.1f}×"
            print(f"{name:<24}{wall:>10.3f}{gain:>9}{cpu:>9.3f}{less:>9}{peak:>9}")
        print(f"ours and stock: {compare(files['ours'], files['stock'])}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["mini", *SIZES], help="one row: this model")
    parser.add_argument("--side", type=int, help="with this many points a side (default 8)")
    parser.add_argument("--share", type=float, default=0.1, help="of candidates above the threshold (default 0.1)")
    parser.add_argument("--frames", type=int, default=2, help="timed frames per round (default 2)")
    parser.add_argument("--rounds", type=int, default=2, help="processes per variant (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of ours (default fp32)")
    parser.add_argument("--memory", type=int, default=2048, help="of ours, in MiB (default 2048)")
    parser.add_argument("--threshold", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args.variant, args, args.results)))
        return
    print(f"{args.threads} thread(s) on {args.device}, torch {torch.__version__}, {args.frames} frames of 224×224\n")
    rows = [(args.model, args.side or 8)] if args.model else ROWS
    for model, side in rows:
        row(argparse.Namespace(**{**vars(args), "model": model, "side": args.side or side, "results": None}))


if __name__ == "__main__":
    main()
