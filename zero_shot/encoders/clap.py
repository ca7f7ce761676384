"""CLAP, an audio classifier over a list of labels, by the `transformers` package (an optional extra).

The study loads `630k-audioset-best.pt` (HTSAT-tiny and RoBERTa-base, without fusion) in the format of LAION-CLAP's own
code, which is not supported here. The closest model in transformers' format is `laion/clap-htsat-unfused`; we have not
verified that it has the same weights and gives the same numbers. Source: Sam4AVS, `zero_shot/*/box_prompt.py`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.cli import InputError
from utils.memo import NO_MEMO
from zero_shot.label_list import read_labels
from zero_shot.transformers_folder import load_folder

SAMPLE_RATE = 48_000  # Hz, CLAP's
MAX_SECONDS = 10  # length of CLAP's input; it takes a random crop of longer audio
CHUNK = 32  # texts or waveforms encoded at once


class ClapClassifier:
    """CLAP as a zero-shot audio classifier; implements SoundClassifier.

    Args:
        folder: of a CLAP without fusion, as transformers saves it.
        labels: the labels, or the file of a list of them (`zero_shot.label_list`); CLAP's text input as they are.
        device: where it runs.

    Raises:
        InputError: if the package, the folder or a part of it is missing or does not fit, or if the list is not one.
    """

    sample_rate = SAMPLE_RATE
    memo = NO_MEMO

    def __init__(self, folder: Path | str, labels: Path | str | list[str], device: torch.device | str = "cpu") -> None:
        self.labels = labels if isinstance(labels, list) else read_labels(Path(labels))
        self.device = torch.device(device)
        parts: dict[str, dict[str, str]] = {"AutoFeatureExtractor": {}, "AutoTokenizer": {}}
        model, (self.feature_extractor, self.tokenizer) = load_folder(Path(folder), "clap", "ClapModel", parts)
        self.model = model.to(self.device)
        if model.config.audio_config.enable_fusion:
            raise InputError(f"{folder}: a CLAP with fusion; the study's is without")
        if self.feature_extractor.sampling_rate != SAMPLE_RATE or self.feature_extractor.max_length_s != MAX_SECONDS:
            raise InputError(f"{folder}: its preprocessor_config.json is not for {MAX_SECONDS} s at {SAMPLE_RATE} Hz")
        chunks = [self.labels[i : i + CHUNK] for i in range(0, len(self.labels), CHUNK)]
        self.text_features = torch.cat([self._encode_text(chunk) for chunk in chunks])

    def classify(self, audio: Tensor, top_k: int = 1) -> list[list[str]]:
        """Assign labels to audio.

        Args:
            audio: (N, samples) floats in [-1, 1] at 48 kHz, 10 s or less; repeated to fill CLAP's 10 s.
            top_k: number of labels.

        Returns:
            For each waveform the `top_k` most similar labels, the most similar first.

        Raises:
            InputError: if `top_k` is not from 1 to the number of labels.
            ValueError: for another shape, NaN or infinity.
        """
        if not 1 <= top_k <= len(self.labels):
            raise InputError(
                f"grounding.top_k is {top_k}; it must be from 1 to {len(self.labels)}, the number of labels"
            )
        order = self.similarities(audio).argsort(dim=1, descending=True, stable=True)[:, :top_k]
        return [[self.labels[index] for index in row] for row in order.tolist()]

    def probabilities(self, audio: Tensor) -> Tensor:
        """Implements SoundClassifier.probabilities: a softmax over the labels, with CLAP's own temperature."""
        return (self.similarities(audio) * self.model.logit_scale_a.exp().cpu()).softmax(dim=1)

    def similarities(self, audio: Tensor) -> Tensor:
        """Cosine similarities (N, labels) of audio, as of `classify`, with all labels."""
        return self.memo("similarities", None, [audio], lambda: self._similarities(audio))

    def _similarities(self, audio: Tensor) -> Tensor:
        if audio.ndim != 2 or not 0 < audio.shape[1] <= MAX_SECONDS * SAMPLE_RATE:
            raise ValueError(f"expected audio (N, samples) of {MAX_SECONDS} s or less, got {tuple(audio.shape)}")
        if not audio.isfinite().all():
            raise ValueError("the audio contains NaN or infinity")
        parts = [self._encode_audio(part) @ self.text_features.T for part in audio.split(CHUNK)] if len(audio) else []
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.labels))

    @torch.inference_mode()
    def _encode_audio(self, audio: Tensor) -> Tensor:
        inputs = self.feature_extractor(
            list(audio.float().cpu().numpy()),
            sampling_rate=SAMPLE_RATE,
            truncation="rand_trunc",  # selects the mel bands of CLAP without fusion; no input is long enough to be cut
            padding="repeatpad",
            return_tensors="pt",
        )
        features = self.model.get_audio_features(inputs["input_features"].float().to(self.device))
        return F.normalize(features.pooler_output, dim=1)

    @torch.inference_mode()
    def _encode_text(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.device)
        features = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(features.pooler_output, dim=1)
