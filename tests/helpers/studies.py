"""Studies of synthetic clips as YAML files, and the results that their runs would leave."""

import json
from pathlib import Path
from typing import Any

import yaml

from study.job import Job, Study
from study.plan import load_study
from study.results import write_record
from utils.files import write_text

CONFIGS = {"zero_shot": "zero_shot/configs/mini", "supervised": "supervised/configs/mini"}
TABLES = {
    "zero_shot": "Zero-shot",
    "tpavi": "TPAVI",
    "fusion": "Fusion",
    "fraction": "Amount of data",
    "models": "Models",
}
HEAT: dict[str, Any] = {
    "zero_shot": "point_global",
    "name": "heat",
    "tables": {"zero_shot": "map"},
    "options": {"method": "heatmap"},
}
FPN: dict[str, Any] = {"supervised": "fpn_mini", "tables": {"fusion": "FPN"}, "benchmarks": ["s4"]}


def write_study(path: Path, *rows: dict[str, Any], **fields: Any) -> Path:
    """Write a study's file."""
    data = {"s4": str(path.parent / "Single-source"), "ms3": str(path.parent / "Multi-sources")}
    content = {"title": "A title", "data": data, "configs": CONFIGS, "tables": TABLES, "rows": list(rows), **fields}
    plain = json.loads(json.dumps(content))  # without shared parts, which YAML would write as aliases
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return path


def study_of(folder: Path, *rows: dict[str, Any], **fields: Any) -> Study:
    """A study of these rows."""
    return load_study(write_study(folder / "own.yaml", *rows, **fields))


def finish(job: Job, runs: Path, m_j: float, m_f: float, audio: str = "original", **facts: Any) -> None:
    """Leave what a finished job leaves."""
    metrics = {"m_j": m_j, "m_f": m_f, "metric_batch": 1, "commit": "0123456789abcdef", "seconds": 2.5, **facts}
    name = "metrics.json" if audio == "original" else f"metrics_test_{audio}.json"
    write_text(job.run_dir(runs) / name, json.dumps(metrics))
    write_record(job, runs, done=True, seconds=10.0)
