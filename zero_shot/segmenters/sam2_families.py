"""The networks of the SAM 2 family in the `transformers` package: their classes, and loading them from a folder.

A folder of a video network serves for images too. One of an image network does not track: transformers would fill its
memory modules with random weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.weights import command_for
from utils.cli import InputError
from zero_shot.transformers_folder import load_folder, read_model_type, remedy


@dataclass(frozen=True)
class Family:
    """The classes of a family in transformers.

    Attributes:
        image: network for single images.
        video: network that tracks.
        session: state of a video.
        video_types: model_type of folders that can track.
    """

    image: str
    video: str
    session: str
    video_types: tuple[str, ...]


FAMILIES = {  # by name of the segmenter, which is the model_type of an image-only folder
    "sam2": Family("Sam2Model", "Sam2VideoModel", "Sam2VideoInferenceSession", ("sam2_video",)),
    "edgetam": Family("EdgeTamModel", "EdgeTamVideoModel", "EdgeTamVideoInferenceSession", ("edgetam_video",)),
    "sam3_tracker": Family(
        "Sam3TrackerModel",
        "Sam3TrackerVideoModel",
        "Sam3TrackerVideoInferenceSession",
        ("sam3_tracker_video", "sam3_video"),
    ),
}


def load_network(folder: Path, family: str, *, tracks: bool) -> tuple[Any, Any]:
    """Load a network and its image processor.

    Args:
        folder: as save_pretrained writes it.
        family: a key of FAMILIES.
        tracks: load the class that tracks.

    Returns:
        The network in eval mode on the CPU, and the image processor.

    Raises:
        InputError: if the package or the folder is missing, if the folder contains something else, and if it cannot
            track although it has to.
    """
    classes = FAMILIES[family]
    found = read_model_type(folder, family)
    other = _family_by_type(found)
    if other not in (None, family):
        raise InputError(f"{folder}: contains a network of --segmenter {other} (model_type {found!r}), not of {family}")
    if tracks and found == family:
        other_way = f", or {remedy(folder, family)}" if command_for(folder) else ""
        raise InputError(
            f"{folder}: an image-only {family} (model_type {found!r}), which cannot track; "
            f"save it as {classes.video}{other_way}"
        )
    network = classes.video if tracks else classes.image
    model, (processor,) = load_folder(folder, family, network, {"AutoImageProcessor": {}}, classes.video_types)
    return model, processor


def family_of(folder: Path) -> str:
    """The family of a folder.

    Raises:
        InputError: if it is of none.
    """
    found = read_model_type(folder, "sam2")
    if (family := _family_by_type(found)) is None:
        raise InputError(f"{folder}: contains a model of type {found!r}, which cannot track; {remedy(folder, 'sam2')}")
    return family


def _family_by_type(model_type: str) -> str | None:
    """The family whose folders state a model_type."""
    return next((name for name, each in FAMILIES.items() if model_type in (name, *each.video_types)), None)
