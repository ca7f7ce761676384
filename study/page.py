"""The page of a study: one HTML file with tables, plots, images and audio, which opens from the disk.

The file contains everything, so that it can be copied or sent; it needs neither a server nor the network. The runs left
their numbers, and with --strips their images, in their folders; this module only combines them.
"""

import os
import platform
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from study.gallery import GalleryClip, build_gallery
from study.job import Study
from study.plots import Bar, bars, curves, scaling
from study.results import FRACTION, collect_results, result
from study.robustness import (
    KEY,
    RobustnessRun,
    largest_in_silence,
    robustness_curves,
    robustness_runs,
    robustness_tables,
)
from study.table_format import Table
from study.tables import PROTOCOL, TITLES, UNKNOWN, build_tables
from utils.files import write_text
from utils.layout import BenchmarkName
from utils.pages import render_page
from utils.results import package_versions
from utils.words import counted
from zero_shot.options import BASELINES

TEMPLATE = Path(__file__).parent / "templates" / "study.html"
GALLERIES: dict[BenchmarkName, str] = {"s4": "S4 (single source)", "ms3": "MS3 (multiple sources)"}
WITHOUT_SAM = (*BASELINES, "heatmap")  # zero-shot methods that the plots show in gray


@dataclass(frozen=True)
class Section:
    """A table and its plots, each with its caption, as SVG."""

    table: Table
    plots: list[tuple[str, Markup]]


@dataclass(frozen=True)
class SoundSection(Section):
    """The table and curves of sound conditions. silence: for each run, the clips that it segments most in silence."""

    silence: list[tuple[str, str]]


@dataclass(frozen=True)
class Gallery:
    """The clips of a benchmark."""

    title: str
    clips: list[GalleryClip]


@dataclass(frozen=True)
class RunCommands:
    """The commands of a run."""

    name: str
    text: str
    done: bool


def write_page(study: Study, runs: Path, path: Path, num_clips: int = 4) -> None:
    """Write the page of what a study has so far.

    Args:
        study: what is planned.
        runs: the folder of run folders.
        path: the HTML file.
        num_clips: test clips of each benchmark in the gallery.
    """
    results = collect_results(study, runs)
    done = {job.name for job in study.jobs if result(job, runs)}
    commands = [
        RunCommands(job.name, "\n".join(map(shlex.join, job.commands(runs))), job.name in done) for job in study.jobs
    ]
    html = render_page(
        TEMPLATE,
        title=study.title,
        facts=_facts(results, len(done), len(study.jobs)),
        sections=[Section(table, _plots(table, results)) for table in build_tables(study, results)],
        sounds=_sound_sections(robustness_runs(study, runs)),
        protocol=PROTOCOL,
        unknown=UNKNOWN,
        gallery=[Gallery(title, build_gallery(study, runs, name, num_clips)) for name, title in GALLERIES.items()],
        commands=commands,
    )
    write_text(path, html)


def _sound_sections(found: Sequence[RobustnessRun]) -> list[SoundSection]:
    """The comparison of sound conditions for each data set."""
    sections = []
    for table in robustness_tables(found, TITLES):
        dataset = table.key.removeprefix(f"{KEY}_")
        plots = [
            (
                f"{each.y_label.capitalize()}: {each.title}",
                Markup(curves(each.name, each.lines, each.x_label, each.y_label)),
            )
            for each in robustness_curves(found, dataset, TITLES[dataset])
        ]
        sections.append(SoundSection(table, plots, largest_in_silence(found, dataset)))
    return sections


def _facts(results: pd.DataFrame, done: int, planned: int) -> str:
    """Date, commit, machine and progress in one line."""
    # Eight digits, and the "+" of uncommitted changes.
    commits = sorted({re.sub(r"(?<=^.{8})\w+", "", commit) for commit in results["commit"].dropna()})
    code = f"commit {', '.join(commits[:3])}{' and others' if len(commits) > 3 else ''} · " if commits else ""
    machine = f"{os.cpu_count()} processors ({platform.machine()}), torch {package_versions()['torch']}"
    return f"{time.strftime('%Y-%m-%d %H:%M')} · {code}{machine} · {done} of {counted(planned, 'run')} done"


def _plots(table: Table, results: pd.DataFrame) -> list[tuple[str, Markup]]:
    """The plots of a table, one for each benchmark that has results."""
    plots = []
    ours = results[results["source"].isna() & results["m_j"].notna() & (results["table"] == table.key)]
    for benchmark, title in TITLES.items():
        lines = ours[ours["benchmark"] == benchmark]
        plot = (_scaling if table.key == FRACTION else _bars)(f"{table.key}_{benchmark}", lines)
        if plot:
            plots.append((f"M_J, {title}", Markup(plot)))
    return plots


def _bars(name: str, lines: pd.DataFrame) -> str:
    """A bar for each row and series; empty without results."""
    lines = lines.assign(series=[_series(line) for line in lines.to_dict("records")])
    shown = [
        Bar(str(row), str(series), list(group["m_j"]), gray=bool(group["method"].isin(WITHOUT_SAM).any()))
        for (row, series), group in lines.groupby(["row", "series"], sort=False)
    ]
    return bars(name, shown) if shown else ""


def _series(line: Mapping[Hashable, Any]) -> str:
    """Zero-shot rows are compared by fidelity, supervised ones, and all of several sounds, by audio."""
    audio = f"{line['audio']} audio"
    if line["regime"] == "zero_shot" and line["audio"] == "original":
        return line["fidelity"]
    return audio if line["fidelity"] == "corrected" else f"{audio}, {line['fidelity']}"


def _scaling(name: str, lines: pd.DataFrame) -> str:
    """A curve for each model that was trained on several fractions; empty where there is none."""
    curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines[lines["audio"] == "original"].to_dict("records"):
        model = line["label"] if line["fidelity"] == "corrected" else f"{line['label']}, {line['fidelity']}"
        curves[model][float(line["fraction"])].append(line["m_j"])
    several = {model: points for model, points in curves.items() if len(points) > 1}
    return scaling(name, several) if several else ""
