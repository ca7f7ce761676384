"""Time and memory of what is done faster here, beside its textbook form, in one run.

    python -m benchmarks [--only WORD] [--out FILE.md]        or: make bench

Every row demands equal results of its two contestants. Run it on a quiet machine.
"""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import Race
from utils.files import write_text
from utils.results import commit

HERE = "benchmarks.contestants"
RACES = [
    Race("M_F, 20 frames", f"{HERE}:f_measure_plain", f"{HERE}:f_measure_ours", 3, 30),
    Race("TPAVI block, 5×56×56, forward + backward", f"{HERE}:tpavi_plain", f"{HERE}:tpavi_ours", 2, 10),
    Race("preprocess 48 clips", f"{HERE}:preprocess_plain", f"{HERE}:preprocess_ours", 1, 3, 1e-6, memory=False),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the races and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args(argv)
    lines = [
        f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, commit {commit()[:12]}",
        "",
        "| work | textbook s | ours s | faster | textbook MB | ours MB | less memory |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for race in RACES:
        if args.only in race.work:
            plain, ours = race.run()
            line = f"| {race.work} | {plain.seconds:.4f} | {ours.seconds:.4f} | {plain.seconds / ours.seconds:.1f}× |"
            if race.memory:
                line += f" {plain.peak_mb:.0f} | {ours.peak_mb:.0f} | {plain.peak_mb / max(ours.peak_mb, 0.1):.1f}× |"
            lines.append(line if race.memory else line + " | | |")
            print(lines[-1], flush=True)
    if args.out:
        write_text(args.out, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
