"""--track end to end: zero_shot.evaluate, demo.py and the Python interface, with tiny random networks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import demo
from synthetic.random_sam2 import random_folder
from tests.helpers.videos import RATE, tone
from tests.zero_shot.test_evaluate import run
from utils.files import read_image
from utils.video_writer import write_video
from zero_shot import load_pipeline

POINTS = ["--method", "point", "--prompt.points", "global"]
FEW_CLIPS = ["--data.max_clips", "2"]
FAST = ["--audioclip.weights", "mini", "--sam.model", "mini", "--audioclip.reverse", "false", "--run.device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("network") / "sam2")


@pytest.fixture(scope="module")
def edgetam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("network") / "edgetam", "edgetam")


def rolling(count: int) -> list[np.ndarray]:
    """Frames (96, 128, 3) of fields of color that move to the right."""
    fields = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return [np.roll(np.kron(fields, np.ones((16, 16, 1), np.uint8)), 3 * index, axis=1) for index in range(count)]


def tracked(folder: Path, mode: str = "both") -> list[str]:
    return ["--track", mode, "--tracking.weights", str(folder), "--tracking.threshold", "0"]


def clip_masks(out: Path) -> dict[str, np.ndarray]:
    """The masks of each clip, (5, H, W) bool."""
    folders = sorted({path.parent for path in (out / "masks").rglob("*.png")})
    return {each.name: np.stack([read_image(path)[..., 0] > 0 for path in sorted(each.iterdir())]) for each in folders}


def test_clips_are_tracked_each_for_itself(composed: Path, folder: Path, tmp_path: Path) -> None:
    own = run(composed, tmp_path / "own", *POINTS, *FEW_CLIPS, "--masks")
    numbers = run(composed, tmp_path / "tracked", *POINTS, *FEW_CLIPS, "--masks", *tracked(folder))
    assert own["track"] == "none" and numbers["track"] == "both" and numbers["frames"] == own["frames"]
    assert str(folder / "model.safetensors") in numbers["checkpoints"]
    before, after = clip_masks(tmp_path / "own"), clip_masks(tmp_path / "tracked")
    for name, masks in after.items():
        kept = [index for index in range(5) if (masks[index] == before[name][index]).all()]
        assert kept, "the pivot keeps its own mask"
        assert len(kept) < 5
    alone = run(composed, tmp_path / "alone", *POINTS, *FEW_CLIPS, "--masks", *tracked(folder), "--run.batch_size", "1")
    for name, masks in clip_masks(tmp_path / "alone").items():
        assert (masks != after[name]).mean() < 1e-3
    assert alone["m_j"] == pytest.approx(numbers["m_j"], abs=1e-3)


def test_the_segmenters_own_network_prompts_and_tracks(composed: Path, folder: Path, tmp_path: Path) -> None:
    own = [*FEW_CLIPS, "--segmenter", "sam2", "--sam2.weights", str(folder), "--track", "forward"]
    numbers = run(composed, tmp_path / "run", *POINTS, *own, "--run.cache", str(tmp_path / "cache"))
    assert list(numbers["checkpoints"])[1:] == [str(folder / "model.safetensors")]
    assert len(list((tmp_path / "cache" / "embedding").rglob("*.safetensors"))) == numbers["frames"]
    again = run(composed, tmp_path / "again", *POINTS, *own, "--run.cache", str(tmp_path / "cache"))
    assert (again["m_j"], again["m_f"]) == (numbers["m_j"], numbers["m_f"])


def test_a_demo_tracks_in_windows_and_resumes(
    edgetam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, sound = tmp_path / "video.mp4", tone(7)
    sound[2 * RATE : 3 * RATE] = 0
    write_video(video, rolling(70), 10, sound)
    options = [*FAST, *POINTS, *tracked(edgetam), "--tracking.window", "3", "--run.cache", str(tmp_path / "cache")]
    out = tmp_path / "out"
    assert demo.main([str(video), "--out", str(out), *options]) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert (
        "tracking, both: " in page
        and "AudioCLIP compares audio and image: mini" in page
        and "carried here by tracking" in page
    )
    records = [json.loads(line) for line in (out / "masks.jsonl").read_text().splitlines()]
    assert len(records) == 7 and [record["silent"] for record in records].index(True) == 2
    windows = [records[start : start + 3] for start in (0, 3, 6)]
    for window in windows:  # each has a pivot of its own
        assert any(record["certain"] and "carried" not in record["certain"] for record in window)
    first = {path.name: path.read_bytes() for path in (out / "masks").iterdir()}
    # An interruption within the second window: it is predicted again as a whole.
    (out / "masks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[:4]))
    capsys.readouterr()
    assert demo.main([str(video), "--out", str(out), *options]) == 0
    assert "resuming; 3 of 7 masks done" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (out / "masks").iterdir()} == first


def test_a_video_without_sound_is_said_to_be_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "mute.mp4"
    write_video(video, rolling(30), 10, None)
    assert demo.main([str(video), "--out", str(tmp_path / "out"), *FAST, *POINTS, *tracked(folder)]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if "no audio track" in line]
    assert notes == ["note: The video has no audio track, so every mask is empty."]
    assert not any(read_image(path).any() for path in (tmp_path / "out" / "masks").iterdir())


def test_python_tracks_in_windows(folder: Path) -> None:
    options = {"track": "both", "tracking__weights": folder, "tracking__threshold": 0.0, "tracking__window": 4}
    pipeline = load_pipeline("mini/s4_point_dense", device="cpu", **options)
    frames, audio = rolling(6), tone(6)
    result = pipeline(frames, audio, RATE)
    assert result.masks.shape == (6, 96, 128)
    parts = [
        pipeline(frames[part], audio[part.start * RATE : part.stop * RATE], RATE) for part in (slice(0, 4), slice(4, 6))
    ]
    assert (np.concatenate([part.masks for part in parts]) != result.masks).mean() < 1e-3


def test_bad_networks_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "video.mp4"
    write_video(video, rolling(10), 10, tone(1))
    image = Path(shutil.copytree(folder, tmp_path / "image"))
    config = json.loads((image / "config.json").read_text())
    (image / "config.json").write_text(json.dumps({**config, "model_type": "sam2"}))
    for options, message in [
        (["--track", "both"], "segmenter sam cannot track"),
        (["--track", "both", "--tracking.weights", str(image)], "an image-only sam2"),
        (["--segmenter", "sam2"], "python -m pretrained.download sam2.1-hiera-tiny gets it"),
        (["--segmenter", "sam2", "--sam2.weights", "facebook/sam2.1-hiera-large"], "sam2.1-hiera-large gets it"),
        (
            ["--segmenter", "edgetam", "--sam2.weights", str(folder)],
            "--segmenter sam2 (model_type 'sam2_video'), not",
        ),
        (["--sam.model", "vit_h", "--sam.weights", "sam-vit-h", "--track", "both"], "segmenter sam cannot track"),
    ]:
        assert demo.main([str(video), "--out", str(tmp_path / "out"), *FAST, *POINTS, *options]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
