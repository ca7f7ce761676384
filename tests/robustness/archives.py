"""Files that grow when they are read: pickles, archives and tensors that claim more than they hold."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes

GIB = 1 << 30


class Intruder:
    """A pickle of this makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def pickles(mark: Path) -> dict[str, bytes]:
    """Pickles by what they do, or would do, to whom reads them; `mark` is the file that their code would make."""
    tensor = torch.ones(2, 3)
    found = {f"code, protocol {n}": pickle.dumps({"a": tensor, "b": Intruder(mark)}, n) for n in range(6)}
    found |= {f"only code, protocol {n}": pickle.dumps(Intruder(mark), n) for n in range(6)}
    inner = pickle.dumps(Intruder(mark), 2)
    long = lambda count: struct.pack("<Q", count)  # noqa: E731
    found |= {
        "code in a storage": b"\x80\x02ctorch.storage\n_load_from_bytes\n(B"
        + len(inner).to_bytes(4, "little")
        + inner
        + b"tR.",
        "a memo of gigabytes": b"\x80\x02Nr\xff\xff\xff\x1f.",
        "a memo of text": b"Np999999999\n.",
        "bytes of gigabytes": b"\x80\x04\x8e" + long(8 * GIB) + b"x.",
        "text of gigabytes": b"\x80\x04\x8d" + long(8 * GIB) + b"x.",
        "a frame of gigabytes": b"\x80\x04\x95" + long(8 * GIB) + b"N.",
        "an array of gigabytes": b"\x80\x05\x96" + long(8 * GIB) + b"x.",
        "a long number": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
        "a number of text": b"I" + b"9" * 100_000 + b"\n.",
        "deep lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep tuples": b"\x80\x02N" + b"\x85" * 500_000 + b".",
        "doubling tuples": b"\x80\x02N" + b"2\x86" * 200 + b".",
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent name": b"\x80\x02X\1\0\0\0aQ.",
        "getattr": b"cbuiltins\ngetattr\n(cos\nO_RDONLY\nX\1\0\0\0atR.",
        "nothing": b"",
        "a stop": b".",
        "an unknown step": b"\x80\x02\xff.",
        "protocol 200": b"\x80\xc8N.",
        "no tensor": pickle.dumps([1, 2, 3]),
        "a tensor of integers": pickle.dumps(torch.ones(5, 1, 96, 64, dtype=torch.int64)),
        "a tensor of complex numbers": pickle.dumps(torch.ones(5, 1, 96, 64, dtype=torch.complex64)),
        "a tensor of bfloat16": pickle.dumps(torch.ones(5, 1, 96, 64, dtype=torch.bfloat16)),
        "a tensor without content": pickle.dumps(torch.ones(5, 1, 96, 64, device="meta")),
        "a sparse tensor": pickle.dumps(torch.ones(5, 1, 96, 64).to_sparse()),
        "a tensor that is not finite": pickle.dumps(torch.full((5, 1, 96, 64), float("nan"))),
        "another shape": pickle.dumps(torch.ones(4, 1, 96, 64)),
        "an archive": archive("w", {"a": tensor}),
        "two": pickle.dumps(torch.ones(5, 1, 96, 64)) * 2,
        "huge": bytes(40 << 20),
    }
    return found


def huge_tensor(size: tuple[int, ...]) -> bytes:
    """A pickled tensor of another size than its storage has."""
    return pickle.dumps(torch.ones(2, 3), 2).replace(b"K\x02K\x03\x86", _tuple(size), 1)


def _tuple(size: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", side) for side in size) + b"t"


def archive(kind: str, content: Any) -> bytes:
    """A checkpoint: "w" as torch writes them now, "legacy" as it did."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=kind != "legacy")
    return buffer.getvalue()


def zip_bomb(record: str, gibs: int = 3) -> bytes:
    """An archive in which one record of a checkpoint unpacks into gigabytes."""
    block = bytes(16 << 20)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = squeezer.compress(block) + squeezer.flush(zlib.Z_FULL_FLUSH)  # stands for itself, so it can be repeated
    times = gibs * GIB // len(block)
    packed = piece * times + b"\x01\0\0\xff\xff"
    whole = io.BytesIO(archive("w", {"weight": torch.ones(8, 8), "bias": torch.ones(8)}))
    with zipfile.ZipFile(whole) as old:
        records = {info.filename: old.read(info) for info in old.infolist()}
    out, index = io.BytesIO(), []
    for name, content in records.items():
        bad = name.endswith(record)
        body, size = (packed, times * len(block)) if bad else (content, len(content))
        facts = struct.pack(
            "<HHHHHLLLHH", 20, 0, 8 if bad else 0, 0, 0, zlib.crc32(content), len(body), size, len(name), 0
        )
        index.append(
            b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<HHHLL", 0, 0, 0, 0, out.tell()) + name.encode()
        )
        out.write(b"PK\3\4" + facts + name.encode() + body)
    start, listed = out.tell(), b"".join(index)
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, len(index), len(index), len(listed), start, 0)
    return out.getvalue() + listed + end


def headed(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, and any length that it says it has."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def safetensors(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """Safetensors files around a state by what is odd about them."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "nothing": b"",
        "a length only": struct.pack("<Q", 8),
        "a header of exabytes": headed({}, length=(1 << 63) - 1),
        "a header of 99 MB": headed(b"{" + b" " * 99_000_000 + b"}"),
        "no JSON": headed(b"{]"),
        "a list": headed([1]),
        "deep JSON": headed(b"[" * 200_000),
        "overlapping": headed({"a": entry, "b": entry}, bytes(8)),
        "beyond the end": headed({"a": entry | {"data_offsets": [0, 1 << 40]}}, bytes(8)),
        "a huge shape": headed({"a": entry | {"shape": [1 << 62, 4]}}, bytes(8)),
        "a negative shape": headed({"a": entry | {"shape": [-2]}}, bytes(8)),
        "an unknown type": headed({"a": entry | {"dtype": "F31"}}, bytes(8)),
        "no type": headed({"a": {"shape": [2]}}, bytes(8)),
        "too much": headed({"a": entry}, bytes(800)),
        "many names": headed({f"n{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}),
        "a name with signs": safetensors_bytes({"\x1b[31m\nerror": torch.ones(2)}),
        "a long name": safetensors_bytes({"x" * 50_000: torch.ones(2)}),
        **{f"of {str(kind)[6:]}": safetensors_bytes({k: v.to(kind) for k, v in state.items()}) for kind in _kinds()},
        **{
            f"with {bad}": safetensors_bytes(_spoilt(state, bad)) for bad in (float("nan"), float("inf"), -float("inf"))
        },
    }


def _kinds() -> list[torch.dtype]:
    return [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64]


def _spoilt(state: dict[str, torch.Tensor], bad: float) -> dict[str, torch.Tensor]:
    spoilt = {name: value.clone() for name, value in state.items()}
    name = next(name for name, value in spoilt.items() if value.is_floating_point() and value.numel())
    spoilt[name].view(-1)[-1] = bad
    return spoilt


def npy(shape: object, kind: str = "<f4", body: bytes = b"", order: bool = False) -> bytes:
    """A .npy file with any header."""
    head = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def npys() -> dict[str, bytes]:
    """.npy files by what is odd about them."""
    buffer, objects = io.BytesIO(), io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(1 << 20))
    np.save(objects, np.array([Intruder(Path("ran"))], dtype=object), allow_pickle=True)
    size = 5 * 96 * 64
    return {
        "terabytes": npy((1 << 40, 1, 96, 64)),
        "a zip": buffer.getvalue(),
        "objects": objects.getvalue(),
        "a pickle": pickle.dumps(Intruder(Path("ran"))),
        "text": npy((5, 1, 96, 64), "<U4", bytes(16 * size)),
        "dates": npy((5, 1, 96, 64), "<M8[s]", bytes(8 * size)),
        "complex numbers": npy((5, 1, 96, 64), "<c8", bytes(8 * size)),
        "records": npy((5, 1, 96, 64), [("a", "<f4")].__repr__().strip("'"), bytes(4 * size)),
        "voids": npy((5, 1, 96, 64), "|V4", bytes(4 * size)),
        "integers": npy((5, 1, 96, 64), "<i8", bytes(8 * size)),
        "turned": npy((5, 1, 96, 64), "<f4", bytes(4 * size), order=True),
        "the other order": npy((5, 1, 96, 64), ">f4", bytes(4 * size)),
        "a negative side": npy((-5, 1, 96, 64), "<f4", bytes(4 * size)),
        "a call for a shape": npy("__import__('os').system('touch ran')"),
        "a deep header": npy("(" * 3000 + ")" * 3000),
        "a scalar": npy((), "<f4", bytes(4)),
        "a version to come": b"\x93NUMPY\x09\x00" + bytes(100),
        "a head of gigabytes": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
    }
