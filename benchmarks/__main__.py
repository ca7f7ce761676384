"""Compare each component with a reference implementation: time, memory and outputs, in one table.

    python -m benchmarks [--only PATTERN] [--rounds N] [--quick] [--tiny] [--out FILE.md]        or: make bench

A row fails if the outputs of the two implementations differ. Each implementation runs on one thread (preprocessing: as
the row says) in processes of its own, in turns.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import BenchmarkRunner, Cost, Result, Row
from benchmarks.rows import ROWS
from utils.cli import Parser, cli_entry
from utils.files import write_text
from utils.option_ranges import POSITIVE_INT
from utils.paths import expand_user
from utils.results import git_commit

HEAD = (
    "| component | size | reference | reference, s | optimized, s | speedup | clock | reference, MiB | optimized, MiB "
    "| memory ratio | relative difference |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
PACKAGES = ("torch", "numpy", "opencv-python-headless", "av", "librosa", "segment-anything")


def machine() -> str:
    """The machine and the versions that the table was measured with."""
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    cpu = f"{os.cpu_count()} cores ({name[1] if name else platform.machine()})"
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    python = f"Python {platform.python_version()}"
    return ", ".join([cpu, f"{memory:.0f} GB", *gpu, python, *versions, f"commit {git_commit()[:12]}"])


def missing(row: Row) -> str:
    """What a row needs and this machine does not have; empty if nothing."""
    if row.device == "cuda" and not torch.cuda.is_available():
        return "a GPU"
    free = re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())
    if free and int(free[1]) / 2**20 < row.min_gib:
        return f"{row.min_gib:.0f} GiB of free memory for the reference"
    return ""


def line(result: Result) -> str:
    """A row of the table."""
    row, reference, optimized = result.row, result.reference, result.optimized
    cells = [row.component, row.size, row.compared_with]
    cells += [format_seconds(cost.seconds(row.clock)) for cost in (reference, optimized)]
    cells += [f"{result.speedup:.1f}×", row.clock]
    if result.memory_ratio is None:
        cells += ["", "", ""]
    else:
        cells += [f"{reference.peak_mib:.0f}", f"{optimized.peak_mib:.0f}", f"{result.memory_ratio:.1f}×"]
    return f"| {' | '.join([*cells, f'{result.difference:.1e}'])} |"


def record(result: Result) -> dict[str, object]:
    """A row of the JSON file."""
    row = {name: getattr(result.row, name) for name in ("component", "size", "compared_with", "clock", "tolerance")}
    costs = {name: cost_record(getattr(result, name), result.row) for name in ("reference", "optimized")}
    ratios = {"speedup": result.speedup, "memory_ratio": result.memory_ratio}
    return {**row, **costs, **ratios, "relative_difference": result.difference}


def cost_record(cost: Cost, row: Row) -> dict[str, float]:
    """The numbers of a cost. Where the work is done in several processes only the wall clock counts."""
    numbers = {"wall_s": cost.wall_s, "cpu_s": cost.cpu_s, "peak_mib": cost.peak_mib}
    return numbers if row.memory else {"wall_s": cost.wall_s}


def format_seconds(value: float) -> str:
    """Seconds to about three digits."""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; prints the table row by row, and returns 1 if a row failed."""
    parser = Parser(__doc__)
    parser.add_argument("--only", default="", metavar="PATTERN", help="only rows whose component or size matches this")
    parser.add_argument("--rounds", type=POSITIVE_INT, default=2, help="processes for each implementation (default 2)")
    parser.add_argument("--quick", action="store_true", help="leave out the slow rows")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the outputs agree")
    parser.add_argument("--out", type=expand_user, help="also write the table to this file, and a JSON file beside it")
    args = parser.parse_args(argv)
    chosen = [row for row in ROWS if re.search(args.only, f"{row.component} {row.size}")]
    heading = machine()
    lines, records, failed, runner = [], [], False, BenchmarkRunner(args.rounds, args.tiny)
    print("\n".join([heading, "", *HEAD]), flush=True)
    for row in chosen:
        if args.quick and row.slow:
            continue
        if need := missing(row):
            print(f"left out: {row.component}, {row.size}: needs {need}", file=sys.stderr, flush=True)
            continue
        try:
            result = runner.run(row)
        except AssertionError as error:
            failed = True
            print(f"failed: {error}", file=sys.stderr, flush=True)
            continue
        lines.append(line(result))
        records.append(record(result))
        print(lines[-1], flush=True)
        if args.out:  # after every row, so that a run that is stopped keeps its rows
            write_text(args.out, "\n".join([heading, "", *HEAD, *lines]) + "\n")
            found = {"machine": heading, "rows": records}
            write_text(args.out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
