"""Composed clips: layout, exact masks, reproducibility, sprites and sounds, and errors."""

import csv
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from synthetic import compose
from synthetic.clips.assets import BuiltinLibrary, FolderLibrary
from synthetic.clips.plan import RenderConfig, assign_splits, clip_rng, plan_clips
from synthetic.clips.rasterize import render_background, render_sprite
from synthetic.clips.sampling import LEVELS, SceneObject, mix_audio, sample_objects, sample_scene
from synthetic.clips.scene import MovingSprite, Scene
from synthetic.clips.sounds import OFFSCREEN_SOUNDS, SOUNDS, synthesize
from synthetic.clips.sprites import DRAWINGS
from synthetic.clips.synthesis import SYNTHESIS_RATE, loop
from synthetic.compose import compose_clip, main
from utils.layout import BENCHMARKS, SPLITS, AVSBench
from utils.sound_conditions import clip_classes
from utils.video import read_clip

BOTH = ("s4", "ms3")
PLAIN_DIGEST = "83a579ab84d3c3e3"  # of the objects and places of one clip, as they were before there were levels
ARGUMENTS = ["--s4", "5", "--ms3", "3", "--seed", "3"]
a_few = settings(max_examples=12, deadline=None)
seeds, categories = st.integers(0, 2**32 - 1), st.sampled_from(sorted(DRAWINGS))


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small composed folder."""
    out = tmp_path_factory.mktemp("composed")
    assert main(["--out", str(out), *ARGUMENTS, "--jobs", "1"]) == 0
    return out


def dataset(out: Path, benchmark: str) -> AVSBench:
    return AVSBench(out / BENCHMARKS[benchmark].root, benchmark)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]


# The composed folder


@pytest.mark.parametrize("benchmark", BOTH)
def test_layout(composed: Path, benchmark: str) -> None:
    data = dataset(composed, benchmark)
    expected = {data.root / data.benchmark.meta}
    for clip in data.clips:
        expected |= {data.video(clip), *data.masks(clip)}
    assert {path for path in data.root.rglob("*") if path.is_file()} == expected
    rows = list(csv.reader((data.root / data.benchmark.meta).open(newline="")))
    assert rows[0] == {"s4": ["name", "start", "category", "split"], "ms3": ["video_id", "split", "a_obj"]}[benchmark]
    assert {clip.split for clip in data.clips} == set(SPLITS)
    if benchmark == "s4":
        assert all(row[1] == "0" and row[0].startswith(row[2]) for row in rows[1:])
        assert [len(data.masks(clip)) for clip in data.split("train")] == [1, 1, 1]


@pytest.mark.parametrize("benchmark", BOTH)
def test_masks_and_media(composed: Path, benchmark: str) -> None:
    data = dataset(composed, benchmark)
    for clip in data.clips:
        for path in data.masks(clip):
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (224, 224) and mask.dtype == np.uint8
            assert set(np.unique(mask)) <= {0, 255}
            assert benchmark == "ms3" or (mask > 0).mean() >= 0.02
        media = read_clip(data.video(clip))
        assert len(media.samples) / 16_000 == pytest.approx(5, abs=0.05)
        assert len(decoded(data.video(clip))) == 50


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_jobs(composed: Path, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), *ARGUMENTS, "--jobs", "2"]) == 0
    first, second = contents(composed), contents(tmp_path)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_running_again_resumes(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again"
    shutil.copytree(composed, out)
    whole, data = contents(out), dataset(out, "s4")
    data.video(data.clips[0]).unlink()  # as if killed before writing the video
    data.masks(data.clips[1])[0].unlink()
    (data.root / data.benchmark.meta).unlink()
    (data.video(data.clips[0]).parent / ".x.12345678.partial.mp4").write_bytes(b"half")
    assert main(["--out", str(out), *ARGUMENTS, "--jobs", "1"]) == 0
    assert "2 clips composed" in (printed := capsys.readouterr().out) and "6 already existed" in printed
    assert contents(out) == whole


# Levels of difficulty


def test_the_hard_level_has_what_makes_clips_difficult() -> None:
    """Counted over many clips: small, hidden and cut-off objects, pauses, sounds from outside, more objects."""
    level, names, assets = LEVELS["hard"], sorted(DRAWINGS), BuiltinLibrary()
    found = Counter[str]()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        objects = sample_objects("s4", names[seed % 14], names, rng, level)
        shown = [item for item in objects if item.visible]
        assert len({item.category for item in objects}) == len(objects) and 4 <= len(shown) <= 8
        assert [item.category for item in shown if item.sounding] == [names[seed % 14]]
        found["pauses"] += any(len(item.sounding) < 5 for item in shown if item.sounding)
        found["outside"] += len(shown) < len(objects)
        if seed < 8:
            scene, fractions = sample_scene(objects, assets, (240, 320), [0.0, 4.0], rng, level)
            areas = (fractions > 0.5).mean((2, 3))
            target = next(place for place, item in enumerate(shown) if item.sounding)
            assert fractions.shape[1] == len(shown) == len(scene.sprites) and (areas[:, target] >= 0.004).all()
            found["small"] += int((areas < 0.02).sum())
            edges = np.concatenate([fractions[..., [0, -1], :].ravel(), fractions[..., [0, -1]].ravel()])
            found["cut off"] += bool((edges > 0.5).any())
    assert 8 <= found["pauses"] <= 26 and 8 <= found["outside"] <= 26
    assert found["small"] >= 4 and found["cut off"] >= 4


def test_pauses_have_empty_masks_and_the_plain_level_is_unchanged(tmp_path: Path) -> None:
    words = ["--s4", "12", "--ms3", "0", "--seed", "5", "--jobs", "1"]
    assert main(["--out", str(tmp_path / "hard"), *words, "--level", "hard", "--split", "test"]) == 0
    data = dataset(tmp_path / "hard", "s4")
    assert {clip.split for clip in data.clips} == {"test"}
    for clip in data.clips:
        index = int(clip.name.rsplit("_", 1)[1])
        objects = sample_objects("s4", clip.category, tuple(DRAWINGS), clip_rng(5, "s4", index), LEVELS["hard"])
        (sounding,) = (item.sounding for item in objects if item.sounding and item.visible)
        shown = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED).any() for path in data.masks(clip)]
        assert [second for second, any_pixel in enumerate(shown) if any_pixel] == list(sounding)
    recipe = json.loads((tmp_path / "hard" / "compose.json").read_text())
    assert recipe["level"] == "hard"
    digest = hashlib.sha256()
    rng = np.random.default_rng(7)
    objects = sample_objects("ms3", "drum", tuple(DRAWINGS), rng)
    scene, _ = sample_scene(objects, BuiltinLibrary(), (240, 320), [0.0, 2.0], rng)
    positions = [np.round(sprite.center(1.0), 6).tolist() for sprite in scene.sprites]
    digest.update(json.dumps([[item.category, list(item.sounding)] for item in objects] + positions).encode())
    assert digest.hexdigest()[:16] == PLAIN_DIGEST


def test_sounds_from_outside_are_none_of_the_drawings(composed: Path) -> None:
    files = sorted((composed / "offscreen_sounds").iterdir())
    assert [path.stem for path in files] == sorted(OFFSCREEN_SOUNDS) and not set(OFFSCREEN_SOUNDS) & set(DRAWINGS)
    for path in files:
        samples, rate = soundfile.read(path)
        assert rate == SYNTHESIS_RATE and len(samples) == 5 * rate and 0.5 < np.abs(samples).max() < 1


@pytest.mark.parametrize("benchmark", BOTH)
def test_the_classes_of_a_clip_are_known(composed: Path, benchmark: str) -> None:
    data = dataset(composed, benchmark)
    classes = [clip_classes(benchmark, clip) for clip in data.clips]
    assert all(found <= set(DRAWINGS) and len(found) >= (1 if benchmark == "s4" else 2) for found in classes)


# Exactness of the masks


def disc(color: tuple[int, int, int], radius: int) -> np.ndarray:
    alpha = np.zeros((2 * radius + 5, 2 * radius + 5), np.float32)
    cv2.circle(alpha, (radius + 2, radius + 2), radius, 1.0, -1, cv2.LINE_AA)
    return np.dstack([alpha[..., None] * np.float32(color), alpha])


@pytest.mark.parametrize(
    ("fps", "size", "indices"),
    [
        (10.0, (240, 320), [9, 19, 29, 39, 49]),
        (12.5, (144, 240), [11, 24, 36, 49, 61]),
        (29.97, (360, 200), [28, 58, 88, 118, 147]),
    ],
)
def test_masks_match_the_labeled_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fps: float, size: tuple[int, int], indices: list[int]
) -> None:
    """A fast magenta disc, behind a still green one, lies where the mask is in that frame alone."""
    height, width = size
    start, end, middle = (np.array(at) * (width, height) for at in ((0.3, 1.3), (0.7, -0.3), (0.42, 0.45)))
    fast = MovingSprite(disc((255, 0, 255), height // 6), start, end)
    still = MovingSprite(disc((0, 255, 0), height // 8), middle, middle)
    scene = Scene(np.full((*size, 3), 128, np.float32), [fast, still])

    def fixed_scene(objects, assets, size, times, rng, level):  # type: ignore[no-untyped-def]
        return scene, np.stack([scene.visible_fractions(time) for time in times])

    objects = [SceneObject("drum", range(0, 4)), SceneObject("bell", range(0))]
    monkeypatch.setattr(compose, "sample_scene", fixed_scene)
    monkeypatch.setattr(compose, "sample_objects", lambda *_: objects)
    spec, config = plan_clips("ms3", 1, BuiltinLibrary.categories, 0)[0], RenderConfig(tmp_path, 0, fps, size)
    assert compose_clip(spec, config, BuiltinLibrary()) is False
    frames = decoded(config.path("ms3", BENCHMARKS["ms3"].video, spec.clip))

    def overlap(second: int, shift: int) -> float:
        path = config.path("ms3", BENCHMARKS["ms3"].mask, spec.clip, second + 1)
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
        frame = cv2.resize(frames[indices[second] + shift], (224, 224)).astype(int)
        found = (frame[..., 0] > 190) & (frame[..., 1] < 64) & (frame[..., 2] > 190)
        return (found & mask).sum() / max(1, (found | mask).sum())

    exact = [overlap(second, 0) for second in (1, 2, 3)]
    assert min(exact) > 0.93
    for shift in (-1, 1):
        assert all(overlap(second, shift) < exact[second - 1] - 0.02 for second in (1, 2, 3))
    last = config.path("ms3", BENCHMARKS["ms3"].mask, spec.clip, 5)
    assert cv2.imread(str(last), cv2.IMREAD_GRAYSCALE).max() == 0  # nothing sounds


def test_visible_fractions_of_a_pixel_sum_to_at_most_one() -> None:
    rng = np.random.default_rng(0)
    bee = MovingSprite(render_sprite("bee", 40, rng), np.array([50.0, 60.0]), np.array([90.0, 60.0]))
    car = MovingSprite(render_sprite("car", 40, rng), np.array([80.0, 70.0]), np.array([60.0, 60.0]))
    scene = Scene(render_background(120, 160, rng), [bee, car])
    for moment in (0.0, 2.5, 5.0):
        shares = scene.visible_fractions(moment)
        assert shares.shape == (2, 224, 224) and shares.min() >= 0 and shares.sum(axis=0).max() <= 1 + 1e-5
    alone = Scene(scene.background, [car]).visible_fractions(0.0)[0]
    np.testing.assert_allclose(scene.visible_fractions(0.0)[1], alone, atol=1e-4)  # the last sprite is in front


def test_a_sprite_outside_the_frame_is_invisible() -> None:
    far = MovingSprite(disc((255, 0, 0), 10), np.array([-100.0, 30.0]), np.array([500.0, 30.0]))
    scene = Scene(np.zeros((64, 96, 3), np.float32), [far])
    assert scene.frame(0.0).max() == 0 and scene.visible_fractions(5.0).max() == 0


# Objects, sounding seconds and splits


@given(seeds, st.sampled_from(BOTH), st.integers(3, 14))
@a_few
def test_every_clip_has_silent_distractors(seed: int, benchmark: str, count: int) -> None:
    names = sorted(DRAWINGS)[:count]
    objects = sample_objects(benchmark, names[0], names, np.random.default_rng(seed))
    assert len({item.category for item in objects}) == len(objects) <= 4
    sounding = [item for item in objects if item.sounding]
    assert len(objects) - len(sounding) >= 1
    assert names[0] in [item.category for item in sounding]
    if benchmark == "s4":
        assert [item.sounding for item in sounding] == [range(5)]
    else:
        assert len(sounding) in (2, 3)
        assert all(0 <= item.sounding.start < item.sounding.stop <= 5 for item in sounding)


def test_seconds_without_sound_are_rare() -> None:
    seconds = Counter[int]()
    for seed in range(300):
        objects = sample_objects("ms3", "drum", sorted(DRAWINGS), np.random.default_rng(seed))
        seconds[len(set().union(*(item.sounding for item in objects)))] += 1
    assert 0.9 < seconds[5] / 300 < 1


@given(st.integers(1, 400), st.integers(1, 43))
@a_few
def test_each_category_is_in_each_split_if_it_has_enough_clips(clips: int, count: int) -> None:
    targets = [str(i % count) for i in range(clips)]
    splits = assign_splits(targets)
    if clips >= 3:
        assert set(splits) == set(SPLITS)
    for category in set(targets):
        have = Counter(split for target, split in zip(targets, splits, strict=True) if target == category)
        total = sum(have.values())
        assert len(have) == min(3, total)
        if total >= 10:
            assert abs(have["train"] / total - 0.7) < 0.1 and abs(have["val"] - have["test"]) <= 1


def test_categories_take_turns_as_targets() -> None:
    targets = Counter(spec.target for spec in plan_clips("s4", 33, BuiltinLibrary.categories, 5))
    assert set(targets) == set(DRAWINGS) and set(targets.values()) == {2, 3}
    assert (
        len({spec.target for spec in plan_clips("s4", 4, BuiltinLibrary.categories, 5)}) == 4
    )  # fewer clips than categories


# Sprites and sounds


@given(categories, st.floats(20, 90), seeds)
@a_few
def test_sprites(category: str, radius: float, seed: int) -> None:
    rgba = render_sprite(category, radius, np.random.default_rng(seed))
    assert rgba.dtype == np.float32 and rgba.shape == (round(2 * radius), round(2 * radius), 4)
    color, alpha = rgba[..., :3], rgba[..., 3:]
    assert np.isfinite(rgba).all() and alpha.min() >= 0 and alpha.max() == 1
    assert (color >= 0).all() and (color <= 255 * alpha + 1e-3).all()
    edge = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert edge.max() < 0.5  # nothing is cut off
    assert 1.4 < alpha.sum() / radius**2 < 3
    assert np.array_equal(rgba, render_sprite(category, radius, np.random.default_rng(seed)))


@given(categories, st.sampled_from([SYNTHESIS_RATE, 2 * SYNTHESIS_RATE, 5 * SYNTHESIS_RATE]), seeds)
@a_few
def test_sounds(category: str, samples: int, seed: int) -> None:
    track = synthesize(category, samples, np.random.default_rng(seed))
    assert track.dtype == np.float32 and track.shape == (samples,) and np.isfinite(track).all()
    seconds = np.sqrt(np.square(track.reshape(-1, SYNTHESIS_RATE)).mean(axis=1))
    assert seconds.min() > 0.35  # each second is audible
    assert np.array_equal(track, synthesize(category, samples, np.random.default_rng(seed)))


def test_each_drawing_has_a_sound() -> None:
    assert len(DRAWINGS) >= 12 and list(DRAWINGS) == list(SOUNDS)


def test_one_second_determines_the_category() -> None:
    """The nearest other sound, in coarse spectrum and its variation within a second, has the same category."""
    edges = np.unique(np.geomspace(4, 2000, 33).astype(int))
    features, labels = [], []
    for category in SOUNDS:
        for seed in range(4):
            for second in synthesize(category, 3 * SYNTHESIS_RATE, np.random.default_rng(seed)).reshape(
                3, SYNTHESIS_RATE
            ):
                power = np.abs(np.fft.rfft(second.reshape(10, -1) * np.hanning(SYNTHESIS_RATE // 10))) ** 2
                bands = np.add.reduceat(power, edges[:-1], axis=1)
                bands = np.log(bands / bands.sum() + 1e-4)
                features.append(np.concatenate([bands.mean(axis=0), bands.std(axis=0)]))
                labels.append((category, seed))
    table = np.stack(features)
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    distance = np.square(table[:, None] - table).sum(axis=2)
    distance[[[a == b for b in labels] for a in labels]] = np.inf
    right = [labels[i][0] == labels[j][0] for i, j in enumerate(distance.argmin(axis=1))]
    assert np.mean(right) > 0.93


def test_mix_is_loud_when_objects_sound() -> None:
    objects = [SceneObject("siren", range(1, 3)), SceneObject("drum", range(0))]
    track = mix_audio(objects, BuiltinLibrary(), np.random.default_rng(0))
    assert track.shape == (5 * SYNTHESIS_RATE,) and track.dtype == np.float32 and np.abs(track).max() <= 0.9
    loud = 20 * np.log10(np.sqrt(np.square(track.reshape(5, SYNTHESIS_RATE)).mean(axis=1)))
    assert min(loud[1:3]) > max(loud[0], *loud[3:]) + 10


@given(st.integers(100, 6 * SYNTHESIS_RATE), seeds)
@a_few
def test_recordings_of_any_length_are_looped_or_cut(length: int, seed: int) -> None:
    recording = np.sin(np.arange(length) * 0.1).astype(np.float32)
    track = loop(recording, 2 * SYNTHESIS_RATE, np.random.default_rng(seed))
    assert track.shape == (2 * SYNTHESIS_RATE,) and np.isfinite(track).all()
    assert np.square(track).mean() == pytest.approx(1, rel=1e-3)


# Pictures and recordings from a folder

COLORS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (30, 30, 230)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three colored discs, with tones of three sample rates and lengths."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (name, color) in enumerate(COLORS.items()):
        picture = np.zeros((60, 40 + 20 * number, 4), np.uint8)
        half = picture.shape[1] // 2
        cv2.ellipse(picture, (half, 30), (half - 2, 28), 0, 0, 360, (*color[::-1], 255), -1)
        cv2.imwrite(str(folder / f"{name}.png"), picture)
        rate = (8000, 22050, 44100)[number]
        tone = 0.5 * np.sin(np.arange(int(rate * (0.3 + 3 * number))) * 0.2)
        soundfile.write(folder / f"{name}.wav", np.stack([tone, tone], 1) if number else tone, rate)
    return folder


def test_pictures(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--out", str(out), "--pictures", str(pictures), "--s4", "3", "--ms3", "1", "--jobs", "1"]) == 0
    data = dataset(out, "s4")
    assert sorted(clip.category for clip in data.clips) == sorted(COLORS)
    for clip in data.clips:
        frames = read_clip(data.video(clip)).frames
        for frame, path in zip(frames, data.masks(clip), strict=False):
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
            inside = np.median(frame[mask], axis=0)
            assert np.abs(inside - COLORS[clip.category]).max() < 30
            distance = np.abs(frame.astype(int) - COLORS[clip.category]).max(axis=2)
            near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
            assert not (distance[~near] < 25).any()  # no part of it lies outside the mask


def test_silence_is_removed_from_recordings(tmp_path: Path, pictures: Path) -> None:
    quiet = np.zeros(SYNTHESIS_RATE)
    quiet[SYNTHESIS_RATE // 2 : SYNTHESIS_RATE // 2 + SYNTHESIS_RATE // 5] = 0.5 * np.sin(
        np.arange(SYNTHESIS_RATE // 5) * 0.2
    )
    soundfile.write(pictures / "red.wav", quiet, SYNTHESIS_RATE)
    track = FolderLibrary(pictures).audio("red", 5 * SYNTHESIS_RATE, np.random.default_rng(0))
    assert np.sqrt(np.square(track.reshape(5, SYNTHESIS_RATE)).mean(axis=1)).min() > 0.6


def spoil(folder: Path, fault: str) -> None:
    red = folder / "red.png"
    opaque = np.full((20, 20, 3), 200, np.uint8)
    match fault:
        case "no sound":
            (folder / "red.wav").unlink()
        case "not a sound":
            (folder / "red.wav").write_text("not audio")
        case "silent":
            soundfile.write(folder / "red.wav", np.zeros(8000), 8000)
        case "not a picture":
            red.write_bytes(b"")
        case "no alpha":
            cv2.imwrite(str(red), opaque)
        case "transparent":
            cv2.imwrite(str(red), np.dstack([opaque, np.zeros((20, 20), np.uint8)]))
        case "empty":
            shutil.rmtree(folder)
            folder.mkdir()
        case "missing":
            shutil.rmtree(folder)
        case "too few":
            (folder / "red.png").unlink()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no sound", "red.png: has no recording"),
        ("not a sound", "red.wav: not a readable audio file"),
        ("silent", "red.wav: is silent"),
        ("not a picture", "red.png: not a readable image"),
        ("no alpha", "red.png: has no alpha"),
        ("transparent", "red.png: is transparent"),
        ("empty", "pictures: contains no NAME.png"),
        ("missing", "pictures: no such folder"),
        ("too few", "pictures: has 2 categories, too few for ms3, which needs 3"),
    ],
)
def test_bad_pictures_are_reported(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, message: str
) -> None:
    spoil(pictures, fault)
    out = tmp_path / "out"
    assert main(["--out", str(out), "--pictures", str(pictures), "--s4", "3", "--ms3", "1"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists()


# Photographs as backgrounds

WALLS = {"a.jpg": (20, 120, 220), "b.png": (10, 60, 30)}  # RGB, far from the discs


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two photographs of walls, in landscape and portrait format, and a text file."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "license.txt").write_text("do as you like")
    for (name, color), shape in zip(WALLS.items(), ((90, 200), (400, 130)), strict=True):
        cv2.imwrite(str(folder / name), np.full((*shape, 3), color[::-1], np.uint8))
    return folder


def test_sprites_move_over_photographs(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--out", str(out), "--backgrounds", str(photographs), "--s4", "6", "--ms3", "0", "--jobs", "2"]) == 0
    data = dataset(out, "s4")
    seen = set()
    for clip in data.clips:
        corners = read_clip(data.video(clip)).frames[0][[0, 0, -1, -1], [0, -1, 0, -1]]
        usual = np.median(corners, axis=0)  # a sprite may move into a corner
        seen |= {name for name, color in WALLS.items() if np.abs(usual - color).max() < 12}
    assert seen == set(WALLS)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_a_background_is_a_crop_of_its_photograph(rows: int, columns: int, height: int, width: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photograph = np.random.default_rng(seed).integers(40, 90, (rows, columns, 3)).astype(np.uint8)
        cv2.imwrite(f"{folder}/noise.png", photograph)
        background = BuiltinLibrary(Path(folder)).background(height, width, np.random.default_rng(seed))
    assert background.shape == (height, width, 3) and background.dtype == np.float32
    low, high = photograph.min(axis=(0, 1))[::-1], photograph.max(axis=(0, 1))[::-1]
    assert (background >= low).all() and (background <= high).all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("empty", "photographs: contains no photograph"),
        ("missing", "photographs: no such folder"),
        ("damaged", "a.jpg: not a readable image"),
    ],
)
def test_bad_photographs_are_reported(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, message: str
) -> None:
    if fault == "damaged":
        (photographs / "a.jpg").write_bytes(b"no longer")
    else:
        shutil.rmtree(photographs)
        if fault == "empty":
            photographs.mkdir()
    assert main(["--out", str(tmp_path / "out"), "--backgrounds", str(photographs), "--s4", "1"]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_photographs_are_refused(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["--out", str(tmp_path / "out"), "--s4", "1", "--ms3", "0", "--jobs", "1"]
    assert main([*drawn, "--backgrounds", str(photographs)]) == 0
    (photographs / "b.png").unlink()
    for arguments in (drawn, [*drawn, "--backgrounds", str(photographs)]):
        assert main(arguments) == 1
        assert "other arguments (backgrounds" in capsys.readouterr().err


def test_a_recipe_without_backgrounds_is_accepted(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--s4", "1", "--ms3", "0", "--jobs", "1"]
    assert main(arguments) == 0
    recipe = json.loads((tmp_path / "compose.json").read_text())
    del recipe["backgrounds"]
    (tmp_path / "compose.json").write_text(json.dumps(recipe))
    assert main(arguments) == 0


# Bad input


@pytest.mark.parametrize("change", [["--seed", "4"], ["--s4", "6"], ["--size", "160x120"], ["--fps", "12"]])
def test_other_arguments_are_refused(composed: Path, capsys: pytest.CaptureFixture[str], change: list[str]) -> None:
    before = contents(composed)
    assert main(["--out", str(composed), *ARGUMENTS, *change]) == 1
    assert "was composed with other arguments" in capsys.readouterr().err
    assert contents(composed) == before


def test_changed_pictures_are_refused(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--pictures", str(pictures), "--s4", "1", "--ms3", "0"]
    arguments += ["--jobs", "1"]
    assert main(arguments) == 0
    soundfile.write(pictures / "red.wav", np.sin(np.arange(8000)), 8000)
    assert main(arguments) == 1
    assert "pictures" in capsys.readouterr().err


def test_other_data_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Single-source").mkdir()
    assert main(["--out", str(tmp_path), "--s4", "1"]) == 1
    assert "was not composed by this command" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / "Single-source"]


def test_an_unwritable_folder_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file"), "--s4", "1"]) == 1
    assert "cannot write into" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    ["--s4 -1", "--s4 0 --ms3 0", "--jobs 0", "--size 321x240", "--size 20x20", "--size big", "--fps 0", "--seed -1"],
)
def test_bad_usage(tmp_path: Path, arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--out", str(tmp_path / "out"), *arguments.split()])
    assert end.value.code == 2 and not (tmp_path / "out").exists()
