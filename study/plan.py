"""A study: a YAML list of rows, each of which stands for one job or several.

title: a line for the page
data: {s4: DIR, ms3: DIR}                      the folders that hold the meta CSVs
clips: {s4: {train: N, val: N, test: N}, ...}  for estimates while the data are not there; optional
configs: {zero_shot: DIR, supervised: DIR}     where BENCHMARK_NAME.yaml lie
options: {zero_shot: {...}, supervised: {...}} options of every job, by dotted name; optional
pace: {zero_shot: S, supervised: S, start: S}  guessed seconds a clip, a clip and epoch, and a start; also by the
                                               first letters of configurations, of which the longest counts
pictures: N                                    test clips of which every run keeps pictures, for the page; default 4
rows:
- zero_shot: point_local         or supervised: fpn_none: the configuration without its benchmark
  row: Point-Prompt local        its name in the table; default: the configuration's
  table: zero_shot               or a list of tables, see TABLES; for zero_shot rows it need not be said
  name: other                    of the run folders, where one configuration stands for several rows
  benchmarks: [s4, ms3]          default: both
  fidelities: [corrected]        default: corrected
  seeds: [0, 1, 2]               supervised; default: the configuration's
  fractions: [0.2, 1]            supervised: parts of the training clips; default: the configuration's
  sounds: [real, shuffled]       supervised; default: real
  options: {train.epochs: 4}     and s4: {...}, ms3: {...} for one benchmark
  pace: S
- supervised: all                the rows of supervised/rows.csv, each in its tables
- {row: NAME, table: T, why: S}  a row that the study has not, and why; only shown
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import yaml

from study.job import Job, Kind, Study
from study.rows import TABLES, TableRow, public_rows
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.layout import BENCHMARKS
from utils.paths import resolve_path

HERE = Path(__file__).parent
STUDIES = ("mini", "paper")
PICTURES = 4
FIELDS = {"title", "data", "clips", "configs", "options", "pace", "pictures", "rows"}
ROW_FIELDS = {*get_args(Kind), "row", "table", "name", "benchmarks", "fidelities", "seeds", "fractions", "sounds"}
ROW_FIELDS |= {"options", "pace", "why", *BENCHMARKS}
MAPPINGS = {"data", "clips", "configs", "options", *BENCHMARKS}  # and the study's `pace`; a row's is a number


def load_study(name_or_path: str | Path, data: Mapping[str, Path | None] | None = None) -> Study:
    """A study by its name, mini or paper, or from a YAML file.

    data: folders of the benchmarks that go before the study's. Raises InputError naming the file and what is wrong.
    """
    path = HERE / f"{name_or_path}.yaml" if str(name_or_path) in STUDIES else resolve_path(name_or_path)
    if not path.is_file():
        raise InputError(f"{path}: no such study; choose {' or '.join(STUDIES)}, or name a YAML file (study/plan.py)")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise InputError(f"{path}: has no list of rows; study/plan.py says what a study looks like")
    _check(path, "the study", content, FIELDS, {**dict.fromkeys(MAPPINGS, dict), "pace": dict, "pictures": int})
    roots = {**content.get("data", {}), **{key: root for key, root in (data or {}).items() if root}}
    content["data"] = {key: resolve_path(root) for key, root in roots.items()}
    entries = [_entry(path, entry) for entry in content["rows"]]
    absent = [(TableRow(entry["table"], entry["row"]), entry["why"]) for entry in entries if "why" in entry]
    jobs = [job for entry in entries if "why" not in entry for job in _jobs(path, content, entry)]
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: two rows make the run {twice[0]}; give one of them another `name`")
    start = float(content.get("pace", {}).get("start", 10))
    title = str(content.get("title", path.stem))
    return Study(path.stem, title, content["data"], jobs, absent, content.get("clips", {}), start)


def _entry(path: Path, entry: Any) -> dict[str, Any]:
    """An entry of the list. Raises InputError if it names no configuration, or anything that there is not."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}: a row must be a mapping, not '{entry}'")
    _check(path, f"row {entry}", entry, ROW_FIELDS, {**dict.fromkeys(MAPPINGS, dict), "pace": (int, float)})
    asked = {"row", "table"} if "why" in entry else set()
    if sum(kind in entry for kind in get_args(Kind)) != ("why" not in entry) or not asked <= set(entry):
        raise InputError(
            f"{path}: a row names a zero_shot or supervised configuration or says row, table, why: {entry}"
        )
    for table in _list(entry.get("table", [])):
        if table not in TABLES:
            raise InputError(f"{path}: table '{table}' of row {entry}; choose from {', '.join(TABLES)}")
    if entry.get("supervised", "all") != "all" and "table" not in entry:
        raise InputError(f"{path}: row {entry} names no table; choose from {', '.join(TABLES)}")
    return entry


def _jobs(path: Path, study: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[Job]:
    """The jobs of one entry of the list."""
    kind: Kind = "zero_shot" if "zero_shot" in entry else "supervised"
    config = str(entry[kind])
    if kind == "supervised" and config == "all":
        for public in public_rows():
            first, *others = public.places
            one = {
                **entry,
                "supervised": public.config,
                "benchmarks": [public.benchmark],
                "row": first.row,
                "table": first.table,
            }
            yield from _one(path, study, one, kind, tuple(others), public.fraction)
        return
    tables = _list(entry.get("table", "zero_shot"))
    row = str(entry.get("row", config))
    also = tuple(TableRow(table, row) for table in tables[1:])
    yield from _one(path, study, {**entry, "row": row, "table": tables[0]}, kind, also)


def _one(
    path: Path,
    study: Mapping[str, Any],
    entry: Mapping[str, Any],
    kind: Kind,
    also: tuple[TableRow, ...],
    part: float = 1.0,
) -> Iterator[Job]:
    """The jobs of an entry that names one configuration, whose own part of the training clips is `part`."""
    config = entry[kind]
    seeds: Sequence[int | None] = entry.get("seeds", [None])
    fractions: Sequence[float | None] = entry.get("fractions", [None])
    choices = entry.get("benchmarks", list(BENCHMARKS)), entry.get("fidelities", ["corrected"]), fractions, seeds
    for benchmark, fidelity, fraction, seed in product(*map(_list, choices)):
        if benchmark not in BENCHMARKS or fidelity not in get_args(Fidelity):
            raise InputError(f"{path}: row {config}: '{benchmark}', '{fidelity}' are no benchmark and fidelity")
        if benchmark not in study["data"]:
            raise InputError(f"{path}: row {config} wants {benchmark}, but `data` has no folder of it")
        if kind not in study.get("configs", {}):
            raise InputError(f"{path}: row {config}: `configs` has no folder of {kind} configurations")
        own = {**entry.get("options", {}), **entry.get(benchmark, {})}
        own |= {"data.fraction": fraction} if fraction is not None else {}
        own |= {"train.seed": seed} if seed is not None else {}
        root = study["data"][benchmark]
        options = {**study.get("options", {}).get(kind, {}), **own, "fidelity": fidelity, "data.root": root}
        suffixes = ["published" if fidelity == "published" else "", "" if seed is None else f"seed{seed}"]
        if fraction is not None and fraction != 1:
            suffixes.insert(0, f"{fraction * 100:g}_percent")
        yield Job(
            name=f"{kind}/{'_'.join(filter(None, [benchmark, str(entry.get('name', config)), *suffixes]))}",
            kind=kind,
            table=entry["table"],
            row=entry["row"],
            benchmark=benchmark,
            fidelity=fidelity,
            seed=seed,
            config=resolve_path(Path(study["configs"][kind]) / f"{benchmark}_{config}.yaml"),
            overrides=tuple(word for key, value in options.items() for word in (f"--{key}", _word(value))),
            root=root,
            fraction=float(own.get("data.fraction", part)),
            audio_conditions=tuple(_list(entry.get("sounds", ["real"]))),
            also=also,
            overridden=bool(own),
            pictures=int(study.get("pictures", PICTURES)),
            seconds_per_clip=float(entry.get("pace", _pace(study.get("pace", {}), kind, str(config)))),
        )


def _pace(paces: Mapping[str, float], kind: Kind, config: str) -> float:
    begun = [name for name in paces if config.startswith(name)]
    return paces[max(begun, key=len)] if begun else paces.get(kind, 1)


def _word(value: Any) -> str:
    """A value as jsonargparse reads it on a command line."""
    return (
        str(value) if isinstance(value, Path | str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    )


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _check(path: Path, what: str, given: Mapping[str, Any], fields: set[str], kinds: Mapping[str, Any]) -> None:
    """Raise InputError for a field that there is not, or that holds something of another kind than it should."""
    for name, value in given.items():
        if name not in fields:
            raise InputError(f"{path}: {what} has no field {name}; it may have {', '.join(sorted(fields))}")
        if not isinstance(value, kinds.get(name, object)):
            raise InputError(f"{path}: {what}: {name} cannot be {value!r}; study/plan.py says what it is")
