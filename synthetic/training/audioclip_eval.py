"""How AudioCLIP's small weights are evaluated: retrieval and localization on seconds that they were not trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.audioclip import AudioCLIP
from synthetic.training.audioclip_data import EVAL_STREAM, ClipPairs, Sample, ScenePairs
from synthetic.training.audioclip_training import embed, similarities
from utils.layout import FRAME_SIZE
from zero_shot.proposal_scoring import crop_proposal, prepare_crops

AUDIO_REPEATS = 5  # the study repeats each second this many times as input of AudioCLIP
CROP_SIDE = 128  # pixels of the crops that are classified; easy scenes have the same size
HITS = (  # metric, embedding and interpolation; bilinear maps have their maxima at cell centers, bicubic ones anywhere
    ("hit_surgery", "surgery", "bilinear"),
    ("hit_surgery_bicubic", "surgery", "bicubic"),
    ("hit_dense", "dense", "bilinear"),
)


def scene_eval_rounds(pairs: ScenePairs, seed: int, rounds: int, easy: bool) -> list[list[Sample]]:
    """Rounds of unseen scenes, with single objects if `easy`; in each round every category sounds in one scene."""
    draw = pairs.single_object if easy else pairs.whole_frame
    streams = (np.random.default_rng([seed, EVAL_STREAM, int(easy), index]) for index in range(rounds))
    return [[draw(category, rng) for category in pairs.assets.categories] for rng in streams]


def clip_eval_rounds(pairs: ClipPairs, second: int) -> list[list[Sample]]:
    """One second of every clip, in rounds of one clip per category; MS3 clips have no category and form one round."""
    rounds: dict[int, list[Sample]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for index, clip in enumerate(pairs.clips):
        rounds[counts[clip.category] if clip.category else 0].append(pairs.read(index, second, mask=True))
        counts[clip.category] += 1
    # Retrieval among one clip is always right, so such rounds are left out.
    return [samples for samples in rounds.values() if len(samples) > 1] or list(rounds.values())


def crop_target(sample: Sample) -> np.ndarray | None:
    """The frame cropped and masked by the ground truth, uint8 (h, w, 3); None if the mask is missing or empty."""
    if sample.mask is None or not sample.mask.any():
        return None
    rows, columns = (np.flatnonzero(sample.mask.any(axis=axis)) for axis in (1, 0))
    bbox = (columns[0], rows[0], np.ptp(columns), np.ptp(rows))
    return crop_proposal(sample.frame, {"segmentation": sample.mask, "bbox": bbox}, "corrected")


@torch.inference_mode()
def evaluate_retrieval(
    model: AudioCLIP, rounds: Sequence[Sequence[Sample]], repeats: int = AUDIO_REPEATS
) -> dict[str, float]:
    """Evaluate retrieval of frames by audio, and localization of what sounds.

    Args:
        model: the AudioCLIP.
        rounds: the samples; retrieval is among those of a round.
        repeats: how many times each second of audio is repeated.

    Returns:
        Fractions of the frames, and their number:
        frames: how many there are.
        retrieval_*: the paired frame has the highest similarity, for each embedding. "crops" are of the objects that
            sound, cropped along their ground truth as No-Prompt crops SAM's proposals; omitted if a mask is missing.
        category_visible: the frame retrieved by "surgery" shows the category, perhaps as a silent distractor.
        oracle_accuracy: expected accuracy of perfect recognition, which guesses among the frames with the category.
        chance: accuracy of guessing.
        hit_*: the maximum of the dense map, resized to the frame, lies in the mask.
        area: mean area of the masks, the hit rate of guessing.
    """
    model.eval()
    sums: dict[str, float] = defaultdict(float)
    crops = [[c for c in map(crop_target, samples) if c is not None] for samples in rounds]
    complete = all(len(c) == len(samples) for c, samples in zip(crops, rounds, strict=True))
    for samples, targets in zip(rounds, crops, strict=True):
        frames = torch.from_numpy(np.stack([s.frame for s in samples]))
        waveforms = torch.from_numpy(np.stack([np.tile(s.audio, repeats) for s in samples]))
        audio, images = embed(model, waveforms, frames)
        if complete:
            images["crops"] = F.normalize(model.encode_image(prepare_crops(targets, CROP_SIDE)), dim=1)
        parts = _retrieval(samples, similarities(audio, images)) | _localization(samples, audio, images)
        for name, value in parts.items():
            sums[name] += value
        sums["frames"] += len(samples)
    total = sums.pop("frames")
    return {"frames": total} | {name: round(value / total, 4) for name, value in sums.items()}


def _retrieval(samples: Sequence[Sample], tables: dict[str, Tensor]) -> dict[str, float]:
    """The retrieval metrics of a round, summed over its frames."""
    sums: dict[str, float] = {}
    for name, table in tables.items():
        best = table.argmax(dim=1).tolist()
        sums[f"retrieval_{name}"] = sum(i == j for i, j in enumerate(best))
        if name == "surgery" and all(s.visible_categories for s in samples):
            visible = [[s.category in t.visible_categories for t in samples] for s in samples]
            sums["category_visible"] = sum(visible[i][j] for i, j in enumerate(best))
            sums["oracle_accuracy"] = sum(1 / sum(row) for row in visible)
    return sums | {"chance": 1}


def _localization(samples: Sequence[Sample], audio: Tensor, images: dict[str, Tensor]) -> dict[str, float]:
    """The localization metrics of a round, summed over its frames."""
    sums: dict[str, float] = {}
    for name, source, mode in HITS:
        maps = torch.einsum("nd,ndhw->nhw", audio, images[source]).unsqueeze(1)
        peaks = F.interpolate(maps, FRAME_SIZE, mode=mode).flatten(1).argmax(dim=1).tolist()
        sums[name] = sum(bool(s.mask.flat[peak]) for s, peak in zip(samples, peaks, strict=True) if s.mask is not None)
    return sums | {"area": sum(float(s.mask.mean()) for s in samples if s.mask is not None)}
