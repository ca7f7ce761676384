"""Options of the networks of a zero-shot run: encoders, segmenters and the tracker."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.registry import list_weights
from models.weights import find_weights
from utils.cli import InputError
from utils.option_ranges import MAX_IMAGE_SIZE, bounded

SAM2_WEIGHTS = {"sam2": "sam2.1-hiera-tiny", "edgetam": "edgetam", "sam3_tracker": "sam3"}  # by segmenter


def find_folder(weights: str) -> Path:
    """The folder of a network of transformers, given by name or path, whether it exists or not.

    Raises:
        InputError: for "random", or a name of no checkpoint.
    """
    folder = find_weights(weights)
    if folder is None:
        raise InputError("random: networks of the transformers package are folders; name one, or a checkpoint")
    return folder


def folder_weights(folder: Path) -> list[Path]:
    """The weights in a folder of transformers; model.safetensors if there are none."""
    return sorted(folder.glob("*.safetensors")) or [folder / "model.safetensors"]


@dataclass
class AudioCLIPOptions:
    """AudioCLIP and its similarity maps.

    Args:
        weights: a name in pretrained/checkpoints.yaml, "mini" for the small weights in this repository, "random", or
            the path of a checkpoint or of a folder of small weights (audioclip.json and audioclip.safetensors).
        surgery: value-value attention in the pooling layer (CLIP Surgery), which keeps features local.
        reverse: invert the similarity map, as all published rows do. They chose it with audio at amplitude unit; with
            int16 and the public weights nobody has validated it (zero_shot.tune searches both together). The small
            weights are not reversed.
        noise: waveform whose embedding is subtracted from every audio embedding.
        image_size: input side of frames in pixels, a multiple of 32; 224 gives a map of 7×7 cells.
        crop_size: input side of crops of proposals in pixels, a multiple of 32.
        interpolation: how the map is resized to the frame; the published rows use bilinear.
        audio_repeats: how many times each second of audio is repeated before it is encoded.
        amplitude: scale of the waveform: unit is [-1, 1], int16 is 32768 times that; by_fidelity uses unit for
            published and int16, on which the network was trained, for corrected. The small weights need int16; what
            the amplitude does to the public weights is not known.
    """

    weights: str = "audioclip-full"
    surgery: bool = True
    reverse: bool = True
    noise: Literal["none", "rand", "gaussian", "zero"] = "none"
    image_size: int = bounded(224, 32, MAX_IMAGE_SIZE, multiple_of=32)
    crop_size: int = bounded(224, 32, MAX_IMAGE_SIZE, multiple_of=32)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    audio_repeats: int = bounded(5, 1, 100)
    amplitude: Literal["by_fidelity", "unit", "int16"] = "by_fidelity"


@dataclass
class PEAVOptions:
    """PE-AV, by the transformers package (pip install -e .[grounding]).

    Args:
        weights: a name in pretrained/checkpoints.yaml (pe-av-small, pe-av-base, pe-av-large) or the path of a folder as
            transformers' save_pretrained writes it.
    """

    weights: str = "pe-av-small"


@dataclass
class SamOptions:
    """Segment Anything, and how every segmenter is prompted.

    Args:
        model: of segmenter sam; vit_h is the study's, mini is the small SAM in this repository.
        weights: a name in pretrained/checkpoints.yaml, "mini", "random", or the path of a checkpoint or of a folder of
            small weights (sam.json and sam.safetensors); default: the public checkpoint of the model.
        multimask: predict three masks for a point prompt and select one of them.
        mask_selection: select the mask of highest predicted IoU, or the one of largest area.
    """

    model: Literal["vit_h", "vit_l", "vit_b", "mini"] = "vit_h"
    weights: str | None = None
    multimask: bool = True
    mask_selection: Literal["max_score", "max_area"] = "max_score"

    @property
    def checkpoint(self) -> str:
        """The checkpoint's name or path: `weights`, or the public one of the model."""
        return self.weights or list_weights(f"sam_{self.model}")[0]


@dataclass
class Sam2Options:
    """SAM 2.1, EdgeTAM or SAM 3's tracker, by the transformers package.

    Args:
        weights: a name in pretrained/checkpoints.yaml or its repository on the hub (once pretrained.download has
            fetched it), or a folder that transformers' save_pretrained wrote; default: sam2.1-hiera-tiny, edgetam or
            sam3, by the segmenter.
    """

    weights: str | None = None

    def name(self, segmenter: str) -> str:
        """The name or path of a segmenter's weights: `weights`, or its default."""
        return self.weights or SAM2_WEIGHTS[segmenter]

    def folder(self, segmenter: str) -> Path:
        """The folder of a segmenter's network, whether it exists or not. Raises InputError for a name of none."""
        return find_folder(self.name(segmenter))


@dataclass
class TrackingOptions:
    """How masks are carried through a clip, with --track forward or both.

    Args:
        weights: of the network that tracks, as of sam2.weights; default: the segmenter's own network. Segmenter sam
            cannot track and needs one to be named.
        threshold: minimum agreement of a second's audio with an object that is carried into it: the mean of
            (1 + cosine) / 2 (or of no_prompt's probability) over its mask, or the score of its label. Below it the
            object is left out.
        window: masks that are tracked together in demo.py and in Python, which cut longer videos into such windows.
    """

    weights: str | None = None
    threshold: float = bounded(0.5, 0, 1)
    window: int = bounded(20, 2, 1000)
