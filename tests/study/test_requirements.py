"""What jobs need that is missing, with the command that provides it, and how long they may take."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from study.estimates import estimate_seconds
from study.plan import load_study
from study.requirements import missing_requirements
from study.terminal import print_dry_run
from tests.helpers.studies import FPN, HEAT, finish, study_of
from utils.layout import AVSBench

REPOSITORY = Path(__file__).parents[2]


def test_missing_requirements_come_with_the_command_that_provides_them(benchmark_copy: Path) -> None:
    rows: list[dict[str, Any]] = [
        HEAT,
        {"supervised": "tpavi", "tables": {"tpavi": "TPAVI"}, "benchmarks": ["s4"]},
        {**HEAT, "name": "h", "options": {"audioclip.weights": "pretrained/AudioCLIP-Full-Training.pt"}},
        {"zero_shot": "box_prompt", "tables": {"zero_shot": "Box"}, "options": {"grounding.clap": "pretrained/clap"}},
    ]

    def names() -> dict[str, list[str]]:
        found = missing_requirements(study_of(benchmark_copy, *rows).jobs)
        return {job: [lack.name for lack in missing] for job, missing in found.items()}

    before = names()
    assert before["zero_shot/s4_heat"] == before["supervised/s4_tpavi"] == []
    assert before["zero_shot/s4_h"] == ["audioclip-full"] and "clap" in before["zero_shot/s4_box_prompt"]
    data = AVSBench(benchmark_copy / "Single-source", "s4")
    data.wav(data.split("test")[0]).unlink()
    data.log_mel(data.split("train")[0]).unlink()
    data.masks(data.split("val")[0])[0].unlink()
    after = names()
    assert after["zero_shot/s4_heat"] == ["S4 preprocessed"]
    assert after["supervised/s4_tpavi"] == ["S4 masks", "S4 preprocessed"] and after["zero_shot/ms3_heat"] == []
    for fidelity, words in (("corrected", ""), ("published", " --fidelity published")):
        jobs = study_of(benchmark_copy, *rows, preprocess_fidelity=fidelity).jobs
        fixes = [lack.fix for missing in missing_requirements(jobs).values() for lack in missing]
        assert f"missing for 1 of 2 clips; python preprocess_s4.py --root {data.root}{words}" in fixes
        assert "python -m pretrained.download audioclip-full" in fixes


def test_avsbench_is_preprocessed_as_published() -> None:
    """As the README says; the clips of the synthetic study are new data."""
    assert {job.preprocess_fidelity for job in load_study("paper").jobs} == {"published"}
    assert {job.preprocess_fidelity for job in load_study("mini").jobs} == {"corrected"}


def test_the_dry_run_of_the_paper_names_everything_without_torch() -> None:
    program = "import sys, reproduce_tables as r\n"
    program += "code = r.main(['--study', 'paper', '--dry-run', '--data.s4', 'nowhere'])\n"
    program += "sys.exit(code or 'torch' in sys.modules or 'pandas' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    names = re.findall(r"^((?:zero_shot|supervised)/\S+)", run.stdout, re.MULTILINE)
    assert len(names) == len(set(names)) == 24 + 48 + 4 + 4
    counts = "12 zero_shot, published; 12 zero_shot, corrected; 4 supervised, published; 52 supervised, corrected"
    assert f"80 runs ({counts}): 80" in run.stdout
    for text in (
        "40 need S4 data: no nowhere/s4_meta_data.csv; see avsbench_data/README.md",
        "Time of all remaining runs, one after another: about 32.0 h (a guess, from the study's seconds_per_clip).",
    ):
        assert text in run.stdout
    for name in ("audioclip-full", "sam-vit-h", "vggish", "resnet50", "pvt-v2-b5", "esresnext-fbsp", "clip-rn50"):
        assert any(line.endswith(f"pretrained.download {name}") for line in run.stdout.splitlines()), name


def test_the_time_of_runs_that_nobody_has_timed_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Until one has finished, however much the others of the study are known."""
    timed, untimed = {**HEAT, "name": "timed", "seconds_per_clip": 5}, HEAT
    study = study_of(tmp_path, timed, untimed, clips={name: {"test": 4} for name in ("s4", "ms3")})
    print_dry_run(study, study.jobs, tmp_path)
    said = capsys.readouterr().out
    assert [word for word in said.split() if word == "unknown"] == ["unknown"] * 3
    assert "one after another: unknown (nothing of this has been timed)" in said
    finish(study.jobs[0], tmp_path, 0.1, 0.1)
    print_dry_run(study, study.jobs, tmp_path)
    said = capsys.readouterr().out
    assert "unknown" not in said and "(from 1 finished run)" in said
    assert all(job.seconds_per_clip is None for job in load_study("modern").jobs)


def test_estimates_learn_from_finished_runs(tmp_path: Path) -> None:
    clips = {name: {"train": 10, "val": 3, "test": 4} for name in ("s4", "ms3")}
    trained = {**FPN, "benchmarks": ["s4", "ms3"], "fractions": [0.5], "options": {"train.epochs": 2}}
    fields: dict[str, Any] = {"seconds_per_clip": {"zero_shot": 2, "supervised": 3}, "startup_seconds": 1}
    slow = {**HEAT, "name": "slow", "seconds_per_clip": 5}
    study = study_of(tmp_path, HEAT, slow, trained, clips=clips, **fields)
    seconds, measured = estimate_seconds(study, tmp_path)
    s4 = {job.name: seconds[job.name] for job in study.jobs if job.benchmark == "s4"}
    assert list(s4.values()) == [1 + 4 * 2, 1 + 4 * 5, 1 + 3 * (2 * 0.5 * 10 + (2 * 3 + 4) / 3)] and measured == 0
    finish(study.jobs[0], tmp_path, 0.1, 0.1)  # in 10 s
    seconds, measured = estimate_seconds(study, tmp_path)
    assert measured == 1 and seconds["zero_shot/s4_slow"] == pytest.approx(21 * 10 / 9)
    assert seconds["supervised/s4_fpn_mini_50_percent"] == s4["supervised/s4_fpn_mini_50_percent"]
