"""AVSBench's log-mel pickles, read without letting a pickle run code.

AVSBench stores log-mels as tensors written by the standard `pickle` module, which on loading calls whatever
function the file names. The unpickler here knows the few names that a pickled tensor needs, gives its storage
to `torch.load(weights_only=True)`, and refuses everything else, and what would take more memory than the file.
"""

import collections
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.cli import InputError

MAX_FILE_BYTES = 1 << 20  # bytes of a file; a clip's log-mel takes 123 kB


def _load_storage(data: bytes) -> Any:
    """Stands in for torch.storage._load_from_bytes, which would unpickle anything."""
    if data.startswith(b"PK"):  # AVSBench's are older than this kind, which may be compressed
        raise pickle.UnpicklingError("its storage is an archive")
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _rebuild(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """Stands in for torch._utils._rebuild_tensor_v2, which would make a storage as large as the shape asks for."""
    end = 1 + offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride) < 0 or end * storage.dtype.itemsize > storage._untyped_storage.nbytes():
        raise pickle.UnpicklingError("its shape is larger than its storage")
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, *rest)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
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
        if path.stat().st_size > MAX_FILE_BYTES:
            raise pickle.UnpicklingError("it is too large")
        data = path.read_bytes()
        for step, argument, _ in pickletools.genops(data):
            if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError("it asks for more memory than it has bytes")
        tensor = _TensorUnpickler(io.BytesIO(data)).load()
        if isinstance(tensor, Tensor):
            return tensor.detach().numpy()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"{path}: not a pickled tensor, so it is not read ({error})") from error
    raise InputError(f"{path}: holds a {type(tensor).__name__}, not a tensor")
