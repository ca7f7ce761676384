"""AudioCLIP as the zero-shot settings use it: sounds, frames and proposals as embeddings, computed once and cached."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.audioclip import AudioCLIP
from utils.cache import Cache, content_hash, get_or_compute, weights_hash
from utils.cli import InputError
from utils.dataset import normalize_frames
from utils.device import Precision, to_device
from utils.device import to_channels_last as to_channels_last
from zero_shot.options import AudioCLIPOptions
from zero_shot.similarity import redundant_feature, similarity_map

VERSION = 1  # of the numbers: raise it when a change here alters what a cache holds
CHUNK = 64  # sounds, frames or crops that go through a tower at once


class AudioCLIPEncoder:
    """One AudioCLIP, its options and its cache. All embeddings that leave it are on the CPU, in float32."""

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
        """channels_last: use torch's memory format of that name."""
        if options.image_size % 32 or options.image_size < 32:
            raise InputError(f"audioclip.image_size {options.image_size} is not a multiple of 32")
        self.model, self.options, self.precision = model.to(device).eval(), options, precision
        self.device, self.cache, self.channels_last = torch.device(device), cache, channels_last
        if channels_last:
            to_channels_last(self.model)
        self._facts = self._depends_on() if cache else {}
        self._redundant: Tensor | None = None

    def encode_audio(self, seconds: Tensor, tile: int) -> Tensor:
        """Normalised embeddings (N, D) of waveforms (N, samples), each repeated `tile` times before it is heard."""
        facts = {"fidelity": self.model.fidelity, "tile": tile}

        def heard(some: list[int]) -> Tensor:
            return self.model.encode_audio(to_device(seconds[some], self.device).repeat(1, tile))

        return F.normalize(self._embeddings("sound", facts, list(seconds.numpy()), heard), dim=1)

    def similarity_maps(self, frames: Sequence[np.ndarray], sounds: Tensor) -> Tensor:
        """Similarity maps (N, H, W) of frames, (H, W, 3) uint8 RGB of one size, with sounds (N, D)."""
        options, side = self.options, self.options.image_size
        facts = {"surgery": options.surgery, "image_size": side}

        def dense(some: Sequence[int]) -> Tensor:
            images = _resized(normalize_frames(torch.from_numpy(np.stack([frames[i] for i in some])), "clip"), side)
            return self.model.image_pyramid(to_device(images, self.device), surgery=options.surgery)[1]

        found = self._embeddings("dense", facts, frames, dense)
        if self._redundant is None:
            self._redundant = redundant_feature(self.model, options.noise).float().cpu()
        return similarity_map(
            sounds,
            found,
            redundant=self._redundant,
            reverse=options.reverse,
            size=frames[0].shape[:2],
            mode=options.interpolation,
        )

    def encode_crops(self, content: str, facts: dict[str, Any], crops: Callable[[], Tensor]) -> Tensor:
        """Normalised pooled embeddings (K, D) of the crops (K, 3, s, s) of a frame.

        content and facts say what the crops are made of, so that cached embeddings spare making them.
        """
        store = self._store("crops", facts)
        if store and (kept := store.get(content)) is not None:
            return F.normalize(kept["embeddings"], dim=1)
        images = crops()

        def encoded() -> Tensor:
            return torch.cat([self.model.encode_image(to_device(part, self.device)) for part in images.split(CHUNK)])

        found = self._run(encoded) if len(images) else torch.zeros(0, self.model.embed_dim)
        if store:
            store.put(content, {"embeddings": found})
        return F.normalize(found, dim=1)

    def _embeddings(
        self, kind: str, facts: dict[str, Any], items: Sequence[np.ndarray], make: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """What `make` gives for the items, by their places, stacked; only what the cache lacks is made."""

        def entries(some: list[int]) -> list[dict[str, Tensor]]:
            return [{"embedding": embedding} for embedding in self._run(partial(make, some))]

        found = get_or_compute(self._store(kind, facts), [content_hash(item) for item in items], entries, CHUNK)
        return torch.stack([entry["embedding"] for entry in found])

    def _depends_on(self) -> dict[str, Any]:
        """What all embeddings depend on, as part of a cache's address; the shapes of the weights tell most sizes."""
        return {
            "version": VERSION,
            "weights": weights_hash(self.model),
            "hop": self.model.audio.hop,
            "heads": self.model.visual.attnpool.num_heads,
            "precision": f"{self.precision}, by pixel" if self.channels_last else self.precision,
            "device": self.device.type,  # rounding differs
        }

    def _store(self, kind: str, facts: dict[str, Any]) -> Cache | None:
        return Cache(self.cache, kind, {**self._facts, **facts}) if self.cache else None

    @torch.inference_mode()
    def _run(self, work: Callable[[], Tensor]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return work().float().cpu()


def _resized(images: Tensor, side: int) -> Tensor:
    """Frames are 224 pixels a side, which the published sizes take as they are."""
    if tuple(images.shape[2:]) == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True)
