"""How long the jobs of a study may take."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from study.fingerprint import matches
from study.job import Job, Study
from study.results import read_record
from study.study_file import DatasetName, Regime, benchmark_of
from utils.cli import InputError
from utils.layout import SPLITS, AVSBench
from utils.robustness_report import condition_runs
from utils.words import counted

UNTIMED = 1.0  # seconds per clip of rows that nobody has timed, only to put them in an order


def guess(study: Study, job: Job, clips: Mapping[str, int]) -> float:
    """The seconds of a job by the study's `seconds_per_clip`. clips: the size of each split of its data set."""
    per_clip = UNTIMED if job.seconds_per_clip is None else job.seconds_per_clip
    if job.regime == "zero_shot":
        count = clips[job.options.data.split]
        clips_seen = min(count, job.options.data.max_clips or count)
        return study.startup_seconds + per_clip * clips_seen * (1 + 0.5 * (_evaluations(job) - 1))
    options = job.options
    trained = options.train.epochs * options.data.fraction * clips["train"]
    evaluated = options.train.epochs * clips["val"] + _evaluations(job) * clips["test"]
    return study.startup_seconds + per_clip * (trained + evaluated / 3)  # evaluation has no backward pass


def _evaluations(job: Job) -> int:
    """How many times it is evaluated, under all conditions and seeds."""
    return len(condition_runs(job.audio, job.audio_seeds))


def estimate_seconds(study: Study, runs: Path) -> tuple[dict[str, float], int]:
    """Estimate the time of every job: the guesses, scaled by what the finished jobs of its regime took.

    Returns:
        Seconds by the job's name, and the number of finished jobs that they are based on.
    """
    clips = {dataset: _split_sizes(study, dataset) for dataset in study.data}
    guesses = {job.name: guess(study, job, clips[job.dataset]) for job in study.jobs}
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


def _split_sizes(study: Study, dataset: DatasetName) -> dict[str, int]:
    """The number of clips in each split: by the data, or by the study's file where the data are missing."""
    try:
        data = AVSBench(study.data[dataset], benchmark_of(dataset))
    except InputError:
        return {split: study.clips.get(dataset, {}).get(split, 0) for split in SPLITS}
    return {split: len(data.split(split)) for split in SPLITS}


def describe_duration(jobs: Sequence[Job], seconds: float, measured: int) -> str:
    """How long jobs take, in words: the estimate and what it is based on, or that nothing is known.

    Args:
        jobs: of which one without an estimate makes the whole unknown, until a run has finished.
        seconds: the estimate.
        measured: number of finished jobs that it is based on.
    """
    if measured:
        return f"about {format_duration(seconds)} (from {counted(measured, 'finished run')})"
    if any(job.seconds_per_clip is None for job in jobs):
        return "unknown (nothing of this has been timed)"
    return f"about {format_duration(seconds)} (a guess, from the study's seconds_per_clip)"


def format_duration(seconds: float) -> str:
    """Seconds in a readable unit: 41 s, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
