"""What a study's table `models` shows beside the scores: parameters, time and memory of training, area in silence."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from study.table_format import NO_RESULT, NOT_PLANNED, format_score, mean_and_deviation

if TYPE_CHECKING:  # a dry run does without pandas
    import pandas as pd

MODELS = "models"  # the table that compares models
NOTE = (
    "A step is a training step: processor time on a CPU, else wall time. Memory is the peak of training beyond what "
    "the process had before. The area in silence is the mean fraction of the frame that is segmented in silent clips."
)


def cost_columns(table: "pd.DataFrame", results: "pd.DataFrame", titles: Mapping[str, str]) -> "pd.DataFrame":
    """A table of scores with the columns of costs.

    Args:
        table: scores by row and column heading.
        results: of its rows, a line each run and sound condition.
        titles: of the benchmarks, in order.
    """
    runs = results.drop_duplicates("run")
    columns = {"parameters": {row: _parameters(lines) for row, lines in runs.groupby("row")}}
    for benchmark, title in titles.items():
        lines = runs[runs["benchmark"] == benchmark]
        if len(lines):
            groups = list(lines.groupby("row"))
            columns[f"{title}, a step"] = {row: _seconds(each) for row, each in groups}
            columns[f"{title}, memory"] = {row: _memory(each) for row, each in groups}
            columns[f"{title}, area in silence"] = {row: _area(each) for row, each in groups}
    table = table.copy()
    for heading, cells in columns.items():
        table[heading] = [cells.get(row, NOT_PLANNED) for row in table.index]
    return table


def _parameters(lines: "pd.DataFrame") -> str:
    known = lines["parameters"].dropna()
    return f"{known.max() / 1e6:.1f} M" if len(known) else NO_RESULT


def _seconds(lines: "pd.DataFrame") -> str:
    known = lines["step_seconds"].dropna().astype(float)
    return f"{known.median():.3g} s" if len(known) else NO_RESULT


def _memory(lines: "pd.DataFrame") -> str:
    known = lines["memory_mib"].dropna()
    return f"{known.max():.0f} MiB" if len(known) else NO_RESULT


def _area(lines: "pd.DataFrame") -> str:
    known = lines["silent_area"].dropna().astype(float).tolist()
    if not known:
        return NO_RESULT
    return format_score(known[0]) if len(known) == 1 else mean_and_deviation(known)
