"""What a run starts from: the files that its options name for each tower, and what no file fills.

| name              | file                          | image tower                          | audio tower              |
|-------------------|-------------------------------|--------------------------------------|--------------------------|
| audioclip-full    | AudioCLIP-Full-Training.pt    | all                                  | all                      |
| audioclip-partial | AudioCLIP-Partial-Training.pt | all                                  | all                      |
| clip              | CLIP.pt                       | all                                  |                          |
| resnet50          | resnet50-19c8e357.pth         | all but the stem and the attention   |                          |
| esresnext         | ESRNXFBSP.pt                  |                                      | all but `fc`             |
| vggish            | vggish-10086976.pth           |                                      | all, in VGGish           |
| mini              | mini/audioclip.safetensors    | all                                  | all                      |
| random            |                               | nothing                              | nothing                  |

Source: SAM4AVS (BMVC 2023), the ablation of initial weights.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.checkpoints import load_checkpoint, load_strict
from models.key_maps import load_audio, load_visual
from models.mini import load_mini_audioclip
from pretrained.download import FOLDER, list_entries
from supervised.sources import tower_file
from utils.cli import InputError
from utils.files import sha256


@dataclass
class InitRecord:
    """What a tower started from.

    tower: "visual" or "audio". file: None for random weights. random: the names, in the tower, of what no file filled.
    """

    tower: str
    file: Path | None
    random: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.file is None:
            return f"{self.tower} tower: random weights"
        kept = f"; random: {', '.join(self.random)}" if self.random else ""
        return f"{self.tower} tower: {self.file}{kept}"

    def record(self) -> dict[str, Any]:
        """For a JSON file: the file's name and sha256, and what stayed random."""
        digest = None if self.file is None else sha256(self.file)
        return {"file": None if self.file is None else str(self.file), "sha256": digest, "random": self.random}


def load_tower(tower: str, module: nn.Module, name: str, folder: Path) -> InitRecord:
    """Fill AudioCLIP's image ("visual") or audio tower by a name of the table. Raises InputError."""
    if name == "random":
        return InitRecord(tower, None, list(module.state_dict()))
    path = tower_file(name, folder)
    if name == "mini":
        source = load_mini_audioclip(folder / "mini")
        state = (source.visual if tower == "visual" else source.audio).state_dict()
        return InitRecord(tower, path, _load(module, path, lambda _: load_strict(module, state)))
    loader = load_visual if tower == "visual" else load_audio
    return InitRecord(tower, path, _load(module, path, lambda state: loader(module, state)))


def load_file(
    tower: str, module: nn.Module, path: str, load: Callable[[dict[str, Tensor]], object] | None
) -> InitRecord:
    """Fill a whole module from the file at `path`, or leave it if that is "random". Raises InputError."""
    if path == "random":
        return InitRecord(tower, None, list(module.state_dict()))
    _load(module, Path(path), load)
    return InitRecord(tower, Path(path))


def mini_sizes(folder: Path) -> dict[str, Any]:
    """The sizes of the miniature AudioCLIP in `folder`/mini. Raises InputError if it is missing or damaged."""
    load_mini_audioclip(folder / "mini")
    return json.loads((folder / "mini" / "audioclip.json").read_text(encoding="utf-8"))["model"]


def _load(module: nn.Module, path: Path, load: Callable[[dict[str, Tensor]], Any] | None) -> list[str]:
    """load_checkpoint, which tells how to fetch the file if it is a public one; returns what `load` does."""
    public = [entry.name for entry in list_entries() if entry.file == path.name]
    if public and not path.is_file():
        elsewhere = "" if path.parent.resolve() == FOLDER.resolve() else f" --to {path.parent}"
        raise InputError(f"{path}: no such checkpoint; get it by python -m pretrained.download {public[0]}{elsewhere}")
    kept: list[Any] = []
    load_checkpoint(module, path, (lambda state: kept.append(load(state))) if load else None)
    return kept[0] if kept and kept[0] else []
