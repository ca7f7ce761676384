"""Hostile media files: what preprocessing and the demo read of them is right, or refused in a line."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.robustness import media as made
from tests.robustness.mutations import mutated
from tests.robustness.sandbox import Guard, guarded
from utils.audio_stream import read_audio, read_audio_per_second
from utils.video import check_clip, read_clip
from utils.video_info import open_video
from utils.video_stream import frame_to_rgb, read_frames


def as_stream(path: Path) -> None:
    """All that the demo reads of a video."""
    video = open_video(path)
    for tick, frame in read_frames(video):
        if tick % 10 == 0:
            assert frame_to_rgb(video, frame).shape == (video.height, video.width, 3)
    for block in read_audio(video, 44_100):
        assert block.ndim == 2
    for second in read_audio_per_second(video, 16_000):
        assert second is None or second.shape == (16_000,)


def as_clip(path: Path) -> None:
    """All that preprocessing and the check of the data read of one."""
    try:
        check_clip(path)
    finally:
        media = read_clip(path)
    assert [frame.shape for frame in media.frames] == [(224, 224, 3)] * 5 and media.samples.dtype == np.int16


def work(guard: Guard, count: int, seed: int) -> None:
    folder = guard.inside / "made"
    bases = made.bases(folder)
    for name, content in (*made.crafted(folder, bases), *mutated(bases, count, seed)):
        path = folder / name
        path.write_bytes(content)
        guard.attempt(f"clip {name}", partial(as_clip, path))
        guard.attempt(f"stream {name}", partial(as_stream, path))
        path.unlink()


@pytest.mark.parametrize("count, seed", [(80, 0), pytest.param(800, 1, marks=pytest.mark.slow)])
def test_media(tmp_path: Path, count: int, seed: int) -> None:
    tally = guarded(partial(work, count=count, seed=seed), tmp_path)
    print(f"fuzz, media: {tally}")
    assert not tally.faults, "\n\n".join(tally.faults)
    assert tally.tried > 2 * count and tally.refused > count / 2 and tally.tried - tally.refused > count / 2
    assert tally.grown < 800
