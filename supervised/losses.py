"""AVSBench's training losses.

Cross-entropy of the labelled frames, and optionally audio-visual mapping (AVMOptions): the feature of what is segmented
should resemble the feature of what is heard. Source: Zhou et al., "Audio-Visual Segmentation" (ECCV 2022),
section 4; AVSBench, `avs_s4/loss.py` and `avs_ms3/loss.py`, whose flags are the fields of AVMOptions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.tpavi_segmentor import Segmentation
from supervised.options import AVMOptions


@dataclass
class LossTerms:
    """total = bce + weight · avm; avm is 0 where it is off."""

    total: Tensor
    bce: Tensor
    avm: Tensor


def segmentation_loss(
    output: Segmentation, masks: Tensor, avm: AVMOptions | None = None, videos: int | None = None
) -> LossTerms:
    """The loss of a batch.

    masks: (B, M, H, W); the first M frames of each video are labelled, M = 1 in S4 training.
    videos: size of the whole batch where this is one process's share of it; the KL distance is summed over
    frames, not averaged, as in the original, and so needs it.
    """
    # Probabilities first, as the original: its log is clamped at -100, which bounds a loss in saturation.
    logits = resize_logits(output.logits[:, : masks.shape[1]].float(), masks)
    probabilities = logits.sigmoid()
    # It refuses NaN, on a GPU by ending the program; the caller is to see it in the loss.
    bce = F.binary_cross_entropy(probabilities.nan_to_num(0.5), masks) + 0 * probabilities.detach().sum()
    if avm is None or avm.distance == "none":
        return LossTerms(bce, bce, bce.new_zeros(()))
    share = 1.0 if videos is None else videos / len(masks)
    terms = [_avm_loss(output, stage, avm) for stage in avm.stages]
    mapping = torch.stack(terms).mean() * (share if avm.distance == "kl" else 1.0)
    return LossTerms(bce + avm.weight * mapping, bce, mapping)


def resize_logits(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits (..., h, w) at the masks' size, bilinear; as they are where the model works at that size."""
    if logits.shape[-2:] == masks.shape[-2:]:
        return logits
    return F.interpolate(logits, masks.shape[-2:], mode="bilinear")


def _avm_loss(output: Segmentation, stage: int, avm: AVMOptions) -> Tensor:
    audio = output.audio[stage]
    if audio is None:
        raise ValueError(f"the AVMOptions loss asks for stage {stage}, where this model has no audio")
    audio = audio.flatten(0, 1).float()  # (B·5, C)
    visual = _visual_feature(output.logits.flatten(0, 1).float(), output.maps[stage].flatten(0, 1).float(), avm)
    if avm.normalize or avm.distance == "cosine":
        audio, visual = F.normalize(audio, dim=1), F.normalize(visual, dim=1)
    total = _distance(audio, visual, avm)
    if avm.avm_vv:
        others = torch.cdist(audio, audio) + 10 * torch.eye(len(audio), device=audio.device)
        total = total + _distance(visual[others.argmin(1)], visual, avm)
    return total


def _visual_feature(logits: Tensor, maps: Tensor, avm: AVMOptions) -> Tensor:
    """logits (N, H, W), maps (N, C, h, w) -> (N, C), the maps' mean under the mask."""
    pool = F.adaptive_avg_pool2d if avm.pool == "avg" else F.adaptive_max_pool2d
    size = (maps.shape[-2], maps.shape[-1])
    if avm.distance == "cosine":  # S4 pools probabilities, MS3 pools logits
        mask = pool(logits[:, None].sigmoid(), size)
    else:
        mask = pool(logits[:, None], size).sigmoid()
    if avm.distance == "cosine" or avm.binarize:
        mask = (mask > 0.5).float()
        return (mask * maps).sum((2, 3)) / (mask.sum((2, 3)) + 1e-6)
    return (mask * maps).mean((2, 3))


def _distance(target: Tensor, visual: Tensor, avm: AVMOptions) -> Tensor:
    if avm.distance == "cosine":
        return -((target * visual).sum(1).relu() + 1e-6).log().mean()
    if avm.distance == "euclidean":
        return F.pairwise_distance(target, visual).mean()
    return F.kl_div(visual.log_softmax(1), target.softmax(1), reduction="sum")
