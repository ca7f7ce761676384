"""The gallery of a study's page: the predictions of every run on the same few test clips."""

import base64
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from statistics import fmean

from study.job import Job, Study
from study.results import result
from study.table_format import format_score
from utils.layout import BenchmarkName
from utils.results import evenly_spaced
from zero_shot.options import BASELINES

ClipKey = tuple[str, str]  # category ("" in MS3) and name
Strips = list[tuple[str, str]]  # (name, data URI or "") of images of five seconds side by side
MEDIA_TYPES = {".webp": "image/webp", ".mp3": "audio/mpeg"}


@dataclass(frozen=True)
class GalleryRun:
    """A run that saved images. table: the key of the table that shows it first; label: of its row there."""

    table: str
    label: str
    fidelity: str
    folder: Path

    @cached_property
    def ious(self) -> dict[ClipKey, float]:
        """The mean IoU of each clip, in the order of the split."""
        frames: dict[ClipKey, list[float]] = {}
        with (self.folder / "per_frame.csv").open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                frames.setdefault((line["category"], line["name"]), []).append(float(line["iou"]))
        return {clip: fmean(values) for clip, values in frames.items()}

    def file(self, clip: ClipKey, name: str) -> Path:
        """A file of a clip as `utils.results.write_strips` saves it."""
        return self.folder / "strips" / clip[0] / clip[1] / name


@dataclass(frozen=True)
class GalleryLine:
    """A run's predictions on a clip. fidelity: empty where the table has only one."""

    label: str
    fidelity: str
    score: str
    strips: Strips


@dataclass(frozen=True)
class GalleryGroup:
    """The lines of one table."""

    title: str
    lines: list[GalleryLine]


@dataclass(frozen=True)
class GalleryClip:
    """A clip. audio: a data URI, or empty. strips: its frames and its ground truth."""

    title: str
    audio: str
    strips: Strips
    groups: list[GalleryGroup]


def data_uri(path: Path) -> str:
    """A file as a data URI, which the page can hold; empty if the file does not exist."""
    if not path.is_file():
        return ""
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def gallery_runs(study: Study, runs: Path, benchmark: BenchmarkName) -> list[GalleryRun]:
    """The runs whose images are shown: all but the baselines, with the first seed, corrected before published."""
    found: dict[tuple[str, str, str], GalleryRun] = {}
    for job in study.jobs:
        if job.dataset != benchmark or (job.regime == "zero_shot" and job.options.method in BASELINES):
            continue
        if not result(job, runs) or not (job.run_dir(runs) / "per_frame.csv").is_file():
            continue
        run = GalleryRun(job.rows[0].table, _label(job), job.fidelity, job.run_dir(runs))
        found.setdefault((run.table, run.label, run.fidelity), run)
    tables, rows = list(study.tables), list(dict.fromkeys(key[:2] for key in found))
    order = lambda run: (tables.index(run.table), rows.index((run.table, run.label)), run.fidelity)  # noqa: E731
    return sorted(found.values(), key=order)


def _label(job: Job) -> str:
    """The label of a job beside those of other tables."""
    label = job.rows[0].label
    return label if job.fraction == 1 else f"{label}, {job.fraction * 100:g} % of the clips"


def build_gallery(study: Study, runs: Path, benchmark: BenchmarkName, num_clips: int) -> list[GalleryClip]:
    """Clips of a benchmark, evenly spaced among those that a run saved images of; empty if no run did."""
    shown = gallery_runs(study, runs, benchmark)
    known = list(dict.fromkeys(clip for run in shown for clip in run.ious if run.file(clip, "frames.webp").is_file()))
    chosen = [known[place] for place in sorted(evenly_spaced(min(num_clips, len(known)), len(known)))]
    return [_gallery_clip(study, clip, shown) for clip in chosen]


def _gallery_clip(study: Study, clip: ClipKey, runs: Sequence[GalleryRun]) -> GalleryClip:
    source = next(run for run in runs if run.file(clip, "frames.webp").is_file())
    audio = next(filter(None, (data_uri(run.file(clip, "audio.mp3")) for run in [source, *runs])), "")
    groups = []
    for table, group in groupby(runs, lambda run: run.table):
        members = list(group)
        several = len({run.fidelity for run in members}) > 1
        lines = [_gallery_line(run, clip, show_fidelity=several) for run in members]
        groups.append(GalleryGroup(study.tables[table], lines))
    return GalleryClip(" · ".join(filter(None, clip)), audio, _strips(source, clip, "frames", "ground_truth"), groups)


def _gallery_line(run: GalleryRun, clip: ClipKey, show_fidelity: bool) -> GalleryLine:
    score = f"IoU {format_score(run.ious[clip])}" if clip in run.ious else "not evaluated on this clip"
    return GalleryLine(
        run.label, run.fidelity if show_fidelity else "", score, _strips(run, clip, "heatmap", "prediction")
    )


def _strips(run: GalleryRun, clip: ClipKey, *names: str) -> Strips:
    return [(name, data_uri(run.file(clip, f"{name}.webp"))) for name in names]
