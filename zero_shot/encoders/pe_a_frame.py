"""PE-A-Frame, which compares texts with every 40 ms of audio, by the `transformers` package (an optional extra).

Source: Meta's Perception Encoder Audio-Frame, as in transformers, `models/pe_audio`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.device import to_device
from utils.memo import NO_MEMO
from zero_shot.label_list import read_labels
from zero_shot.transformers_folder import load_folder

CHUNK = 32  # texts or waveforms encoded at once


class PEAFrameClassifier:
    """PE-A-Frame as a zero-shot audio classifier; implements SoundClassifier.

    Args:
        folder: as transformers' save_pretrained writes it.
        labels: the labels, or the file of a list of them (`zero_shot.label_list`); the text input as they are.
        device: where it runs.

    Raises:
        InputError: if the package, the folder or a part of it is missing or does not fit, or if the list is not one.
    """

    memo = NO_MEMO

    def __init__(self, folder: Path | str, labels: Path | str | list[str], device: torch.device | str = "cpu") -> None:
        self.labels = labels if isinstance(labels, list) else read_labels(Path(labels))
        self.device = torch.device(device)
        parts: dict[str, dict[str, str]] = {"AutoFeatureExtractor": {}, "AutoTokenizer": {}}
        model, (self.feature_extractor, self.tokenizer) = load_folder(
            Path(folder), "pe_audio", "PeAudioFrameLevelModel", parts
        )
        self.model = model.to(self.device)
        self.sample_rate = int(self.feature_extractor.sampling_rate)
        chunks = [self.labels[i : i + CHUNK] for i in range(0, len(self.labels), CHUNK)]
        self.text_features = torch.cat([self._encode_text(chunk) for chunk in chunks])

    def probabilities(self, audio: Tensor) -> Tensor:
        """Implements SoundClassifier.probabilities: of each label, the highest of the frames of 40 ms."""
        return self.memo("probabilities", None, [audio], lambda: self._probabilities(audio))

    def _probabilities(self, audio: Tensor) -> Tensor:
        if audio.ndim != 2 or not audio.shape[1]:
            raise ValueError(f"expected audio (N, samples), got {tuple(audio.shape)}")
        if not audio.isfinite().all():
            raise ValueError("the audio contains NaN or infinity")
        parts = [self.frame_probabilities(part).amax(dim=1) for part in audio.split(CHUNK)] if len(audio) else []
        return torch.cat(parts) if parts else torch.zeros(0, len(self.labels))

    @torch.inference_mode()
    def frame_probabilities(self, audio: Tensor) -> Tensor:
        """Probabilities (N, frames, labels) of waveforms (N, samples), independent of each other."""
        waveforms = list(audio.float().cpu().numpy())
        inputs = self.feature_extractor(waveforms, sampling_rate=self.sample_rate, return_tensors="pt")
        features = self.model.get_audio_embeds(to_device(inputs["input_values"].float(), self.device))
        logits = features @ self.text_features.T * self.model.text_audio_logit_scale + self.model.text_audio_logit_bias
        return logits.sigmoid().float().cpu()

    @torch.inference_mode()
    def _encode_text(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.device)
        # get_text_audio_embeds of transformers 5.23 raises an error, because it does not ask for the hidden states.
        output = self.model.text_model(tokens["input_ids"], tokens["attention_mask"], output_hidden_states=True)
        return self.model.text_audio_head(output.hidden_states[-1][:, 0])
