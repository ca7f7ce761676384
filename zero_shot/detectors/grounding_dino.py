"""GroundingDINO and MM-GroundingDINO, open-vocabulary detectors, by the `transformers` package (an optional extra).

The study loads `groundingdino_swinb_cogcoor.pth` (Swin-B) in the format of GroundingDINO's own code, which is not
supported here. The closest model in transformers' format is `IDEA-Research/grounding-dino-base`; we have not verified
that it has the same weights and gives the same numbers. Source: Sam4AVS, `zero_shot/*/box_prompt.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_convert

from utils.memo import NO_MEMO
from zero_shot.transformers_folder import load_folder, read_model_type

NETWORKS = {  # classes of transformers by model_type
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}


class GroundingDinoDetector:
    """GroundingDINO or MM-GroundingDINO, which detect boxes for a caption.

    Args:
        folder: of the model, as transformers saves it; preprocessor_config.json has its input size (shorter side 800
            pixels, longer side at most 1333).
        device: where it runs.

    Raises:
        InputError: if the package, the folder or a part of it is missing or does not fit.
    """

    memo = NO_MEMO

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        # PIL's resizing, as in the original; torchvision's differs by one gray level in places.
        parts: dict[str, dict[str, str]] = {"AutoImageProcessor": {"backend": "pil"}, "AutoTokenizer": {}}
        found = read_model_type(Path(folder), "grounding-dino")
        model_type = found if found in NETWORKS else "grounding-dino"
        model, (self.image_processor, self.tokenizer) = load_folder(
            Path(folder), model_type, NETWORKS[model_type], parts
        )
        self.model = model.to(self.device)

    def detect(self, frame: np.ndarray, caption: str, threshold: float = 0.3) -> np.ndarray:
        """The boxes of `detect_with_scores`."""
        return self.detect_with_scores(frame, caption, threshold)[0]

    def detect_with_scores(
        self, frame: np.ndarray, caption: str, threshold: float = 0.3
    ) -> tuple[np.ndarray, np.ndarray]:
        """Detect what the caption names.

        Args:
            frame: (H, W, 3) uint8 RGB.
            caption: text; converted to lower case and terminated by a period.
            threshold: boxes whose highest probability over the words of the caption exceeds it are kept.

        Returns:
            Boxes (K, 4) float32: left, top, right, bottom in pixels of the frame; and their highest probabilities (K,).

        Raises:
            ValueError: for a frame of another shape or type, or a caption without words.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"expected a frame (H, W, 3) of uint8, got {frame.shape} of {frame.dtype}")
        if not caption.strip(" ."):
            raise ValueError("the caption has no words")
        scores, boxes = self.memo("detections", caption, [frame], lambda: self._detect(frame, caption))
        height, width = frame.shape[:2]
        keep = scores > threshold
        kept = box_convert(boxes[keep], "cxcywh", "xyxy")
        return (kept * torch.tensor([width, height, width, height])).numpy(), scores[keep].float().numpy()

    @torch.inference_mode()
    def _detect(self, frame: np.ndarray, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (K,) and boxes (K, 4) of all detections: center, width and height, as fractions of the frame."""
        output = self.forward(frame, caption)
        return output.logits[0].sigmoid().amax(dim=1).cpu(), output.pred_boxes[0].float().cpu()

    @torch.inference_mode()
    def forward(self, frame: np.ndarray, caption: str) -> Any:
        """The network's output for the arguments of `detect`.

        Returns:
            transformers' output: logits (1, queries, tokens), and pred_boxes (1, queries, 4), center and size relative
            to the frame.
        """
        tokens = self.tokenizer([format_caption(caption)], return_tensors="pt", return_token_type_ids=True)
        pixels = self.image_processor(images=frame, input_data_format="channels_last", return_tensors="pt")
        return self.model(**{name: part.to(self.device) for name, part in {**pixels, **tokens}.items()})


def format_caption(text: str) -> str:
    """A caption as in GroundingDINO's training: lower case, stripped, terminated by one period."""
    text = text.lower().strip()
    return text if text.endswith(".") else text + "."
