"""What a job needs that is missing on this machine, with the command that provides it."""

from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from models.weights import STAND_INS, STAND_INS_COMMAND, checkpoint_name, command_for, is_small_weights
from study.fingerprint import checkpoint_files
from study.job import Job
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.layout import BENCHMARKS, SPLITS, AVSBench, BenchmarkName, Clip
from utils.words import counted
from zero_shot.options import BASELINES

OBTAIN = "see avsbench_data/README.md"
COMPOSE = {  # the commands of the Makefile, by folder in avsbench_data
    "mini": "python -m synthetic.compose --out avsbench_data/mini",
    "mini_hard": "python -m synthetic.compose --out avsbench_data/mini_hard --level hard --split test --ms3 0",
}


class MissingRequirement(NamedTuple):
    """Something that is missing: a short name, and how to get it."""

    name: str
    fix: str


def missing_requirements(jobs: Iterable[Job]) -> dict[str, list[MissingRequirement]]:
    """What each job needs that is missing, by the job's name.

    Raises:
        InputError: where a configuration is wrong.
    """
    data = cache(_missing_data)  # many jobs share it
    return {
        job.name: [
            *data(job.root, job.benchmark, splits(job), audio_file(job), job.preprocess_fidelity),
            *_missing_weights(job),
        ]
        for job in jobs
    }


def splits(job: Job) -> tuple[str, ...]:
    """The splits that it reads."""
    return (job.options.data.split,) if job.regime == "zero_shot" else SPLITS


def audio_file(job: Job) -> str:
    """Which file of a clip's audio it reads: wav, log_mel or none."""
    if job.regime == "zero_shot":
        return "none" if job.options.method in BASELINES else "wav"
    model = job.options.model
    if not model.has_audio:
        return "none"
    return "log_mel" if checkpoint_name(model.audio_weights) == "vggish" else "wav"


def _missing_data(
    root: Path, benchmark: BenchmarkName, wanted: tuple[str, ...], audio: str, fidelity: Fidelity
) -> list[MissingRequirement]:
    folder = root.parent
    obtain = COMPOSE.get(folder.name, OBTAIN) if folder.parent.name == "avsbench_data" else OBTAIN
    title = benchmark.upper()
    try:
        data = AVSBench(root, benchmark)
    except InputError as error:
        absent = f"no {root / BENCHMARKS[benchmark].meta}" if "no such file" in str(error) else str(error)
        return [MissingRequirement(f"{title} data", f"{absent}; {obtain}")]
    clips = [clip for split in wanted for clip in data.split(split)]
    found = []
    if count := _count_missing(clips, data.masks):
        found.append(
            MissingRequirement(f"{title} masks", f"missing for {count} of {counted(len(clips), 'clip')}; {obtain}")
        )

    def inputs(clip: Clip) -> list[Path]:
        pickled = data.pickled_log_mel(clip)
        log_mel = pickled if audio == "log_mel" and pickled.is_file() else data.log_mel(clip)
        return data.frames(clip) + {"wav": [data.wav(clip)], "log_mel": [log_mel], "none": []}[audio]

    if count := _count_missing(clips, inputs):
        command = data.preprocess_command
        command += " --fidelity published" if fidelity == "published" else ""
        fix = f"missing for {count} of {counted(len(clips), 'clip')}; {command}"
        found.append(MissingRequirement(f"{title} preprocessed", fix))
    return found


def _count_missing(clips: Iterable[Clip], files: Callable[[Clip], list[Path]]) -> int:
    return sum(not all(path.is_file() for path in files(clip)) for clip in clips)


def _missing_weights(job: Job) -> list[MissingRequirement]:
    found = [_how_to_get(path) for path in checkpoint_files(job.regime, job.options) if not path.is_file()]
    if job.regime == "zero_shot" and job.options.transformers_folders() and not find_spec("transformers"):
        found.append(MissingRequirement("transformers", "pip install -e .[grounding]"))
    return found


def _how_to_get(path: Path) -> MissingRequirement:
    """A checkpoint file that does not exist."""
    command = command_for(path)
    if command and not is_small_weights(path):
        of_folder = checkpoint_name(path) == str(path)  # a file of a folder, which has the name
        return MissingRequirement(path.parent.name if of_folder else checkpoint_name(path), command)
    if path.parent.parent.name == STAND_INS:
        return MissingRequirement(f"{STAND_INS} {path.parent.name}", STAND_INS_COMMAND)
    if path.parent.name == "mini":
        return MissingRequirement(f"mini {path.stem}", command)
    name = path.parent.name if path.name == "model.safetensors" else str(path)
    return MissingRequirement(name, f"{path} does not exist; see pretrained/README.md")
