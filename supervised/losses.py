"""AVSBench's training losses.

Binary cross-entropy (BCE) of the labeled frames, and optionally an audio-visual mapping (AVM) term, which brings the
visual feature under the predicted mask close to the audio feature. Source: Zhou et al., "Audio-Visual Segmentation"
(ECCV 2022), section 4; AVSBench, `avs_s4/loss.py` and `avs_ms3/loss.py`, whose flags are the fields of AVMOptions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.tpavi_segmentor import Segmentation
from supervised.options import AVMOptions


@dataclass
class LossTerms:
    """Scalars with total = bce + weight · avm; avm is 0 where the term is off."""

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


def resize_logits(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits (..., h, w) resized bilinearly to the size of the masks (..., H, W)."""
    if logits.shape[-2:] == masks.shape[-2:]:
        return logits
    return F.interpolate(logits, masks.shape[-2:], mode="bilinear")


def _avm_loss(output: Segmentation, stage: int, avm: AVMOptions) -> Tensor:
    audio = output.audio[stage]
    if audio is None:
        raise ValueError(f"the AVM loss reads stage {stage}, where this model has no audio")
    audio = audio.flatten(0, 1).float()  # (B·5, C)
    visual = _visual_feature(output.logits.flatten(0, 1).float(), output.maps[stage].flatten(0, 1).float(), avm)
    if avm.normalize or avm.distance == "cosine":
        audio, visual = F.normalize(audio, dim=1), F.normalize(visual, dim=1)
    total = _distance(audio, visual, avm)
    if avm.avm_vv:
        distances = torch.cdist(audio, audio) + 10 * torch.eye(len(audio), device=audio.device)
        total = total + _distance(visual[distances.argmin(1)], visual, avm)
    return total


def _visual_feature(logits: Tensor, maps: Tensor, avm: AVMOptions) -> Tensor:
    """Mean of the maps (N, C, h, w) under the predicted mask, from logits (N, H, W): (N, C)."""
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
