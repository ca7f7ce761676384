"""AudioCLIP as a zero-shot encoder: embeddings of audio, frames and crops, computed once and cached."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.audioclip import AudioCLIP
from models.registry import create_model
from utils.cache import weights_hash
from utils.cli import InputError
from utils.dataset import normalize_frames
from utils.device import Precision, to_channels_last, to_device
from utils.fidelity import Fidelity
from utils.memo import NO_MEMO
from zero_shot.encoders.cached import CHUNK, EmbeddingCache
from zero_shot.model_options import AudioCLIPOptions
from zero_shot.options import Options
from zero_shot.proposal_scoring import crop_proposals, prepare_crops
from zero_shot.similarity import cell_cosines, redundant_feature, scale_cosines

SAMPLE_RATE = 44_100  # Hz, AudioCLIP's
CLAP_SAMPLE_RATE = 48_000  # Hz: the original No-Prompt passes audio at CLAP's rate to AudioCLIP
CACHE_VERSION = 1  # increase when a change here alters the numbers in the cache


class AudioCLIPEncoder:
    """AudioCLIP with its options and its cache; implements DenseEncoder.

    Args:
        model: the network.
        options: how audio and images are preprocessed, and how similarity maps are computed.
        device: where it runs.
        cache: folder of cached embeddings; None caches nothing.
        precision: bf16 runs the network under autocast.
        channels_last: use torch's memory format of that name.
        sample_rate: Hz, of the audio that it is given.
        int16_round_trip: whether that audio must be quantized to 16 bits first.

    Raises:
        InputError: if `image_size` is not a multiple of 32.
    """

    memo = NO_MEMO

    def __init__(
        self,
        model: AudioCLIP,
        options: AudioCLIPOptions,
        *,
        device: torch.device | str = "cpu",
        cache: Path | None = None,
        precision: Precision = "fp32",
        channels_last: bool = False,
        sample_rate: int = SAMPLE_RATE,
        int16_round_trip: bool = False,
    ):
        if options.image_size % 32 or options.image_size < 32:
            raise InputError(f"audioclip.image_size {options.image_size} is not a multiple of 32")
        self.model, self.options, self.precision = model.to(device).eval(), options, precision
        self.device, self.channels_last = torch.device(device), channels_last
        self.sample_rate, self.int16_round_trip = sample_rate, int16_round_trip
        if channels_last:
            to_channels_last(self.model)
        self.cache = EmbeddingCache(cache, self._cache_parameters() if cache else {})
        self._redundant: dict[tuple[Fidelity, str], Tensor] = {}  # by amplitude and noise

    @classmethod
    def from_options(cls, options: Options, device: torch.device, cache: Path | None) -> "AudioCLIPEncoder":
        """Build AudioCLIP by the options.

        Raises:
            InputError: for a checkpoint that is missing or does not fit.
        """
        audioclip, sample_rate, int16_round_trip = audio_input(options)
        return cls(
            create_model("audioclip", audioclip.weights, text=False, fidelity=amplitude(options)),
            audioclip,
            device=device,
            cache=cache,
            precision=options.run.precision,
            channels_last=options.run.channels_last,
            sample_rate=sample_rate,
            int16_round_trip=int16_round_trip,
        )

    def with_options(self, options: Options) -> "AudioCLIPEncoder":
        """Implements AudioVisualEncoder.with_options. Weights, memo and redundant features are shared."""
        other = copy.copy(self)
        other.options, other.sample_rate, other.int16_round_trip = audio_input(options)
        if (fidelity := amplitude(options)) != self.model.fidelity:
            other.model = copy.copy(self.model)
            other.model.fidelity = fidelity
        return other

    def encode_audio(self, audio: Tensor) -> Tensor:
        """Implements AudioVisualEncoder.encode_audio."""
        repeats = self.options.audio_repeats
        parameters = {"fidelity": self.model.fidelity, "repeats": repeats}

        def encode(indices: list[int]) -> Tensor:
            waveforms = to_device(audio[indices], self.device).repeat(1, repeats)
            return self._run(lambda: self.model.encode_audio(waveforms))

        def features() -> Tensor:
            return F.normalize(self.cache.of_items("audio", parameters, list(audio.numpy()), encode), dim=1)

        return self.memo("audio", (self.model.fidelity, repeats), [audio], features)

    def similarity_maps(self, frames: Sequence[np.ndarray], audio_features: Tensor) -> tuple[Tensor, Tensor]:
        """Implements DenseEncoder.similarity_maps."""
        options, noise = self.options, (self.model.fidelity, self.options.noise)
        if noise not in self._redundant:
            self._redundant[noise] = redundant_feature(self.model, options.noise).float().cpu()

        def maps() -> tuple[Tensor, Tensor]:
            cosines = cell_cosines(audio_features, self._encode_dense(frames), self._redundant[noise])
            scale = partial(
                scale_cosines,
                cosines,
                reverse=options.reverse,
                size=frames[0].shape[:2],
                mode=options.interpolation,
            )
            return scale(absolute=False), scale(absolute=True)

        return self.memo("maps", (self.model.fidelity, repr(options)), [frames, audio_features], maps)

    def _encode_dense(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Embeddings (N, D, h, w) of the cells of N frames."""
        size, surgery = self.options.image_size, self.options.surgery

        def encode(indices: list[int]) -> Tensor:
            images = _resize(normalize_frames(torch.from_numpy(np.stack([frames[i] for i in indices])), "clip"), size)
            moved = to_device(images, self.device)
            return self._run(lambda: self.model.image_pyramid(moved, surgery=surgery)[1])

        parameters = {"surgery": surgery, "image_size": size}
        return self.memo(
            "dense", (size, surgery), [frames], lambda: self.cache.of_items("dense", parameters, frames, encode)
        )

    def encode_crops(
        self, frame: np.ndarray, proposals: Sequence[dict[str, Any]], fidelity: Fidelity
    ) -> tuple[Tensor, list[int]]:
        """Implements AudioVisualEncoder.encode_crops."""
        size = self.options.crop_size

        def embeddings() -> tuple[Tensor, list[int]]:
            crops = crop_proposals(frame, proposals, fidelity)
            images = list(crops.values())
            return self.cache.of_crops({"size": size}, images, lambda: self._embed(images)), list(crops)

        return self.memo("crops", (size, fidelity), [frame, proposals], embeddings)

    def _embed(self, crops: Sequence[np.ndarray]) -> Tensor:
        """Embeddings (K, D) of crops."""
        images = prepare_crops(crops, self.options.crop_size, self.device)
        if not len(images):
            return torch.zeros(0, self.model.embed_dim)
        return self._run(lambda: torch.cat([self.model.encode_image(part) for part in images.split(CHUNK)]))

    def _cache_parameters(self) -> dict[str, Any]:
        """What all embeddings depend on; the shapes of the weights, which are hashed, fix most sizes."""
        return {
            "version": CACHE_VERSION,
            "weights": weights_hash(self.model),
            "hop": self.model.audio.hop,
            "heads": self.model.visual.attnpool.num_heads,
            "precision": f"{self.precision}, channels last" if self.channels_last else self.precision,
            "device": self.device.type,  # rounding differs
        }

    @torch.inference_mode()
    def _run(self, compute: Callable[[], Tensor]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return compute().float().cpu()


def amplitude(options: Options) -> Fidelity:
    """The fidelity by which AudioCLIP scales waveforms."""
    fidelity: dict[str, Fidelity] = {"by_fidelity": options.fidelity, "unit": "published", "int16": "corrected"}
    return fidelity[options.audioclip.amplitude]


def audio_input(options: Options) -> tuple[AudioCLIPOptions, int, bool]:
    """AudioCLIP's options, the sample rate of its audio in Hz, and whether that is quantized to 16 bits.

    The original No-Prompt encodes one second at 48 kHz, with a network trained on five seconds at 44.1 kHz.
    """
    if options.method == "no_prompt" and options.fidelity == "published":
        return replace(options.audioclip, audio_repeats=1), CLAP_SAMPLE_RATE, True
    return options.audioclip, SAMPLE_RATE, False


def _resize(images: Tensor, size: int) -> Tensor:
    """Images (N, 3, H, W) at size × size; 224-pixel frames stay as they are at the published size."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)
