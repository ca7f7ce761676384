"""Compare two implementations of the same work: reference and optimized, each in processes of its own, in turns.

An implementation is named "module:function". The function prepares the work and returns it as a callable without
arguments, which returns its outputs (arrays by name), or a callable that reads them back after the clock has stopped.
"""

import contextlib
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor

from utils.peak_memory import PeakMemory

MODULES = [
    "benchmarks.attention",
    "benchmarks.data",
    "benchmarks.demos",
    "benchmarks.scoring",
    "benchmarks.segmenters",
    "benchmarks.segmentors",
    "benchmarks.studies",
    "benchmarks.tuning",
    "benchmarks.zero_shot",
]
Output = dict[str, np.ndarray]
Work = Callable[[], Output | Callable[[], Output]]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        component: What is measured.
        size: The size of its input.
        compared_with: How the reference implementation works, in a few words.
        reference, optimized: The two implementations, as "module:function".
        options: Keyword arguments of both.
        tiny: Keyword arguments instead of these, at which only the outputs matter.
        reference_calls, optimized_calls: Timed calls per process, after one warm-up call; with 0 the first call is
            timed.
        clock: Which time is compared. CPU time where one thread does the work, because other programs disturb it less.
        tolerance: Upper bound of the relative difference of the outputs.
        memory: Whether to compare memory; only where the work is done in the measured process itself.
        min_gib: Free memory that the reference needs.
        slow: Left out by --quick.
        prepare: A function, "module:function", that is called first, in a process of its own, and returns more options.
        device: "cpu" or "cuda".
        reference_scale: Factor of the reference's time, where only a part of its work is done.
    """

    component: str
    size: str
    compared_with: str
    reference: str
    optimized: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    reference_calls: int = 1
    optimized_calls: int = 3
    clock: Literal["cpu", "wall"] = "cpu"
    tolerance: float = 1e-4
    memory: bool = True
    min_gib: float = 0.0
    slow: bool = False
    prepare: str = ""
    device: str = "cpu"
    reference_scale: float = 1.0


@dataclass
class Cost:
    """Time and memory of an implementation.

    Attributes:
        wall_s, cpu_s: Seconds of the median call.
        peak_mib: Peak memory beyond what was allocated just before the first call: resident memory of the process, or
            memory allocated on the GPU.
        output: What the last call returned.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: Output = field(repr=False, default_factory=dict)

    def seconds(self, clock: Literal["cpu", "wall"]) -> float:
        """Seconds by that clock."""
        return self.cpu_s if clock == "cpu" else self.wall_s


@dataclass
class Result:
    """Both costs of a row, and the relative difference of the outputs (see `relative_difference`)."""

    row: Row
    reference: Cost
    optimized: Cost
    difference: float

    @property
    def speedup(self) -> float:
        """Time of the reference divided by time of the optimized implementation, by the row's clock."""
        return self.reference.seconds(self.row.clock) / max(self.optimized.seconds(self.row.clock), 1e-9)

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory of the reference divided by that of the optimized implementation; None if not compared."""
        return self.reference.peak_mib / max(self.optimized.peak_mib, 0.1) if self.row.memory else None


class BenchmarkRunner:
    """Measures rows. A reference that several rows share is measured once.

    Args:
        rounds: Processes for each implementation.
        tiny: Use the rows' tiny sizes, one call each, in this process.
    """

    def __init__(self, rounds: int = 2, tiny: bool = False):
        self.rounds, self.tiny = rounds, tiny
        self.reference_costs: dict[tuple[str, str], list[Cost]] = {}

    def run(self, row: Row) -> Result:
        """Measure both implementations in turns.

        Raises:
            AssertionError: Their outputs differ by more than the row's tolerance.
        """
        options = dict(row.tiny if self.tiny else row.options)
        if row.prepare:
            options |= self._in_subprocess(call, row.prepare, options)
        shared = (row.reference, repr(sorted(options.items())))
        measured_before = shared in self.reference_costs
        reference, optimized = self.reference_costs.setdefault(shared, []), list[Cost]()
        rounds = self.rounds if row.reference_calls and not self.tiny else 1  # a long call needs no second
        for _ in range(rounds):
            if not measured_before:
                reference.append(self._in_subprocess(measure, row.reference, options, row.reference_calls, row.device))
            optimized.append(self._in_subprocess(measure, row.optimized, options, row.optimized_calls, row.device))
        whole = median_cost(reference)
        whole = replace(whole, wall_s=whole.wall_s * row.reference_scale, cpu_s=whole.cpu_s * row.reference_scale)
        result = Result(row, whole, median_cost(optimized), 0.0)
        result.difference = relative_difference(result.reference.output, result.optimized.output)
        assert result.difference <= row.tolerance, (
            f"{row.component}, {row.size}: outputs differ by {result.difference:.1e}"
        )
        return result

    def _in_subprocess(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result from a fresh process."""
        if self.tiny:
            return function(*arguments)
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        context = get_context("forkserver")  # a process that has already imported everything is forked each time
        context.set_forkserver_preload(MODULES)
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(_run_and_stop_workers, function, *arguments).result()


def _run_and_stop_workers(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function, then end joblib's workers: they would wait for more work, and this process for them."""
    # If memory runs out, the kernel should end this process rather than another.
    Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        return function(*arguments)
    finally:
        get_reusable_executor(kill_workers=True).shutdown(kill_workers=True)


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def call(implementation: str, options: Mapping[str, Any]) -> Any:
    """Call the function "module:function" and return its result, with nothing printed."""
    module, _, function = implementation.partition(":")
    with _no_output():
        return getattr(import_module(module), function)(**options)


def measure(implementation: str, options: Mapping[str, Any], calls: int, device: str = "cpu") -> Cost:
    """Time and memory of an implementation.

    Args:
        implementation: "module:function".
        options: Its keyword arguments.
        calls: Timed calls after a first one, during which memory is measured; with 0 the first is timed.
        device: "cpu" or "cuda".
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    work = call(implementation, options)
    peak, times = PeakMemory(device), []
    with _no_output():
        for _ in range(1 + calls):
            begin = time.perf_counter(), _cpu_seconds()
            output = work()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - begin[0], _cpu_seconds() - begin[1]))
    wall, cpu = (statistics.median(column) for column in zip(*times[min(1, calls) :], strict=True))
    return Cost(wall, cpu, peak.mib() or 0.0, output() if callable(output) else output)


def median_cost(costs: list[Cost]) -> Cost:
    """Median times and maximum memory of several processes."""
    wall, cpu = (statistics.median(cost.seconds(clock) for cost in costs) for clock in ("wall", "cpu"))
    return Cost(wall, cpu, max(cost.peak_mib for cost in costs), costs[0].output)


def relative_difference(one: Output, other: Output) -> float:
    """The largest difference of two outputs.

    Returns:
        The maximum over all arrays. For boolean arrays: the fraction of elements that differ. For numbers: the largest
        absolute difference divided by the largest absolute value of the first.

    Raises:
        AssertionError: Names, shapes or types differ.
    """
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


def _cpu_seconds() -> float:
    """CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
