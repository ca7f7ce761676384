"""A lock file for work that only one process at a time may do."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.cli import InputError


@contextmanager
def exclusive_lock(path: Path, activity: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock file during the block.

    The system releases the lock when its process ends, so a file left by a killed process does not block others. On
    file systems without locks nothing is locked.

    Args:
        path: The lock file; created here, removed at the end.
        activity: Completes the error message "another process ...".
        wait: Seconds to wait for another process.

    Raises:
        InputError: Another process holds the lock all that time.
        OSError: The file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = time.monotonic() + wait
    while True:
        try:
            descriptor = _acquire(path, activity)
            break
        except InputError:
            if time.monotonic() >= limit:
                raise
            time.sleep(0.1)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, activity: str) -> int:
    """Open and lock the file; retry if it was removed in between, since others would then lock a new file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by forked workers
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                raise InputError(f"{path.parent}: another process {activity}; wait for it, or end it") from None
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
