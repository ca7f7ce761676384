"""The miniature networks that ship with the repository: the classes of the real ones at small sizes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from segment_anything.modeling import Sam
from torch import nn

from models.audioclip import AudioCLIP
from models.checkpoints import describe_mismatch, load_checkpoint, read_state_dict
from models.sam import SAM_CONFIGS, SamConfig, build_sam
from utils.cli import InputError

MINI = Path(__file__).resolve().parents[1] / "pretrained" / "mini"
MAX_SIZE = 8192  # number in a miniature's notes
M = TypeVar("M", bound=nn.Module)


def load_mini_audioclip(folder: Path | str = MINI) -> AudioCLIP:
    """The miniature AudioCLIP, in eval mode; audioclip.json says its sizes and how it was trained.

    It has no text tower. Its logit_scale_ai is the learned one, by which its cosines are calibrated. Raises
    InputError for files that are missing or damaged, or do not fit each other.
    """
    return _load(Path(folder) / "audioclip.json", "an AudioCLIP", lambda sizes: AudioCLIP(**sizes))


def load_mini_sam(folder: Path | str = MINI) -> Sam:
    """The miniature SAM, in eval mode; sam.json says its sizes, how it was trained, and thresholds for proposals.

    Raises InputError for files that are missing or damaged, or do not fit each other.
    """
    return _load(Path(folder) / "sam.json", "a SAM", lambda sizes: build_sam(SamConfig(**sizes)))


def _load(notes: Path, what: str, build: Callable[[dict[str, Any]], M]) -> M:
    """The model of the sizes in the notes, filled from the safetensors beside them."""
    if notes.parent.is_file():
        raise InputError(
            f"{notes.parent}: is a file, but a miniature is a folder with {notes.name} and "
            f"{notes.stem}.safetensors{_size_of(notes.parent) if notes.stem == 'sam' else ''}"
        )
    if not notes.is_file():
        raise InputError(f"{notes}: no such file; python -m synthetic.train {notes.stem} --out {notes.parent} makes it")
    try:
        sizes = json.loads(notes.read_text(encoding="utf-8"))["model"]
        if _largest(sizes) > MAX_SIZE:
            raise ValueError(f"a size above {MAX_SIZE}")
        with torch.device("meta"):
            plan = build(sizes)  # takes no memory, whatever the sizes are
    except Exception as error:  # of as many kinds as there are ways to build what cannot be
        raise InputError(f"{notes}: does not say the sizes of {what} ({error})") from error
    weights = notes.with_suffix(".safetensors")
    if problem := describe_mismatch(plan, read_state_dict(weights), counters=False):
        raise InputError(f"{weights}: does not fit {type(plan).__name__}: {problem}")
    model = build(sizes)
    load_checkpoint(model, weights)
    return model.eval()


def _size_of(path: Path) -> str:
    """Which size of SAM a file of weights is of, as far as its name or length tells, in the words of the options."""
    with torch.device("meta"):
        lengths = {name: 4 * sum(p.numel() for p in build_sam(name).parameters()) for name in SAM_CONFIGS}
    length = path.stat().st_size
    fits = [name for name, size in lengths.items() if name in path.name or 0.95 < length / size < 1.05]
    return f"; for this file say --sam.model {fits[0] if len(fits) == 1 else ' or '.join(SAM_CONFIGS)}"


def _largest(sizes: Any) -> float:
    """The largest number in the notes; layers count a hundredfold, for each takes modules."""
    if isinstance(sizes, Mapping):
        return max((_largest(v) * (100 if "layers" in k or k == "depth" else 1) for k, v in sizes.items()), default=0)
    if isinstance(sizes, list):
        return max(map(_largest, sizes), default=0) * max(1, len(sizes) / 4)
    return sizes if isinstance(sizes, int | float) else 0
