"""The tables of a study: ours, with what others report beside it, as Markdown, CSV and LaTeX of the same cells."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from study.job import Job, Study
from study.results import result
from study.rows import TABLES, TableRow
from study.table_format import Table, format_scores
from utils.cli import InputError
from utils.files import write_text

REPORTED = Path(__file__).parent / "reported.yaml"
NAMES = {"s4": "S4", "ms3": "MS3"}
ROW = ("study", "table", "row", "benchmark", "fidelity", "seed", "fraction", "sound")
NUMBERS = ("m_j", "m_f", "metric_batch", "m_f_whole_set", "iou_dataset", "frames", "videos", "seconds", "commit")
FIELDS = (*ROW, *NUMBERS, "run", "source")
PROTOCOL = (
    "Each cell is M_J / M_F on the test clips by AVSBench's rules; M_F takes its best threshold over every "
    "metric_batch videos. Of several seeds: mean ± sample standard deviation, and their number n. "
    "“…” has no result yet; “–” is no part of this study or reported nowhere."
)
UNKNOWN = (
    "The tables of the BMVC 2023 paper could not be found, so that none of its own figures stand beside ours; "
    "where others report a figure of the very row, it stands under “reported”, with its source below the table."
)


def load_reported(path: Path = REPORTED) -> dict[str, dict[str, Any]]:
    """What others report, by configuration. Raises InputError for a figure without source and grade."""
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for config, figure in found.items():
        named = set(figure) == {"m_j", "m_f", "source", "grade"} and figure["source"]
        if not named or figure["grade"] not in ("A", "B"):
            raise InputError(f"{path}: {config} must have m_j, m_f, source, and grade A or B")
    return found


def reported(job: Job, known: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """What others report of a job's row, if it is that row as the study's authors ran it."""
    return None if job.overridden else known.get(job.config.as_posix())


def label(job: Job, place: TableRow) -> str:
    """The name of a job's row at one of its places."""
    return f"{place.row}, {job.fraction * 100:g} % of the clips" if place.table == "fraction" else place.row


def column(benchmark: str, fidelity: str | None = None, sound: str = "real") -> str:
    """The head of a column; `fidelity` None where the table has only one."""
    other = ["another clip's sound"] if sound != "real" else []
    return ", ".join([NAMES[benchmark], *([fidelity] if fidelity else []), *other])


def build_tables(study: Study, runs: Path) -> list[Table]:
    """The tables that the study has rows of, from what is done so far."""
    known = load_reported()
    return [table for name in TABLES if (table := _table(study, runs, name, known)).rows]


def _table(study: Study, runs: Path, name: str, known: Mapping[str, dict[str, Any]]) -> Table:
    placed = [(job, place) for job in study.jobs for place in job.table_rows if place.table == name]
    if name == "fraction":
        models = list(dict.fromkeys(place.row for _, place in placed))
        placed.sort(key=lambda pair: (models.index(pair[1].row), pair[0].fraction))
    both = len({job.fidelity for job, _ in placed}) > 1
    ours: dict[tuple[str, str], list[dict[str, Any] | None]] = {}  # by row and column, a result for each run
    others: dict[tuple[str, str], dict[str, Any]] = {}  # what is reported
    order: dict[str, tuple[Any, ...]] = {}  # of the columns
    batches: dict[str, int] = {}  # metric_batch of the rows
    for job, place in placed:
        row, turn = label(job, place), list(NAMES).index(job.benchmark)
        batches[row] = job.options.metric_batch
        for sound in job.audio_conditions:
            head = column(job.benchmark, job.fidelity if both else None, sound)
            order[head] = (turn, sound != "real", job.fidelity != "published")
            ours.setdefault((row, head), []).append(result(job, runs, sound))
        if figure := reported(job, known):
            head = f"{NAMES[job.benchmark]}, reported"
            order[head] = (turn, 2)
            others[row, head] = figure
    heads = sorted(order, key=lambda head: order[head])
    rows = [(row, [_text(ours.get((row, head)), others.get((row, head))) for head in heads]) for row in batches]
    absent = [(place.row, why) for place, why in study.absent if place.table == name]
    rows += [(row, ["–"] * len(heads)) for row, _ in absent]
    one_batch = len(set(batches.values())) == 1
    if not one_batch:
        rows = [(row, [*texts, str(batches.get(row, "–"))]) for row, texts in rows]
    results = [numbers for some in ours.values() for numbers in some]
    missing = sum(numbers is None for numbers in results)
    sources = sorted({_source(figure) for figure in others.values()})
    notes = [
        f"metric_batch {next(iter(batches.values()))}." if batches and one_batch else "",
        f"Fidelity: {placed[0][0].fidelity}." if placed and not both else "",
        f"Reported by {'; '.join(sources)}." if sources else "",
        *(f"{row}: {why}." for row, why in absent),
        f"{missing} of {len(results)} results are missing." if missing else "",
    ]
    values = {place: [numbers["m_j"] for numbers in some if numbers] for place, some in ours.items() if any(some)}
    columns = ["", *heads, *([] if one_batch else ["metric_batch"])]
    return Table(TABLES[name], " ".join(filter(None, notes)), columns, rows, values)


def _source(figure: Mapping[str, Any]) -> str:
    return f"{figure['source']} [{figure['grade']}]"


def _text(ours: Sequence[dict[str, Any] | None] | None, reported: dict[str, Any] | None) -> str:
    """A cell, from the results of its runs or from what others report."""
    if reported:
        return format_scores([(reported["m_j"], reported["m_f"])])
    done = [(numbers["m_j"], numbers["m_f"]) for numbers in ours or [] if numbers]
    return format_scores(done, len(ours or [])) if done else "…" if ours else "–"


def build_csv(study: Study, runs: Path) -> str:
    """A line for every run with its figures and its folder, and for every reported figure with its source."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, extrasaction="ignore", restval="")
    writer.writeheader()
    known = load_reported()
    for job in study.jobs:
        for place in job.table_rows:
            line = {"study": study.name, "table": place.table, "row": label(job, place), "benchmark": job.benchmark}
            line["fraction"] = f"{job.fraction:g}"
            ours = {**line, "fidelity": job.fidelity, "seed": job.seed, "run": job.folder(runs).as_posix()}
            for sound in job.audio_conditions:
                writer.writerow({**(result(job, runs, sound) or {}), **ours, "sound": sound})
            if figure := reported(job, known):
                writer.writerow({**figure, **line, "sound": "real", "source": _source(figure)})
    return text.getvalue()


def write_tables(study: Study, runs: Path, out: Path) -> list[Path]:
    """Write OUT/STUDY.md, .csv and .tex; returns their paths."""
    tables = build_tables(study, runs)
    commits = {numbers["commit"][:9] for job in study.jobs if (numbers := result(job, runs))}
    made = f" from runs of commit {', '.join(sorted(commits))}" if commits else ""
    origin = f"Written by `python reproduce_tables.py --study {study.name}`{made}. {study.name}.csv has every figure "
    origin += "with its run folder or its source."
    heading = [f"# {study.title}", "", origin, "", PROTOCOL, "", UNKNOWN, ""]
    comment = "".join(f"% {line}\n" for line in (study.title, origin, PROTOCOL, UNKNOWN))
    texts = {
        ".md": "\n".join([*heading, *(table.to_markdown() for table in tables)]),
        ".csv": build_csv(study, runs),
        ".tex": comment + "\n".join(table.to_latex() for table in tables),
    }
    for suffix, text in texts.items():
        write_text(out / f"{study.name}{suffix}", text)
    return [out / f"{study.name}{suffix}" for suffix in texts]
