"""Race two ways to do the same work: each in a process of its own, in turns, with equal results demanded.

A contestant is named "module:function". The function sets the work up and returns it as a callable without
arguments, which returns what came of it, arrays by name, or a callable that looks it up when the clock has stopped.
"""

import contextlib
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor

CONTESTANTS = [
    "benchmarks.attention",
    "benchmarks.data",
    "benchmarks.segmentors",
    "benchmarks.studies",
    "benchmarks.zero_shot",
]
Output = dict[str, np.ndarray]
Work = Callable[[], Output | Callable[[], Output]]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    part, size: what is done, and to how much. beside: what the baseline is. plain, ours: the contestants.
    options: what both get. tiny: what they get instead where only the results matter. plain_calls, our_calls: timed
    calls a process, after one that warms up; with 0 the first call is the timed one. clock: by which they are
    compared: the processor's where one thread does all, for other programs disturb it less. tolerance: the largest
    difference of results. memory: whether the work is done in the measured process itself. needs: free memory in GB
    that the baseline takes. slow: left out where time is short. prepare: a function that gives more options, called
    in a process of its own first.
    """

    part: str
    size: str
    beside: str
    plain: str
    ours: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    plain_calls: int = 1
    our_calls: int = 3
    clock: Literal["processor", "wall"] = "processor"
    tolerance: float = 1e-4
    memory: bool = True
    needs: float = 0.0
    slow: bool = False
    prepare: str = ""
    device: str = "cpu"


@dataclass
class Cost:
    """wall, processor: seconds of the median call. peak_mb: how far memory rose above what was held just before the
    first call, at its highest: the process's resident memory, or on a GPU what was allocated there."""

    wall: float
    processor: float
    peak_mb: float
    output: Output = field(repr=False, default_factory=dict)


@dataclass
class Result:
    """A row's costs, and the largest difference of what came out (see `difference`)."""

    row: Row
    plain: Cost
    ours: Cost
    difference: float

    @property
    def faster(self) -> float:
        """How many times as fast ours is, by the row's clock."""
        return float(getattr(self.plain, self.row.clock) / max(getattr(self.ours, self.row.clock), 1e-9))

    @property
    def smaller(self) -> float | None:
        """How many times as much memory the baseline takes; None where that was not measured."""
        return self.plain.peak_mb / max(self.ours.peak_mb, 0.1) if self.row.memory else None


class Races:
    """Measures rows; a baseline that several rows share is measured once."""

    def __init__(self, rounds: int = 2, tiny: bool = False):
        """rounds: processes for each contestant. tiny: at the rows' tiny sizes, one call, in this process."""
        self.rounds, self.tiny = rounds, tiny
        self.known: dict[tuple[str, str], list[Cost]] = {}

    def run(self, row: Row) -> Result:
        """Measure both contestants in turns. Raises AssertionError if their results differ by more than allowed."""
        options = dict(row.tiny if self.tiny else row.options)
        if row.prepare:
            options |= self._apart(call, row.prepare, options)
        costs: dict[str, list[Cost]] = {row.ours: []}
        shared = (row.plain, repr(sorted(options.items())))
        again = shared not in self.known
        plain = self.known.setdefault(shared, [])
        rounds = self.rounds if row.plain_calls and not self.tiny else 1  # a long call needs no second
        for _ in range(rounds):
            if again:
                plain.append(self._apart(measure, row.plain, options, row.plain_calls, row.device))
            costs[row.ours].append(self._apart(measure, row.ours, options, row.our_calls, row.device))
        one, other = typical(plain), typical(costs[row.ours])
        apart = difference(one.output, other.output)
        assert apart <= row.tolerance, f"{row.part}, {row.size}: results differ by {apart:.1e}"
        return Result(row, one, other, apart)

    def _apart(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result from a fresh process."""
        if self.tiny:
            return function(*arguments)
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        context = get_context("forkserver")  # a process that has already imported everything is forked each time
        context.set_forkserver_preload(CONTESTANTS)
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(_and_rest, function, *arguments).result()


def _and_rest(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, once joblib's workers are gone: they would wait for more, and this process for them."""
    # If memory runs out after all, the kernel is to end this process and none that does real work.
    Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        return function(*arguments)
    finally:
        get_reusable_executor(kill_workers=True).shutdown(kill_workers=True)


def call(contestant: str, options: Mapping[str, Any]) -> Any:
    """What the function of that name returns, with nothing printed."""
    module, _, function = contestant.partition(":")
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        return getattr(import_module(module), function)(**options)


def measure(contestant: str, options: Mapping[str, Any], calls: int, device: str = "cpu") -> Cost:
    """Time so many calls after a first one, which counts for memory; with 0 the first is timed as well."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    work = call(contestant, options)
    peak, times = _Peak(device), []
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        for _ in range(1 + calls):
            begin = time.perf_counter(), _processor()
            output = work()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - begin[0], _processor() - begin[1]))
    wall, processor = (statistics.median(column) for column in zip(*times[min(1, calls) :], strict=True))
    return Cost(wall, processor, peak.mb(), output() if callable(output) else output)


def typical(costs: list[Cost]) -> Cost:
    """The median of several processes' times, and the largest of their peaks."""
    wall, processor = (statistics.median(getattr(c, clock) for c in costs) for clock in ("wall", "processor"))
    return Cost(wall, processor, max(c.peak_mb for c in costs), costs[0].output)


def difference(one: Output, other: Output) -> float:
    """The largest difference of two outputs: of masks the share of pixels that differ, of numbers the largest
    difference over the largest number of the first."""
    assert one.keys() == other.keys(), (sorted(one), sorted(other))
    found = [0.0]
    for name, a in one.items():
        b = other[name]
        assert a.shape == b.shape and a.dtype == b.dtype, f"{name}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        if a.dtype == bool:
            found.append(float((a != b).mean()) if a.size else 0.0)
        elif a.size:
            a, b = a.astype(np.float64), b.astype(np.float64)
            found.append(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)))
    return max(found)


class _Peak:
    """The most memory since it was made, beyond what was held then."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
        else:
            self.before = _resident_mb("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM

    def mb(self) -> float:
        most = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else _resident_mb("VmHWM")
        return most - self.before


def _resident_mb(name: str) -> float:
    """VmRSS (now) or VmHWM (the most since the last reset) of this process in MB. Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def _processor() -> float:
    """Seconds that this process has had a processor."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
