"""What a study has so far: the numbers of the jobs that are done."""

import json
from pathlib import Path
from typing import Any

from study.fingerprint import matches
from study.job import Job
from utils.files import write_text

RECORD = "job.json"  # of a run folder: what the job was, and whether it is done


def record(job: Job, runs: Path) -> dict[str, Any]:
    """What the run folder says of its job: key, words, done, seconds; empty if nothing that can be read."""
    try:
        found = json.loads((job.folder(runs) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_record(job: Job, runs: Path, done: bool, **facts: Any) -> None:
    """Mark a run folder as this job's; with `done` its result counts from now on."""
    content = {"key": job.key, "words": list(job.arguments), "done": done, **facts}
    write_text(job.folder(runs) / RECORD, json.dumps(content, indent=1) + "\n")


def result(job: Job, runs: Path, sound: str = "real") -> dict[str, Any] | None:
    """The metrics.json of a job that is done as the study now has it, with a certain sound on the test split."""
    found = record(job, runs)
    if not found.get("done") or not matches(job.key, found.get("key")):
        return None
    name = "metrics.json" if sound == "real" else f"metrics_test_{sound}.json"
    try:
        return json.loads((job.folder(runs) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
