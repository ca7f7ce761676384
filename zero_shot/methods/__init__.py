"""The zero-shot methods. A new one is a file here and a line in METHODS, with its name in `options.MethodName`.

    no_prompt     SAM proposes masks; AudioCLIP selects those that match the audio
    point         the similarity map gives points, SAM a mask (local, global or dense)
    heatmap_box   the similarity map gives boxes, SAM a mask for each
    box_prompt    CLAP classifies the audio, GroundingDINO detects boxes for the labels, SAM gives a mask for each
    heatmap       the similarity map above a threshold, without SAM
    foreground, largest_proposal, random_proposal   trivial baselines, which use no audio

Source: SAM4AVS (BMVC 2023); docs/deviations.md says what `fidelity` changes.
"""

from collections.abc import Callable

import torch

from models.weights import require_downloads
from utils.device import set_matmul_precision
from zero_shot.components import Components
from zero_shot.encoders import ENCODERS, check_maps
from zero_shot.label_list import read_targets
from zero_shot.methods.base import ZeroShotMethod
from zero_shot.methods.baselines import Foreground, ProposalBaseline
from zero_shot.methods.box_prompt import BoxPrompt
from zero_shot.methods.concept_prompt import ConceptPrompt
from zero_shot.methods.no_prompt import NoPrompt
from zero_shot.methods.prediction import ObjectMask, Prediction
from zero_shot.methods.prompted import HeatmapBox, PointPrompt, SimilarityThreshold
from zero_shot.methods.tracking import build_tracker, check_tracking
from zero_shot.options import Options

__all__ = ["METHODS", "ObjectMask", "Prediction", "ZeroShotMethod", "build_method"]

METHODS: dict[str, Callable[[Options, Components], ZeroShotMethod]] = {
    "no_prompt": lambda options, parts: NoPrompt(options, parts.encoder(), parts.segmenter()),
    "point": lambda options, parts: PointPrompt(options, parts.encoder(), parts.segmenter()),
    "heatmap_box": lambda options, parts: HeatmapBox(options, parts.encoder(), parts.segmenter()),
    "box_prompt": lambda options, parts: BoxPrompt(options, parts.classifier(), parts.detector(), parts.segmenter()),
    "concept_prompt": lambda options, parts: ConceptPrompt(
        options,
        targets=read_targets(options.grounding.labels),
        classifier=parts.sound_classifier(),
        finder=parts.object_finder(),
    ),
    "heatmap": lambda options, parts: SimilarityThreshold(options, parts.encoder()),
    "foreground": lambda options, parts: Foreground(),
    "largest_proposal": lambda options, parts: ProposalBaseline(options, parts.segmenter()),
    "random_proposal": lambda options, parts: ProposalBaseline(options, parts.segmenter()),
}


def build_method(
    options: Options, device: torch.device | str = "cpu", components: Components | None = None
) -> ZeroShotMethod:
    """Build the method that the options name, with the networks that it needs and the tracker.

    Args:
        options: of the method.
        device: where the networks run.
        components: of these options; default: new ones on the device.

    Raises:
        InputError: for a checkpoint that is missing or does not fit, and for a method that cannot be tracked.
    """
    _check(options)
    set_matmul_precision(options.run.precision)
    method = METHODS[options.method](options, components or Components(options, device))
    method.tracker = build_tracker(options, device, getattr(method, "segmenter", None))
    return method


def _check(options: Options) -> None:
    """What can be said before any network is loaded: first of the options, then of what there is to download."""
    check_tracking(options)
    if options.needs_similarity_maps:
        check_maps(ENCODERS[options.encoder], options)
    for labels in options.label_files():
        read_targets(labels)
    require_downloads(options.checkpoint_files())
