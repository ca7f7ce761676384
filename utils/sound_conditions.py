"""What a model is given to hear in place of a clip's own sound, while its frames and masks stay the same.

    original    the clip's own sound
    silent      zeros
    noise       Gaussian white noise at the clip's own level, at least -40 dBFS
    shuffled    the sound of another clip of the split, of other classes; each sound is used once if that is possible
    offscreen   a sound of a class in no clip of the split: from a folder, else from other splits
    mixed       the own sound and that of "shuffled", at equal level

The ground truth of silent, noise, shuffled and offscreen is empty: nothing in the picture makes that sound. Each
condition replaces the 16 kHz waveform, at the length of the clip's own; what follows it is the same for all audio.
Choices depend on a seed and on the clips' names, not on the order of files or of processes.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from utils.classes import parse_objects
from utils.cli import InputError
from utils.layout import AVSBench, Clip

AudioCondition = Literal["original", "silent", "noise", "shuffled", "offscreen", "mixed"]
CONDITIONS: tuple[AudioCondition, ...] = get_args(AudioCondition)
NEGATIVE_CONDITIONS: tuple[AudioCondition, ...] = ("silent", "noise", "shuffled", "offscreen")
SEEDED: tuple[AudioCondition, ...] = ("noise", "shuffled", "offscreen", "mixed")
MIN_NOISE_RMS = 0.01  # -40 dBFS; noise below it is nearly silence to VGGish
UNSEEN = frozenset(["background", "off-the-screen"])  # in AVSBench's column a_obj: nothing in the picture sounds
SOUND_FILES = (".wav", ".flac", ".ogg")

ClassSet = frozenset[str]


def digest(seed: int, purpose: str, name: str) -> bytes:
    """The sha256 of "SEED:PURPOSE:NAME", from which all choices for a clip follow."""
    return hashlib.sha256(f"{seed}:{purpose}:{name}".encode()).digest()


def rms(waveform: np.ndarray) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if waveform.size else 0.0


def white_noise(name: str, length: int, level: float, seed: int) -> np.ndarray:
    """The noise of a clip.

    Args:
        name: of the clip.
        length: samples.
        level: rms of the clip's own sound; it is raised to MIN_NOISE_RMS.
        seed: of the draw.

    Returns:
        float32 (length,), in [-1, 1].
    """
    rng = np.random.default_rng(int.from_bytes(digest(seed, "noise", name), "big"))
    noise = rng.standard_normal(length)
    return np.clip(noise * (max(level, MIN_NOISE_RMS) / max(rms(noise), 1e-12)), -1, 1).astype(np.float32)


def fit_length(waveform: np.ndarray, length: int) -> np.ndarray:
    """Cut a waveform to a length, or loop it. InputError if it has no samples."""
    if len(waveform) == 0:
        raise InputError("a sound without samples cannot be looped")
    return np.tile(waveform, -(-length // len(waveform)))[:length]


def mix(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A sound and another one of the same length at the same rms; clipped to [-1, 1]."""
    level = rms(other)
    scaled = other * (rms(own) / level) if level > 0 else other
    return np.clip(own + scaled, -1, 1).astype(np.float32)


def shuffle_sounds(names: Sequence[str], classes: Sequence[ClassSet], seed: int) -> list[int | None]:
    """Give each clip the sound of another clip without a common class, each sound once.

    Clips are sorted by a hash of the seed and their name, and each takes the next unused sound. Clips that find none
    exchange with one other clip, or along an augmenting path of several. Where no permutation exists, as many sounds as
    possible are used, and the remaining clips get one that another clip has.

    Args:
        names: of the clips.
        classes: of each clip; clips with a common class get different sounds.
        seed: of the order.

    Returns:
        For each clip the index of the clip whose sound it gets; None where every other clip has a common class.
    """
    order = sorted(range(len(names)), key=lambda index: digest(seed, "shuffle", names[index]))
    fits = lambda clip, sound: clip != sound and not classes[clip] & classes[sound]  # noqa: E731
    sound_of: dict[int, int] = {}
    unused = dict.fromkeys(order)  # an ordered set
    for place, clip in enumerate(order):
        following = (order[(place + step) % len(order)] for step in range(1, len(order)))
        if (sound := next((s for s in following if s in unused and fits(clip, s)), None)) is not None:
            sound_of[clip] = sound
            del unused[sound]
    for clip in [clip for clip in order if clip not in sound_of]:
        _serve(clip, order, sound_of, unused, fits)
    exhausted: set[int] = set()
    for clip in [clip for clip in order if clip not in sound_of]:
        _augment(clip, order, sound_of, unused, fits, exhausted)
    for place, clip in enumerate(order):
        if clip not in sound_of:
            following = (order[(place + step) % len(order)] for step in range(1, len(order)))
            if (sound := next((s for s in following if fits(clip, s)), None)) is not None:
                sound_of[clip] = sound
    return [sound_of.get(index) for index in range(len(names))]


def _serve(
    clip: int,
    order: Sequence[int],
    sound_of: dict[int, int],
    unused: dict[int, None],
    fits: Callable[[int, int], bool],
) -> None:
    """Give a clip another clip's sound, if that one can take an unused sound in exchange."""
    for free in list(unused):
        for other in order:
            if other in sound_of and fits(clip, sound_of[other]) and fits(other, free):
                sound_of[clip], sound_of[other] = sound_of[other], free
                del unused[free]
                return


def _augment(
    clip: int,
    order: Sequence[int],
    sound_of: dict[int, int],
    unused: dict[int, None],
    fits: Callable[[int, int], bool],
    exhausted: set[int],
) -> None:
    """Give a clip a sound along the shortest augmenting path, on which each takes the next one's, the last a free one.

    Args:
        exhausted: sounds from which no free one can be reached; those that a search without success has seen join them.
    """
    holder = {sound: other for other, sound in sound_of.items()}
    taker: dict[int, int] = {}  # by sound
    queue = deque([clip])
    while queue:
        current = queue.popleft()
        for sound in order:
            if sound in taker or sound in exhausted or not fits(current, sound):
                continue
            taker[sound] = current
            if sound not in unused:
                queue.append(holder[sound])
                continue
            del unused[sound]
            while True:
                current = taker[sound]
                sound_of[current], sound = sound, sound_of.get(current, -1)
                if current == clip:
                    return
    exhausted.update(taker)


@dataclass
class SoundCondition:
    """A condition for the clips of a split.

    Attributes:
        name: of the condition.
        clips: of the split.
        classes: the classes that each of them contains; empty if what sounds is not in the picture.
        read: reads the sound of a clip by its index: float32 (samples,) at 16 kHz.
        seed: of noise and choices.
        sounds: files for "offscreen", with the classes of each, where they are known.
        read_file: reads one of them, in the same form.
    """

    name: AudioCondition
    clips: Sequence[Clip]
    classes: Sequence[ClassSet]
    read: Callable[[int], np.ndarray]
    seed: int = 0
    sounds: Mapping[Path, ClassSet | None] = field(default_factory=dict)
    read_file: Callable[[Path], np.ndarray] | None = None

    @property
    def negative(self) -> bool:
        """Whether nothing in the picture makes the sound, so that the ground truth is empty."""
        return self.name in NEGATIVE_CONDITIONS

    @cached_property
    def partners(self) -> list[int | None]:
        """For each clip the clip whose sound it gets if shuffled.

        Raises:
            InputError: No clip has a partner.
        """
        partners = shuffle_sounds([clip.name for clip in self.clips], self.classes, self.seed)
        if all(partner is None for partner in partners):
            raise InputError(f"--audio {self.name} needs two clips of different classes in the split")
        return partners

    @property
    def reused_sounds(self) -> int:
        """How many clips get a sound that another clip has already; 0 if the assignment is a permutation."""
        if self.name not in ("shuffled", "mixed"):
            return 0
        uses = Counter(self.partners[index] for index in range(len(self.clips)) if self.applies(index))
        return uses.total() - len(uses)

    def check(self) -> None:
        """Raise InputError if the condition is not possible for these clips."""
        if self.name in ("shuffled", "mixed"):
            _ = self.partners
        if self.name == "offscreen" and not self.sounds:
            raise InputError(
                "--audio offscreen needs --offscreen-sounds: a folder of sounds of no class in the split "
                "(no other split has such a class)"
            )

    def applies(self, index: int) -> bool:
        """Whether a clip can be given a sound under this condition."""
        if self.name == "original":
            return True
        visible = bool(self.classes[index])  # else its ground truth is empty anyway
        return visible and (self.name not in ("shuffled", "mixed") or self.partners[index] is not None)

    def waveform(self, index: int) -> np.ndarray:
        """The sound of a clip under the condition, float32 (samples,) of the length of its own.

        Raises:
            InputError: The condition does not apply to the clip, or a file cannot be read.
        """
        own = self.read(index)
        if self.name == "original":
            return own
        if self.name == "silent":
            return np.zeros_like(own)
        if self.name == "noise":
            return white_noise(self.clips[index].name, len(own), rms(own), self.seed)
        if self.name == "offscreen":
            return self._offscreen(index, len(own))
        partner = self.partners[index]
        if partner is None:
            raise InputError(f"{self.clips[index].name}: every other clip of the split shares a class with it")
        other = fit_length(self.read(partner), len(own))
        return other if self.name == "shuffled" else mix(own, other)

    def _offscreen(self, index: int, length: int) -> np.ndarray:
        assert self.read_file is not None
        return fit_length(self.read_file(self._offscreen_file(index)), length)

    def _offscreen_file(self, index: int) -> Path:
        choice = int.from_bytes(digest(self.seed, "offscreen", self.clips[index].name), "big") % len(self.sounds)
        return list(self.sounds)[choice]

    def heard_classes(self, index: int) -> ClassSet | None:
        """The classes of the sound that a clip is given beside or instead of its own; None if they are not known."""
        partner = self.partners[index] if self.name in ("shuffled", "mixed") else None
        if partner is not None:
            return self.classes[partner] or None
        return self.sounds[self._offscreen_file(index)] if self.name == "offscreen" else None


def clip_classes(benchmark: str, clip: Clip) -> ClassSet | None:
    """The classes of what is seen to sound in a clip: empty if nothing is, None if they are not known."""
    if benchmark == "s4":
        return frozenset([clip.category])
    if benchmark == "avss":
        return frozenset(parse_objects(clip.objects)[0])
    return frozenset(clip.objects.split("_")) - UNSEEN if clip.objects else None


def absent_sounds(data: AVSBench, clips: Sequence[Clip]) -> dict[Path, ClassSet | None]:
    """The sounds of the benchmark's other clips all of whose classes are in none of these clips, sorted by path.

    Returns:
        The classes of each.
    """
    present = frozenset[str]().union(*(clip_classes(data.benchmark.name, clip) or () for clip in clips))
    found: dict[Path, ClassSet | None] = {}
    for clip in data.clips:
        classes = clip_classes(data.benchmark.name, clip)
        if classes and clip.split != clips[0].split and not classes & present:
            found[data.wav(clip)] = classes
    return dict(sorted(found.items(), key=lambda item: item[0]))


def list_sounds(folder: Path) -> list[Path]:
    """The audio files of a folder, sorted by name. InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SOUND_FILES and path.name[0] != ".")
    if not files:
        raise InputError(f"{folder}: contains no {', '.join(SOUND_FILES)} files")
    return files
