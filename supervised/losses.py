"""AVSBench's training losses.

Cross-entropy of the labeled frames, binary in S4 and MS3 and of the classes in AVSS, and optionally an audio-visual
mapping (AVM) term, which brings the visual feature under the predicted mask close to the audio feature. Source: Zhou et
al., "Audio-Visual Segmentation" (ECCV 2022), section 4; AVSBench, `avs_s4/loss.py`, `avs_ms3/loss.py` and
`avss/loss.py`, whose flags are the fields of AVMOptions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.tpavi_segmentor import Segmentation
from supervised.options import AVMOptions
from utils.fidelity import Fidelity


@dataclass
class LossTerms:
    """Scalars with total = bce + weight · avm; avm is 0 where the term is off. In AVSS bce is the classes' entropy."""

    total: Tensor
    bce: Tensor
    avm: Tensor


def segmentation_loss(
    output: Segmentation, masks: Tensor, avm: AVMOptions | None = None, videos: int | None = None
) -> LossTerms:
    """The loss of a batch.

    Args:
        output: of the model, with logits (B, >= M, h, w).
        masks: (B, M, H, W) in [0, 1]; the first M frames of each video are labeled, M = 1 in S4 training.
        avm: options of the AVM term; None leaves it out.
        videos: size of the whole batch where this process has only part of it. The KL distance, which is summed over
            frames as in the original, is scaled by it.

    Raises:
        ValueError: if the AVM term reads a stage without audio.
    """
    # On probabilities, as in the original: torch clamps their log at -100, which bounds the loss in saturation.
    logits = resize_logits(output.logits[:, : masks.shape[1]].float(), masks)
    probabilities = logits.sigmoid()
    # BCE rejects NaN (on a GPU by aborting the process); the sum passes it on to the loss for the caller to check.
    bce = F.binary_cross_entropy(probabilities.nan_to_num(0.5), masks) + 0 * probabilities.detach().sum()
    if avm is None or avm.distance == "none":
        return LossTerms(bce, bce, bce.new_zeros(()))
    share = 1.0 if videos is None else videos / len(masks)
    terms = [_avm_loss(output, stage, avm) for stage in avm.stages]
    mapping = torch.stack(terms).mean() * (share if avm.distance == "kl" else 1.0)
    return LossTerms(bce + avm.weight * mapping, bce, mapping)


def semantic_segmentation_loss(
    output: Segmentation,
    labels: Tensor,
    labeled: Tensor,
    avm: AVMOptions | None = None,
    fidelity: Fidelity = "corrected",
    total: Tensor | float | None = None,
    *,
    valid: Tensor | None = None,
) -> LossTerms:
    """The loss of a batch of AVSS. Each labeled frame has the same weight, so a long clip has more than a short one.

    Args:
        output: of the model, with logits (B, T, classes, h, w).
        labels: (B, T, H, W), the class of each pixel, int64.
        labeled: (B, T), 1 for frames with labels, of which there is at least one.
        avm: options of the AVM term; None leaves it out.
        fidelity: "published" takes the audio feature as the target of AVM-VV with KL, where the original forgets to use
            the frame that it has picked, and class 70, woman, as the background of the AVM mask (by default). Its
            AVM-VV may pick padding.
        total: number of labeled frames of the whole batch where this process has only part of it.
        valid: (B, T), 0 for frames that only pad a clip; None if all are real.
    """
    total = labeled.sum() if total is None else total
    entropy = semantic_loss(output.logits, labels, labeled, total)
    if avm is None or avm.distance == "none":
        return LossTerms(entropy, entropy, entropy.new_zeros(()))
    published = fidelity == "published"
    background = (70 if published else 0) if avm.background is None else avm.background
    mask = (output.logits.detach().flatten(0, 1).argmax(1, keepdim=True) != background).float()
    targets = None if valid is None or published else valid.flatten().bool()
    terms = [
        (_semantic_distances(output, stage, mask, avm, published, targets) * labeled.flatten()).sum() / total
        for stage in avm.stages
    ]
    mapping = torch.stack(terms).mean()
    return LossTerms(entropy + avm.weight * mapping, entropy, mapping)


def semantic_loss(logits: Tensor, labels: Tensor, weight: Tensor, total: Tensor | float | None = None) -> Tensor:
    """Cross-entropy of classes: the mean over pixels, then the weighted mean over frames.

    Args:
        logits: (B, T, classes, h, w), resized to the size of the labels.
        labels: (B, T, H, W), the class of each pixel, int64.
        weight: (B, T) of the frames; those of weight 0 are not looked at.
        total: sum of the weights; default: of this batch.
    """
    kept = weight > 0
    entropy = F.cross_entropy(resize_logits(logits[kept].float(), labels), labels[kept], reduction="none")
    return (entropy.mean((1, 2)) * weight[kept]).sum() / (weight.sum() if total is None else total)


def _semantic_distances(
    output: Segmentation, stage: int, mask: Tensor, avm: AVMOptions, published: bool, targets: Tensor | None
) -> Tensor:
    """The distance of each frame (N,) at a stage, from the predicted foreground (N, 1, H, W) of 0 and 1.

    targets: (N,) bool, the frames that AVM-VV may pick; None if all.
    """
    audio, maps = _audio_feature(output, stage), output.maps[stage].flatten(0, 1).float()
    visual = _masked_mean(_pool(avm)(mask, (maps.shape[-2], maps.shape[-1])), maps, avm)
    audio, visual = _normalized(audio, visual, avm)
    target = audio
    if avm.avm_vv and not (published and avm.distance == "kl"):
        target = visual[_nearest_audio(audio, targets)]
    return _distances(target, visual, avm)


def resize_logits(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits (..., h, w) resized bilinearly to the size of the masks (..., H, W)."""
    if logits.shape[-2:] == masks.shape[-2:]:
        return logits
    return F.interpolate(logits, masks.shape[-2:], mode="bilinear")


def _avm_loss(output: Segmentation, stage: int, avm: AVMOptions) -> Tensor:
    audio = _audio_feature(output, stage)
    visual = _visual_feature(output.logits.flatten(0, 1).float(), output.maps[stage].flatten(0, 1).float(), avm)
    audio, visual = _normalized(audio, visual, avm)
    distances = _distances(audio, visual, avm)
    if avm.avm_vv:
        distances = distances + _distances(visual[_nearest_audio(audio)], visual, avm)
    return distances.sum() if avm.distance == "kl" else distances.mean()


def _audio_feature(output: Segmentation, stage: int) -> Tensor:
    """The aligned audio feature (B·T, C) of a stage."""
    audio = output.audio[stage]
    if audio is None:
        raise ValueError(f"the AVM loss reads stage {stage}, where this model has no audio")
    return audio.flatten(0, 1).float()


def _nearest_audio(audio: Tensor, targets: Tensor | None = None) -> Tensor:
    """The index of the other frame of the batch whose audio feature (N, C) is closest to that of each frame.

    targets: (N,) bool, the frames that may be picked; None if all.
    """
    distances = torch.cdist(audio, audio) + 10 * torch.eye(len(audio), device=audio.device)
    if targets is not None:
        distances = distances.masked_fill(~targets, torch.inf)
    return distances.argmin(1)


def _normalized(audio: Tensor, visual: Tensor, avm: AVMOptions) -> tuple[Tensor, Tensor]:
    if avm.normalize or avm.distance == "cosine":
        return F.normalize(audio, dim=1), F.normalize(visual, dim=1)
    return audio, visual


def _visual_feature(logits: Tensor, maps: Tensor, avm: AVMOptions) -> Tensor:
    """Mean of the maps (N, C, h, w) under the predicted mask, from logits (N, H, W): (N, C)."""
    pool, size = _pool(avm), (maps.shape[-2], maps.shape[-1])
    if avm.distance == "cosine":  # S4 pools probabilities, MS3 pools logits
        mask = pool(logits[:, None].sigmoid(), size)
    else:
        mask = pool(logits[:, None], size).sigmoid()
    return _masked_mean(mask, maps, avm)


def _pool(avm: AVMOptions) -> Callable[[Tensor, tuple[int, int]], Tensor]:
    return F.adaptive_avg_pool2d if avm.pool == "avg" else F.adaptive_max_pool2d


def _masked_mean(mask: Tensor, maps: Tensor, avm: AVMOptions) -> Tensor:
    """Mean of the maps (N, C, h, w), weighted by a mask (N, 1, h, w) or within it: (N, C)."""
    if avm.distance == "cosine" or avm.binarize:
        mask = (mask > 0.5).float()
        return (mask * maps).sum((2, 3)) / (mask.sum((2, 3)) + 1e-6)
    return (mask * maps).mean((2, 3))


def _distances(target: Tensor, visual: Tensor, avm: AVMOptions) -> Tensor:
    """The distance of each pair of features (N, C): (N,)."""
    if avm.distance == "cosine":
        return -((target * visual).sum(1).relu() + 1e-6).log()
    if avm.distance == "euclidean":
        return F.pairwise_distance(target, visual)
    return F.kl_div(visual.log_softmax(1), target.softmax(1), reduction="none").sum(1)
