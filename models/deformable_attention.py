"""Multi-scale deformable attention: each query reads a few points of each feature map, weighted.

The maps lie in one zero-bordered atlas, channels last. A point between four pixels is then one row number, the same for
all levels, and its four corners are at four fixed distances from it, so all points of all levels are read by four
`embedding_bag`, which add up weighted rows without holding the samples. The gradient of the maps is again such a
sum, over the points sorted by row. Nothing is compiled, and nothing depends on the order of atomic additions.

Source: Zhu et al., "Deformable DETR" (ICLR 2021), section 4.1; AVSegFormer, `ops/modules/ms_deform_attn.py`.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shapes = Sequence[tuple[int, int]]  # (height, width) of each level


class DeformableAttention(nn.Module):
    """The attention with its projections. State-dict keys are Deformable DETR's.

    Args:
        channels: Width of queries and tokens, a multiple of `heads`.
        heads: Number of heads.
        levels: Number of feature maps.
        points: Points that each head reads of each map.
    """

    def __init__(self, channels: int = 256, heads: int = 8, levels: int = 3, points: int = 4):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each head looks in a direction of its own, point p at a distance of p + 1 pixels, all weights equal."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.points + 1)
        offsets = (directions[:, None, None] * distances[:, None]).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, tokens: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
        """Read the maps around reference points.

        Args:
            query: (B, Q, channels).
            tokens: (B, L, channels), the pixels of all levels row by row, level after level.
            reference: (Q, 2), the point (x, y) that a query's offsets start from, in [0, 1].
            shapes: (height, width) of each level.

        Returns:
            (B, Q, channels).
        """
        per_head = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*per_head, 2))  # in pixels of the level read
        weights = self.attention_weights(query).unflatten(-1, (self.heads, -1)).softmax(-1)
        sizes = reference.new_tensor([(width, height) for height, width in shapes])
        locations = reference[:, None, None, None] + offsets / sizes[:, None]
        value = self.value_proj(tokens).unflatten(-1, (self.heads, -1))
        read = deformable_attention(value, shapes, locations, weights.unflatten(-1, per_head[1:]))
        return self.output_proj(read)


def reference_points(shapes: Shapes, device: torch.device | None = None) -> Tensor:
    """Centres (x, y) of all pixels of all levels in [0, 1], row by row: (L, 2)."""
    levels = []
    for height, width in shapes:
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        levels.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1))
    return torch.cat(levels)


def deformable_attention(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of points of the maps, bilinear between pixels and zero outside.

    Half-precision values are summed in float32.

    Args:
        value: (B, L, heads, C), the pixels of all levels row by row, level after level.
        shapes: (height, width) of each level.
        locations: (B, Q, heads, levels, points, 2) as (x, y); (0, 0) and (1, 1) are a map's outer corners.
        weights: (B, Q, heads, levels, points).

    Returns:
        (B, Q, heads · C) in the type of `value`.
    """
    batch, _, heads, channels = value.shape
    kind = torch.promote_types(value.dtype, torch.float32)
    atlas = _Atlas(tuple(shapes), heads)
    rows, corners = atlas.corners(locations.to(kind), weights.to(kind))
    table = atlas.pack(value.detach().to(kind))
    sums = (
        F.embedding_bag(rows, table[distance:], per_sample_weights=corner, mode="sum")
        for distance, corner in zip(atlas.distances, corners, strict=True)
    )
    read = functools.reduce(Tensor.add_, sums)
    if value.requires_grad and torch.is_grad_enabled():
        read = _GradientOfValue.apply(read, value, rows, torch.stack(corners).detach(), atlas)
    return read.view(batch, -1, heads * channels).to(value.dtype)


@dataclass(frozen=True)
class _Atlas:
    """Maps one below the other, with zeros around them, as a table of rows of C channels.

    A cell has a row for each head. Cell (y, x) of a level is `y · pitch + x` after the level's first. A border column
    serves the row of cells before it as well, and a border row the level above.
    """

    shapes: tuple[tuple[int, int], ...]
    heads: int

    @property
    def pitch(self) -> int:
        """Cells from one row of pixels to the next."""
        return max(width for _, width in self.shapes) + 1

    @property
    def tops(self) -> list[int]:
        """The row of pixels where each level begins."""
        return [1 + sum(height + 1 for height, _ in self.shapes[:level]) for level in range(len(self.shapes))]

    @property
    def lines(self) -> int:
        """Rows of pixels, borders included."""
        return 1 + sum(height + 1 for height, _ in self.shapes)

    @property
    def cells(self) -> int:
        """Cells of one element of a batch; the last is a border of its own."""
        return self.lines * self.pitch + 1

    @property
    def distances(self) -> list[int]:
        """Rows of the table from a point's upper left pixel to it and its right, lower, lower right neighbours."""
        return [self.heads * cells for cells in (0, 1, self.pitch, self.pitch + 1)]

    def pack(self, value: Tensor) -> Tensor:
        """(B, L, heads, C) -> the table (B · cells · heads, C)."""
        table = value.new_zeros(len(value), self.cells, *value.shape[2:])
        for place, tokens in zip(self._places(table), value.split(self._pixels(), 1), strict=True):
            place.copy_(tokens.view_as(place))
        return table.view(-1, value.shape[-1])

    def unpack(self, table: Tensor) -> Tensor:
        """The table -> (B, L, heads, C)."""
        places = self._places(table.view(-1, self.cells, self.heads, table.shape[-1]))
        return torch.cat([place.flatten(1, 2) for place in places], 1)

    def _pixels(self) -> list[int]:
        return [height * width for height, width in self.shapes]

    def _places(self, table: Tensor) -> list[Tensor]:
        lines = table[:, :-1].unflatten(1, (self.lines, self.pitch))
        sizes = zip(self.tops, self.shapes, strict=True)
        return [lines[:, top : top + height, 1 : 1 + width] for top, (height, width) in sizes]

    def corners(self, locations: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Where points lie in the table.

        Returns:
            The rows of their upper left pixels, int32, and four weights, in the order of `distances`, all of shape
            (B · Q · heads, levels · points).
        """
        device = locations.device
        heights, widths, tops = (
            torch.tensor(numbers, device=device).repeat_interleave(locations.shape[4])
            for numbers in ([h for h, _ in self.shapes], [w for _, w in self.shapes], self.tops)
        )
        x, right = _between(locations[..., 0].flatten(3), widths)
        y, lower = _between(locations[..., 1].flatten(3), heights)
        first = torch.arange(len(locations), device=device)[:, None] * self.cells * self.heads
        first = (first + torch.arange(self.heads, device=device))[:, None, :, None]
        rows = (y + tops.int()).mul_(self.pitch).add_(x).add_(1).mul_(self.heads).add_(first.int())
        at_right = weights.flatten(3) * right
        at_left = weights.flatten(3) - at_right
        right_lower, left_lower = at_right * lower, at_left * lower
        four = [at_left - left_lower, at_right - right_lower, left_lower, right_lower]
        return rows.flatten(0, 2), [corner.flatten(0, 2) for corner in four]


def _between(positions: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in [0, 1] along an axis of so many pixels -> the pixel before each, int32, and the way to the next."""
    # Up to a pixel beyond the border all is zero, gradient included, so nothing need be read farther out.
    pixels = torch.clamp(positions * sizes - 0.5, -torch.ones_like(sizes), sizes)
    before = torch.minimum(pixels.detach().floor(), sizes - 1)
    return before.nan_to_num(-1.0).int(), pixels - before


class _GradientOfValue(torch.autograd.Function):
    """The sums as they are, with a gradient for `value`, which the table that they were read from does not give."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, value: Tensor, rows: Tensor, corners: Tensor, atlas: _Atlas) -> Tensor:
        ctx.save_for_backward(rows, corners)
        ctx.atlas, ctx.size, ctx.kind = atlas, len(value) * atlas.cells * atlas.heads, value.dtype
        return read.view_as(read)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, corners = ctx.saved_tensors
        gradient = gradient.contiguous()
        in_order, order = rows.flatten().sort(stable=True)
        queries = (order // rows.shape[1]).int()
        table_rows = torch.arange(ctx.size, dtype=torch.int32, device=rows.device)
        starts = torch.searchsorted(in_order, table_rows, out_int32=True)
        table = gradient.new_zeros(ctx.size, gradient.shape[1])
        for distance, corner in zip(ctx.atlas.distances, corners, strict=True):
            ordered = corner.flatten().index_select(0, order)
            found = F.embedding_bag(queries, gradient, starts, per_sample_weights=ordered, mode="sum")
            table[distance:] += found[: ctx.size - distance]
        return gradient, ctx.atlas.unpack(table).to(ctx.kind), None, None, None
