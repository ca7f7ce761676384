"""The parts of AVSegFormer's transformer that PyTorch does not have: encoder, query generator, mixer.

Source: Gao et al., "AVSegFormer: Audio-Visual Segmentation with Transformer" (AAAI 2024); AVSegFormer,
`model/utils/{transformer,positional_encoding,fusion_block}.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.deformable_attention import DeformableAttention, Shapes, reference_points


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, normalized after each sum."""

    def __init__(self, channels: int, heads: int, hidden: int, levels: int, dropout: float):
        super().__init__()
        self.self_attn = DeformableAttention(channels, heads, levels)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, reference: Tensor, shapes: Shapes) -> Tensor:
        """tokens (N, L, C), positions (L, C), reference (L, 2) -> (N, L, C). Only the queries see positions."""
        attended = self.self_attn(tokens + positions, tokens, reference, shapes)
        tokens = self.norm1(tokens + self.dropout(attended))
        changed = self.linear2(self.dropout(F.gelu(self.linear1(tokens))))
        return self.norm2(tokens + self.dropout(changed))


class Encoder(nn.Module):
    """Encoder layers over the pixels of several feature maps, each pixel querying from where it is."""

    def __init__(self, layers: int, channels: int, heads: int, hidden: int, levels: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, hidden, levels, dropout) for _ in range(layers))

    def forward(self, tokens: Tensor, positions: Tensor, shapes: Shapes) -> Tensor:
        """tokens (N, L, C), level after level, row by row; positions (L, C) -> (N, L, C)."""
        reference = reference_points(shapes, tokens.device)
        for layer in self.layers:
            tokens = layer(tokens, positions, reference, shapes)
        return tokens


def sine_positions(height: int, width: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Sine encodings of the pixels of a map, row by row: (height · width, channels), first of y, then of x.

    Coordinates count from 1, without normalization.
    """
    half = channels // 2
    exponents = torch.arange(half, device=device).div(2, rounding_mode="floor") * 2 / half
    axes = []
    for size in (height, width):
        angles = torch.arange(1, size + 1, device=device)[:, None] / 10000**exponents
        axes.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], 2).flatten(1))
    y, x = axes
    return torch.cat([y[:, None].expand(-1, width, -1), x.expand(height, -1, -1)], 2).flatten(0, 1)


class QueryLayer(nn.Module):
    """Self-attention, attention to the audio feature, and a feed-forward network, normalized after each sum.

    With one audio feature there is nothing to choose from: its softmax is 1 whatever the query, so it is the value
    that is added. The query and key rows of `cross_attn` have gradient zero, as in the original.
    """

    def __init__(self, channels: int, heads: int, hidden: int):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, heads, bias=False, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(channels, heads, bias=False, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, queries: Tensor, audio: Tensor) -> Tensor:
        """queries (N or 1, Q, C), audio (N, C) -> (N, Q, C)."""
        queries = self.norm1(queries + self.self_attn(queries, queries, queries, need_weights=False)[0])
        _, _, value = self.cross_attn.in_proj_weight.chunk(3)
        queries = self.norm2(queries + self.cross_attn.out_proj(F.linear(audio, value))[:, None])
        return self.norm3(queries + self.ffn(queries))


class QueryGenerator(nn.Module):
    """Audio features -> queries for the decoder. The first self-attention, the same for all frames, runs once."""

    def __init__(self, queries: int, layers: int, channels: int, heads: int, hidden: int):
        super().__init__()
        self.query = nn.Embedding(queries, channels)
        self.layers = nn.ModuleList(QueryLayer(channels, heads, hidden) for _ in range(layers))

    def forward(self, audio: Tensor) -> Tensor:
        """audio (N, C) -> (N, queries, C)."""
        queries = self.query.weight[None]
        for layer in self.layers:
            queries = layer(queries, audio)
        return queries


class Mixer(nn.Module):
    """A gate for each channel of a map, from attention of the audio feature to the map's pixels.

    There is one query, so its key projection is applied to the query and its value projection to the result, instead
    of both to every pixel.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.kv_proj = nn.Linear(channels, 2 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, maps: Tensor, audio: Tensor) -> Tensor:
        """maps (N, C, h, w), audio (N, C) -> gates (N, C) in (0, 1)."""
        width = audio.shape[1] // self.heads
        key, value = self.kv_proj.weight.unflatten(0, (2, self.heads, width))  # (heads, width, C) each
        query = self.q_proj(audio).unflatten(1, (self.heads, width))
        pixels = maps.flatten(2)
        attention = (torch.einsum("nhd,hdc->nhc", query * width**-0.5, key) @ pixels).softmax(-1)
        read = torch.einsum("nhc,hdc->nhd", attention @ pixels.mT, value)
        return self.proj(read.flatten(1)).sigmoid()
