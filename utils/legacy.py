"""AVSBench's log-mel pickles, read without letting a pickle run code.

AVSBench stores log-mels as tensors written by the standard `pickle` module, which on loading calls whatever
function the file names. The unpickler here knows the few names that a pickled tensor needs, gives its storage
to `torch.load(weights_only=True)`, and refuses everything else.
"""

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.cli import InputError


def _load_storage(data: bytes) -> Any:
    """Stands in for torch.storage._load_from_bytes, which would unpickle anything."""
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a tensor")
        return _ALLOWED[module, name]


def read_pickled_tensor(path: Path) -> np.ndarray:
    """Read one pickled float tensor as a NumPy array. Raises InputError on anything else."""
    try:
        with path.open("rb") as file:
            tensor = _TensorUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"{path}: not a pickled tensor, so it is not read ({error})") from error
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{path}: holds a {type(tensor).__name__}, not a tensor")
    return tensor.detach().numpy()
