"""Segment Anything, at any size: the published ViT-H, ViT-L and ViT-B, and small weights.

The modules are segment-anything's own, so the published checkpoints load as they are.
Source: Kirillov et al., "Segment Anything" (2023), arXiv 2304.02643; segment-anything, `build_sam.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn


@dataclass(frozen=True)
class SamConfig:
    """The sizes of a SAM.

    Attributes:
        width: channels of the image encoder.
        depth: its blocks.
        heads: its attention heads.
        global_blocks: indices of the blocks with global attention; the others attend within windows.
        image_size: side in pixels that every image is scaled and padded to.
        patch: side of a token in pixels.
        window: side of an attention window in tokens.
        relative: whether attention has relative positions.
        channels: of the image embedding, the prompts and the mask decoder.
        decoder_mlp: hidden width of the mask decoder's MLPs.
        decoder_heads: attention heads of the mask decoder.
        iou_hidden: hidden width of the IoU head.
    """

    width: int
    depth: int
    heads: int
    global_blocks: Sequence[int]
    image_size: int = 1024
    patch: int = 16
    window: int = 14
    relative: bool = True
    channels: int = 256
    decoder_mlp: int = 2048
    decoder_heads: int = 8
    iou_hidden: int = 256


SAM_CONFIGS = {
    "vit_h": SamConfig(1280, 32, 16, (7, 15, 23, 31)),
    "vit_l": SamConfig(1024, 24, 16, (5, 11, 17, 23)),
    "vit_b": SamConfig(768, 12, 12, (2, 5, 8, 11)),
}


def build_sam(config: SamConfig | str) -> Sam:
    """A Sam with random weights, in eval mode and without gradients.

    Args:
        config: the sizes, or a key of SAM_CONFIGS.
    """
    size = SAM_CONFIGS[config] if isinstance(config, str) else config
    grid = size.image_size // size.patch
    encoder = ImageEncoderViT(
        img_size=size.image_size,
        patch_size=size.patch,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        out_chans=size.channels,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=size.relative,
        window_size=size.window,
        global_attn_indexes=tuple(size.global_blocks),
    )
    prompts = PromptEncoder(
        embed_dim=size.channels,
        image_embedding_size=(grid, grid),
        input_image_size=(size.image_size, size.image_size),
        mask_in_chans=16,
    )
    decoder = MaskDecoder(
        transformer_dim=size.channels,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=size.channels, mlp_dim=size.decoder_mlp, num_heads=size.decoder_heads
        ),
        iou_head_hidden_dim=size.iou_hidden,
    )
    sam = Sam(encoder, prompts, decoder)
    return sam.eval().requires_grad_(False)


def matching_configs(path: Path) -> list[str]:
    """The key of SAM_CONFIGS that a checkpoint belongs to, by its name or size; all keys if that is ambiguous."""
    with torch.device("meta"):
        sizes = {name: 4 * sum(p.numel() for p in build_sam(name).parameters()) for name in SAM_CONFIGS}
    size = path.stat().st_size
    fits = [name for name in sizes if name in path.name or 0.95 < size / sizes[name] < 1.05]
    return fits if len(fits) == 1 else list(SAM_CONFIGS)
