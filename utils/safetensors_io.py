"""Serialize tensors to safetensors deterministically: equal tensors give equal bytes."""

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialize contiguous CPU tensors, with the metadata sorted by name.

    The library itself writes metadata in random order, so that equal files would differ in their checksums.
    """
    data = save(dict(tensors), dict(metadata))
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:begin]), separators=(",", ":"), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors are aligned to eight bytes
    return len(header).to_bytes(8, "little") + header + data[begin:]
