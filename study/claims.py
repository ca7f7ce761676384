"""Which job of a cluster runs a row: claims that only one of several commands can make.

RUNS/cluster/ROW/N.claim.json is the N-th submission of a row, and N.exit.json how it ended. The next number can be
created only once, on any shared file system, so two commands never submit a row twice. A submission that is no longer
the newest does not run, and one that runs holds a lock.
"""

import json
import socket
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from study.job import Job
from utils.cli import InputError
from utils.files import write_text
from utils.lock import exclusive_lock

FOLDER = "cluster"  # within the folder of runs
ExecutorName = Literal["local", "slurm"]
LOCK_SECONDS = 20.0  # a lock may be held for a moment by `is_running`


@dataclass
class Claim:
    """A submission of a row.

    Attributes:
        number: of the submission.
        executor: local or slurm.
        job_id: the executor's; empty until it is submitted.
        attempt: 1, or 2 after the job before it died.
        host: where it was submitted.
        created: start time of the process of a local job, in seconds since the epoch.
        gpus: numbers of the GPUs of a local job.
    """

    number: int
    executor: ExecutorName
    job_id: str = ""
    attempt: int = 1
    host: str = ""
    created: float = 0.0
    gpus: list[int] = field(default_factory=list)


def claims_dir(job: Job, runs: Path) -> Path:
    """The folder of a row's claims."""
    return runs / FOLDER / job.name


def newest_claim(job: Job, runs: Path) -> Claim | None:
    """The last submission of a row; None if it was never submitted."""
    folder = claims_dir(job, runs)
    numbers = [int(path.name.partition(".")[0]) for path in folder.glob("*.claim.json")]
    if not numbers:
        return None
    path = _path(job, runs, max(numbers), "claim")
    try:
        return Claim(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # just being written
        return Claim(max(numbers), "local")


def make_claim(job: Job, runs: Path, after: Claim | None, executor: ExecutorName, attempt: int) -> Claim | None:
    """Claim the next submission of a row; None if another command has been faster."""
    claim = Claim(after.number + 1 if after else 1, executor, attempt=attempt, host=socket.gethostname())
    path = _path(job, runs, claim.number, "claim")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(asdict(claim), file)
    except FileExistsError:
        return None
    return claim


def record_submission(job: Job, runs: Path, claim: Claim) -> None:
    """Write a claim again, with the id of its job."""
    write_text(_path(job, runs, claim.number, "claim"), json.dumps(asdict(claim)))


def age(job: Job, runs: Path, claim: Claim) -> float:
    """Seconds since a claim was made or its job submitted."""
    try:
        return time.time() - _path(job, runs, claim.number, "claim").stat().st_mtime
    except OSError:
        return 0.0


def write_exit(job: Job, runs: Path, number: int, code: int, seconds: float) -> None:
    """Record how a submission ended."""
    write_text(_path(job, runs, number, "exit"), json.dumps({"code": code, "seconds": seconds}))


def read_exit(job: Job, runs: Path, claim: Claim) -> tuple[int, float] | None:
    """Exit code and duration in seconds of a submission that has ended; None if it has not, or was killed."""
    try:
        found = json.loads(_path(job, runs, claim.number, "exit").read_text(encoding="utf-8"))
        return int(found["code"]), float(found["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(job: Job, runs: Path) -> AbstractContextManager[None]:
    """Hold the lock of a row while it runs. Raises InputError if another process holds it."""
    return exclusive_lock(claims_dir(job, runs) / "lock", "runs this row", LOCK_SECONDS)


def is_running(job: Job, runs: Path) -> bool:
    """Whether a process holds the lock of a row, on whatever machine (where the file system has locks)."""
    path = claims_dir(job, runs) / "lock"
    if not path.exists():
        return False
    try:
        with exclusive_lock(path, "runs this row"):
            return False
    except InputError:
        return True


def _path(job: Job, runs: Path, number: int, kind: Literal["claim", "exit"]) -> Path:
    return claims_dir(job, runs) / f"{number}.{kind}.json"
