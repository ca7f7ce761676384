"""Zero-shot classification of ESC-50 and UrbanSound8K by AudioCLIP and CLAP."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from models import audioclip
from models.registry import create_model
from pretrained.checks import Context, Outputs
from utils.audio import quantize_int16, read_wav, resample
from utils.cli import InputError, progress_bar_options
from utils.words import counted
from zero_shot.encoders import clap

AUDIOCLIP_SAMPLES = 220_500  # 5 s
INT16 = 32768


class Recording(NamedTuple):
    """A file of a data set, its class and the fold that it belongs to."""

    path: Path
    label: str
    fold: int


def audioclip_accuracy(context: Context) -> Outputs:
    """Accuracy in per cent on the data sets that are there, in eval mode and in the range of int16."""
    model = create_model("audioclip", context.weights).to(context.device)
    found = {}
    for name, recordings in _data_sets(context).items():
        labels = sorted({recording.label for recording in recordings})
        text = F.normalize(model.encode_text(labels), dim=1)
        right = 0
        for recording in _progress(recordings, name):
            waveform = _audioclip_input(recording.path, stretch=name == "us8k")
            embedding = model.audio(torch.from_numpy(waveform)[None].to(context.device))
            right += labels[int((embedding @ text.T).argmax())] == recording.label
        found[name] = 100 * right / len(recordings)
    return found


def clap_accuracy(context: Context) -> Outputs:
    """Accuracy in per cent on the data sets that are there."""
    found = {}
    for name, recordings in _data_sets(context).items():
        ranks = _clap_ranks(context, recordings, "This is a sound of {}.".format, quantize=False)
        found[name] = 100 * float((ranks == 1).mean())
    return found


def clap_retrieval(context: Context) -> Outputs:
    """Rank of the own class among all classes, over the first fold of ESC-50."""
    recordings = [recording for recording in _data_sets(context)["esc50"] if recording.fold == 1]
    ranks = _clap_ranks(context, recordings, "This is a sound of {}".format, quantize=True)
    recalls = {f"recall_at_{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    precision = float(np.where(ranks <= 10, 1 / ranks, 0).mean())
    return {"mean_rank": float(ranks.mean()), "median_rank": float(np.median(ranks)), **recalls, "map_at_10": precision}


def _clap_ranks(
    context: Context, recordings: list[Recording], prompt: Callable[[str], str], quantize: bool
) -> np.ndarray:
    """The rank from 1 of each recording's class by CLAP, (N,)."""
    labels = sorted({recording.label for recording in recordings})
    classifier = clap.ClapClassifier(context.weights, [prompt(label) for label in labels], context.device)
    ranks = []
    for recording in _progress(recordings, "CLAP"):
        waveform = _read(recording.path, clap.SAMPLE_RATE)
        waveform = quantize_int16(waveform) if quantize else waveform
        scores = classifier.similarities(torch.from_numpy(waveform)[None])[0]
        ranks.append(1 + int((scores > scores[labels.index(recording.label)]).sum()))
    return np.array(ranks)


def _data_sets(context: Context) -> dict[str, list[Recording]]:
    """The recordings of each data set of the check that is there, by its name.

    Raises:
        InputError: if none is there, or one has another layout or number of recordings.
    """
    readers, found, missing = {"esc50": _esc50, "us8k": _us8k}, {}, []
    for name in context.check.inputs:
        try:
            folder = context.inputs.path(name)
        except InputError as error:
            missing.append(error)
            continue
        found[name] = readers[name](folder)
        if len(found[name]) != (count := context.parameters["recordings"][name]):
            raise InputError(f"{folder}: lists {counted(len(found[name]), 'recording')}, not {count}")
    if not found:
        raise missing[0]
    return found


def _esc50(folder: Path) -> list[Recording]:
    rows = _rows(folder / "meta" / "esc50.csv", ("filename", "category", "fold"))
    return [Recording(folder / "audio" / file, label.replace("_", " "), int(fold)) for file, label, fold in rows]


def _us8k(folder: Path) -> list[Recording]:
    rows = _rows(folder / "metadata" / "UrbanSound8K.csv", ("slice_file_name", "class", "fold"))
    audio = folder / "audio"
    return [Recording(audio / f"fold{fold}" / file, label.replace("_", " "), int(fold)) for file, label, fold in rows]


def _rows(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [[row[column] for column in columns] for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except KeyError as error:
        raise InputError(f"{path}: has no column {error}") from error


def _read(path: Path, rate: int) -> np.ndarray:
    """A recording in mono at a rate in Hz, float32 in [-1, 1]."""
    samples, file_rate = read_wav(path)
    mono = samples.astype(np.float32) / INT16
    return resample(mono.mean(axis=1) if mono.ndim == 2 else mono, file_rate, rate).astype(np.float32)


def _audioclip_input(path: Path, stretch: bool) -> np.ndarray:
    """A recording of 5 s in the range of int16: multiplied, or stretched from its own minimum and maximum."""
    waveform = _read(path, audioclip.SAMPLE_RATE)[:AUDIOCLIP_SAMPLES]
    span = float(np.ptp(waveform))
    if not stretch:
        waveform = waveform * INT16
    elif span:
        waveform = (waveform - waveform.min()) / span * (2 * INT16 - 1) - INT16
    return np.pad(waveform, (0, AUDIOCLIP_SAMPLES - len(waveform))).astype(np.float32)


def _progress(recordings: list[Recording], name: str) -> Iterable[Recording]:
    return tqdm(recordings, desc=name, **progress_bar_options())
