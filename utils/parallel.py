"""Many clips in parallel processes, of which one may be lost without the others."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from utils.interrupts import block_interrupts

T = TypeVar("T")
R = TypeVar("R")
WORKER_LOST = "its process was lost twice, as when memory runs out; try fewer --jobs"


def parallel_map(function: Callable[[T], R], items: Sequence[T], jobs: int) -> Iterator[R | None]:
    """`function` of each item, in order, from so many processes (-1: one a core); None where its process was lost.

    A process is lost when the system kills it, mostly for want of memory, or when a decoder crashes. All processes
    then start anew; the first item without a result has one to itself, and only if that is lost too is it given up.
    """
    import joblib  # which reads the environment as it is imported

    done = 0
    while done < len(items):
        try:
            work = (joblib.delayed(function)(item) for item in items[done:])
            with block_interrupts():  # processes start here
                results = joblib.Parallel(n_jobs=jobs, return_as="generator")(work)
            for result in results:
                done += 1
                yield result
        except BrokenProcessPool as error:
            _only_if_lost(error)
            yield _apart(function, items[done])
            done += 1


def _apart(function: Callable[[T], R], item: T) -> R | None:
    import joblib

    try:
        # With one job joblib would work in this very process.
        return joblib.Parallel(n_jobs=2)([joblib.delayed(function)(item)])[0]
    except BrokenProcessPool as error:
        _only_if_lost(error)
        return None


def _only_if_lost(error: BrokenProcessPool) -> None:
    if error.__cause__ is not None:  # what a process was to do, or its result, could not be sent: a fault of ours
        raise error
