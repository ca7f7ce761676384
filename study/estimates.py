"""How long the jobs of a study may take."""

from collections.abc import Mapping
from pathlib import Path

from study.fingerprint import matches
from study.job import Job, Study
from study.results import read_record
from study.study_file import Regime
from utils.cli import InputError
from utils.layout import SPLITS, AVSBench, BenchmarkName


def guess(study: Study, job: Job, clips: Mapping[str, int]) -> float:
    """The seconds of a job by the study's `seconds_per_clip`. clips: the size of each split of its benchmark."""
    if job.regime == "zero_shot":
        count = clips[job.options.data.split]
        return study.startup_seconds + job.seconds_per_clip * min(count, job.options.data.max_clips or count)
    options = job.options
    trained = options.train.epochs * options.data.fraction * clips["train"]
    evaluated = options.train.epochs * clips["val"] + len(job.audio) * clips["test"]
    return study.startup_seconds + job.seconds_per_clip * (trained + evaluated / 3)  # evaluation has no backward pass


def estimate_seconds(study: Study, runs: Path) -> tuple[dict[str, float], int]:
    """Estimate the time of every job: the guesses, scaled by what the finished jobs of its regime took.

    Returns:
        Seconds by the job's name, and the number of finished jobs that they are based on.
    """
    clips = {benchmark: _split_sizes(study, benchmark) for benchmark in study.data}
    guesses = {job.name: guess(study, job, clips[job.benchmark]) for job in study.jobs}
    measured: dict[Regime, list[tuple[float, float]]] = {"zero_shot": [], "supervised": []}
    for job in study.jobs:
        record = read_record(job, runs)
        if record.get("done") and matches(job.fingerprint, record.get("fingerprint")) and record.get("seconds"):
            measured[job.regime].append((record["seconds"], guesses[job.name]))
    ratios = {
        regime: sum(seconds for seconds, _ in pairs) / sum(guessed for _, guessed in pairs)
        for regime, pairs in measured.items()
        if pairs
    }
    seconds = {job.name: guesses[job.name] * ratios.get(job.regime, 1) for job in study.jobs}
    return seconds, sum(map(len, measured.values()))


def _split_sizes(study: Study, benchmark: BenchmarkName) -> dict[str, int]:
    """The number of clips in each split: by the data, or by the study's file where the data are missing."""
    try:
        data = AVSBench(study.data[benchmark], benchmark)
    except InputError:
        return {split: study.clips.get(benchmark, {}).get(split, 0) for split in SPLITS}
    return {split: len(data.split(split)) for split in SPLITS}


def format_duration(seconds: float) -> str:
    """Seconds in a readable unit: 41 s, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
