"""Peak memory, also of a process that did other work before."""

import numpy as np
import pytest

from utils.peak_memory import PeakMemory


def allocate(mib: int) -> list[np.ndarray]:
    return [np.ones(2**14) for _ in range(8 * mib)]  # small enough to stay in the allocator's heap when freed


def test_earlier_work_does_not_hide_later_work() -> None:
    if PeakMemory("cpu").mib() is None:
        pytest.skip("this system does not tell the peak of its resident memory")
    kept = allocate(300)
    pinned = kept[-1]
    del kept
    memory = PeakMemory("cpu")
    allocated = allocate(200)
    peak = memory.mib()
    assert peak is not None and 190 < peak < 260
    assert len(allocated) == 1600 and pinned.size
