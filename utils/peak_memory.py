"""The peak memory of this process, or of its GPU."""

import contextlib
import ctypes
import gc
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak memory since this was constructed, minus what was allocated then.

    On a CPU it is resident memory, which only Linux tells, and not in every container.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.before: float | None
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 2**20
        else:
            _return_freed_memory()
            self.before = _resident_mib("VmRSS")
            try:
                RESET.write_text("5")  # resets VmHWM
            except OSError:  # not Linux, or a container without write access
                self.before = None

    def mib(self) -> float | None:
        """The peak in MiB; None where it is not known."""
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else _resident_mib("VmHWM")
        return None if peak is None or self.before is None else peak - self.before


def _return_freed_memory() -> None:
    """Return to the system what earlier work of this process has freed, which would count as allocated before."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # of glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _resident_mib(name: str) -> float | None:
    """VmRSS (now) or VmHWM (the peak since the last reset) of this process."""
    if not STATUS.exists():
        return None
    lines = STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
