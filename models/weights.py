"""Where checkpoints are: their names, files, and the commands that get them.

A name in pretrained/checkpoints.yaml, "mini", "random" and a path mean the same in Python, in every YAML file and on
every command line. Names are looked up in `pretrained/` of this checkout, whatever the current directory is, or in the
folder that the environment variable SAM4AVS_WEIGHTS names; paths are relative to the current directory.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from utils.cli import InputError
from utils.words import counted

PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
MINI_DIR = PRETRAINED / "mini"
STAND_INS = "tiny"  # the name of a folder of random networks of transformers
STAND_INS_COMMAND = "python -m synthetic.random_grounding"  # writes pretrained/tiny
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
    selected_by: Sequence[str] = ()
    note: str = ""
    inferred: str = ""
    option: str = ""

    @property
    def command(self) -> str:
        """The command that downloads the file."""
        return f"python -m pretrained.download {self.option}{self.name}"

    @property
    def if_gated(self) -> str:
        """What to do before downloading a gated file, to be appended to `command`; empty for others."""
        return f" (gated: ask for access at https://huggingface.co/{self.hub} first)" if self.gated else ""

    @property
    def downloadable(self) -> bool:
        """Whether a program can download it, after a login if it is gated."""
        return bool(self.file and (self.url or self.hub))

    @property
    def digest(self) -> str:
        """The sha256 of the file, or its published first digits; empty if no checksum is published."""
        return self.sha256 or self.sha256_prefix


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
    if (found := _download(path)) is None:
        return ""
    checkpoint, folder = found
    return checkpoint.command + _to(folder)


def require_downloads(paths: Iterable[Path]) -> None:
    """Raise InputError if several public checkpoints are missing, with the one command that gets them all.

    What else is missing, and a single checkpoint, is left to whoever reads it, who knows more of it.
    """
    missing: dict[Path, dict[str, Checkpoint]] = {}
    for path in paths:
        if not path.exists() and (found := _download(path)):
            checkpoint, folder = found
            missing.setdefault(folder, {})[checkpoint.name] = checkpoint
    for folder, checkpoints in missing.items():
        if len(checkpoints) > 1:
            gated = "".join(checkpoint.if_gated for checkpoint in checkpoints.values())
            raise InputError(
                f"{counted(len(checkpoints), 'checkpoint')} are missing in {folder}; python -m pretrained.download "
                f"{' '.join(checkpoints)}{_to(folder)} gets them{gated}"
            )


def _download(path: Path) -> tuple[Checkpoint, Path] | None:
    """The public checkpoint that a path names (a file, or a folder or a file in it), and the folder it belongs in."""
    for checkpoint in list_checkpoints():
        for found in (path, path.parent) if checkpoint.hub else (path,):
            if checkpoint.file == found.name and checkpoint.downloadable:
                return checkpoint, found.parent
    return None


def _to(folder: Path) -> str:
    """The option of pretrained.download for a folder."""
    return "" if folder.resolve() == weights_dir().resolve() else f" --to {folder}"


def is_small_weights(path: Path) -> bool:
    """Whether a checkpoint is one of small weights, whose sizes are in the JSON file next to it."""
    return path.name in SMALL_FILES
