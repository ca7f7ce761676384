"""CLAP's audio embeddings, by the test of the transformers package."""

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrained.checks import Context, Outputs
from utils.cli import InputError
from zero_shot.encoders.clap import SAMPLE_RATE, ClapClassifier

PADDINGS = ("repeatpad", "repeat", "pad")
LAST = "librispeech-last"


def embedding_means(context: Context) -> Outputs:
    """The mean over all values of the embeddings of one recording and of four, with each padding."""
    clap = ClapClassifier(context.weights, ["a sound"], context.device)
    recordings = {}
    for name, path in context.paths().items():
        try:
            recordings[name] = soundfile.read(path, dtype="float64")[0]
        except soundfile.SoundFileError as error:
            raise InputError(f"{path}: not a readable audio file ({error})") from error
    four = [samples for name, samples in recordings.items() if name != LAST]
    return {
        "last": {padding: _embed(clap, [recordings[LAST]], padding).mean().item() for padding in PADDINGS},
        "first_four": {padding: _embed(clap, four, padding).mean().item() for padding in PADDINGS},
    }


def _embed(clap: ClapClassifier, recordings: list[np.ndarray], padding: str) -> Tensor:
    """Normalized embeddings (N, D) of samples, whatever their rate was."""
    rows = []
    for samples in recordings:
        inputs = clap.feature_extractor(samples, sampling_rate=SAMPLE_RATE, padding=padding, return_tensors="pt")
        features = clap.model.get_audio_features(inputs["input_features"].float().to(clap.device))
        rows.append(F.normalize(features.pooler_output, dim=1))
    return torch.cat(rows)
