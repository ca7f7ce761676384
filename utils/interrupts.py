"""Ctrl-C ends a command with a one-line message, whenever it is pressed."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

INTERRUPT_MESSAGE = "interrupted; run the same command again to resume"
EXIT_CODE = 130


def install_hook() -> None:
    """Print an uncaught KeyboardInterrupt, such as one during imports, as one line instead of a traceback."""
    previous = sys.excepthook

    def hook(error_type: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(error_type, KeyboardInterrupt):
            print(INTERRUPT_MESSAGE, file=sys.stderr)
        else:
            previous(error_type, error, traceback)

    sys.excepthook = hook


@contextmanager
def block_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of a block that starts worker processes.

    Workers inherit the blocked signal and keep it, so only this process handles Ctrl-C and ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def unblock_interrupts() -> None:
    """Let Ctrl-C interrupt a process that was started within `block_interrupts`.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed meanwhile.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
