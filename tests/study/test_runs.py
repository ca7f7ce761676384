"""Studies run end to end on composed clips: each job once, again only where something changed, and after any end."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import reproduce_tables
from study.job import Job
from study.plan import load_study
from study.run import job_state, run_jobs

REPOSITORY = Path(__file__).parents[2]
FOREGROUND = {"tables": {"zero_shot": "baseline"}, "options": {"method": "foreground"}, "benchmarks": ["s4"]}
MAP = {"method": "heatmap", "data.max_clips": 1}
MEASURED = ("m_j", "m_f", "m_f_whole_set", "iou_dataset", "frames", "videos", "checkpoints")


def write_study(path: Path, composed: Path, *entries: dict[str, Any], **fields: Any) -> list[str]:
    """A study in a YAML file; the words that run it beside the file."""
    options = {"zero_shot": {"data.num_workers": 0, "run.device": "cpu", "run.cache": str(path.parent / "cache")}}
    options["supervised"] = {
        "data.num_workers": 0,
        "train.device": "cpu",
        "data.fraction": 0.5,
        "train.checkpoint_minutes": 0,
    }
    content = {
        "data": {"s4": str(composed / "Single-source"), "ms3": str(composed / "Multi-sources")},
        "configs": {"zero_shot": "zero_shot/configs/mini", "supervised": "supervised/configs/mini"},
        "options": options,
        "tables": {"zero_shot": "Zero-shot", "fusion": "Fusion"},
        "gallery_clips": 1,
        "rows": list(entries),
        **fields,
    }
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    places = ["--runs", str(path.parent / "runs"), "--out", str(path.parent / "out")]
    return ["--study", str(path), *places]


def numbers(folder: Path) -> dict[str, Any]:
    """The results below a folder but for their times, by run."""
    found = {str(path.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("metrics*.json")}
    return {name: {key: result[key] for key in MEASURED} for name, result in found.items()}


def written(runs: Path) -> dict[str, int]:
    """When each result was written."""
    return {str(path.relative_to(runs)): path.stat().st_mtime_ns for path in sorted(runs.rglob("metrics*.json"))}


@pytest.mark.slow
def test_a_study_runs_what_has_no_result(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, runs = tmp_path / "own.yaml", tmp_path / "runs"
    damaged = tmp_path / "damaged.pt"  # which only the run itself finds out
    damaged.write_bytes(b"no checkpoint")
    good = {"zero_shot": "point_global", "name": "map", "tables": {"zero_shot": "map"}, "options": MAP}
    baseline = {
        **good,
        "name": "baseline",
        "tables": {"zero_shot": "baseline"},
        "options": {"method": "foreground"},
        "benchmarks": ["s4"],
    }
    bad = {
        **good,
        "name": "bad",
        "tables": {"zero_shot": "bad"},
        "options": {**MAP, "audioclip.weights": str(damaged)},
        "benchmarks": ["s4"],
    }
    words = write_study(study, composed, good, baseline, bad)
    assert reproduce_tables.main([*words, "--jobs", "2"]) == 1
    said = capsys.readouterr()
    assert "[1/4]" in said.out and "[4/4]" in said.out and "3 of 4 runs finished" in said.out
    assert said.err.count("\n") == 1 and said.err.startswith("failed: zero_shot/s4_bad: exit code 1: error: ")
    assert "damaged.pt: " in said.err and str(runs / "zero_shot/s4_bad/log.txt") in said.err
    table = (tmp_path / "out" / "own.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| map |"))
    found = [json.loads((runs / "zero_shot" / f"{name}_map" / "metrics.json").read_text()) for name in ("s4", "ms3")]
    cells = [f"{result['m_j']:.3f} / {result['m_f']:.3f}".replace("0.", ".") for result in found]
    assert row == f"| map | {cells[0]} | {cells[1]} |" and "| bad | … | – |" in table
    assert (runs / "index.html").stat().st_size > 1000
    assert list((runs / "zero_shot" / "s4_map" / "strips").rglob("heatmap.webp"))
    log = (runs / "zero_shot" / "s4_map" / "log.txt").read_text()
    assert log.startswith("$ python -m zero_shot.evaluate --config ") and "1 clip: M_J" in log

    first = written(runs)
    assert len(first) == 3
    assert reproduce_tables.main([*words, "--only", "map", "s4_base*"]) == 0  # all of that is there
    assert "nothing to do: 3 runs finished" in capsys.readouterr().out and written(runs) == first

    mended = {**bad, "options": MAP}
    changed = {**good, "s4": {"prompt.threshold": 0.3}}
    write_study(study, composed, changed, baseline, mended)
    assert reproduce_tables.main([*words, "--dry-run"]) == 0
    assert "4 runs (4 zero_shot, corrected): 2 done, 2 stale" in capsys.readouterr().out
    assert reproduce_tables.main([*words, "--jobs", "1"]) == 0
    assert "2 of 4 runs to do" in capsys.readouterr().out
    second = written(runs)
    same = {"zero_shot/ms3_map/metrics.json", "zero_shot/s4_baseline/metrics.json"}
    assert {name for name in first if second[name] == first[name]} == same
    assert set(second) == {*first, "zero_shot/s4_bad/metrics.json", "stale/zero_shot/s4_map.1/metrics.json"}
    assert second["stale/zero_shot/s4_map.1/metrics.json"] == first["zero_shot/s4_map/metrics.json"]
    assert "| … |" not in (tmp_path / "out" / "own.md").read_text()


@pytest.mark.slow
def test_a_launcher_takes_pythons_place(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = {
        "zero_shot": "no_prompt",
        "name": "baseline",
        "tables": {"zero_shot": "baseline"},
        "options": {"method": "foreground"},
        "benchmarks": ["s4"],
    }
    words = write_study(tmp_path / "own.yaml", composed, baseline)
    assert reproduce_tables.main([*words, "--launcher", "no-such-program"]) == 1
    assert "no-such-program: No such file or directory" in capsys.readouterr().err
    launcher = f"{shlex.quote(sys.executable)} -m torch.distributed.run --standalone --nproc_per_node 1"
    assert reproduce_tables.main([*words, "--launcher", launcher]) == 0
    log = (tmp_path / "runs" / "zero_shot" / "s4_baseline" / "log.txt").read_text()
    assert f"$ {launcher} -m zero_shot.evaluate --config" in log
    assert "1 of 1 run finished" in capsys.readouterr().out


TRAINED: dict[str, Any] = {"supervised": "fpn_mini", "tables": {"fusion": "FPN"}, "benchmarks": ["s4"]}
TRAINED |= {"seeds": [7], "audio": ["original", "shuffled"], "options": {"train.epochs": 2, "train.batch_size": 1}}


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_tables(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heat = {"zero_shot": "point_global", "tables": {"zero_shot": "points"}, "benchmarks": ["s4"]}
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    words = write_study(tmp_path / "killed" / "own.yaml", composed, TRAINED, heat)
    runs = tmp_path / "killed" / "runs"
    command = [sys.executable, "reproduce_tables.py", *words, "--jobs", "2"]
    running = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        limit = time.monotonic() + 200
        while not (log := runs / "supervised" / "s4_fpn_mini_seed7" / "log.csv").is_file():  # an epoch is done
            assert running.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        assert reproduce_tables.main(words) == 1  # two at once
        assert "another process is running this study; wait for it, or end it" in capsys.readouterr().err
        workers = psutil.Process(running.pid).children(recursive=True)
        assert len(workers) >= 2
    finally:
        running.kill()  # not its workers: they must notice
        running.wait()
    _, left = psutil.wait_procs(workers, timeout=20)
    assert not left, "a worker outlives the study"
    before = log.stat().st_mtime_ns
    assert reproduce_tables.main([*words, "--dry-run"]) == 0
    assert "interrupted" in capsys.readouterr().out and log.stat().st_mtime_ns == before
    assert reproduce_tables.main([*words, "--jobs", "2"]) == 0
    said = (runs / "supervised" / "s4_fpn_mini_seed7" / "log.txt").read_text()
    assert said.count("$ python -m supervised.train") == 2 and said.count("epoch 1/2: loss") == 1  # it resumed

    words = write_study(tmp_path / "whole" / "own.yaml", composed, TRAINED, heat)
    assert reproduce_tables.main([*words, "--jobs", "2"]) == 0
    assert numbers(runs) == numbers(tmp_path / "whole" / "runs") and len(numbers(runs)) == 3
    texts = [(tmp_path / name / "out" / "own.md").read_text() for name in ("killed", "whole")]
    tables = [text.partition("\n## ")[2] for text in texts]  # above is the commit, which may change meanwhile
    assert tables[0] == tables[1] and "shuffled audio" in tables[0] and "…" not in tables[0]


ENDS = """
import json, os, pathlib, signal
def main(words):
    print("said", words[0], flush=True)
    if words[0] == "raise":
        raise ValueError("no good")
    if words[0] == "usage":
        raise SystemExit(2)
    if words[0] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if words[0] == "result":
        numbers = {"m_j": 0.5, "m_f": 0.25, "commit": "0"}
        (pathlib.Path(words[1]) / "metrics.json").write_text(json.dumps(numbers))
    return 3 if words[0] == "three" else 0
"""


class Ending(Job):
    """A job whose command ends as its label says."""

    def commands(self, runs: Path) -> list[list[str]]:
        return [["python", "-m", "ends", end, str(self.run_dir(runs))] for end in self.rows[0].label.split()]


def test_however_a_job_ends_the_others_go_on(composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    ends = ["kill", "three result", "raise", "usage", "nothing", "result", "nothing result"]
    one = {"zero_shot": "point_global", "benchmarks": ["s4"]}
    entries = [{**one, "name": f"n{place}", "tables": {"zero_shot": end}} for place, end in enumerate(ends)]
    write_study(tmp_path / "own.yaml", composed, *entries)
    jobs = [Ending(**vars(job)) for job in load_study(tmp_path / "own.yaml").jobs]
    seconds = {job.name: 10.0 - place for place, job in enumerate(jobs)}
    outcomes = run_jobs(jobs, tmp_path / "runs", seconds)
    assert [outcome.job.rows[0].label for outcome in outcomes] == ends
    errors = [outcome.error.partition(" (")[0] for outcome in outcomes]
    assert errors[0].startswith("the process died") and errors[0].endswith("said kill")
    assert errors[1:4] == ["exit code 3: said three", "exit code 1: ValueError: no good", "exit code 2: said usage"]
    assert errors[4].startswith("left no result with original audio") and errors[5:] == ["", ""]
    states = [job_state(job, tmp_path / "runs") for job in jobs]
    assert states == ["interrupted"] * 5 + ["done"] * 2
    log = (jobs[2].run_dir(tmp_path / "runs") / "log.txt").read_text()
    assert log.startswith("$ python -m ends raise ") and "Traceback" in log
