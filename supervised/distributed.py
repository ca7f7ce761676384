"""Training in several processes with the numbers of one: shares of a batch, batch statistics over all shares, and
stochastic depth that does not depend on who has which share."""

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def shuffled_batches(count: int, size: int, seed: int) -> list[list[int]]:
    """Shuffle 0 ... count-1 by the seed and cut it into batches; the last may be smaller."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return [order[i : i + size] for i in range(0, count, size)]


def rank_slice(batch: list[int], rank: int, world: int) -> list[int]:
    """The part of a batch that one process works on. A batch with fewer videos than processes goes to all."""
    return batch if len(batch) < world else batch[rank::world]


def loss_scale(local: int, whole: int, world: int) -> float:
    """What a process's mean loss is multiplied by, so that averaging gradients over processes gives the gradient
    of the whole batch's mean. A batch that went to all processes needs none."""
    return 1.0 if whole < world else world * local / whole


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes; the gradient of a sum that every process uses is the sum of their gradients."""

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
    """Batch normalisation over all processes on any device (torch's own needs a GPU)."""

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
        centred = input - mean.view(shape)
        variance = _AllReduceSum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt()
        return centred * (scale * self.weight).view(shape) + self.bias.view(shape)


class StochasticDepth(DropPath):
    """timm's, with decisions that do not depend on the number of processes.

    Every process, its generator in the same state as the others', decides for the whole batch and takes what is
    decided for its own share. In a single process the numbers are those of timm.
    """

    def __init__(self, drop_prob: float, scale_by_keep: bool, rank: int, world: int):
        super().__init__(drop_prob, scale_by_keep)
        self.rank, self.world = rank, world
        self.num_videos = 0  # in the whole batch; see `announce`

    def forward(self, x: Tensor) -> Tensor:
        """x: (share of the videos · frames, ...), video by video."""
        if not self.training or self.drop_prob == 0:
            return x
        mine = rank_slice(list(range(self.num_videos)), self.rank, self.world)
        kept = x.new_empty(self.num_videos, len(x) // len(mine)).bernoulli_(1 - self.drop_prob)
        if self.scale_by_keep and self.drop_prob < 1:
            kept.div_(1 - self.drop_prob)
        return x * kept[mine].view(-1, *[1] * (x.ndim - 1))


def set_num_videos(module: nn.Module, videos: int) -> None:
    """Tell a model how many videos all processes together are about to train on."""
    for part in module.modules():
        if isinstance(part, StochasticDepth):
            part.num_videos = videos


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Make every batch normalisation count all processes' samples, and stochastic depth decide as one process would;
    nothing changes in a single process."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    if torch.cuda.is_available():
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return module


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, DropPath):
        return StochasticDepth(module.drop_prob, module.scale_by_keep, dist.get_rank(), dist.get_world_size())
    if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
        twin = SyncBatchNorm(module.num_features, module.eps, module.momentum)
        twin.weight, twin.bias = module.weight, module.bias  # themselves: they may be frozen
        twin.running_mean, twin.running_var = module.running_mean, module.running_var
        twin.num_batches_tracked = module.num_batches_tracked
        return twin
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return module
