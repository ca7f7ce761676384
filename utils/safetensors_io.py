"""Tensors as the bytes of a safetensors file: the same tensors give the same bytes."""

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of contiguous tensors on the CPU, with its metadata in order.

    The library writes metadata in an order of chance, so that equal files would have other checksums.
    """
    written = save(dict(tensors), dict(metadata))
    begin = 8 + int.from_bytes(written[:8], "little")
    header = json.dumps(json.loads(written[8:begin]), separators=(",", ":"), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of eight bytes
    return len(header).to_bytes(8, "little") + header + written[begin:]
