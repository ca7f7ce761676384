"""What SAM and the networks of the SAM 2 family have in common: prompts, decoded a batch at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.cache import Cache
from utils.device import Precision, free_memory
from zero_shot.method_options import ProposalOptions
from zero_shot.segmenters.base import validate_prompt
from zero_shot.segmenters.proposals import MASK_THRESHOLD, DecodedPoints, generate_proposals


class NetworkSegmenter(ABC):
    """A network with its cache and its memory budget; implements Segmenter and PointDecoder but for the network.

    An embedding has the attribute `size`, (H, W) of its frame in pixels.

    Args:
        network: computation runs on its device.
        parameters: what its embeddings and proposals depend on besides the frame and the options.
        cache: folder of cached embeddings and proposals; None caches nothing.
        precision: bf16 runs the encoder and the mask decoder under autocast; prompts and masks stay in float32. For
            tf32 call utils.device.set_matmul_precision.
        memory_mib: memory of a batch of frames or prompts in MiB, in addition to the weights (a batch has at least
            one); 0 uses a fraction of what is free on the device.
    """

    def __init__(
        self,
        network: Any,
        parameters: dict[str, Any],
        *,
        cache: Path | None = None,
        precision: Precision = "fp32",
        memory_mib: int = 0,
    ) -> None:
        self.network, self.parameters, self.cache, self.precision = network, parameters, cache, precision
        self.memory = memory_mib * 2**20 or free_memory(self.device)
        self.embeddings = Cache(cache, "embedding", parameters) if cache else None

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return torch.device(self.network.device)

    @property
    @abstractmethod
    def images_per_batch(self) -> int:
        """Frames encoded at once."""

    @abstractmethod
    def embed(self, frames: Sequence[np.ndarray]) -> Sequence[Any]:
        """Implements Segmenter.embed. Equal frames are encoded once."""

    @abstractmethod
    def decode_batches(
        self,
        embedding: Any,
        points: np.ndarray | None,
        labels: np.ndarray | None,
        boxes: np.ndarray | None,
        multimask: bool,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The results of `decode`, a batch of prompts at a time."""

    @abstractmethod
    def decode_points(self, embedding: Any, points: np.ndarray) -> Iterator[DecodedPoints]:
        """Implements PointDecoder.decode_points."""

    @abstractmethod
    def upscale(self, logits: Tensor, embedding: Any) -> Tensor:
        """Low-resolution logits (K, 3 or 1, h, w) at the frame's size, (K, 3 or 1, H, W)."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision, as a context."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @torch.no_grad()
    def prompt(
        self,
        embedding: Any,
        *,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Implements Segmenter.prompt."""
        validate_prompt(points, labels, boxes)
        if boxes is not None and not len(boxes):
            empty = torch.zeros(0, 3 if multimask else 1, *embedding.size, device=self.device)
            return empty.bool(), empty[..., 0, 0]
        masks, scores = [], []
        for logits, score in self.decode_batches(embedding, points, labels, boxes, multimask):
            masks.append(self.upscale(logits, embedding) > MASK_THRESHOLD)
            scores.append(score)
        return torch.cat(masks), torch.cat(scores)

    @torch.no_grad()
    def decode(
        self,
        embedding: Any,
        *,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (K, 3 or 1, h, w) and predicted IoU for the arguments of `prompt`; at least one box."""
        logits, scores = zip(*self.decode_batches(embedding, points, labels, boxes, multimask), strict=True)
        return torch.cat(logits), torch.cat(scores)

    def propose(self, frames: Sequence[np.ndarray], options: ProposalOptions) -> list[list[dict[str, Any]]]:
        """Implements Segmenter.propose."""
        return generate_proposals(self, frames, options)
