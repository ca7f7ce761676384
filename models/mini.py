"""The miniature networks that ship with the repository: the classes of the real ones at small sizes."""

import json
from pathlib import Path

from models.audioclip import AudioCLIP
from models.checkpoints import load_checkpoint
from utils.cli import InputError

MINI = Path(__file__).resolve().parents[1] / "pretrained" / "mini"


def load_mini_audioclip(folder: Path | str = MINI) -> AudioCLIP:
    """The miniature AudioCLIP, in eval mode; audioclip.json says its sizes and how it was trained.

    It has no text tower. Its logit_scale_ai is the learned one, by which its cosines are calibrated. Raises
    InputError for files that are missing or damaged, or do not fit each other.
    """
    notes = Path(folder) / "audioclip.json"
    if not notes.is_file():
        raise InputError(f"{notes}: no such file; python -m pretrained.train_mini audioclip --out {folder} makes it")
    try:
        model = AudioCLIP(**json.loads(notes.read_text(encoding="utf-8"))["model"])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{notes}: does not say the sizes of an AudioCLIP ({error})") from error
    load_checkpoint(model, notes.with_suffix(".safetensors"))
    return model.eval()
