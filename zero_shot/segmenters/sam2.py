"""SAM 2.1, EdgeTAM and SAM 3's tracker, prompted by points and boxes, by the `transformers` package (an extra).

The three families share their interface there: a frame becomes three feature maps, and a mask decoder like SAM's turns
them and a prompt into masks. Frames are encoded in batches, and their maps are cached in float16, which halves the
16.8 MB that they take at the published size; without a cache they are rounded in the same way.
Source: Ravi et al., "SAM 2" (2024), arXiv 2408.00714; transformers, `models/sam2/modeling_sam2.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.cache import content_hash, get_or_compute, weights_hash
from utils.cli import InputError
from utils.device import Precision, items_per_batch, to_device
from zero_shot.options import Options
from zero_shot.segmenters.base import frame_size, validate_frame
from zero_shot.segmenters.network import NetworkSegmenter
from zero_shot.segmenters.proposals import DecodedPoints
from zero_shot.segmenters.sam2_decoder import FastSam2Decoder, shortcuts_hold
from zero_shot.segmenters.sam2_families import load_network
from zero_shot.segmenters.sam_decoder import Decoded

CACHE_VERSION = 1  # increase when a change here alters the numbers in the cache
POINT_TOKENS = 2  # tokens of a point prompt: the point and its padding
BOX_TOKENS = 3  # tokens of a box prompt: two corners and their padding
UNHASHED = ("_name_or_path", "architectures", "dtype", "transformers_version")  # entries of a configuration


@dataclass(frozen=True)
class FeatureMaps:
    """An encoded frame.

    Attributes:
        maps: feature maps (C, h, w) float16, the finest first, without the embedding that stands for "no memory".
        size: (H, W) of the frame in pixels.
        content: hash of its pixels.
    """

    maps: tuple[Tensor, ...]
    size: tuple[int, int]
    content: str


class Sam2Segmenter(NetworkSegmenter):
    """A network of the SAM 2 family with its cache and its memory budget; implements Segmenter and PointDecoder.

    Args:
        model: the network, of a class for images or for videos; computation runs on its device.
        image_processor: scales and normalizes frames, as saved with the network.
        cache: folder of cached feature maps and proposals; None caches nothing.
        precision: bf16 runs the encoder and the mask decoder under autocast; prompts and masks stay in float32.
        memory_mib: memory of a batch of frames or prompts in MiB, in addition to the weights (a batch has at least
            one); 0 uses a fraction of what is free on the device.
    """

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        *,
        cache: Path | None = None,
        precision: Precision = "fp32",
        memory_mib: int = 0,
    ) -> None:
        parameters = _cache_parameters(model, image_processor, precision) if cache else {}
        super().__init__(model, parameters, cache=cache, precision=precision, memory_mib=memory_mib)
        self.image_processor = image_processor

    @property
    def image_size(self) -> int:
        """Side of the network's square input in pixels."""
        return int(self.network.prompt_encoder.input_image_size)

    @torch.no_grad()
    def embed(self, frames: Sequence[np.ndarray]) -> list[FeatureMaps]:
        """Implements Segmenter.embed. Equal frames are encoded once."""
        contents = [content_hash(validate_frame(frame)) for frame in frames]

        def features(indices: list[int]) -> list[dict[str, Tensor]]:
            images = self._preprocess([frames[index] for index in indices])
            with self.autocast():
                flat = self.network.get_image_features(images, return_dict=True).fpn_hidden_states
            # SAM 3's encoder has a fourth map, which its image class does not drop.
            sizes = self.network.backbone_feature_sizes
            maps = [part.permute(1, 2, 0).unflatten(2, tuple(size)) for part, size in zip(flat, sizes, strict=False)]
            return [
                {f"map{level}": part[image].to(torch.float16) for level, part in enumerate(maps)}
                for image in range(len(indices))
            ]

        found = get_or_compute(self.embeddings, contents, features, self.images_per_batch)
        return [
            FeatureMaps(
                tuple(to_device(entry[f"map{level}"], self.device) for level in range(len(entry))),
                frame_size(frame),
                content,
            )
            for entry, frame, content in zip(found, frames, contents, strict=True)
        ]

    def decode_batches(
        self,
        embedding: FeatureMaps,
        points: np.ndarray | None,
        labels: np.ndarray | None,
        boxes: np.ndarray | None,
        multimask: bool,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Implements NetworkSegmenter.decode_batches."""
        count = 1 if boxes is None else len(boxes)
        prompt: dict[str, Tensor | None] = {"input_points": None, "input_labels": None, "input_boxes": None}
        tokens = 0
        if points is not None:
            classes = torch.as_tensor(np.asarray(labels), dtype=torch.int, device=self.device)
            prompt["input_points"] = self._scale(points, embedding.size).expand(1, count, -1, -1)
            prompt["input_labels"] = classes.expand(1, count, -1)
            tokens += len(points) + 1
        if boxes is not None:
            prompt["input_boxes"] = self._scale(boxes, embedding.size)[None]
            tokens += BOX_TOKENS
        yield from self._decode(embedding, prompt, self.prompts_per_batch(tokens, embedding.size), multimask)

    def decode_points(self, embedding: FeatureMaps, points: np.ndarray) -> Iterator[DecodedPoints]:
        """Implements PointDecoder.decode_points: by `FastSam2Decoder`, or in batches of the network's own decoder."""
        prompt = {
            "input_points": self._scale(points, embedding.size)[None, :, None],
            "input_labels": torch.ones(1, len(points), 1, dtype=torch.int, device=self.device),
            "input_boxes": None,
        }
        batch = self.prompts_per_batch(POINT_TOKENS, embedding.size)
        if shortcuts_hold(self.network.mask_decoder):
            yield from self._decode_fast(embedding, prompt, batch)
            return

        def chosen(logits: Tensor, prompts: Tensor, outputs: Tensor) -> Tensor:
            return upscale(logits[prompts, outputs][:, None], embedding.size)[:, 0]

        first = 0
        for logits, scores in self._decode(embedding, prompt, batch):
            yield DecodedPoints(first, scores, partial(chosen, logits))
            first += len(scores)

    def _decode_fast(
        self, embedding: FeatureMaps, prompt: dict[str, Tensor | None], batch: int
    ) -> Iterator[DecodedPoints]:
        """As `decode_points`, by `FastSam2Decoder`."""
        encoder, decoder = self.network.prompt_encoder, FastSam2Decoder(self.network.mask_decoder, self.autocast)
        sparse, _ = encoder(**prompt, input_masks=None)
        fine, coarse = self._maps(embedding)
        positions = self.network.get_image_wide_positional_embeddings()
        image = decoder.share_maps(coarse, fine, encoder.no_mask_embed.weight[0], positions)

        def logits(decoded: Decoded, prompts: Tensor, outputs: Tensor) -> Tensor:
            return upscale(decoder.masks(image, decoded, prompts, outputs + 1)[:, None], embedding.size)[:, 0]

        for decoded in decoder.decode(image, sparse[0], batch):
            yield DecodedPoints(decoded.first, decoded.iou[:, 1:], partial(logits, decoded))

    def _maps(self, embedding: FeatureMaps) -> tuple[list[Tensor], Tensor]:
        """The finer maps (C, h, w), and the coarsest with the embedding that stands for "no memory", in float32."""
        *fine, coarse = (part.float() for part in embedding.maps)
        return fine, coarse + self.network.no_memory_embedding.view(-1, 1, 1)

    def _decode(
        self, embedding: FeatureMaps, prompt: dict[str, Tensor | None], batch: int, multimask: bool = True
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Low-resolution logits (P, 3 or 1, h, w) and predicted IoU (P, 3 or 1) float32, `batch` prompts at a time."""
        model = self.network
        sparse, dense = model.prompt_encoder(**prompt, input_masks=None)
        fine, coarse = self._maps(embedding)
        positions = model.get_image_wide_positional_embeddings()
        for part in sparse.split(batch, dim=1):
            with self.autocast():
                logits, scores, *_ = model.mask_decoder(
                    image_embeddings=coarse[None],
                    image_positional_embeddings=positions,
                    sparse_prompt_embeddings=part,
                    dense_prompt_embeddings=dense,
                    multimask_output=multimask,
                    high_resolution_features=[part[None] for part in fine],
                )
            yield logits[0].float(), scores[0].float()

    def upscale(self, logits: Tensor, embedding: FeatureMaps) -> Tensor:
        """Implements NetworkSegmenter.upscale."""
        return upscale(logits, embedding.size)

    def _scale(self, coordinates: np.ndarray, size: tuple[int, int]) -> Tensor:
        """Points (N, 2) or boxes (K, 4) in pixels of a frame of `size`, in pixels of the network's input."""
        pairs = torch.as_tensor(np.asarray(coordinates, np.float32), device=self.device).unflatten(1, (-1, 2))
        scale = torch.tensor([self.image_size / size[1], self.image_size / size[0]], device=self.device)
        return (pairs * scale).flatten(1)

    def _preprocess(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Frames of any sizes as the network's input (B, 3, S, S)."""
        moved = [to_device(torch.from_numpy(frame), self.device).permute(2, 0, 1) for frame in frames]
        images = [self.image_processor(each, return_tensors="pt")["pixel_values"] for each in moved]
        return torch.cat(images).to(self.device)

    @property
    def images_per_batch(self) -> int:
        """Frames encoded at once, by the finest feature maps of the encoder and its neck."""
        vision = self.network.config.vision_config
        height, width = vision.backbone_feature_sizes[0]
        return items_per_batch(self.device, self.memory, 6 * height * width * vision.fpn_hidden_size)

    def prompts_per_batch(self, tokens: int, size: tuple[int, int]) -> int:
        """Prompts decoded at once, by image tokens, attention, upscaled channels and three masks of `size`.

        Args:
            tokens: of the encoded points and boxes of one prompt.
            size: (H, W) of the frame.
        """
        decoder = self.network.mask_decoder
        height, width = self.network.prompt_encoder.image_embedding_size
        attention = 3 * decoder.config.num_attention_heads * (2 + decoder.num_mask_tokens + tokens)
        floats = height * width * (14 * decoder.hidden_size + attention) + 6 * size[0] * size[1]
        return items_per_batch(self.device, self.memory, floats)


def build_sam2_segmenter(options: Options, device: torch.device, cache: Path | None) -> Sam2Segmenter:
    """Build the network that `segmenter` and `sam2.weights` name; of the class that tracks if it has to.

    Raises:
        InputError: if the transformers package or the folder is missing, or the folder does not fit.
    """
    run = options.run
    if run.compile:
        raise InputError(f"run.compile is for segmenter sam; segmenter {options.segmenter} is not compiled")
    tracks = options.track != "none" and options.tracking.weights is None
    model, processor = load_network(options.sam2.folder(options.segmenter), options.segmenter, tracks=tracks)
    return Sam2Segmenter(model.to(device), processor, cache=cache, precision=run.precision, memory_mib=run.memory_mib)


def upscale(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Low-resolution logits (P, C, h, w) at the frame's size, (P, C, H, W); frames are scaled without padding."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def _cache_parameters(model: Any, image_processor: Any, precision: Precision) -> dict[str, Any]:
    """What feature maps and proposals depend on besides the frame: the same for the two classes of a network."""
    parts = (model.vision_encoder, model.shared_image_embedding, model.prompt_encoder, model.mask_decoder)
    used = nn.ModuleList([*parts, nn.ParameterList([model.no_memory_embedding])])
    return {
        "version": CACHE_VERSION,
        "network": type(model.vision_encoder).__name__,
        "weights": weights_hash(used),
        "vision": plain_config(model.config.vision_config),
        "heads": model.mask_decoder.config.num_attention_heads,
        "image_size": model.prompt_encoder.input_image_size,
        "image_processor": plain_config(image_processor),
        "precision": precision,
        "device": torch.device(model.device).type,  # rounding differs
    }


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration of transformers as plain data, without what changes no number."""

    def plain(entries: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in entries.items() if name not in UNHASHED}
        return {name: plain(value) if isinstance(value, dict) else value for name, value in kept.items()}

    return plain(config.to_dict())
