"""The results of a study so far: what each run folder records, and a table with one line per result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.fingerprint import matches
from study.job import Job, Study, TableRow
from study.reported import format_source, load_reported, reported_result
from utils.files import write_text
from utils.robustness_report import FILE as ROBUSTNESS
from utils.sound_conditions import AudioCondition

if TYPE_CHECKING:  # a dry run does without pandas
    import pandas as pd

RECORD = "job.json"  # in a run folder: the job's fingerprint and whether it is done
FRACTION = "fraction"  # the table that compares amounts of training data
KEYS = ("study", "table", "row", "benchmark", "fidelity", "seed", "fraction", "audio")
METRICS = ("m_j", "m_f", "metric_batch", "m_f_whole_set", "iou_dataset", "frames", "videos", "seconds", "commit")
COSTS = ("parameters", "step_seconds", "memory_mib")  # of training
COLUMNS = (*KEYS, *METRICS, *COSTS, "run", "source")


def read_record(job: Job, runs: Path) -> dict[str, Any]:
    """The record in a job's run folder: fingerprint, arguments, done, seconds; empty if missing or damaged."""
    return _read_json(job.run_dir(runs) / RECORD)


def write_record(job: Job, runs: Path, done: bool, **facts: Any) -> None:
    """Mark a run folder as the job's; from `done` on, its results count."""
    content = {"fingerprint": job.fingerprint, "arguments": list(job.arguments), "done": done, **facts}
    write_text(job.run_dir(runs) / RECORD, json.dumps(content, indent=1) + "\n")


def result(job: Job, runs: Path, audio: AudioCondition = "original") -> dict[str, Any] | None:
    """The metrics of a job on the test split; None if it is not done, or was done with other options or files."""
    record = read_record(job, runs)
    if not record.get("done") or not matches(job.fingerprint, record.get("fingerprint")):
        return None
    name = "metrics.json" if audio == "original" else f"metrics_test_{audio}.json"
    try:
        return json.loads((job.run_dir(runs) / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def training_cost(job: Job, runs: Path) -> dict[str, Any]:
    """What a job's training cost (supervised.cost); empty if that is not known."""
    found = _read_json(job.run_dir(runs) / "cost.json")
    return {name: found[name] for name in COSTS if name in found}


def area_in_silence(job: Job, runs: Path) -> float | None:
    """The mean fraction of a frame that a job's model segments in silence; None if that was not evaluated."""
    try:
        return float(_read_json(job.run_dir(runs) / ROBUSTNESS)["conditions"]["silent"]["mean"]["pIA"])
    except (KeyError, TypeError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def full_label(job: Job, row: TableRow) -> str:
    """The label of a job's row, with the fraction of the training clips in the table that compares these."""
    return f"{row.label}, {job.fraction * 100:g} % of the clips" if row.table == FRACTION else row.label


def collect_results(study: Study, runs: Path) -> "pd.DataFrame":
    """All results of a study and the published ones of the same configurations.

    Returns:
        A line for each job, table and audio condition, and for each reported result. Columns: COLUMNS; `label`, the
        row's name without its fraction; `planned_metric_batch`; `regime`; `method` of zero-shot rows; `silent_area`.
        NaN stands for `m_j` without a result, `source` of our own results, and fidelity, seed and run of reported ones.
    """
    import pandas as pd

    reported = load_reported()
    lines: list[Mapping[str, Any]] = []
    for job in study.jobs:
        found = {audio: result(job, runs, audio) for audio in job.audio}
        for row in job.rows:
            keys = {"study": study.name, "table": row.table, "row": full_label(job, row), "benchmark": job.dataset}
            keys |= {"fraction": f"{job.fraction:g}", "label": row.label}
            keys |= {"planned_metric_batch": job.options.metric_batch, "regime": job.regime}
            keys |= {"method": job.options.method} if job.regime == "zero_shot" else {}
            run: dict[str, Any] = {"fidelity": job.fidelity, "seed": job.seed, "run": job.run_dir(runs).as_posix()}
            if any(found.values()):
                run |= {**training_cost(job, runs), "silent_area": area_in_silence(job, runs)}
            lines += [{**(metrics or {}), **keys, **run, "audio": audio} for audio, metrics in found.items()]
            if other := reported_result(job, reported):
                values = {"m_j": other.m_j, "m_f": other.m_f, "source": format_source(other)}
                lines.append({**keys, **values, "audio": "original"})
    extra = ("label", "planned_metric_batch", "regime", "method", "silent_area")
    return pd.DataFrame(lines, columns=[*COLUMNS, *extra], dtype=object)
