"""SAM 3, which segments every instance of what a text names, by the `transformers` package (an optional extra).

Its presence score says whether a frame shows the named thing at all.
Source: Meta's SAM 3 (2025), as in transformers, `models/sam3`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.memo import NO_MEMO
from zero_shot.segmenters.base import validate_frame
from zero_shot.transformers_folder import load_folder


@dataclass(frozen=True, eq=False)
class Instances:
    """What SAM 3 finds in a frame for one text.

    Attributes:
        masks: (K, H, W) bool.
        boxes: (K, 4) float32: left, top, right, bottom in pixels of the frame.
        scores: (K,) float32 in [0, 1], of the instance and the presence together.
        presence: in [0, 1], how sure it is that the frame shows the named thing.
    """

    masks: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    presence: float


class Sam3Detector:
    """SAM 3 with its processor.

    Args:
        folder: as transformers' save_pretrained writes it; a folder of SAM 3 for videos serves too.
        device: where it runs.

    Raises:
        InputError: if the package, the folder or a part of it is missing or does not fit.
    """

    memo = NO_MEMO

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        parts: dict[str, dict[str, str]] = {"Sam3Processor": {}}
        model, (self.processor,) = load_folder(Path(folder), "sam3", "Sam3Model", parts, ["sam3_video"])
        self.model = model.to(self.device)

    @torch.inference_mode()
    def find(self, frame: np.ndarray, texts: Sequence[str], threshold: float, min_presence: float) -> list[Instances]:
        """Find what each text names; the frame is encoded once.

        Args:
            frame: (H, W, 3) uint8 RGB.
            texts: what to find.
            threshold: minimum score of an instance.
            min_presence: of a presence below it, no instance counts.

        Raises:
            ValueError: for a frame of another shape or type.
        """
        if not texts:
            return []
        size = validate_frame(frame).shape[:2]
        encoded = self.memo("sam3", None, [frame], lambda: self._encode(frame))
        return [self._find(encoded, text, size, threshold, min_presence) for text in texts]

    @torch.inference_mode()
    def forward(self, frame: np.ndarray, text: str) -> Any:
        """The network's output for one text, before its post-processing."""
        return self._decode(self._encode(validate_frame(frame)), text)

    def _encode(self, frame: np.ndarray) -> Any:
        pixels = self.processor(images=frame, return_tensors="pt")["pixel_values"].to(self.device)
        return self.model.get_vision_features(pixel_values=pixels)

    def _decode(self, encoded: object, text: str) -> Any:
        tokens = self.processor(text=text, return_tensors="pt").to(self.device)
        return self.model(vision_embeds=encoded, input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])

    def _find(
        self, encoded: object, text: str, size: tuple[int, int], threshold: float, min_presence: float
    ) -> Instances:
        output = self._decode(encoded, text)
        presence = float(output.presence_logits.sigmoid())
        (found,) = self.processor.post_process_instance_segmentation(
            output, threshold=threshold if presence >= min_presence else float("inf"), target_sizes=[size]
        )
        masks = found["masks"].bool().reshape(-1, *size)
        return Instances(
            masks.cpu().numpy(), found["boxes"].float().cpu().numpy(), found["scores"].float().cpu().numpy(), presence
        )
