"""Implementations of one layer of deformable attention, forward and backward, with random weights."""

from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import reference.deformable_attention
from benchmarks.harness import Output, Work
from models.deformable_attention import DeformableAttention, reference_points

HEADS = 8


def _work(build: Callable[[list[tuple[int, int]], int], tuple[nn.Module, Callable]], side: int, channels: int) -> Work:
    """Self-attention over the pixels of three square maps, of `side`, half and a quarter of it."""
    torch.manual_seed(0)
    shapes = [(side >> level, side >> level) for level in range(3)]
    module, attend = build(shapes, channels)
    size = (1, sum(height * width for height, width in shapes), channels)
    query, tokens = (torch.randn(size).requires_grad_() for _ in range(2))
    gradient = torch.randn(size)

    def work() -> Output:
        module.zero_grad()
        query.grad = tokens.grad = None
        out = attend(query, tokens)
        out.backward(gradient)
        # Norms only: at a pixel's edge the gradient of a sampling point depends on rounding.
        norms = [x.grad.norm().item() for x in (query, *module.parameters()) if x.grad is not None]
        assert tokens.grad is not None
        return {"out": out.detach().numpy(), "tokens": tokens.grad.numpy(), "gradients": np.array(norms)}

    return work


def _deformable(shapes: list[tuple[int, int]], channels: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    module = DeformableAttention(channels, HEADS)
    for layer in (
        module.sampling_offsets,
        module.attention_weights,
    ):  # all points of a head coincide at first
        nn.init.normal_(layer.weight, std=channels**-0.5)
    points = reference_points(shapes)
    return module, lambda query, tokens: module(query, tokens, points, shapes)


def _dense(shapes: list[tuple[int, int]], channels: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    module = nn.MultiheadAttention(channels, HEADS, batch_first=True)
    return module, lambda query, tokens: module(query, query, tokens, need_weights=False)[0]


def _cost(work: Work) -> Work:
    """The same work, of whose output only the size is compared."""

    def sized_work() -> Output:
        output = work()
        assert not callable(output)
        return {"size": np.array([output["out"].size])}

    return sized_work


def deformable_reference(side: int, channels: int) -> Work:
    """`grid_sample` on each level, with all samples in memory."""
    work = _work(_deformable, side, channels)

    def patched() -> Output | Callable[[], Output]:
        with mock.patch(
            "models.deformable_attention.deformable_attention", reference.deformable_attention.deformable_attention
        ):
            return work()

    return patched


def deformable_optimized(side: int, channels: int) -> Work:
    """Four calls of `embedding_bag` on one table."""
    return _work(_deformable, side, channels)


def dense(side: int, channels: int) -> Work:
    """Every pixel attends to every pixel, by PyTorch's fused attention."""
    return _cost(_work(_dense, side, channels))


def deformable_cost(side: int, channels: int) -> Work:
    """As `deformable_optimized`."""
    return _cost(deformable_optimized(side, channels))
