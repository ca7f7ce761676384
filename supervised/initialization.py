"""The initial weights of a run: a checkpoint for each tower; parameters that it does not fill stay random.

| checkpoint                          | image tower                          | audio tower     |
|-------------------------------------|--------------------------------------|-----------------|
| audioclip-full, audioclip-partial   | all                                  | all             |
| clip-rn50                           | all                                  |                 |
| resnet50                            | all but the stem and the attention   |                 |
| esresnext-fbsp                      |                                      | all but `fc`    |
| vggish                              |                                      | all, in VGGish  |
| mini, or a folder of small weights  | all                                  | all             |
| random                              | nothing                              | nothing         |

A path works like the name of its file; the content decides how it is loaded (models.key_maps).
Source: SAM4AVS (BMVC 2023), the ablation of initial weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.checkpoints import load_checkpoint, load_strict
from models.key_maps import load_audio, load_visual
from models.registry import create_model
from models.weights import find_weights, is_small_weights, require_weights
from utils.files import sha256


@dataclass
class InitRecord:
    """The initial weights of a tower.

    Attributes:
        tower: "visual" or "audio".
        file: the checkpoint; None for random weights.
        random: names of the parameters and buffers that keep random weights.
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
        """Path and sha256 of the checkpoint and the names that stay random, for initial_weights.json."""
        digest = None if self.file is None else sha256(self.file)
        return {"file": None if self.file is None else str(self.file), "sha256": digest, "random": self.random}


def init_tower(tower: str, module: nn.Module, weights: str) -> InitRecord:
    """Fill AudioCLIP's image or audio tower from a checkpoint.

    Args:
        tower: "visual" or "audio".
        module: the tower.
        weights: a name or a path, as in the table above.

    Raises:
        InputError: if the checkpoint is missing or does not fit.
    """
    path = find_weights(weights, "audioclip")
    if path is not None and is_small_weights(path):
        state = getattr(create_model("audioclip", path), tower).state_dict()
        return _init(tower, module, path, lambda _: load_strict(module, state))
    loader = load_visual if tower == "visual" else load_audio
    return _init(tower, module, path, lambda state: loader(module, state))


def init_module(
    tower: str, module: nn.Module, weights: str, load: Callable[[dict[str, Tensor]], Any] | None = None
) -> InitRecord:
    """Fill a whole network from a checkpoint.

    Args:
        tower: "visual" or "audio", for the record.
        module: the network.
        weights: a registered name, "random" or a path.
        load: loads a state dict whose keys need mapping; default: a strict load.

    Raises:
        InputError: if the checkpoint is missing or does not fit.
    """
    return _init(tower, module, find_weights(weights), load)


def _init(
    tower: str, module: nn.Module, path: Path | None, load: Callable[[dict[str, Tensor]], Any] | None
) -> InitRecord:
    if path is None:
        return InitRecord(tower, None, list(module.state_dict()))
    require_weights(path)
    kept: list[Any] = []
    load_checkpoint(module, path, (lambda state: kept.append(load(state))) if load else None)
    return InitRecord(tower, path, kept[0] if kept and kept[0] else [])
