"""GroundingDINO, which finds boxes for words, by the `transformers` package (an optional extra).

The study loads `groundingdino_swinb_cogcoor.pth` (Swin-B) in the format of GroundingDINO's own code, which is not read
here. The nearest in transformers' format is `IDEA-Research/grounding-dino-base`; whether it holds those very weights and
gives the same numbers has not been verified. Source: Sam4AVS, `zero_shot/*/box_prompt.py`.
"""

from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_convert

from zero_shot.transformers_folder import load_folder


class GroundingDinoDetector:
    """GroundingDINO, which finds boxes for words.

    Args:
        folder: of the detector; its preprocessor_config.json has the size at which it sees frames (shorter side
            800 pixels, longer at most 1333).
        device: where it runs.

    Raises:
        InputError: the package, the folder or a part of it is missing or of another kind.
    """

    def __init__(self, folder: Path | str, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        # PIL's resizing, as in the original; torchvision's differs by a grey level here and there.
        parts: dict[str, dict[str, str]] = {"AutoImageProcessor": {"backend": "pil"}, "AutoTokenizer": {}}
        network = "GroundingDinoForObjectDetection"
        model, (self.image_processor, self.tokenizer) = load_folder(Path(folder), "grounding-dino", network, parts)
        self.model = model.to(self.device)

    @torch.inference_mode()
    def detect(self, frame: np.ndarray, caption: str, threshold: float = 0.3) -> np.ndarray:
        """Boxes (K, 4) float32 of what the caption names: left, top, right, bottom in pixels of the frame.

        frame: (H, W, 3) uint8 RGB. caption: put in lower case and ended by a full stop first. A box is kept if the
        probability of any word exceeds `threshold`. Raises ValueError on another frame or a caption without words.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"expected a frame (H, W, 3) of uint8, got {frame.shape} of {frame.dtype}")
        if not caption.strip(" ."):
            raise ValueError("the caption has no words")
        tokens = self.tokenizer([as_caption(caption)], return_tensors="pt", return_token_type_ids=True)
        pixels = self.image_processor(images=frame, input_data_format="channels_last", return_tensors="pt")
        found = self.model(**{name: part.to(self.device) for name, part in {**pixels, **tokens}.items()})
        likely = found.logits[0].sigmoid().amax(dim=1) > threshold
        height, width = frame.shape[:2]
        corners = box_convert(found.pred_boxes[0][likely].float().cpu(), "cxcywh", "xyxy")
        return (corners * torch.tensor([width, height, width, height])).numpy()


def as_caption(words: str) -> str:
    """Words as GroundingDINO was trained to read them: lower case, trimmed, ended by one full stop."""
    words = words.lower().strip()
    return words if words.endswith(".") else words + "."
