"""The gallery of a study's page: what every run said of the same few test clips, from the strips that it left."""

import base64
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from statistics import fmean

from study.plan import Job, Study
from study.results import result
from study.rows import TABLES
from study.table_format import format_score
from utils.results import evenly_spaced
from zero_shot.options import BASELINES

ClipKey = tuple[str, str]  # category ("" in MS3) and name
MEDIA = {".webp": "image/webp", ".mp3": "audio/mpeg"}


def data_uri(path: Path) -> str:
    """A file as the address of itself, so that the page needs none beside it."""
    return f"data:{MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Run:
    """A run that left pictures."""

    table: str
    label: str
    fidelity: str
    folder: Path

    @cached_property
    def clips(self) -> dict[ClipKey, float]:
        """The clips, in the order of the split, with their mean IoU."""
        frames: dict[ClipKey, list[float]] = {}
        with (self.folder / "per_frame.csv").open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                frames.setdefault((line["category"], line["name"]), []).append(float(line["iou"]))
        return {clip: fmean(ious) for clip, ious in frames.items()}

    def file(self, clip: ClipKey, name: str) -> Path:
        """Where `utils.results.write_strips` put it."""
        return self.folder / "strips" / clip[0] / clip[1] / name


def runs_of(study: Study, folder: Path, benchmark: str) -> list[Run]:
    """The runs whose pictures are shown: of what listens, with its first seed, corrected before published."""
    found: dict[tuple[str, str, str], Run] = {}
    for job in study.jobs:
        done = result(job, folder) if job.benchmark == benchmark else None
        if done is None or done.get("method") in BASELINES or not (job.folder(folder) / "per_frame.csv").is_file():
            continue
        run = Run(job.table, label(job), job.fidelity, job.folder(folder))
        found.setdefault((run.table, run.label, run.fidelity), run)
    rows = list(dict.fromkeys(key[:2] for key in found))
    order = lambda run: (list(TABLES).index(run.table), rows.index((run.table, run.label)), run.fidelity)  # noqa: E731
    return sorted(found.values(), key=order)


def label(job: Job) -> str:
    """What a job is called where it stands beside those of other tables."""
    return job.row if job.fraction == 1 else f"{job.row}, {job.fraction:.0%} of the clips".replace("%", " %")


def gallery(study: Study, folder: Path, benchmark: str, clips: int) -> str:
    """The clips of a benchmark as HTML; empty if no run left pictures."""
    runs = runs_of(study, folder, benchmark)
    known = list(dict.fromkeys(clip for run in runs for clip in run.clips if run.file(clip, "frames.webp").is_file()))
    chosen = [known[place] for place in sorted(evenly_spaced(min(clips, len(known)), len(known)))]
    return "\n".join(_clip(clip, runs, first=clip == chosen[0]) for clip in chosen)


def _clip(clip: ClipKey, runs: Sequence[Run], first: bool) -> str:
    """One clip: its sound, frames and truth, and a line for each run."""
    source = next(run for run in runs if run.file(clip, "frames.webp").is_file())
    sound = source.file(clip, "sound.mp3")
    sound = next((found for run in runs if (found := run.file(clip, "sound.mp3")).is_file()), sound)
    audio = f'<audio controls src="{data_uri(sound)}"></audio>' if sound.is_file() else "<span>no sound file</span>"
    lines = [_line("the clip", "", audio, source, clip, ("frames", "ground_truth"))]
    for place, run in enumerate(runs):
        if place == 0 or run.table != runs[place - 1].table:
            lines.append(f"<h4>{escape(TABLES[run.table])}</h4>\n")
        iou = f"IoU {format_score(run.clips[clip])}" if clip in run.clips else "not evaluated on this clip"
        fidelity = run.fidelity if len({r.fidelity for r in runs if r.table == run.table}) > 1 else ""
        lines.append(_line(run.label, fidelity, iou, run, clip, ("heatmap", "prediction")))
    name = escape(" · ".join(filter(None, clip)))
    return f"<details{' open' if first else ''}><summary>{name}</summary>\n{''.join(lines)}</details>"


def _line(title: str, fidelity: str, said: str, run: Run, clip: ClipKey, names: Sequence[str]) -> str:
    """A title and two strips of five seconds each."""
    strips = [
        f'<img src="{data_uri(run.file(clip, f"{name}.webp"))}" alt="{name}, five seconds">'
        if run.file(clip, f"{name}.webp").is_file()
        else '<span class="none">no map</span>'
        for name in names
    ]
    tag = f'<span class="{fidelity}">{fidelity}</span>' if fidelity else ""
    return f'<div class="line"><div><b>{escape(title)}</b>{tag}<span>{said}</span></div>{"".join(strips)}</div>\n'
