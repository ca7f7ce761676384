"""Small networks: the classes of the public ones with the sizes in a JSON file next to the weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from models.checkpoints import describe_mismatch, load_checkpoint, read_state_dict
from models.weights import command_for, is_small_weights
from utils.cli import InputError

MAX_SIZE = 8192  # bound of any number in the JSON file, against damaged files
M = TypeVar("M", bound=nn.Module)


def read_sizes(weights: Path) -> dict[str, Any]:
    """The sizes of a small network: the entry "model" of the JSON file next to its .safetensors file.

    Raises:
        InputError: if the JSON file is missing or has no plausible sizes.
    """
    notes = weights.with_suffix(".json")
    if not notes.is_file():
        remedy = f"{command_for(weights)} makes it" if is_small_weights(weights) else "name a folder of small weights"
        raise InputError(f"{notes}: no such file; {remedy}")
    try:
        sizes = json.loads(notes.read_text(encoding="utf-8"))["model"]
        if _max_size(sizes) > MAX_SIZE:
            raise ValueError(f"a size above {MAX_SIZE}")
        return dict(sizes)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{notes}: does not contain the sizes of a network ({error})") from error


def load_small(weights: Path, build: Callable[[dict[str, Any]], M]) -> M:
    """A small network in eval mode.

    Args:
        weights: the .safetensors file.
        build: constructs the network from the sizes.

    Raises:
        InputError: if a file is missing or damaged, or the two do not fit each other.
    """
    sizes = read_sizes(weights)
    try:
        with torch.device("meta"):
            skeleton = build(sizes)  # takes no memory, whatever the sizes are
    except Exception as error:  # impossible sizes raise errors of many types
        notes = weights.with_suffix(".json")
        raise InputError(f"{notes}: does not contain the sizes of a network ({error})") from error
    if problem := describe_mismatch(skeleton, read_state_dict(weights), counters=False):
        raise InputError(f"{weights}: does not fit {type(skeleton).__name__}: {problem}")
    model = build(sizes)
    load_checkpoint(model, weights)
    return model.eval()


def _max_size(sizes: Any) -> float:
    """The largest number; numbers of layers count a hundredfold, because each builds modules."""
    if isinstance(sizes, Mapping):
        return max((_max_size(v) * (100 if "layers" in k or k == "depth" else 1) for k, v in sizes.items()), default=0)
    if isinstance(sizes, list):
        return max(map(_max_size, sizes), default=0) * max(1, len(sizes) / 4)
    return sizes if isinstance(sizes, int | float) else 0
