"""How each published output is computed here; a new one is a function in this folder and a line in CHECKS."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.weights import find_weights, require_weights
from pretrained.known_outputs import Check, Inputs

# The module in this folder and its function, imported when the check is run.
CHECKS = {
    "audioclip-full/audio-text": "audioclip.audio_text",
    "audioclip-full/text-audio": "audioclip.text_audio",
    "audioclip-full/image-text": "audioclip.image_text",
    "audioclip-full/audio-image": "audioclip.audio_image",
    "audioclip-full/text-features": "audioclip.text_features",
    "audioclip-partial/logit-scales": "audioclip.logit_scales",
    "audioclip/amplitude": "audioclip.amplitude",
    "audioclip/zero-shot-datasets": "audio_datasets.audioclip_accuracy",
    "sam-vit-h/prompts-car": "sam.prompts",
    "sam-vit-h/automatic-masks": "sam.automatic_masks",
    "sam-vit-b/prompts-car": "sam.prompts",
    "vggish/sine-16k": "vggish.sine_16k",
    "vggish/sine-44k-relu": "vggish.sine_44k_relu",
    "vggish/sine-44k-linear": "vggish.sine_44k_linear",
    "resnet50/imagenet": "classifiers.resnet50_imagenet",
    "pvt-v2-b5/coco": "classifiers.pvt_logits",
    "clip-rn50/dog-embedding": "clip.dog_embedding",
    "clip-rn50/imagenet-zero-shot": "clip.imagenet_zero_shot",
    "clap/esc50-first-split": "audio_datasets.clap_retrieval",
    "clap/esc50-all-hf": "audio_datasets.clap_accuracy",
    "clap/librispeech-means": "clap.embedding_means",
    "groundingdino-swint/coco": "grounding_dino.detections",
    "groundingdino/coco-ap": "grounding_dino.coco_ap",
    "sam2.1/car": "sam2.car",
    "sam2.1-tiny/truck": "sam2.prompts",
    "edgetam/truck": "sam2.prompts",
    "sam3/cat-ear": "sam2.concept",
}


@dataclass(frozen=True)
class Context:
    """What a check is given.

    Attributes:
        check: the published output.
        checkpoint: the name of the checkpoint to run it with, one of `check.checkpoints`.
        inputs: where the inputs are.
        device: where the network runs.
    """

    check: Check
    checkpoint: str
    inputs: Inputs
    device: torch.device

    @property
    def weights(self) -> Path:
        """The file or folder of the checkpoint.

        Raises:
            InputError: if it does not exist.
        """
        path = find_weights(self.checkpoint)
        assert path is not None
        if not path.is_dir():
            require_weights(path)
        return path

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Of the check."""
        return self.check.parameters

    def paths(self, *suffixes: str) -> dict[str, Path]:
        """The files of the check's inputs with one of these suffixes, by name; of all inputs without one."""
        files = {name: self.inputs.path(name) for name in self.check.inputs}
        return {name: path for name, path in files.items() if not suffixes or path.suffix.lower() in suffixes}


Outputs = dict[str, Any]


def run_check(context: Context) -> Outputs:
    """Compute what a check expects.

    Returns:
        Numbers by quantity, in the structure of `check.expected`.

    Raises:
        InputError: if a file is missing or does not fit, or the check is unknown.
    """
    module, _, name = CHECKS[context.check.id].partition(".")
    function: Callable[[Context], Outputs] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    with torch.no_grad():
        return function(context)


def by_name(names: Sequence[str], values: torch.Tensor) -> dict[str, Any]:
    """A vector (N,) or rows (N, ...) by their names."""
    return dict(zip(names, values.tolist(), strict=True))
