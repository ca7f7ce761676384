"""Sound conditions: the waveform changes as specified, and nothing else does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.audio import SAMPLE_RATE, log_mel
from utils.cli import InputError
from utils.dataset import AVSDataset
from utils.layout import BENCHMARKS, AVSBench, Clip
from utils.sound_conditions import (
    CONDITIONS,
    AudioCondition,
    SoundCondition,
    absent_sounds,
    clip_classes,
    fit_length,
    mix,
    rms,
    shuffle_sounds,
    white_noise,
)

CLASSES = st.lists(st.frozensets(st.sampled_from("abcde"), min_size=1, max_size=3), min_size=1, max_size=25)


@given(CLASSES, st.integers(0, 3))
def test_shuffled_sounds_share_no_class_and_are_used_once_if_possible(classes: list[frozenset[str]], seed: int) -> None:
    names = [f"clip{index}" for index in range(len(classes))]
    partners = shuffle_sounds(names, classes, seed)
    for index, partner in enumerate(partners):
        possible = [other for other in range(len(classes)) if other != index and not classes[other] & classes[index]]
        assert partner in possible or (partner is None and not possible)
    order = np.random.default_rng(seed).permutation(len(names))  # the order of the clips does not matter
    again = shuffle_sounds([names[i] for i in order], [classes[i] for i in order], seed)
    assert {names[i]: partners[i] is None or names[partners[i]] for i in range(len(names))} == {
        names[order[i]]: partner is None or names[order[partner]] for i, partner in enumerate(again)
    }


def test_every_sound_is_used_once_and_seeds_differ() -> None:
    classes = [frozenset([f"category{index % 7}"]) for index in range(70)]
    names = [f"clip{index}" for index in range(70)]
    found = [shuffle_sounds(names, classes, seed) for seed in range(3)]
    for partners in found:
        assert sorted(partner for partner in partners if partner is not None) == list(range(70))
    assert len({tuple(partners) for partners in found}) == 3


def test_clips_that_find_no_sound_exchange_with_others() -> None:
    # Half of the clips are of one class: those can only take the others' sounds, whatever the order.
    classes = [frozenset("a")] * 8 + [frozenset("b")] * 4 + [frozenset("c")] * 4
    for seed in range(20):
        partners = shuffle_sounds([str(index) for index in range(16)], classes, seed)
        assert sorted(partners) == list(range(16))  # type: ignore[type-var]


def most_sounds(classes: Sequence[frozenset[str]], clip: int = 0, taken: frozenset[int] = frozenset()) -> int:
    """How many clips can have a sound that no other clip has, by trying every assignment."""
    if clip == len(classes):
        return len(taken)
    fitting = [s for s in range(len(classes)) if s != clip and s not in taken and not classes[s] & classes[clip]]
    return max(most_sounds(classes, clip + 1, taken | added) for added in [frozenset(), *({s} for s in fitting)])


@given(st.lists(st.frozensets(st.sampled_from("abcd"), min_size=1, max_size=2), min_size=2, max_size=6))
def test_as_many_sounds_as_possible_are_used(classes: list[frozenset[str]]) -> None:
    most = most_sounds(classes)
    for seed in range(3):
        partners = shuffle_sounds([str(index) for index in range(len(classes))], classes, seed)
        assert len({partner for partner in partners if partner is not None}) == most


def test_clips_exchange_along_paths_of_several_clips() -> None:
    # One exchange of two clips is not enough under most seeds, although [3, 4, 0, 1, 2, 1] need not use a sound twice.
    classes = [frozenset(kind) for kind in ("bc", "c", "d", "ad", "a", "ad")]
    for seed in range(20):
        partners = shuffle_sounds([str(index) for index in range(6)], classes, seed)
        assert sorted(partners) == list(range(6))  # type: ignore[type-var]


def test_sounds_used_twice_are_counted() -> None:
    clips = [Clip(str(index), "test") for index in range(4)]
    for name, kinds, expected in (("mixed", "aabb", 0), ("shuffled", "aaab", 2), ("noise", "aaab", 0)):
        classes = [frozenset(kind) for kind in kinds]
        sound = SoundCondition(name, clips, classes, lambda _: np.ones(3))  # type: ignore[arg-type]
        assert sound.reused_sounds == expected


def test_noise_has_the_level_of_the_clip_but_is_never_nearly_silent() -> None:
    for level, expected in ((0.1, 0.1), (0.001, 0.01), (0.0, 0.01)):
        noise = white_noise("a", 80_000, level, 0)
        assert noise.dtype == np.float32 and rms(noise) == pytest.approx(expected, rel=1e-3)
        assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02
    assert np.abs(white_noise("a", 80_000, 0.5, 0)).max() == 1  # clipped
    assert not np.array_equal(white_noise("a", 99, 0.1, 0), white_noise("a", 99, 0.1, 1))
    assert not np.array_equal(white_noise("a", 99, 0.1, 0), white_noise("b", 99, 0.1, 0))
    np.testing.assert_array_equal(white_noise("a", 99, 0.1, 0), white_noise("a", 99, 0.1, 0))


@pytest.mark.parametrize(("level", "mean", "deviation"), [(0.3, 2.19, 0.80), (0.1, 1.09, 0.79), (0.01, -1.17, 0.76)])
def test_noise_in_the_front_end_of_vggish(level: float, mean: float, deviation: float) -> None:
    """The figures of the original's front end."""
    examples = log_mel(white_noise("a", 5 * SAMPLE_RATE, level, 0), SAMPLE_RATE)
    assert examples.mean() == pytest.approx(mean, abs=0.03) and examples.std() == pytest.approx(deviation, abs=0.02)


def test_mixing_is_at_equal_level_and_lengths_are_fitted() -> None:
    own, other = np.full(8, 0.1, np.float32), np.array([0.4, -0.4] * 4, np.float32)
    np.testing.assert_allclose(mix(own, other), [0.2, 0.0] * 4, atol=1e-7)
    np.testing.assert_array_equal(mix(own, np.zeros(8)), own)
    assert fit_length(np.arange(3), 7).tolist() == [0, 1, 2, 0, 1, 2, 0] and fit_length(np.arange(9), 4).tolist() == [
        0,
        1,
        2,
        3,
    ]
    with pytest.raises(InputError, match="without samples"):
        fit_length(np.zeros(0), 4)


@pytest.mark.parametrize("audio", ["log_mel", "waveform"])
def test_only_the_sound_of_an_item_changes(composed: Path, tmp_path: Path, audio: str) -> None:
    data = AVSBench(composed / "Single-source", "s4")
    dataset = AVSDataset(data, "test", audio=audio)  # type: ignore[arg-type]
    count = len(dataset)
    original = [dataset[index] for index in range(count)]
    tone = 0.1 * np.sin(np.arange(2 * SAMPLE_RATE))
    soundfile.write(tmp_path / "one.wav", tone, SAMPLE_RATE)
    items: dict[AudioCondition, list[torch.Tensor]] = {}
    for condition in CONDITIONS:
        dataset.set_sound(condition, 1, tmp_path)
        changed = [dataset[index] for index in range(count)]
        for before, after in zip(original, changed, strict=True):
            assert torch.equal(before["frames"], after["frames"]) and torch.equal(before["masks"], after["masks"])
            assert before[audio].shape == after[audio].shape and before[audio].dtype == after[audio].dtype
            assert torch.equal(before[audio], after[audio]) == (condition == "original")
        items[condition] = [item[audio] for item in changed]
    if audio == "log_mel":
        assert all((sound == np.float32(np.log(0.01))).all() for sound in items["silent"])
    else:
        assert not any(sound.any() for sound in items["silent"])
    dataset.set_sound("shuffled", 1)
    assert dataset.sound is not None
    partners = dataset.sound.partners
    for index, partner in enumerate(partners):
        assert partner is not None and dataset.clips[index].category != dataset.clips[partner].category
        torch.testing.assert_close(items["shuffled"][index], original[partner][audio], rtol=0, atol=1e-6)
    assert all(torch.equal(sound, items["offscreen"][0]) for sound in items["offscreen"])
    dataset.set_sound("original")
    assert torch.equal(dataset[0][audio], original[0][audio])


def test_conditions_that_are_not_possible_are_refused(composed: Path, tmp_path: Path) -> None:
    data = AVSBench(composed / "Single-source", "s4")
    data.clips = data.split("test")
    dataset = AVSDataset(data, "test")
    with pytest.raises(InputError, match="needs --offscreen-sounds"):
        dataset.set_sound("offscreen")
    with pytest.raises(InputError, match=r"contains no \.wav"):
        dataset.set_sound("offscreen", 0, tmp_path)
    dataset.clips = dataset.clips[:1]
    with pytest.raises(InputError, match="two clips of different classes"):
        dataset.set_sound("shuffled")
    assert dataset.sound is None
    assert clip_classes("s4", dataset.clips[0]) == {dataset.clips[0].category}


def test_classes_of_clips_and_sounds_of_classes_that_a_split_lacks() -> None:
    names = {"v": "dog_man", "w": "off-the-screen", "x": "h orse", "y": "cat", "z": "dog_cat"}
    clips = [
        Clip(name, "train" if name in "yz" else "test", objects=objects, subset="v2") for name, objects in names.items()
    ]
    classes = [clip_classes("avss", clip) for clip in clips]
    assert classes == [{"dog", "man"}, frozenset(), {"horse"}, {"cat"}, {"dog", "cat"}]
    assert clip_classes("ms3", Clip("a", "test")) is None
    assert clip_classes("ms3", Clip("a", "test", objects="background")) == frozenset()
    assert clip_classes("ms3", Clip("a", "test", objects="man_dog")) == {"man", "dog"}
    data = AVSBench.__new__(AVSBench)
    data.root, data.benchmark, data.clips = Path("root"), BENCHMARKS["avss"], clips
    assert absent_sounds(data, data.split("test")) == {data.wav(clips[3]): {"cat"}}  # z also has a dog
    condition = SoundCondition(
        "silent", clips[:3], [found or frozenset() for found in classes[:3]], lambda _: np.ones(3)
    )
    assert [condition.applies(index) for index in range(3)] == [True, False, True]  # nothing in w's picture sounds
