"""What others have published for the public checkpoints (pretrained/known_outputs.yaml), and its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from models.weights import PRETRAINED, Checkpoint, weights_dir
from utils.cli import InputError
from utils.files import sha256

KNOWN_OUTPUTS = PRETRAINED / "known_outputs.yaml"


@dataclass(frozen=True)
class Check:
    """A published output; known_outputs.yaml explains the fields."""

    id: str
    checkpoints: Sequence[str]
    level: str
    kind: str
    weights: str
    how: str
    sources: Sequence[Mapping[str, Any]]
    inputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    published_tolerance: str = ""
    same_top: bool = False
    partial: bool = False
    also_seen: Mapping[str, Any] = field(default_factory=dict)
    caveats: Sequence[str] = ()

    @property
    def source(self) -> str:
        """The level and the first source, in one word each."""
        first = self.sources[0]
        commit = f"@{first['commit'][:7]}" if first["commit"] else ""
        return f"{self.level} {first['repo']}{commit}"


@dataclass(frozen=True)
class KnownOutputs:
    """The content of a file such as known_outputs.yaml.

    Attributes:
        inputs: by name, in the form of the checkpoints; `used_by` are the checks that need it.
        checks: in the file's order.
    """

    inputs: Mapping[str, Checkpoint]
    checks: Sequence[Check]


@cache
def read_known_outputs(path: Path = KNOWN_OUTPUTS) -> KnownOutputs:
    """Read a file of published outputs.

    Raises:
        InputError: if it cannot be read or has another form.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        vectors = content.get("vectors", {})
        checks = [_read_check(entry, vectors) for entry in content["checks"]]
        inputs = {}
        for name, entry in content["inputs"].items():
            users = [check.id for check in checks if name in check.inputs]
            fields = {key: entry[key] for key in ("file", "instructions", "size", "sha256") if key in entry}
            note, url = entry["what"], entry.get("url")
            inputs[name] = Checkpoint(name, url=url, used_by=users, note=note, option="--inputs ", **fields)
        return KnownOutputs(inputs, checks)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a file of published outputs ({error})") from error


def _read_check(entry: Mapping[str, Any], vectors: Mapping[str, Any]) -> Check:
    parameters = dict(entry.get("parameters", {}))
    if "vector" in parameters:
        parameters["vector"] = vectors[parameters["vector"]]
    return Check(**{**entry, "parameters": parameters})


def list_inputs() -> tuple[Checkpoint, ...]:
    """The inputs of the published outputs, in the form of the checkpoints."""
    return tuple(read_known_outputs().inputs.values())


def inputs_dir() -> Path:
    """The folder of the inputs, beside the checkpoints."""
    return weights_dir() / "inputs"


class Inputs:
    """Finds the files of the inputs.

    Args:
        known: what belongs to each name.
        folder: where they are under their own names.
        given: files and folders that the user has named instead.
    """

    def __init__(self, known: Mapping[str, Checkpoint], folder: Path, given: Mapping[str, Path] | None = None) -> None:
        self.known, self.folder, self.given = known, folder, given or {}

    def has(self, name: str) -> bool:
        """Whether the input exists."""
        return self._place(name).exists()

    def path(self, name: str) -> Path:
        """The file or folder of an input.

        Raises:
            InputError: if it does not exist, or is not the file of the published output, as far as its sha256 is known.
        """
        known, path = self.known[name], self._place(name)
        if not path.exists():
            how = f"{known.command} gets it" if known.url else known.instructions
            raise InputError(f"{path}: no such input ({name}); {how}, or name yours by --input {name}=FILE")
        if known.sha256 and (path.is_dir() or sha256(path) != known.sha256):
            raise InputError(f"{path}: not the published input {name}: its sha256 is another one")
        return path

    def _place(self, name: str) -> Path:
        return self.given.get(name) or self.folder / str(self.known[name].file)
