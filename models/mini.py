"""The miniature networks that ship with the repository: the classes of the real ones at small sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from segment_anything.modeling import Sam
from torch import nn

from models.audioclip import AudioCLIP
from models.checkpoints import load_checkpoint
from models.sam import SamSizes, build_sam
from utils.cli import InputError

MINI = Path(__file__).resolve().parents[1] / "pretrained" / "mini"
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
    return _load(Path(folder) / "sam.json", "a SAM", lambda sizes: build_sam(SamSizes(**sizes)))


def _load(notes: Path, what: str, build: Callable[[dict[str, Any]], M]) -> M:
    """The model of the sizes in the notes, filled from the safetensors beside them."""
    if not notes.is_file():
        raise InputError(
            f"{notes}: no such file; python -m pretrained.train_mini {notes.stem} --out {notes.parent} makes it"
        )
    try:
        model = build(json.loads(notes.read_text(encoding="utf-8"))["model"])
    except (ValueError, KeyError, TypeError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise InputError(f"{notes}: does not say the sizes of {what} ({error})") from error
    load_checkpoint(model, notes.with_suffix(".safetensors"))
    return model.eval()
