"""Results that others have published for configurations of the study (reported.yaml)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from study.job import Job
from utils.cli import InputError
from utils.config import from_dict, read_yaml
from utils.paths import resolve_path

REPORTED = Path(__file__).parent / "reported.yaml"


@dataclass
class ReportedResult:
    """A published result on the test split.

    Attributes:
        m_j: 0 to 1.
        m_f: 0 to 1.
        source: where it is published.
        grade: A for its authors' own paper, code or log; B for a comparison by others.
    """

    m_j: float
    m_f: float
    source: str
    grade: Literal["A", "B"]


def load_reported(path: Path = REPORTED) -> dict[Path, ReportedResult]:
    """Read reported.yaml.

    Returns:
        The results by the path of the configuration.

    Raises:
        InputError: for an entry without a source, or with a wrong value.
    """
    results = {}
    for config, content in (read_yaml(path) or {}).items():
        results[resolve_path(config).resolve()] = entry = from_dict(ReportedResult, content, f"{path}: {config}")
        if not entry.source:
            raise InputError(f"{path}: {config}: field source is empty")
    return results


def reported_result(job: Job, known: Mapping[Path, ReportedResult]) -> ReportedResult | None:
    """The published result of a job's configuration; None if there is none, or the study modifies the configuration."""
    return None if job.modified else known.get(job.config.resolve())


def format_source(result: ReportedResult) -> str:
    """The source with its grade."""
    return f"{result.source} [{result.grade}]"
