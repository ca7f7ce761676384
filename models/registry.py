"""The register of networks, each with the checkpoints that fit it.

    create_model("audioclip", weights="audioclip-full")     a public checkpoint (pretrained/checkpoints.yaml)
    create_model("audioclip", weights="mini")               the small weights that ship with the repository
    create_model("sam_vit_b", weights="DIR/sam_vit_b.pth")  any file
    create_model("sam_vit_b", weights="random")             no file

models/weights.py finds the files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.weights import find_weights, require_weights
from utils.cli import InputError

if TYPE_CHECKING:  # commands that only look for files need not wait for torch
    from torch import nn


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
