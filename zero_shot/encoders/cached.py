"""Embeddings that are computed once and kept in the cache of the run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.cache import Cache, content_hash, get_or_compute

CHUNK = 64  # waveforms, frames or crops encoded at once


class EmbeddingCache:
    """Embeddings by what they were computed from.

    Args:
        folder: of the cache; None keeps nothing.
        parameters: what all embeddings of an encoder depend on, such as its weights.
    """

    def __init__(self, folder: Path | None, parameters: dict[str, Any]) -> None:
        self.folder, self.parameters = folder, parameters

    def of_items(
        self,
        kind: str,
        parameters: dict[str, Any],
        items: Sequence[np.ndarray],
        encode: Callable[[list[int]], Tensor],
    ) -> Tensor:
        """Embeddings of the items, stacked.

        Args:
            kind: what is embedded.
            parameters: what else these embeddings depend on.
            items: waveforms or frames.
            encode: gives the embeddings of the items at at most CHUNK indices; called for those that are not cached.
        """

        def entries(indices: list[int]) -> list[dict[str, Tensor]]:
            return [{"embedding": embedding} for embedding in encode(indices)]

        found = get_or_compute(self._open(kind, parameters), [content_hash(item) for item in items], entries, CHUNK)
        return torch.stack([entry["embedding"] for entry in found])

    def of_crops(self, parameters: dict[str, Any], crops: Sequence[np.ndarray], encode: Callable[[], Tensor]) -> Tensor:
        """Normalized embeddings (K, D) of the crops of one frame; `encode` computes all of them."""
        cache = self._open("crops", {**parameters, "shapes": [crop.shape[:2] for crop in crops]})
        content = content_hash(np.concatenate([crop.ravel() for crop in crops])) if crops else ""
        cached = cache.get(content) if cache else None
        embeddings = encode() if cached is None else cached["embeddings"]
        if cache and cached is None:
            cache.put(content, {"embeddings": embeddings})
        return F.normalize(embeddings, dim=1)

    def _open(self, kind: str, parameters: dict[str, Any]) -> Cache | None:
        return Cache(self.folder, kind, {**self.parameters, **parameters}) if self.folder else None
