"""What a job lacks on this machine, with the command that mends it, and how long it may take."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from models.registry import list_checkpoints, weights_dir
from study.fingerprint import checkpoint_files, matches
from study.job import Job, Study
from study.results import record
from utils.cli import InputError
from utils.layout import BENCHMARKS, SPLITS, AVSBench, Clip
from zero_shot.options import BASELINES

OBTAIN = "see avsbench_data/README.md"


class MissingRequirement(NamedTuple):
    """Something that is not there: a short name, and how to get it."""

    name: str
    fix: str


def missing_requirements(jobs: Iterable[Job]) -> dict[str, list[MissingRequirement]]:
    """What each job lacks, by name. Raises InputError where a configuration is wrong."""
    data = cache(_data)  # of which many jobs have the same
    return {job.name: [*data(job.root, job.benchmark, splits(job), sound(job)), *_weights(job)] for job in jobs}


def splits(job: Job) -> tuple[str, ...]:
    """The splits that it reads."""
    return (job.options.data.split,) if job.kind == "zero_shot" else SPLITS


def sound(job: Job) -> str:
    """What it reads of the sound: wav, log_mel or none."""
    if job.kind == "zero_shot":
        return "none" if job.options.setting in BASELINES else "wav"
    model = job.options.model
    if model.segmentor == "tpavi":
        return "none" if model.attention == "vv" else "log_mel"
    return "none" if model.fpn.fusion == "none" else "log_mel" if model.fpn.audio == "vggish" else "wav"


def _data(root: Path, benchmark: str, wanted: tuple[str, ...], heard: str) -> list[MissingRequirement]:
    composed = root.parent.parts[-2:] == ("avsbench_data", "mini")
    obtain = "python -m synthetic.compose --out avsbench_data/mini" if composed else OBTAIN
    try:
        data = AVSBench(root, benchmark)
    except InputError as error:
        absent = f"no {root / BENCHMARKS[benchmark].meta}; {obtain}"
        return [
            MissingRequirement(
                f"{benchmark.upper()} data", absent if "no such file" in str(error) else f"{error}; {obtain}"
            )
        ]
    clips = [clip for split in wanted for clip in data.split(split)]
    found = []
    if missing := _missing(clips, data.masks):
        found.append(
            MissingRequirement(f"{benchmark.upper()} masks", f"{missing} of {len(clips)} clips lack some; {obtain}")
        )

    def features(clip: Clip) -> list[Path]:
        legacy = data.pickled_log_mel(clip)
        log_mel = legacy if heard == "log_mel" and legacy.is_file() else data.log_mel(clip)
        return data.frames(clip) + {"wav": [data.wav(clip)], "log_mel": [log_mel], "none": []}[heard]

    if missing := _missing(clips, features):
        fix = f"{missing} of {len(clips)} clips are not; python preprocess_{benchmark}.py --root {root}"
        found.append(MissingRequirement(f"{benchmark.upper()} preprocessed", fix))
    return found


def _missing(clips: Iterable[Clip], files: Callable[[Clip], list[Path]]) -> int:
    return sum(not all(path.is_file() for path in files(clip)) for clip in clips)


def _weights(job: Job) -> list[MissingRequirement]:
    found = [_weight(path) for path in checkpoint_files(job.kind, job.options) if not path.is_file()]
    if job.kind == "zero_shot" and job.options.setting == "box_prompt" and not find_spec("transformers"):
        found.append(MissingRequirement("transformers", "pip install -e .[grounding]"))
    return found


def _weight(path: Path) -> MissingRequirement:
    """A file of weights that is not there."""
    public = next((entry for entry in list_checkpoints() if entry.file == path.name), None)
    if public and public.url:
        elsewhere = "" if path.parent.resolve() == weights_dir().resolve() else f" --to {path.parent}"
        return MissingRequirement(public.name, f"python -m pretrained.download {public.name}{elsewhere}")
    if path.parent.parent.name == "tiny":
        return MissingRequirement(f"tiny {path.parent.name}", "python -m synthetic.random_grounding")
    if path.parent.name == "mini":
        return MissingRequirement(f"mini {path.stem}", f"python -m synthetic.train {path.stem} --out {path.parent}")
    name = path.parent.name if path.name == "model.safetensors" else str(path)
    return MissingRequirement(name, f"{path} is not there; see pretrained/README.md")


def guess(study: Study, job: Job, clips: Mapping[str, int]) -> float:
    """Seconds that the study's paces give a job. clips: how many each split of its benchmark has."""
    if job.kind == "zero_shot":
        count = clips[job.options.data.split]
        return study.start + job.seconds_per_clip * min(count, job.options.data.max_clips or count)
    options = job.options
    seen = options.train.epochs * options.data.fraction * clips["train"]
    judged = options.train.epochs * clips["val"] + len(job.audio_conditions) * clips["test"]
    return study.start + job.seconds_per_clip * (seen + judged / 3)  # to evaluate needs no gradient


def estimates(study: Study, runs: Path) -> tuple[dict[str, float], int]:
    """Seconds for each job, by name, and on how many finished jobs they are founded.

    The paces are guesses; the jobs of a kind that are done say by how much they are out.
    """
    clips = {benchmark: _counts(study, benchmark) for benchmark in study.data}
    guesses = {job.name: guess(study, job, clips[job.benchmark]) for job in study.jobs}
    known: dict[str, list[tuple[float, float]]] = {"zero_shot": [], "supervised": []}
    for job in study.jobs:
        found = record(job, runs)
        if found.get("done") and matches(job.key, found.get("key")) and found.get("seconds"):
            known[job.kind].append((found["seconds"], guesses[job.name]))
    ratios = {
        kind: sum(took for took, _ in pairs) / sum(said for _, said in pairs) for kind, pairs in known.items() if pairs
    }
    return {job.name: guesses[job.name] * ratios.get(job.kind, 1) for job in study.jobs}, sum(map(len, known.values()))


def _counts(study: Study, benchmark: str) -> dict[str, int]:
    """The clips of each split: as the data have them, else as the study says."""
    try:
        data = AVSBench(study.data[benchmark], benchmark)
    except InputError:
        return {split: int(study.clips.get(benchmark, {}).get(split, 0)) for split in SPLITS}
    return {split: len(data.split(split)) for split in SPLITS}


def duration(seconds: float) -> str:
    """Seconds for people: 41 s, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
