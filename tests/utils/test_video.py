"""What is refused before a video is decoded: files without pictures or a rate, mp4 files that were cut off."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.helpers.videos import mux, tone
from utils import video
from utils.cli import InputError
from utils.files import wav_bytes
from utils.video import count_missing_frames, read_clip


def test_a_file_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(np.zeros((16_000, 1), np.int16), 16_000))
    with pytest.raises(InputError, match="has no video track"):
        read_clip(path)


def test_a_stream_without_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(path: Path) -> Iterator[Any]:
        yield SimpleNamespace(), SimpleNamespace(average_rate=None), SimpleNamespace()

    monkeypatch.setattr(video, "open_media", opened)
    with pytest.raises(InputError, match="has no frame rate"):
        read_clip(tmp_path / "a.mp4")


def box(kind: bytes, content: bytes, large: bool = False) -> bytes:
    """A box of an mp4; large: with its size in 64 bits."""
    if large:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize("large", [False, True])
def test_an_mp4_that_was_cut_off(tmp_path: Path, large: bool) -> None:
    data = box(b"ftyp", bytes(8)) + box(b"free", b"") + box(b"mdat", bytes(300), large)
    path = tmp_path / "a.mp4"
    for cut, expected in ((0, False), (1, True), (299, True)):
        path.write_bytes(data[: len(data) - cut])
        assert video._is_truncated_mp4(path) == expected
    path.write_bytes(box(b"riff", bytes(8)) + data[:-1])
    assert not video._is_truncated_mp4(path)  # not an mp4


def test_published_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    """An MPEG-TS file begins at 1.4 s."""
    path = mux(tmp_path / "a.ts", "libx264", [40 * number for number in range(125)], tone(5, 48_000, 2), "mp2")
    frames = read_clip(path, "published").frames
    found = [(float(frame.mean()) - 20) / 3 for frame in frames]
    assert np.abs(np.array(found) - [23, 48, 73, 98 - 75, 123 - 75]).max() < 1


@pytest.mark.parametrize("name, last, missing", [("avi", 9, 0), ("avi", 8, 1), ("avi", None, 3), ("mov", 9, 3)])
def test_frames_that_an_encoder_dropped_are_counted_in_an_avi(name: str, last: int | None, missing: int) -> None:
    container: Any = SimpleNamespace(format=SimpleNamespace(name=name))
    stream: Any = SimpleNamespace(frames=10)
    assert count_missing_frames(container, stream, 7, last) == missing
