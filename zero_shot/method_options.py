"""Options of the zero-shot methods: how sound and picture become prompts, and which masks are kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.option_ranges import MAX_IMAGE_SIZE, bounded


@dataclass
class PromptOptions:
    """How the similarity map becomes a prompt.

    Args:
        points: of method point: global is the highest and the lowest point, local all peaks and troughs, dense the grid
            points above the threshold and as many of the lowest.
        boxes: of method heatmap_box: one box around everything above the threshold (total_box), one for each component
            (multi_box), or that of the component with the highest value (single_maxscore) or the largest area
            (single_maxarea).
        threshold: of the map, 0 to 1; global points do not use it. Method heatmap thresholds the mask itself with it.
    """

    points: Literal["global", "local", "dense"] = "local"
    boxes: Literal["multi_box", "total_box", "single_maxscore", "single_maxarea"] = "single_maxarea"
    threshold: float = bounded(0.6, 0, 1)


@dataclass
class RetrievalOptions:
    """How method no_prompt selects proposals by their similarity to the audio.

    Args:
        score: crop compares the audio with the image of each proposal, as published; map averages the similarity map
            over the proposal.
        rule: threshold keeps the proposals whose probability exceeds the threshold; top1 keeps the most probable one.
        threshold: of the probability.
        logit_scale: factor of the cosine similarities before the softmax.
        max_area: ignore proposals that cover more than this fraction of the frame.
    """

    score: Literal["crop", "map"] = "crop"
    rule: Literal["threshold", "top1"] = "threshold"
    threshold: float = bounded(0.5, 0, 1)
    logit_scale: float = bounded(100.0, 0, exclude_minimum=True)
    max_area: float = bounded(1.0, 0, 1)


@dataclass(frozen=True)
class ProposalOptions:
    """Which masks SAM proposes for a frame; the filters are applied in this order.

    Args:
        points_per_side: side of the square grid of points; each point is one prompt and gives three masks.
        pred_iou_thresh: minimum IoU that SAM predicts for a mask.
        stability_score_thresh: minimum IoU of the mask binarized at a higher threshold with that at a lower one.
        stability_score_offset: distance of these two thresholds from the usual one, in logits.
        box_nms_thresh: of two masks whose boxes have an IoU above this, the one with lower predicted IoU is dropped.
    """

    points_per_side: int = bounded(32, 1, 512)
    pred_iou_thresh: float = bounded(0.88, 0, 1)
    stability_score_thresh: float = bounded(0.95, 0, 1)
    stability_score_offset: float = bounded(1.0, 0)
    box_nms_thresh: float = bounded(0.7, 0, 1)


@dataclass
class GroundingOptions:
    """How methods box_prompt and concept_prompt classify the audio and detect boxes for the labels.

    Args:
        clap: name in pretrained/checkpoints.yaml or path of a CLAP model, a folder written by transformers.
        detector: the same for a GroundingDINO or MM-GroundingDINO model.
        labels: file with the list of labels, JSON or text (zero_shot/label_list.py); zero_shot/data has some.
        top_k: labels per second of audio, at most; the study uses 1 for S4 and 2 for MS3.
        threshold: minimum score of a box.
    """

    clap: str = "clap-htsat-unfused"
    detector: str = "grounding-dino-base"
    labels: Path = Path("zero_shot/data/audioset_labels.json")
    top_k: int = bounded(1, 1, 100)
    threshold: float = bounded(0.3, 0, 1)


@dataclass
class ConceptOptions:
    """What method concept_prompt has in addition to the options of `grounding`.

    Args:
        classifier: what names the sound: CLAP, whose probabilities of all labels sum to 1, or PE-A-Frame, whose
            probabilities are independent of each other.
        pe_a_frame: name in pretrained/checkpoints.yaml or path of a PE-A-Frame model, a folder written by transformers.
        min_confidence: labels of a lower probability are not looked for; has to be tuned for classifier and labels.
        finder: what finds the named thing: the detector, whose boxes the segmenter turns into masks, or SAM 3, which
            makes masks itself.
        sam3: name or path of a SAM 3 model; the public one is gated, so that nothing uses it unless finder is sam3.
        min_presence: minimum probability, by SAM 3's presence score, that a frame shows the named thing.
        image_size: longer side in pixels to which demo.py and Python's pipeline reduce larger frames; the clips of the
            benchmarks are 224 pixels wide.
    """

    classifier: Literal["clap", "pe_a_frame"] = "clap"
    pe_a_frame: str = "pe-a-frame-small"
    min_confidence: float = bounded(0.2, 0, 1)
    finder: Literal["detector", "sam3"] = "detector"
    sam3: str = "sam3"
    min_presence: float = bounded(0.5, 0, 1)
    image_size: int = bounded(1024, 32, MAX_IMAGE_SIZE)
