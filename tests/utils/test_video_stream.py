"""Any video as a stream: frames on a constant clock, and the sound in step with them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.videos import level, mux, tone
from utils.audio import resample
from utils.audio_stream import read_audio, read_audio_per_second
from utils.video_info import VideoInfo, open_video
from utils.video_stream import frame_to_rgb, read_frames

ClipMaker = Callable[..., Path]


# The clock


@pytest.mark.parametrize(
    "name, codec, sound_codec",
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mkv", "libx264", "flac"),
        ("a.mov", "mpeg4", "libmp3lame"),
        ("a.webm", "libvpx", "libopus"),
        ("a.avi", "mpeg4", "pcm_s16le"),
        ("a.ts", "libx264", "mp2"),
    ],
)
def test_any_container(tmp_path: Path, name: str, codec: str, sound_codec: str) -> None:
    path = mux(tmp_path / name, codec, [40 * n for n in range(60)], tone(2.4, 48_000, 2), sound_codec)
    video = open_video(path)
    assert (video.fps, video.num_frames, video.num_seconds, video.audio_rate, video.channels) == (25, 60, 3, 48_000, 2)
    frames = list(read_frames(video))
    assert [tick for tick, _ in frames] == list(range(60))
    assert [level(frame_to_rgb(video, frame)) for _, frame in frames] == pytest.approx(list(range(60)), abs=0.7)
    assert sum(map(len, read_audio(video, 16_000))) == pytest.approx(2.4 * 16_000, abs=0.06 * 16_000)
    assert [second is not None for second in read_audio_per_second(video, 16_000)][:3] == [True] * 3


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_variable_rate_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    """Frames come at 30 a second with holes: on the clock each stays until the next."""
    rng = np.random.default_rng(0)
    stamps = [100, *(100 + np.cumsum(rng.choice([33, 34, 67, 400], 59, p=[0.4, 0.3, 0.2, 0.1]))).tolist()]
    video = open_video(mux(tmp_path / f"v.{suffix}", "libx264", stamps))
    assert video.fps == 30 and video.start_time == pytest.approx(0.1, abs=0.002)
    shown = [level(frame_to_rgb(video, frame)) for _, frame in read_frames(video)]
    for number, stamp in enumerate(stamps):
        assert shown[round((stamp - 100) * 30 / 1000)] == pytest.approx(number, abs=0.7)
    assert video.num_frames == len(shown) == pytest.approx((stamps[-1] - 100) * 30 / 1000 + 1, abs=2)


def test_a_stream_without_time_stamps(tmp_path: Path) -> None:
    video = open_video(mux(tmp_path / "raw.h264", "libx264", [40 * n for n in range(30)]))
    assert not video.has_timestamps and video.num_frames == 30
    assert [level(frame_to_rgb(video, frame)) for _, frame in read_frames(video)] == pytest.approx(
        list(range(30)), abs=0.7
    )


@pytest.mark.parametrize("rotation, corner", [(90, "lower left"), (-90, "upper right"), (180, "lower right")])
def test_phone_videos_stand_upright(tmp_path: Path, rotation: int, corner: str) -> None:
    """The white corner, upper left in the file, goes where a turn counterclockwise takes it."""
    video = open_video(mux(tmp_path / "turned.mp4", "libx264", [0, 40, 80], rotation=rotation))
    assert (video.height, video.width) == ((48, 64) if rotation == 180 else (64, 48))
    rgb = frame_to_rgb(video, next(read_frames(video))[1])
    assert rgb.shape == (video.height, video.width, 3)
    half = {
        "upper left": rgb[:8, :8],
        "upper right": rgb[:8, -8:],
        "lower left": rgb[-8:, :8],
        "lower right": rgb[-8:, -8:],
    }
    assert {name: part.mean() > 200 for name, part in half.items()} == {name: name == corner for name in half}


@given(
    fps=st.fractions(min_value=1, max_value=240, max_denominator=1001),
    ticks=st.integers(min_value=1, max_value=4000),
)
def test_each_second_has_its_frame(fps: Fraction, ticks: int) -> None:
    video = VideoInfo(Path("x"), 48, 64, fps, ticks, 0.0, True, 0, 0)
    picked = video.frame_index_per_second()
    assert len(picked) == video.num_seconds and [video.second_of(tick) for tick in picked] == list(
        range(video.num_seconds)
    )
    assert picked[-1] < ticks and video.num_seconds - 1 < video.duration


def test_ntsc_does_not_drift() -> None:
    video = VideoInfo(Path("x"), 48, 64, Fraction(30_000, 1001), 108_000, 0.0, True, 0, 0)
    assert video.frame_index_per_second()[:5] == [
        28,
        58,
        88,
        118,
        147,
    ]  # what is shown at 15/16; counting would give 148
    assert all(0.8 < tick / video.fps - second < 1 for second, tick in enumerate(video.frame_index_per_second()[:-1]))


# The sound


def test_int16_round_trip(clip_file: ClipMaker) -> None:
    video = open_video(clip_file("round.mp4", seconds=1))
    plain, rounded = (
        next(read_audio_per_second(video, 48_000)),
        next(read_audio_per_second(video, 48_000, int16_round_trip=True)),
    )
    assert plain is not None and rounded is not None
    assert 0 < np.abs(plain - rounded).max() < 1 / 32767
    assert np.array_equal(rounded * 32767, np.round(rounded * 32767))


def test_a_sound_that_starts_late_is_silent_first(tmp_path: Path) -> None:
    path = mux(tmp_path / "late.mkv", "libx264", [40 * n for n in range(100)], tone(2, 48_000, 2), "flac", start=2.0)
    seconds = list(read_audio_per_second(open_video(path), 16_000))
    assert [second is None for second in seconds] == [True, True, False, False]
    assert np.abs(np.concatenate(list(read_audio(open_video(path), 16_000)))[31_900:32_100]).max() > 1000


def test_a_video_that_starts_late_drops_the_sound_before_it(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros((48_000, 2)), tone(2, 48_000, 2)])
    path = mux(tmp_path / "late.mkv", "libx264", [1000 + 40 * n for n in range(50)], sound, "flac")
    seconds = list(read_audio_per_second(open_video(path), 16_000))
    assert [second is not None for second in seconds] == [True, True]


def test_an_incomplete_second_hears_the_last_whole_one(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", "libx264", [40 * n for n in range(43)], tone(1.7, 48_000, 2), "flac")
    whole, rest = read_audio_per_second(open_video(path), 16_000)
    track = resample(np.concatenate(list(read_audio(open_video(path), 48_000))).mean(axis=1) / 32768, 48_000, 16_000)
    assert whole is not None and rest is not None
    assert np.allclose(whole, track[:16_000], atol=1 / 32768) and np.allclose(rest, track[-16_000:], atol=1 / 32768)


def test_a_sound_under_a_second_repeats(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", "libx264", [0, 40, 80, 120, 160], tone(0.2, 48_000, 2), "flac")
    (only,) = read_audio_per_second(open_video(path), 16_000)
    assert only is not None and only.shape == (16_000,) and np.array_equal(only[:3200], only[3200:6400])


def test_a_long_hole_in_the_sound_is_silent(tmp_path: Path) -> None:
    """Longer than what FFmpeg is left to fill at once."""
    stamps = [500 * n for n in range(300)]
    video = open_video(mux(tmp_path / "late.mkv", "mpeg4", stamps, tone(2.0, 48_000, 2), "flac", start=9.0))
    whole = np.concatenate(list(read_audio(video, 16_000)))
    assert len(whole) == pytest.approx(11 * 16_000, abs=500) and np.abs(whole[: 8 * 16_000]).max() == 0
    later = open_video(mux(tmp_path / "later.mkv", "mpeg4", stamps, tone(2.0, 48_000, 2), "flac", start=99.3))
    blocks = list(read_audio(later, 16_000))
    sound = np.concatenate(blocks)
    assert max(map(len, blocks)) <= 16_000 and len(sound) == pytest.approx(101.3 * 16_000, abs=500)
    assert np.abs(sound[: round(99.3 * 16_000) - 50]).max() == 0
    np.testing.assert_allclose(sound[-30_000:-1000], whole[-30_000:-1000], atol=3)
