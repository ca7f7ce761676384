"""Jobs of a study as jobs of submitit: on this machine, or on a Slurm cluster."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from study import claims, worker
from study.claims import Claim, ExecutorName
from study.job import Job
from study.plan import load_study
from study.results import write_record
from study.run import LOG, job_state, prepare_run_dir
from study.study_file import DatasetName
from utils.cli import InputError
from utils.interrupts import block_interrupts

SUBMIT_SECONDS = 60.0  # how long a claim may be without the id of its job, and a job unknown to squeue
MIN_MINUTES, MARGIN = 60, 3  # default time limit of a Slurm job: at least this, and so many times the estimate
LOCAL_MINUTES = 60 * 24 * 365  # submitit ends local jobs after this
MAX_TIMEOUTS = 20  # how often a job that reaches its time limit, or is preempted, is queued again
PREFIX = "--slurm."


@dataclass
class RowTask:
    """What a job of the cluster does: it runs one row, or what is missing of it.

    Attributes:
        study: a name or a file, as for load_study.
        data: folders of benchmarks, as for load_study.
        row: the job's name.
        runs: the folder of run folders.
        launcher: a command in place of `python`.
        number: of the submission.
    """

    study: str
    data: Mapping[DatasetName, Path | None]
    row: str
    runs: Path
    launcher: Sequence[str]
    number: int
    requeued: bool = field(default=False, init=False)

    def __call__(self) -> int:
        """Run the row; returns the exit code."""
        job = next(job for job in load_study(self.study, self.data).jobs if job.name == self.row)
        begin, code = time.monotonic(), 0
        with claims.running(job, self.runs):
            newest = claims.newest_claim(job, self.runs)
            if newest is not None and newest.number > self.number:
                return code  # was submitted again before this one began
            if job_state(job, self.runs) != "done":
                prepare_run_dir(job, self.runs)
                code = worker.run_commands(job.commands(self.runs), job.run_dir(self.runs) / LOG, self.launcher)
            seconds = time.monotonic() - begin
            if self.requeued:
                worker.terminate_child()
                raise SystemExit(code)  # submitit's, which run_commands has taken for the command's
            if code == 0 and job_state(job, self.runs) != "done":
                write_record(job, self.runs, done=True, seconds=round(seconds, 1))
            claims.write_exit(job, self.runs, self.number, code, seconds)
        return code

    def checkpoint(self) -> Any:
        """What submitit queues again when the job reaches its time limit or is preempted: the row resumes."""
        from submitit.helpers import DelayedSubmission

        self.requeued = True
        return DelayedSubmission(RowTask(self.study, self.data, self.row, self.runs, self.launcher, self.number))


class ClusterExecutor:
    """Submits rows, and tells whether their jobs are alive.

    Args:
        name: local or slurm.
        runs: the folder of run folders.
        study: a name or a file, as for load_study.
        data: folders of benchmarks, as for load_study.
        launcher: a command in place of `python`.
        options: parameters of submitit's SlurmExecutor.

    Raises:
        InputError: if submitit or Slurm is missing.
    """

    def __init__(
        self,
        name: ExecutorName,
        runs: Path,
        study: str,
        data: Mapping[DatasetName, Path | None],
        launcher: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ):
        try:
            import submitit
        except ImportError as error:
            raise InputError("--executor needs submitit: pip install -e .[cluster]") from error
        self.name, self.runs, self.study, self.launcher = name, runs.resolve(), study, tuple(launcher)
        self.data = {benchmark: root and root.resolve() for benchmark, root in data.items()}
        self.options = dict(options or {})
        folder = self.runs / claims.FOLDER / "submitit"
        try:
            kind = submitit.LocalExecutor if name == "local" else submitit.SlurmExecutor
            self.executor = kind(folder, max_num_timeout=MAX_TIMEOUTS)
        except RuntimeError as error:
            raise InputError(f"--executor {name}: {error}") from error
        self._processes: list[Any] = []  # submitit's jobs of this process, which reap theirs
        self._queued: set[str] | None = None
        self._asked = 0.0

    def submit(self, job: Job, claim: Claim, seconds: float, after: str = "") -> None:
        """Submit a row that was claimed, and record its job.

        Args:
            job: the row.
            claim: by `claims.make_claim`, with the GPUs of a local job.
            seconds: estimated time.
            after: id of a Slurm job that must end before.

        Raises:
            InputError: if the cluster refuses it.
        """
        task = RowTask(self.study, self.data, job.name, self.runs, self.launcher, claim.number)
        try:
            self.executor.update_parameters(**self._parameters(job, claim, seconds, after))
            with _left_alone(), _importable():
                submitted = self.executor.submit(task)
        except Exception as error:  # of many kinds: unknown parameters, sbatch's refusal
            raise InputError(f"--executor {self.name}: {error}") from error
        claim.job_id = submitted.job_id
        if self.name == "local":
            self._processes.append(submitted)
            claim.created = psutil.Process(int(submitted.job_id)).create_time()
        self._queued = None
        claims.record_submission(job, self.runs, claim)

    def _parameters(self, job: Job, claim: Claim, seconds: float, after: str) -> dict[str, Any]:
        if self.name == "local":
            gpus = list(claim.gpus)
            return {"timeout_min": LOCAL_MINUTES, "gpus_per_node": len(gpus), "visible_gpus": gpus}
        parameters = {"time": max(MIN_MINUTES, round(MARGIN * seconds / 60)), "job_name": job.name, **self.options}
        if after:
            additional = parameters.get("additional_parameters") or {}
            parameters["additional_parameters"] = {**additional, "dependency": f"afterany:{after}"}
        else:
            parameters.setdefault("additional_parameters", {})  # not that of the row before
        return parameters

    def is_alive(self, job: Job, claim: Claim) -> bool:
        """Whether the job of a claim is queued, starting or running, as far as can be told from here."""
        if claims.is_running(job, self.runs):
            return True
        if not claim.job_id:  # between claim and submission
            return claims.age(job, self.runs, claim) < SUBMIT_SECONDS
        if claim.executor == "local":
            return _process_is_alive(claim) if claim.host == os.uname().nodename else True
        queued = self._queued_jobs()
        return queued is None or claim.job_id in queued or claims.age(job, self.runs, claim) < SUBMIT_SECONDS / 6

    def _queued_jobs(self) -> set[str] | None:
        """Ids of the user's jobs in the queue, asked at most every ten seconds; None if squeue does not answer.

        submitit asks sacct, which needs an accounting database that not every cluster has.
        """
        if self._queued is None or time.monotonic() - self._asked > SUBMIT_SECONDS / 6:
            command = ["squeue", "--noheader", "--me", "--format", "%i"]
            try:
                text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            except (OSError, subprocess.SubprocessError):
                return None
            self._queued, self._asked = set(text.split()), time.monotonic()
        return self._queued


def parse_slurm_options(words: Sequence[str]) -> dict[str, Any]:
    """Parameters from `--slurm.NAME VALUE` or `--slurm.NAME=VALUE`, with values in YAML.

    Raises:
        InputError: for anything else.
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix(PREFIX).partition("=")
        if not word.startswith(PREFIX) or not name or not (equals or rest):
            raise InputError(f"{word}: no such option; those of Slurm are {PREFIX}NAME VALUE")
        try:
            found[name] = yaml.safe_load(value if equals else rest.pop(0))
        except yaml.YAMLError as error:
            raise InputError(f"{word}: not a value in YAML") from error
    return found


def _process_is_alive(claim: Claim) -> bool:
    try:
        process = psutil.Process(int(claim.job_id))
        same = abs(process.create_time() - claim.created) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


@contextmanager
def _left_alone() -> Iterator[None]:
    """Start processes that neither Ctrl-C nor the end of the terminal ends: the command may be left."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with block_interrupts():
            yield
    finally:
        signal.signal(signal.SIGHUP, previous)


@contextmanager
def _importable() -> Iterator[None]:
    """Let the jobs import the modules of this checkout from any current directory."""
    previous = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(worker.REPOSITORY), previous]))
    try:
        yield
    finally:
        if previous is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = previous
