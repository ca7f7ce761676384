"""demo.py on every kind of video: the clock, the sound, what is written, and what is refused."""

import json
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import demo
from utils.audio import five_seconds
from utils.cli import InputError
from utils.encode import write_video
from utils.files import read_image, wav_bytes, write_bytes
from utils.stream import Video, open_video, pixels, read_frames
from utils.stream_sound import read_seconds, read_sound
from utils.video import read_clip
from zero_shot.demo import check_folder, run
from zero_shot.options import Options
from zero_shot.prompts import Prompt
from zero_shot.settings import Answer, Setting

RATE = 44_100
ClipMaker = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


class Left(Setting):
    """Marks the left half, and the right half where the sound is loud; says nothing of a frame darker than 10."""

    sample_rate = 16_000

    def __init__(self) -> None:
        self.asked: list[tuple[np.ndarray, np.ndarray]] = []

    def answer(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Answer]:
        """See Setting."""
        answers = []
        for frame, second in zip(frames, seconds.numpy(), strict=True):
            self.asked.append((frame, second))
            mask = np.zeros((224, 224), bool)
            if frame.mean() >= 10:
                mask[:, :112] = True
            if np.abs(second).max() > 0.5:
                mask = ~mask
            heat = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)
            prompt = Prompt(np.array([[56.0, 112.0]]), np.array([1]), np.array([[0, 0, 111, 223]]))
            answers.append(Answer(mask, heat, prompt, ("bell & drum",)))
        return answers


def moving(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frame n is grey of level 20 + 3 (n % 75)."""
    return [np.full((height, width, 3), 20 + 3 * (n % 75), np.uint8) for n in range(count)]


def level(rgb: np.ndarray) -> float:
    """Which frame of `moving` this is, seen on its right quarter."""
    return (float(rgb[:, 3 * rgb.shape[1] // 4 :].mean()) - 20) / 3


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.stack([wave] * channels, axis=1)


def mux(
    path: Path,
    codec: str,
    stamps: Sequence[int],
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    start: float = 0.0,
    rotation: int = 0,
) -> Path:
    """Write the frames of `moving` at the given milliseconds, and stereo sound that starts at `start` seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 10
        video.codec_context.time_base = video.time_base = Fraction(1, 1000) if codec != "mpeg4" else Fraction(1, 25)
        video.bit_rate = 4_000_000
        if rotation:
            video.set_display_rotation(rotation)
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=48_000, layout="stereo")
        for frame, stamp in zip(moving(len(stamps)), stamps, strict=True):
            frame[:12, :32] = 255 if rotation else frame[0, 0]  # the upper left corner, before it is turned
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if codec != "mpeg4":  # which counts frames
                picture.pts, picture.time_base = stamp, Fraction(1, 1000)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if sound is not None:
            assert isinstance(audio, AudioStream)
            size = audio.frame_size or 1024
            resampler = av.AudioResampler(audio.format.name, "stereo", 48_000)
            for begin in range(0, len(sound), size):
                piece = np.ascontiguousarray(sound[begin : begin + size].T.astype(np.float32))
                block = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
                block.sample_rate, block.time_base = 48_000, Fraction(1, 48_000)
                block.pts = round(start * 48_000) + begin
                for converted in resampler.resample(block):
                    container.mux(audio.encode(converted))
            container.mux(audio.encode(None))
    return path


def make(tmp_path: Path, path: Path, setting: Setting | None = None, every: str = "second", **wanted: bool) -> Path:
    """The folder of a demo."""
    out, video = tmp_path / "out", open_video(path)
    check_folder(out, video)
    run(setting or Left(), Options(), video, out, every, **wanted)  # type: ignore[arg-type]
    return out


def masks(out: Path) -> list[np.ndarray]:
    return [read_image(path)[..., 0] for path in sorted((out / "masks").iterdir())]


def missing(out: Path) -> list[str]:
    """What the page names and the folder lacks; and what comes from elsewhere."""
    page = (out / "index.html").read_text(encoding="utf-8")
    named = re.findall(r"""(?:src|href|poster)=["']([^"']+)""", page)
    assert "overlay.mp4" in named and "http" not in page
    return [name for name in named if not (out / name).is_file()]


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
    assert (video.fps, video.ticks, video.seconds, video.sound_rate, video.channels) == (25, 60, 3, 48_000, 2)
    frames = list(read_frames(video))
    assert [tick for tick, _ in frames] == list(range(60))
    assert [level(pixels(video, frame)) for _, frame in frames] == pytest.approx(list(range(60)), abs=0.7)
    assert sum(map(len, read_sound(video, 16_000))) == pytest.approx(2.4 * 16_000, abs=0.06 * 16_000)
    assert [second is not None for second in read_seconds(video, 16_000)][:3] == [True] * 3


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_variable_rate_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    """Frames come at 30 a second with holes: on the clock each stays until the next."""
    rng = np.random.default_rng(0)
    stamps = [100, *(100 + np.cumsum(rng.choice([33, 34, 67, 400], 59, p=[0.4, 0.3, 0.2, 0.1]))).tolist()]
    video = open_video(mux(tmp_path / f"v.{suffix}", "libx264", stamps))
    assert video.fps == 30 and video.origin == pytest.approx(0.1, abs=0.002)
    shown = [level(pixels(video, frame)) for _, frame in read_frames(video)]
    for number, stamp in enumerate(stamps):
        assert shown[round((stamp - 100) * 30 / 1000)] == pytest.approx(number, abs=0.7)
    assert video.ticks == len(shown) == pytest.approx((stamps[-1] - 100) * 30 / 1000 + 1, abs=2)


def test_a_stream_without_time_stamps(tmp_path: Path) -> None:
    video = open_video(mux(tmp_path / "raw.h264", "libx264", [40 * n for n in range(30)]))
    assert not video.timed and video.ticks == 30
    assert [level(pixels(video, frame)) for _, frame in read_frames(video)] == pytest.approx(list(range(30)), abs=0.7)


@pytest.mark.parametrize("rotation, corner", [(90, "lower left"), (-90, "upper right"), (180, "lower right")])
def test_phone_videos_stand_upright(tmp_path: Path, rotation: int, corner: str) -> None:
    """The white corner, upper left in the file, goes where a turn counterclockwise takes it."""
    video = open_video(mux(tmp_path / "turned.mp4", "libx264", [0, 40, 80], rotation=rotation))
    assert (video.height, video.width) == ((48, 64) if rotation == 180 else (64, 48))
    rgb = pixels(video, next(read_frames(video))[1])
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
    video = Video(Path("x"), 48, 64, fps, ticks, 0.0, True, 0, 0)
    picked = video.picked()
    assert len(picked) == video.seconds and [video.second(tick) for tick in picked] == list(range(video.seconds))
    assert picked[-1] < ticks and video.seconds - 1 < video.duration


def test_ntsc_does_not_drift() -> None:
    video = Video(Path("x"), 48, 64, Fraction(30_000, 1001), 108_000, 0.0, True, 0, 0)
    assert video.picked()[:5] == [28, 58, 88, 118, 148]  # as utils.video.frame_indices
    assert all(0.8 < tick / video.fps - second < 1 for second, tick in enumerate(video.picked()[:-1]))


# The sound


def test_frames_and_seconds_are_the_study_s(clip_file: ClipMaker, tmp_path: Path) -> None:
    """On a clip of the study the setting sees and hears what preprocessing makes of it."""
    path, setting = clip_file("study.mp4"), Left()
    setting.sample_rate = 44_100
    make(tmp_path, path, setting)
    media = read_clip(path)
    write_bytes(tmp_path / "clip.wav", wav_bytes(media.samples, 16_000))
    heard = five_seconds(tmp_path / "clip.wav", 44_100)
    assert len(setting.asked) == 5
    for (frame, second), study_frame, study_second in zip(setting.asked, media.frames, heard, strict=True):
        assert np.array_equal(frame, study_frame)
        assert second.shape == (44_100,) and np.abs(second - study_second).max() < 1e-6


def test_int16_round_trip(clip_file: ClipMaker) -> None:
    video = open_video(clip_file("round.mp4", seconds=1))
    plain, rounded = next(read_seconds(video, 48_000)), next(read_seconds(video, 48_000, int16_round_trip=True))
    assert plain is not None and rounded is not None
    assert 0 < np.abs(plain - rounded).max() < 1 / 32767
    assert np.array_equal(rounded * 32767, np.round(rounded * 32767))


def test_a_sound_that_starts_late_is_silent_first(tmp_path: Path) -> None:
    path = mux(tmp_path / "late.mkv", "libx264", [40 * n for n in range(100)], tone(2, 48_000, 2), "flac", start=2.0)
    seconds = list(read_seconds(open_video(path), 16_000))
    assert [second is None for second in seconds] == [True, True, False, False]
    assert np.abs(np.concatenate(list(read_sound(open_video(path), 16_000)))[31_900:32_100]).max() > 1000


def test_a_video_that_starts_late_drops_the_sound_before_it(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros((48_000, 2)), tone(2, 48_000, 2)])
    path = mux(tmp_path / "late.mkv", "libx264", [1000 + 40 * n for n in range(50)], sound, "flac")
    seconds = list(read_seconds(open_video(path), 16_000))
    assert [second is not None for second in seconds] == [True, True]


def test_an_incomplete_second_hears_the_last_whole_one(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", "libx264", [40 * n for n in range(43)], tone(1.7, 48_000, 2), "flac")
    whole, rest = read_seconds(open_video(path), 16_000)
    track = np.concatenate(list(read_sound(open_video(path), 16_000))).mean(axis=1) / 32768
    assert whole is not None and rest is not None
    assert np.allclose(whole, track[:16_000]) and np.allclose(rest, track[-16_000:], atol=1e-6)


def test_a_sound_under_a_second_repeats(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", "libx264", [0, 40, 80, 120, 160], tone(0.2, 48_000, 2), "flac")
    (only,) = read_seconds(open_video(path), 16_000)
    assert only is not None and only.shape == (16_000,) and np.array_equal(only[:3200], only[3200:6400])


# What is written


@pytest.mark.parametrize("fps, seconds, size", [(25, 1.0, (48, 64)), (10, 7.3, (49, 65)), (29.97, 2.0, (120, 90))])
def test_one_mask_a_second(tmp_path: Path, fps: float, seconds: float, size: tuple[int, int]) -> None:
    path, count = tmp_path / "Film & <Co>.mp4", round(fps * seconds)
    write_video(path, moving(count, *size), fps, tone(seconds))
    out = make(tmp_path, path)
    found, shape = masks(out), (size[0] + size[0] % 2, size[1] + size[1] % 2)  # H.264 makes sizes even
    assert len(found) == -(-count // round(fps)) and {mask.shape for mask in found} == {shape}
    for mask in found:
        assert (
            set(np.unique(mask)) == {0, 255}
            and mask[:, : shape[1] // 2 - 1].all()
            and not mask[:, shape[1] // 2 + 1 :].any()
        )
    before, after = open_video(path), open_video(out / "overlay.mp4")
    assert (after.height, after.width, after.fps, after.ticks) == (*shape, before.fps, count)
    sounds = [sum(map(len, read_sound(video, RATE))) for video in (before, after)]
    assert sounds[1] == pytest.approx(sounds[0], abs=2048)
    assert not missing(out) and json.loads((out / "demo.json").read_text())["masks"] == len(found)
    assert "Film &amp; &lt;Co&gt;.mp4" in (out / "index.html").read_text()


def test_masks_and_sound_stay_with_their_frames(tmp_path: Path) -> None:
    """The loud second, 1 to 2, flips the mask exactly over frames 25 to 49; and the overlay's sound is loud there."""
    path, sound = tmp_path / "a.mp4", tone(3)
    sound[RATE : 2 * RATE] *= 3
    write_video(path, moving(75), 25, sound)
    for every in ("second", "frame"):
        out = make(tmp_path, path, every=every)
        assert len(masks(out)) == (3 if every == "second" else 75)
        video = open_video(out / "overlay.mp4")
        for tick, frame in read_frames(video):
            rgb = pixels(video, frame).astype(int)
            orange = (rgb[..., 0] - rgb[..., 2]).mean(axis=0) > 40
            assert orange[:28].all() != orange[36:].all() and orange[36:].all() == (25 <= tick < 50)
            marked = rgb[:, 4:24] if 25 <= tick < 50 else rgb[:, 40:60]
            assert (marked.mean() - 20) / 3 == pytest.approx(tick, abs=0.9)
        track = np.abs(np.concatenate(list(read_sound(video, RATE)))[:, 0].astype(float))
        loud = np.flatnonzero(track > 0.5 * 32768)
        assert loud[0] == pytest.approx(RATE, abs=200) and loud[-1] == pytest.approx(2 * RATE, abs=200)


def test_a_variable_rate_ends_in_step(tmp_path: Path) -> None:
    """A frame that stays for two seconds leaves the sound of the overlay where it was."""
    stamps = [40 * n for n in range(25)] + [3000 + 40 * n for n in range(25)]
    sound = np.concatenate([0.1 * tone(3, 48_000, 2), 2.5 * tone(1, 48_000, 2)])
    out = make(tmp_path, mux(tmp_path / "a.mkv", "libx264", stamps, sound, "flac"))
    video = open_video(out / "overlay.mp4")
    assert video.duration == pytest.approx(4, abs=0.05) and len(masks(out)) == 4
    assert [mask[:, -1].all() for mask in masks(out)] == [False, False, False, True]  # loud in the last second alone
    track = np.abs(np.concatenate(list(read_sound(video, 48_000)))[:, 0].astype(float))
    assert np.flatnonzero(track > 0.5 * 32768)[0] == pytest.approx(3 * 48_000, abs=200)


def test_pictures_on_request(tmp_path: Path, clip_file: ClipMaker) -> None:
    path = clip_file("pictures.mp4", seconds=2, fps=4)
    out = make(tmp_path, path, every="frame", heat=True, prompts=True)
    names = [f"{n:06d}.jpg" for n in range(1, 9)]
    for folder in ("heat", "prompts"):
        assert sorted(picture.name for picture in (out / folder).iterdir()) == names
        assert read_image(out / folder / names[0]).shape == (360, 480, 3)
    # The box of the prompt is on the left half, in yellow.
    picture = read_image(out / "prompts" / names[0]).astype(int)
    yellow = (picture[..., 0] > 150) & (picture[..., 2] < 120)
    assert yellow[180, 236:242].any() and not yellow[:, 245:].any()
    page = (out / "index.html").read_text()
    assert page.count("<section") == 2 and page.count("_heat.jpg") == 2 and "bell &amp; drum" in page
    out = make(tmp_path, path)
    assert not (out / "heat").exists() and not (out / "prompts").exists() and len(masks(out)) == 2


def test_a_long_video_gets_a_page_of_bearable_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zero_shot.demo.CARDS", 4)
    path = tmp_path / "a.mp4"
    write_video(path, moving(20), 2, tone(10))
    out = make(tmp_path, path)
    page = (out / "index.html").read_text()
    assert page.count("<section") == 4 and "one second in 3" in page and len(masks(out)) == 10 and not missing(out)


# Nothing to hear, nothing to see


def notes(out: Path) -> str:
    stated = "\n".join(json.loads((out / "demo.json").read_text())["notes"])
    page = (out / "index.html").read_text()
    assert all(note.split("&")[0].split("<")[0] in page for note in stated.splitlines())
    return stated


@pytest.mark.parametrize(
    "sound, said", [(None, "no sound track"), (np.zeros(2 * RATE), "silent from beginning to end")]
)
def test_without_sound_nothing_is_marked(tmp_path: Path, capsys: Capture, sound: np.ndarray | None, said: str) -> None:
    path, setting = tmp_path / "a.mp4", Left()
    write_video(path, moving(50), 25, sound)
    out = make(tmp_path, path, setting)
    assert not setting.asked and len(masks(out)) == 2 and not np.any(masks(out))
    assert said in notes(out) and capsys.readouterr().out.count(said) == 1 and not missing(out)
    assert open_video(out / "overlay.mp4").sound_rate == (RATE if sound is not None else 0)


def test_silent_seconds_and_empty_masks_are_told(tmp_path: Path) -> None:
    path, sound = tmp_path / "a.mp4", tone(5)
    sound[int(1.9 * RATE) : int(4.1 * RATE)] = 0
    frames = moving(50, 48, 64)
    frames[:10] = [np.zeros_like(frame) for frame in frames[:10]]
    write_video(path, frames, 10, sound)
    out = make(tmp_path, path)
    assert [bool(mask.any()) for mask in masks(out)] == [False, True, False, False, True]
    assert "Silent at 0:02–0:04" in notes(out) and "1 of 5 masks are empty though something sounds" in notes(out)


def test_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(1), 25, tone(0.04))
    out = make(tmp_path, path)
    assert len(masks(out)) == 1 and masks(out)[0].any() and not missing(out)
    assert open_video(out / "overlay.mp4").ticks == 1


def test_sound_longer_and_shorter_than_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(30), 10, tone(5))
    out = make(tmp_path, path)
    assert [bool(mask.any()) for mask in masks(out)] == [True] * 3
    assert sum(map(len, read_sound(open_video(out / "overlay.mp4"), RATE))) == pytest.approx(5 * RATE, abs=2048)
    write_video(path, moving(50), 10, tone(2))
    assert [bool(mask.any()) for mask in masks(make(tmp_path, path))] == [True, True, False, False, False]


# Faults


def fault(words: Sequence[str | Path], capsys: Capture) -> str:
    capsys.readouterr()
    assert demo.main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_what_is_no_video(tmp_path: Path, capsys: Capture, clip_file: ClipMaker) -> None:
    text, picture, song, cut = (tmp_path / name for name in ("a.txt", "a.png", "a.wav", "a.mp4"))
    text.write_text("Not a video.\n" * 50)
    cv2.imwrite(str(picture), moving(1)[0])
    song.write_bytes(wav_bytes(np.zeros(16_000, np.int16), 16_000))
    whole = clip_file("whole.mp4").read_bytes()
    cut.write_bytes(whole[:100])
    for path, said in (
        (text, "not a video"),
        (picture, "not a video"),
        (song, "has no video track"),
        (cut, "has no video track"),
        (tmp_path / "absent.mp4", "no such file"),
        (tmp_path, "no such file"),
    ):
        message = fault([path], capsys)
        assert said in message and str(path) in message


def test_damage_inside_is_passed_over(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", "libx264", [40 * n for n in range(75)], tone(3, 48_000, 2), "flac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(data)
    out = make(tmp_path, path)
    assert len(masks(out)) == 3 and open_video(out / "overlay.mp4").ticks == 75


def test_folders_of_others_are_left_alone(tmp_path: Path, clip_file: ClipMaker, capsys: Capture) -> None:
    video = open_video(clip_file("folder.mp4", seconds=1))
    others = tmp_path / "others"
    (others / "masks").mkdir(parents=True)
    (others / "masks" / "mine.png").write_bytes(b"mine")
    for folder, said in (
        (others, "something else than a demo"),
        (video.path, "is a file"),
        (video.path / "out", "cannot be made"),
    ):
        with pytest.raises(InputError, match=said):
            check_folder(folder, video)
    out = make(tmp_path, video.path)
    (out / "thesis.txt").write_text("mine")
    assert "thesis.txt" in fault([video.path, "--out", out], capsys)
    (out / "thesis.txt").unlink()
    assert "lies in" in fault([out / "overlay.mp4", "--out", out], capsys)
    (out / "masks" / "000009.png").write_bytes(b"of an older run")
    first = (out / "overlay.mp4").read_bytes()
    assert make(tmp_path, video.path) == out and (out / "overlay.mp4").read_bytes() == first and len(masks(out)) == 1
    assert not list(out.rglob("*.partial*"))


def test_what_was_there_survives_bad_weights(tmp_path: Path, clip_file: ClipMaker, capsys: Capture) -> None:
    path = clip_file("weights.mp4", seconds=1)
    out = make(tmp_path, path)
    said = fault([path, "--out", out, "--setting", "heatmap", "--audioclip.weights", tmp_path / "no.pt"], capsys)
    assert "no.pt" in said and not missing(out)


# The whole


def test_the_true_map_end_to_end(composed: Path, tmp_path: Path, capsys: Capture) -> None:
    """The miniature AudioCLIP's map on a composed clip, without SAM; the masks are those that the setting gives."""
    path = sorted((composed / "Single-source").rglob("*.mp4"))[0]
    out = tmp_path / "out"
    words = [
        path,
        "--out",
        out,
        "--setting",
        "heatmap",
        "--audioclip.weights",
        "mini",
        "--heat",
        "--run.use_cache",
        "false",
    ]
    assert demo.main([str(word) for word in [*words, "--run.cpu", "true"]]) == 0
    said = capsys.readouterr().out
    assert str(out / "index.html") in said and "fourteen drawn things" in said and len(said.splitlines()) < 24
    assert len(masks(out)) == 5 and len(list((out / "heat").iterdir())) == 5 and not missing(out)
    assert any(mask.any() for mask in masks(out)) and not all(mask.all() for mask in masks(out))
    assert torch.is_grad_enabled()
