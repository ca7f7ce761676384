"""Contestants: one layer of deformable attention, forward and backward, with random weights."""

from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Output, Work
from models.deformable_attention import DeformableAttention, reference_points
from reference import deformable_attention as textbook

HEADS = 8


def _work(build: Callable[[list[tuple[int, int]], int], tuple[nn.Module, Callable]], side: int, channels: int) -> Work:
    """The pixels of square maps of `side`, half and a quarter of it attend to each other."""
    torch.manual_seed(0)
    shapes = [(side >> level, side >> level) for level in range(3)]
    module, attend = build(shapes, channels)
    size = (1, sum(height * width for height, width in shapes), channels)
    query, tokens = (torch.randn(size).requires_grad_() for _ in range(2))
    direction = torch.randn(size)

    def work() -> Output:
        module.zero_grad()
        query.grad = tokens.grad = None
        out = attend(query, tokens)
        out.backward(direction)
        # Norms, for a point on the edge of a pixel has one gradient or the other as it is rounded.
        norms = [x.grad.norm().item() for x in (query, *module.parameters()) if x.grad is not None]
        assert tokens.grad is not None
        return {"out": out.detach().numpy(), "tokens": tokens.grad.numpy(), "gradients": np.array(norms)}

    return work


def _deformable(shapes: list[tuple[int, int]], channels: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    module = DeformableAttention(channels, HEADS)
    for layer in (module.sampling_offsets, module.attention_weights):  # all points of a head are alike at first
        nn.init.normal_(layer.weight, std=channels**-0.5)
    reference = reference_points(shapes)
    return module, lambda query, tokens: module(query, tokens, reference, shapes)


def _dense(shapes: list[tuple[int, int]], channels: int) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    module = nn.MultiheadAttention(channels, HEADS, batch_first=True)
    return module, lambda query, tokens: module(query, query, tokens, need_weights=False)[0]


def _cost(work: Work) -> Work:
    """The same work, of which only the number of results is compared."""

    def only() -> Output:
        output = work()
        assert not callable(output)
        return {"results": np.array([output["out"].size])}

    return only


def deformable_plain(side: int, channels: int) -> Work:
    """`grid_sample` of a copy of each level, all samples held."""
    work = _work(_deformable, side, channels)

    def patched() -> Output | Callable[[], Output]:
        with mock.patch("models.deformable_attention.deformable_attention", textbook.deformable_attention):
            return work()

    return patched


def deformable_ours(side: int, channels: int) -> Work:
    """Four `embedding_bag` over one table."""
    return _work(_deformable, side, channels)


def dense(side: int, channels: int) -> Work:
    """Every pixel attends to every pixel, by PyTorch's fused attention."""
    return _cost(_work(_dense, side, channels))


def deformable_cost(side: int, channels: int) -> Work:
    """As `deformable_ours`."""
    return _cost(deformable_ours(side, channels))
