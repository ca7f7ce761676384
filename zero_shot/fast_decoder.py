"""SAM's mask decoder for many prompts of one image: same numbers but for rounding, a fraction of the work.

Source of the computation: segment-anything, `modeling/mask_decoder.py` and `modeling/transformer.py`. Three things
make it cheap:

* What does not depend on the prompt is computed once for the image: in the first layer the image tokens are still
  the same for all prompts, and with them their keys, values and queries.
* The image has thousands of tokens and a prompt about seven, so whatever multiplies all image tokens is multiplied
  into the few prompt tokens instead: q·(W k) = (q W)·k, and A (k W) = (A k) W.
* The predicted IoU needs one output token. Masks are made, one by one, for the prompts that ask for them.
"""

from dataclasses import dataclass

import torch
from segment_anything.modeling import MaskDecoder
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SharedImage:
    """What all prompts of an image share. T image tokens of C channels; H heads of d channels in layer 0.

    keys, positions: (T, C). head_keys, head_values, head_queries: (H, T, d), layer 0. grid: rows and columns of T.
    """

    keys: Tensor
    positions: Tensor
    head_keys: Tensor
    head_values: Tensor
    head_queries: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Decoded:
    """P prompts before the last attention. iou: (P, 4), predicted, the first for the single mask.

    queries, prompts: (P, N, C) tokens, the latter before the first layer. keys: (P, T, C).
    """

    iou: Tensor
    queries: Tensor
    prompts: Tensor
    keys: Tensor


class FastDecoder:
    """`MaskDecoder` with the work ordered for many prompts an image."""

    def __init__(self, decoder: MaskDecoder) -> None:
        self.decoder = decoder
        self.layers: list[TwoWayAttentionBlock] = list(decoder.transformer.layers)
        self.last: Attention = decoder.transformer.final_attn_token_to_image

    def share(self, image: Tensor, no_mask: Tensor, positions: Tensor) -> SharedImage:
        """image: (C, h, w) embedding. no_mask: (C,), the embedding of no mask prompt. positions: (1, C, h, w)."""
        keys = image.flatten(1).T + no_mask
        where = positions[0].flatten(1).T
        to_image, to_tokens = self.layers[0].cross_attn_token_to_image, self.layers[0].cross_attn_image_to_token
        return SharedImage(
            keys,
            where,
            _heads(to_image.k_proj(keys + where), to_image),
            _heads(to_image.v_proj(keys), to_image),
            _heads(to_tokens.q_proj(keys + where), to_tokens),
            (image.shape[1], image.shape[2]),
        )

    def decode(self, image: SharedImage, sparse: Tensor) -> Decoded:
        """Everything that the predicted IoU needs. sparse: (P, n, C), the encoded points and boxes of P prompts."""
        outputs = torch.cat([self.decoder.iou_token.weight, self.decoder.mask_tokens.weight])
        prompts = torch.cat([outputs.expand(len(sparse), -1, -1), sparse], dim=1)
        queries, keys = prompts, image.keys
        for number, layer in enumerate(self.layers):
            if number == 0:
                queries = layer.norm1(layer.self_attn(queries, queries, queries))
                attended = _tokens_to_shared(layer.cross_attn_token_to_image, queries + prompts, image)
            else:
                placed = queries + prompts
                queries = layer.norm1(queries + layer.self_attn(placed, placed, queries))
                placed_keys = keys + image.positions
                attended = _tokens_to_image(layer.cross_attn_token_to_image, queries + prompts, placed_keys, keys)
            queries = layer.norm2(queries + attended)
            queries = layer.norm3(queries + layer.mlp(queries))
            back = layer.cross_attn_image_to_token
            if number == 0:
                weights = _shared_to_tokens(back, queries + prompts, image)
            else:
                weights = _image_to_tokens(back, queries + prompts, placed_keys)
            keys = layer.norm4(_add_attended(keys, back, weights, queries))
        first = self._last(queries[:, :1], prompts[:, :1], keys, image.positions)
        return Decoded(self.decoder.iou_prediction_head(first[:, 0]), queries, prompts, keys)

    def masks(self, image: SharedImage, decoded: Decoded, prompt: Tensor, kind: Tensor) -> Tensor:
        """Low-resolution logits, (M, 4h, 4w): of mask kind[m], 0 to 3, of prompt[m], an index into `decoded`.

        Prompts must be in ascending order.
        """
        chosen, which = torch.unique_consecutive(prompt, return_inverse=True)
        keys, tokens = decoded.keys[chosen], slice(1, 1 + self.decoder.num_mask_tokens)
        queries = self._last(decoded.queries[chosen, tokens], decoded.prompts[chosen, tokens], keys, image.positions)
        mlps = self.decoder.output_hypernetworks_mlps
        weights = torch.stack([mlp(queries[:, i]) for i, mlp in enumerate(mlps)], dim=1)  # (S, 4, C / 8)
        first, norm, activate, second, activate_again = self.decoder.output_upscaling
        fine = activate(F.layer_norm(_double(first, keys), (norm.weight.numel(),), norm.weight, norm.bias, norm.eps))
        fine = activate_again(_double(second, fine))  # (S, 16 T, C / 8)
        logits = (weights @ fine.transpose(1, 2))[which, kind]
        # A token's 16 pixels come as 2×2 blocks of 2×2 pixels.
        h, w = image.grid
        return logits.view(-1, h, w, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * h, 4 * w)

    def _last(self, queries: Tensor, prompts: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        attended = _tokens_to_image(self.last, queries + prompts, keys + positions, keys)
        return self.decoder.transformer.norm_final_attn(queries + attended)


def _heads(x: Tensor, attention: Attention) -> Tensor:
    """(T, H·d) to (H, T, d)."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1).contiguous()


def _scale(attention: Attention) -> float:
    return float((attention.internal_dim / attention.num_heads) ** -0.5)


def _fold(x: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Each head of x (P, N, H·d) times its rows of `weight` (H·d, C): (P, H·N, C)."""
    return torch.einsum("pnhd,hdc->phnc", x.unflatten(-1, (heads, -1)), weight.unflatten(0, (heads, -1))).flatten(1, 2)


def _tokens_to_shared(attention: Attention, queries: Tensor, image: SharedImage) -> Tensor:
    """Prompt tokens (P, N, C) attend to the image tokens that all prompts share: (P, N, C)."""
    q = _heads(attention.q_proj(queries).flatten(0, 1), attention)
    out = F.scaled_dot_product_attention(q[None], image.head_keys[None], image.head_values[None])
    return attention.out_proj(out[0].transpose(0, 1).reshape(*queries.shape[:2], -1))


def _tokens_to_image(attention: Attention, queries: Tensor, placed_keys: Tensor, keys: Tensor) -> Tensor:
    """Prompt tokens (P, N, C) attend to their own image tokens (P, T, C): (P, N, C).

    The bias of k_proj shifts all scores of a query alike and so drops out of the softmax.
    """
    heads = attention.num_heads
    folded = _fold(attention.q_proj(queries) * _scale(attention), attention.k_proj.weight, heads)
    mixed = (folded @ placed_keys.transpose(1, 2)).softmax(-1) @ keys  # (P, H·N, C)
    values = attention.v_proj.weight.unflatten(0, (heads, -1))
    out = torch.einsum("phnc,hdc->pnhd", mixed.unflatten(1, (heads, -1)), values).flatten(2)
    return attention.out_proj(out + attention.v_proj.bias)


def _shared_to_tokens(attention: Attention, placed: Tensor, image: SharedImage) -> Tensor:
    """Attention weights (P, H·N, T) of the shared image tokens over each prompt's N tokens."""
    count, n = placed.shape[:2]
    k = _heads(attention.k_proj(placed).flatten(0, 1) * _scale(attention), attention)  # (H, P·N, d)
    scores = k @ image.head_queries.transpose(1, 2)
    return scores.unflatten(1, (count, n)).transpose(0, 1).softmax(2).reshape(count, -1, scores.shape[-1])


def _image_to_tokens(attention: Attention, placed: Tensor, placed_keys: Tensor) -> Tensor:
    """Attention weights (P, H·N, T) of a prompt's own image tokens over its N tokens."""
    heads = attention.num_heads
    k = attention.k_proj(placed) * _scale(attention)
    bias = _fold(k, attention.q_proj.bias[:, None], heads)
    scores = torch.baddbmm(bias, _fold(k, attention.q_proj.weight, heads), placed_keys.transpose(1, 2))
    return scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)


def _add_attended(keys: Tensor, attention: Attention, weights: Tensor, queries: Tensor) -> Tensor:
    """keys, (T, C) or (P, T, C), plus what they attended to: (P, T, C)."""
    heads = attention.num_heads
    values = _fold(attention.v_proj(queries), attention.out_proj.weight.T, heads)
    values = values + attention.out_proj.bias / heads  # each head's weights sum to one
    return torch.baddbmm(keys.expand(len(weights), -1, -1), weights.transpose(1, 2), values)


def _double(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A transposed convolution of kernel and stride 2 on (S, T, C): each token becomes 2×2 in a row, (S, 4 T, C')."""
    assert layer.bias is not None
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 C', C)
    return F.linear(x, weight, layer.bias.repeat(4)).unflatten(-1, (4, -1)).flatten(1, 2)
