"""The metrics of AVSBench, as its own code computes them.

Source: utils/utility.py of AVSBench (Zhou et al., "Audio-Visual Segmentation", ECCV 2022).
"""

import torch
from torch import Tensor


def f_score(logits: Tensor, masks: Tensor) -> float:
    """M_F of one batch: 255 passes over the pixels of every frame.

    Args:
        logits: (N, H, W).
        masks: Ground truth of 0 and 1, (N, H, W). Frames without a positive pixel are left out.

    Returns:
        The largest F-score (beta² = 0.3) over the thresholds, averaged over frames first.
    """
    steps = torch.linspace(0, 1 - 1e-10, 255)
    total, valid = torch.zeros(255), 0
    for probability, mask in zip(logits.sigmoid(), masks, strict=True):
        if mask.mean() == 0:
            continue
        f = torch.zeros(255)
        for i, step in enumerate(steps):
            predicted = (probability >= step).float()
            hit = (predicted * mask).sum()
            precision, recall = hit / (predicted.sum() + 1e-20), hit / (mask.sum() + 1e-20)
            f[i] = 1.3 * precision * recall / (0.3 * precision + recall)
        total += f.nan_to_num(0.0)
        valid += 1
    return (total / valid).max().item() if valid else 0.0


def mean_iou(logits: Tensor, masks: Tensor) -> float:
    """M_J of one batch, frame by frame.

    Args:
        logits: (N, H, W).
        masks: Ground truth of 0 and 1, (N, H, W). A frame without a positive pixel is scored by its background.

    Returns:
        The mean intersection over union.
    """
    scores = []
    for z, mask in zip(logits, masks, strict=True):
        predicted, positive = z.sigmoid() > 0.5, mask > 0.5
        if not positive.any():
            scores.append((~predicted).float().mean())
        else:
            scores.append((predicted & positive).sum() / (predicted | positive).sum())
    return torch.stack(scores).mean().item()


def semantic_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over frames of the IoU and F-score of each class, from three histograms of every frame.

    Source: AVSBench, `avs_scripts/avss/utils/compute_color_metrics.py`.

    Args:
        logits: (N, classes, H, W).
        labels: (N, H, W), the class of each pixel.

    Returns:
        Sums of IoU and of F, and the number of frames in which each class is predicted or labeled: (classes,) each.
    """
    classes = logits.shape[1]
    predictions = logits.softmax(1).argmax(1)
    sums = [torch.zeros(classes) for _ in range(3)]
    for predicted, label in zip(predictions.float() + 1, labels.float() + 1, strict=True):
        inside = predicted * (predicted == label)
        hits, found, truth = (torch.histc(x, classes, 1, classes) for x in (inside, predicted, label))
        union = found + truth - hits
        precision, recall = hits / found, hits / truth
        f = 1.3 * precision * recall / (0.3 * precision + recall)
        for total, value in zip(sums, (hits / (union + 2.2e-16), f.nan_to_num(0.0), union > 0), strict=True):
            total += value
    return sums[0], sums[1], sums[2]
