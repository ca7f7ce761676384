"""What a study consists of: jobs, each of which is one run."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from study import fingerprint as key
from study.rows import TableRow
from utils.fidelity import Fidelity
from utils.layout import BenchmarkName

Kind = Literal["zero_shot", "supervised"]


@dataclass(frozen=True)
class Job:
    """One run: a row × benchmark × fidelity × seed.

    name: its run folder below the study's. table, row: where its figures stand; also: where else. fraction: of the
    training clips. config, overrides: the options, as words of a command line. own: whether the study changes the
    configuration's numbers. sounds: that it is evaluated with. pace: guessed seconds, see `study.estimate`.
    """

    name: str
    kind: Kind
    table: str
    row: str
    benchmark: BenchmarkName
    fidelity: Fidelity
    seed: int | None
    config: Path
    overrides: tuple[str, ...]
    root: Path
    fraction: float = 1.0
    audio_conditions: tuple[str, ...] = ("real",)
    also: tuple[TableRow, ...] = ()
    overridden: bool = False
    pictures: int = 0
    seconds_per_clip: float = 0.0

    @property
    def table_rows(self) -> tuple[TableRow, ...]:
        """(table, row) of every place where its figures stand."""
        return (TableRow(self.table, self.row), *self.also)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its options on a command line."""
        return ("--config", str(self.config), *self.overrides)

    @cached_property
    def options(self) -> Any:
        """Its options. Raises InputError where the study or the configuration names one that there is not."""
        return key.parse(self.kind, self.arguments)

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The digests of all that its numbers depend on."""
        return key.fingerprint_parts(self.kind, self.options, self.root, self.benchmark)

    def folder(self, runs: Path) -> Path:
        """Its run folder."""
        return runs / self.name

    def commands(self, runs: Path) -> list[list[str]]:
        """The commands that make it, in order."""
        python, folder = ["python", "-m"], str(self.folder(runs))
        pictures = ["--strips", str(self.pictures)] if self.pictures else []
        if self.kind == "zero_shot":
            return [[*python, "zero_shot.evaluate", *self.arguments, "--out", folder, *pictures]]
        evaluate = [*python, "supervised.evaluate", "--run-dir", folder]
        evaluations = [
            [*evaluate, *(["--audio", sound] if sound != "real" else pictures)] for sound in self.audio_conditions
        ]
        return [[*python, "supervised.train", *self.arguments, "--out", folder], *evaluations]


@dataclass
class Study:
    """A list of jobs. absent: rows that it has not, and why. clips: how many each split has, by benchmark. start:
    guessed seconds before a job begins."""

    name: str
    title: str
    data: dict[str, Path]
    jobs: list[Job]
    absent: list[tuple[TableRow, str]] = field(default_factory=list)
    clips: dict[str, dict[str, int]] = field(default_factory=dict)
    start: float = 0.0
