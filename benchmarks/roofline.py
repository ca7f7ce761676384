"""The least time that work can take on a device, by what the device was measured to do.

Each operation multiplies at no more than the measured rate of matrix products, and reads and writes at no more than
the measured bandwidth of a copy; the slower of the two bounds it. The sum over a program's operations bounds the
program, as long as no operations are fused: a compiled program may stay below it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from utils.device import set_matmul_precision

aten = torch.ops.aten


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *others: Any, out_val: Any = None) -> int:
    *_, transposed, _, _, wanted = others
    forward: int = conv_flop_count(list(x.shape), list(weight.shape), list(grad.shape), transposed)
    return forward * sum(wanted[:2])


FLOPS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten.convolution_backward: _convolution_backward,  # the registry's counts weights of all groups for each
}
UNTOUCHED = {aten.empty, aten.new_empty, aten.empty_like, aten.empty_strided, aten.new_empty_strided, aten.detach}


@dataclass(frozen=True)
class Card:
    """What a device was measured to do. flops: per second, by precision. bandwidth: bytes a second, read or written."""

    name: str
    flops: dict[str, float]
    bandwidth: float


@dataclass
class Work:
    """What a program does. flops: of its products, by dtype; bytes: read and written; least: seconds."""

    flops: dict[torch.dtype, float] = field(default_factory=dict)
    bytes: float = 0.0
    least: float = 0.0


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device, calls: int) -> float:
    """The median time of a call, after one that warms up."""
    work()
    taken = []
    for _ in range(calls):
        synchronise(device)
        begin = time.perf_counter()
        work()
        synchronise(device)
        taken.append(time.perf_counter() - begin)
    return sorted(taken)[len(taken) // 2]


def measure(device: torch.device, side: int, calls: int = 5) -> Card:
    """Measure products of square matrices of `side` and copies of as many floats."""
    flops = {}
    for precision in ("fp32", "tf32", "bf16"):
        set_matmul_precision(precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        flops[precision] = 2 * side**3 / seconds(lambda one=one, other=other: one @ other, device, calls)  # type: ignore[misc]
    source = torch.randn(4 * side * side, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / seconds(lambda: target.copy_(source), device, calls)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Card(name, flops, bandwidth)


class Counter(TorchDispatchMode):
    """Counts the work of what runs within it, at the exactness that is set."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card, self.work = card, Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func.overloadpacket
        if func.is_view or packet in UNTOUCHED:
            return result
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        # An expanded tensor has fewer bytes than its shape says.
        moved = sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)
        count = FLOPS.get(packet) or FLOPS.get(getattr(aten, str(packet).removeprefix("aten.").rstrip("_"), None))
        flops = float(count(*args, **kwargs, out_val=result)) if count else 0.0
        dtype = tensors[0].dtype if tensors else torch.float32
        if flops:
            self.work.flops[dtype] = self.work.flops.get(dtype, 0.0) + flops
        self.work.bytes += moved
        self.work.least += max(flops / self._rate(dtype), moved / self.card.bandwidth)
        return result

    def _rate(self, dtype: torch.dtype) -> float:
        if dtype in (torch.bfloat16, torch.float16):
            return self.card.flops["bf16"]
        return self.card.flops["tf32" if torch.backends.cudnn.allow_tf32 else "fp32"]
