"""AVSegFormer's training losses.

Each is a main term on the logits and a mix term: a tenth of the same kind of loss on the channel mean of the mask
feature, so that the feature itself looks like the mask. Source: AVSegFormer, `scripts/{s4,ms3,avss}/loss.py`.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from models.avsegformer import MaskPrediction
from supervised.losses import resize_logits, semantic_loss

MIX_WEIGHT = 0.1
SMOOTHING = 1e-3  # on each of the two sums below Dice's fraction


@dataclass
class MixLoss:
    """total = main + mix, where mix is weighted already."""

    total: Tensor
    main: Tensor
    mix: Tensor


def mask_loss(output: MaskPrediction, masks: Tensor, form: Literal["dice", "bce"] = "dice") -> MixLoss:
    """The loss of S4 and MS3.

    Args:
        output: Of a model of one class.
        masks: (B, M, H, W) of 0 and 1; the first M frames of each clip are labeled, M = 1 in S4 training.
        form: Every published configuration says dice.
    """
    count = masks.shape[1]
    logits = resize_logits(output.logits[:, :count].float(), masks)
    terms = []
    for prediction in (logits, _feature_logits(output.mask_feature[:, :count], masks)):
        if form == "dice":
            terms.append(dice_loss(prediction, masks).mean())
        else:
            terms.append(_binary_cross_entropy(prediction, masks))
    return _weighted(*terms)


def semantic_mask_loss(
    output: MaskPrediction, labels: Tensor, weight: Tensor, total: Tensor | float | None = None
) -> MixLoss:
    """The loss of AVSS: cross-entropy of the classes, and Dice of the mask feature against all that sounds.

    Args:
        output: Of a model of several classes.
        labels: (B, T, H, W) class of each pixel, int64; 0 is background.
        weight: (B, T), one where a frame has labels, which at least one has; other frames are not looked at.
        total: Sum of the weights of the whole batch where this process has only part of it.
    """
    kept = weight > 0
    weights = weight[kept].float() / (weight.sum() if total is None else total)
    foreground = (labels[kept] > 0).float()
    dice = dice_loss(_feature_logits(output.mask_feature[kept][None], foreground[None])[0], foreground)
    return _weighted(semantic_loss(output.logits, labels, weight, total), (dice * weights).sum())


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice coefficient of each frame's probabilities. (..., H, W) -> (...).

    It is 1, with gradient 0, for an empty mask: silence teaches nothing.
    """
    probabilities, masks = logits.sigmoid().flatten(-2), masks.flatten(-2)
    overlap = (probabilities * masks).sum(-1)
    return 1 - 2 * overlap / (probabilities.square().sum(-1) + masks.square().sum(-1) + 2 * SMOOTHING)


def _binary_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    # Of probabilities, as in the original: PyTorch clamps their log. It refuses NaN, which the caller is to see.
    probabilities = logits.sigmoid()
    return F.binary_cross_entropy(probabilities.nan_to_num(0.5), masks) + 0 * probabilities.detach().sum()


def _feature_logits(feature: Tensor, masks: Tensor) -> Tensor:
    """The channel mean (B, M, C, h, w) -> (B, M, H, W). It is non-negative, so it cannot say background."""
    return resize_logits(feature.float().mean(2), masks)


def _weighted(main: Tensor, mix: Tensor) -> MixLoss:
    return MixLoss(main + MIX_WEIGHT * mix, main, MIX_WEIGHT * mix)
