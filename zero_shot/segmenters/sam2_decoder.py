"""The shortcuts of `sam_decoder` for the mask decoder of the SAM 2 family, which is SAM's with three differences.

Its transformer is the same, with other names of the weights. It has one more output token, for whether the object is
visible; its predicted IoU ends in a sigmoid; and its upscaling adds the two finer feature maps.
Source of the computation: transformers, `models/sam2/modeling_sam2.py`, Sam2MaskDecoder.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from segment_anything.modeling import TwoWayTransformer
from torch import Tensor
from torch.nn import functional as F

from zero_shot.segmenters.sam_attention import upsample_tokens
from zero_shot.segmenters.sam_decoder import FastDecoder, SharedImage

LAYERS = 2  # of the transformer that FastDecoder computes
RENAMED = (  # parts of the keys of transformers and of segment-anything
    ("o_proj", "out_proj"),
    ("layer_norm_final_attn", "norm_final_attn"),
    ("layer_norm", "norm"),
    ("proj_in", "lin1"),
    ("proj_out", "lin2"),
)


def shortcuts_hold(decoder: Any) -> bool:
    """Whether FastSam2Decoder computes what a mask decoder of transformers does: it has SAM's two layers."""
    return bool(decoder.config.num_hidden_layers == LAYERS)


class FastSam2Decoder(FastDecoder):
    """`Sam2MaskDecoder` and its like, reordered for many prompts per image.

    Args:
        decoder: of transformers, for which `shortcuts_hold`.
        autocast: makes the context in which it runs, for bf16.
    """

    num_leading_tokens = 1  # whether the object is visible, before the token of the predicted IoU

    def __init__(self, decoder: Any, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        transformer = _share_weights(decoder)
        self._connect(decoder, transformer, autocast)
        leading = [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        self.output_tokens = torch.cat(leading)

    def share_maps(self, image: Tensor, fine: Sequence[Tensor], no_mask: Tensor, positions: Tensor) -> SharedImage:
        """As `share`, with the finer maps (C / 8, 4h, 4w) and (C / 4, 2h, 2w)."""
        h, w = image.shape[1:]
        finest = fine[0].view(-1, h, 2, 2, w, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)  # as upsample_tokens orders pixels
        finer = fine[1].view(-1, h, 2, w, 2).permute(1, 3, 2, 4, 0)
        added = (finer.flatten(0, 3), finest.flatten(0, 5))
        return replace(self.share(image, no_mask, positions), fine=added)

    def upscale(self, image: SharedImage, keys: Tensor) -> Tensor:
        """Implements FastDecoder.upscale."""
        decoder, norm = self.decoder, self.decoder.upscale_layer_norm
        finer = upsample_tokens(decoder.upscale_conv1, keys) + image.fine[0]
        finer = decoder.activation(F.layer_norm(finer, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        result: Tensor = decoder.activation(upsample_tokens(decoder.upscale_conv2, finer) + image.fine[1])
        return result


def _share_weights(decoder: Any) -> TwoWayTransformer:
    """The transformer of a mask decoder as segment-anything's module, with the same tensors."""
    config = decoder.config
    state = decoder.transformer.state_dict()
    for theirs, ours in RENAMED:
        state = {name.replace(theirs, ours): tensor for name, tensor in state.items()}
    with torch.device("meta"):
        transformer = TwoWayTransformer(
            depth=LAYERS,
            embedding_dim=config.hidden_size,
            num_heads=config.num_attention_heads,
            mlp_dim=config.mlp_dim,
            attention_downsample_rate=config.attention_downsample_rate,
        )
    transformer.load_state_dict(state, assign=True)
    return transformer.eval().requires_grad_(False)
