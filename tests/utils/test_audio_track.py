"""The sound of raw videos: what moviepy 1.0.3 with ffmpeg 4.2.2 writes, and what a good resampler does."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.golden_audio_track import AAC, FIGURES, KINDS, LENGTHS, kind_video, length_video, places, thinned
from tests.helpers.videos import mux, pcm_video, tone
from utils import audio_track
from utils.audio_track import MOVIEPY_PEAK, READER_BUFFER, moviepy_duration, moviepy_positions
from utils.cli import InputError
from utils.video import read_clip

WRITTEN = np.load(FIGURES)
HERE = Path("clip.mp4")


def published(path: Path) -> np.ndarray:
    return read_clip(path, "published").samples


def corrected(path: Path) -> np.ndarray:
    return read_clip(path, "corrected").samples


@pytest.mark.parametrize("name", LENGTHS)
def test_published_takes_the_samples_that_moviepy_takes(tmp_path: Path, name: str) -> None:
    path = length_video(tmp_path, name)
    if f"error {name}" in WRITTEN:
        with pytest.raises(InputError, match=r"its sound ends after 1\.00 of 5\.00 s.*--fidelity corrected"):
            published(path)
    else:
        np.testing.assert_array_equal(places(published(path)), np.cumsum(WRITTEN[f"positions {name}"]))


def plain_positions(length: int, duration: float) -> list[int]:
    """The places of `moviepy_positions`, from a buffer that holds the places themselves."""
    total, rate = int(16_000 * duration), 44_100
    size = min(int(rate * duration) + 1, READER_BUFFER)
    start, read, buffer = 0, min(size, length), list(range(min(size, length)))
    found = []
    edges = np.linspace(0, total, total // 2000 + 2, dtype=int)
    for begin, end in pairwise(edges):
        wanted = np.round(rate * ((1.0 / 16_000) * np.arange(begin, end))).astype(int)
        for at in (wanted[0], wanted[-1]):
            if not 0 <= at - start < len(buffer):
                before, start = start, max(0, at - size // 2)
                kept = before + size - start + 1
                if start > before:
                    more = list(range(read, min(read + size - kept, length)))
                    buffer, read = [*buffer[-kept:], *more], read + len(more)
                break
        late = size // 2 - len(buffer) + 1 if len(buffer) < size // 2 else 0
        found += [buffer[min(int(at), len(buffer) - 1)] for at in wanted - start - late]
    return found


@pytest.mark.parametrize("duration", [2.5, 9.0, 11.0])
def test_positions_are_those_of_a_buffer(duration: float) -> None:
    """Also where the sound ends within a later buffer."""
    compared = 0
    for length in range(int(44_100 * duration) - 150_000, int(44_100 * duration) + 9_000, 6_007):
        try:
            positions = moviepy_positions(HERE, length, duration)
        except InputError:
            continue
        assert positions.tolist() == plain_positions(length, duration)
        compared += 1
    assert compared > 5


def test_a_track_of_empty_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 8), np.int16), format="s16", layout="mono")
    frame.sample_rate = 8_000
    monkeypatch.setattr(audio_track, "pull_blocks", lambda graph, flush=True: iter([np.zeros((0, 1), np.float32)]))
    packet: Any = SimpleNamespace(decode=lambda: [frame])
    graph: Any = SimpleNamespace(push=lambda frame: None)
    with pytest.raises(InputError, match="empty audio track"):
        audio_track._decode(HERE, [packet], lambda frame: graph)


@pytest.mark.parametrize("name", KINDS)
def test_published_is_the_wav_that_moviepy_writes(tmp_path: Path, name: str) -> None:
    samples = published(kind_video(tmp_path, name))
    assert samples.shape == (8000, 2) and samples.dtype == np.int16
    difference = np.abs(thinned(samples).astype(int) - WRITTEN[f"wav {name}"])
    assert difference.max() <= 1
    if "floats" not in name and "24 bits" not in name:  # in integers, there is nothing to round
        assert not difference.any()


def test_published_decodes_as_ffmpeg_does() -> None:
    assert np.abs(thinned(published(AAC)).astype(int) - WRITTEN["wav aac"]).max() <= 1


def test_published_clips(tmp_path: Path) -> None:
    loud = np.tile(np.array([[32_767, -32_768]], np.int16), (44_100, 1))
    assert np.array_equal(
        published(pcm_video(tmp_path / "a.mkv", loud, 44_100, 1.0)), np.sign(loud[:16_000]) * MOVIEPY_PEAK
    )


@given(length=st.integers(1, 300_000), duration=st.floats(0.01, 12.0).map(lambda seconds: round(seconds, 2)))
@example(length=220_500, duration=5.0)
@example(length=100_000, duration=5.0)
@example(length=99_999, duration=5.0)
def test_positions_lie_in_the_sound_or_are_refused(length: int, duration: float) -> None:
    try:
        positions = moviepy_positions(HERE, length, duration)
    except InputError as error:
        assert length < min(int(44_100 * duration) + 1, 200_000) // 2 and "the original fails" in str(error)
        return
    assert len(positions) == int(16_000 * duration) and positions.min() >= 0 and positions.max() < length
    if length > 44_100 * duration:
        late = 44_100 * np.arange(len(positions)) / 16_000 - positions
        refilled = positions > READER_BUFFER
        assert np.abs(late[positions < READER_BUFFER - 6000]).max() <= 0.51
        assert not refilled.any() or np.abs(late[refilled] - 1).max() <= 0.51


@pytest.mark.parametrize(
    "microseconds, seconds", [(5_004_999, 5.0), (5_005_000, 5.01), (59_999_999, 60.0), (65_254_000, 65.25)]
)
def test_durations_are_read_to_a_hundredth(microseconds: int, seconds: float) -> None:
    assert moviepy_duration(HERE, microseconds) == seconds


@pytest.mark.parametrize("microseconds, said", [(None, "does not say how long"), (600_000_001, "more than 600 s")])
def test_durations_that_cannot_be_used(microseconds: int | None, said: str) -> None:
    with pytest.raises(InputError, match=rf"^clip\.mp4: .*{said}"):
        moviepy_duration(HERE, microseconds)
    with pytest.raises(InputError, match="duration of zero"):
        moviepy_positions(HERE, 100, 0.0)


def sine(hertz: float, rate: int, channels: int) -> np.ndarray:
    wave = 8000 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.int16)


def strength(samples: np.ndarray, hertz: float) -> float:
    """The amplitude of a sine within a second at 16 kHz, away from its ends."""
    at = np.arange(2000, 14_000)
    return float(np.abs(np.exp(-2j * np.pi * hertz * at / 16_000) @ samples[at, 0]) * 2 / len(at))


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_level_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    path = pcm_video(tmp_path / "a.mkv", sine(1000, rate, channels), rate, 1.0)
    ours, theirs = corrected(path), published(path)
    assert ours.shape == (16_000, channels) and theirs.shape == (16_000, 2)
    assert strength(ours, 1000) == pytest.approx(8000, rel=1e-3)
    assert strength(theirs, 1000) == pytest.approx(8000 * (0.5**0.5 if channels == 1 else 1), rel=1e-2)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_what_lies_above_8_khz_is_filtered_or_folds_back(tmp_path: Path, rate: int) -> None:
    path = pcm_video(tmp_path / "a.mkv", sine(10_000, rate, 2), rate, 1.0)
    assert strength(corrected(path), 6000) < 1
    assert strength(published(path), 6000) > 4000  # 16 - 10 kHz
    near = pcm_video(tmp_path / "b.mkv", sine(7200, rate, 2), rate, 1.0)  # within the highest mel band
    assert strength(corrected(near), 7200) == pytest.approx(8000, rel=1e-3)


def test_corrected_is_as_long_as_the_sound(tmp_path: Path) -> None:
    path = length_video(tmp_path, "4.2 of 5")
    assert len(corrected(path)) == 67_200 and len(published(path)) == 80_000
    assert published(path)[75_000:].any()


def test_corrected_begins_with_the_first_frame(tmp_path: Path) -> None:
    """By time stamps; published takes what is there from its first sample on."""
    sound = np.concatenate([np.zeros((24_000, 2)), tone(2, 48_000, 2)])
    stamps = [40 * n for n in range(75)]
    late = mux(tmp_path / "late.mkv", "libx264", stamps, tone(2, 48_000, 2), "flac", start=0.5)
    early = mux(tmp_path / "early.mkv", "libx264", [500 + at for at in stamps], sound, "flac")
    assert len(corrected(late)) == 40_000 and len(corrected(early)) == 32_000
    assert not corrected(late)[:7900].any() and corrected(late)[8000:8100].any()
    assert corrected(early)[:100].any()
    assert published(late)[:100].any() and not published(early)[:7900].any()


def test_a_time_stamp_in_the_far_future_is_refused(tmp_path: Path) -> None:
    path = mux(tmp_path / "far.mkv", "libx264", [0, 40, 80], tone(1, 48_000, 2), "flac", start=100_000.0)
    with pytest.raises(InputError, match="more than 600 s of sound"):
        corrected(path)
