"""What a training needs to know about a network: the base class of AudioCLIPTask and SamTask."""

import argparse
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from synthetic.clips.assets import AssetLibrary, open_assets
from utils.cli import InputError
from utils.files import sha256
from utils.words import counted

Metrics = dict[str, dict[str, float]]  # for each evaluation set, the metrics by name


class Task(ABC):
    """A network, its training data and its loss.

    Args:
        args: the parsed command line of synthetic.train.

    Attributes:
        name: of the network's files.
        loss_name: label of the loss curve.
        sizes: constructor arguments of the network; --sizes overrides them.

    Raises:
        InputError: if --sizes is not JSON.
    """

    name: str
    loss_name: str
    sizes: dict[str, Any]

    def __init__(self, args: argparse.Namespace):
        self.args = args
        if args.sizes:
            try:
                self.sizes = json.loads(args.sizes)
            except ValueError as error:
                raise InputError(f"--sizes: {error}") from error

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What the weights depend on, for the JSON file; a training resumes only with the same recipe."""

    @abstractmethod
    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """A new network, initialized from --seed."""

    def auxiliary_heads(self, model: nn.Module) -> nn.Module:
        """Modules that are trained together with the network and discarded at the end."""
        return nn.Module()

    @abstractmethod
    def load(self, folder: Path) -> nn.Module:
        """The trained network of a folder, in eval mode."""

    @abstractmethod
    def dataset(self, start: int) -> Dataset[Any]:
        """The samples of the steps from `start` on, in order."""

    def set_train_mode(self, model: nn.Module) -> None:
        """Put the network into train mode."""
        model.train()

    @abstractmethod
    def loss(self, model: nn.Module, heads: nn.Module, batch: Any, step: int) -> Tensor:
        """The loss of a batch, a scalar."""

    @abstractmethod
    def lr_factor(self, step: int) -> float:
        """Factor of the learning rate in a step."""

    def extra_metadata(self, model: nn.Module) -> dict[str, Any]:
        """Further entries of the JSON file."""
        return {}

    @abstractmethod
    def stages(self) -> dict[str, int]:
        """The first step of each later stage of the curriculum, by name, for the loss curve."""

    @abstractmethod
    def evaluate(self) -> Metrics:
        """Evaluate the weights in --out on data that they were not trained on."""

    def assets(self) -> AssetLibrary:
        """The objects and backgrounds of the scenes."""
        return open_assets(self.args.pictures, self.args.backgrounds)

    def describe_assets(self) -> str:
        """The objects and backgrounds in words, with a digest of their files."""
        assets, args = self.assets(), self.args
        objects, backgrounds = "built-in objects", ""
        if args.pictures:
            digest = combined_digest(assets.object_files)
            objects = (
                f"objects of {args.pictures} ({counted(len(assets.categories), 'category', 'categories')}, {digest})"
            )
        if args.backgrounds:
            digest = combined_digest(assets.photographs)
            backgrounds = (
                f" and backgrounds of {args.backgrounds} ({counted(len(assets.photographs), 'photograph')}, {digest})"
            )
        return f"scenes rendered on the fly with the {objects}{backgrounds}"

    def schedule(self) -> dict[str, Any]:
        """The entries that every recipe has."""
        args = self.args
        start = f"the weights in {args.start}" if args.start else "random weights"
        return {"start": start, "seed": args.seed, "steps": args.steps, "batch": args.batch, "lr": args.lr}


def combined_digest(files: Sequence[Path]) -> str:
    """Eight hexadecimal digits that identify the contents of a set of files."""
    return f"{sum(int(sha256(path)[:8], 16) for path in files) % 16**8:08x}"
