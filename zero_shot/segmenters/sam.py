"""SAM prompted by points and boxes: the numbers of `SamPredictor`, for many frames and prompts at a time.

Images are encoded in batches and their embeddings kept on disk, where a cache is given.
Source: segment-anything, `predictor.py` and `modeling/sam.py`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

from utils.cache import Cache, content_hash, get_or_compute, weights_hash
from utils.device import Precision, free_memory, to_device
from zero_shot.options import ProposalOptions
from zero_shot.segmenters.sam_encoder import compiled_block, encode, encode_block
from zero_shot.segmenters.sam_proposals import generate_proposals

VERSION = 1  # of the numbers: raise it when a change here alters what a cache holds
CPU_BATCH = 128 * 2**20  # bytes: on a CPU larger batches are no faster, for they leave its caches


@dataclass(frozen=True)
class ImageEmbedding:
    """An encoded frame.

    features: (C, h, w) float32. size: (H, W) of the frame in pixels. scaled: its size as SAM saw it, before padding.
    content: the key of its pixels.
    """

    features: Tensor
    size: tuple[int, int]
    scaled: tuple[int, int]
    content: str


class SamSegmenter:
    """A Sam with its cache and its budget of memory."""

    def __init__(
        self,
        sam: Sam,
        *,
        cache: Path | None = None,
        precision: Precision = "fp32",
        memory_mib: int = 0,
        compiled: bool = False,
    ) -> None:
        """Work is done on the device of `sam`.

        cache: the folder to keep embeddings and proposals in; None keeps nothing.
        precision: bf16 runs the encoder and the mask decoder under autocast; prompts and masks stay in float32.
        tf32 is for utils.device.set_exactness to bring about.
        memory_mib: what a batch of images or prompts may take, beyond the weights, in MiB (at least one is worked on);
        0 goes by what is free on the device now.
        compiled: have torch compile the encoder's blocks, when they are first used.
        """
        self.sam = sam
        self.precision = precision
        self.memory = memory_mib * 2**20 or free_memory(self.device)
        self.block = compiled_block() if compiled else encode_block
        self.folder = cache
        self.parameters = _parameters(sam, precision, compiled) if cache else {}
        self.embeddings = Cache(cache, "embedding", self.parameters) if cache else None
        self.transform = ResizeLongestSide(sam.image_encoder.img_size)

    @property
    def device(self) -> torch.device:
        return torch.device(self.sam.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision, as a context."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @torch.no_grad()
    def embed(self, frames: Sequence[np.ndarray]) -> list[ImageEmbedding]:
        """Encode frames, (H, W, 3) uint8 RGB of any sizes. Equal frames are encoded once."""
        contents = [content_hash(_checked(frame)) for frame in frames]

        def features(some: list[int]) -> list[dict[str, Tensor]]:
            images = self._prepare([frames[place] for place in some])
            with self.autocast():
                encoded = encode(self.sam.image_encoder, images, self.memory // 4, self.block).float()
            return [{"features": feature} for feature in encoded]

        found = get_or_compute(self.embeddings, contents, features, self.images_per_batch)
        return [
            ImageEmbedding(to_device(entry["features"], self.device), _size(frame), self._scaled(_size(frame)), content)
            for entry, frame, content in zip(found, frames, contents, strict=True)
        ]

    @torch.no_grad()
    def prompt(
        self,
        embedded: ImageEmbedding,
        *,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Masks for the points, all in one prompt, or for each of K boxes, or for each box with all points.

        points: (N, 2), x and y in pixels of the frame. labels: (N,), 1 foreground, 0 background.
        boxes: (K, 4), left, top, right and bottom in pixels. multimask: three masks a prompt, or one.

        Returns masks, (K, 3 or 1, H, W) bool, and their predicted IoU, (K, 3 or 1). K is 1 without boxes.
        Raises ValueError for points without as many labels, and for no prompt at all.
        """
        if (points is None and boxes is None) or (0 if points is None else len(points)) != (
            0 if labels is None else len(labels)
        ):
            raise ValueError("a prompt is points with a label each, boxes, or both")
        corners = None if boxes is None else self._tensor(self.transform.apply_boxes(boxes, embedded.size))
        count = 1 if corners is None else len(corners)
        if not count:
            nothing = torch.zeros(0, 3 if multimask else 1, *embedded.size, device=self.device)
            return nothing.bool(), nothing[..., 0, 0]
        pair = None
        if points is not None:
            coordinates = self._tensor(self.transform.apply_coords(points, embedded.size))
            marks = torch.as_tensor(np.asarray(labels), dtype=torch.int, device=self.device)
            pair = coordinates.expand(count, -1, -1), marks.expand(count, -1)
        sparse, dense = self.sam.prompt_encoder(points=pair, boxes=corners, masks=None)
        positions = self.sam.prompt_encoder.get_dense_pe()
        masks, scores = [], []
        for few in sparse.split(self.prompts_per_batch(sparse.shape[1], embedded.size)):
            with self.autocast():
                low, score = self.sam.mask_decoder(
                    embedded.features[None], positions, few, dense[: len(few)], multimask
                )
            masks.append(self.upscale(low.float(), embedded) > self.sam.mask_threshold)
            scores.append(score.float())
        return torch.cat(masks), torch.cat(scores)

    def propose(self, frames: Sequence[np.ndarray], options: ProposalOptions) -> list[list[dict[str, Any]]]:
        """Implements Segmenter.propose, by sam_proposals.generate_proposals."""
        return generate_proposals(self, frames, options)

    def upscale(self, low: Tensor, embedded: ImageEmbedding) -> Tensor:
        """Low-resolution logits (..., h, w) to the frame's pixels, (..., H, W): `Sam.postprocess_masks` in one step.

        Its two bilinear scalings and the crop between them are linear and act on each axis alone, so they make one
        matrix for the rows and one for the columns.
        """
        padded = self.sam.image_encoder.img_size
        rows, columns = (
            scaling(low.shape[axis], padded, embedded.scaled[axis], embedded.size[axis], low.device)
            for axis in (-2, -1)
        )
        return rows @ low @ columns.T

    def _tensor(self, coordinates: np.ndarray) -> Tensor:
        return torch.as_tensor(coordinates, dtype=torch.float32, device=self.device)

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.transform.get_preprocess_shape(*size, self.transform.target_length)

    def _prepare(self, frames: Sequence[np.ndarray]) -> Tensor:
        # Pillow scales without holding the interpreter's lock; one frame takes it about as long as a GPU an encoding.
        with ThreadPoolExecutor() as pool:
            scaled = list(pool.map(self.transform.apply_image, frames))
        moved = [to_device(torch.from_numpy(frame), self.device).permute(2, 0, 1) for frame in scaled]
        return torch.stack([self.sam.preprocess(frame) for frame in moved])

    @property
    def images_per_batch(self) -> int:
        """Images to encode at a time: what a block makes of the tokens counts. Attention has the last quarter."""
        encoder = self.sam.image_encoder
        tokens, width = encoder.pos_embed.shape[1] * encoder.pos_embed.shape[2], encoder.pos_embed.shape[3]
        return self._fitting(16 * tokens * width)

    def prompts_per_batch(self, tokens: int, size: tuple[int, int] = (0, 0)) -> int:
        """Prompts to decode at a time: image tokens, attention, upscaled channels and three masks of `size` count.

        tokens: of the encoded points and boxes of one prompt.
        """
        h, w = self.sam.prompt_encoder.image_embedding_size
        channels = self.sam.prompt_encoder.embed_dim
        heads = self.sam.mask_decoder.transformer.num_heads
        attention = 3 * heads * (1 + self.sam.mask_decoder.num_mask_tokens + tokens)
        return self._fitting(h * w * (14 * channels + attention) + 6 * size[0] * size[1])

    def _fitting(self, floats: int) -> int:
        """How many of what takes so many numbers fit into a batch, at least one."""
        memory = min(self.memory, CPU_BATCH) if self.device.type == "cpu" else self.memory
        return max(1, memory * 3 // 4 // (4 * floats))


@lru_cache(maxsize=64)
def scaling(low: int, padded: int, scaled: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """(size, low): one axis of low-resolution logits to `padded`, cropped to `scaled`, then to `size` pixels."""
    identity = torch.eye(low)[None]
    fine = F.interpolate(identity, padded, mode="linear", align_corners=False)[..., :scaled]
    return F.interpolate(fine, size, mode="linear", align_corners=False)[0].T.contiguous().to(device)


def _checked(frame: np.ndarray) -> np.ndarray:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"a frame is (H, W, 3) uint8 RGB, not {frame.shape} {frame.dtype}")
    return frame


def _size(frame: np.ndarray) -> tuple[int, int]:
    return frame.shape[0], frame.shape[1]


def _parameters(sam: Sam, precision: Precision, compiled: bool) -> dict[str, Any]:
    """What the numbers depend on beside the frame, as part of a cache's address."""
    encoder = sam.image_encoder
    return {
        "version": VERSION,
        "weights": weights_hash(sam),
        "image_size": encoder.img_size,
        "heads": [encoder.blocks[0].attn.num_heads, sam.mask_decoder.transformer.num_heads],
        "windows": [block.window_size for block in encoder.blocks],
        "colours": [*sam.pixel_mean.flatten().tolist(), *sam.pixel_std.flatten().tolist()],
        "precision": f"{precision}, compiled" if compiled else precision,
        "device": torch.device(sam.device).type,  # rounding differs
    }
