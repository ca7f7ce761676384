"""Distributed training with the numbers of a single process: splitting of batches, batch statistics over all processes,
and stochastic depth and dropout that do not depend on how a batch is split."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def shuffled_batches(count: int, size: int, seed: int) -> list[list[int]]:
    """Shuffle the indices 0 ... count-1 and cut them into batches.

    Args:
        count: number of items.
        size: of a batch; the last one may be smaller.
        seed: of the order.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return [order[i : i + size] for i in range(0, count, size)]


def rank_slice(batch: list[int], rank: int, world: int) -> list[int]:
    """The videos of a batch that process `rank` of `world` works on.

    A batch with fewer videos than processes goes to every process as a whole.
    """
    return batch if len(batch) < world else batch[rank::world]


def loss_scale(local: int, whole: int, world: int) -> float:
    """Factor of a process's mean loss with which gradients averaged over processes equal those of the whole batch.

    Args:
        local: videos of this process.
        whole: videos of the batch.
        world: number of processes.

    Returns:
        The factor; 1 for a batch that every process has as a whole.
    """
    return 1.0 if whole < world else world * local / whole


class _AllReduceSum(torch.autograd.Function):
    """Differentiable sum over processes."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(_BatchNorm):
    """Batch normalization over all processes on any device (torch.nn.SyncBatchNorm needs a GPU)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least two dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        local = input.new_tensor([input.numel() / input.shape[1]])
        packed = torch.cat([input.sum(axes), local])
        *total, count = _AllReduceSum.apply(packed).split([input.shape[1], 1])
        mean = total[0] / count
        shape = [1, -1] + [1] * (input.dim() - 2)
        centered = input - mean.view(shape)
        variance = _AllReduceSum.apply(centered.square().sum(axes)) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt()
        return centered * (scale * self.weight).view(shape) + self.bias.view(shape)


class WholeBatchDraws(nn.Module):
    """Random factors that do not depend on the number of processes.

    Every process draws for the whole batch, from a generator in the same state, and uses the draws of its own videos.

    Attributes:
        lengths: frames of each video of the whole batch; see `set_video_lengths`.
    """

    def __init__(self, drop_prob: float, scale_by_keep: bool, rank: int, world: int):
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep
        self.rank, self.world = rank, world
        self.lengths: Sequence[int] = ()

    def draw(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Factors for x (videos of this process · frames, ...), video by video: (videos · frames, *sizes)."""
        mine, lengths = rank_slice(list(range(len(self.lengths))), self.rank, self.world), self.lengths
        if len(set(lengths)) == 1:  # of which a head may take only the first frames
            lengths = [len(x) // len(mine)] * len(lengths)
        kept = x.new_empty(sum(lengths), *sizes).bernoulli_(1 - self.drop_prob)
        if self.scale_by_keep and self.drop_prob < 1:
            kept.div_(1 - self.drop_prob)
        videos = kept.split(list(lengths))
        return kept if len(mine) == len(lengths) else torch.cat([videos[video] for video in mine])

    @property
    def is_active(self) -> bool:
        """Whether anything is dropped."""
        return self.training and self.drop_prob > 0


class StochasticDepth(WholeBatchDraws):
    """timm's DropPath. In a single process the numbers are those of timm."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (videos of this process · frames, ...), video by video; returns the same shape."""
        return x * self.draw(x, [1] * (x.ndim - 1)) if self.is_active else x


class Dropout(WholeBatchDraws):
    """PyTorch's Dropout, except that its draws do not depend on the memory layout."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (videos of this process · frames, ...), video by video; returns the same shape."""
        return x * self.draw(x, x.shape[1:]) if self.is_active else x


class Attention(nn.Module):
    """PyTorch's MultiheadAttention without masks, with `Dropout` of its weights.

    PyTorch's draws the dropout for the part of the batch that a process has. On a CPU this gives the same numbers as
    PyTorch's in a single process; on a GPU its kernels draw in an order of their own.
    """

    def __init__(self, attention: nn.MultiheadAttention, rank: int, world: int):
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.dropout = Dropout(attention.dropout, True, rank, world)
        self.batch_first = True  # which PyTorch's decoder asks for

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> tuple[Tensor, None]:
        """query (B, Q, C), key and value (B, L, C) -> (B, Q, C), and no weights."""
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), self.in_proj_weight.chunk(3), biases, strict=True)
        )
        if self.dropout.is_active:
            weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)
            read = self.dropout(weights) @ v
        else:
            read = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(read.transpose(1, 2).flatten(2)), None


def set_video_lengths(module: nn.Module, lengths: Sequence[int]) -> None:
    """Set the frames of each video of the next batch, over all processes, wherever a model draws factors for it."""
    for part in module.modules():
        if isinstance(part, WholeBatchDraws):
            part.lengths = lengths


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace batch normalization, stochastic depth and dropout by versions with the numbers of a single process.

    Returns:
        The model; in a single process only its dropout is replaced.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return _convert_dropout(module, 0, 1)
    _convert_dropout(module, dist.get_rank(), dist.get_world_size())
    if torch.cuda.is_available():
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return module


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, DropPath):
        return StochasticDepth(module.drop_prob, module.scale_by_keep, dist.get_rank(), dist.get_world_size())
    if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
        synced = SyncBatchNorm(module.num_features, module.eps, module.momentum)
        synced.weight, synced.bias = module.weight, module.bias  # the same tensors: they may be frozen
        synced.running_mean, synced.running_var = module.running_mean, module.running_var
        synced.num_batches_tracked = module.num_batches_tracked
        return synced
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return module


def _convert_dropout(module: nn.Module, rank: int, world: int) -> nn.Module:
    if isinstance(module, nn.Dropout) and module.p:
        return Dropout(module.p, True, rank, world)
    if isinstance(module, nn.MultiheadAttention) and module.dropout and world > 1:
        return Attention(module, rank, world)
    for name, child in module.named_children():
        setattr(module, name, _convert_dropout(child, rank, world))
    return module
