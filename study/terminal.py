"""What reproduce_tables.py prints: the dry run, and the progress of a run."""

import os
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from study.cluster import run_on_cluster, submitted, visible_gpus
from study.estimates import describe_duration, estimate_seconds, format_duration
from study.executor import ClusterExecutor
from study.job import Job, Study
from study.requirements import MissingRequirement, missing_requirements
from study.results import result
from study.run import JobResult, JobState, job_state, run_jobs
from study.study_file import Regime
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.words import counted


def select_jobs(study: Study, patterns: Sequence[str]) -> list[Job]:
    """The jobs whose names contain one of the patterns; all without patterns.

    Raises:
        InputError: if there are none.
    """
    chosen = [job for job in study.jobs if any(fnmatchcase(job.name, f"*{pattern}*") for pattern in patterns or [""])]
    if not chosen:
        names = ", ".join(job.name for job in study.jobs[:3])
        raise InputError(f"--only {' '.join(patterns)}: no run of {study.name} matches; the runs are {names}, ...")
    return chosen


def print_dry_run(study: Study, jobs: Sequence[Job], runs: Path) -> None:
    """Print the state of each job, what it needs that is missing, and how long the rest may take."""
    seconds, measured = estimate_seconds(study, runs)
    states = {job.name: job_state(job, runs) for job in jobs}
    states |= dict.fromkeys(submitted([job for job in jobs if states[job.name] != "done"], runs), "submitted")
    missing = missing_requirements(job for job in jobs if states[job.name] != "done")
    width = max(len(job.name) for job in jobs)
    for job in jobs:
        timed = measured or job.seconds_per_clip is not None
        duration = (format_duration(seconds[job.name]) if timed else "unknown") if job.name in missing else ""
        names = ", ".join(lack.name for lack in missing.get(job.name, []))
        needs = f"needs {names}" if names else ""
        print(f"{job.name:{width}}  {states[job.name]:11}  {duration:>7}  {needs}".rstrip())
    print(f"\n{counted(len(jobs), 'run')} ({_count_kinds(jobs)}): {_count_states(list(states.values()))}")
    fixes: Counter[MissingRequirement] = Counter(lack for found in missing.values() for lack in found)
    for lack, count in fixes.items():
        print(f"  {count:3} need {lack.name}: {lack.fix}")
    ready = sum(not found for found in missing.values())
    left = [job for job in jobs if job.name in missing]
    rest = describe_duration(left, sum(seconds[name] for name in missing), measured)
    print(f"{ready} can run now. Time of all remaining runs, one after another: {rest}.")


def _count_kinds(jobs: Sequence[Job]) -> str:
    counts = Counter((job.regime, job.fidelity) for job in jobs)
    kinds = [(regime, fidelity) for regime in get_args(Regime) for fidelity in get_args(Fidelity)]
    return "; ".join(f"{counts[kind]} {', '.join(kind)}" for kind in kinds if counts[kind])


def _count_states(states: Sequence[JobState]) -> str:
    return ", ".join(f"{states.count(state)} {state}" for state in get_args(JobState) if state in states)


def run_with_progress(
    study: Study,
    jobs: Sequence[Job],
    runs: Path,
    num_workers: int | None,
    launcher: Sequence[str],
    executor: ClusterExecutor | None = None,
) -> list[JobResult]:
    """Run the jobs that have no result, and print a line for each.

    Args:
        study: the study of the jobs.
        jobs: those that may run.
        runs: the folder of run folders.
        num_workers: jobs at a time; None for the default.
        launcher: a command in place of `python`.
        executor: of a cluster; None runs the jobs in processes of this command.

    Raises:
        InputError: if rows were submitted to a cluster and no executor is given.
    """
    todo = [job for job in jobs if job_state(job, runs) != "done"]
    if not todo:
        print(f"nothing to do: {counted(len(jobs), 'run')} finished")
        return []
    seconds, measured = estimate_seconds(study, runs)
    if executor is None and (elsewhere := submitted(todo, runs)):
        raise InputError(
            f"{counted(len(elsewhere), 'row')} submitted as jobs ({elsewhere[0]} ...): add --executor to wait for "
            f"them, or end their jobs and remove {runs / 'cluster'}"
        )
    default = (len(visible_gpus()) or default_num_workers()) if executor else default_num_workers()
    num_workers = min(1 if launcher else num_workers or default, len(todo))
    total = sum(seconds[job.name] for job in todo)
    how = f"{num_workers} at a time; time: {describe_duration(todo, total / num_workers, measured)}"
    if executor is not None and executor.name == "slurm":
        how = f"a Slurm job each; time, one after another: {describe_duration(todo, total, measured)}"
    print(f"{len(todo)} of {counted(len(jobs), 'run')} to do, {how}", flush=True)
    digits = len(str(len(todo)))

    def on_finish(outcome: JobResult, number: int, rest: float) -> None:
        metrics = result(outcome.job, runs)
        duration = format_duration(outcome.seconds)
        text = f"M_J {metrics['m_j']:.3f}, M_F {metrics['m_f']:.3f}, {duration}" if metrics else ""
        text = f"FAILED: {outcome.error}" if outcome.error else text
        left = f"; about {format_duration(rest)} left" if number < len(todo) else ""
        print(f"[{number:{digits}}/{len(todo)}] {outcome.job.name} … {text}{left}", flush=True)

    if executor is not None:
        print("the jobs go on if this command is ended; running it again waits for them", flush=True)
        return run_on_cluster(todo, executor, seconds, num_workers, on_finish, lambda line: print(line, flush=True))
    return run_jobs(todo, runs, seconds, num_workers, launcher, on_finish)


def default_num_workers() -> int:
    """One process on a GPU, else one per core."""
    import torch  # slow to import; a dry run does without

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1
