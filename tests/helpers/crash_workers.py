"""Work for processes of their own that ends some of them. It imports little, for each new process imports it again."""

import os
import signal
from pathlib import Path

from utils.fidelity import Fidelity
from utils.layout import AVSBench, Clip
from utils.preprocess import ClipResult


def square(mark: Path, number: int) -> int:
    """The square; 1 ends its process, and 4 does so the first time."""
    if number == 1 or (number == 4 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def preprocess_clip(
    data: AVSBench, clip: Clip, fidelity: Fidelity = "corrected", overwrite: bool = False
) -> ClipResult:
    """In place of the real one: done at once, but for the second clip, which ends its process."""
    if clip == data.clips[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return ClipResult(clip.name, clip.split, clip.category, "done")


def blocks_interrupts(_: int) -> bool:
    """Whether the process that this is called in leaves Ctrl-C to another."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
