"""The tables of a study, with published results beside its own, as Markdown, CSV and LaTeX."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.job import Study
from study.model_costs import MODELS, NOTE, cost_columns
from study.results import COLUMNS, FRACTION, collect_results
from study.robustness import robustness_runs, robustness_tables
from study.table_format import NO_RESULT, NOT_PLANNED, Table, format_scores
from utils.files import write_text
from utils.words import counted

if TYPE_CHECKING:  # a dry run does without pandas
    import pandas as pd

TITLES: dict[str, str] = {"s4": "S4", "s4_hard": "S4 hard", "ms3": "MS3", "ms3_hard": "MS3 hard"}
PROTOCOL = (
    "Each cell is M_J / M_F on the test clips by AVSBench's rules; M_F uses the best threshold over every "
    "metric_batch videos. For several seeds: mean ± sample standard deviation, and their number n. "
    "“…”: no result yet; “–”: not part of this study, or no published result. Fidelity “published” repeats the "
    "original's oddities, “corrected” does what was intended (docs/deviations.md); what either gives is shown of the "
    "weights of these runs only."
)
UNKNOWN = (
    "We could not find the tables of the BMVC 2023 paper, so its own results are not shown. Where others have "
    "published a result of the same configuration, it is in the column “reported”, with its source below the table."
)


def heading(benchmark: str, fidelity: str | None = None, audio: str = "original") -> str:
    """The heading of a column; `fidelity` None where the table has only one."""
    parts = [TITLES[benchmark], fidelity or "", "" if audio == "original" else f"{audio} audio"]
    return ", ".join(filter(None, parts))


def build_tables(study: Study, results: "pd.DataFrame") -> list[Table]:
    """The tables of a study that have rows.

    Args:
        study: what is planned.
        results: of `collect_results`.
    """
    tables = []
    for key, title in study.tables.items():
        unavailable = {row.label: reason for row, reason in study.unavailable if row.table == key}
        lines = results[results["table"] == key]
        if len(lines) or unavailable:
            tables.append(_build_table(key, title, lines, unavailable))
    return tables


def _build_table(key: str, title: str, lines: "pd.DataFrame", unavailable: Mapping[str, str]) -> Table:
    """A table from its lines of the results. unavailable: further rows, each with its reason."""
    import pandas as pd

    ours, reported = lines[lines["source"].isna()], lines[lines["source"].notna()]
    fidelities = sorted(set(ours["fidelity"]))
    cells: dict[tuple[str, str], str] = {}
    order: dict[str, tuple[Any, ...]] = {}
    for keys, runs in ours.groupby(["row", "benchmark", "fidelity", "audio"], sort=False):
        row, benchmark, fidelity, audio = map(str, keys)
        column = heading(benchmark, fidelity if len(fidelities) > 1 else None, audio)
        order[column] = (list(TITLES).index(benchmark), audio != "original", fidelity != "published")
        done = runs[runs["m_j"].notna()]
        scores = list(zip(done["m_j"], done["m_f"], strict=True))
        cells[row, column] = format_scores(scores, len(runs)) if scores else NO_RESULT
    for line in reported.to_dict("records"):
        column = f"{TITLES[line['benchmark']]}, reported"
        order[column] = (list(TITLES).index(line["benchmark"]), 2)
        cells[line["row"], column] = format_scores([(line["m_j"], line["m_f"])])
    rows = _row_order(key, ours)
    columns = sorted(order, key=lambda column: order[column])
    grid = [[cells.get((row, column), NOT_PLANNED) for column in columns] for row in [*rows, *unavailable]]
    frame = pd.DataFrame(grid, index=[*rows, *unavailable], columns=columns, dtype=object)
    if key == MODELS:
        frame = cost_columns(frame, ours, TITLES)
    batches = ours.groupby("row", sort=False)["planned_metric_batch"].first()
    if batches.nunique() > 1:
        frame["metric_batch"] = [str(batches.get(row, NOT_PLANNED)) for row in frame.index]
    missing = int(ours["m_j"].isna().sum())
    notes = [
        f"metric_batch {batches.iloc[0]}." if batches.nunique() == 1 else "",
        f"Fidelity: {fidelities[0]}." if len(fidelities) == 1 else "",
        NOTE if key == MODELS else "",
        f"Reported by {'; '.join(sorted(set(reported['source'])))}." if len(reported) else "",
        *(f"{row}: {reason}." for row, reason in unavailable.items()),
        f"{missing} of {counted(len(ours), 'result')} missing." if missing else "",
    ]
    return Table(key, title, " ".join(filter(None, notes)), frame)


def _row_order(key: str, lines: "pd.DataFrame") -> Sequence[str]:
    """The rows in the order of the study, in the table of fractions each model's from the least."""
    if key == FRACTION:
        models = {label: place for place, label in enumerate(lines["label"].unique())}
        lines = lines.assign(model=lines["label"].map(models), part=lines["fraction"].astype(float))
        lines = lines.sort_values(["model", "part"], kind="stable")
    return list(lines["row"].unique())


def write_tables(study: Study, runs: Path, out: Path) -> list[Path]:
    """Write the tables of what is done so far.

    Args:
        study: what is planned.
        runs: the folder of run folders.
        out: the folder for STUDY.md, STUDY.csv (all results, unrounded) and STUDY.tex.

    Returns:
        The paths of the three files.
    """
    results = collect_results(study, runs)
    tables = [*build_tables(study, results), *robustness_tables(robustness_runs(study, runs), TITLES)]
    commits = sorted({str(commit)[:9] for commit in results["commit"].dropna()})
    made = f" from runs of commit {', '.join(commits)}" if commits else ""
    origin = f"Written by `python reproduce_tables.py --study {study.name}`{made}. {study.name}.csv has every result "
    origin += "with its run folder or its source."
    head = [f"# {study.title}", "", origin, "", PROTOCOL, "", UNKNOWN, ""]
    comment = "".join(f"% {line}\n" for line in (study.title, origin, PROTOCOL, UNKNOWN))
    texts = {
        ".md": "\n".join([*head, *(table.to_markdown() for table in tables)]),
        ".csv": results[list(COLUMNS)].to_csv(index=False, lineterminator="\n"),
        ".tex": comment + "\n".join(table.to_latex() for table in tables),
    }
    for suffix, text in texts.items():
        write_text(out / f"{study.name}{suffix}", text)
    return [out / f"{study.name}{suffix}" for suffix in texts]
