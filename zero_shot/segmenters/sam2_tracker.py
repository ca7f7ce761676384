"""Masks carried from one frame of a video through the others, by the memory of SAM 2.1, EdgeTAM or SAM 3's tracker.

The computation is that of transformers' inference session. Here its feature maps come from the segmenter, which caches
them. Both directions start from the prompted frame alone, so that neither changes the other, and what a later frame
cannot need is dropped, so that memory does not grow with the video. Carried masks are cached, so that another threshold
runs no network.
Source: transformers, `models/sam2_video/modeling_sam2_video.py`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.cache import Cache, content_hash, get_or_compute, weights_hash
from zero_shot.segmenters.proposals import MASK_THRESHOLD
from zero_shot.segmenters.sam2 import FeatureMaps, Sam2Segmenter, plain_config, upscale
from zero_shot.segmenters.sam2_families import Family

CACHE_VERSION = 1  # increase when a change here alters the carried masks


class MaskTracker:
    """Carries masks through the frames of a video, each as an object of its own.

    Args:
        segmenter: with a network of a class that tracks. Tracking runs in float32; the frames are encoded in the
            segmenter's precision.
        family: of the network.
    """

    def __init__(self, segmenter: Sam2Segmenter, family: Family) -> None:
        import transformers

        self.segmenter, self.model = segmenter, segmenter.network
        self.session_class = getattr(transformers, family.session)
        config = self.model.config
        self.history = max(config.num_maskmem, config.max_object_pointers_in_encoder)
        self.cache = None
        if segmenter.cache:
            memory = {"video": weights_hash(self.model), "config": plain_config(config), "tracks": CACHE_VERSION}
            self.cache = Cache(segmenter.cache, "tracks", {**segmenter.parameters, **memory})

    def carry(
        self, frames: Sequence[np.ndarray], pivot: int, masks: np.ndarray, *, backward: bool = True
    ) -> np.ndarray:
        """Carry the masks of a frame through the others.

        Args:
            frames: N frames (H, W, 3) uint8 RGB of one size.
            pivot: index of the frame that the masks belong to.
            masks: of K objects, (K, H, W) bool.
            backward: also carry them to the frames before the pivot.

        Returns:
            Masks (N, K, H, W) bool. Those of the pivot are the ones given; without `backward`, those of the frames
            before it are empty.
        """
        shape = (len(frames), *masks.shape)
        if not len(masks):
            return np.zeros(shape, bool)

        def compute(indices: list[int]) -> list[dict[str, Tensor]]:
            carried = np.zeros(shape, bool)
            carried[pivot] = masks
            for direction in [range(pivot + 1, len(frames))] + ([range(pivot - 1, -1, -1)] if backward else []):
                for index, found in self._propagate(frames, pivot, masks, direction):
                    carried[index] = found
            return [{"masks": torch.from_numpy(np.packbits(carried))}]

        content = content_hash(np.stack(frames)) + content_hash(masks) if self.cache else ""
        address = hashlib.sha256(f"{content} {pivot} {backward}".encode()).hexdigest()
        (entry,) = get_or_compute(self.cache, [address], compute, 1)
        return np.unpackbits(entry["masks"].numpy(), count=int(np.prod(shape))).reshape(shape).astype(bool)

    @torch.inference_mode()
    def _propagate(
        self, frames: Sequence[np.ndarray], pivot: int, masks: np.ndarray, indices: range
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The masks (K, H, W) bool of each of the frames at `indices`, which lead away from the pivot."""
        if not len(indices):
            return
        session = self._start(frames, pivot, masks)
        for index in indices:
            self._provide(session, frames, index)
            output = self.model(inference_session=session, frame_idx=index, reverse=indices.step < 0)
            logits = upscale(output.pred_masks.float(), masks.shape[1:])
            yield index, (logits[:, 0] > MASK_THRESHOLD).cpu().numpy()
            self._forget(session, index - self.history * indices.step)

    def _start(self, frames: Sequence[np.ndarray], pivot: int, masks: np.ndarray) -> Any:
        """A session in which the masks are prompts of the pivot."""
        device, side = self.segmenter.device, self.segmenter.image_size
        session = self.session_class(
            video_height=masks.shape[1],
            video_width=masks.shape[2],
            inference_device=device,
            inference_state_device=device,
            dtype=torch.float32,
        )
        session.processed_frames = dict.fromkeys(range(len(frames)))  # it only counts them
        pixels = torch.as_tensor(masks, dtype=torch.float32, device=device)[:, None]
        scaled = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True) >= 0.5
        for number, mask in enumerate(scaled):
            session.add_mask_inputs(session.obj_id_to_idx(number), pivot, mask[None].float())
        session.obj_with_new_inputs = list(range(len(masks)))
        self._provide(session, frames, pivot)
        self.model(inference_session=session, frame_idx=pivot)
        return session

    def _provide(self, session: Any, frames: Sequence[np.ndarray], index: int) -> None:
        """Put the feature maps of a frame into the session, as its cache holds them."""
        (embedding,) = self.segmenter.embed([frames[index]])
        maps = [part[None].float() for part in embedding.maps]
        features = {"vision_feats": [_flat(part) for part in maps], "vision_pos_embeds": self._positions(embedding)}
        session.cache.cache_vision_features(index, features)

    def _positions(self, embedding: FeatureMaps) -> list[Tensor]:
        """The positional encoding of the coarsest map, the only one that tracking reads, (h·w, 1, C)."""
        coarse = embedding.maps[-1]
        encoding = self.model.vision_encoder.neck.position_encoding
        return [_flat(encoding((1, *coarse.shape), coarse.device, torch.float32))]

    def _forget(self, session: Any, oldest: int) -> None:
        """Drop what no later frame reads: masks at full size, and the frame at `oldest`."""
        for outputs in session.output_dict_per_obj.values():
            for kind in outputs.values():
                for output in kind.values():
                    output.pop("high_res_masks", None)
            outputs["non_cond_frame_outputs"].pop(oldest, None)


def _flat(part: Tensor) -> Tensor:
    """(1, C, h, w) as (h·w, 1, C)."""
    return part.flatten(2).permute(2, 0, 1)
