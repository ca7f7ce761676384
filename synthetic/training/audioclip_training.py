"""The contrastive training of AudioCLIP's small weights: network, curriculum and loss.

The only supervision is which audio belongs to which frame: InfoNCE over the pairs of a batch; no category, mask or
position enters the loss. It is the mean over three similarities of a pair: the cosine of the audio and pooled image
embeddings, and the maximum cosine of the audio embedding with any location of the two dense maps (multiple-instance
learning), which allows for other objects in the frame.

The curriculum starts with easy scenes, continues with whole frames, and ends with every other batch arranged in
mosaics of 2×2 frames, each scored on its own quadrant: activations from a neighboring frame are penalized, so
locations learn to represent their own content. Sources: van den Oord et al., "Representation Learning with
Contrastive Predictive Coding" (2018); Arandjelović and Zisserman, "Objects that Sound" (ECCV 2018) for the maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from models.audioclip import AudioCLIP, Logits
from synthetic.training.audioclip_data import PairSource
from utils.dataset import normalize_frames

SIZES: dict[str, Any] = {  # arguments of AudioCLIP: 1 017 396 parameters
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
INITIAL_LOGIT_SCALE = 14.0
EASY_END, MOSAIC_START = 0.35, 0.70  # fractions of the training at which these stages end and start
WARMUP_STEPS = 50


@dataclass(frozen=True)
class Curriculum:
    """What each training step consists of.

    Attributes:
        steps: of the training.
        easy_until: the first step with whole frames; 0 if there are no easy scenes.
        mosaics_from: the first step with mosaics.
    """

    steps: int
    easy_until: int
    mosaics_from: int

    @classmethod
    def of(cls, steps: int, easy: bool = True) -> Curriculum:
        """The default stages of a training of `steps` steps, with or without easy scenes."""
        return cls(steps, round(EASY_END * steps) if easy else 0, round(MOSAIC_START * steps))

    def is_mosaic(self, step: int) -> bool:
        """Whether the frames of a step are arranged in mosaics."""
        return step >= self.mosaics_from and (step - self.mosaics_from) % 2 == 0

    def is_easy(self, step: int) -> bool:
        """Whether a step has easy scenes, as mosaics do if there are any."""
        return step < self.easy_until or (self.is_mosaic(step) and self.easy_until > 0)

    def lr_factor(self, step: int) -> float:
        """Factor of the learning rate: linear warmup and cosine decay, restarted at half the rate for the mosaics."""
        if step >= self.mosaics_from:
            return 0.25 + 0.25 * math.cos(math.pi * (step - self.mosaics_from) / (self.steps - self.mosaics_from))
        return min((step + 1) / WARMUP_STEPS, 0.5 + 0.5 * math.cos(math.pi * step / self.steps))


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """The pairs of the remaining steps in order, for a loader without shuffling.

    Args:
        pairs: where they come from.
        curriculum: decides which are easy.
        batch_size: pairs per step.
        start: the first step.
    """

    def __init__(self, pairs: PairSource, curriculum: Curriculum, batch_size: int, start: int = 0):
        self.pairs, self.curriculum, self.batch_size, self.start = pairs, curriculum, batch_size, start

    def __len__(self) -> int:
        return (self.curriculum.steps - self.start) * self.batch_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A frame, uint8 (side, side, 3), and its audio, float32 (44100,)."""
        cv2.setNumThreads(1)
        step, place = divmod(self.start * self.batch_size + index, self.batch_size)
        sample = self.pairs.item(step, place, easy=self.curriculum.is_easy(step))
        return torch.from_numpy(sample.frame), torch.from_numpy(sample.audio)


def build_audioclip(sizes: dict[str, Any], seed: int) -> AudioCLIP:
    """A new AudioCLIP of the given sizes, initialized from the seed."""
    torch.manual_seed(seed)
    model = AudioCLIP(**sizes)
    with torch.no_grad():
        model.logit_scale_ai.fill_(float(np.log(INITIAL_LOGIT_SCALE)))
    # The filters stay at their initialization, a Fourier transform: rebuilding them in each step would cost more than
    # the rest of the audio tower, and a few thousand pairs do not improve them.
    model.audio.fbsp.requires_grad_(False)
    return model


def set_train_mode(model: AudioCLIP) -> AudioCLIP:
    """Put a model into train mode, except for the fixed filters, which eval mode builds only once."""
    model.train()
    model.audio.fbsp.eval()
    return model


def make_mosaics(frames: Tensor) -> Tensor:
    """Arrange frames (N, H, W, C) in mosaics of 2×2, (N/4, 2H, 2W, C)."""
    grid = frames.unflatten(0, (-1, 2, 2)).transpose(2, 3)  # (mosaic, row, H, column, W, C)
    return grid.flatten(3, 4).flatten(1, 2)


def mosaic_quadrants(maps: Tensor) -> Tensor:
    """Split the maps of mosaics, (N/4, C, 2h, 2w), into those of their frames, (N, C, h, w)."""
    grid = maps.unflatten(3, (2, -1)).unflatten(2, (2, -1))  # (mosaic, C, row, h, column, w)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def embed(model: AudioCLIP, audio: Tensor, frames: Tensor, mosaic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Embed audio and frames, with unit length.

    Args:
        model: the AudioCLIP.
        audio: (A, samples).
        frames: uint8 (N, H, W, 3).
        mosaic: arrange the frames in mosaics; the convolutions then see all four frames, the attention pooling one.

    Returns:
        Audio embeddings (A, D), and image embeddings: "surgery" and "dense", (N, D, h, w) each, and "pooled", (N, D).
    """
    audio_embedding = F.normalize(model.encode_audio(audio), dim=1)
    images = normalize_frames(make_mosaics(frames) if mosaic else frames, "clip")
    last = model.visual.pyramid(images)[-1]
    last = mosaic_quadrants(last) if mosaic else last
    surgery, _ = model.visual.attnpool.dense(last, surgery=True)
    dense, pooled = model.visual.attnpool.dense(last)
    image_embeddings = {"surgery": surgery, "dense": dense, "pooled": pooled}
    return audio_embedding, {name: F.normalize(value, dim=1) for name, value in image_embeddings.items()}


def similarities(audio: Tensor, images: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cosine similarities of the embeddings of `embed`, their maximum over locations for dense maps: (A, N) each."""
    flat = {name: x.flatten(2) if x.ndim == 4 else x[:, :, None] for name, x in images.items()}
    return {name: torch.einsum("ad,ndl->anl", audio, x).amax(dim=2) for name, x in flat.items()}


def contrastive_loss(model: AudioCLIP, frames: Tensor, audio: Tensor, mosaic: bool = False) -> Tensor:
    """AudioCLIP's contrastive loss of paired frames (N, H, W, 3) and audio (N, samples): mean over the similarities."""
    scale = model.logit_scale_ai.exp().clamp(1, 100)
    tables = similarities(*embed(model, audio, frames, mosaic)).values()
    return torch.stack([model.contrastive_loss(Logits(scale * table, None, None)) for table in tables]).mean()
