"""CLIP's ResNet with the feature maps of its stages and an embedding of every location.

The modules are open_clip's. Dense embeddings follow SAM4AVS (BMVC 2023) and, with ``surgery``, Li et al., "CLIP
Surgery" (2023).
"""

import math
from collections.abc import Sequence

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor
from torch.nn import functional as F


class DenseAttentionPool(AttentionPool2d):
    """CLIP's attention pool with embeddings of every location in addition to that of the mean token."""

    def forward(self, x: Tensor) -> Tensor:
        """Pooled embedding (N, output_dim) of a feature map (N, C, h, w)."""
        return self._attend(x, queries=1)[:, 0]

    def dense(self, x: Tensor, surgery: bool = False) -> tuple[Tensor, Tensor]:
        """Embedding of every location (N, output_dim, h, w) and pooled embedding (N, output_dim)."""
        tokens = self._attend(x, surgery=surgery)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, x.shape[2:]), tokens[:, 0]

    def _attend(self, x: Tensor, queries: int | None = None, surgery: bool = False) -> Tensor:
        """Attention output of the first ``queries`` of the 1 + h·w tokens (all if None)."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((tokens.mean(dim=1, keepdim=True), tokens), dim=1)
        tokens = tokens + self._positions(x.shape[2], x.shape[3]).to(x.dtype)

        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        value = heads(self.v_proj(tokens))
        # CLIP Surgery: value-value attention, for the mean token as well.
        key = value if surgery else heads(self.k_proj(tokens))
        query = value[:, :, :queries] if surgery else heads(self.q_proj(tokens[:, :queries]))
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.c_proj(attended.transpose(1, 2).flatten(2))

    def _positions(self, height: int, width: int) -> Tensor:
        """Position embeddings (1 + height·width, C), resized bilinearly for another grid than in training."""
        side = math.isqrt(len(self.positional_embedding) - 1)
        if (height, width) == (side, side):
            return self.positional_embedding
        mean, grid = self.positional_embedding[:1], self.positional_embedding[1:]
        grid = grid.T.unflatten(1, (side, side)).unsqueeze(0)
        grid = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
        return torch.cat((mean, grid[0].flatten(1).T))


class DenseResNet(ModifiedResNet):
    """CLIP's ResNet with four feature maps and the dense attention pool."""

    def __init__(self, layers: Sequence[int], output_dim: int, heads: int, image_size: int, width: int) -> None:
        super().__init__(list(layers), output_dim, heads, image_size, width)
        self.attnpool = DenseAttentionPool(image_size // 32, width * 32, heads, output_dim)
        self.init_parameters()

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Feature maps of the four stages for images (N, 3, H, W), at strides 4, 8, 16 and 32."""
        maps = [self.layer1(self.stem(x))]
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps
