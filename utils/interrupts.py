"""Ctrl-C ends a command with one line, whenever it is pressed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

INTERRUPTED = "interrupted; run the same command again to go on"
EXIT_CODE = 130


def tell_in_a_line() -> None:
    """Have an interruption that nothing catches, such as one while modules are imported, told without a traceback."""
    earlier = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(INTERRUPTED, file=sys.stderr)
        else:
            earlier(kind, error, trace)

    sys.excepthook = hook


@contextmanager
def put_off() -> Iterator[None]:
    """Put Ctrl-C off in the processes that are started in the block, and in this thread up to its end.

    They so leave it to this process, which ends them, to say that it was interrupted.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def take_up() -> None:
    """In a process that `put_off` started: be interrupted by Ctrl-C again. Raises KeyboardInterrupt if it came."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
