"""SAM's mask decoder for many prompts of one image: equal up to rounding, at a fraction of the cost.

Source of the computation: segment-anything, `modeling/mask_decoder.py` and `modeling/transformer.py`. Three changes
make it cheaper:

* What does not depend on the prompt is computed once per image: in the first layer the image tokens, and so their
  keys, values and queries, are the same for all prompts.
* An image has thousands of tokens and a prompt about seven, so weights are multiplied into the prompt tokens rather
  than the image tokens: q·(W k) = (q W)·k, and A (k W) = (A k) W.
* The predicted IoU needs one output token. Masks are computed only for the prompts that need them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from zero_shot.segmenters.sam_attention import (
    apply_mlp,
    attend_to_image,
    attend_to_tokens,
    attention_scale,
    fold_weight,
    split_heads,
    upsample_tokens,
)

PROMPTS_PER_CHUNK = 256  # prompts whose tokens are processed together before image tokens are involved


@dataclass(frozen=True)
class SharedImage:
    """What all prompts of an image share: T image tokens of C channels; H heads of d channels in the first layer.

    Attributes:
        keys: image tokens (T, C).
        positions: their positional encoding (T, C).
        head_keys: (H, T, d), of the attention of prompt tokens to image tokens.
        head_values: (H, T, d), of the same.
        head_queries: (H, T, d), of the attention of image tokens to prompt tokens.
        grid: rows and columns of the T tokens.
        fine: what the upscaling adds, in SAM 2: (4 T, C / 4) and (16 T, C / 8).
    """

    keys: Tensor
    positions: Tensor
    head_keys: Tensor
    head_values: Tensor
    head_queries: Tensor
    grid: tuple[int, int]
    fine: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """P prompts before the last attention layer.

    Attributes:
        first: index of the first prompt.
        iou: predicted IoU (P, 4) float32; the first is that of the single mask.
        prompts: prompt tokens (P, N, C) at the input.
        queries: prompt tokens (P, N, C) at this point.
        keys: image tokens (P, T, C) at this point.
    """

    first: int
    iou: Tensor
    prompts: Tensor
    queries: Tensor
    keys: Tensor


class FastDecoder:
    """`MaskDecoder`, reordered for many prompts per image.

    Args:
        decoder: SAM's mask decoder.
        autocast: makes the context in which it runs, for bf16.
    """

    num_leading_tokens = 0  # output tokens before that of the predicted IoU

    def __init__(self, decoder: MaskDecoder, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._connect(decoder, decoder.transformer, autocast)
        self.output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])

    def _connect(
        self, decoder: Any, transformer: TwoWayTransformer, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self.decoder, self.transformer, self.autocast = decoder, transformer, autocast
        layers: list[TwoWayAttentionBlock] = list(transformer.layers)
        self.first, self.second = layers
        self.last: Attention = transformer.final_attn_token_to_image

    def share(self, image: Tensor, no_mask: Tensor, positions: Tensor) -> SharedImage:
        """Compute what all prompts of an image share.

        Args:
            image: embedding (C, h, w).
            no_mask: (C,), the embedding that stands for the absence of a mask prompt.
            positions: positional encoding (1, C, h, w).
        """
        keys = (image.flatten(1).T + no_mask).contiguous()
        where = positions[0].flatten(1).T.contiguous()
        to_image, to_tokens = self.first.cross_attn_token_to_image, self.first.cross_attn_image_to_token
        with self.autocast():
            return SharedImage(
                keys,
                where,
                split_heads(to_image.k_proj(keys + where), to_image),
                split_heads(to_image.v_proj(keys), to_image),
                split_heads(to_tokens.q_proj(keys + where), to_tokens),
                (image.shape[1], image.shape[2]),
            )

    def decode(self, image: SharedImage, sparse: Tensor, batch: int) -> Iterator[Decoded]:
        """Run the decoder up to the predicted IoU.

        Args:
            image: by `share`.
            sparse: encoded points or boxes (P, n, C).
            batch: prompts at a time.
        """
        for start, few in zip(range(0, len(sparse), PROMPTS_PER_CHUNK), sparse.split(PROMPTS_PER_CHUNK), strict=True):
            prompts = torch.cat([self.output_tokens.expand(len(few), -1, -1), few], dim=1)
            with self.autocast():
                one, two = self._own_tokens(image, prompts)
            for first in range(0, len(few), batch):
                part = slice(first, first + batch)
                with self.autocast():
                    iou, queries, keys = self._image_tokens(image, prompts[part], one[part], two[part])
                yield Decoded(start + first, iou.float(), prompts[part], queries, keys)

    def _own_tokens(self, image: SharedImage, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt tokens (P, N, C) after the first layer, and after the self-attention of the second."""
        one, two = self.first, self.second
        queries = one.norm1(one.self_attn(prompts, prompts, prompts))
        attention = one.cross_attn_token_to_image
        q = split_heads(attention.q_proj(queries + prompts).flatten(0, 1), attention)[None]
        out = F.scaled_dot_product_attention(q, image.head_keys[None], image.head_values[None])
        attended = attention.out_proj(out[0].transpose(0, 1).reshape(*queries.shape[:2], -1))
        queries = apply_mlp(one, one.norm2(queries + attended))
        placed = queries + prompts
        return queries, two.norm1(queries + two.self_attn(placed, placed, queries))

    def _image_tokens(
        self, image: SharedImage, prompts: Tensor, one: Tensor, two: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted IoU (P, 4), prompt tokens (P, N, C) and image tokens (P, T, C) from `_own_tokens`' (P, N, C)."""
        back = self.first.cross_attn_image_to_token
        k = split_heads(back.k_proj(one + prompts).flatten(0, 1) * attention_scale(back), back)  # (H, P·N, d)
        scores = (k @ image.head_queries.transpose(1, 2)).unflatten(1, prompts.shape[:2]).transpose(0, 1)
        keys = self.first.norm4(attend_to_tokens(image.keys, back, scores.softmax(2).flatten(1, 2), one))

        placed = keys + image.positions
        attended = attend_to_image(
            self.second.cross_attn_token_to_image, two + prompts, keys, keys_with_positions=placed
        )
        queries = apply_mlp(self.second, self.second.norm2(two + attended))
        back = self.second.cross_attn_image_to_token
        k = back.k_proj(queries + prompts) * attention_scale(back)
        bias = fold_weight(k, back.q_proj.bias[:, None], back.num_heads)
        scores = bias + fold_weight(k, back.q_proj.weight, back.num_heads) @ placed.transpose(1, 2)
        weights = scores.unflatten(1, (back.num_heads, -1)).softmax(2).flatten(1, 2)
        keys = self.second.norm4(attend_to_tokens(keys, back, weights, queries))

        token = slice(self.num_leading_tokens, self.num_leading_tokens + 1)
        iou = self._last(image, queries[:, token], prompts[:, token], keys)[:, 0]
        return self.decoder.iou_prediction_head(iou), queries, keys

    def masks(self, image: SharedImage, decoded: Decoded, prompts: Tensor, outputs: Tensor) -> Tensor:
        """Compute M masks.

        Args:
            image: by `share`.
            decoded: a batch of prompts, by `decode`.
            prompts: (M,) indices into `decoded`, ascending.
            outputs: (M,) which of the prompt's four masks, 0 to 3.

        Returns:
            Low-resolution logits (M, 4h, 4w) float32.
        """
        chosen, inverse = torch.unique_consecutive(prompts, return_inverse=True)
        first = self.num_leading_tokens + 1
        tokens = slice(first, first + self.decoder.num_mask_tokens)
        keys, mlps = decoded.keys[chosen], self.decoder.output_hypernetworks_mlps
        with self.autocast():
            queries = self._last(image, decoded.queries[chosen, tokens], decoded.prompts[chosen, tokens], keys)
            weights = torch.stack([mlp(queries[:, i]) for i, mlp in enumerate(mlps)], dim=1)  # (S, 4, C / 8)
            logits = (weights @ self.upscale(image, keys).transpose(1, 2))[inverse, outputs].float()
        # The 16 pixels of a token are 2×2 blocks of 2×2 pixels.
        h, w = image.grid
        return logits.view(-1, h, w, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * h, 4 * w)

    def upscale(self, image: SharedImage, keys: Tensor) -> Tensor:
        """Image tokens (S, T, C) as pixels (S, 16 T, C / 8)."""
        first, norm, activate, second, activate_again = self.decoder.output_upscaling
        fine = F.layer_norm(upsample_tokens(first, keys), norm.weight.shape, norm.weight, norm.bias, norm.eps)
        result: Tensor = activate_again(upsample_tokens(second, activate(fine)))
        return result

    def _last(self, image: SharedImage, queries: Tensor, prompts: Tensor, keys: Tensor) -> Tensor:
        attended = attend_to_image(self.last, queries + prompts, keys, image.positions)
        norm: nn.LayerNorm = self.transformer.norm_final_attn
        return norm(queries + attended)
