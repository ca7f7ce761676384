"""Run the jobs of a study that have no result yet, several at a time."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

from study.fingerprint import matches
from study.job import Job, Study
from study.requirements import missing_requirements
from study.results import record, result, write_record
from study.worker import Worker
from utils.cli import InputError
from utils.files import write_text

LOG = "log.txt"  # of a run folder: what its commands said
STALE = "stale"  # below the runs: run folders whose job has changed since
State = Literal["done", "stale", "begun", "to run"]


@dataclass
class JobResult:
    """How a job ended. error: in a line; empty if it has its result."""

    job: Job
    seconds: float = 0.0
    error: str = ""


def state(job: Job, runs: Path) -> State:
    """Where a job is. stale: the folder has a result or a beginning of another configuration, weights or data."""
    folder, found = job.folder(runs), record(job, runs)
    if not folder.is_dir() or not any(folder.iterdir()):
        return "to run"
    if not matches(job.key, found.get("key")):
        return "stale"
    return "done" if all(result(job, runs, sound) for sound in job.audio_conditions) else "begun"


def bind_run_dir(study: Study, runs: Path) -> None:
    """Make the folder of runs this study's. Raises InputError if it is another's."""
    owner = runs / "study.txt"
    if owner.is_file() and (name := owner.read_text(encoding="utf-8").strip()) != study.name:
        raise InputError(f"{runs} holds the runs of study {name}; choose another --runs")
    write_text(owner, study.name + "\n")


def prepare(job: Job, runs: Path) -> None:
    """A run folder for the job: the one where it was interrupted, or a new one. What is stale is set aside."""
    folder, now = job.folder(runs), state(job, runs)
    if now == "stale":
        place, number = runs / STALE / job.name, 1
        while place.with_name(f"{place.name}.{number}").exists():
            number += 1
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place.with_name(f"{place.name}.{number}"))
    # What a zero-shot run computed is in its cache.
    elif now == "begun" and (job.kind == "zero_shot" or not goes_on(job, folder)):
        shutil.rmtree(folder)
    write_record(job, runs, done=False)


def goes_on(job: Job, folder: Path) -> bool:
    """Whether a training that was begun in the folder would go on by the job's command."""
    from supervised.state import check_same_run  # torch, which a dry run does without

    try:
        check_same_run(folder / "config.yaml", job.options)
    except InputError:
        return False
    return True


def choose(waiting: Sequence[Job], running: Sequence[Job], warm: set[object]) -> Job | None:
    """The next job, of those that wait, longest first; None if all should go on waiting.

    The zero-shot jobs of one data set share what is kept in their cache, and two at once would both compute it. So
    the first of them, the longest, runs without another beside it; later ones only where nothing else is left.
    """
    busy = {shared(job) for job in running} - {None}
    apart = [job for job in waiting if shared(job) not in busy]
    together = [job for job in waiting if shared(job) in warm]
    return next(iter(apart or together), None)


def shared(job: Job) -> object:
    """What jobs share a cache's entries by; None if it does not matter."""
    return job.root if job.kind == "zero_shot" else None


def run_jobs(
    jobs: Sequence[Job],
    runs: Path,
    seconds: Mapping[str, float],
    count: int = 1,
    launcher: Sequence[str] = (),
    told: Callable[[JobResult, int, float], None] = lambda *_: None,
) -> list[JobResult]:
    """Run jobs in `count` processes, the longest first; one that fails does not stop the others.

    seconds: how long each may take, by name. told: is given each outcome, how many there are now, and the seconds
    that the rest may take.
    """
    missing = missing_requirements(jobs)
    waiting = sorted((job for job in jobs if not missing[job.name]), key=lambda job: -seconds[job.name])
    outcomes: list[JobResult] = []
    begun: dict[Worker, tuple[Job, float]] = {}
    warm: set[object] = set()
    workers = [Worker() for _ in range(min(count, len(waiting)))]

    def ended(outcome: JobResult) -> None:
        outcomes.append(outcome)
        left = [(job, 0.0) for job in waiting] + [(job, time.monotonic() - since) for job, since in begun.values()]
        spent = sum(seconds[done.job.name] for done in outcomes if not done.error)
        pace = sum(done.seconds for done in outcomes if not done.error) / spent if spent else 1.0
        rest = sum(max(seconds[job.name] * pace - past, 0) for job, past in left) / max(len(workers), 1)
        told(outcome, len(outcomes), rest)

    for lacking in [job for job in jobs if missing[job.name]]:
        ended(JobResult(lacking, error="; ".join(f"lacks {lack.name}: {lack.fix}" for lack in missing[lacking.name])))
    try:
        while waiting or begun:
            for worker in [worker for worker in workers if worker not in begun]:
                job = choose(waiting, [job for job, _ in begun.values()], warm)
                if job is None:
                    break
                waiting.remove(job)
                prepare(job, runs)
                begun[worker] = job, time.monotonic()
                worker.submit(job.commands(runs), job.folder(runs) / LOG, launcher)
            ready = wait([worker.pipe for worker in begun])
            for worker in [worker for worker in begun if worker.pipe in ready]:
                job, since = begun.pop(worker)
                code, took = worker.result(), time.monotonic() - since
                if code is None:
                    worker.close()
                    workers[workers.index(worker)] = Worker()
                if code == 0:
                    write_record(job, runs, done=True, seconds=round(took, 1))
                warm.add(shared(job))
                ended(JobResult(job, took, _error(job, runs, code)))
    finally:
        for worker in workers:
            worker.close()
    return outcomes


def _error(job: Job, runs: Path, code: int | None) -> str:
    """What went wrong, in a line; empty if nothing."""
    log = job.folder(runs) / LOG
    if code == 0:
        lost = [sound for sound in job.audio_conditions if result(job, runs, sound) is None]
        return f"left no result with {', '.join(lost)} sound; see {log}" if lost else ""
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    last = next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "it said nothing")
    end = "its process was lost, as when memory runs out, after" if code is None else f"exit code {code}:"
    return f"{end} {last} ({log})"
