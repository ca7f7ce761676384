"""Load checkpoints: tensors only, strictly, with errors that name the file and the keys.

What the study makes of each public file is in models/key_maps.py.
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

STATE_DICT_ENTRIES = ("state_dict", "model", "model_state_dict")  # by which training programs save weights
MAX_KEYS_SHOWN = 3  # keys of each kind that a message names before it only counts


def read_state_dict(path: Path | str, inside: str | None = None) -> dict[str, Tensor]:
    """Read a state dict (.safetensors, .pth, .pt) to the CPU. Nothing but tensors is ever unpickled.

    inside: for files known to be training checkpoints, the entry that holds the state dict ("state_dict" in
        LAION-CLAP's, "model" in GroundingDINO's). Without it, one of STATE_DICT_ENTRIES is taken, with a note, where it is the
        only state dict in the file. A `module.` before every name, of a wrapped model, is taken off, too.

    Raises InputError for a missing, damaged or unsafe file, and for one that holds no plain state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; see pretrained/README.md, or ask for 'random' weights")
    content = _read(path)
    if inside is not None:
        if not isinstance(content, Mapping) or inside not in content:
            raise InputError(f"{path}: no training checkpoint, for it has no entry '{inside}'")
        content = content[inside]
    elif isinstance(content, Mapping) and (entry := _find_entry(content)):
        print(f"note: {path}: the weights are those of its entry '{entry}'", file=sys.stderr)
        content = content[entry]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: not a plain state dict but a {type(content).__name__}")
    if strange := [str(k) for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))]:
        raise InputError(f"{path}: not a plain state dict; no tensors: {_summarize(strange)} (a training checkpoint?)")
    state = dict(content)
    if state and all(key.startswith("module.") for key in state):
        if inside is None:
            print(f"note: {path}: 'module.', before every name of a wrapped model, is taken off", file=sys.stderr)
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _find_entry(content: Mapping[Any, Any]) -> str:
    """The entry of a training checkpoint that holds its weights; empty if there is none, or more than one might."""
    found = [str(name) for name, value in content.items() if _is_state_dict(value)]
    return found[0] if len(found) == 1 and found[0] in STATE_DICT_ENTRIES else ""


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def load_checkpoint(
    module: nn.Module, path: Path | str, load: Callable[[dict[str, Tensor]], object] | None = None
) -> None:
    """Load a checkpoint strictly, by `load` where the file's names must be mapped first.

    Raises InputError that names missing, unexpected and misshapen keys; `module` then is as it was.
    """
    state = read_state_dict(path)
    # Loaders that end in torch's own load_state_dict would copy what fits before they complain at length.
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
    """Load `state`, all of it, into all of `module` but for what is meant to keep its random weights.

    random: beginnings of the names that keep them. `state` must not have these.
    counters: whether BatchNorm's num_batches_tracked, which nothing here uses, must be in `state` as well.

    Returns the names that kept their random weights. Raises RuntimeError naming missing, unexpected and misshapen
    keys, before anything is copied.
    """
    if problem := describe_mismatch(module, state, random, counters):
        raise RuntimeError(problem)
    own = module.state_dict()
    module.load_state_dict({**own, **state}, strict=True)
    return [key for key in own if key.startswith(random)]


def describe_mismatch(
    module: nn.Module, state: Mapping[str, Tensor], random: tuple[str, ...] = (), counters: bool = True
) -> str:
    """What keeps `state` from fitting, as `fit` understands it: one line, empty if nothing does.

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
    # The sum is the faster test, and can only be wrong by overflowing.
    return bool(torch.isfinite(value.float().sum())) or bool(torch.isfinite(value.float()).all())


def _raise_on_mismatch(module: nn.Module, state: Mapping[str, Tensor], *_: object) -> None:
    # As in torch's own strict loading, files from before PyTorch 0.4.1 may do without counters.
    if problem := describe_mismatch(module, state, counters=False):
        raise RuntimeError(problem)
    if bad := [key for key, value in state.items() if not is_finite(value)]:
        raise RuntimeError(f"not finite {_summarize(bad)}")


def _read(path: Path) -> object:
    """A file's content. Raises InputError if it is damaged, no checkpoint, or holds more than tensors."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_archive(path)
        with warnings.catch_warnings():  # torch remarks on formats that it goes on to refuse
            warnings.simplefilter("ignore")
            # Read whole, an older file cannot ask for buffers longer than it is.
            source = path if start.startswith(b"PK") else io.BytesIO(path.read_bytes())
            return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if start.startswith(b"version https://git-lfs"):
            raise InputError(f"{path}: a git-LFS pointer, not the checkpoint itself") from error
        if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise InputError(f"{path}: a web page, not a checkpoint; fetch it again") from error
        if "TorchScript" in str(error):
            raise InputError(f"{path}: a TorchScript program, not a state dict") from error
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named or ("Weights only load failed" in str(error) and start.startswith((b"PK", b"\x80"))):
            what = named[1] if named else "a pickle of another kind"
            raise InputError(f"{path}: refused, for it holds more than tensors ({what}), or is damaged") from error
        if isinstance(error, SafetensorError | OSError | RuntimeError | ValueError | zipfile.BadZipFile):
            raise InputError(f"{path}: damaged, or no checkpoint ({reason})") from error
        raise InputError(f"{path}: damaged, or no checkpoint") from error


def check_archive(path: Path, sums: bool = False) -> None:
    """Raise ValueError for what torch.save never writes: what is neither pickle nor archive, or unpacks into more
    than the file has. sums: also for records that are not as their checksums say, which torch does not look at."""
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
            if sums and archive.testzip() is not None:
                raise ValueError("a record's checksum is wrong")
    elif start[:1] != b"\x80":
        raise ValueError("neither an archive nor a pickle")


def _summarize(keys: list[str]) -> str:
    return f"{len(keys)}: {', '.join(keys[:MAX_KEYS_SHOWN])}{', ...' if len(keys) > MAX_KEYS_SHOWN else ''}"
