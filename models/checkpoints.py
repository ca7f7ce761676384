"""Load checkpoints: tensors only, strictly, with errors that name the file and the keys."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from utils.cli import InputError


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read a state dict (.safetensors, .pth, .pt) to the CPU. Nothing but tensors is ever unpickled.

    Raises InputError for a missing, damaged or unsafe file, and for one that holds no plain state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; see pretrained/README.md, or ask for 'random' weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: damaged, or no checkpoint ({_first_line(error)})") from error
    except Exception as error:  # pickle.UnpicklingError among them: the file holds more than tensors
        raise InputError(f"{path}: refused, for it holds more than tensors ({_first_line(error)})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: not a plain state dict")
    return dict(state)


def load_checkpoint(
    module: nn.Module, path: Path | str, load: Callable[[dict[str, Tensor]], object] | None = None
) -> None:
    """Load a checkpoint strictly, by `load` where the file's names must be mapped first.

    Raises InputError that names missing, unexpected and misshapen keys.
    """
    state = read_state_dict(path)
    try:
        load(state) if load else module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(f"{path}: does not fit {type(module).__name__}: {' '.join(str(error).split())}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
