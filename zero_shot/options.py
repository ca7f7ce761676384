"""The options of a zero-shot run; zero_shot/configs has one YAML file for each row of the study."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.registry import find_weights, list_weights
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.layout import MaskBenchmarkName, SoftMasks
from utils.option_ranges import MAX_IMAGE_SIZE, MAX_WORKERS, DeviceName, bounded

MethodName = Literal[
    "no_prompt",
    "point",
    "heatmap_box",
    "box_prompt",
    "concept_prompt",
    "heatmap",
    "foreground",
    "largest_proposal",
    "random_proposal",
]
EncoderName = Literal["audioclip", "pe_av"]
SegmenterName = Literal["sam", "sam2", "edgetam", "sam3_tracker"]

# Recommended for people's own videos: it names sounds by an open list, and needs neither a GPU nor AudioCLIP.
RECOMMENDED_CONFIG = "zero_shot/configs/modern/demo_small.yaml"
MAP_METHODS = ("point", "heatmap_box", "heatmap")  # methods that start from a similarity map
BASELINES = ("foreground", "largest_proposal", "random_proposal")  # methods that use no audio

RUNTIME_ONLY = ("data.num_workers", "run.batch_size", "run.memory_mib", "run.cache", "run.use_cache", "run.device")
WEIGHTS = (
    "audioclip.weights",
    "pe_av.weights",
    "sam.weights",
    "sam2.weights",
    "tracking.weights",
    "grounding.clap",
    "grounding.detector",
    "concept.pe_a_frame",
    "concept.sam3",
)  # compared by file content


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
class DataOptions:
    """Which clips are evaluated.

    Args:
        benchmark: s4 (one source) or ms3 (several).
        root: folder that contains the meta CSV.
        split: test, as in the study; val to choose thresholds.
        max_clips: evaluate only the first N clips (0 = all).
        num_workers: processes that read clips; 0 reads in the main process.
        soft_masks: what to do with gray masks: refuse them, or dither them to black and white, as the original S4
            loader does. `avsbench_data.check` reports how many pixels are affected.
    """

    benchmark: MaskBenchmarkName = "s4"
    root: Path = Path("avsbench_data/Single-source")
    split: Literal["train", "val", "test"] = "test"
    max_clips: int = bounded(0, 0)
    num_workers: int = bounded(min(4, os.cpu_count() or 1), 0, MAX_WORKERS)
    soft_masks: SoftMasks = "refuse"


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


@dataclass
class TrackingOptions:
    """How masks are carried through a clip, with --track forward or both.

    Args:
        weights: of the network that tracks, as of sam2.weights; default: the segmenter's own network. Segmenter sam
            cannot track and needs one to be named.
        threshold: minimum agreement of a second's audio with an object that is carried into it: the mean similarity
            (or probability, of no_prompt) over its mask, or the score of its label. Below it the object is left out.
        window: masks that are tracked together in demo.py and in Python, which cut longer videos into such windows.
    """

    weights: str | None = None
    threshold: float = bounded(0.5, 0, 1)
    window: int = bounded(20, 2, 1000)


@dataclass
class RunOptions:
    """How the method runs; results change by rounding only.

    Args:
        batch_size: videos in a batch.
        precision: fp32 is float32 throughout; on a GPU, tf32 rounds factors to 10 bits of mantissa and bf16 to 7.
        memory_mib: approximate memory in MiB of one batch in SAM, in addition to the weights; 0 uses half of the free
            memory on a GPU and 2048 MiB on a CPU.
        channels_last: use torch's channels-last memory format for AudioCLIP, which tensor cores prefer.
        compile: compile SAM's image encoder with torch.compile, which takes a minute.
        cache: folder for embeddings and proposals, which later runs with other thresholds reuse. A ViT-H embedding
            takes 4 MB per frame.
        use_cache: read and write the cache.
        device: auto uses a GPU if there is one; cpu and cuda use theirs or fail.
    """

    batch_size: int = bounded(4, 1)
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    memory_mib: int = bounded(0, 0)
    channels_last: bool = False
    compile: bool = False
    cache: Path = Path("runs/cache")
    use_cache: bool = True
    device: DeviceName = "auto"


@dataclass
class Options:
    """A zero-shot run.

    Args:
        method: no_prompt, point, heatmap_box and box_prompt are the study's. concept_prompt is box_prompt with models
            of today, which may be unsure and then mark nothing. heatmap thresholds the similarity map without SAM;
            foreground, largest_proposal and random_proposal are trivial baselines, which use no audio.
        encoder: the audio-visual encoder. pe_av computes no similarity maps, so it serves no_prompt alone.
        segmenter: the promptable segmenter: Segment Anything, or SAM 2.1, EdgeTAM or SAM 3's tracker, which the
            transformers package runs (pip install -e .[grounding]).
        fidelity: published repeats the original's errors, corrected fixes them (docs/deviations.md). Which of the two
            gives better masks is known of the small weights only.
        data: which clips are evaluated.
        audioclip: AudioCLIP and its similarity maps.
        pe_av: PE-AV.
        sam: Segment Anything, and how every segmenter is prompted.
        sam2: SAM 2.1, EdgeTAM or SAM 3's tracker.
        prompt: how the similarity map becomes a prompt.
        retrieval: how no_prompt selects proposals.
        proposals: which masks SAM proposes.
        grounding: how box_prompt and concept_prompt find boxes.
        concept: what concept_prompt has in addition.
        track: carry the masks of the most certain second (by predicted IoU × audio score) through the clip: forward
            into the seconds after it, or into both directions; the other seconds keep their own masks.
        tracking: how masks are carried.
        run: how the method runs.
        metric_batch: videos that share one threshold in M_F.
    """

    method: MethodName = "no_prompt"
    encoder: EncoderName = "audioclip"
    segmenter: SegmenterName = "sam"
    fidelity: Fidelity = "corrected"
    data: DataOptions = field(default_factory=DataOptions)
    audioclip: AudioCLIPOptions = field(default_factory=AudioCLIPOptions)
    pe_av: PEAVOptions = field(default_factory=PEAVOptions)
    sam: SamOptions = field(default_factory=SamOptions)
    sam2: Sam2Options = field(default_factory=Sam2Options)
    prompt: PromptOptions = field(default_factory=PromptOptions)
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    proposals: ProposalOptions = field(default_factory=ProposalOptions)
    grounding: GroundingOptions = field(default_factory=GroundingOptions)
    concept: ConceptOptions = field(default_factory=ConceptOptions)
    track: Literal["none", "forward", "both"] = "none"
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    run: RunOptions = field(default_factory=RunOptions)
    metric_batch: int = bounded(1, 1)

    @property
    def needs_similarity_maps(self) -> bool:
        """Whether the method needs an encoder that compares audio with every place of a frame."""
        return self.method in MAP_METHODS or (self.method == "no_prompt" and self.retrieval.score == "map")

    @property
    def window(self) -> int:
        """Masks of a video that depend on each other: those tracked together, or those of a batch."""
        return self.run.batch_size if self.track == "none" else self.tracking.window

    def tracker_folder(self) -> Path:
        """The folder of the network that tracks, whether it exists or not.

        Raises:
            InputError: if none is named.
        """
        if self.tracking.weights is None and self.segmenter == "sam":
            raise InputError(
                "segmenter sam cannot track; name a network that can, such as --tracking.weights sam2.1-hiera-tiny, "
                "or use --segmenter sam2"
            )
        return find_folder(self.tracking.weights) if self.tracking.weights else self.sam2.folder(self.segmenter)

    @property
    def uses_encoder(self) -> bool:
        """Whether the method compares audio and image by the audio-visual encoder."""
        return self.method not in (*BASELINES, "box_prompt", "concept_prompt")

    @property
    def uses_segmenter(self) -> bool:
        """Whether the segmenter makes the masks."""
        sam3 = self.method == "concept_prompt" and self.concept.finder == "sam3"
        return self.method not in ("foreground", "heatmap") and not sam3

    def transformers_folders(self) -> list[Path]:
        """The folders of networks of the transformers package that a run needs, whether they exist or not."""
        names: list[str] = []
        if self.uses_encoder and self.encoder == "pe_av":
            names.append(self.pe_av.weights)
        if self.method in ("box_prompt", "concept_prompt"):
            concept, clap, detector = self.method == "concept_prompt", self.grounding.clap, self.grounding.detector
            names.append(self.concept.pe_a_frame if concept and self.concept.classifier == "pe_a_frame" else clap)
            names.append(self.concept.sam3 if concept and self.concept.finder == "sam3" else detector)
        found = [find_folder(name) for name in names]
        if self.uses_segmenter and self.segmenter != "sam":
            found.append(self.sam2.folder(self.segmenter))
        if self.track != "none":
            found.append(self.tracker_folder())
        return list(dict.fromkeys(found))

    def label_files(self) -> list[Path]:
        """The files of labels that the results depend on."""
        return [self.grounding.labels] if self.method in ("box_prompt", "concept_prompt") else []

    def checkpoint_files(self) -> list[Path]:
        """The checkpoints that the results depend on, whether they exist or not."""
        found: list[Path | None] = []
        if self.uses_encoder and self.encoder == "audioclip":
            found.append(find_weights(self.audioclip.weights, "audioclip"))
        if self.uses_segmenter and self.segmenter == "sam":
            found.append(find_weights(self.sam.checkpoint, "sam"))
        files = [path for path in found if path is not None]
        return files + [path for folder in self.transformers_folders() for path in folder_weights(folder)]
