"""Time and memory of every part beside a plain form or a peer, in one table.

    python -m benchmarks [--only PATTERN] [--rounds N] [--quick] [--out FILE.md]        or: make bench

Every row demands equal results of its two contestants. Each is measured on one thread (preprocessing: as the row
says) in processes of its own, in turns. Run it on a quiet machine: it takes ten minutes on two cores.
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
from dataclasses import asdict
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
    "| part | size | beside | s | ours, s | faster | by | MB | ours, MB | less | largest difference |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
PACKAGES = ("torch", "numpy", "opencv-python-headless", "av", "librosa", "segment-anything")


def machine() -> str:
    """What the figures were measured on, and with."""
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    cpu = f"{os.cpu_count()} cores ({name[1] if name else platform.machine()})"
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    python = f"Python {platform.python_version()}"
    return ", ".join([cpu, f"{memory:.0f} GB", *gpu, python, *versions, f"commit {git_commit()[:12]}"])


def missing(row: Row) -> str:
    """What a row needs and this machine lacks; empty if nothing."""
    if row.device == "cuda" and not torch.cuda.is_available():
        return "a GPU"
    free = re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())
    if free and int(free[1]) / 2**20 < row.min_gib:
        return f"{row.min_gib:.0f} GB of free memory for the baseline"
    return ""


def line(result: Result) -> str:
    """A row of the table."""
    row, plain, ours = result.row, result.reference, result.optimized
    cells = [row.part, row.size, row.compared_with, *(_seconds(getattr(cost, row.clock)) for cost in (plain, ours))]
    cells += [f"{result.speedup:.1f}×", row.clock]
    if result.memory_ratio is None:
        cells += ["", "", ""]
    else:
        cells += [f"{plain.peak_mb:.0f}", f"{ours.peak_mb:.0f}", f"{result.memory_ratio:.1f}×"]
    return f"| {' | '.join([*cells, f'{result.difference:.1e}'])} |"


def record(result: Result) -> dict[str, object]:
    """The same for the JSON file."""
    row = {name: getattr(result.row, name) for name in ("part", "size", "beside", "clock", "tolerance")}
    costs = {name: _numbers(getattr(result, name), result.row) for name in ("plain", "ours")}
    return {**row, **costs, "faster": result.speedup, "smaller": result.memory_ratio, "difference": result.difference}


def _numbers(cost: Cost, row: Row) -> dict[str, object]:
    kept = {name: value for name, value in asdict(cost).items() if name != "output"}
    return kept if row.memory else {"wall": cost.wall}


def _seconds(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


@cli_entry
def main(argv: Sequence[str] | None = None, tiny: bool = False) -> int:
    """Run the rows and print the table as it grows. tiny: only to see that the rows run and agree."""
    parser = Parser(__doc__)
    parser.add_argument("--only", default="", metavar="PATTERN", help="only rows in whose part or size this is found")
    parser.add_argument("--rounds", type=POSITIVE_INT, default=2, help="processes for each contestant (default 2)")
    parser.add_argument("--quick", action="store_true", help="leave out what takes long")
    parser.add_argument("--out", type=expand_user, help="also write the table to this file, and a JSON file beside it")
    args = parser.parse_args(argv)
    chosen = [row for row in ROWS if re.search(args.only, f"{row.part} {row.size}") and not (args.quick and row.slow)]
    heading = machine()
    lines, records, races = [], [], BenchmarkRunner(args.rounds, tiny)
    print("\n".join([heading, "", *HEAD]), flush=True)
    for row in chosen:
        if lack := missing(row):
            print(f"left out: {row.part}, {row.size}: wants {lack}", file=sys.stderr, flush=True)
            continue
        result = races.run(row)
        lines.append(line(result))
        records.append(record(result))
        print(lines[-1], flush=True)
    if args.out:
        write_text(args.out, "\n".join([heading, "", *HEAD, *lines]) + "\n")
        write_text(args.out.with_suffix(".json"), json.dumps({"machine": heading, "rows": records}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
