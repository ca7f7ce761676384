"""Composed clips of AVSS: plan, labels, and names of classes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthetic import compose
from synthetic.clips.assets import BuiltinLibrary
from synthetic.clips.avss import avss_class, label_pixels, plan_avss
from synthetic.clips.plan import RenderConfig
from synthetic.clips.sprites import DRAWINGS
from utils.audio import read_wav
from utils.classes import CLASSES, parse_objects
from utils.files import wav_bytes, write_bytes
from utils.labels import read_color_labels
from utils.layout import AVSBench

CONFIG = RenderConfig(Path("unused"), 3, 10.0, (64, 80))


def test_plan() -> None:
    specs = plan_avss(40, sorted(DRAWINGS), CONFIG)
    assert Counter(spec.clip.subset for spec in specs) == {"v1s": 16, "v1m": 8, "v2": 16}
    assert {(spec.clip.subset, spec.clip.split) for spec in specs} == {
        (subset, split) for subset in ("v1s", "v1m", "v2") for split in ("train", "val", "test")
    }
    for spec in specs:
        classes, unknown = parse_objects(spec.clip.objects)
        assert not unknown and avss_class(spec.target) in classes
        assert len(classes) == 1 if spec.clip.subset == "v1s" else len(classes) in (2, 3)
    assert plan_avss(20, sorted(DRAWINGS), CONFIG) == specs[:20]  # more clips leave the first ones as they are


def test_every_category_has_a_class_of_its_own() -> None:
    classes = [avss_class(category) for category in BuiltinLibrary.categories]
    assert len(set(classes)) == len(classes) == 14 and set(classes) <= set(CLASSES[1:])


def test_labels_show_what_is_named(composed_avss: Path) -> None:
    data, found = AVSBench(composed_avss, "avss"), Counter[str]()
    for clip in data.clips:
        labeled = {CLASSES[c] for path in data.masks(clip) for c in np.unique(read_color_labels(path))} - {"background"}
        assert labeled <= set(clip.objects.split("_"))
        found[clip.subset] += len(labeled)
        samples, rate = read_wav(data.source_audio(clip))
        assert len(samples) == rate * data.benchmark.num_frames(clip)
    assert all(found.values())


def test_a_pixel_has_the_class_that_covers_most_of_it() -> None:
    fractions = np.array([[[0.4, 0.3, 0.1]], [[0.5, 0.1, 0.6]]])
    assert label_pixels(fractions, np.array([7, 9], np.uint8)).tolist() == [[9, 0, 9]]
    assert label_pixels(fractions[:0], np.array([], np.uint8)).tolist() == [[0, 0, 0]]


def test_the_same_arguments_give_the_same_clips(composed_avss: Path, tmp_path: Path) -> None:
    words = f"--out {tmp_path} --s4 0 --ms3 0 --avss 15 --size 80x64 --jobs 1 --split test"
    assert compose.main(words.split()) == 0
    one, other = AVSBench(composed_avss, "avss"), AVSBench(tmp_path / "AVSBench-semantic", "avss")
    assert other.clips == one.split("test")
    for clip in other.clips:
        pairs = [(one.source_audio(clip), other.source_audio(clip))]
        pairs += zip(one.masks(clip), other.masks(clip), strict=True)
        assert all(a.read_bytes() == b.read_bytes() for a, b in pairs)


def test_pictures_must_be_named_after_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.new("RGBA", (8, 8), "white")
    tone = (3000 * np.sin(np.arange(16_000) / 5)).astype(np.int16)
    for name in ("violin", "male_speech", "spaceship"):
        picture.save(tmp_path / f"{name}.png")
        write_bytes(tmp_path / f"{name}.wav", wav_bytes(tone, 16_000))
    words = f"--out {tmp_path / 'out'} --pictures {tmp_path} --s4 0 --ms3 0 --avss 3 --jobs 1"
    assert compose.main(words.split()) == 1
    assert "spaceship: not a class of AVSS" in capsys.readouterr().err
