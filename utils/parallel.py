"""Process clips in parallel, where losing a worker process does not stop the others, and compute items ahead."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from utils.interrupts import block_interrupts

T = TypeVar("T")
R = TypeVar("R")
WORKER_LOST = "its process was lost twice, as when memory runs out; try fewer --jobs"


def parallel_map(function: Callable[[T], R], items: Sequence[T], jobs: int) -> Iterator[R | None]:
    """Apply a function to each item in worker processes.

    A worker is lost if the system kills it, usually for lack of memory, or if a decoder crashes. All workers are then
    restarted; the first item without a result is tried once more in a process of its own.

    Args:
        function: Picklable.
        items: Its arguments.
        jobs: Number of processes; -1: one per core.

    Yields:
        The results in the order of the items; None for an item whose process was lost twice.
    """
    import joblib  # reads environment variables when it is imported

    done = 0
    while done < len(items):
        try:
            work = (joblib.delayed(function)(item) for item in items[done:])
            with block_interrupts():  # workers start here
                results = joblib.Parallel(n_jobs=jobs, return_as="generator")(work)
            for result in results:
                done += 1
                yield result
        except BrokenProcessPool as error:
            _raise_unless_lost(error)
            yield _run_alone(function, items[done])
            done += 1


def _run_alone(function: Callable[[T], R], item: T) -> R | None:
    import joblib

    try:
        # With n_jobs=1 joblib would not start a process.
        return joblib.Parallel(n_jobs=2)([joblib.delayed(function)(item)])[0]
    except BrokenProcessPool as error:
        _raise_unless_lost(error)
        return None


def _raise_unless_lost(error: BrokenProcessPool) -> None:
    if error.__cause__ is not None:  # an argument or result could not be pickled: our bug
        raise error


def compute_ahead(items: Iterator[T], count: int = 4) -> Iterator[T]:
    """Iterate over items that a thread computes ahead, `count` of them at most.

    Worth it if both the items and their use leave Python's lock to others, as decoding and encoding a video do.

    Raises:
        Exception: What `items` raises, at the item where it does.
    """
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:  # one thread: items come one after another
        waiting = deque(pool.submit(next, items, end) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
