"""SAM prompted by points and boxes: the outputs of `SamPredictor`, for many frames and prompts at a time.

Frames are encoded in batches, and their embeddings are cached.
Source: segment-anything, `predictor.py` and `modeling/sam.py`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

from models.registry import create_model
from utils.cache import content_hash, get_or_compute, weights_hash
from utils.device import Precision, items_per_batch, to_device
from zero_shot.options import Options
from zero_shot.segmenters.base import frame_size, validate_frame
from zero_shot.segmenters.network import NetworkSegmenter
from zero_shot.segmenters.proposals import DecodedPoints
from zero_shot.segmenters.sam_decoder import Decoded, FastDecoder
from zero_shot.segmenters.sam_encoder import compiled_block, encode, encode_block

CACHE_VERSION = 1  # increase when a change here alters the numbers in the cache
POINT_TOKENS = 2  # tokens of a point prompt: the point and its padding


@dataclass(frozen=True)
class ImageEmbedding:
    """An encoded frame.

    Attributes:
        features: (C, h, w) float32.
        size: (H, W) of the frame in pixels.
        scaled: its size as SAM's input, before padding.
        content: hash of its pixels.
    """

    features: Tensor
    size: tuple[int, int]
    scaled: tuple[int, int]
    content: str


class SamSegmenter(NetworkSegmenter):
    """SAM with its cache and its memory budget; implements Segmenter.

    Args:
        sam: the network; computation runs on its device.
        cache: folder of cached embeddings and proposals; None caches nothing.
        precision: bf16 runs the encoder and the mask decoder under autocast; prompts and masks stay in float32. For
            tf32 call utils.device.set_matmul_precision.
        memory_mib: memory of a batch of frames or prompts in MiB, in addition to the weights (a batch has at least
            one); 0 uses a fraction of what is free on the device.
        compiled: compile the encoder's blocks with torch.compile, on first use.
    """

    network: Sam

    def __init__(
        self,
        sam: Sam,
        *,
        cache: Path | None = None,
        precision: Precision = "fp32",
        memory_mib: int = 0,
        compiled: bool = False,
    ) -> None:
        parameters = _cache_parameters(sam, precision, compiled) if cache else {}
        super().__init__(sam, parameters, cache=cache, precision=precision, memory_mib=memory_mib)
        self.block = compiled_block() if compiled else encode_block
        self.transform = ResizeLongestSide(sam.image_encoder.img_size)

    @torch.no_grad()
    def embed(self, frames: Sequence[np.ndarray]) -> list[ImageEmbedding]:
        """Implements Segmenter.embed. Equal frames are encoded once."""
        contents = [content_hash(validate_frame(frame)) for frame in frames]

        def features(indices: list[int]) -> list[dict[str, Tensor]]:
            images = self._preprocess([frames[index] for index in indices])
            with self.autocast():
                encoded = encode(self.network.image_encoder, images, self.memory // 4, self.block).float()
            return [{"features": feature} for feature in encoded]

        found = get_or_compute(self.embeddings, contents, features, self.images_per_batch)
        return [
            ImageEmbedding(
                to_device(entry["features"], self.device), frame_size(frame), self._scaled(frame_size(frame)), content
            )
            for entry, frame, content in zip(found, frames, contents, strict=True)
        ]

    def decode_batches(
        self,
        embedding: ImageEmbedding,
        points: np.ndarray | None,
        labels: np.ndarray | None,
        boxes: np.ndarray | None,
        multimask: bool,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Implements NetworkSegmenter.decode_batches."""
        corners = None if boxes is None else self._tensor(self.transform.apply_boxes(boxes, embedding.size))
        count = 1 if corners is None else len(corners)
        labeled_points = None
        if points is not None:
            coordinates = self._tensor(self.transform.apply_coords(points, embedding.size))
            classes = torch.as_tensor(np.asarray(labels), dtype=torch.int, device=self.device)
            labeled_points = coordinates.expand(count, -1, -1), classes.expand(count, -1)
        sparse, dense = self.network.prompt_encoder(points=labeled_points, boxes=corners, masks=None)
        positions = self.network.prompt_encoder.get_dense_pe()
        for batch in sparse.split(self.prompts_per_batch(sparse.shape[1], embedding.size)):
            with self.autocast():
                logits, score = self.network.mask_decoder(
                    embedding.features[None], positions, batch, dense[: len(batch)], multimask
                )
            yield logits.float(), score.float()

    def decode_points(self, embedding: ImageEmbedding, points: np.ndarray) -> Iterator[DecodedPoints]:
        """Implements PointDecoder.decode_points, by `FastDecoder`."""
        encoder, decoder = self.network.prompt_encoder, FastDecoder(self.network.mask_decoder, self.autocast)
        # In float64 up to the positional encoding, as in SamAutomaticMaskGenerator.
        coordinates = torch.as_tensor(self.transform.apply_coords(points, embedding.size), device=self.device)
        labels = torch.ones(len(points), 1, dtype=torch.int, device=self.device)
        sparse, _ = encoder(points=(coordinates[:, None], labels), boxes=None, masks=None)
        image = decoder.share(embedding.features, encoder.no_mask_embed.weight[0], encoder.get_dense_pe())

        def logits(decoded: Decoded, prompts: Tensor, outputs: Tensor) -> Tensor:
            return self.upscale(decoder.masks(image, decoded, prompts, outputs + 1), embedding)

        for decoded in decoder.decode(image, sparse, self.prompts_per_batch(POINT_TOKENS, embedding.size)):
            yield DecodedPoints(decoded.first, decoded.iou[:, 1:], partial(logits, decoded))

    def upscale(self, logits: Tensor, embedding: ImageEmbedding) -> Tensor:
        """Low-resolution logits (..., h, w) at the frame's size, (..., H, W): `Sam.postprocess_masks` in one step.

        Its two bilinear resizings and the crop between them are linear and separable, so they combine into one matrix
        for the rows and one for the columns.
        """
        padded = self.network.image_encoder.img_size
        rows, columns = (
            upscale_matrix(logits.shape[axis], padded, embedding.scaled[axis], embedding.size[axis], logits.device)
            for axis in (-2, -1)
        )
        return rows @ logits @ columns.T

    def _tensor(self, coordinates: np.ndarray) -> Tensor:
        return torch.as_tensor(coordinates, dtype=torch.float32, device=self.device)

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.transform.get_preprocess_shape(*size, self.transform.target_length)

    def _preprocess(self, frames: Sequence[np.ndarray]) -> Tensor:
        # Pillow releases the GIL while resizing, which takes about as long as a GPU needs to encode a frame.
        with ThreadPoolExecutor() as pool:
            scaled = list(pool.map(self.transform.apply_image, frames))
        moved = [to_device(torch.from_numpy(frame), self.device).permute(2, 0, 1) for frame in scaled]
        return torch.stack([self.network.preprocess(frame) for frame in moved])

    @property
    def images_per_batch(self) -> int:
        """Frames encoded at once, by the activations of a block. Attention may use the last quarter of the budget."""
        encoder = self.network.image_encoder
        tokens, width = encoder.pos_embed.shape[1] * encoder.pos_embed.shape[2], encoder.pos_embed.shape[3]
        return items_per_batch(self.device, self.memory, 16 * tokens * width)

    def prompts_per_batch(self, tokens: int, size: tuple[int, int] = (0, 0)) -> int:
        """Prompts decoded at once, by image tokens, attention, upscaled channels and three masks of `size`.

        Args:
            tokens: of the encoded points and boxes of one prompt.
            size: (H, W) of the frame.
        """
        h, w = self.network.prompt_encoder.image_embedding_size
        channels = self.network.prompt_encoder.embed_dim
        heads = self.network.mask_decoder.transformer.num_heads
        attention = 3 * heads * (1 + self.network.mask_decoder.num_mask_tokens + tokens)
        floats = h * w * (14 * channels + attention) + 6 * size[0] * size[1]
        return items_per_batch(self.device, self.memory, floats)


def build_sam_segmenter(options: Options, device: torch.device, cache: Path | None) -> SamSegmenter:
    """Build SAM by the options.

    Raises:
        InputError: for a checkpoint that is missing or does not fit.
    """
    run = options.run
    sam = create_model(f"sam_{options.sam.model}", options.sam.checkpoint).to(device)
    return SamSegmenter(sam, cache=cache, precision=run.precision, memory_mib=run.memory_mib, compiled=run.compile)


@lru_cache(maxsize=64)
def upscale_matrix(logits: int, padded: int, scaled: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Matrix (size, logits) that resizes one axis of logits to `padded`, crops to `scaled` and resizes to `size`."""
    identity = torch.eye(logits)[None]
    fine = F.interpolate(identity, padded, mode="linear", align_corners=False)[..., :scaled]
    return F.interpolate(fine, size, mode="linear", align_corners=False)[0].T.contiguous().to(device)


def _cache_parameters(sam: Sam, precision: Precision, compiled: bool) -> dict[str, Any]:
    """What embeddings depend on besides the frame."""
    encoder = sam.image_encoder
    return {
        "version": CACHE_VERSION,
        "weights": weights_hash(sam),
        "image_size": encoder.img_size,
        "heads": [encoder.blocks[0].attn.num_heads, sam.mask_decoder.transformer.num_heads],
        "windows": [block.window_size for block in encoder.blocks],
        "colors": [*sam.pixel_mean.flatten().tolist(), *sam.pixel_std.flatten().tolist()],
        "precision": f"{precision}, compiled" if compiled else precision,
        "device": torch.device(sam.device).type,  # rounding differs
    }
