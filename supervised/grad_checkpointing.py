"""Gradient checkpointing of image towers: activations within a block are recomputed in the backward pass.

It takes less memory and more time; outputs, gradients and running statistics do not change.
Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

from open_clip.modified_resnet import Bottleneck as CLIPBottleneck
from timm.models.pvt_v2 import Block as PVTBlock
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.clip_resnet import DenseResNet

BLOCKS = (CLIPBottleneck, BasicBlock, Bottleneck, PVTBlock)


def enable_grad_checkpointing(tower: nn.Module) -> None:
    """Store only the inputs of each block of an image tower, CLIP's stem counting as a block."""
    for block in tower.modules():
        if isinstance(block, BLOCKS):
            _checkpoint_method(block, "forward")
        elif isinstance(block, DenseResNet):
            _checkpoint_method(block, "stem")


def _checkpoint_method(block: nn.Module, method: str) -> None:
    # Bound to the block itself, so that a deep copy (the EMA of the weights) does not run the original's method.
    setattr(block, method, MethodType(partial(_run, method), block))


def _run(method: str, block: nn.Module, *inputs: Any) -> Any:
    run = partial(getattr(type(block), method), block)
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first computation and of the recomputation."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Batch normalization uses the statistics of the batch without updating the running ones a second time."""
    norms: list[Any] = [norm for norm in block.modules() if isinstance(norm, _BatchNorm) and norm.training]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
