"""The video writer."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from utils.video_writer import write_video

RATE = 44_100  # Hz


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]


@pytest.mark.parametrize("fps", [7, 29.97, Fraction(30000, 1001)])
@pytest.mark.parametrize("samples", [None, np.zeros(2000), np.full((50_000, 2), 8192, np.int16)], ids=str)
def test_write_video(tmp_path: Path, fps: float, samples: np.ndarray | None) -> None:
    path = tmp_path / "new" / "video.mp4"
    shades = range(0, 240, 8)
    write_video(path, (np.full((33, 47, 3), shade, np.uint8) for shade in shades), fps, samples, RATE)
    frames = decoded(path)
    assert [frame.shape for frame in frames] == [(34, 48, 3)] * len(shades)
    assert max(abs(int(frame[20, 20, 1]) - shade) for frame, shade in zip(frames, shades, strict=True)) <= 3
    with av.open(str(path)) as container:
        assert math.isclose(float(container.streams.video[0].average_rate), fps, rel_tol=1e-6)
        assert len(container.streams.audio) == (samples is not None)
        if samples is not None:
            sounds = np.concatenate([block.to_ndarray() for block in container.decode(audio=0)], axis=1)
            assert len(sounds) == (1 if samples.ndim == 1 else 2)
            assert 0 <= sounds.shape[1] - len(samples) < 1024
            assert sounds[0, len(samples) // 2] == pytest.approx(samples.max() / 32768, abs=0.02)
    assert list(path.parent.iterdir()) == [path]


def broken(frame: np.ndarray):  # type: ignore[no-untyped-def]
    yield frame
    raise RuntimeError("no more")


def test_write_video_leaves_no_partial_file(tmp_path: Path) -> None:
    frame, path = np.zeros((32, 32, 3), np.uint8), tmp_path / "video.mp4"
    with pytest.raises(RuntimeError, match="no more"):
        write_video(path, broken(frame), 10)
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], 10)
    with pytest.raises(ValueError, match="frame 2 is"):
        write_video(path, [frame, frame[:16]], 10)
    with pytest.raises(ValueError, match="samples have shape"):
        write_video(path, [frame], 10, np.zeros((5, 3)))
    assert list(tmp_path.iterdir()) == []
