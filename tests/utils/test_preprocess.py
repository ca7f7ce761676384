"""Preprocessing: the original's rules, resuming, and every kind of broken clip."""

import csv
import errno
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile

import preprocess_ms3
import preprocess_s4
from avsbench_data import check
from utils import files, preprocess
from utils.audio import log_mel
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.layout import AVSBench
from utils.timestamps import published_frame_indices
from utils.video import check_clip, read_clip

ClipMaker = Callable[..., Path]


def put(root: Path, clips: dict[str, Path]) -> AVSBench:
    """An S4 benchmark of test clips made of the given videos."""
    rows = ["name,start,category,split", *(f"{name},0,thing,test" for name in clips)]
    root.mkdir(exist_ok=True)
    (root / "s4_meta_data.csv").write_text("\n".join(rows) + "\n")
    data = AVSBench(root, "s4")
    for clip in data.clips:
        files.write_bytes(data.video(clip), clips[clip.name].read_bytes())
    return data


def report(root: Path) -> dict[str, dict[str, str]]:
    with (root / "s4_preprocess_report.csv").open() as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    "fps, expected",
    [
        (24, [22, 46, 70, 94, 118]),
        (25, [23, 48, 73, 98, 123]),
        (30, [28, 58, 88, 118, 148]),
        (29.97, [28, 58, 88, 118, 148]),
        (15, [14, 29, 44, 59, 74]),
        (10, [9, 19, 29, 39, 49]),
        (60, [56, 116, 176, 236, 296]),
    ],
)
def test_frame_indices(fps: float, expected: list[int]) -> None:
    assert published_frame_indices(fps) == expected


def grey(frame: np.ndarray) -> float:
    return float(frame.mean())


@pytest.mark.parametrize("fidelity", ["published", "corrected"])
@pytest.mark.parametrize("fps", [10, 25, 29.97, 60])
def test_the_right_frames_are_read(clip_file: ClipMaker, fps: float, fidelity: Fidelity) -> None:
    """Counted at 30 a second, the last frame of 29.97 is the one after the one on the screen at 4.9375 s."""
    media = read_clip(clip_file(f"fps{fps}.mp4", fps=fps), fidelity)
    shown = [int((second + 15 / 16) * fps) for second in range(5)]
    assert shown == published_frame_indices(fps) or (
        fps == 29.97 and shown[4] == 147 and published_frame_indices(fps)[4] == 148
    )
    wanted = [index % 250 for index in (shown if fidelity == "corrected" else published_frame_indices(fps))]
    assert [round(grey(frame)) for frame in media.frames] == pytest.approx(wanted, abs=1.1)
    assert len(media.samples) == pytest.approx(80_000, abs=1100) and media.samples.dtype == np.int16


def test_frames_are_the_plain_form(composed: Path) -> None:
    """Decode every frame and resize each, as the original does: what published gives."""
    data = AVSBench(composed / "Single-source", "s4")
    path = data.video(data.clips[0])
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        every = [frame.to_ndarray(format="rgb24", interpolation="BICUBIC") for frame in container.decode(video=0)]
    resized = [cv2.resize(frame, (224, 224)) for frame in every]
    for index, frame in zip(published_frame_indices(rate), read_clip(path, "published").frames, strict=True):
        np.testing.assert_array_equal(frame, resized[min(index, len(resized) - 1)])


def test_short_clip_repeats_its_last_frame_and_example(clip_file: ClipMaker, tmp_path: Path) -> None:
    data = put(tmp_path, {"short": clip_file("short.mp4", seconds=2.0)})
    assert preprocess_s4.main(["--root", str(tmp_path), "--jobs", "1"]) == 0
    clip = data.clips[0]
    levels = [round(grey(files.read_image(path))) for path in data.frames(clip)]
    assert levels == pytest.approx([23, 48, 49, 49, 49], abs=1.1)
    examples = np.load(data.log_mel(clip))
    assert examples.shape == (5, 1, 96, 64)
    samples, rate = soundfile.read(data.wav(clip), dtype="int16")
    assert rate == 16_000 and soundfile.info(data.wav(clip)).subtype == "PCM_16"
    made = log_mel(samples, rate)
    assert len(made) == 2
    for k in range(5):
        np.testing.assert_array_equal(examples[k], made[min(k, 1)])


def test_stereo_stays_stereo(tmp_path: Path) -> None:
    from utils.video_writer import write_video

    tone = 0.3 * np.sin(np.arange(220_500) / 20)
    path = tmp_path / "stereo.mp4"
    write_video(path, (np.zeros((48, 64, 3), np.uint8) for _ in range(50)), 10, np.stack([tone, 0 * tone], 1))
    samples = read_clip(path).samples
    assert samples.shape[1] == 2
    assert np.abs(samples[:, 0]).mean() > 50 * np.abs(samples[:, 1]).mean()


def broken_clips(clip_file: ClipMaker, folder: Path) -> dict[str, tuple[Path, str]]:
    good = clip_file("good.mp4")
    data = good.read_bytes()
    half, text, empty = folder / "half.mp4", folder / "text.mp4", folder / "empty.mp4"
    half.write_bytes(data[: len(data) // 2])
    text.write_bytes(b"<html>404 Not Found</html>" * 40)
    empty.write_bytes(b"")
    headless = folder / "headless.mp4"
    headless.write_bytes(data[:30] + bytes(300) + data[330:])
    return {
        "truncated": (half, "truncated"),
        "text": (text, "not a readable video"),
        "empty": (empty, "not a readable video"),
        "headless": (headless, "not a readable video|truncated|video track"),
        "silent": (clip_file("silent.mp4", sound=False), "has no sound"),
        "blink": (clip_file("blink.mp4", seconds=0.5), "shorter than one log-mel example"),
    }


def test_broken_clips_are_named_and_the_others_processed(
    clip_file: ClipMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = broken_clips(clip_file, tmp_path)
    good = {"good": clip_file("good.mp4"), "ntsc": clip_file("ntsc.mp4", fps=29.97)}
    root = tmp_path / "data"
    data = put(root, good | {name: path for name, (path, _) in broken.items()})
    data.video(data.clips[0]).with_name("extra.mp4").touch()  # a file that the meta data do not know
    assert preprocess_s4.main(["--root", str(root), "--jobs", "2"]) == 1
    rows = report(root)
    assert {name for name, row in rows.items() if row["status"] == "done"} == set(good)
    printed = capsys.readouterr().out
    for name, (_, message) in broken.items():
        assert rows[name]["status"] == "failed" and rows[name]["reason"].count("\n") == 0
        assert re.search(message, rows[name]["reason"]), rows[name]["reason"]
        assert f"failed: {name}: " in printed
    made = list(root.rglob("*.png"))
    assert len(made) == 5 * len(good) and not list(root.rglob("*partial*"))
    assert "2 done, 0 skipped, 6 failed" in printed
    # A second run tries the failed ones again and leaves the good ones alone.
    assert preprocess_s4.main(["--root", str(root), "--jobs", "1"]) == 1
    assert {row["status"] for name, row in report(root).items() if name in good} == {"skipped"}


def test_probe_finds_what_preprocessing_would(clip_file: ClipMaker, tmp_path: Path) -> None:
    for name, (path, message) in broken_clips(clip_file, tmp_path).items():
        if name != "blink":
            with pytest.raises(InputError, match=message):
                check_clip(path)
    check_clip(clip_file("good.mp4"))


@pytest.mark.parametrize(
    "damage", ["missing frame", "cut frame", "small frame", "cut wav", "cut log-mel", "no log-mel"]
)
def test_resume_makes_damaged_clips_again(clip_file: ClipMaker, tmp_path: Path, damage: str) -> None:
    data = put(tmp_path, {"a": clip_file("good.mp4"), "b": clip_file("good.mp4")})
    run = lambda: [o.status for o in preprocess.preprocess(data, jobs=1)]  # noqa: E731
    assert run() == ["done", "done"]
    clip = data.clips[1]
    frame, wav, mel = data.frames(clip)[3], data.wav(clip), data.log_mel(clip)
    before = {path: path.read_bytes() for path in (frame, wav, mel)}
    if damage == "missing frame":
        frame.unlink()
    elif damage == "cut frame":
        frame.write_bytes(before[frame][:200])
    elif damage == "small frame":
        cv2.imwrite(str(frame), np.zeros((100, 100, 3), np.uint8))
    elif damage == "cut wav":
        wav.write_bytes(before[wav][:20])
    elif damage == "cut log-mel":
        mel.write_bytes(before[mel][:-1000])
    else:
        mel.unlink()
    assert run() == ["skipped", "done"]
    assert {path: path.read_bytes() for path in before} == before
    assert run() == ["skipped", "skipped"]
    assert [o.status for o in preprocess.preprocess(data, jobs=1, overwrite=True)] == ["done", "done"]


def test_full_disk(clip_file: ClipMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = put(tmp_path, {"a": clip_file("good.mp4")})
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.suffix == ".wav":
            write(self, content[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    outcome = preprocess.preprocess_clip(data, data.clips[0])
    assert outcome.status == "failed" and "No space left on device" in outcome.reason
    assert not data.wav(data.clips[0]).exists() and not list(tmp_path.rglob("*partial*"))
    monkeypatch.undo()
    assert preprocess.preprocess_clip(data, data.clips[0]).status == "done"


KILL = """
import os, signal, sys
from pathlib import Path
from utils import preprocess
from utils.fidelity import Fidelity
from utils.layout import AVSBench
write, left = Path.write_bytes, [int(sys.argv[2])]
def dying(self, content):
    left[0] -= 1
    if left[0] == 0:
        write(self, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, content)
Path.write_bytes = dying
preprocess.preprocess(AVSBench(sys.argv[1], "s4"), jobs=1)
"""


@pytest.mark.parametrize("nth_write", [3, 6, 7])  # in a frame, in the wav, in the log-mel
def test_kill_in_mid_write_leaves_nothing_half(clip_file: ClipMaker, tmp_path: Path, nth_write: int) -> None:
    data = put(tmp_path, {"a": clip_file("good.mp4")})
    run = subprocess.run([sys.executable, "-c", KILL, str(tmp_path), str(nth_write)], capture_output=True)
    assert run.returncode == -signal.SIGKILL
    clip = data.clips[0]
    everything = [*data.frames(clip), data.wav(clip), data.log_mel(clip)]
    assert sum(path.exists() for path in everything) == nth_write - 1
    assert preprocess.preprocess_clip(data, clip).status == "done"
    assert all(path.exists() for path in everything)
    assert preprocess.preprocess_clip(data, clip).status == "skipped"


# Fidelity


def made(data: AVSBench) -> dict[Path, bytes]:
    """All files of the only clip."""
    paths = [*data.frames(data.clips[0]), data.wav(data.clips[0]), data.log_mel(data.clips[0])]
    return {path: path.read_bytes() for path in paths}


def test_the_other_fidelity_makes_a_clip_anew(clip_file: ClipMaker, tmp_path: Path) -> None:
    data = put(tmp_path, {"a": clip_file("good.mp4")})
    main = lambda *more: preprocess_s4.main(["--root", str(tmp_path), "--jobs", "1", *more])  # noqa: E731
    row = lambda: (report(tmp_path)["a"]["status"], report(tmp_path)["a"]["reason"])  # noqa: E731
    assert main() == 0 and row() == ("done", "") and main("--fidelity", "corrected") == 0 and row() == ("skipped", "")
    wav, mel = data.wav(data.clips[0]), data.log_mel(data.clips[0])
    corrected = made(data)
    assert soundfile.info(wav).channels == 1 and preprocess.read_fidelity_tag(wav) == "corrected"
    assert main("--fidelity", "published") == 0 and row() == ("done", "was corrected")
    published = made(data)
    assert soundfile.info(wav).channels == 2 and preprocess.read_fidelity_tag(wav) == "published"
    np.testing.assert_array_equal(np.load(mel), log_mel(soundfile.read(wav, dtype="int16")[0], 16_000))
    assert published[mel] != corrected[mel]
    assert main() == 0 and row() == ("skipped", "")  # goes on as the folder was begun
    assert main("--fidelity", "corrected") == 0 and row() == ("done", "was published") and made(data) == corrected


def test_a_folder_of_both_fidelities_is_told(
    clip_file: ClipMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = put(tmp_path, {"a": clip_file("good.mp4"), "b": clip_file("good.mp4")})
    kinds: tuple[Fidelity, ...] = ("corrected", "published")
    for clip, fidelity in zip(data.clips, kinds, strict=True):
        assert preprocess.preprocess_clip(data, clip, fidelity).status == "done"
        for path in data.masks(clip):
            files.write_bytes(path, files.png_bytes(np.zeros((224, 224), np.uint8)))
    said = r"preprocessed differently \(1 as corrected, 1 as published\); run python preprocess_s4"
    assert preprocess_s4.main(["--root", str(tmp_path)]) == 1 and re.search(said, capsys.readouterr().err)
    assert run_check(tmp_path) == 1 and re.search(said, capsys.readouterr().out)
    assert preprocess_s4.main(["--root", str(tmp_path), "--fidelity", "published", "--jobs", "1"]) == 0
    assert preprocess.detect_fidelity(data) == "published" and run_check(tmp_path) == 0


@pytest.mark.parametrize("nth_write", range(1, 8))
@pytest.mark.parametrize("then", ["published", "corrected"])
def test_stopped_while_made_anew_a_clip_is_of_neither_fidelity(
    clip_file: ClipMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth_write: int, then: Fidelity
) -> None:
    data = put(tmp_path, {"a": clip_file("good.mp4")})
    expected = {}
    fidelities: tuple[Fidelity, ...] = ("published", "corrected")
    for fidelity in fidelities:
        assert preprocess.preprocess_clip(data, data.clips[0], fidelity).status == "done"
        expected[fidelity] = made(data)
    write, writes = Path.write_bytes, count(1)

    def stopping(self: Path, content: bytes) -> int:
        if next(writes) == nth_write:
            raise KeyboardInterrupt
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", stopping)
    with pytest.raises(KeyboardInterrupt):
        preprocess.preprocess_clip(data, data.clips[0], "published")
    monkeypatch.undo()
    assert preprocess.preprocess_clip(data, data.clips[0], then).status == "done"
    assert made(data) == expected[then]


def test_what_others_made_is_kept_and_told(
    clip_file: ClipMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AVSBench's own wavs carry ffmpeg's comment or none."""
    data = put(tmp_path, {"a": clip_file("good.mp4")})
    main = lambda *more: preprocess_s4.main(["--root", str(tmp_path), "--jobs", "1", *more])  # noqa: E731
    assert main() == 0 and "note:" not in capsys.readouterr().out
    files.write_bytes(data.wav(data.clips[0]), files.wav_bytes(np.zeros((80_000, 2), np.int16), 16_000, "Lavf58"))
    theirs = made(data)
    for fidelity in ("published", "corrected"):
        assert main("--fidelity", fidelity) == 0 and made(data) == theirs
        said = "note: 1 of them were kept but do not state their fidelity"
        assert said in capsys.readouterr().out
    assert main("--overwrite") == 0 and "note:" not in capsys.readouterr().out and made(data) != theirs


def test_a_video_that_went_bad_leaves_what_was_made(clip_file: ClipMaker, tmp_path: Path) -> None:
    data = put(tmp_path, {"a": clip_file("good.mp4")})
    assert preprocess.preprocess_clip(data, data.clips[0]).status == "done"
    corrected = made(data)
    data.video(data.clips[0]).write_bytes(b"")
    assert preprocess.preprocess_clip(data, data.clips[0], "published").status == "failed"
    assert made(data) == corrected


def test_interrupt_is_one_line(
    composed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preprocess, "preprocess", interrupted)
    assert preprocess_s4.main(["--root", str(composed / "Single-source")]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; run the same command again to resume"


def test_ms3_layout(composed: Path) -> None:
    root = composed / "Multi-sources"
    data = AVSBench(root, "ms3")
    clip = data.clips[0]
    assert data.frames(clip)[0].name == f"{clip.name}.mp4_1.png" and data.frames(clip)[0].exists()
    assert data.wav(clip) == root / "ms3_data" / "audio_wav" / clip.split / f"{clip.name}.wav"
    assert preprocess_ms3.main(["--root", str(root), "--jobs", "1"]) == 0


def test_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preprocess_s4.main(["--root", str(tmp_path)]) == 1
    assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        preprocess_s4.main(["--job"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        preprocess_s4.main(["--jobs", "0"])
    assert stop.value.code == 2


# avsbench_data.check


def run_check(root: Path, benchmark: str = "s4") -> int:
    return check.main(["--root", str(root), "--benchmark", benchmark, "--jobs", "1"])


def test_check_is_quiet_when_all_is_well(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, benchmark in (("Single-source", "s4"), ("Multi-sources", "ms3")):
        assert run_check(composed / folder, benchmark) == 0
        assert "all ok" in capsys.readouterr().out


def test_check_names_every_fault(benchmark_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = benchmark_copy / "Single-source"
    data = AVSBench(root, "s4")
    one, two = data.split("test")[:2]
    video, mask = data.video(one), data.masks(two)[2]
    video.write_bytes(video.read_bytes()[:3000])
    mask.unlink()
    data.frames(one)[0].unlink()
    data.wav(two).write_bytes(b"RIFF")
    np.save(data.log_mel(two), np.zeros((1, 1, 96, 64), np.float32))
    assert run_check(root) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"{len(data.clips)} clips" in lines[-1] and "2 with problems" in lines[-1]
    expected = {video: "obtain", mask: "no such mask", data.frames(one)[0]: "preprocess_s4.py"}
    expected |= {data.wav(two): "preprocess_s4.py", data.log_mel(two): "preprocess"}
    assert len(lines) == len(expected) + 1
    for path, word in expected.items():
        assert any(str(path) in line and word in line for line in lines), path


def test_check_before_preprocessing_and_without_raw_videos(
    benchmark_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = benchmark_copy / "Single-source"
    (root / "s4_data" / "raw_videos").rename(root / "elsewhere")
    assert run_check(root) == 0
    assert "no raw_videos" in capsys.readouterr().out
    for name in ("visual_frames", "audio_wav", "audio_log_mel"):
        (root / "s4_data" / name).rename(root / name)
    assert run_check(root) == 1
    assert "neither raw_videos nor visual_frames" in capsys.readouterr().err
    (root / "elsewhere").rename(root / "s4_data" / "raw_videos")
    assert run_check(root) == 0
    assert "not preprocessed yet" in capsys.readouterr().out
