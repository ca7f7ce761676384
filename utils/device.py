"""Device selection, matrix-multiplication precision, free memory and asynchronous copies."""

from typing import Literal

import torch
from torch import Tensor, nn

from utils.cli import InputError
from utils.option_ranges import DeviceName

Precision = Literal["fp32", "tf32", "bf16"]
CPU_BATCH_BYTES = 128 * 2**20  # larger batches are no faster on a CPU, because they exceed its caches
CPU_MEMORY = 2 * 2**30  # bytes that one step may use on a CPU
FREE_MEMORY_FRACTION = 0.5  # of a GPU: estimates of a batch's memory do not include the kernels' workspace


def select_device(name: DeviceName) -> torch.device:
    """The device that an option `device` names; "auto" is a GPU if there is one.

    Raises:
        InputError: if "cuda" is asked for and there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch finds no GPU; use cpu or auto")
    return torch.device("cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda")


def set_matmul_precision(precision: str) -> None:
    """Set how this process multiplies float32 matrices and convolves on GPUs: in TF32 for "tf32", else in float32.

    PyTorch's default is mixed: float32 in matrix products, TF32 in convolutions.
    """
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def free_memory(device: torch.device) -> int:
    """Bytes that one step may use on the device now; a constant on CPUs."""
    if device.type != "cuda":
        return CPU_MEMORY
    free, _ = torch.cuda.mem_get_info(device)
    # PyTorch reuses the memory that it has freed.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(FREE_MEMORY_FRACTION * (free + cached))


def items_per_batch(device: torch.device, memory: int, floats_per_item: int) -> int:
    """How many items of so many float32 numbers fit into three quarters of `memory` bytes, at least one."""
    budget = min(memory, CPU_BATCH_BYTES) if device.type == "cpu" else memory
    return max(1, budget * 3 // 4 // (4 * floats_per_item))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device; asynchronously, from pinned memory, if that is a GPU."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class AsyncCopy:
    """An asynchronous copy of a tensor to the CPU."""

    def __init__(self, tensor: Tensor) -> None:
        self._values = tensor.detach().to("cpu", non_blocking=True)
        self._event = torch.cuda.Event() if tensor.is_cuda else None
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(tensor.device))

    def values(self) -> Tensor:
        """The copy. Waits for work that was queued on the device before it, not for work queued since."""
        if self._event is not None:
            self._event.synchronize()
        return self._values


def to_channels_last(model: nn.Module) -> None:
    """Convert the weights of 2-D convolutions to the channels-last memory format.

    Module.to would also convert those of 3-D convolutions, which fails.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
