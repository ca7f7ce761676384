"""The comparison of sound conditions in a study: its table, its curves and its part of the page."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from study.page import write_page
from study.plan import load_study
from study.robustness import largest_in_silence, robustness_curves, robustness_runs, robustness_tables
from study.tables import TITLES, write_tables
from tests.helpers.studies import FPN, HEAT, finish, study_of
from utils.layout import Clip
from utils.robustness_report import FILE, RobustnessRecorder, format_robustness
from utils.sound_conditions import CONDITIONS

SOUNDS = {"audio": ["original", "silent", "noise"], "audio_seeds": [0, 1]}


def recorded(quiet: bool, probabilities: bool) -> dict[str, Any]:
    """robustness.json of a model that covers the left half of the frame, and may be empty under other sounds."""
    recorder, truth = RobustnessRecorder(), np.zeros((5, 4, 4), bool)
    truth[:, :, :1] = True
    half = np.zeros((5, 4, 4), bool)
    half[:, :, :2] = True
    for run in (("original", 0), ("silent", 0), ("noise", 0), ("noise", 1)):
        masks = half & (run[0] == "original" or not quiet)
        masks[:2] &= run != ("noise", 1)
        for index in range(2):
            recorder.add(run, index, masks, truth, np.where(masks, 0.75, 0.25) if probabilities else None)  # type: ignore[arg-type]
    return recorder.summary([Clip("one", "test", "dog"), Clip("two", "test", "dog")])


def test_the_recorder_summarizes_conditions_and_seeds() -> None:
    content = recorded(quiet=False, probabilities=True)
    assert (content["m_j"], content["pIA"], content["ground_truth_area"]) == (0.5, 0.5, 0.25) and "H" not in content
    silent, noise = content["conditions"]["silent"], content["conditions"]["noise"]
    assert silent["mean"]["agree"] == 1 and silent["mean"]["drop"] == 0 and silent["clips"] == [2]
    assert noise["seeds"] == [0, 1] and noise["range"]["pIA"] == [0.3, 0.5] and noise["mean"]["pIA"] == 0.4
    assert silent["sweep"] == [1.0, 1.0, *[0.5] * 5, 0.0, 0.0]
    assert silent["share_up_to_area"] == [0.0] * 10 + [1.0] * 11
    assert content["largest_in_silence"][0] == {"name": "one", "category": "dog", "pIA": 0.5}
    assert recorded(quiet=True, probabilities=False)["largest_in_silence"] == []


def test_sounds_used_twice_are_reported() -> None:
    recorder, masks = RobustnessRecorder(), np.ones((5, 4, 4), bool)
    for run in (("original", 0), ("shuffled", 0), ("shuffled", 1), ("silent", 0)):
        recorder.add(run, 0, masks, masks)  # type: ignore[arg-type]
    recorder.reused_sounds["shuffled", 1] = 3
    summary = recorder.summary([Clip("one", "test", "dog")])
    assert summary["conditions"]["shuffled"]["reused_sounds"] == [0, 3]
    (note,) = [line for line in format_robustness(summary) if line.startswith("note")]
    assert note.startswith("note: shuffled: no permutation") and "3 clips got a sound that another clip has" in note


def test_table_curves_and_page(tmp_path: Path) -> None:
    study, runs = study_of(tmp_path, {**HEAT, "benchmarks": ["s4"]}, FPN, **SOUNDS), tmp_path / "runs"
    assert robustness_tables(robustness_runs(study, runs), TITLES) == []
    for job, quiet in zip(study.jobs, (False, True), strict=True):
        for audio in SOUNDS["audio"]:
            finish(job, runs, 0.5, 0.6, str(audio))
        content = recorded(quiet, probabilities=quiet)
        (job.run_dir(runs) / FILE).write_text(json.dumps(content))
    found = robustness_runs(study, runs)
    (table,) = robustness_tables(found, TITLES)
    assert list(table.cells.columns) == ["original", "silent", "noise"] and "H is" not in table.note
    assert table.rows() == [
        ("map", [".500 / .500", ".500 / .500", ".400 [.300 to .500] / .400"]),
        ("FPN", [".500 / .500", ".000 / .000", ".000 / .000"]),
    ]
    found[0].content["H"] = 0.25  # which needs shuffled audio too
    (with_h,) = robustness_tables(found, TITLES)
    assert with_h.rows()[0][1][-1] == ".250" and with_h.rows()[1][1][-1] == "–" and "H is" in with_h.note
    names = [curves.name for curves in robustness_curves(found, "s4", "S4")]
    assert names == ["share_s4_silent", "sweep_s4_silent", "share_s4_noise", "sweep_s4_noise"]
    assert largest_in_silence(found, "s4") == [("map", "one (.500), two (.500)"), ("FPN", "none")]
    write_page(study, runs, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Sound conditions, S4" in page and "one (.500), two (.500)" in page and "Predicted area: S4, noise" in page
    text = write_tables(study, runs, tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "| map | .500 / .500 | .500 / .500 | .400 [.300 to .500] / .400 |" in text


def test_the_study_of_robustness_has_the_rows_of_the_synthetic_study() -> None:
    study, mini = load_study("robustness"), load_study("mini")
    assert all(job.audio == CONDITIONS and job.audio_seeds == (0, 1, 2) and job.offscreen_sounds for job in study.jobs)
    known = {job.name: job.options for job in mini.jobs}
    for job in study.jobs:
        if job.name in known:
            assert job.options == known[job.name], job.name
    rest = {job.name for job in study.jobs} - set(known)
    assert rest == {"supervised/s4_fpn_negatives", "supervised/ms3_fpn_negatives"}
