"""Rows as jobs of a cluster: claims, retries, attaching; submitit's local executor with killed jobs and commands."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import reproduce_tables
from study import claims, cluster
from study.claims import Claim
from study.executor import ClusterExecutor, RowTask, parse_slurm_options
from study.job import Job
from study.plan import load_study
from study.run import JobResult
from tests.helpers.studies import study_of
from tests.study.test_runs import TRAINED, numbers, write_study
from utils.cli import InputError

REPOSITORY = Path(__file__).parents[2]
BASELINE: dict[str, Any] = {"zero_shot": "no_prompt", "tables": {"zero_shot": "baseline"}, "benchmarks": ["s4"]}
BASELINE |= {"options": {"method": "foreground"}}


@pytest.fixture
def jobs(composed: Path, tmp_path: Path) -> list[Job]:
    """Four jobs that lack nothing: three of S4 that share a cache, and one of MS3."""
    rows = [{**BASELINE, "name": f"row{k}", "tables": {"zero_shot": f"row {k}"}} for k in range(3)]
    rows.append({**BASELINE, "name": "row3", "benchmarks": ["ms3"]})
    write_study(tmp_path / "own.yaml", composed, *rows)
    return load_study(tmp_path / "own.yaml").jobs


# --- claims ----------------------------------------------------------------------------------------------


def test_a_submission_is_claimed_once(jobs: list[Job], tmp_path: Path) -> None:
    job, runs, made = jobs[0], tmp_path / "runs", list[Claim | None]()
    assert claims.newest_claim(job, runs) is None and not claims.is_running(job, runs)
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait()
        made.append(claims.make_claim(job, runs, None, "local", 1))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = [claim for claim in made if claim is not None]
    assert len(made) == 8 and len(first) == 1 and claims.newest_claim(job, runs) == first[0]
    second = claims.make_claim(job, runs, first[0], "slurm", 2)
    assert second is not None and (second.number, second.attempt) == (2, 2)
    second.job_id = "77"
    claims.record_submission(job, runs, second)
    assert claims.newest_claim(job, runs) == second and claims.make_claim(job, runs, first[0], "slurm", 2) is None
    assert claims.read_exit(job, runs, second) is None
    claims.write_exit(job, runs, 2, 3, 1.5)
    assert claims.read_exit(job, runs, second) == (3, 1.5) and claims.read_exit(job, runs, first[0]) is None
    (claims.claims_dir(job, runs) / "3.claim.json").touch()  # just being written
    assert claims.newest_claim(job, runs) == Claim(3, "local")
    assert claims.newest_claim(jobs[1], runs) is None


def test_a_running_row_is_seen_from_another_process(jobs: list[Job], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = [sys.executable, "-c", HOLD, str(tmp_path / "own.yaml"), str(runs)]
    holder = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert claims.is_running(jobs[0], runs) and not claims.is_running(jobs[1], runs)
    finally:
        holder.kill()
        holder.wait()
    assert not claims.is_running(jobs[0], runs)


HOLD = """
import sys, time
from pathlib import Path
from study import claims
from study.plan import load_study
with claims.running(load_study(sys.argv[1]).jobs[0], Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


# --- the task of a job -----------------------------------------------------------------------------------


def test_a_task_runs_what_is_missing_and_says_how_it_ended(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, runs, ran = jobs[0], tmp_path / "runs", list[int]()

    def commands(given: Any, log: Path, launcher: Any) -> int:
        assert claims.claims_dir(job, runs).joinpath("lock").exists() and log == job.run_dir(runs) / "log.txt"
        ran.append(len(given))
        if len(ran) == 1:
            return 3
        (job.run_dir(runs) / "metrics.json").write_text(json.dumps({"m_j": 0.5}))
        return 0

    monkeypatch.setattr("study.worker.run_commands", commands)
    task = lambda number: RowTask(str(tmp_path / "own.yaml"), {}, job.name, runs, [], number)  # noqa: E731
    first = claims.make_claim(job, runs, None, "local", 1)
    assert first is not None and task(1)() == 3 and claims.read_exit(job, runs, first) is not None
    second = claims.make_claim(job, runs, first, "local", 1)
    assert second is not None and task(1)() == 0 and len(ran) == 1, "it is not the newest any more"
    assert task(2)() == 0 and len(ran) == 2
    found = claims.read_exit(job, runs, second)
    assert found is not None and found[0] == 0
    third = claims.make_claim(job, runs, second, "local", 1)
    assert third is not None and task(3)() == 0 and len(ran) == 2, "the row is done"
    assert claims.read_exit(job, runs, third) is not None


def test_a_task_that_is_queued_again_has_not_ended(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    job, runs = jobs[0], tmp_path / "runs"
    claim = claims.make_claim(job, runs, None, "slurm", 1)
    task = RowTask(str(tmp_path / "own.yaml"), {}, job.name, runs, [], 1)

    def interrupted(*_: Any) -> int:
        again = task.checkpoint()
        assert again.function.row == job.name and not again.function.requeued
        return -1  # what run_commands makes of submitit's SystemExit

    monkeypatch.setattr("study.worker.run_commands", interrupted)
    with pytest.raises(SystemExit):
        task()
    assert claim is not None and claims.read_exit(job, runs, claim) is None and not claims.is_running(job, runs)


# --- watching --------------------------------------------------------------------------------------------


class Scripted:
    """A cluster on which each submission of a row ends as its script says: an exit code, or "dies"."""

    launcher: tuple[str, ...] = ()

    def __init__(self, name: Any, runs: Path, **scripts: list[Any]):
        self.name, self.runs, self.scripts = name, runs, scripts
        self.submitted: list[tuple[str, int, str]] = []
        self.running = self.most = 0

    def submit(self, job: Job, claim: Claim, seconds: float, after: str = "") -> None:
        row = job.name.rpartition("_")[2]
        claim.job_id = f"{row}.{claim.number}"
        claims.record_submission(job, self.runs, claim)
        self.submitted.append((row, claim.attempt, after))
        self.running += 1
        self.most = max(self.most, self.running)

    def is_alive(self, job: Job, claim: Claim) -> bool:
        script = self.scripts[job.name.rpartition("_")[2]]
        step = script.pop(0)
        if step == "alive":
            return True
        self.running -= 1
        if step != "dies":
            claims.write_exit(job, self.runs, claim.number, step, 1.0)
        return False


def watch(jobs: list[Job], executor: Any, num_jobs: int = 4) -> tuple[dict[str, str], list[str]]:
    """The errors by row, and the lines that were said."""
    said, found = list[str](), list[JobResult]()
    seconds = {job.name: 10.0 - place for place, job in enumerate(jobs)}
    results = cluster.run_on_cluster(
        jobs, executor, seconds, num_jobs, lambda outcome, *_: found.append(outcome), said.append
    )
    assert results == found and len(results) == len(jobs)
    return {outcome.job.name.rpartition("_")[2]: outcome.error for outcome in results}, said


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "POLL_SECONDS", {"local": 0.01, "slurm": 0.01})
    monkeypatch.setattr(cluster, "GRACE_SECONDS", {"local": 0.0, "slurm": 0.0})
    monkeypatch.setattr(cluster, "visible_gpus", list)


def test_a_row_that_dies_is_submitted_once_more(jobs: list[Job], tmp_path: Path) -> None:
    script: dict[str, Any] = {
        "row0": ["alive", "dies", "alive", 3],
        "row1": ["dies", "dies"],
        "row2": [3],
        "row3": ["dies", 0],
    }
    executor = Scripted("slurm", tmp_path / "runs", **script)
    errors, said = watch(jobs, executor)
    assert errors["row0"].startswith("exit code 3") and errors["row2"].startswith("exit code 3")
    assert errors["row1"].startswith("the process died") and errors["row3"].startswith("left no result")
    assert sorted(row for row, attempt, _ in executor.submitted if attempt == 2) == ["row0", "row1", "row3"]
    assert len(said) == 3 and all("died; submitted again" in line for line in said)


def test_slurm_gets_all_rows_at_once_and_local_only_some(jobs: list[Job], tmp_path: Path) -> None:
    script: dict[str, Any] = {f"row{k}": ["alive", 0] for k in range(4)}
    slurm = Scripted("slurm", tmp_path / "a", **{name: list(each) for name, each in script.items()})
    watch(jobs, slurm)
    assert slurm.most == 4
    # The rows of S4 share embeddings, which the first of them computes.
    assert {row: after for row, _, after in slurm.submitted} == {
        "row0": "",
        "row1": "row0.1",
        "row2": "row0.1",
        "row3": "",
    }
    local = Scripted("local", tmp_path / "b", **{name: list(each) for name, each in script.items()})
    watch(jobs, local, num_jobs=2)
    assert local.most == 2 and [row for row, _, _ in local.submitted][:2] == ["row0", "row3"]
    assert {after for _, _, after in local.submitted} == {""}


def test_the_jobs_of_an_earlier_command_are_waited_for(jobs: list[Job], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for job, ended in ((jobs[0], None), (jobs[1], None), (jobs[2], 3)):
        claim = claims.make_claim(job, runs, None, "slurm", 1)
        assert claim is not None
        if ended is not None:
            claims.write_exit(job, runs, claim.number, ended, 1.0)
    assert cluster.submitted(jobs, runs) == [jobs[0].name, jobs[1].name]
    script: dict[str, Any] = {"row0": ["alive", "alive", 0], "row1": ["dies", 0], "row2": [0], "row3": [0]}
    executor = Scripted("slurm", runs, **script)
    _, said = watch(jobs, executor)
    # row0 is alive, row1 has died in the meantime, row2 had failed, row3 is new.
    assert sorted((row, attempt) for row, attempt, _ in executor.submitted) == [("row1", 2), ("row2", 1), ("row3", 1)]
    assert said[0].startswith("waiting also for 1 row submitted before")
    assert "row1: its job of an earlier command died" in said[1]


def test_another_command_may_be_faster(jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, make = tmp_path / "runs", claims.make_claim

    def overtaken(job: Job, folder: Path, after: Claim | None, *more: Any) -> Claim | None:
        other = make(job, folder, after, *more)
        assert other is not None
        other.job_id = "theirs"
        claims.record_submission(job, folder, other)
        return None

    monkeypatch.setattr(claims, "make_claim", overtaken)
    executor = Scripted("local", runs, row0=["alive", 0])
    executor.running = 1
    errors, _ = watch(jobs[:1], executor)
    assert not executor.submitted and errors["row0"].startswith("left no result")


def test_a_row_that_the_cluster_refuses_is_not_waited_for(jobs: list[Job], tmp_path: Path) -> None:
    class Refusing(Scripted):
        def submit(self, *_: Any) -> None:
            raise InputError("invalid partition")

    runs = tmp_path / "runs"
    with pytest.raises(InputError, match="invalid partition"):
        watch(jobs[:1], Refusing("slurm", runs))
    assert cluster.submitted(jobs, runs) == []
    executor = Scripted("slurm", runs, row0=[0])
    watch(jobs[:1], executor)
    assert executor.submitted == [("row0", 1, "")]


def test_what_is_missing_is_not_submitted(tmp_path: Path) -> None:
    study = study_of(tmp_path, {**BASELINE, "name": "row0"})
    executor = Scripted("slurm", tmp_path / "runs")
    errors, _ = watch(study.jobs, executor)
    assert errors["row0"].startswith("missing S4 data") and not executor.submitted


# --- options ---------------------------------------------------------------------------------------------


def test_slurm_options_are_passed_on() -> None:
    words = ["--slurm.partition", "gpu", "--slurm.gpus_per_node=2", "--slurm.setup", "[module load cuda]"]
    words += ["--slurm.additional_parameters={reservation: avs}"]
    found = parse_slurm_options(words)
    assert found.pop("setup") == ["module load cuda"] and found.pop("additional_parameters") == {"reservation": "avs"}
    assert found == {"partition": "gpu", "gpus_per_node": 2} and parse_slurm_options([]) == {}
    for bad in (["--slurm.partition"], ["--slurm.=1"], ["gpu"], ["--other", "1"], ["--slurm.setup", "[a"]):
        with pytest.raises(InputError):
            parse_slurm_options(bad)


def test_bad_usage_is_one_line(
    composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = write_study(tmp_path / "own.yaml", composed, BASELINE)
    for more in (["--slurm.partition", "gpu"], ["--executor", "local", "--slurm.partition", "gpu"], ["--executr"]):
        with pytest.raises(SystemExit) as stop:
            reproduce_tables.main([*words, *more])
        told = capsys.readouterr().err
        assert stop.value.code == 2 and "unrecognized arguments: --" in told and told.count("\n") == 1
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))  # without srun
    assert reproduce_tables.main([*words, "--executor", "slurm"]) == 1
    assert 'error: --executor slurm: Could not detect "srun"' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert reproduce_tables.main([*words, "--executor", "local"]) == 1
    assert capsys.readouterr().err == "error: --executor needs submitit: pip install -e .[cluster]\n"


def test_rows_that_are_submitted_are_not_run_beside(
    jobs: list[Job], composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--study", str(tmp_path / "own.yaml"), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert claims.make_claim(jobs[0], tmp_path / "runs", None, "slurm", 1) is not None
    assert reproduce_tables.main(words) == 1
    assert "1 row submitted as jobs (zero_shot/s4_row0 ...): add --executor" in capsys.readouterr().err
    assert reproduce_tables.main([*words, "--dry-run"]) == 0
    assert "1 submitted" in capsys.readouterr().out


def test_an_executor_tells_the_dead_from_the_living(jobs: list[Job], tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("submitit")
    job, runs = jobs[0], tmp_path / "runs"
    executor = ClusterExecutor("local", runs, str(tmp_path / "own.yaml"), {})
    here, me = os.uname().nodename, psutil.Process()
    alive = Claim(1, "local", str(me.pid), host=here, created=me.create_time())
    assert executor.is_alive(job, alive)
    assert not executor.is_alive(job, Claim(1, "local", str(me.pid), host=here, created=1.0)), "another process by now"
    assert not executor.is_alive(job, Claim(1, "local", str(2**22 + 1), host=here))
    assert executor.is_alive(job, Claim(1, "local", "1", host="elsewhere")), "which cannot be told from here"
    claim = claims.make_claim(job, runs, None, "slurm", 1)
    assert claim is not None and executor.is_alive(job, claim), "about to be submitted"
    os.utime(claims.claims_dir(job, runs) / "1.claim.json", (0, 0))
    assert not executor.is_alive(job, claim), "its command was killed before it was submitted"
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 12\necho 14\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    claim.job_id = "12"
    assert executor.is_alive(job, claim)
    claim.job_id = "13"
    assert not executor.is_alive(job, claim)
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 1\n")
    executor._queued = None
    assert executor.is_alive(job, claim), "squeue does not answer"


# --- submitit's local executor ---------------------------------------------------------------------------


def wait_for(condition: Any, seconds: float = 200) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)


def task_of(name: str) -> psutil.Process | None:
    """The process that runs a row: the one that holds its log open."""
    for process in psutil.process_iter(["cmdline"]):
        if "submitit.core._submit" in (process.info["cmdline"] or []):
            try:
                if any(name in file.path for file in process.open_files()):
                    return process
            except psutil.Error:
                continue
    return None


@pytest.mark.slow
def test_killed_jobs_and_commands_leave_the_same_tables(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(cluster, "POLL_SECONDS", {"local": 0.2})
    rows = [TRAINED, BASELINE]
    for name in ("cluster", "plain"):
        (tmp_path / name).mkdir()
    words = write_study(tmp_path / "cluster" / "own.yaml", composed, *rows)
    runs, row = tmp_path / "cluster" / "runs", "s4_fpn_mini_seed7"
    command = [sys.executable, "reproduce_tables.py", *words, "--executor", "local", "--jobs", "1"]
    first = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, start_new_session=True)
    trained = runs / "supervised" / row
    try:
        wait_for((trained / "log.csv").is_file)  # an epoch is done
        task = task_of(row)
        assert task is not None
    finally:
        os.killpg(first.pid, signal.SIGINT)  # Ctrl-C
        assert first.wait(30) == 130
    assert task.is_running(), "the job goes on"
    assert reproduce_tables.main([*words, "--dry-run"]) == 0
    assert f"supervised/{row}  submitted" in capsys.readouterr().out
    # Two commands at once; the job is killed under them.
    others = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    task.kill()
    try:
        said = [other.communicate(timeout=600)[0] for other in others]
    finally:
        for other in others:
            other.kill()
    assert [other.returncode for other in others] == [0, 0]
    assert all("2 of 2 runs finished" in text or "nothing to do: 2 runs finished" in text for text in said)
    assert sum("died; submitted again" in text for text in said) >= 1
    log = (trained / "log.txt").read_text()
    assert log.count("$ python -m supervised.train") == 2 and log.count("epoch 1/2: loss") == 1, "it resumed, once"
    assert (runs / "zero_shot" / "s4_no_prompt" / "log.txt").read_text().count("$ python") == 1
    assert sorted(path.name for path in (runs / "cluster" / "supervised" / row).glob("*.claim.json"))[-1][0] == "2"
    assert reproduce_tables.main(write_study(tmp_path / "plain" / "own.yaml", composed, *rows)) == 0
    assert numbers(runs) == numbers(tmp_path / "plain" / "runs") and len(numbers(runs)) == 3
    texts = [(tmp_path / name / "out" / "own.md").read_text() for name in ("cluster", "plain")]
    tables = [text.partition("\n## ")[2] for text in texts]
    assert tables[0] == tables[1] and "shuffled audio" in tables[0] and "…" not in tables[0]
