"""Time stamps of made-up packets and streams: discontinuities, constant rates, the frames that the original selects."""

from collections.abc import Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from utils.timestamps import TS_DISCONT, demux_continuous, ffmpeg_constant_rate, published_frames

TENTHS = Fraction(1, 10)


def packet(pts: int | None, dts: int | None, duration: int | None = 10, stream: int = 0) -> Any:
    """A packet of a stream whose unit is a tenth of a second."""
    place = SimpleNamespace(index=stream)
    return SimpleNamespace(pts=pts, dts=dts, duration=duration, time_base=TENTHS, stream=place)


def demuxed(packets: Sequence[Any], starts: list[float] | None = None) -> list[tuple[int | None, int | None]]:
    container: Any = SimpleNamespace(demux=lambda: iter(packets), format=SimpleNamespace(flags=TS_DISCONT))
    return [(found.pts, found.dts) for found in demux_continuous(container, discontinuities=starts)]


def test_formats_whose_time_stamps_may_restart() -> None:
    restarting = {
        name for name in ("mpegts", "ogg", "mov", "image2") if av.ContainerFormat(name, "r").flags & TS_DISCONT
    }
    assert restarting == {"mpegts", "ogg"}


def test_a_restart_without_a_presentation_time() -> None:
    starts: list[float] = []
    found = demuxed([packet(0, 0), packet(10, 10), packet(None, 0), packet(10, 10)], starts)
    assert found == [(0, 0), (10, 10), (None, 20), (30, 30)] and starts == [2.0]


def test_a_part_without_durations_ends_at_its_last_time_stamp() -> None:
    assert demuxed([packet(0, 0), packet(10, 10, None), packet(0, 0, None)])[-1] == (10, 10)


def test_a_stream_that_begins_after_a_discontinuity_is_of_the_latest_part() -> None:
    """It has no packet by which to tell; ffmpeg, too, shifts all streams alike from a discontinuity on."""
    found = demuxed([packet(0, 0), packet(10, 10), packet(500, 500), packet(500, 500, stream=1), packet(510, 510)])
    assert found[2:] == [(20, 20), (20, 20), (30, 30)]


def test_frames_that_come_too_fast_are_dropped() -> None:
    assert ffmpeg_constant_rate([number / 50 for number in range(11)], 10) == [0, 1, 2, 5, 10]


def test_a_gap_is_filled_from_both_sides() -> None:
    assert ffmpeg_constant_rate([0, 3.12], 1) == [0, 0, 0, 1]
    assert ffmpeg_constant_rate([0, 3.08], 1) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "guessed, base, average, rate", [(None, 10, 20, 10), (None, None, 20, 20), (None, None, None, 25), (30, 10, 20, 30)]
)
def test_the_rate_that_the_original_counts(
    guessed: int | None, base: int | None, average: int | None, rate: int
) -> None:
    video: Any = SimpleNamespace(guessed_rate=guessed, base_rate=base, average_rate=average)
    times = np.arange(120) / rate
    counted = base or rate
    expected = [min(second * counted + counted * 15 // 16, 119) for second in range(5)]
    assert published_frames(video, times).tolist() == expected


def test_a_video_that_ends_early_repeats_its_last_frame() -> None:
    video: Any = SimpleNamespace(guessed_rate=25, base_rate=25, average_rate=25)
    assert published_frames(video, np.arange(30) / 25, 2).tolist() == [23, 29]
