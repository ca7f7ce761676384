"""AudioCLIP's own demo, which runs in train mode, and what else is known of its files."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.audioclip import SAMPLE_RATE, AudioCLIP, Logits
from models.registry import create_model
from pretrained.checks import Context, Outputs, by_name
from pretrained.checks.images import clip_demo_input
from utils.audio import read_wav
from utils.cli import InputError
from utils.fidelity import Fidelity

AMPLITUDES: dict[int, Fidelity] = {1: "published", 32768: "corrected"}


def audio_text(context: Context) -> Outputs:
    """Sound by sound, the probability of each label in per cent."""
    return _per_cent(_demo_logits(context).audio_text, _sounds(context), context.parameters["labels"])


def text_audio(context: Context) -> Outputs:
    """Label by label, the probability of each sound in per cent."""
    logits = _demo_logits(context).audio_text
    return _per_cent(None if logits is None else logits.T, context.parameters["labels"], _sounds(context))


def image_text(context: Context) -> Outputs:
    """Picture by picture, the probability of each label in per cent."""
    return _per_cent(_demo_logits(context).image_text, _pictures(context), context.parameters["labels"])


def audio_image(context: Context) -> Outputs:
    """The probability of each picture by sound, and of each sound by picture, in per cent."""
    logits, sounds, pictures = _demo_logits(context).audio_image, _sounds(context), _pictures(context)
    assert logits is not None
    return {"by_sound": _per_cent(logits, sounds, pictures), "by_picture": _per_cent(logits.T, pictures, sounds)}


def text_features(context: Context) -> Outputs:
    """Some entries of the labels' normalized embeddings, and the scale of their logits."""
    model, labels = _load(context), context.parameters["labels"]
    features = F.normalize(model.encode_text(labels), dim=1)[:, context.parameters["indices"]]
    return {"features": by_name(labels, features), "logit_scale_at": _scale(model.logit_scale_at)}


def logit_scales(context: Context) -> Outputs:
    """The three logit scales."""
    model = _load(context)
    names = {"audio_image": "logit_scale_ai", "audio_text": "logit_scale_at", "image_text": "logit_scale"}
    return {name: _scale(getattr(model, parameter)) for name, parameter in names.items()}


def amplitude(context: Context) -> Outputs:
    """The probabilities of the labels, sound by sound, in train and eval mode at both amplitudes.

    Returns:
        {"train 1": {sound: {label: per cent}}, "train 32768": ..., "eval 1": ..., "eval 32768": ...}.
    """
    model, labels, sounds = _load(context), context.parameters["labels"], _sounds(context)
    waveforms = read_sounds(sounds.values()).to(context.device)
    text = model.encode_text(labels)
    found = {}
    for mode in ("train", "eval"):
        for factor, fidelity in AMPLITUDES.items():
            network = copy.deepcopy(model).train(mode == "train")  # a forward pass in train mode moves the statistics
            network.fidelity = fidelity
            logits = network.logits(audio=network.encode_audio(waveforms), text=text).audio_text
            found[f"{mode} {factor}"] = _per_cent(logits, sounds, labels)
    return found


def describe_amplitude(found: Mapping[str, Mapping[str, Mapping[str, float]]], own_label: Mapping[str, str]) -> str:
    """One sentence on what the outputs of `amplitude` mean for the choice of the amplitude in eval mode.

    Args:
        found: by `amplitude`.
        own_label: by sound.
    """
    correct = {}
    for setting, sounds in found.items():
        largest = {sound: max(labels, key=labels.__getitem__) for sound, labels in sounds.items()}
        correct[setting] = sum(largest[sound] == own_label[sound] for sound in sounds)
    unit, int16, count = correct["eval 1"], correct["eval 32768"], len(own_label)
    what = f"In eval mode, which the study uses, {unit} of {count} sounds get their own label at [-1, 1]"
    if int16 > unit:
        meaning = "this speaks for audioclip.amplitude int16 (fidelity corrected) with this file, on five sounds only"
    elif unit > int16:
        meaning = "this speaks for audioclip.amplitude unit (fidelity published) with this file, on five sounds only"
    else:
        meaning = "this settles nothing, and the amplitude has to be chosen on validation clips"
    return f"{what} and {int16} in the range of int16: {meaning}."


def read_sounds(paths: Iterable[Path]) -> Tensor:
    """Mono 16-bit sounds of equal length as floats in [-1, 1], (N, samples).

    Raises:
        InputError: for another rate, number of channels or length.
    """
    waveforms: list[np.ndarray] = []
    for path in paths:
        samples, rate = read_wav(path)
        if rate != SAMPLE_RATE or samples.ndim != 1 or (waveforms and len(samples) != len(waveforms[0])):
            raise InputError(f"{path}: not mono at {SAMPLE_RATE} Hz, or not as long as the other sounds")
        waveforms.append(samples / np.float32(32768))
    return torch.from_numpy(np.stack(waveforms))


def _load(context: Context) -> AudioCLIP:
    """The network in eval mode, with the amplitude that is given to it."""
    model: AudioCLIP = create_model("audioclip", context.weights, fidelity="published")
    return model.to(context.device)


def _demo_logits(context: Context) -> Logits:
    """The logits in train mode, between those of sounds, pictures and labels that the check has."""
    sounds, pictures, labels = _sounds(context), _pictures(context), context.parameters.get("labels")
    model = _load(context).train()
    waveforms = read_sounds(sounds.values()).to(context.device) if sounds else None
    images = torch.stack([clip_demo_input(path) for path in pictures.values()]).to(context.device) if pictures else None
    return model(waveforms, images, labels)


def _sounds(context: Context) -> dict[str, Path]:
    return context.paths(".wav")


def _pictures(context: Context) -> dict[str, Path]:
    return context.paths(".jpg", ".jpeg", ".png")


def _per_cent(logits: Tensor | None, rows: Iterable[str], columns: Iterable[str]) -> Outputs:
    assert logits is not None
    names = list(columns)
    probabilities = 100 * logits.softmax(dim=1)
    return {row: by_name(names, values) for row, values in zip(rows, probabilities, strict=True)}


def _scale(parameter: Tensor) -> float:
    return parameter.exp().clamp(1, 100).item()
