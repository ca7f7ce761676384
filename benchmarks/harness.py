"""Race two ways to do the same work: each in a process of its own, in turns, with equal results demanded.

A contestant is named "module:function". The function sets the work up and returns it as a callable without
arguments, which returns a number that must come out the same for both contestants.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path


@dataclass
class Cost:
    """seconds: the median call. peak_mb: how far the process's resident memory rose above where it stood just
    before the first call, at its highest. value: what the call returned."""

    seconds: float
    peak_mb: float
    value: float


@dataclass
class Race:
    """One row of the table."""

    work: str
    plain: str
    ours: str
    plain_calls: int = 1
    our_calls: int = 5
    tolerance: float = 1e-4  # relative, between the two values
    memory: bool = True  # whether the work is done in the measured process itself

    def run(self, rounds: int = 2) -> tuple[Cost, Cost]:
        """Measure both in turns. Raises AssertionError if their values differ."""
        costs: dict[str, list[Cost]] = {self.plain: [], self.ours: []}
        for _ in range(rounds):
            for contestant, calls in ((self.plain, self.plain_calls), (self.ours, self.our_calls)):
                costs[contestant].append(_measure(contestant, calls))
        plain, ours = (_typical(costs[contestant]) for contestant in (self.plain, self.ours))
        assert abs(plain.value - ours.value) <= self.tolerance * abs(plain.value), (self.work, plain, ours)
        return plain, ours


def _typical(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.seconds for c in costs), max(c.peak_mb for c in costs), costs[0].value)


def _measure(contestant: str, calls: int) -> Cost:
    command = [sys.executable, "-m", "benchmarks.harness", contestant, str(calls)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return Cost(**json.loads(lines[-1]))


def _resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (the most since the last reset) in MB. Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main(contestant: str, calls: int) -> None:
    """Measure in this process and print the cost as JSON. The first call warms up and counts for memory alone."""
    module, _, function = contestant.partition(":")
    work = getattr(import_module(module), function)()
    before = _resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    value = work()
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    peak = _resident_mb("VmHWM") - before
    print(json.dumps({"seconds": statistics.median(seconds), "peak_mb": peak, "value": value}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
