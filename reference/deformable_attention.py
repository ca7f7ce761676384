"""Multi-scale deformable attention, level by level with `grid_sample`.

Source: Zhu et al., "Deformable DETR" (ICLR 2021), equation 3; `ms_deform_attn_core_pytorch` of its code.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Arguments and result as in `models.deformable_attention.deformable_attention`."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    sampled = []
    for level, tokens in enumerate(value.split([height * width for height, width in shapes], 1)):
        maps = tokens.permute(0, 2, 3, 1).reshape(batch * heads, channels, *shapes[level])
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1  # (batch · heads, queries, points, 2)
        sampled.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    samples = torch.cat(sampled, -1)  # (batch · heads, channels, queries, levels · points)
    per_head = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    return (samples * per_head).sum(-1).view(batch, heads * channels, queries).transpose(1, 2)
