"""The register of networks and of their checkpoints.

    create_model("audioclip", weights="audioclip-full")     a public checkpoint (pretrained/checkpoints.yaml)
    create_model("audioclip", weights="mini")               the small weights that ship with the repository
    create_model("sam_vit_b", weights="DIR/sam_vit_b.pth")  any file
    create_model("sam_vit_b", weights="random")             no file

The same words name a checkpoint in Python, in every YAML file and on every command line. Names are looked up in
`pretrained/` of this checkout, whatever the current directory is, or in the folder that the environment variable
SAM4AVS_WEIGHTS names; paths are relative to the current directory.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from utils.cli import InputError

if TYPE_CHECKING:  # commands that only look for files need not wait for torch
    from torch import nn

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
MINI_DIR = PRETRAINED / "mini"
SMALL_FILES = ("audioclip.safetensors", "sam.safetensors")  # in a folder of small weights


@dataclass(frozen=True)
class Checkpoint:
    """An entry of pretrained/checkpoints.yaml, which explains the fields.

    The inputs of published outputs (pretrained/known_outputs.py) have the same form; pretrained.download needs `option`
    before their names.
    """

    name: str
    file: str | None
    url: str | None = None
    hub: str = ""
    revision: str = ""
    instructions: str = ""
    size: int | None = None
    megabytes: float | None = None
    sha256: str = ""
    sha256_prefix: str = ""
    license: str = ""
    gated: bool = False
    non_commercial: bool = False
    used_by: Sequence[str] = ()
    recipes: Sequence[str] = ()
    note: str = ""
    inferred: str = ""
    option: str = ""

    @property
    def command(self) -> str:
        """The command that downloads the file."""
        return f"python -m pretrained.download {self.option}{self.name}"

    @property
    def downloadable(self) -> bool:
        """Whether a program can download it, after a login if it is gated."""
        return bool(self.file and (self.url or self.hub))

    @property
    def digest(self) -> str:
        """The sha256 of the file, or its published first digits; empty if no checksum is published."""
        return self.sha256 or self.sha256_prefix


@dataclass(frozen=True)
class _Model:
    """An entry of the register.

    Attributes:
        build: makes the network from the path of a checkpoint (None for random weights) and constructor arguments.
        weights: names of the checkpoints that fit, the default first.
        small: name of the network in a folder of small weights; empty if there are none.
    """

    build: "Callable[..., nn.Module]"
    weights: Sequence[str]
    small: str = ""


@cache
def list_checkpoints() -> tuple[Checkpoint, ...]:
    """The files of pretrained/checkpoints.yaml, in its order."""
    text = (PRETRAINED / "checkpoints.yaml").read_text(encoding="utf-8")
    return tuple(Checkpoint(**fields) for fields in yaml.safe_load(text))


def weights_dir() -> Path:
    """The folder of the public checkpoints: SAM4AVS_WEIGHTS, or `pretrained/` of this checkout."""
    return Path(os.environ.get("SAM4AVS_WEIGHTS") or PRETRAINED).expanduser()


def find_weights(weights: str | Path, small: str = "") -> Path | None:
    """The path of a checkpoint given by name or path, whether it exists or not; None for "random".

    Args:
        weights: a name in pretrained/checkpoints.yaml or its repository on the hub, "mini", "random", or a path.
        small: name of the network in a folder of small weights ("audioclip" or "sam"), to which "mini" and the path of
            such a folder refer.

    Raises:
        InputError: if `weights` is neither a registered name nor looks like a path.
    """
    if str(weights) == "random":
        return None
    if str(weights) == "mini":
        if not small:
            raise InputError("mini: this network has no small weights")
        return MINI_DIR / f"{small}.safetensors"
    for checkpoint in list_checkpoints():
        if checkpoint.file and str(weights) in (checkpoint.name, checkpoint.hub or checkpoint.name):
            return weights_dir() / checkpoint.file
    path = Path(weights).expanduser()
    if small and (path.is_dir() or (path / f"{small}.json").is_file()):
        return path / f"{small}.safetensors"
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        names = ", ".join([checkpoint.name for checkpoint in list_checkpoints() if checkpoint.file])
        raise InputError(f"{weights}: no checkpoint of this name and no such file; names: mini, random, {names}")
    return path


def checkpoint_name(weights: str | Path) -> str:
    """The registered name of a checkpoint given by name or path, by its file name; else the argument as a string.

    A file in a registered folder has the folder's name.
    """
    names = {checkpoint.file: checkpoint.name for checkpoint in list_checkpoints()}
    path = Path(weights)
    return names.get(path.name) or names.get(path.parent.name, str(weights))


def require_weights(path: Path) -> None:
    """Raise InputError if a checkpoint does not exist, with the command that gets it if there is one."""
    if path.is_file():
        return
    command = command_for(path)
    if is_small_weights(path):
        raise InputError(f"{path}: no such file; {command} makes it")
    if command:
        raise InputError(f"{path}: no such checkpoint; {command} gets it")
    raise InputError(f"{path}: no such checkpoint; see pretrained/README.md, or use 'random'")


def command_for(path: Path) -> str:
    """The command that downloads a public checkpoint (a file, or a folder or a file in it), or trains small weights.

    Empty if there is none.
    """
    if is_small_weights(path):
        return f"python -m synthetic.train {path.stem} --out {path.parent}"
    for checkpoint in list_checkpoints():
        for found in (path, path.parent) if checkpoint.hub else (path,):  # a folder, or a file in it
            if checkpoint.file == found.name and checkpoint.downloadable:
                folder = "" if found.parent.resolve() == weights_dir().resolve() else f" --to {found.parent}"
                return f"{checkpoint.command}{folder}"
    return ""


def is_small_weights(path: Path) -> bool:
    """Whether a checkpoint is one of small weights, whose sizes are in the JSON file next to it."""
    return path.name in SMALL_FILES


def create_model(name: str, weights: str | Path | None = None, **options: Any) -> Any:
    """A network in eval mode on the CPU, filled from a checkpoint.

    Args:
        name: one of `list_models()`.
        weights: a registered name, "mini", "random", or a path; default: the first of `list_weights(name)`.
        options: of the network's constructor, such as fidelity="published" for "audioclip".

    Returns:
        The network.

    Raises:
        InputError: for an unknown name, or a checkpoint that is missing, damaged, or does not fit.
    """
    if name not in _MODELS:
        raise InputError(f"{name}: no such model; choose from {', '.join(_MODELS)}")
    model = _MODELS[name]
    path = find_weights(weights if weights is not None else model.weights[0], model.small)
    if path is not None:
        require_weights(path)
    return model.build(path, **options).eval()


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` takes; `pattern` as in shells ("sam_*")."""
    return [name for name in _MODELS if fnmatchcase(name, pattern)]


def list_weights(model: str | None = None) -> list[str]:
    """The names of checkpoints that fit a model, the default first; of all models without one."""
    if model is not None and model not in _MODELS:
        raise InputError(f"{model}: no such model; choose from {', '.join(_MODELS)}")
    chosen = _MODELS.values() if model is None else [_MODELS[model]]
    return list(dict.fromkeys(name for entry in chosen for name in entry.weights))


def _audioclip(path: Path | None, **options: Any) -> "nn.Module":
    from models.audioclip import AudioCLIP
    from models.checkpoints import load_checkpoint
    from models.key_maps import load_audioclip
    from models.small_weights import load_small

    if path is not None and path.name == "audioclip.safetensors":
        return load_small(path, lambda sizes: AudioCLIP(**{**options, **sizes}))
    model = AudioCLIP(**options)
    if path is not None:
        load_checkpoint(model, path, lambda state: load_audioclip(model, state))
    return model


def _sam(config: str) -> "Callable[..., nn.Module]":
    def build(path: Path | None) -> "nn.Module":
        from models.checkpoints import load_checkpoint
        from models.sam import SamConfig, build_sam, matching_configs
        from models.small_weights import load_small

        small = path is not None and path.name == "sam.safetensors"
        if small and config != "mini":
            raise InputError(f"{path}: small weights do not fit sam_{config}; use sam_mini (--sam.model mini)")
        if path is not None and small:
            return load_small(path, lambda sizes: build_sam(SamConfig(**sizes)))
        if config == "mini":
            fits = "" if path is None else f", for this file --sam.model {' or '.join(matching_configs(path))}"
            raise InputError(f"{path or 'random'}: sam_mini takes a folder of small weights{fits}")
        sam = build_sam(config)
        if path is not None:
            load_checkpoint(sam, path)
        return sam

    return build


def _vggish(path: Path | None) -> "nn.Module":
    from models.checkpoints import load_checkpoint
    from models.vggish import VGGish

    model = VGGish()
    if path is not None:
        load_checkpoint(model, path)
    return model


def _reference(name: str, **fixed: Any) -> "Callable[..., nn.Module]":
    """Builder of a segmentor, which loads checkpoints of the original code."""

    def build(path: Path | None, **options: Any) -> "nn.Module":
        import models
        from models.checkpoints import load_checkpoint

        model: Any = getattr(models, name)(**fixed, **options)
        if path is not None:
            load_checkpoint(model, path, model.load_reference)
        return model

    return build


_MODELS = {
    "audioclip": _Model(_audioclip, ("audioclip-full", "audioclip-partial", "mini", "random"), "audioclip"),
    "sam_vit_h": _Model(_sam("vit_h"), ("sam-vit-h", "random"), "sam"),
    "sam_vit_l": _Model(_sam("vit_l"), ("sam-vit-l", "random"), "sam"),
    "sam_vit_b": _Model(_sam("vit_b"), ("sam-vit-b", "random"), "sam"),
    "sam_mini": _Model(_sam("mini"), ("mini",), "sam"),
    "vggish": _Model(_vggish, ("vggish", "random")),
    "tpavi_resnet50": _Model(_reference("TPAVISegmentor", backbone="resnet50"), ("random",)),
    "tpavi_pvt_v2_b5": _Model(_reference("TPAVISegmentor", backbone="pvt_v2_b5"), ("random",)),
    "avsegformer_resnet50": _Model(_reference("AVSegFormer", backbone="resnet50"), ("random",)),
    "avsegformer_pvt_v2_b5": _Model(_reference("AVSegFormer", backbone="pvt_v2_b5"), ("random",)),
    "audioclip_fpn": _Model(_reference("AudioCLIPSegmentor"), ("random",)),
}
