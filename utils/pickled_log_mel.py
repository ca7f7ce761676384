"""AVSBench's log-mel pickles, read without letting a pickle run code.

AVSBench stores log-mels as tensors written by the standard `pickle` module, which on loading calls any function that
the file names. The unpickler here accepts only the few names that a pickled tensor needs, loads its storage with
`torch.load(weights_only=True)`, and rejects everything else, including what would take more memory than the file.
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

MAX_FILE_BYTES = 1 << 20  # the log-mel of a clip takes 123 kB


def _load_storage(data: bytes) -> Any:
    """Replaces torch.storage._load_from_bytes, which would unpickle anything."""
    if data.startswith(b"PK"):  # a zip archive, which may be compressed; AVSBench's files are older than this format
        raise pickle.UnpicklingError("its storage is an archive")
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


def _rebuild(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """Replaces torch._utils._rebuild_tensor_v2, which would allocate a storage as large as the shape requires."""
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
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no tensor needs")
        return _ALLOWED[module, name]


def read_pickled_tensor(path: Path) -> np.ndarray:
    """Read one pickled float tensor as a NumPy array. Raises InputError on anything else."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise pickle.UnpicklingError("it is too large")
        data = path.read_bytes()
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError("it requires more memory than its size")
        tensor = _TensorUnpickler(io.BytesIO(data)).load()
        if isinstance(tensor, Tensor):
            return tensor.detach().numpy()
    except Exception as error:  # a damaged pickle can raise any type
        raise InputError(f"{path}: not a pickled tensor ({error})") from error
    raise InputError(f"{path}: holds a {type(tensor).__name__}, not a tensor")
