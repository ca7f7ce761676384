"""The page of a study: complete in one file, true to the run folders, and well-formed when half of them are missing."""

import base64
import io
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from functools import cache
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
import torch

from study.job import Study
from study.page import write_page
from study.plan import load_study
from study.plots import Bar, bars, scaling
from study.results import write_record
from tests.helpers.studies import TABLES
from utils.dataset import read_frame
from utils.figures import ROW_IMAGE_SIZE, row_image
from utils.files import mp3_bytes, webp_bytes, write_bytes, write_text
from utils.layout import AVSBench

REPOSITORY = Path(__file__).parents[2]
VOID = {"meta", "img", "br", "link"}
ROWS: list[dict[str, Any]] = [
    {"zero_shot": "no_prompt", "name": "baseline", "tables": {"zero_shot": "everything"}},
    {"zero_shot": "point_local", "tables": {"zero_shot": "<b>Points</b> & $x_{$"}},
    {"zero_shot": "heatmap_box", "tables": {"zero_shot": "Boxes"}},
    {"supervised": "fpn_none", "tables": {"fusion": "no audio"}, "seeds": [0, 1], "audio": ["original", "shuffled"]},
    {"supervised": "fpn_mini", "tables": {"fraction": "FPN"}, "fractions": [0.5, 1]},
]
ROWS[0]["options"], ROWS[1]["fidelities"] = {"method": "foreground"}, ["published", "corrected"]
NO_IMAGES = "No run on this benchmark has saved images yet."


class Page(HTMLParser):
    """What a browser would meet: text, images and sounds, references and scripts; tags must close in order."""

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.text, self.seen, self.media, self.references = "", list[str](), list[str](), list[str]()
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open
        # What is neither text nor the file's own data names nothing elsewhere.
        assert all(reference.startswith(("data:", "#")) for reference in self.references), self.references
        assert "http" not in path.read_text(encoding="utf-8")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.references.append(str(value))
            if name == "src":
                self.media.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.remove(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[np.ndarray]:
        """The images, decoded; every other medium must be a sound of five seconds."""
        found: list[np.ndarray] = []
        for kind, data in (re.fullmatch(r"data:([a-z/]+);base64,(.*)", medium).groups() for medium in self.media):  # type: ignore[union-attr]
            content = base64.b64decode(data, validate=True)
            if kind == "image/webp":
                image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
                assert image is not None and image.shape == (ROW_IMAGE_SIZE, 5 * ROW_IMAGE_SIZE, 3)
                found.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            else:
                samples, rate = soundfile.read(io.BytesIO(content))
                assert kind == "audio/mpeg" and len(samples) / rate == pytest.approx(5, abs=0.2)
        return found


def study_of(tmp_path: Path, rows: Sequence[dict], data: dict[str, Path] | None = None) -> Study:
    """A study as its YAML file says it."""
    folders = {name: str(REPOSITORY / name / "configs" / "mini") for name in ("zero_shot", "supervised")}
    roots = {key: str(root) for key, root in (data or {"s4": tmp_path / "s4", "ms3": tmp_path / "ms3"}).items()}
    content = {"title": "Masks <&> audio", "data": roots, "configs": folders, "gallery_clips": 2, "rows": rows}
    write_text(tmp_path / "own.yaml", json.dumps({**content, "tables": TABLES}))  # JSON is YAML
    return load_study(tmp_path / "own.yaml")


@cache
def media() -> tuple[bytes, bytes]:
    """Any strip, and five seconds of any sound."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (5, 7, 7, 3), dtype=np.uint8).repeat(32, axis=1).repeat(32, axis=2)
    return webp_bytes(row_image(list(pictures))), mp3_bytes((rng.normal(size=80_000) * 3000).astype(np.int16), 16_000)


def fabricate(study: Study, runs: Path, clips: Sequence[tuple[str, str]], strips: bool = True) -> None:
    """Run folders as the evaluations leave them; the job at place n has M_J and IoU n / 100."""
    for place, job in enumerate(study.jobs, 1):
        folder = job.run_dir(runs)
        facts = {"m_j": place / 100, "m_f": place / 50, "commit": "0123456789abcdef+", "metric_batch": 1}
        facts |= {"method": job.options.method} if job.regime == "zero_shot" else {}
        for audio in job.audio:
            name = "metrics.json" if audio == "original" else f"metrics_test_{audio}.json"
            write_text(folder / name, json.dumps({**facts, "audio": audio}))
        lines = ["name,category,second,iou,f_at_half,ground_truth_pixels"]
        lines += [f"{name},{category},{k},{place / 100},0,9" for category, name in clips for k in range(1, 6)]
        write_text(folder / "per_frame.csv", "\n".join([*lines, ""]))
        for category, name in clips if strips else []:
            for view in ["frames", "ground_truth", "prediction", *(["heatmap"] if job.regime == "zero_shot" else [])]:
                write_bytes(folder / "strips" / category / name / f"{view}.webp", media()[0])
            write_bytes(folder / "strips" / category / name / "audio.mp3", media()[1])
        write_record(job, runs, True, seconds=1.0)


CLIPS = [("", f"clip_{number} <i>&") for number in range(6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study with all its results. Read only: copy the folder to change it."""
    folder = tmp_path_factory.mktemp("study")
    study = study_of(folder, ROWS)
    fabricate(study, folder / "runs", CLIPS)
    return study, folder / "runs"


def test_everything_is_in_the_file(made: tuple[Study, Path], tmp_path: Path) -> None:
    study, runs = made
    write_page(study, runs, tmp_path / "index.html", num_clips=3)
    page = Page(tmp_path / "index.html")
    # Of each of two benchmarks three clips: frames and truth, then heat and mask of three runs, masks of three.
    assert len(page.pictures()) == 2 * 3 * (2 + 3 * 2 + 3) and page.seen.count("audio") == 2 * 3
    assert (tmp_path / "index.html").stat().st_size < 8e6
    assert "i" in page.seen and "b" in page.seen and page.seen.count("h1") == 1
    names = re.findall(r"clip_\d <i>&", page.text)
    assert names == [f"clip_{number} <i>&" for number in (0, 2, 5)] * 2  # evenly spread
    assert "Masks <&> audio" in page.text and "commit 01234567+ ·" in page.text
    assert f"{len(study.jobs)} of {len(study.jobs)} runs done" in page.text


def test_figures_are_those_of_the_runs(made: tuple[Study, Path], tmp_path: Path) -> None:
    study, runs = made
    write_page(study, runs, tmp_path / "index.html", num_clips=1)
    page = Page(tmp_path / "index.html")
    for place, job in enumerate(study.jobs, 1):
        assert f".{place:02d}0 / " in page.text or job.seed is not None
        for command in job.commands(runs):
            assert shlex.join(command) in page.text
    html = (tmp_path / "index.html").read_text()
    assert "<b>Points" not in html and "<b>&lt;b&gt;Points&lt;/b&gt; &amp; $x_{$</b>" in html
    points = [
        place
        for place, job in enumerate(study.jobs, 1)
        if job.rows[0].label.startswith("<b>") and job.benchmark == "s4"
    ]
    tags = re.findall(r"(corrected|published)\s*IoU (\.\d+)", re.sub("<[^>]+>", " ", html))
    # Of points_local, published comes first in the study, corrected on the page.
    assert tags[:2] == [("corrected", f".{points[1]:02d}0"), ("published", f".{points[0]:02d}0")]
    assert "original audio" in page.text and "shuffled audio" in page.text and "% of the training clips" in page.text


@pytest.mark.parametrize("what", ["nothing", "no pictures", "one benchmark", "parts"])
def test_the_page_is_whole_without(what: str, made: tuple[Study, Path], tmp_path: Path) -> None:
    study, runs = made[0], tmp_path / "runs"
    if what in ("one benchmark", "parts"):
        shutil.copytree(made[1], runs)
    if what == "no pictures":
        fabricate(study, runs, CLIPS, strips=False)
    if what == "one benchmark":
        for job in study.jobs:
            if job.benchmark == "ms3":
                (job.run_dir(runs) / "job.json").unlink()
    if what == "parts":
        for path in [*runs.rglob("audio.mp3"), *runs.rglob("prediction.webp"), *runs.rglob("ms3_*/per_frame.csv")]:
            path.unlink()
    write_page(study, runs, tmp_path / "index.html")
    page = Page(tmp_path / "index.html")
    assert page.text.count(NO_IMAGES) == {"nothing": 2, "no pictures": 2, "one benchmark": 1, "parts": 1}[what]
    shown = {"nothing": 0, "no pictures": 0, "one benchmark": 4 * 11, "parts": 4 * (2 + 3)}[what]
    assert len(page.pictures()) == shown
    assert page.seen.count("svg") == page.seen.count("figure") == {"nothing": 0, "one benchmark": 3}.get(what, 6)
    assert ("no audio file" in page.text) == (what == "parts")
    assert all(job.rows[0].label in page.text and job.name in page.text for job in study.jobs)


def test_bars_say_what_they_are_given() -> None:
    svg = bars("a", [Bar("baseline", "corrected", [0.125], gray=True), Bar("$_row", "published", [0.4, 0.6])])
    assert all(f">{text}<" in svg for text in (".125", ".500", "$_row", "baseline")) and "http" not in svg
    corners = re.findall(r"M ([\d.]+) ([\d.]+) \nL ([\d.]+) \2 \nL \3 ([\d.]+) \nL \1 \4", svg)
    gray, published = sorted({float(right) - float(left) for left, _, right, _ in corners})[:2]
    assert published == pytest.approx(4 * gray, rel=1e-3)
    assert "#010203" not in svg and "currentColor" in svg
    one = bars("b", [Bar("row", "corrected", [0.4])])
    assert not set(re.findall(r'clipPath id="(\w+)"', svg)) & set(re.findall(r'clipPath id="(\w+)"', one))


def test_scaling_draws_a_line_for_each_model() -> None:
    svg = scaling("c", {"FPN": {1.0: [0.7], 0.2: [0.4, 0.5]}, "TPAVI": {0.2: [0.3], 1.0: [0.6]}})
    assert all(f">{text}<" in svg for text in ("FPN", "TPAVI", "20", "100", "M_J"))


def test_from_runs_to_page(composed: Path, tmp_path: Path) -> None:
    """As a study does it: both evaluations leave the same clips, and the page shows what they saw."""
    small: dict[str, Any] = {
        "data.image_size": 32,
        "data.num_workers": 0,
        "model.channels": 8,
        "train.epochs": 1,
        "train.device": "cpu",
    }
    small |= {"model.fpn": {"fusion": "none", "variant": "mini", "visual": "random", "audio": "random"}}
    quick = {"data.num_workers": 0, "run.use_cache": False, "run.device": "cpu"}
    rows: list[dict[str, Any]] = [
        {"zero_shot": "point_global", "tables": {"zero_shot": "Points"}, "options": quick},
        {"supervised": "fpn_none", "tables": {"fusion": "FPN"}, "options": small},
    ]
    data = {"s4": composed / "Single-source", "ms3": composed / "Multi-sources"}
    study, runs = study_of(tmp_path, [{**row, "benchmarks": ["s4"]} for row in rows], data), tmp_path / "runs"
    torch.manual_seed(0)
    for job in study.jobs:
        for _, _, module, *words in job.commands(runs):
            assert import_module(module).main(words) == 0
        write_record(job, runs, True, seconds=1.0)
    clips = AVSBench(data["s4"], "s4")
    left = [sorted(path.parent.name for path in job.run_dir(runs).rglob("frames.webp")) for job in study.jobs]
    test = [clip.name for clip in clips.split("test")]
    assert left[0] == left[1] == sorted({test[0], test[-1]})
    write_page(study, runs, tmp_path / "index.html", num_clips=2)
    pictures = Page(tmp_path / "index.html").pictures()
    assert len(pictures) == 2 * (2 + 2 + 1)
    frames = row_image([read_frame(path) for path in clips.frames(clips.split("test")[0])])
    assert np.abs(pictures[0].astype(int) - frames).mean() < 6  # as far as WebP goes
    truth, heat, mask = (np.abs(pictures[place].astype(int) - pictures[0]).max(axis=2) > 40 for place in (1, 2, 3))
    assert 0.01 < truth.mean() < 0.4 and heat.mean() > 0.5 and 0 < mask.mean() < 1
