"""The part of a study that compares sound conditions: a table, curves, and the clips that are segmented in silence."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.job import Job, Study
from study.results import result
from study.table_format import NOT_PLANNED, Table, format_score
from utils.robustness_report import FILE, LISTED_CLIPS
from utils.sound_conditions import CONDITIONS

if TYPE_CHECKING:  # a dry run does without pandas
    import pandas as pd

KEY = "robustness"  # of the table
NOTE = (
    "Each cell is the predicted area as a fraction of the frame / M_J against the masks of the original sound. Under "
    "silent, noise, shuffled and offscreen audio nothing in the picture makes the sound, so a model that uses the "
    "audio has a small area and a small M_J. Several seeds: mean, and [smallest to largest] area."
)
H_NOTE = "H is the harmonic mean of M_J (original) and 1 - area under silent, noise and shuffled audio; 1 is best."


@dataclass(frozen=True)
class RobustnessRun:
    """A run that was evaluated under several conditions.

    Attributes:
        dataset: its data set.
        label: of its row, with the fidelity unless it is corrected.
        content: of its robustness.json.
    """

    dataset: str
    label: str
    content: Mapping[str, Any]


def robustness_runs(study: Study, runs: Path) -> list[RobustnessRun]:
    """The finished runs of a study that have a robustness.json."""
    found = []
    for job in study.jobs:
        if len(job.audio) > 1 and result(job, runs):
            try:
                content = json.loads((job.run_dir(runs) / FILE).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            found.append(RobustnessRun(job.dataset, _label(job), content))
    return found


def _label(job: Job) -> str:
    parts = [job.rows[0].label, "" if job.fidelity == "corrected" else job.fidelity]
    parts += [f"{100 * job.fraction:g} % of the clips"] if job.fraction != 1 else []
    parts += [f"seed {job.seed}"] if job.seed is not None else []
    return ", ".join(filter(None, parts))


def robustness_tables(found: Sequence[RobustnessRun], titles: Mapping[str, str]) -> list[Table]:
    """A table for each data set.

    Args:
        found: the runs.
        titles: of the data sets, in order.
    """
    tables = []
    for dataset, title in titles.items():
        if lines := [run for run in found if run.dataset == dataset]:
            tables.append(Table(f"{KEY}_{dataset}", f"Sound conditions, {title}", _note(lines), _cells(lines)))
    return tables


def _note(lines: Sequence[RobustnessRun]) -> str:
    areas = sorted({format_score(run.content["ground_truth_area"]) for run in lines})
    notes = [NOTE, *([H_NOTE] if _have_h(lines) else []), f"The ground truth covers {' to '.join(areas)} of the frame."]
    return " ".join(notes)


def _have_h(lines: Sequence[RobustnessRun]) -> bool:
    """Whether any run has all the conditions of H."""
    return any("H" in run.content for run in lines)


def _cells(lines: Sequence[RobustnessRun]) -> "pd.DataFrame":
    import pandas as pd

    present = {name for run in lines for name in run.content["conditions"]}
    columns: list[str] = [name for name in CONDITIONS if name in present]
    rows = []
    for run in lines:
        conditions = run.content["conditions"]
        cells = [_cell(conditions[name]) if name in conditions else NOT_PLANNED for name in columns]
        mean = format_score(run.content["H"]) if "H" in run.content else NOT_PLANNED
        rows.append([*cells, *([mean] if _have_h(lines) else [])])
    columns += ["H"] if _have_h(lines) else []
    return pd.DataFrame(rows, index=[run.label for run in lines], columns=columns, dtype=object)


def _cell(condition: Mapping[str, Any]) -> str:
    mean, span = condition["mean"], condition.get("range", {}).get("pIA")
    spread = f" [{format_score(span[0])} to {format_score(span[1])}]" if span and span[0] != span[1] else ""
    return f"{format_score(mean['pIA'])}{spread} / {format_score(mean['MJ_same'])}"


@dataclass(frozen=True)
class Curves:
    """Curves of one data set: for each run, (x, y).

    Attributes:
        name: unique on a page.
        title: what they show.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        lines: values by the label of the run.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def robustness_curves(found: Sequence[RobustnessRun], dataset: str, title: str) -> list[Curves]:
    """The curves of a data set under each negative condition; empty without runs."""
    curves = []
    for condition in ("silent", "noise", "shuffled", "offscreen"):
        runs = [run for run in found if run.dataset == dataset and condition in run.content["conditions"]]
        shares, sweeps = {}, {}
        for run in runs:
            values = run.content["conditions"][condition]
            steps = len(values["share_up_to_area"]) - 1
            shares[run.label] = [step / steps for step in range(steps + 1)], values["share_up_to_area"]
            if values["sweep"]:
                sweeps[run.label] = run.content["thresholds"], values["sweep"]
        caption = f"{title}, {condition} audio"
        if shares:
            label = "share of frames"
            curves.append(Curves(f"share_{dataset}_{condition}", caption, "predicted area, at most", label, shares))
        if sweeps:
            label = "predicted area"
            curves.append(
                Curves(f"sweep_{dataset}_{condition}", caption, "threshold of the probability", label, sweeps)
            )
    return curves


def largest_in_silence(found: Sequence[RobustnessRun], dataset: str) -> list[tuple[str, str]]:
    """For each run of a data set, the clips that it segments most in silence, in words."""
    described = []
    for run in found:
        if run.dataset == dataset and "largest_in_silence" in run.content:
            clips = [f"{clip['name']} ({format_score(clip['pIA'])})" for clip in run.content["largest_in_silence"]]
            described.append((run.label, ", ".join(clips[: LISTED_CLIPS // 2]) or "none"))
    return described
