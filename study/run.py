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
from study.results import read_record, result, write_record
from study.worker import Worker
from utils.cli import InputError
from utils.files import write_text

LOG = "log.txt"  # in a run folder: the output of its commands
STALE = "stale"  # within the folder of runs: run folders whose job has changed since
JobState = Literal["done", "stale", "interrupted", "pending", "submitted"]
OnFinish = Callable[["JobResult", int, float], None]


@dataclass
class JobResult:
    """How a job ended. error: one line; empty if it succeeded."""

    job: Job
    seconds: float = 0.0
    error: str = ""


def job_state(job: Job, runs: Path) -> JobState:
    """The state of a job. stale: its folder holds a run with other options, weights or data.

    submitted, to a cluster (study.claims), is not told here.
    """
    folder, record = job.run_dir(runs), read_record(job, runs)
    if not folder.is_dir() or not any(folder.iterdir()):
        return "pending"
    if not matches(job.fingerprint, record.get("fingerprint")):
        return "stale"
    return "done" if all(result(job, runs, audio) for audio in job.audio) else "interrupted"


def bind_run_dir(study: Study, runs: Path) -> None:
    """Reserve a folder of runs for the study.

    Raises:
        InputError: if it is another study's.
    """
    owner = runs / "study.txt"
    if owner.is_file() and (name := owner.read_text(encoding="utf-8").strip()) != study.name:
        raise InputError(f"{runs} holds the runs of study {name}; choose another --runs")
    write_text(owner, study.name + "\n")


def prepare_run_dir(job: Job, runs: Path) -> None:
    """Make a job's run folder ready: resume an interrupted training, start anything else anew, move stale runs away."""
    folder, state = job.run_dir(runs), job_state(job, runs)
    if state == "stale":
        target, number = runs / STALE / job.name, 1
        while target.with_name(f"{target.name}.{number}").exists():
            number += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target.with_name(f"{target.name}.{number}"))
    # A zero-shot run resumes by its cache.
    elif state == "interrupted" and (job.regime == "zero_shot" or not can_resume(job, folder)):
        shutil.rmtree(folder)
    write_record(job, runs, done=False)


def can_resume(job: Job, folder: Path) -> bool:
    """Whether the job's command would resume the training in a folder."""
    from supervised.state import check_same_run  # imports torch, which a dry run does without

    try:
        check_same_run(folder / "config.yaml", job.options)
    except InputError:
        return False
    return True


def next_job(waiting: Sequence[Job], running: Sequence[Job], cached_roots: set[object]) -> Job | None:
    """Choose the next job, the longest first; None if all must wait.

    The zero-shot jobs of one data set share cached embeddings, which two at once would both compute. So the first of
    them runs without another beside it; later ones run together only if nothing else is left.

    Args:
        waiting: the jobs that have not begun, the longest first.
        running: the jobs that are running.
        cached_roots: the `cache_group` of every finished job.
    """
    busy = {cache_group(job) for job in running} - {None}
    separate = [job for job in waiting if cache_group(job) not in busy]
    together = [job for job in waiting if cache_group(job) in cached_roots]
    return next(iter(separate or together), None)


def cache_group(job: Job) -> object:
    """Jobs of the same group share cached embeddings; None for jobs without any."""
    return job.root if job.regime == "zero_shot" else None


def run_jobs(
    jobs: Sequence[Job],
    runs: Path,
    seconds: Mapping[str, float],
    num_workers: int = 1,
    launcher: Sequence[str] = (),
    on_finish: OnFinish = lambda *_: None,
) -> list[JobResult]:
    """Run jobs, the longest first; when one fails, the others still run.

    Args:
        jobs: what to run.
        runs: the folder of run folders.
        seconds: the estimated time of each job, by name.
        num_workers: processes, each with one job at a time.
        launcher: a command in place of `python`, such as torchrun with its arguments.
        on_finish: called with each result, how many there are now, and the estimated seconds for the rest.

    Returns:
        The results, in the order in which the jobs ended.
    """
    missing = missing_requirements(jobs)
    waiting = sorted((job for job in jobs if not missing[job.name]), key=lambda job: -seconds[job.name])
    results: list[JobResult] = []
    running: dict[Worker, tuple[Job, float]] = {}
    cached_roots: set[object] = set()
    workers = [Worker() for _ in range(min(num_workers, len(waiting)))]

    def finish(outcome: JobResult) -> None:
        results.append(outcome)
        left = [(job, 0.0) for job in waiting] + [(job, time.monotonic() - since) for job, since in running.values()]
        expected = sum(seconds[done.job.name] for done in results if not done.error)
        speed = sum(done.seconds for done in results if not done.error) / expected if expected else 1.0
        rest = sum(max(seconds[job.name] * speed - past, 0) for job, past in left) / max(len(workers), 1)
        on_finish(outcome, len(results), rest)

    for job in [job for job in jobs if missing[job.name]]:
        finish(JobResult(job, error="; ".join(f"missing {lack.name}: {lack.fix}" for lack in missing[job.name])))
    try:
        while waiting or running:
            for worker in [worker for worker in workers if worker not in running]:
                chosen = next_job(waiting, [job for job, _ in running.values()], cached_roots)
                if chosen is None:
                    break
                waiting.remove(chosen)
                prepare_run_dir(chosen, runs)
                running[worker] = chosen, time.monotonic()
                worker.submit(chosen.commands(runs), chosen.run_dir(runs) / LOG, launcher)
            ready = wait([worker.pipe for worker in running])
            for worker in [worker for worker in running if worker.pipe in ready]:
                job, since = running.pop(worker)
                code, duration = worker.result(), time.monotonic() - since
                if code is None:
                    worker.close()
                    workers[workers.index(worker)] = Worker()
                if code == 0:
                    write_record(job, runs, done=True, seconds=round(duration, 1))
                cached_roots.add(cache_group(job))
                finish(JobResult(job, duration, describe_error(job, runs, code)))
    finally:
        for worker in workers:
            worker.close()
    return results


def describe_error(job: Job, runs: Path, code: int | None) -> str:
    """What went wrong, in one line; empty if nothing did. code: the exit code; None if the process died."""
    log = job.run_dir(runs) / LOG
    if code == 0:
        lost = [audio for audio in job.audio if result(job, runs, audio) is None]
        return f"left no result with {', '.join(lost)} audio; see {log}" if lost else ""
    text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n") if log.is_file() else ""
    last = next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "no output")
    end = "the process died, perhaps out of memory, after" if code is None else f"exit code {code}:"
    return f"{end} {last} ({log})"
