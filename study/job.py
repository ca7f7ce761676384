"""What a study consists of: jobs, each of which is one run."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from study.fingerprint import compute_fingerprint, parse_options
from study.study_file import DatasetName, Regime, benchmark_of
from utils.fidelity import Fidelity
from utils.layout import BenchmarkName
from utils.sound_conditions import AudioCondition


class TableRow(NamedTuple):
    """A row of a table: the table's key in the study's file, and the row's label."""

    table: str
    label: str


@dataclass(frozen=True)
class Job:
    """One run: a row for one data set, fidelity, fraction of the training clips, and seed.

    Attributes:
        name: its run folder, relative to the study's.
        regime: zero_shot or supervised.
        rows: where the tables show its results.
        dataset: a benchmark, or harder clips in its layout.
        seed: None for the configuration's.
        config: the YAML file of its options.
        overrides: options in place of the file's, as words of a command line.
        root: the folder of the data.
        audio: what it is evaluated with.
        audio_seeds: of noise and of other sounds.
        offscreen_sounds: folder of sounds for audio "offscreen".
        modified: whether the row changes the configuration, so that nobody else's results are of the same run.
        gallery_clips: test clips of which it keeps images.
        seconds_per_clip: its estimated time, see study.estimates; None if the study has no estimate.
        preprocess_fidelity: of the command that preprocesses its data.
    """

    name: str
    regime: Regime
    rows: tuple[TableRow, ...]
    dataset: DatasetName
    fidelity: Fidelity
    seed: int | None
    config: Path
    overrides: tuple[str, ...]
    root: Path
    audio: tuple[AudioCondition, ...] = ("original",)
    audio_seeds: tuple[int, ...] = (0,)
    offscreen_sounds: Path | None = None
    modified: bool = False
    gallery_clips: int = 0
    seconds_per_clip: float | None = None
    preprocess_fidelity: Fidelity = "corrected"

    @property
    def benchmark(self) -> BenchmarkName:
        """The benchmark whose layout and configurations it uses."""
        return benchmark_of(self.dataset)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its options on a command line."""
        return ("--config", str(self.config), *self.overrides)

    @cached_property
    def options(self) -> Any:
        """Its options, of zero_shot.options.Options or supervised.options.Options.

        Raises:
            InputError: where the study or the configuration has an unknown option or a wrong value.
        """
        return parse_options(self.regime, self.arguments)

    @cached_property
    def fingerprint(self) -> tuple[str, ...]:
        """The digests of everything that its results depend on."""
        more: dict[str, Any] = {} if self.dataset == self.benchmark else {"dataset": self.dataset}
        if len(self.audio) > 1 and self.audio_seeds != (0,):
            more["audio_seeds"] = self.audio_seeds
        return compute_fingerprint(self.regime, self.options, self.root, self.benchmark, more)

    @property
    def fraction(self) -> float:
        """The fraction of the training clips that it uses; 1 for zero-shot runs."""
        return self.options.data.fraction if self.regime == "supervised" else 1.0

    def run_dir(self, runs: Path) -> Path:
        """Its run folder."""
        return runs / self.name

    def commands(self, runs: Path) -> list[list[str]]:
        """The commands that produce its results, in order."""
        python, folder = ["python", "-m"], str(self.run_dir(runs))
        extra = ["--strips", str(self.gallery_clips)] if self.gallery_clips else []
        if self.audio != ("original",):
            extra += ["--audio", *self.audio, "--audio-seeds", *map(str, self.audio_seeds)]
            extra += ["--offscreen-sounds", str(self.offscreen_sounds)] if self.offscreen_sounds else []
        if self.regime == "zero_shot":
            return [[*python, "zero_shot.evaluate", *self.arguments, "--out", folder, *extra]]
        return [
            [*python, "supervised.train", *self.arguments, "--out", folder],
            [*python, "supervised.evaluate", "--run-dir", folder, *extra],
        ]


@dataclass
class Study:
    """A list of jobs and the tables that show them.

    Attributes:
        name: of its tables and run folders.
        title: heading of its tables and its page.
        data: the folder of each data set.
        tables: titles of the tables by key, in order.
        unavailable: rows that it cannot run, each with the reason.
        clips: the number of clips in each split, by data set, as its file says.
        startup_seconds: estimated time before a job begins.
    """

    name: str
    title: str
    data: dict[DatasetName, Path]
    tables: dict[str, str]
    jobs: list[Job]
    unavailable: list[tuple[TableRow, str]] = field(default_factory=list)
    clips: dict[DatasetName, dict[str, int]] = field(default_factory=dict)
    startup_seconds: float = 0.0
