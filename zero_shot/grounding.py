"""Words for a sound, and boxes for words: CLAP and GroundingDINO, by the `transformers` package (an optional extra).

Each comes from a local folder in transformers' own format (config.json, safetensors, preprocessor_config.json and the
tokenizer's files); nothing is fetched at run time.

The study loads `630k-audioset-best.pt` (HTSAT-tiny and RoBERTa-base, without fusion) and
`groundingdino_swinb_cogcoor.pth` (Swin-B), in the formats of LAION-CLAP's and GroundingDINO's own code, which are not
read here. The nearest in transformers' format are `laion/clap-htsat-unfused` and `IDEA-Research/grounding-dino-base`;
whether they hold those very weights and give the same numbers has not been verified.
Source: Sam4AVS, `zero_shot/*/box_prompt.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert

from utils.cli import InputError
from utils.files import read_json

SAMPLE_RATE = 48_000  # Hz, CLAP's
MAX_TOKENS = 10  # seconds that CLAP hears; of a longer sound it would draw a random part
CHUNK = 32  # texts or sounds at once
EXTRA = "boxes from sounds need the transformers package: pip install .[grounding]"
FILES = ("config.json", "*.safetensors", "*processor_config.json", "tokenizer_config.json")
SOURCES = {"clap": "laion/clap-htsat-unfused", "grounding-dino": "IDEA-Research/grounding-dino-base"}
ELSEWHERE = ("auto_map", "backbone", "use_pretrained_backbone", "use_timm_backbone")  # would fetch code or weights


class ClapClassifier:
    """CLAP, which names sounds out of a list of labels.

    Args:
        folder: of a CLAP without fusion.
        labels: JSON file, a list of the names, which CLAP reads verbatim.
        device: where it runs.

    Raises:
        InputError: the package, the folder or a part of it is missing or of another kind, or the list is no list.
    """

    def __init__(self, folder: Path | str, labels: Path | str, device: torch.device | str = "cpu") -> None:
        self.labels, self.device = read_labels(Path(labels)), torch.device(device)
        parts: dict[str, dict[str, str]] = {"AutoFeatureExtractor": {}, "AutoTokenizer": {}}
        model, (self.hear, self.tokenize) = _load(Path(folder), "clap", "ClapModel", parts)
        self.model = model.to(self.device)
        if model.config.audio_config.enable_fusion:
            raise InputError(f"{folder}: a CLAP with fusion; the study's is without ({SOURCES['clap']})")
        if self.hear.sampling_rate != SAMPLE_RATE or self.hear.max_length_s != MAX_TOKENS:
            raise InputError(f"{folder}: its preprocessor_config.json is not for {MAX_TOKENS} s at {SAMPLE_RATE} Hz")
        self.texts = torch.cat([self._texts(self.labels[i : i + CHUNK]) for i in range(0, len(self.labels), CHUNK)])

    def classify(self, seconds: Tensor, top: int = 1) -> list[list[str]]:
        """The `top` names closest to each sound, the closest first.

        seconds: (N, samples) floats in [-1, 1] at 48 kHz, 10 s or less; repeated until they fill CLAP's 10 s.
        Raises InputError if `top` is not from 1 to the number of labels, ValueError on another shape, NaN or infinity.
        """
        if not 1 <= top <= len(self.labels):
            raise InputError(f"cannot take the {top} closest of {len(self.labels)} labels")
        closest = self.similarities(seconds).argsort(dim=1, descending=True, stable=True)[:, :top]
        return [[self.labels[index] for index in row] for row in closest.tolist()]

    def similarities(self, seconds: Tensor) -> Tensor:
        """Cosines (N, labels) of sounds, as `label` takes them, with all labels."""
        if seconds.ndim != 2 or not 0 < seconds.shape[1] <= MAX_TOKENS * SAMPLE_RATE:
            raise ValueError(f"expected sounds (N, samples) of {MAX_TOKENS} s or less, got {tuple(seconds.shape)}")
        if not seconds.isfinite().all():
            raise ValueError("sounds hold NaN or infinity")
        parts = [self._sounds(part) @ self.texts.T for part in seconds.split(CHUNK)] if len(seconds) else []
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.labels))

    @torch.inference_mode()
    def _sounds(self, seconds: Tensor) -> Tensor:
        heard = self.hear(
            list(seconds.float().cpu().numpy()),
            sampling_rate=SAMPLE_RATE,
            truncation="rand_trunc",  # the mel bands of CLAP without fusion; nothing is long enough to be cut
            padding="repeatpad",
            return_tensors="pt",
        )
        found = self.model.get_audio_features(heard["input_features"].float().to(self.device))
        return F.normalize(found.pooler_output, dim=1)

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenize(list(texts), padding=True, return_tensors="pt").to(self.device)
        found = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(found.pooler_output, dim=1)


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
        model, (self.see, self.tokenize) = _load(Path(folder), "grounding-dino", network, parts)
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
        tokens = self.tokenize([as_caption(caption)], return_tensors="pt", return_token_type_ids=True)
        pixels = self.see(images=frame, input_data_format="channels_last", return_tensors="pt")
        found = self.model(**{name: part.to(self.device) for name, part in {**pixels, **tokens}.items()})
        likely = found.logits[0].sigmoid().amax(dim=1) > threshold
        height, width = frame.shape[:2]
        corners = box_convert(found.pred_boxes[0][likely].float().cpu(), "cxcywh", "xyxy")
        return (corners * torch.tensor([width, height, width, height])).numpy()


def as_caption(words: str) -> str:
    """Words as GroundingDINO was trained to read them: lower case, trimmed, ended by one full stop."""
    words = words.lower().strip()
    return words if words.endswith(".") else words + "."


def read_labels(path: Path) -> list[str]:
    """A JSON list of names. Raises InputError if the file is missing or is anything else."""
    if not path.is_file():
        raise InputError(f"{path}: no such list of labels")
    labels = read_json(path)
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) and label for label in labels):
        raise InputError(f"{path}: not a JSON list of names")
    return labels


def _load(folder: Path, kind: str, network: str, parts: Mapping[str, dict[str, str]]) -> tuple[Any, list[Any]]:
    """A network in eval mode and its other parts, each with its own options, from a local folder. Raises InputError."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(EXTRA) from error
    remedy = f"put {SOURCES[kind]} there, as transformers' save_pretrained saves it"
    if missing := [name for name in FILES if not any(folder.glob(name))]:
        raise InputError(f"{folder}: no folder of {kind} (it has no {', no '.join(missing)}); {remedy}")
    try:
        config = read_json(folder / "config.json")
        found = config["model_type"]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{folder}/config.json: does not say what network it is of; {remedy}") from error
    if found != kind:
        raise InputError(f"{folder}: holds a network of type {found!r}, not {kind!r}; {remedy}")
    if elsewhere := [name for name in ELSEWHERE if config.get(name)]:
        raise InputError(f"{folder}/config.json: wants {elsewhere[0]} from elsewhere, which is not fetched; {remedy}")
    try:
        model, report = getattr(transformers, network).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        others = [
            getattr(transformers, name).from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **options
            )
            for name, options in parts.items()
        ]
    except Exception as error:  # of many kinds, for files that are damaged, missing or do not fit each other
        raise InputError(f"{folder}: {' '.join(str(error).split())[:200]}; {remedy}") from error
    # What is superfluous does no harm: older conversions hold tables that are now computed.
    if lacking := sorted(str(key) for key in report["missing_keys"]):
        raise InputError(f"{folder}: its weights lack {len(lacking)} of the network's: {lacking[0]} ...; {remedy}")
    return model.eval().requires_grad_(False), others
