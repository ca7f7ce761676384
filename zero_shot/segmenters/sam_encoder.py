"""SAM's image encoder without materialized attention matrices: equal up to rounding, with less time and memory.

The attention matrix of a global block of ViT-B, 4096 × 4096 tokens in 12 heads, takes 0.8 GB in float32, and the
original encoder traverses it five times. Here PyTorch's fused attention takes the relative positions as a bias, a few
rows at a time. Source of the computation: segment-anything, `modeling/image_encoder.py`.
"""

from collections.abc import Callable

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import (
    Attention,
    Block,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch import Tensor
from torch.nn import functional as F

BIAS_CHUNK_BYTES = 4 * 2**20  # of bias computed at once on a CPU: the size of its caches
# Elements: CUDA's memory-efficient kernel copies a bias whose rows do not start at multiples of this.
BIAS_ALIGNMENT = 8
MAX_HEADS = 2**15  # at once: they become one dimension of a CUDA grid, which is limited to 65,535

EncodeBlock = Callable[[Block, Tensor, int], Tensor]


def encode(encoder: ImageEncoderViT, images: Tensor, memory: int, block_fn: EncodeBlock | None = None) -> Tensor:
    """Encode images.

    Args:
        encoder: SAM's image encoder; gradients must be disabled, because biases are written in place.
        images: (B, 3, S, S), normalized and padded.
        memory: of the bias, in bytes.
        block_fn: `encode_block` (the default) or a compiled one.

    Returns:
        Embeddings (B, C, h, w).
    """
    x = encoder.patch_embed(images)
    if encoder.pos_embed is not None:
        x = x + encoder.pos_embed
    for block in encoder.blocks:
        x = (block_fn or encode_block)(block, x, memory)
    out: Tensor = encoder.neck(x.permute(0, 3, 1, 2))
    return out


def compiled_block(backend: str = "inductor") -> EncodeBlock:
    """`encode_block` compiled by torch.compile: once for blocks with windows and once for those without."""
    compiled: EncodeBlock = torch.compile(encode_block, backend=backend)
    return compiled


def encode_block(block: Block, x: Tensor, memory: int) -> Tensor:
    """Apply one block to tokens (B, h, w, C); `memory` in bytes for the bias."""
    if block.window_size > 0:
        windows, padded = window_partition(block.norm1(x), block.window_size)
        attended = _attend(block.attn, windows, memory)
        x = x + window_unpartition(attended, block.window_size, padded, (x.shape[1], x.shape[2]))
    else:
        x = x + _attend(block.attn, block.norm1(x), memory)
    return x + block.mlp(block.norm2(x))


def _attend(attention: Attention, x: Tensor, memory: int) -> Tensor:
    """Self-attention within each map of x, (B, H, W, C)."""
    maps, height, width, _ = x.shape
    heads = attention.num_heads
    qkv = attention.qkv(x).reshape(maps, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.flatten(1, 2).unbind(0)  # (B·heads, H·W, d)
    if attention.use_rel_pos:
        out = _attend_with_relative_position(attention, q, k, v, (height, width), memory)
    else:
        out = F.scaled_dot_product_attention(q[None], k[None], v[None])
    attended = out.view(maps, heads, height * width, -1).transpose(1, 2).reshape(maps, height, width, -1)
    result: Tensor = attention.proj(attended)
    return result


def _attend_with_relative_position(
    attention: Attention, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int], memory: int
) -> Tensor:
    """The same with relative positions: the bias is computed for a few heads and rows of queries at a time."""
    height, width = size
    count, tokens, _ = q.shape
    grid = q.unflatten(1, size)
    vertical = torch.einsum("nhwd,hkd->nhwk", grid, get_rel_pos(height, height, attention.rel_pos_h))
    horizontal = torch.einsum("nhwd,wkd->nhwk", grid, get_rel_pos(width, width, attention.rel_pos_w))
    budget = memory if q.is_cuda else min(memory, BIAS_CHUNK_BYTES)
    row = vertical.element_size() * width * tokens
    rows = min(height, max(1, budget // row))
    heads = min(MAX_HEADS, max(1, budget // (row * rows)))
    out = torch.empty_like(q)
    for first in range(0, count, heads):
        head_slice = slice(first, first + heads)
        for y in range(0, height, rows):
            bias = relative_position_bias(vertical[head_slice, y : y + rows], horizontal[head_slice, y : y + rows])
            tokens_slice = slice(y * width, (y + rows) * width)
            out[head_slice, tokens_slice] = F.scaled_dot_product_attention(
                q[None, head_slice, tokens_slice], k[None, head_slice], v[None, head_slice], attn_mask=bias[None]
            )[0]
    return out


def relative_position_bias(vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Sum of the vertical (n, h, w, H) and horizontal (n, h, w, W) bias of h·w queries and H·W keys, (n, h·w, H·W)."""
    if torch.compiler.is_compiling():  # the compiler chooses the layout, and does not support `out`
        return (vertical[..., None] + horizontal[..., None, :]).flatten(3).flatten(1, 2)
    height, width = vertical.shape[-1], horizontal.shape[-1]
    row = -(-height * width // BIAS_ALIGNMENT) * BIAS_ALIGNMENT
    bias = vertical.new_empty(*vertical.shape[:3], row)[..., : height * width]
    torch.add(vertical[..., None], horizontal[..., None, :], out=bias.unflatten(-1, (height, width)))
    return bias.flatten(1, 2)
