"""The miniature AudioCLIP: its pairs, its contrastive loss and its measures.

The only supervision is which sound belongs to which picture: InfoNCE over the pairs of a batch. No category, no
mask and no position enters the loss. Three scores of a pair are trained side by side: the cosine of sound and
pooled image embedding, and the highest cosine of the sound with any location of the two dense maps (multiple-
instance learning), which lets a thing be heard in a frame that shows others too.
Pairs of drawn scenes start easy, one thing on a calm and small background; then come whole frames as they are in
the composed clips, with silent things. At last every other batch is laid out as mosaics of four pictures, each
scored by its own quarter: what answers to a neighbour's content is wrong there, which teaches locations to keep to
what they show. Sources: van den Oord et al., "Representation Learning with Contrastive
Predictive Coding" (2018); Arandjelović and Zisserman, "Objects that Sound" (ECCV 2018) for the maximum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from avsbench_data import drawings
from avsbench_data.scene import RADIUS, SNR, Cast, Role, Scene, Thing, cast_roles, draw_scene
from avsbench_data.sounds import RATE, faded, hiss
from models.audioclip import AudioCLIP, Logits
from utils.audio import SAMPLE_RATE, five_seconds
from utils.cli import InputError
from utils.dataset import normalise, read_frame, read_mask
from utils.layout import FRAME_SIZE, SECONDS, AVSBench

SIZES: dict[str, Any] = {  # what AudioCLIP is built with: 1 017 396 parameters
    "embed_dim": 128,
    "vision_layers": [1, 1, 1, 1],
    "vision_width": 12,
    "text": False,
    "audio_n_fft": 1024,
    "audio_hop": 512,
    "audio_win": 1024,
    "audio_layers": [1, 1, 1, 1],
    "audio_width": 8,
    "audio_groups": 2,
    "audio_width_per_group": 16,
}
CANVAS = (240, 320)  # height and width of the composed videos; frames are these squeezed to a square
EASY_SIDE = 128  # pixels: an easy scene is cut down, not scaled, so things are as large as in whole frames
START_SCALE = 14.0  # of the cosines; learned from there
TILE = 5  # times the study repeats each second before AudioCLIP hears it
EASY, MOSAICS = 0.35, 0.70  # of the steps: where the easy scenes end, and where the mosaics begin
WARM_UP = 50  # steps
TRAINING, MEASURING = 2, 3  # streams of random numbers; the composed clips use 0 and 1


@dataclass(frozen=True)
class Sample:
    """One second of a clip."""

    frame: np.ndarray  # (side, side, 3) uint8 RGB
    sound: np.ndarray  # (44100,) float32 in [-1, 1], as it comes out of a 16 kHz file
    kind: str = ""  # what sounds; "" if nobody says
    shown: tuple[str, ...] = ()  # every kind in the frame
    mask: np.ndarray | None = None  # (224, 224) bool: what sounds. Only measured with, never trained with


class Pairs(Protocol):
    """Where pairs for training come from."""

    def item(self, step: int, place: int, easy: bool) -> Sample:
        """The pair at a place of a step's batch: the same one whenever it is asked for."""


class ScenePairs:
    """Pairs drawn on the fly, each of them new."""

    def __init__(self, cast: Cast, seed: int):
        self.cast, self.seed = cast, seed

    def item(self, step: int, place: int, easy: bool) -> Sample:
        """See Pairs."""
        rng = np.random.default_rng([self.seed, TRAINING, step, place])
        kind = str(rng.choice(self.cast.kinds))
        return augmented(self.draw(kind, rng, easy, EASY_SIDE if easy else FRAME_SIZE[0]), rng)

    def draw(self, kind: str, rng: np.random.Generator, easy: bool, side: int = FRAME_SIZE[0]) -> Sample:
        """A scene in which a kind sounds: alone if it is to be easy."""
        if easy:
            stretch = np.array(CANVAS) / FRAME_SIZE
            height, width = (round(side * by) for by in stretch)
            radius = rng.uniform(*RADIUS) * stretch.prod() ** 0.5
            margin = np.minimum(0.75 * radius, 0.45 * np.array([width, height]))
            centre = rng.uniform(margin, np.array([width, height]) - margin)
            thing = Thing(self.cast.sprite(kind, radius, rng), centre, centre, 0.0, rng.uniform(-12, 12), rng.random())
            scene, moment = Scene(drawings.background(height, width, rng), [thing]), 0.0
            roles, visible = [Role(kind, range(SECONDS))], scene.visible(moment)
        else:
            roles = cast_roles("s4", kind, self.cast.kinds, rng)
            moment = rng.uniform(0, SECONDS)
            scene, seconds = draw_scene(roles, self.cast, CANVAS, [moment], rng)
            visible = seconds[0]
        frame = cv2.resize(scene.frame(moment), (side, side), interpolation=cv2.INTER_LINEAR)
        heard = next(n for n, role in enumerate(roles) if role.sounding)
        sound = through_file(self.sound(kind, rng))
        return Sample(frame, sound, kind, tuple(role.kind for role in roles), visible[heard] > 0.5)

    def sound(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """One second as avsbench_data.scene.mix would make it, without the other four."""
        sound = faded(self.cast.sound(kind, RATE, rng))  # of unit power
        sound = sound + np.float32(10 ** (-rng.uniform(*SNR) / 20)) * hiss(RATE, rng, rng.uniform(0, 0.7))
        return sound * np.float32(rng.uniform(0.4, 0.9) / np.abs(sound).max())


class ClipPairs:
    """The seconds of preprocessed clips: a frame and its own second of sound, from one split."""

    def __init__(self, data: AVSBench, split: str, seed: int, batch: int):
        self.data, self.seed, self.batch = data, seed, batch
        self.clips = data.split(split)
        if len(self.clips) < batch:
            raise InputError(f"{data.root}: {len(self.clips)} {split} clips are fewer than a --batch of {batch}")

    def item(self, step: int, place: int, easy: bool) -> Sample:
        """See Pairs. A batch never holds a clip twice; nothing here is easy."""
        epoch, batch = divmod(step, len(self.clips) // self.batch)
        order = np.random.default_rng([self.seed, TRAINING, epoch]).permutation(len(self.clips))
        rng = np.random.default_rng([self.seed, TRAINING, step, place])
        return augmented(self.read(int(order[batch * self.batch + place]), int(rng.integers(SECONDS))), rng)

    def read(self, index: int, second: int, mask: bool = False) -> Sample:
        """One second of a clip."""
        clip = self.clips[index]
        frame = read_frame(self.data.frames(clip)[second])
        sound = five_seconds(self.data.wav(clip), RATE)[second]
        seen = read_mask(self.data.masks(clip)[second], self.data.benchmark.name).numpy() > 0.5 if mask else None
        return Sample(frame, sound, clip.category, (), seen)


@dataclass(frozen=True)
class Plan:
    """What each step of a training is made of."""

    steps: int
    easy_until: int  # step; 0 where nothing is easy
    mosaics_from: int

    @classmethod
    def of(cls, steps: int, easy: bool = True) -> Plan:
        """The usual shares of the stages."""
        return cls(steps, round(EASY * steps) if easy else 0, round(MOSAICS * steps))

    def mosaic(self, step: int) -> bool:
        """Whether a step's pictures are laid out by four; then they may be as small as easy scenes are."""
        return step >= self.mosaics_from and (step - self.mosaics_from) % 2 == 0

    def easy(self, step: int) -> bool:
        """Whether a step's scenes show one thing only."""
        return step < self.easy_until or (self.mosaic(step) and self.easy_until > 0)

    def rate(self, step: int) -> float:
        """Of the learning rate: up in a line and down half a cosine; from half of it, down again for the mosaics."""
        if step >= self.mosaics_from:
            return 0.25 + 0.25 * math.cos(math.pi * (step - self.mosaics_from) / (self.steps - self.mosaics_from))
        return min((step + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * step / self.steps))


class Stream(Dataset[tuple[Tensor, Tensor]]):
    """The pairs of the steps from `start` on, one after another, for a loader that does not shuffle."""

    def __init__(self, pairs: Pairs, plan: Plan, batch: int, start: int = 0):
        self.pairs, self.plan, self.batch, self.start = pairs, plan, batch, start

    def __len__(self) -> int:
        return (self.plan.steps - self.start) * self.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        cv2.setNumThreads(1)
        step, place = divmod(self.start * self.batch + index, self.batch)
        sample = self.pairs.item(step, place, easy=self.plan.easy(step))
        return torch.from_numpy(sample.frame), torch.from_numpy(sample.sound)


def through_file(sound: np.ndarray) -> np.ndarray:
    """A second as it comes back from the benchmark's 16 kHz files: nothing above 8 kHz is left of it."""
    import librosa  # slow to import

    small = librosa.resample(sound, orig_sr=RATE, target_sr=SAMPLE_RATE)
    small = np.rint(np.clip(small, -1, 1) * 32767).astype(np.float32) / 32768
    return librosa.resample(small, orig_sr=SAMPLE_RATE, target_sr=RATE)[:RATE].astype(np.float32)


def augmented(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirrored, cut, lit and compressed otherwise; the sound starts elsewhere and is louder or softer."""
    frame, side = sample.frame, len(sample.frame)
    if rng.random() < 0.5:
        frame = frame[:, ::-1]
    size = round(side * rng.uniform(0.85, 1))
    top, left = rng.integers(side - size + 1, size=2)
    frame = cv2.resize(np.ascontiguousarray(frame[top : top + size, left : left + size]), (side, side))
    frame = cv2.convertScaleAbs(frame, alpha=rng.uniform(0.85, 1.15))
    if rng.random() < 0.7:  # videos are compressed
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])[1]
        frame = np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1])
    sound = np.roll(sample.sound, int(rng.integers(len(sample.sound)))) * np.float32(rng.uniform(0.3, 1))
    return Sample(frame, sound)


def build(sizes: dict[str, Any], seed: int) -> AudioCLIP:
    """A new model whose weights are those of the seed."""
    torch.manual_seed(seed)
    model = AudioCLIP(**sizes)
    with torch.no_grad():
        model.logit_scale_ai.fill_(float(np.log(START_SCALE)))
    # A miniature keeps the filters it starts with, a plain Fourier transform: rebuilding them costs more than all
    # of the rest of the audio tower, and a few thousand pairs cannot better them.
    model.audio.fbsp.requires_grad_(False)
    return model


def training_mode(model: AudioCLIP) -> AudioCLIP:
    """Train mode, but for the filters, which are then built once."""
    model.train()
    model.audio.fbsp.eval()
    return model


def by_four(frames: Tensor) -> Tensor:
    """Mosaics (N/4, 2H, 2W, C) of frames (N, H, W, C)."""
    grid = frames.unflatten(0, (-1, 2, 2)).transpose(2, 3)  # (mosaic, row, H, column, W, C)
    return grid.flatten(3, 4).flatten(1, 2)


def quarters(maps: Tensor) -> Tensor:
    """The maps (N, C, h, w) of the frames from those of their mosaics (N/4, C, 2h, 2w)."""
    grid = maps.unflatten(3, (2, -1)).unflatten(2, (2, -1))  # (mosaic, C, row, h, column, w)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def embed(model: AudioCLIP, sounds: Tensor, frames: Tensor, mosaic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Unit embeddings of sounds (A, samples) and frames (N, H, W, 3) uint8.

    Returns (A, D), and of the frames "surgery" and "dense", (N, D, h, w) each, and "pooled", (N, D).
    """
    audio = F.normalize(model.encode_audio(sounds), dim=1)
    # In a mosaic the convolutions see all four frames, the attention one at a time.
    images = normalise(by_four(frames) if mosaic else frames, "clip")
    last = model.visual.pyramid(images)[-1]
    last = quarters(last) if mosaic else last
    surgery, _ = model.visual.attnpool.dense(last, surgery=True)
    dense, pooled = model.visual.attnpool.dense(last)
    found = {"surgery": surgery, "dense": dense, "pooled": pooled}
    return audio, {name: F.normalize(value, dim=1) for name, value in found.items()}


def compare(audio: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores (A, N) of sounds with frames, by what `embed` gives: the cosine, or its maximum over locations."""
    places = {name: x.flatten(2) if x.ndim == 4 else x[:, :, None] for name, x in found.items()}
    return {name: torch.einsum("ad,ndl->anl", audio, x).amax(dim=2) for name, x in places.items()}


def contrastive_loss(model: AudioCLIP, frames: Tensor, sounds: Tensor, mosaic: bool = False) -> Tensor:
    """AudioCLIP's own loss, the mean over the three scores."""
    scale = model.logit_scale_ai.exp().clamp(1, 100)
    tables = compare(*embed(model, sounds, frames, mosaic)).values()
    return torch.stack([model.contrastive_loss(Logits(scale * table, None, None)) for table in tables]).mean()


# Measures


def scene_rounds(pairs: ScenePairs, seed: int, rounds: int, easy: bool) -> list[list[Sample]]:
    """Rounds of unseen scenes: in each round, every kind sounds in one of them."""
    streams = (np.random.default_rng([seed, MEASURING, int(easy), r]) for r in range(rounds))
    return [[pairs.draw(kind, rng, easy) for kind in pairs.cast.kinds] for rng in streams]


def clip_rounds(pairs: ClipPairs, second: int) -> list[list[Sample]]:
    """One second of every clip, in rounds of one clip of each category; MS3 has none, so all are one round."""
    rounds: dict[int, list[Sample]] = defaultdict(list)
    met: dict[str, int] = defaultdict(int)
    for index, clip in enumerate(pairs.clips):
        rounds[met[clip.category] if clip.category else 0].append(pairs.read(index, second, mask=True))
        met[clip.category] += 1
    # One clip alone cannot be mistaken for another, so it would only flatter.
    return [samples for samples in rounds.values() if len(samples) > 1] or list(rounds.values())


HITS = (  # a bilinear map has its peaks at the centres of cells; the bicubic one, between them too
    ("hit_surgery", "surgery", "bilinear"),
    ("hit_surgery_bicubic", "surgery", "bicubic"),
    ("hit_dense", "dense", "bilinear"),
)


@torch.inference_mode()
def measure(model: AudioCLIP, rounds: Sequence[Sequence[Sample]], tile: int = TILE) -> dict[str, float]:
    """Retrieval and localisation on unseen seconds.

    retrieval_*: how often a round's best-scoring picture is of the kind that is heard, by each score; `chance` is
    what guessing gives. shows: the picture that `surgery` finds shows that kind at all, if only as a silent thing.
    even_choice: what an ear and eye without fault reach that choose evenly among the pictures showing the kind.
    hit_*: how often the highest point of the dense map, resized to the frame, lies on what sounds; `area` is what
    guessing gives.
    """
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    for samples in rounds:
        frames = torch.from_numpy(np.stack([s.frame for s in samples]))
        sounds = torch.from_numpy(np.stack([np.tile(s.sound, tile) for s in samples]))
        count = len(samples)
        audio, found = embed(model, sounds, frames)
        for name, table in compare(audio, found).items():
            best = table.argmax(dim=1).tolist()
            sums[f"retrieval_{name}"] += sum(i == j for i, j in enumerate(best))
            if name == "surgery" and all(s.shown for s in samples):
                sums["shows"] += sum(samples[i].kind in samples[j].shown for i, j in enumerate(best))
                sums["even_choice"] += sum(1 / sum(s.kind in t.shown for t in samples) for s in samples)
        sums["chance"] += 1
        for name, source, mode in HITS:
            maps = torch.einsum("nd,ndhw->nhw", audio, found[source]).unsqueeze(1)
            peaks = F.interpolate(maps, FRAME_SIZE, mode=mode).flatten(1).argmax(dim=1).tolist()
            seen = [bool(s.mask.flat[peak]) for s, peak in zip(samples, peaks, strict=True) if s.mask is not None]
            sums[name] += sum(seen)
        sums["area"] += sum(float(s.mask.mean()) for s in samples if s.mask is not None)
        sums["frames"] += count
    total = sums.pop("frames")
    return {"frames": total} | {name: round(value / total, 4) for name, value in sums.items()}
