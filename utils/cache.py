"""A content-addressed disk cache of tensors, so that nothing is computed twice.

The address of an entry consists of its type, a digest of the parameters and a digest of the input: other weights or
another precision give another address, so entries never have to be invalidated. Entries are safetensors files.
"""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from utils.cli import InputError
from utils.files import write_bytes
from utils.safetensors_io import safetensors_bytes

WRITER_THREADS = 4  # hashing and writing the output of a GPU can take longer than computing it


class Cache:
    """Tensors in files `folder/entry_type/parameters/content.safetensors`.

    Any number of processes may read and write at the same time. The folder is not touched before the first `get` or
    `put`.

    Args:
        folder: The root of the cache.
        entry_type: What an entry holds, such as "embedding".
        parameters: Everything that an entry depends on besides its input; JSON-serializable.
    """

    def __init__(self, folder: Path, entry_type: str, parameters: Mapping[str, Any]) -> None:
        serialized = json.dumps(dict(parameters), sort_keys=True, default=str)
        self.entry_type = entry_type
        self.parameters = hashlib.sha256(serialized.encode()).hexdigest()
        self.folder = Path(folder) / entry_type / self.parameters[:16]

    def path(self, content: str) -> Path:
        """The file of an entry. content: the hexadecimal digest of its input."""
        return self.folder / content[:2] / f"{content}.safetensors"

    def get(self, content: str) -> dict[str, Tensor] | None:
        """The tensors of an entry on the CPU, or None if there is none.

        A damaged file, or one that holds another entry, is removed with a warning.
        """
        path = self.path(content)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterable)
        except FileNotFoundError:  # another process has just removed it
            return None
        except (SafetensorError, OSError) as error:
            problem = f"damaged ({error})"
        else:
            if metadata == self._metadata(content, _checksum(tensors)):
                return tensors
            is_this_entry = metadata == self._metadata(content, metadata.get("sum", ""))
            problem = "damaged (wrong checksum)" if is_this_entry else "another entry"
        warnings.warn(f"{path}: {problem}; computed again", stacklevel=2)
        with contextlib.suppress(OSError):  # a read-only cache
            path.unlink(missing_ok=True)
        return None

    def put(self, content: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry atomically. Raises InputError if the disk is full or the folder is not writable."""
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path = self.path(content)
        try:
            write_bytes(path, safetensors_bytes(stored, self._metadata(content, _checksum(stored))))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(f"{path.parent}: cannot write to the cache ({reason}); choose another folder") from error

    def _metadata(self, content: str, checksum: str) -> dict[str, str]:
        return {"kind": self.entry_type, "parameters": self.parameters, "content": content, "sum": checksum}


def get_or_compute(
    cache: Cache | None,
    contents: Sequence[str],
    compute: Callable[[list[int]], Iterable[dict[str, Tensor]]],
    batch_size: int,
) -> list[dict[str, Tensor]]:
    """Read entries from the cache; compute and store those that are missing.

    If any entry of a batch is missing, the whole batch is computed: rounding depends on what is batched together, so
    a run that was killed and resumed gives the same bits as one that was not. Equal inputs are computed once.

    Args:
        cache: None computes everything.
        contents: The digest of each input.
        compute: Maps the indices of at most `batch_size` inputs to their entries.
        batch_size: Inputs that are computed together.

    Returns:
        One entry per input.
    """
    entries: dict[str, dict[str, Tensor]] = {}
    distinct = list(dict.fromkeys(contents))
    with ThreadPoolExecutor(WRITER_THREADS) as pool:
        writes = []
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            stored = {content: entry for content in batch if cache and (entry := cache.get(content)) is not None}
            if len(stored) < len(batch):
                computed = compute([contents.index(content) for content in batch])
                for content, entry in zip(batch, computed, strict=True):
                    if cache and content not in stored:
                        writes.append(pool.submit(cache.put, content, entry))
                    stored.setdefault(content, entry)
            entries |= stored
        for write in writes:
            write.result()
    return [entries[content] for content in contents]


def content_hash(array: np.ndarray) -> str:
    """The hexadecimal sha256 of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def weights_hash(module: nn.Module) -> str:
    """The hexadecimal sha256 of a module's state dict: names, dtypes, shapes and values.

    It reads every weight, which takes a second or two for SAM ViT-H: call it once and keep the result.
    """
    return _checksum(module.state_dict())


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
