"""What a run asks of its device: exactness, memory, and copies for which neither side waits."""

from typing import Literal

import torch
from torch import Tensor, nn

from utils.cli import InputError
from utils.option_ranges import DeviceName

Precision = Literal["fp32", "tf32", "bf16"]
CPU_MEMORY = 2 * 2**30  # bytes that a step may take where nothing says how much is free
FREE_MEMORY_FRACTION = 0.5  # of a GPU's free memory: what a batch is reckoned to take leaves out the kernels' own needs


def select_device(name: DeviceName) -> torch.device:
    """The device that an option `device` names; "auto" is a GPU if there is one.

    Raises:
        InputError: if "cuda" is asked for and there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but PyTorch finds no GPU; use cpu or auto")
    return torch.device("cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda")


def set_matmul_precision(precision: str) -> None:
    """Have this process multiply float32 as such, or, for "tf32", rounded to 10 bits of fraction where a GPU can.

    PyTorch's own default is a mixture: float32 in matrix products, TF32 in convolutions.
    """
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def free_memory(device: torch.device) -> int:
    """Bytes that a step may take on the device as it is filled now; a fixed number on a CPU."""
    if device.type != "cuda":
        return CPU_MEMORY
    free, _ = torch.cuda.mem_get_info(device)
    # PyTorch keeps what it has freed, and gives it out again.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(FREE_MEMORY_FRACTION * (free + kept))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. A GPU copies from pinned memory while this process goes on."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class AsyncCopy:
    """A tensor's values on their way to the CPU, while device and process go on."""

    def __init__(self, tensor: Tensor) -> None:
        self._values = tensor.detach().to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if tensor.is_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def values(self) -> Tensor:
        """The values, on the CPU; waits for what was asked of the device before, not for what was asked since."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values


def to_channels_last(model: nn.Module) -> None:
    """Lay out the weights of two-dimensional convolutions so that maps pass through channel by channel at each pixel.

    (Module.to would try the three-dimensional ones as well, and fail.)"""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
