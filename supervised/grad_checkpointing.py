"""Less memory for more time: blocks whose activations are computed again on the way back instead of being kept.

Numbers and running statistics stay what they are. Source: Chen et al., "Training Deep Nets with Sublinear Memory
Cost" (2016).
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

from models.audioclip import DenseResNet

BLOCKS = (CLIPBottleneck, BasicBlock, Bottleneck, PVTBlock)


def enable_grad_checkpointing(tower: nn.Module) -> None:
    """Have an image tower keep only what enters each of its blocks, and CLIP's stem as one more."""
    for block in tower.modules():
        if isinstance(block, BLOCKS):
            _keep_input_only(block, "forward")
        elif isinstance(block, DenseResNet):
            _keep_input_only(block, "stem")


def _keep_input_only(block: nn.Module, method: str) -> None:
    # A method of the block itself, so that its copy (a moving average of the weights) does not run the original's.
    setattr(block, method, MethodType(partial(_run, method), block))


def _run(method: str, block: nn.Module, *inputs: Any) -> Any:
    run = partial(getattr(type(block), method), block)
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first computation, and the second."""
    return nullcontext(), _uncounted(block)


@contextmanager
def _uncounted(block: nn.Module) -> Iterator[None]:
    """Batch normalisation uses the batch's statistics, as it did, and does not count them a second time."""
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
