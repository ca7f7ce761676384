"""Run the jobs of a study that have no result yet as jobs of a cluster, one each."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from study import claims
from study.claims import Claim
from study.executor import ClusterExecutor
from study.job import Job
from study.requirements import missing_requirements
from study.run import JobResult, OnFinish, cache_group, describe_error, job_state, next_job
from utils.cli import InputError
from utils.words import counted

POLL_SECONDS = {"local": 0.2, "slurm": 5.0}
GRACE_SECONDS = {"local": 0.0, "slurm": 30.0}  # a shared file system may show the end of a job late
ATTEMPTS = 2  # of a row whose job dies


def run_on_cluster(
    jobs: Sequence[Job],
    executor: ClusterExecutor,
    seconds: Mapping[str, float],
    num_jobs: int,
    on_finish: OnFinish,
    say: Callable[[str], None] = print,
) -> list[JobResult]:
    """Submit jobs, or attach to those that an earlier command has submitted, and wait for them.

    A row whose job dies (killed, out of memory, a lost node) is submitted once more; a row that fails is not.

    Args:
        jobs: what to run.
        executor: of the cluster.
        seconds: the estimated time of each job, by name.
        num_jobs: local jobs at a time; Slurm gets all at once.
        on_finish: called with each result, how many there are now, and the estimated seconds for the rest.
        say: prints a line.

    Returns:
        The results, in the order in which the jobs ended.
    """
    return _Watch(jobs, executor, seconds, num_jobs, on_finish, say).run()


class _Watch:
    """The state of `run_on_cluster`, whose arguments it has."""

    def __init__(
        self,
        jobs: Sequence[Job],
        executor: ClusterExecutor,
        seconds: Mapping[str, float],
        num_jobs: int,
        on_finish: OnFinish,
        say: Callable[[str], None],
    ):
        self.executor, self.runs, self.seconds = executor, executor.runs, seconds
        self.num_jobs, self.on_finish, self.say = num_jobs, on_finish, say
        self.missing = missing_requirements(jobs)
        self.results: list[JobResult] = []
        self.active: dict[str, tuple[Job, Claim]] = {}
        self.cached_roots: set[object] = set()
        self.last_alive: dict[str, float] = {}
        ready = [job for job in jobs if not self.missing[job.name]]
        self.waiting = sorted(ready, key=lambda job: -seconds[job.name])
        self.unready = [job for job in jobs if self.missing[job.name]]

    def run(self) -> list[JobResult]:
        """Until all jobs have ended."""
        for job in self.unready:
            lacks = "; ".join(f"missing {lack.name}: {lack.fix}" for lack in self.missing[job.name])
            self._finish(JobResult(job, error=lacks))
        self._attach()
        while self.waiting or self.active:
            self._submit_waiting()
            time.sleep(POLL_SECONDS[self.executor.name])
            for job, claim in list(self.active.values()):
                self._check(job, claim)
        return self.results

    def _attach(self) -> None:
        """Take over the jobs of earlier commands that are alive."""
        for job in list(self.waiting):
            claim = claims.newest_claim(job, self.runs)
            ended = claim and claims.read_exit(job, self.runs, claim)
            if claim and ended is None and self.executor.is_alive(job, claim):
                self.waiting.remove(job)
                self.active[job.name] = job, claim
            elif ended and job_state(job, self.runs) == "done":  # since it was asked what is to do
                self.waiting.remove(job)
                self._end(job, *ended)
        if self.active:
            self.say(f"waiting also for {counted(len(self.active), 'row')} submitted before")

    def _submit_waiting(self) -> None:
        busy = [job for job, _ in self.active.values()]
        while self.waiting and (self.executor.name == "slurm" or len(self.active) < self.num_jobs):
            if self.executor.name == "slurm":  # which makes those wait that share cached embeddings
                job: Job | None = self.waiting[0]
            else:
                job = next_job(self.waiting, busy, self.cached_roots)
            if job is None:
                return
            self.waiting.remove(job)
            busy.append(job)
            claim = claims.newest_claim(job, self.runs)
            died = claim is not None and claims.read_exit(job, self.runs, claim) is None and claim.attempt < ATTEMPTS
            if died:
                self.say(f"{job.name}: its job of an earlier command died; submitted again")
            self._submit(job, claim, ATTEMPTS if died else 1)

    def _submit(self, job: Job, after: Claim | None, attempt: int) -> None:
        """Submit a row, or attach to the submission of a command that was faster."""
        claim = claims.make_claim(job, self.runs, after, self.executor.name, attempt)
        if claim is None:
            claim = claims.newest_claim(job, self.runs)
            assert claim is not None
        else:
            claim.gpus = self._free_gpus()
            try:
                self.executor.submit(job, claim, self.seconds[job.name], self._first_of_group(job))
            except InputError:  # by the cluster, or its parameters
                claims.write_exit(job, self.runs, claim.number, 1, 0.0)
                raise
        self.active[job.name] = job, claim

    def _first_of_group(self, job: Job) -> str:
        """Id of the Slurm job whose cached embeddings a job should find; empty if there is none."""
        if self.executor.name == "local" or cache_group(job) is None or cache_group(job) in self.cached_roots:
            return ""
        group = [claim for other, claim in self.active.values() if cache_group(other) == cache_group(job)]
        return group[0].job_id if group else ""

    def _free_gpus(self) -> list[int]:
        """The GPU of the next local job, the least used one; all GPUs for a launcher."""
        if self.executor.name == "slurm":
            return []
        gpus = visible_gpus()
        used = Counter(number for _, claim in self.active.values() for number in claim.gpus)
        return gpus if self.executor.launcher else sorted(gpus, key=lambda number: used[number])[:1]

    def _check(self, job: Job, claim: Claim) -> None:
        """See whether a job has ended, died, or was submitted again by another command."""
        ended, now = claims.read_exit(job, self.runs, claim), time.monotonic()
        if ended is None:
            if self.executor.is_alive(job, claim):
                self.last_alive[job.name] = now
                return
            if now - self.last_alive.get(job.name, 0.0) < GRACE_SECONDS[self.executor.name]:
                return
            ended = claims.read_exit(job, self.runs, claim)  # which may have come in between
        newest = claims.newest_claim(job, self.runs)
        if ended is not None:
            self._end(job, *ended)
        elif newest is not None and newest.number > claim.number:
            self.active[job.name] = job, newest
        elif claim.attempt < ATTEMPTS:
            self.say(f"{job.name}: job {claim.job_id} died; submitted again")
            self._submit(job, claim, claim.attempt + 1)
        else:
            self._end(job, None, 0.0)

    def _end(self, job: Job, code: int | None, duration: float) -> None:
        self.active.pop(job.name, None)
        self.cached_roots.add(cache_group(job))
        self._finish(JobResult(job, duration, describe_error(job, self.runs, code)))

    def _finish(self, outcome: JobResult) -> None:
        self.results.append(outcome)
        left = [self.seconds[name] for name in [*self.active, *(job.name for job in self.waiting)]]
        # Slurm may run all of them at once.
        rest = max(left, default=0.0) if self.executor.name == "slurm" else sum(left) / self.num_jobs
        self.on_finish(outcome, len(self.results), rest)


def visible_gpus() -> list[int]:
    """Numbers of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # slow to import

    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if names and not all(name.isdecimal() for name in names):
        raise InputError("--executor local needs numbers of GPUs in CUDA_VISIBLE_DEVICES, not their UUIDs")
    return [int(name) for name in names] or list(range(torch.cuda.device_count()))


def submitted(jobs: Sequence[Job], runs: Path) -> list[str]:
    """Names of the jobs that were submitted to a cluster and have not ended."""
    found = []
    for job in jobs:
        claim = claims.newest_claim(job, runs)
        if claim is not None and claims.read_exit(job, runs, claim) is None:
            found.append(job.name)
    return found
