"""Strict loading of checkpoints, tensors only, with errors that name the file and the keys.

Key mappings of the public files are in models/key_maps.py.
"""

import io
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from utils.cli import InputError

STATE_DICT_ENTRIES = ("state_dict", "model", "model_state_dict")  # names under which training scripts save the weights
MAX_KEYS_SHOWN = 3  # per category, in an error message


def read_state_dict(path: Path | str, entry: str | None = None) -> dict[str, Tensor]:
    """Read a state dict (.safetensors, .pth, .pt) to the CPU. Nothing but tensors is ever unpickled.

    The prefix `module.` of a DataParallel model is removed if all keys have it.

    Args:
        path: of the file.
        entry: key of the state dict in a training checkpoint ("state_dict" in LAION-CLAP's). Without it, one of
            STATE_DICT_ENTRIES is used, with a note on stderr, if it is the only state dict in the file.

    Returns:
        Tensors by key.

    Raises:
        InputError: for a missing, damaged or unsafe file, and for one without a plain state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; see pretrained/README.md, or use 'random' weights")
    content = _read(path)
    if entry is not None:
        if not isinstance(content, Mapping) or entry not in content:
            raise InputError(f"{path}: not a training checkpoint: it has no entry '{entry}'")
        content = content[entry]
    elif isinstance(content, Mapping) and (found := _find_entry(content)):
        print(f"note: {path}: using the weights in its entry '{found}'", file=sys.stderr)
        content = content[found]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: not a plain state dict but a {type(content).__name__}")
    if others := [str(k) for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))]:
        raise InputError(f"{path}: not a plain state dict; not tensors: {_summarize(others)} (a training checkpoint?)")
    state = dict(content)
    if state and all(key.startswith("module.") for key in state):
        if entry is None:
            print(f"note: {path}: removing the prefix 'module.' of all keys", file=sys.stderr)
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _find_entry(content: Mapping[Any, Any]) -> str:
    """The key of the only state dict in a training checkpoint; empty if there is none or more than one."""
    found = [str(name) for name, value in content.items() if _is_state_dict(value)]
    return found[0] if len(found) == 1 and found[0] in STATE_DICT_ENTRIES else ""


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def load_checkpoint(
    module: nn.Module, path: Path | str, load: Callable[[dict[str, Tensor]], object] | None = None
) -> None:
    """Load a checkpoint strictly.

    Args:
        module: the network.
        path: of the checkpoint.
        load: loads the state dict into `module`, for files whose keys need mapping; default: load_strict.

    Raises:
        InputError: naming missing, unexpected and misshapen keys. `module` is then unchanged.
    """
    state = read_state_dict(path)
    # load_state_dict alone would copy matching entries before raising an error.
    guard = module.register_load_state_dict_pre_hook(_raise_on_mismatch)
    try:
        load(state) if load else load_strict(module, state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{path}: does not fit {type(module).__name__}: {problem}") from error
    finally:
        guard.remove()


def load_strict(
    module: nn.Module, state: Mapping[str, Tensor], random: tuple[str, ...] = (), counters: bool = True
) -> list[str]:
    """Load all of `state` into all of `module` except for the parts that keep random weights.

    Args:
        module: the network.
        state: tensors by key.
        random: prefixes of the keys that keep random weights; `state` must not contain them.
        counters: whether `state` must contain num_batches_tracked of BatchNorm, which nothing here uses.

    Returns:
        The keys that keep random weights.

    Raises:
        RuntimeError: naming missing, unexpected and misshapen keys, before anything is copied.
    """
    if problem := describe_mismatch(module, state, random, counters):
        raise RuntimeError(problem)
    own = module.state_dict()
    module.load_state_dict({**own, **state}, strict=True)
    return [key for key in own if key.startswith(random)]


def describe_mismatch(
    module: nn.Module, state: Mapping[str, Tensor], random: tuple[str, ...] = (), counters: bool = True
) -> str:
    """What keeps `state` from fitting, as `load_strict` understands it: one line, empty if nothing does.

    mistyped are numbers of another kind, such as integers for weights; float types of other widths are converted.
    """
    own = {key: value for key, value in module.state_dict().items() if not key.startswith(random)}
    missing = [key for key in own if key not in state and (counters or not key.endswith(".num_batches_tracked"))]
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    mistyped = [
        f"{key} {state[key].dtype}"
        for key, value in own.items()
        if key in state and _incompatible_dtype(state[key], value) and not key.endswith(".num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in own]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "mistyped": mistyped}
    return "; ".join(f"{kind} {_summarize(keys)}" for kind, keys in kinds.items() if keys)


def _incompatible_dtype(value: Tensor, own: Tensor) -> bool:
    plain = value.layout == torch.strided and not value.is_quantized and not (value.is_meta and not own.is_meta)
    return not plain or value.is_complex() or value.is_floating_point() != own.is_floating_point()


def is_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    if value.is_meta or not value.is_floating_point():
        return True
    # The sum is a faster test; only an overflow can make it fail on finite values.
    return bool(torch.isfinite(value.float().sum())) or bool(torch.isfinite(value.float()).all())


def _raise_on_mismatch(module: nn.Module, state: Mapping[str, Tensor], *_: object) -> None:
    # As in torch's strict loading, files from before PyTorch 0.4.1 need no num_batches_tracked.
    if problem := describe_mismatch(module, state, counters=False):
        raise RuntimeError(problem)
    if bad := [key for key, value in state.items() if not is_finite(value)]:
        raise RuntimeError(f"not finite {_summarize(bad)}")


def _read(path: Path) -> object:
    """The content of a file; InputError if it is damaged, not a checkpoint, or holds anything but tensors."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_archive(path)
        with warnings.catch_warnings():  # torch warns about formats that it then rejects
            warnings.simplefilter("ignore")
            # From memory, a file in the old format cannot request buffers larger than itself.
            source = path if start.startswith(b"PK") else io.BytesIO(path.read_bytes())
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if start.startswith(b"version https://git-lfs"):
            raise InputError(f"{path}: a git-LFS pointer, not the checkpoint itself") from error
        if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise InputError(f"{path}: a web page, not a checkpoint; download it again") from error
        if "TorchScript" in str(error):
            raise InputError(f"{path}: a TorchScript program, not a state dict") from error
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named or ("Weights only load failed" in str(error) and start.startswith((b"PK", b"\x80"))):
            what = named[1] if named else "another pickle"
            raise InputError(f"{path}: refused: it holds more than tensors ({what}), or is damaged") from error
        if isinstance(error, SafetensorError | OSError | RuntimeError | ValueError | zipfile.BadZipFile):
            raise InputError(f"{path}: damaged, or not a checkpoint ({reason})") from error
        raise InputError(f"{path}: damaged, or not a checkpoint") from error


def check_archive(path: Path, checksums: bool = False) -> None:
    """Reject files that torch.save does not write: neither an archive nor a pickle, or a compressed archive.

    Args:
        path: of the file.
        checksums: also verify the checksum of each record, which torch.load does not.

    Raises:
        ValueError: saying what is wrong.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if any(record.filename.endswith("constants.pkl") for record in records):
                raise ValueError("TorchScript")
            packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
            if packed or sum(record.file_size for record in records) > path.stat().st_size:
                raise ValueError("its records are compressed")
            if checksums and archive.testzip() is not None:
                raise ValueError("a record's checksum is wrong")
    elif start[:1] != b"\x80":
        raise ValueError("neither an archive nor a pickle")


def _summarize(keys: list[str]) -> str:
    return f"{len(keys)}: {', '.join(keys[:MAX_KEYS_SHOWN])}{', ...' if len(keys) > MAX_KEYS_SHOWN else ''}"
