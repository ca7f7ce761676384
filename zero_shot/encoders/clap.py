"""CLAP, which names sounds, by the `transformers` package (an optional extra).

The study loads `630k-audioset-best.pt` (HTSAT-tiny and RoBERTa-base, without fusion) in the format of LAION-CLAP's own
code, which is not read here. The nearest in transformers' format is `laion/clap-htsat-unfused`; whether it holds those
very weights and gives the same numbers has not been verified. Source: Sam4AVS, `zero_shot/*/box_prompt.py`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.cli import InputError
from utils.files import read_json
from zero_shot.transformers_folder import SOURCES, load_folder

SAMPLE_RATE = 48_000  # Hz, CLAP's
MAX_SECONDS = 10  # that CLAP encodes; of a longer sound it would draw a random part
CHUNK = 32  # texts or sounds at once


class ClapClassifier:
    """CLAP, which names sounds out of a list of labels.

    Args:
        folder: of a CLAP without fusion.
        labels: JSON file, a list of the names, which CLAP reads verbatim.
        device: where it runs.

    Raises:
        InputError: the package, the folder or a part of it is missing or of another kind, or the list is no list.
    """

    def __init__(self, folder: Path | str, labels: Path | str, device: torch.device | str = "cpu") -> None:
        self.labels, self.device = read_labels(Path(labels)), torch.device(device)
        parts: dict[str, dict[str, str]] = {"AutoFeatureExtractor": {}, "AutoTokenizer": {}}
        model, (self.feature_extractor, self.tokenizer) = load_folder(Path(folder), "clap", "ClapModel", parts)
        self.model = model.to(self.device)
        if model.config.audio_config.enable_fusion:
            raise InputError(f"{folder}: a CLAP with fusion; the study's is without ({SOURCES['clap']})")
        if self.feature_extractor.sampling_rate != SAMPLE_RATE or self.feature_extractor.max_length_s != MAX_SECONDS:
            raise InputError(f"{folder}: its preprocessor_config.json is not for {MAX_SECONDS} s at {SAMPLE_RATE} Hz")
        self.texts = torch.cat([self._texts(self.labels[i : i + CHUNK]) for i in range(0, len(self.labels), CHUNK)])

    def classify(self, seconds: Tensor, top: int = 1) -> list[list[str]]:
        """The `top` names closest to each sound, the closest first.

        seconds: (N, samples) floats in [-1, 1] at 48 kHz, 10 s or less; repeated until they fill CLAP's 10 s.
        Raises InputError if `top` is not from 1 to the number of labels, ValueError on another shape, NaN or infinity.
        """
        if not 1 <= top <= len(self.labels):
            raise InputError(f"cannot take the {top} closest of {len(self.labels)} labels")
        closest = self.similarities(seconds).argsort(dim=1, descending=True, stable=True)[:, :top]
        return [[self.labels[index] for index in row] for row in closest.tolist()]

    def similarities(self, seconds: Tensor) -> Tensor:
        """Cosines (N, labels) of sounds, as `label` takes them, with all labels."""
        if seconds.ndim != 2 or not 0 < seconds.shape[1] <= MAX_SECONDS * SAMPLE_RATE:
            raise ValueError(f"expected sounds (N, samples) of {MAX_SECONDS} s or less, got {tuple(seconds.shape)}")
        if not seconds.isfinite().all():
            raise ValueError("sounds hold NaN or infinity")
        parts = [self._sounds(part) @ self.texts.T for part in seconds.split(CHUNK)] if len(seconds) else []
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.labels))

    @torch.inference_mode()
    def _sounds(self, seconds: Tensor) -> Tensor:
        heard = self.feature_extractor(
            list(seconds.float().cpu().numpy()),
            sampling_rate=SAMPLE_RATE,
            truncation="rand_trunc",  # the mel bands of CLAP without fusion; nothing is long enough to be cut
            padding="repeatpad",
            return_tensors="pt",
        )
        found = self.model.get_audio_features(heard["input_features"].float().to(self.device))
        return F.normalize(found.pooler_output, dim=1)

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.device)
        found = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(found.pooler_output, dim=1)


def read_labels(path: Path) -> list[str]:
    """A JSON list of names. Raises InputError if the file is missing or is anything else."""
    if not path.is_file():
        raise InputError(f"{path}: no such list of labels")
    labels = read_json(path)
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) and label for label in labels):
        raise InputError(f"{path}: not a JSON list of names")
    return labels
