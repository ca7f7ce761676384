"""The miniature AudioCLIP: how it learns from pairs of sound and picture, and how it is measured.

The only supervision is which sound belongs to which picture: InfoNCE over the pairs of a batch. No category, no
mask and no position enters the loss. Three scores of a pair are trained side by side: the cosine of sound and
pooled image embedding, and the highest cosine of the sound with any location of the two dense maps (multiple-
instance learning), which lets a thing be heard in a frame that shows others too.
Drawn pairs (see synthetic.audioclip_data) start easy; then come whole frames with silent things. At last every other
batch is laid out as mosaics of four pictures, each scored by its own quarter: what answers to a neighbour's content
is wrong there, which teaches locations to keep to what they show. Sources: van den Oord et al., "Representation
Learning with Contrastive Predictive Coding" (2018); Arandjelović and Zisserman, "Objects that Sound" (ECCV 2018)
for the maximum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from models.audioclip import AudioCLIP, Logits
from synthetic.audioclip_data import Pairs, Sample
from utils.dataset import normalize_frames
from utils.layout import FRAME_SIZE
from zero_shot.proposal_scoring import crop_proposal, prepare_crops

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
START_SCALE = 14.0  # of the cosines; learned from there
AUDIO_REPEATS = 5  # times the study repeats each second before AudioCLIP hears it
EASY, MOSAICS = 0.35, 0.70  # of the steps: where the easy scenes end, and where the mosaics begin
WARMUP_STEPS = 50  # steps
CROP_SIDE = 128  # pixels, of what is cut out to be recognised; easy scenes are as small


@dataclass(frozen=True)
class Curriculum:
    """What each step of a training is made of."""

    steps: int
    easy_until: int  # step; 0 where nothing is easy
    mosaics_from: int

    @classmethod
    def of(cls, steps: int, easy: bool = True) -> Curriculum:
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
        return min((step + 1) / WARMUP_STEPS, 0.5 + 0.5 * math.cos(math.pi * step / self.steps))


class TrainingStream(Dataset[tuple[Tensor, Tensor]]):
    """The pairs of the steps from `start` on, one after another, for a loader that does not shuffle."""

    def __init__(self, pairs: Pairs, plan: Curriculum, batch: int, start: int = 0):
        self.pairs, self.plan, self.batch, self.start = pairs, plan, batch, start

    def __len__(self) -> int:
        return (self.plan.steps - self.start) * self.batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        cv2.setNumThreads(1)
        step, place = divmod(self.start * self.batch + index, self.batch)
        sample = self.pairs.item(step, place, easy=self.plan.easy(step))
        return torch.from_numpy(sample.frame), torch.from_numpy(sample.sound)


def build_audioclip(sizes: dict[str, Any], seed: int) -> AudioCLIP:
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


def make_mosaics(frames: Tensor) -> Tensor:
    """Mosaics (N/4, 2H, 2W, C) of frames (N, H, W, C)."""
    grid = frames.unflatten(0, (-1, 2, 2)).transpose(2, 3)  # (mosaic, row, H, column, W, C)
    return grid.flatten(3, 4).flatten(1, 2)


def mosaic_quadrants(maps: Tensor) -> Tensor:
    """The maps (N, C, h, w) of the frames from those of their mosaics (N/4, C, 2h, 2w)."""
    grid = maps.unflatten(3, (2, -1)).unflatten(2, (2, -1))  # (mosaic, C, row, h, column, w)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def embed(model: AudioCLIP, sounds: Tensor, frames: Tensor, mosaic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Unit embeddings of sounds (A, samples) and frames (N, H, W, 3) uint8.

    Returns (A, D), and of the frames "surgery" and "dense", (N, D, h, w) each, and "pooled", (N, D).
    """
    audio = F.normalize(model.encode_audio(sounds), dim=1)
    # In a mosaic the convolutions see all four frames, the attention one at a time.
    images = normalize_frames(make_mosaics(frames) if mosaic else frames, "clip")
    last = model.visual.pyramid(images)[-1]
    last = mosaic_quadrants(last) if mosaic else last
    surgery, _ = model.visual.attnpool.dense(last, surgery=True)
    dense, pooled = model.visual.attnpool.dense(last)
    found = {"surgery": surgery, "dense": dense, "pooled": pooled}
    return audio, {name: F.normalize(value, dim=1) for name, value in found.items()}


def similarity_logits(audio: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores (A, N) of sounds with frames, by what `embed` gives: the cosine, or its maximum over locations."""
    places = {name: x.flatten(2) if x.ndim == 4 else x[:, :, None] for name, x in found.items()}
    return {name: torch.einsum("ad,ndl->anl", audio, x).amax(dim=2) for name, x in places.items()}


def contrastive_loss(model: AudioCLIP, frames: Tensor, sounds: Tensor, mosaic: bool = False) -> Tensor:
    """AudioCLIP's own loss, the mean over the three scores."""
    scale = model.logit_scale_ai.exp().clamp(1, 100)
    tables = similarity_logits(*embed(model, sounds, frames, mosaic)).values()
    return torch.stack([model.contrastive_loss(Logits(scale * table, None, None)) for table in tables]).mean()


# Measures


HITS = (  # a bilinear map has its peaks at the centres of cells; the bicubic one, between them too
    ("hit_surgery", "surgery", "bilinear"),
    ("hit_surgery_bicubic", "surgery", "bicubic"),
    ("hit_dense", "dense", "bilinear"),
)


def crop(sample: Sample) -> np.ndarray | None:
    """What a sample's mask shows, cut out of its frame; None where there is no mask or nothing in it."""
    if sample.mask is None or not sample.mask.any():
        return None
    rows, columns = (np.flatnonzero(sample.mask.any(axis=axis)) for axis in (1, 0))
    bbox = (columns[0], rows[0], np.ptp(columns), np.ptp(rows))
    return crop_proposal(sample.frame, {"segmentation": sample.mask, "bbox": bbox}, "corrected")


@torch.inference_mode()
def evaluate_retrieval(
    model: AudioCLIP, rounds: Sequence[Sequence[Sample]], tile: int = AUDIO_REPEATS
) -> dict[str, float]:
    """Retrieval and localisation on unseen seconds.

    retrieval_*: how often a round's best-scoring picture is of the kind that is heard, by each score; `chance` is
    what guessing gives. retrieval_crops: the same among what sounds in each picture, cut out along its true mask as
    the No-Prompt setting cuts out SAM's proposals, at CROP_SIDE; left out if a mask is missing or empty. shows: the
    picture that `surgery` finds shows that kind at all, if only as a silent thing.
    even_choice: what an ear and eye without fault reach that choose evenly among the pictures showing the kind.
    hit_*: how often the highest point of the dense map, resized to the frame, lies on what sounds; `area` is what
    guessing gives.
    """
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    cut = [[c for c in map(crop, samples) if c is not None] for samples in rounds]
    whole = all(len(crops) == len(samples) for crops, samples in zip(cut, rounds, strict=True))
    for samples, crops in zip(rounds, cut, strict=True):
        frames = torch.from_numpy(np.stack([s.frame for s in samples]))
        sounds = torch.from_numpy(np.stack([np.tile(s.sound, tile) for s in samples]))
        count = len(samples)
        audio, found = embed(model, sounds, frames)
        if whole:
            found["crops"] = F.normalize(model.encode_image(prepare_crops(crops, CROP_SIDE)), dim=1)
        for name, table in similarity_logits(audio, found).items():
            best = table.argmax(dim=1).tolist()
            sums[f"retrieval_{name}"] += sum(i == j for i, j in enumerate(best))
            if name == "surgery" and all(s.visible_categories for s in samples):
                sums["shows"] += sum(samples[i].category in samples[j].shown for i, j in enumerate(best))
                sums["even_choice"] += sum(
                    1 / sum(s.category in t.visible_categories for t in samples) for s in samples
                )
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
