"""The YAML file of a study: every row of its tables, each written once.

title: My study                      heading of the tables and of the page
data: {s4: DIR, ms3: DIR, s4_hard: DIR}
                                     folders with the meta CSVs: of a benchmark, or of harder clips in its layout
clips: {s4: {train: N, val: N, test: N}, ...}
                                     sizes of the splits, for estimates where the data are missing; optional
configs: {zero_shot: DIR, supervised: DIR}
                                     folders with the configurations, BENCHMARK_NAME.yaml
options: {zero_shot: {data.num_workers: 0}, supervised: {...}}
                                     options of every run, by dotted name; optional
seconds_per_clip: {zero_shot: S, supervised: S, fpn: S}
                                     estimated time of a run per test clip (zero-shot), or per training clip and
                                     epoch (supervised); a key may also be how configuration names begin, and the
                                     longest one that fits counts; optional: without it the time is unknown until
                                     a run has finished
startup_seconds: S                   estimated time before a run begins
preprocess_fidelity: published       how the printed preprocess command writes the data; default: corrected
offscreen_sounds: DIR                sounds of no category of the data, for audio offscreen; optional
audio: [original, silent, noise]     what rows are evaluated with that do not say (utils/sound_conditions.py);
                                     default: [original]
audio_seeds: [0, 1, 2]               of noise and of other sounds; default: [0]
gallery_clips: N                     test clips of which each run keeps images, for the page; default: 4
tables: {zero_shot: Zero-shot, fusion: "Supervised: fusion", ...}
                                     titles of the tables, in the order in which they are shown. A table called
                                     `fraction` compares amounts of training data: it adds the fraction to the
                                     labels, and its plot is a curve. A table called `models` adds what training
                                     cost, and what is segmented in silence if `audio` has silent.
rows:
- zero_shot: point_local             the configuration without its benchmark; or supervised: fpn_concate
  tables: {zero_shot: Point-Prompt local}
                                     the tables that show the row, each with the row's label there
  name: other                        of its run folders; default: the configuration's. Needed where several rows
                                     have the same configuration.
  benchmarks: [s4, ms3, s4_hard]     keys of `data`; default: s4 and ms3
  fidelities: [published, corrected] default: [corrected]
  seeds: [0, 1, 2]                   supervised; default: the configuration's seed
  fractions: [0.2, 1]                supervised, fractions of the training clips; default: the configuration's
  audio: [original, shuffled]        what it is evaluated with; default: the study's
  options: {train.epochs: 4}         options of this row; s4: {...} and ms3: {...} for one benchmark
  seconds_per_clip: S                estimated time of this row
- {tables: {zero_shot: Box-Prompt}, unavailable: REASON}
                                     a row that this study cannot run; the reason is printed below the table
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from utils.cli import InputError
from utils.config import from_dict, read_yaml
from utils.fidelity import Fidelity
from utils.layout import BenchmarkName
from utils.option_ranges import MAX_SEED, bounded
from utils.paths import resolve_path
from utils.sound_conditions import AudioCondition

Regime = Literal["zero_shot", "supervised"]
REGIMES = get_args(Regime)
DatasetName = Literal["s4", "ms3", "s4_hard", "ms3_hard"]  # a benchmark, or harder clips in its layout
STUDIES = ("mini", "models", "modern", "paper", "robustness")  # the files that come with this package


@dataclass
class RowEntry:
    """A row of a study's tables; the module describes the fields."""

    zero_shot: str | None = None
    supervised: str | None = None
    tables: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    benchmarks: Sequence[DatasetName] = ("s4", "ms3")
    fidelities: Sequence[Fidelity] = ("corrected",)
    seeds: Sequence[int] = bounded([], 0, MAX_SEED)
    fractions: Sequence[float] = bounded([], 0, 1, exclude_minimum=True)
    audio: Sequence[AudioCondition] = ()
    options: dict[str, Any] = field(default_factory=dict)
    s4: dict[str, Any] = field(default_factory=dict)
    ms3: dict[str, Any] = field(default_factory=dict)
    seconds_per_clip: float | None = None
    unavailable: str | None = None

    @property
    def regime(self) -> Regime:
        """Whether the row trains anything."""
        return "zero_shot" if self.zero_shot else "supervised"

    @property
    def config(self) -> str:
        """The configuration without its benchmark."""
        return self.zero_shot or self.supervised or ""


@dataclass
class StudyFile:
    """What a study's file holds; the module describes the fields."""

    title: str = ""
    data: dict[DatasetName, str] = field(default_factory=dict)
    clips: dict[DatasetName, dict[str, int]] = field(default_factory=dict)
    configs: dict[Regime, str] = field(default_factory=dict)
    options: dict[Regime, dict[str, Any]] = field(default_factory=dict)
    seconds_per_clip: dict[str, float] = field(default_factory=dict)
    startup_seconds: float = bounded(10.0, 0)
    preprocess_fidelity: Fidelity = "corrected"
    offscreen_sounds: str | None = None
    audio: Sequence[AudioCondition] = ("original",)
    audio_seeds: Sequence[int] = bounded([0], 0, MAX_SEED)
    gallery_clips: int = bounded(4, 0)
    tables: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def benchmark_of(dataset: DatasetName) -> BenchmarkName:
    """The benchmark whose layout and configurations a data set has."""
    name: Any = dataset.partition("_")[0]
    return name


def read_study_file(name_or_path: str | Path) -> tuple[Path, StudyFile, list[RowEntry]]:
    """Read and check a study's file.

    Args:
        name_or_path: one of STUDIES, or a YAML file.

    Returns:
        The file, its content, and its rows.

    Raises:
        InputError: naming the file and the field that is wrong.
    """
    path = (
        Path(__file__).parent / f"{name_or_path}.yaml" if str(name_or_path) in STUDIES else resolve_path(name_or_path)
    )
    if not path.is_file():
        raise InputError(
            f"{path}: no such study; choose from {', '.join(STUDIES)}, or give a YAML file (study/study_file.py)"
        )
    content = read_yaml(path)
    if not isinstance(content, Mapping) or not content.get("rows"):
        raise InputError(f"{path}: has no list of rows; study/study_file.py describes the fields")
    study = from_dict(StudyFile, content, str(path))
    if not study.audio or not study.audio_seeds:
        raise InputError(f"{path}: audio and audio_seeds must not be empty")
    datasets = get_args(DatasetName)
    for name, keys in (("data", datasets), ("clips", datasets), ("configs", REGIMES), ("options", REGIMES)):
        if unknown := set(getattr(study, name)) - set(keys):
            raise InputError(f"{path}: field {name}: unknown key '{unknown.pop()}'; choose from {', '.join(keys)}")
    entries = [_read_row(f"{path}: row {number}", study, row) for number, row in enumerate(study.rows, 1)]
    return path, study, entries


def _read_row(place: str, study: StudyFile, content: Mapping[str, Any]) -> RowEntry:
    """One entry of `rows`. place: file and number, for messages."""
    entry = from_dict(RowEntry, content, place)
    place += f" ({entry.config or ', '.join(entry.tables.values())})"
    if [bool(entry.zero_shot), bool(entry.supervised), entry.unavailable is not None].count(True) != 1:
        raise InputError(f"{place}: must have exactly one of zero_shot, supervised and unavailable")
    if not entry.tables:
        raise InputError(f"{place}: tables: names no table; choose from {', '.join(study.tables)}")
    for table in entry.tables:
        if table not in study.tables:
            raise InputError(f"{place}: tables: no table '{table}'; choose from {', '.join(study.tables)}")
    if entry.unavailable is None and entry.regime not in study.configs:
        raise InputError(f"{place}: configs: has no folder of {entry.regime} configurations")
    if entry.regime == "zero_shot" and (entry.seeds or entry.fractions):
        raise InputError(f"{place}: seeds and fractions are of supervised rows")
    return entry
