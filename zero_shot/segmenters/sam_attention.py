"""The attention of SAM's mask decoder with weights multiplied into the prompt tokens; see `sam_decoder`."""

import torch
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


def split_heads(x: Tensor, attention: Attention) -> Tensor:
    """(T, H·d) to (H, T, d)."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1).contiguous()


def attention_scale(attention: Attention) -> float:
    """The factor of the scores, 1 / sqrt(d)."""
    return float((attention.internal_dim / attention.num_heads) ** -0.5)


def apply_mlp(layer: TwoWayAttentionBlock, queries: Tensor) -> Tensor:
    """The MLP of a layer with its residual connection and norm, on prompt tokens (P, N, C)."""
    result: Tensor = layer.norm3(queries + layer.mlp(queries))
    return result


def fold_weight(x: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Each head of x (P, N, H·d) times its rows of `weight` (H·d, C): (P, H·N, C)."""
    return torch.einsum("pnhd,hdc->phnc", x.unflatten(-1, (heads, -1)), weight.unflatten(0, (heads, -1))).flatten(1, 2)


def attend_to_image(
    attention: Attention,
    queries: Tensor,
    keys: Tensor,
    positions: Tensor | None = None,
    keys_with_positions: Tensor | None = None,
) -> Tensor:
    """Attention of prompt tokens to image tokens.

    The bias of k_proj shifts all scores of a query equally and so has no effect on the softmax.

    Args:
        attention: the layer.
        queries: prompt tokens (P, N, C).
        keys: image tokens (P, T, C).
        positions: their positional encoding (T, C), unless their sum is given.
        keys_with_positions: keys + positions (P, T, C), if already computed.

    Returns:
        (P, N, C).
    """
    heads = attention.num_heads
    folded = fold_weight(attention.q_proj(queries) * attention_scale(attention), attention.k_proj.weight, heads)
    if keys_with_positions is None:
        assert positions is not None
        scores = folded @ keys.transpose(1, 2) + folded @ positions.T
    else:
        scores = folded @ keys_with_positions.transpose(1, 2)
    mixed = scores.softmax(-1) @ keys  # (P, H·N, C)
    values = attention.v_proj.weight.unflatten(0, (heads, -1))
    out = torch.einsum("phnc,hdc->pnhd", mixed.unflatten(1, (heads, -1)), values).flatten(2)
    result: Tensor = attention.out_proj(out + attention.v_proj.bias)
    return result


def attend_to_tokens(keys: Tensor, attention: Attention, weights: Tensor, queries: Tensor) -> Tensor:
    """Image tokens plus their attention to prompt tokens.

    Args:
        keys: image tokens (T, C) or (P, T, C); the latter may be overwritten.
        attention: the layer.
        weights: softmax of the scores (P, H·N, T).
        queries: prompt tokens (P, N, C).

    Returns:
        (P, T, C).
    """
    values = fold_weight(attention.v_proj(queries), attention.out_proj.weight.T, attention.num_heads)
    values = values + attention.out_proj.bias / attention.num_heads  # each head's weights sum to one
    weights = weights.transpose(1, 2)
    if not keys.dtype == weights.dtype == values.dtype:
        return keys + weights @ values  # under autocast the sum stays in float32
    if keys.dim() == 3:
        return keys.baddbmm_(weights, values)
    return torch.baddbmm(keys.expand(len(weights), -1, -1), weights, values)


def upsample_tokens(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A transposed convolution of kernel and stride 2 on (S, T, C): each token becomes 2×2 in a row, (S, 4 T, C')."""
    assert layer.bias is not None
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 C', C)
    return F.linear(x, weight, layer.bias.repeat(4)).unflatten(-1, (4, -1)).flatten(1, 2)
