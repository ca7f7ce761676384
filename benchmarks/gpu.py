"""What the GPU does with the networks of the study, beside what it could: sh benchmarks/gpu.sh

    sh benchmarks/gpu.sh [--only WORD] [--calls N] [--out FILE.md]       some minutes on any CUDA machine
    python -m benchmarks.gpu --device cpu --tiny                         the same code at sizes for a test

Weights are random, so nothing is downloaded. Columns: median ms of a call; how much faster than the part's first
form; s of the first call, compilation included; least ms, the ceiling that benchmarks.roofline reckons from the card's
measured rates of matrix products and copies, and the part of it that is reached (compiled programs fuse operations and
may pass it); GFLOP of the products; GB read and written; peak GB allocated, weights included; "apart" is the relative
difference of the outputs from the first form's (for proposals, of how the frame is covered: rounding moves some
candidates over the threshold). Beside --out goes a JSON file of the same numbers.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_rows import ROWS, Row, Target, Variant
from benchmarks.roofline import Card, Counter, measure, seconds
from utils.cli import InputError, Parser, cli_entry
from utils.device import set_matmul_precision
from utils.files import write_text
from utils.option_ranges import POSITIVE_INT
from utils.paths import expand_user
from utils.results import git_commit
from zero_shot.segmenters.sam_encoder import relative_position_bias

COLUMNS = ("part", "form", "ms", "faster", "first s", "least ms", "reached", "GFLOP", "GB", "peak GB", "apart")


def run(row: Row, form: Variant, place: Target, card: Card, calls: int) -> tuple[dict[str, Any], Tensor]:
    """Measure one form of a row. Returns its numbers and what the work gave."""
    cuda = place.device.type == "cuda"
    set_matmul_precision(form.precision)
    torch.compiler.reset()
    step = row.make(form, place)
    begin = time.perf_counter()
    output = step().float().cpu()  # of the first call, for training goes on from there
    first = time.perf_counter() - begin
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place.device)
    taken = seconds(step, place.device, calls)
    peak = torch.cuda.max_memory_allocated(place.device) if cuda else None
    counted = row.make(Variant(form.precision, form.by_pixel, False, form.stock), place)
    with Counter(card) as counter:
        counted()
    work = counter.work
    numbers = {
        "part": row.part,
        "form": str(form),
        "ms": 1e3 * taken,
        "first_s": first,
        "least_ms": 1e3 * work.least,
        "gflop": sum(work.flops.values()) / 1e9,
        "gb": work.bytes / 1e9,
        "peak_gb": None if peak is None else peak / 1e9,
    }
    return numbers, output


def measured(row: Row, place: Target, card: Card, calls: int) -> list[dict[str, Any]]:
    """All forms of a row, one after the other; what fails says why, and the others go on."""
    found: list[dict[str, Any]] = []
    first: Tensor | None = None
    for form in row.forms:
        try:
            numbers, output = run(row, form, place, card, calls)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            reason = str(error).strip().splitlines()[0][:120]
            found.append({"part": row.part, "form": str(form), "failed": f"{type(error).__name__}: {reason}"})
        else:
            first = output if first is None else first
            numbers["faster"] = next(other["ms"] for other in [*found, numbers] if "ms" in other) / numbers["ms"]
            numbers["apart"] = float((output - first).norm() / first.norm())
            found.append(numbers)
        print(line(found[-1]), flush=True)
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def line(numbers: dict[str, Any]) -> str:
    """A row of the table."""
    if "failed" in numbers:
        return f"| {numbers['part']} | {numbers['form']} | {numbers['failed']} |" + " |" * (len(COLUMNS) - 3)
    peak = "" if numbers["peak_gb"] is None else f"{numbers['peak_gb']:.2f}"
    cells = [
        numbers["part"],
        numbers["form"],
        f"{numbers['ms']:.2f}",
        f"{numbers['faster']:.2f}×",
        f"{numbers['first_s']:.1f}",
        f"{numbers['least_ms']:.2f}",
        f"{100 * numbers['least_ms'] / numbers['ms']:.0f} %",
        f"{numbers['gflop']:.1f}",
        f"{numbers['gb']:.2f}",
        peak,
        f"{numbers['apart']:.1e}",
    ]
    return "| " + " | ".join(cells) + " |"


def heading(place: Target, card: Card) -> list[str]:
    """The card, what it was measured to do, and the table's head."""
    rates = ", ".join(f"{name} {rate / 1e12:.4g}" for name, rate in card.flops.items())
    facts = f"{card.name}, torch {torch.__version__}, commit {git_commit()[:12]}"
    facts += "; tiny sizes, whose times say nothing" if place.tiny else ""
    measured = f"Measured: TFLOP/s of matrix products {rates}; copies {card.bandwidth / 1e9:.4g} GB/s."
    lines = [facts, "", measured]
    if place.device.type == "cuda":
        fused = {str(dtype).removeprefix("torch."): fused_attention(dtype) for dtype in (torch.float32, torch.bfloat16)}
        lines.append(
            "SAM's attention with its positions takes the memory-efficient kernel: "
            + ", ".join(f"{dtype} {'yes' if taken else 'NO'}" for dtype, taken in fused.items())
        )
    return [*lines, "", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]


def fused_attention(dtype: torch.dtype) -> bool:
    """Whether the memory-efficient kernel takes what the encoder gives it, in windows of 14×14 and 16 heads."""
    size, heads, width = 14, 16, 80
    q, k, v = torch.randn(3, 1, heads, size * size, width, device="cuda", dtype=dtype)
    rows = torch.randn(heads, size, size, size, device="cuda", dtype=dtype)
    try:
        with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
            F.scaled_dot_product_attention(q, k, v, attn_mask=relative_position_bias(rows, rows)[None])
    except RuntimeError:
        return False
    return True


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 if any form failed."""
    parser = Parser(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it works")
    parser.add_argument("--only", default="", metavar="WORD", help="only parts or forms whose name contains this")
    parser.add_argument("--calls", type=POSITIVE_INT, default=5, help="timed calls of each form (default 5)")
    parser.add_argument("--out", type=expand_user, metavar="FILE.md", help="also write the table to this file")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device here; --device cpu --tiny shows that the code works")
    place = Target(torch.device(args.device), args.tiny, "eager" if args.tiny else "inductor")
    card = measure(place.device, 128 if args.tiny else 8192)
    lines = heading(place, card)
    print("\n".join(lines), flush=True)
    rows = [Row(row.part, row.make, [form for form in row.forms if args.only in f"{row.part} {form}"]) for row in ROWS]
    found = [numbers for row in rows for numbers in measured(row, place, card, args.calls)]
    set_matmul_precision("fp32")
    if args.out:
        write_text(args.out, "\n".join([*lines, *map(line, found)]) + "\n")
        facts = {"card": vars(card), "torch": torch.__version__, "commit": git_commit(), "rows": found}
        write_text(args.out.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
    return int(any("failed" in numbers for numbers in found))


if __name__ == "__main__":
    sys.exit(main())
