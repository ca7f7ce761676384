"""Results kept on disk under the address of what they were made from, so that no work is done twice.

The address of an entry is its kind, a digest of the parameters, and a digest of the content: other weights or
another precision are another address, and nothing ever has to be invalidated. Entries are safetensors files.
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

WRITER_THREADS = 4  # threads: hashing and writing what a GPU has made may take longer than making it


class Cache:
    """A folder of tensors by content: `folder/kind/parameters/content`.

    Any number of processes may fill and read it at the same time.
    """

    def __init__(self, folder: Path, kind: str, parameters: Mapping[str, Any]) -> None:
        """kind: what an entry holds ("embedding"). parameters: everything but the content that its numbers depend on.

        Nothing is read or written before the first `get` or `put`.
        """
        described = json.dumps(dict(parameters), sort_keys=True, default=str)
        self.entry_type = kind
        self.parameters = hashlib.sha256(described.encode()).hexdigest()
        self.folder = Path(folder) / kind / self.parameters[:16]

    def path(self, content: str) -> Path:
        """Where the entry for a content, a hexadecimal digest, is or would be."""
        return self.folder / content[:2] / f"{content}.safetensors"

    def get(self, content: str) -> dict[str, Tensor] | None:
        """The entry's tensors, on the CPU, or None.

        A damaged entry, or one of another kind or content, is removed with a warning and counts as absent.
        """
        path = self.path(content)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                written = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterable)
        except FileNotFoundError:  # another process has just removed it
            return None
        except (SafetensorError, OSError) as error:
            return self._drop(path, f"damaged ({error})")
        if written != self._label(content, written.get("sum", "")):
            return self._drop(path, "an entry of another kind")
        if written["sum"] != _sum(tensors):
            return self._drop(path, "damaged (its content does not add up)")
        return tensors

    def put(self, content: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors, whole or not at all. Raises InputError if the disk is full or the folder not writable."""
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path = self.path(content)
        try:
            write_bytes(path, safetensors_bytes(plain, self._label(content, _sum(plain))))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(f"{path.parent}: cannot keep results here ({reason}); choose another cache") from error

    def _label(self, content: str, total: str) -> dict[str, str]:
        return {"kind": self.entry_type, "parameters": self.parameters, "content": content, "sum": total}

    def _drop(self, path: Path, what: str) -> dict[str, Tensor] | None:
        warnings.warn(f"{path}: {what}; made again", stacklevel=3)
        with contextlib.suppress(OSError):  # a cache that may only be read
            path.unlink(missing_ok=True)
        return None


def get_or_compute(
    cache: Cache | None,
    contents: Sequence[str],
    make: Callable[[list[int]], Iterable[dict[str, Tensor]]],
    batch: int,
) -> list[dict[str, Tensor]]:
    """The entries for the contents, in order: from the cache where it has them, else made and kept there.

    make: gives the entries of the items at some places, at most `batch` of them. Equal contents are made once. Of a
    batch that lacks an entry all are made, for their rounding depends on their company: a run that was killed thus
    ends with the very bits of one that was not.
    """
    found: dict[str, dict[str, Tensor]] = {}
    different = list(dict.fromkeys(contents))
    with ThreadPoolExecutor(WRITER_THREADS) as pool:
        writes = []
        for first in range(0, len(different), batch):
            some = different[first : first + batch]
            kept = {content: entry for content in some if cache and (entry := cache.get(content)) is not None}
            if len(kept) < len(some):
                for content, entry in zip(some, make([contents.index(content) for content in some]), strict=True):
                    if cache and content not in kept:
                        writes.append(pool.submit(cache.put, content, entry))
                    kept.setdefault(content, entry)
            found |= kept
        for write in writes:
            write.result()
    return [found[content] for content in contents]


def content_hash(array: np.ndarray) -> str:
    """The hexadecimal sha256 of an array's type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def weights_hash(module: nn.Module) -> str:
    """The hexadecimal sha256 of a module's state dict: names, types, shapes and values.

    It reads every weight, a second or two for SAM ViT-H: call it once and keep the result.
    """
    return _sum(module.state_dict())


def _sum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
