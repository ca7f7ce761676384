"""The page of a study: one HTML file with tables, plots, pictures and sounds, which opens from the disk.

Everything is in the file, so that it can be sent or kept; it needs neither a server nor the network. Only files are put
together here: the runs left their numbers, and with --strips their pictures, in their folders.
"""

import os
import platform
import re
import shlex
import time
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path

from study.gallery import gallery
from study.plan import Job, Study
from study.plots import Bar, bars, scaling
from study.results import result
from study.rows import TABLES
from study.table_format import Table
from study.tables import NAMES, PROTOCOL, UNKNOWN, build_tables
from utils.files import write_text
from utils.results import package_versions
from zero_shot.options import BASELINES

TITLES = {"s4": "S4, one thing sounds", "ms3": "MS3, several things may sound"}
NOT_PROMPTED = (*BASELINES, "heatmap")


def write_page(study: Study, runs: Path, path: Path, clips: int = 4) -> None:
    """Write the page of what the study has so far, with `clips` test clips of each benchmark."""
    found = [(job, result(job, runs)) for job in study.jobs]
    done = [facts for _, facts in found if facts]
    sections = [_section(table, study, runs) for table in build_tables(study, runs)]
    pictures = {name: gallery(study, runs, name, clips) for name in TITLES}
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(study.title)}</title>
<style>{STYLE}</style>
<h1>{escape(study.title)}</h1>
<p class="facts">{escape(_facts(done, len(found)))}</p>
<p>{INTRODUCTION}</p>
{"".join(sections)}
<p class="facts">{escape(PROTOCOL)}</p>
<p class="facts">{escape(UNKNOWN)}</p>
<h2>What each run sees</h2>
<p>{GALLERY}</p>
{"".join(f"<h3>{TITLES[name]}</h3>{html or NO_PICTURES}" for name, html in pictures.items())}
<h2>The commands</h2>
<p>Each run, as it can be repeated by itself.</p>
<div class="commands">{"".join(_commands(job, facts is not None, runs) for job, facts in found)}</div>
<script>{SCRIPT}</script>
</html>
""",
    )


def _facts(done: Sequence[dict], planned: int) -> str:
    """When, where, from which code, and how far."""
    commits = sorted({re.sub(r"(?<=^.{8})\w+", "", facts["commit"]) for facts in done})  # a "+" at the end stays
    code = f"commit {', '.join(commits[:3])}{' and others' if len(commits) > 3 else ''} · " if commits else ""
    machine = f"{os.cpu_count()} processors ({platform.machine()}), torch {package_versions()['torch']}"
    return f"{time.strftime('%Y-%m-%d %H:%M')} · {code}{machine} · {len(done)} of {planned} runs done"


def _section(table: Table, study: Study, runs: Path) -> str:
    """A table and its plots, one for each benchmark."""
    name = next(key for key, title in TABLES.items() if title == table.title)
    plots = []
    for benchmark in NAMES:
        jobs = [job for job in study.jobs if job.benchmark == benchmark]
        if plot := (_scaling if name == "fraction" else _bars)(jobs, runs, name, benchmark):
            caption = f"M_J, {NAMES[benchmark]}"
            described = f'role="img" aria-label="{escape(table.title)}: {caption}"'
            plots.append(f"<figure {described}>{plot}<figcaption>{caption}</figcaption></figure>")
    return f"""<h2>{escape(table.title)}</h2>
<div class="wide">{table.to_html()}</div>
<p class="facts">{escape(table.note)}</p>
<div class="plots">{"".join(plots)}</div>
"""


def _bars(jobs: Sequence[Job], runs: Path, table: str, benchmark: str) -> str:
    """M_J of each row; empty where nothing is done."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    grey = set()
    for job in jobs:
        for row in [place.row for place in job.table_rows if place.table == table]:
            for sound in job.audio_conditions:
                if facts := result(job, runs, sound):
                    found[row, _series(job, sound)].append(facts["m_j"])
                    grey |= {row} if facts.get("method") in NOT_PROMPTED else set()
    shown = [Bar(row, series, values, row in grey) for (row, series), values in found.items()]
    return bars(f"{table}_{benchmark}", shown) if shown else ""


def _series(job: Job, sound: str) -> str:
    """Zero-shot rows differ by fidelity, supervised ones first of all by the sound that they hear."""
    if job.kind == "zero_shot":
        return job.fidelity
    return f"{sound} sound" if job.fidelity == "corrected" else f"{sound} sound, {job.fidelity}"


def _scaling(jobs: Sequence[Job], runs: Path, table: str, benchmark: str) -> str:
    """A line for each model that was trained on several fractions; empty where there is none."""
    lines: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for job in jobs:
        for row in [place.row for place in job.table_rows if place.table == table]:
            if facts := result(job, runs):
                model = row if job.fidelity == "corrected" else f"{row}, {job.fidelity}"
                lines[model][job.fraction].append(facts["m_j"])
    several = {model: points for model, points in lines.items() if len(points) > 1}
    return scaling(f"{table}_{benchmark}", several) if several else ""


def _commands(job: Job, done: bool, runs: Path) -> str:
    """The commands of a job, folded."""
    lines = "\n".join(shlex.join(command) for command in job.commands(runs))
    state = "" if done else ' <span class="facts">not done</span>'
    return f"<details><summary>{escape(job.name)}{state}</summary><pre>{escape(lines)}</pre></details>\n"


INTRODUCTION = """Audio-visual segmentation: for each second of a five-second clip, find the pixels of what makes the
sound. The zero-shot rows train nothing: AudioCLIP says where sound and picture agree, and Segment Anything turns that
into a mask; the supervised rows train a segmentor on masks. M_J is the mean overlap (IoU) of mask and truth, M_F the
F-measure at the best threshold; 1 is perfect. <i>Published</i> repeats the original code with its oddities,
<i>corrected</i> does what was meant."""

GALLERY = """The same test clips for every run. First line of a clip: its five seconds, and in green the truth. Then,
for each run: where its map says the sound comes from (red), with the prompts that Segment Anything gets (white points
yes, black points no, yellow boxes), and in orange its mask, with the mean IoU over the five seconds."""

NO_PICTURES = '<p class="facts">No run of this benchmark has left pictures yet.</p>'

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; overflow-wrap: anywhere; } h2 { margin-top: 2em; font-size: 1.25em; } h3 { font-size: 1em; }
.facts { opacity: .7; font-size: .92em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3em .8em; border-bottom: 1px solid #8884; text-align: right; }
th:first-child { text-align: left; font-weight: inherit; } thead th, thead th:first-child { font-weight: 600; }
.plots { display: flex; flex-wrap: wrap; gap: 24px; } figure { margin: 0; max-width: 100%; }
figcaption { text-align: center; font-weight: 600; font-size: .92em; }
svg { max-width: 100%; height: auto; font-family: system-ui, sans-serif; }
details { border: 1px solid #8884; border-radius: 8px; padding: 8px 12px; margin: 8px 0; }
.commands details { border: 0; padding: 0 12px; margin: 2px 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.line { display: grid; grid-template-columns: 190px 1fr 1fr; gap: 6px 10px; align-items: center; margin: 6px 0; }
.line div > * { display: block; } .line div span { font-size: .9em; opacity: .75; }
.line .published { color: #8896a8; opacity: 1; } .line .corrected { color: #e8640c; opacity: 1; }
.line img { width: 100%; height: auto; display: block; border-radius: 4px; } audio { width: 100%; height: 36px; }
pre { overflow-x: auto; font-size: 13px; }
.none { text-align: center; opacity: .5; }
@media (max-width: 700px) {
  th:first-child { white-space: normal; min-width: 9em; padding-left: 0; } th, td { padding: .3em .5em; }
  .line { grid-template-columns: 1fr; margin: 16px 0; } .none { display: none !important; }
  .line div > * { display: inline-block; margin-right: .7em; } audio { width: 220px; vertical-align: middle; }
}
"""

SCRIPT = """
for (const sound of document.querySelectorAll("audio"))
  sound.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== sound) other.pause();
  });
"""
