"""demo.py on all types of videos: what is written, synchronous with the audio, and what is refused."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch import Tensor

import demo
from tests.helpers.videos import RATE, moving, mux, tone
from utils.audio import load_clip_waveform
from utils.audio_stream import read_audio
from utils.cli import InputError
from utils.config import from_yaml
from utils.dataset import AVSDataset
from utils.files import read_image, sha256, wav_bytes, write_bytes
from utils.layout import AVSBench
from utils.video import read_clip
from utils.video_info import open_video
from utils.video_stream import frame_to_rgb, read_frames
from utils.video_writer import write_video
from zero_shot.demo import run
from zero_shot.demo_folder import DemoOutputs, MaskRate, check_folder
from zero_shot.demo_notes import SMALL_WEIGHTS_NOTE
from zero_shot.figures import resize_mask
from zero_shot.methods import Prediction, ZeroShotMethod, build_method
from zero_shot.options import Options
from zero_shot.prompts import Prompt

ClipMaker = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


class LeftHalf(ZeroShotMethod):
    """Predicts the left half, and the right half if the audio is loud; inverted for a frame darker than 10."""

    sample_rate = 16_000

    def __init__(self) -> None:
        self.inputs: list[tuple[np.ndarray, np.ndarray]] = []

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        predictions = []
        for frame, second in zip(frames, seconds.numpy(), strict=True):
            self.inputs.append((frame, second))
            mask = np.zeros((224, 224), bool)
            if frame.mean() >= 10:
                mask[:, :112] = True
            if np.abs(second).max() > 0.5:
                mask = ~mask
            similarity_map = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)
            prompt = Prompt(np.array([[56.0, 112.0]]), np.array([1]), np.array([[0, 0, 111, 223]]))
            predictions.append(Prediction(mask, similarity_map, prompt, ("bell & drum",)))
        return predictions


def make(
    tmp_path: Path, path: Path, method: ZeroShotMethod | None = None, mask_rate: MaskRate = "second", **images: bool
) -> Path:
    """The folder of a demo."""
    out, video = tmp_path / "out", open_video(path)
    run(method or LeftHalf(), Options(), video, sha256(path), out, DemoOutputs(mask_rate, **images))
    return out


def masks(out: Path) -> list[np.ndarray]:
    return [read_image(path)[..., 0] for path in sorted((out / "masks").iterdir())]


def missing(out: Path) -> list[str]:
    """Files that the page refers to and that do not exist."""
    page = (out / "index.html").read_text(encoding="utf-8")
    named = re.findall(r"""(?:src|href|poster)=["']([^"']+)""", page)
    assert "overlay.mp4" in named and "http" not in page
    return [name for name in named if not (out / name).is_file()]


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
    assert (after.height, after.width, after.fps, after.num_frames) == (*shape, before.fps, count)
    sounds = [sum(map(len, read_audio(video, RATE))) for video in (before, after)]
    assert sounds[1] == pytest.approx(sounds[0], abs=2048)
    assert not missing(out) and json.loads((out / "demo.json").read_text())["masks"] == len(found)
    assert "Film &amp; &lt;Co&gt;.mp4" in (out / "index.html").read_text()


def test_masks_and_audio_are_synchronous(tmp_path: Path) -> None:
    """The loud second, 1 to 2, inverts the mask in frames 25 to 49, where the audio of the overlay is loud."""
    path, sound = tmp_path / "a.mp4", tone(3)
    sound[RATE : 2 * RATE] *= 3
    write_video(path, moving(75), 25, sound)
    rates: tuple[MaskRate, ...] = ("second", "frame")
    for mask_rate in rates:
        out = make(tmp_path, path, mask_rate=mask_rate)
        assert len(masks(out)) == (3 if mask_rate == "second" else 75)
        video = open_video(out / "overlay.mp4")
        for tick, frame in read_frames(video):
            rgb = frame_to_rgb(video, frame).astype(int)
            orange = (rgb[..., 0] - rgb[..., 2]).mean(axis=0) > 40
            assert orange[:28].all() != orange[36:].all() and orange[36:].all() == (25 <= tick < 50)
            marked = rgb[:, 4:24] if 25 <= tick < 50 else rgb[:, 40:60]
            assert (marked.mean() - 20) / 3 == pytest.approx(tick, abs=0.9)
        track = np.abs(np.concatenate(list(read_audio(video, RATE)))[:, 0].astype(float))
        loud = np.flatnonzero(track > 0.5 * 32768)
        assert loud[0] == pytest.approx(RATE, abs=200) and loud[-1] == pytest.approx(2 * RATE, abs=200)


def test_audio_is_synchronous_with_a_variable_frame_rate(tmp_path: Path) -> None:
    """A frame that is shown for two seconds does not shift the audio of the overlay."""
    stamps = [40 * n for n in range(25)] + [3000 + 40 * n for n in range(25)]
    sound = np.concatenate([0.1 * tone(3, 48_000, 2), 2.5 * tone(1, 48_000, 2)])
    out = make(tmp_path, mux(tmp_path / "a.mkv", "libx264", stamps, sound, "flac"))
    video = open_video(out / "overlay.mp4")
    assert video.duration == pytest.approx(4, abs=0.05) and len(masks(out)) == 4
    assert [mask[:, -1].all() for mask in masks(out)] == [False, False, False, True]  # loud in the last second alone
    track = np.abs(np.concatenate(list(read_audio(video, 48_000)))[:, 0].astype(float))
    assert np.flatnonzero(track > 0.5 * 32768)[0] == pytest.approx(3 * 48_000, abs=200)


def test_requested_images_are_saved(tmp_path: Path, clip_file: ClipMaker) -> None:
    path = clip_file("pictures.mp4", seconds=2, fps=4)
    out = make(tmp_path, path, mask_rate="frame", heatmaps=True, prompts=True)
    names = [f"{n:06d}.jpg" for n in range(1, 9)]
    for folder in ("heatmaps", "prompts"):
        assert sorted(image.name for image in (out / folder).iterdir()) == names
        assert read_image(out / folder / names[0]).shape == (360, 480, 3)
    # The box of the prompt is on the left half, in yellow.
    image = read_image(out / "prompts" / names[0]).astype(int)
    yellow = (image[..., 0] > 150) & (image[..., 2] < 120)
    assert yellow[180, 236:242].any() and not yellow[:, 245:].any()
    page = (out / "index.html").read_text()
    assert page.count("<section") == 2 and page.count('src="images/') == 6 and "bell &amp; drum" in page
    out = make(tmp_path, path)
    assert not (out / "heatmaps").exists() and not (out / "prompts").exists() and len(masks(out)) == 2


def test_page_of_a_long_video_skips_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zero_shot.demo_notes.MAX_CARDS", 4)
    path = tmp_path / "a.mp4"
    write_video(path, moving(20), 2, tone(10))
    out = make(tmp_path, path)
    page = (out / "index.html").read_text()
    assert page.count("<section") == 4 and "one second in 3" in page and len(masks(out)) == 10 and not missing(out)


def test_inputs_equal_those_of_preprocessing(clip_file: ClipMaker, tmp_path: Path) -> None:
    """For a clip of the study the method gets the frames and the audio that preprocessing gives."""
    path, method = clip_file("study.mp4"), LeftHalf()
    method.sample_rate = 44_100
    make(tmp_path, path, method)
    media = read_clip(path)
    write_bytes(tmp_path / "clip.wav", wav_bytes(media.samples, 16_000))
    heard = load_clip_waveform(tmp_path / "clip.wav", 44_100)
    assert len(method.inputs) == 5
    for (frame, second), study_frame, study_second in zip(method.inputs, media.frames, heard, strict=True):
        assert np.array_equal(frame, study_frame)
        assert second.shape == (44_100,) and np.abs(second - study_second).max() < 1e-6


# Silence and empty masks


def notes(out: Path) -> str:
    stated = "\n".join(json.loads((out / "demo.json").read_text())["notes"])
    page = (out / "index.html").read_text()
    assert all(note.split("&")[0].split("<")[0] in page for note in stated.splitlines())
    return stated


@pytest.mark.parametrize(
    "sound, said", [(None, "no audio track"), (np.zeros(2 * RATE), "silent from beginning to end")]
)
def test_without_audio_masks_are_empty(tmp_path: Path, capsys: Capture, sound: np.ndarray | None, said: str) -> None:
    path, method = tmp_path / "a.mp4", LeftHalf()
    write_video(path, moving(50), 25, sound)
    out = make(tmp_path, path, method)
    assert not method.inputs and len(masks(out)) == 2 and not np.any(masks(out))
    assert said in notes(out) and capsys.readouterr().out.count(said) == 1 and not missing(out)
    assert open_video(out / "overlay.mp4").audio_rate == (RATE if sound is not None else 0)


def test_silent_seconds_and_empty_masks_are_noted(tmp_path: Path) -> None:
    path, sound = tmp_path / "a.mp4", tone(5)
    sound[int(1.9 * RATE) : int(4.1 * RATE)] = 0
    frames = moving(50, 48, 64)
    frames[:10] = [np.zeros_like(frame) for frame in frames[:10]]
    write_video(path, frames, 10, sound)
    out = make(tmp_path, path)
    assert [bool(mask.any()) for mask in masks(out)] == [False, True, False, False, True]
    assert "Silent at 0:02–0:04" in notes(out) and "Empty although there is audio: 1 of 5 masks" in notes(out)


def test_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(1), 25, tone(0.04))
    out = make(tmp_path, path)
    assert len(masks(out)) == 1 and masks(out)[0].any() and not missing(out)
    assert open_video(out / "overlay.mp4").num_frames == 1


def test_audio_longer_and_shorter_than_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(30), 10, tone(5))
    out = make(tmp_path, path)
    assert [bool(mask.any()) for mask in masks(out)] == [True] * 3
    assert sum(map(len, read_audio(open_video(out / "overlay.mp4"), RATE))) == pytest.approx(5 * RATE, abs=2048)
    write_video(path, moving(50), 10, tone(2))
    assert [bool(mask.any()) for mask in masks(make(tmp_path / "shorter", path))] == [True, True, False, False, False]


# Errors


def error_of(words: Sequence[str | Path], capsys: Capture) -> str:
    capsys.readouterr()
    assert demo.main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def test_files_that_are_not_videos(tmp_path: Path, capsys: Capture, clip_file: ClipMaker) -> None:
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
    ):
        message = error_of([path], capsys)
        assert said in message and str(path) in message


def test_damaged_frames_are_skipped(tmp_path: Path) -> None:
    path = mux(tmp_path / "a.mkv", "libx264", [40 * n for n in range(75)], tone(3, 48_000, 2), "flac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(data)
    out = make(tmp_path, path)
    assert len(masks(out)) == 3 and open_video(out / "overlay.mp4").num_frames == 75


def test_rest_of_a_truncated_file_is_used(tmp_path: Path, clip_file: ClipMaker) -> None:
    whole, path = clip_file("whole.mp4").read_bytes(), tmp_path / "a.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    out = make(tmp_path, path)
    assert "cut short" in notes(out) and 2 <= len(masks(out)) < 5 and not missing(out)


def test_other_folders_are_not_overwritten(tmp_path: Path, clip_file: ClipMaker, capsys: Capture) -> None:
    video = open_video(clip_file("folder.mp4", seconds=1))
    others = tmp_path / "others"
    (others / "masks").mkdir(parents=True)
    (others / "masks" / "mine.png").write_bytes(b"mine")
    for folder, said in (
        (others, "other files than a demo"),
        (video.path, "is a file"),
        (video.path / "out", "cannot be created"),
    ):
        with pytest.raises(InputError, match=said):
            check_folder(folder, video, sha256(video.path))
    out = make(tmp_path, video.path)
    (out / "thesis.txt").write_text("mine")
    assert "thesis.txt" in error_of([video.path, "--out", out], capsys)
    (out / "thesis.txt").unlink()
    assert "is inside" in error_of([out / "overlay.mp4", "--out", out], capsys)
    first = (out / "overlay.mp4").read_bytes()
    assert len(masks(make(tmp_path, video.path, mask_rate="frame"))) == 25  # which do not stay, either
    assert make(tmp_path, video.path) == out and (out / "overlay.mp4").read_bytes() == first and len(masks(out)) == 1
    assert not list(out.rglob("*.partial*"))


def test_bad_weights_leave_an_existing_demo_intact(tmp_path: Path, clip_file: ClipMaker, capsys: Capture) -> None:
    path = clip_file("weights.mp4", seconds=1)
    out = make(tmp_path, path)
    said = error_of([path, "--out", out, "--method", "heatmap", "--audioclip.weights", tmp_path / "no.pt"], capsys)
    assert "no.pt" in said and not missing(out)


# The whole


def first_clip(composed: Path) -> Path:
    return min((composed / "Single-source").rglob("*.mp4"))


WITHOUT_TRACE = ["--run.use_cache", "false", "--run.device", "cpu"]


def test_small_weights_end_to_end(composed: Path, tmp_path: Path, capsys: Capture) -> None:
    """Without --config: No-Prompt, the method of the default YAML file."""
    out = tmp_path / "out"
    words = [str(first_clip(composed)), "--out", str(out), "--proposals.points_per_side", "6", *WITHOUT_TRACE]
    assert demo.main(words) == 0
    said = capsys.readouterr().out
    assert str(out / "index.html") in said and len(said.splitlines()) < 24
    # The note about the small weights is printed first and once, and is in the headline of the page.
    assert said.startswith(f"note: {SMALL_WEIGHTS_NOTE}\n") and notes(out).startswith(SMALL_WEIGHTS_NOTE)
    page = (out / "index.html").read_text()
    assert "fourteen drawings" in page[page.index("<h1>") : page.index("</h1>")]
    assert said.count(SMALL_WEIGHTS_NOTE) == 1
    options = from_yaml(Options, out / "config.yaml")
    assert options.method == "no_prompt" and options.sam.model == "mini" and options.proposals.points_per_side == 6
    assert len(masks(out)) == 5 and any(mask.any() for mask in masks(out)) and not missing(out)
    assert not (out / "heatmaps").exists()


def test_prompts_end_to_end(composed: Path, tmp_path: Path) -> None:
    """The demo's masks equal the method's predictions for the preprocessed clip."""
    out, clip = tmp_path / "out", first_clip(composed)
    config = demo.DEFAULT_CONFIG.with_name("s4_point_local.yaml")
    assert (
        demo.main(
            [str(clip), "--config", str(config), "--out", str(out), "--save-heatmaps", "--save-prompts", *WITHOUT_TRACE]
        )
        == 0
    )
    assert all(len(list((out / folder).iterdir())) == 5 for folder in ("masks", "heatmaps", "prompts")) and not missing(
        out
    )
    method = build_method(from_yaml(Options, out / "config.yaml"))
    data = AVSDataset(AVSBench(composed / "Single-source", "s4"), clip.parts[-3], images="raw", audio="waveform")
    item = next(data[index] for index, known in enumerate(data.clips) if known.name == clip.stem)
    predictions = method.predict(list(item["frames"].numpy()), item["waveform"])
    for found, prediction in zip(masks(out), predictions, strict=True):
        assert np.array_equal(found > 0, resize_mask(prediction.mask, found.shape))
