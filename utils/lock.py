"""One process at a time where two would spoil each other's work."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.cli import InputError


@contextmanager
def exclusive_lock(path: Path, work: str) -> Iterator[None]:
    """Be the only process that holds the lock file `path` until the block ends; `work` says what it guards.

    A lock dies with its process, however that ends: the file that a killed one leaves behind holds nobody up. Where
    the file system knows no locks there is none. Raises InputError if another process is at it, OSError if the file
    cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, work)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, work: str) -> int:
    """Open and lock; again if the file was removed in between, for then the lock is of a file that nobody else sees."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by forked workers
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                raise InputError(f"{path.parent}: another process {work}; wait for it, or end it") from None
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
