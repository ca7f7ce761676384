"""AVSegFormer's head: four feature maps and an audio feature of each frame -> mask logits.

Source: AVSegFormer, `model/head/AVSegHead.py`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.avsegformer_transformer import Encoder, Mixer, QueryGenerator, sine_positions
from models.deformable_attention import DeformableAttention

LEVELS = 3  # maps that the transformer reads, of strides 8, 16 and 32
GROUPS = 32  # of every group normalization


class AVSegFormerHead(nn.Module):
    """Every frame is segmented alone.

    Args:
        widths: Channels of the four maps, finest first.
        classes: Logit maps.
        channels: Width of the head, a multiple of 32.
        heads: Heads of every attention.
        layers: Layers of the encoder, of the query generator and of the decoder.
        queries: Number of queries.
        hidden: Width inside the feed-forward networks; half of it in the query generator.
        dropout: Share that encoder and decoder drop.
    """

    def __init__(
        self,
        widths: Sequence[int],
        classes: int,
        channels: int,
        heads: int,
        layers: int,
        queries: int,
        hidden: int,
        dropout: float,
    ):
        super().__init__()
        self.in_proj = nn.ModuleList(_projection(width, channels, 1) for width in widths)
        self.level_embed = nn.Parameter(torch.empty(LEVELS, channels))
        self.query_generator = QueryGenerator(queries, layers, channels, heads, hidden // 2)
        self.learnable_query = nn.Embedding(queries, channels)
        self.encoder = Encoder(layers, channels, heads, hidden, LEVELS, dropout)
        layer = nn.TransformerDecoderLayer(channels, heads, hidden, dropout, activation="gelu", batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.lateral_conv = _projection(channels, channels, 1)
        self.out_conv = nn.Sequential(*_projection(channels, channels, 3), nn.ReLU(inplace=True))
        self.mixer = Mixer(channels, heads)
        sizes = [(queries, hidden), (hidden, hidden), (hidden, channels)]
        self.mlp = nn.ModuleList(nn.Conv2d(before, after, 1) for before, after in sizes)
        self.fc = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.Upsample(scale_factor=4, mode="bilinear"),
            nn.Conv2d(channels // 2, channels // 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 8, classes, 1, bias=False),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for all but vectors, which keep PyTorch's values; deformable attention by its own rule."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()
        nn.init.normal_(self.level_embed)

    def forward(self, maps: Sequence[Tensor], audio: Tensor) -> tuple[Tensor, Tensor]:
        """Segment frames.

        Args:
            maps: Four maps (N, widths, ·, ·) of strides 4, 8, 16 and 32.
            audio: (N, channels).

        Returns:
            Logits (N, classes, H, W) and the mask feature (N, channels, H/4, W/4), which the mix loss needs.
        """
        finest, *coarser = (project(raw) for project, raw in zip(self.in_proj, maps, strict=True))
        memory = self._encode(coarser)
        decoded = self.decoder(self.query_generator(audio) + self.learnable_query.weight, memory)
        height, width = coarser[0].shape[-2:]
        stride8 = memory[:, : height * width].mT.unflatten(2, (height, width))
        stride4 = F.interpolate(stride8, finest.shape[-2:], mode="bilinear")
        feature = self.out_conv(self.lateral_conv(finest) + stride4)
        feature = feature * self.mixer(feature, audio)[:, :, None, None]
        return self.fc(feature + self._mix_queries(decoded, feature)), feature

    def _encode(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of strides 8, 16 and 32 -> all their pixels (N, L, C)."""
        shapes = [(level.shape[-2], level.shape[-1]) for level in maps]
        tokens = torch.cat([level.flatten(2).mT for level in maps], 1)
        positions = [
            sine_positions(*shape, tokens.shape[-1], tokens.device) + embedding
            for shape, embedding in zip(shapes, self.level_embed, strict=True)
        ]
        return self.encoder(tokens, torch.cat(positions).to(tokens.dtype), shapes)

    def _mix_queries(self, decoded: Tensor, feature: Tensor) -> Tensor:
        """The MLP on each pixel's products with the queries (N, Q, C) -> (N, C, h, w).

        Its first layer and the queries are one matrix a frame, so the map of products need not exist.
        """
        first, second, third = self.mlp
        assert isinstance(first, nn.Conv2d) and first.bias is not None
        matrix = first.weight.flatten(1) @ decoded
        hidden = torch.baddbmm(first.bias[:, None], matrix, feature.flatten(2)).relu_()
        return third(second(hidden.unflatten(2, feature.shape[-2:])).relu_())


def _projection(before: int, after: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.GroupNorm(GROUPS, after))
