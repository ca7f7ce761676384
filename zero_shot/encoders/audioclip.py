"""AudioCLIP as a zero-shot encoder: embeddings of audio, frames and crops, computed once and cached."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.audioclip import AudioCLIP
from models.registry import create_model
from utils.cache import Cache, content_hash, get_or_compute, weights_hash
from utils.cli import InputError
from utils.dataset import normalize_frames
from utils.device import Precision, to_channels_last, to_device
from utils.fidelity import Fidelity
from utils.memo import NO_MEMO
from zero_shot.options import AudioCLIPOptions, Options
from zero_shot.proposal_scoring import crop_proposals, prepare_crops
from zero_shot.similarity import redundant_feature, similarity_map

SAMPLE_RATE = 44_100  # Hz, AudioCLIP's
CACHE_VERSION = 1  # increase when a change here alters the numbers in the cache
CHUNK = 64  # waveforms, frames or crops encoded at once


class AudioCLIPEncoder:
    """AudioCLIP with its options and its cache; implements AudioVisualEncoder.

    Args:
        model: the network.
        options: how similarity maps are computed.
        device: where it runs.
        cache: folder of cached embeddings; None caches nothing.
        precision: bf16 runs the network under autocast.
        channels_last: use torch's memory format of that name.

    Raises:
        InputError: if `image_size` is not a multiple of 32.
    """

    sample_rate = SAMPLE_RATE
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
    ):
        if options.image_size % 32 or options.image_size < 32:
            raise InputError(f"audioclip.image_size {options.image_size} is not a multiple of 32")
        self.model, self.options, self.precision = model.to(device).eval(), options, precision
        self.device, self.cache, self.channels_last = torch.device(device), cache, channels_last
        if channels_last:
            to_channels_last(self.model)
        self._parameters = self._cache_parameters() if cache else {}
        self._redundant: dict[tuple[Fidelity, str], Tensor] = {}  # by amplitude and noise

    def with_options(self, options: Options) -> "AudioCLIPEncoder":
        """Implements AudioVisualEncoder.with_options. Weights, memo and redundant features are shared."""
        other = copy.copy(self)
        other.options = options.audioclip
        if (fidelity := amplitude(options)) != self.model.fidelity:
            other.model = copy.copy(self.model)
            other.model.fidelity = fidelity
        return other

    def encode_audio(self, audio: Tensor, repeats: int) -> Tensor:
        """Implements AudioVisualEncoder.encode_audio."""
        parameters = {"fidelity": self.model.fidelity, "repeats": repeats}

        def encode(indices: list[int]) -> Tensor:
            return self.model.encode_audio(to_device(audio[indices], self.device).repeat(1, repeats))

        def features() -> Tensor:
            return F.normalize(self._embeddings("audio", parameters, list(audio.numpy()), encode), dim=1)

        return self.memo("audio", (self.model.fidelity, repeats), [audio], features)

    def similarity_maps(self, frames: Sequence[np.ndarray], audio_features: Tensor) -> Tensor:
        """Implements AudioVisualEncoder.similarity_maps."""
        options, noise = self.options, (self.model.fidelity, self.options.noise)
        if noise not in self._redundant:
            self._redundant[noise] = redundant_feature(self.model, options.noise).float().cpu()

        def maps() -> Tensor:
            return similarity_map(
                audio_features,
                self._encode_dense(frames),
                redundant=self._redundant[noise],
                reverse=options.reverse,
                size=frames[0].shape[:2],
                mode=options.interpolation,
            )

        return self.memo("maps", (self.model.fidelity, repr(options)), [frames, audio_features], maps)

    def _encode_dense(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Embeddings (N, D, h, w) of the cells of N frames."""
        size, surgery = self.options.image_size, self.options.surgery

        def encode(indices: Sequence[int]) -> Tensor:
            images = _resize(normalize_frames(torch.from_numpy(np.stack([frames[i] for i in indices])), "clip"), size)
            return self.model.image_pyramid(to_device(images, self.device), surgery=surgery)[1]

        parameters = {"surgery": surgery, "image_size": size}
        return self.memo(
            "dense", (size, surgery), [frames], lambda: self._embeddings("dense", parameters, frames, encode)
        )

    def encode_crops(
        self, frame: np.ndarray, proposals: Sequence[dict[str, Any]], size: int, fidelity: Fidelity
    ) -> tuple[Tensor, list[int]]:
        """Implements AudioVisualEncoder.encode_crops."""

        def embeddings() -> tuple[Tensor, list[int]]:
            crops = crop_proposals(frame, proposals, fidelity)
            return F.normalize(self._embed_crops(list(crops.values()), size), dim=1), list(crops)

        return self.memo("crops", (size, fidelity), [frame, proposals], embeddings)

    def _embed_crops(self, crops: Sequence[np.ndarray], size: int) -> Tensor:
        """Embeddings (K, D) of crops, cached by all of their pixels."""
        content = content_hash(np.concatenate([crop.ravel() for crop in crops])) if crops else ""
        cache = self._open_cache("crops", {"size": size, "shapes": [crop.shape[:2] for crop in crops]})
        if cache and (cached := cache.get(content)) is not None:
            return cached["embeddings"]
        images = prepare_crops(crops, size, self.device)

        def encode() -> Tensor:
            return torch.cat([self.model.encode_image(to_device(part, self.device)) for part in images.split(CHUNK)])

        embeddings = self._run(encode) if len(images) else torch.zeros(0, self.model.embed_dim)
        if cache:
            cache.put(content, {"embeddings": embeddings})
        return embeddings

    def _embeddings(
        self, kind: str, parameters: dict[str, Any], items: Sequence[np.ndarray], encode: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """Embeddings of the items, stacked; `encode` gives those at some indices and is called for uncached ones."""

        def entries(indices: list[int]) -> list[dict[str, Tensor]]:
            return [{"embedding": embedding} for embedding in self._run(partial(encode, indices))]

        cache = self._open_cache(kind, parameters)
        found = get_or_compute(cache, [content_hash(item) for item in items], entries, CHUNK)
        return torch.stack([entry["embedding"] for entry in found])

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

    def _open_cache(self, kind: str, parameters: dict[str, Any]) -> Cache | None:
        return Cache(self.cache, kind, {**self._parameters, **parameters}) if self.cache else None

    @torch.inference_mode()
    def _run(self, compute: Callable[[], Tensor]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return compute().float().cpu()


def amplitude(options: Options) -> Fidelity:
    """The fidelity by which AudioCLIP scales waveforms."""
    fidelity: dict[str, Fidelity] = {"by_fidelity": options.fidelity, "unit": "published", "int16": "corrected"}
    return fidelity[options.audioclip.amplitude]


def build_audioclip_encoder(options: Options, device: torch.device, cache: Path | None) -> AudioCLIPEncoder:
    """Build AudioCLIP by the options.

    Raises:
        InputError: for a checkpoint that is missing or does not fit.
    """
    model = create_model("audioclip", options.audioclip.weights, text=False, fidelity=amplitude(options))
    return AudioCLIPEncoder(
        model,
        options.audioclip,
        device=device,
        cache=cache,
        precision=options.run.precision,
        channels_last=options.run.channels_last,
    )


def _resize(images: Tensor, size: int) -> Tensor:
    """Images (N, 3, H, W) at size × size; 224-pixel frames stay as they are at the published size."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True)
