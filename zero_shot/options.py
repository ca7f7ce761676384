"""The options of a zero-shot run; zero_shot/configs holds one YAML file for each row of the study."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.registry import find_weights, list_weights
from utils.fidelity import Fidelity
from utils.layout import BenchmarkName, SoftMasks
from utils.option_ranges import MAX_IMAGE_SIZE, MAX_WORKERS, DeviceName, bounded

MethodName = Literal[
    "no_prompt", "point", "heatmap_box", "box_prompt", "heatmap", "foreground", "largest_proposal", "random_proposal"
]

# Recommended for the public weights: it asks AudioCLIP for what it was trained to tell, whether a picture and a sound
# belong together, and needs no threshold on a map.
FOR_PUBLIC_WEIGHTS = "zero_shot/configs/s4_no_prompt.yaml"
BASELINES = ("foreground", "largest_proposal", "random_proposal")  # settings that do not listen

HOW = (
    "data.num_workers",
    "run.batch_size",
    "run.memory_mib",
    "run.cache",
    "run.use_cache",
    "run.device",
)  # a run is run
WEIGHTS = ("audioclip.weights", "sam.weights", "grounding.clap", "grounding.detector")  # count by their content


@dataclass
class DataOptions:
    """Which clips.

    Args:
        benchmark: s4 (one source) or ms3 (several).
        root: the folder that holds the meta CSV.
        split: test, as in the study; val to choose thresholds on.
        first: only so many clips of it, from the first; 0 takes all.
        workers: processes that read clips; 0 reads in the main process.
        soft_masks: what is done with masks in grey: refuse them, or dither them to black and white, as the original's
            loader of S4 does. `avsbench_data.check` says how many pixels are in question.
    """

    benchmark: BenchmarkName = "s4"
    root: Path = Path("avsbench_data/Single-source")
    split: Literal["train", "val", "test"] = "test"
    max_clips: int = bounded(0, 0)
    num_workers: int = bounded(min(4, os.cpu_count() or 1), 0, MAX_WORKERS)
    soft_masks: SoftMasks = "refuse"


@dataclass
class AudioCLIPOptions:
    """The network that says where a sound comes from.

    Args:
        weights: a name of pretrained/checkpoints.yaml, "mini" for the small weights that ship, "random", or the path
            of a checkpoint or of a folder of small weights (audioclip.json and audioclip.safetensors).
        surgery: pool by value-value attention (CLIP Surgery), whose locations keep to their own content.
        reverse: take the foreground where sound and picture agree least, as all published rows do.
        noise: a sound whose embedding is taken off every other first.
        image_size: side in pixels at which it sees a frame, a multiple of 32; 224 gives a map of 7×7 cells.
        interpolation: how the map is resized to the frame; the published rows use bilinear.
        tile: how often each second is repeated before it is heard.
        amplitude: of the waveform: unit is [-1, 1], int16 is 32768 times as loud; by_fidelity takes unit for
            published and int16, which the network was trained on, for corrected.
    """

    weights: str = "audioclip-full"
    surgery: bool = True
    reverse: bool = True
    noise: Literal["none", "rand", "gaussian", "zero"] = "none"
    image_size: int = bounded(224, 32, MAX_IMAGE_SIZE, multiple=32)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    audio_repeats: int = bounded(5, 1, 100)
    amplitude: Literal["by_fidelity", "unit", "int16"] = "by_fidelity"


@dataclass
class SamOptions:
    """Segment Anything.

    Args:
        size: vit_h is the study's; mini is the miniature.
        weights: a public checkpoint; for mini the folder that holds sam.json and sam.safetensors, or "mini" for the
            one that ships; or "random".
        multimask: let it answer a point prompt with three masks, of which one is chosen.
        choose: the mask of highest predicted IoU, or the largest.
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
class PromptOptions:
    """How the similarity map becomes a prompt.

    Args:
        points: of setting point: top is global (highest and lowest), peak local (all peaks and troughs), dense
            everything above the threshold.
        boxes: of setting heatmap_box: one box around all, one a component, or of one component: the one with the
            highest point (single_maxscore) or the largest (single_maxarea).
        threshold: of the map, 0 to 1; `top` needs none. Setting heatmap takes it for the mask itself.
    """

    points: Literal["global", "local", "dense"] = "local"
    boxes: Literal["multi_box", "total_box", "single_maxscore", "single_maxarea"] = "single_maxarea"
    threshold: float = bounded(0.6, 0, 1)


@dataclass
class RetrievalOptions:
    """How setting no_prompt finds the proposal that sounds.

    Args:
        score: crop compares the sound with each proposal cut out, as published; map takes the mean of the
            similarity map over the proposal.
        rule: above keeps the proposals whose probability exceeds the threshold; best keeps the likeliest.
        threshold: of the probability.
        scale: of the cosines before the softmax.
        crop_size: side in pixels at which AudioCLIP sees a proposal, a multiple of 32.
        largest: leave out proposals that cover more than this part of the frame.
    """

    score: Literal["crop", "map"] = "crop"
    rule: Literal["threshold", "top1"] = "threshold"
    threshold: float = bounded(0.5, 0, 1)
    logit_scale: float = bounded(100.0, 0, above=True)
    crop_size: int = bounded(224, 32, MAX_IMAGE_SIZE, multiple=32)
    max_area: float = bounded(1.0, 0, 1)


@dataclass(frozen=True)
class ProposalOptions:
    """Which masks SAM proposes for a frame, in the order in which they are dropped.

    Args:
        points_per_side: side of the square grid of points; each is a prompt of its own and gives three masks.
        pred_iou_thresh: the IoU that SAM predicts for a mask must be above this.
        stability_score_thresh: the IoU of a mask cut higher with the mask cut lower must not be below this.
        stability_score_offset: how much higher and lower, in logits.
        box_nms_thresh: of two masks whose boxes have an IoU above this, the one of less predicted IoU is dropped.
    """

    points_per_side: int = bounded(32, 1, 512)
    pred_iou_thresh: float = bounded(0.88, 0, 1)
    stability_score_thresh: float = bounded(0.95, 0, 1)
    stability_score_offset: float = bounded(1.0, 0)
    box_nms_thresh: float = bounded(0.7, 0, 1)


@dataclass
class GroundingOptions:
    """How setting box_prompt turns a sound into words and words into boxes.

    Args:
        clap: folder of a CLAP model as transformers saves it.
        detector: folder of a GroundingDINO model as transformers saves it.
        labels: JSON list of the names that a sound may get.
        top: names a second gets: the study takes 1 for S4, 2 for MS3.
        threshold: least score of a box.
    """

    clap: Path = Path("pretrained/clap-htsat-unfused")
    detector: Path = Path("pretrained/grounding-dino-base")
    labels: Path = Path("zero_shot/data/audioset_labels.json")
    top_k: int = bounded(1, 1, 100)
    threshold: float = bounded(0.3, 0, 1)


@dataclass
class RunOptions:
    """How it is run; none of this changes a number but for rounding.

    Args:
        batch: videos at once.
        precision: fp32 is float32 throughout; on a GPU tf32 rounds factors to 10 bits of fraction, bf16 to 7.
        memory: MiB that one step of SAM may take, about; 0 takes half of what is free on a GPU, 2048 on a CPU.
        channels_last: lay AudioCLIP's maps out channel by channel at each pixel, which GPUs' tensor cores prefer.
        compile: have torch compile SAM's image encoder, which takes a minute first.
        cache: folder of embeddings and proposals, which later runs with other thresholds take from there. A ViT-H
            embedding takes 4 MB a frame.
        use_cache: whether to.
        device: auto takes a GPU if there is one; cpu and cuda demand theirs.
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
        setting: no_prompt, point, heatmap_box and box_prompt are the study's. heatmap thresholds the similarity map
            without SAM; foreground, largest_proposal and random_proposal do not listen: the floors.
        fidelity: published repeats the original's oddities, corrected does what was meant (docs/deviations.md).
        data: which clips.
        audioclip: the network that says where a sound comes from.
        sam: the network that gives masks.
        prompt: how the similarity map becomes a prompt.
        retrieval: how no_prompt finds the proposal that sounds.
        proposals: what counts as a proposal.
        grounding: how box_prompt finds boxes.
        run: how it is run.
        metric_batch: videos that share one threshold in M_F.
    """

    method: MethodName = "no_prompt"
    fidelity: Fidelity = "corrected"
    data: DataOptions = field(default_factory=DataOptions)
    audioclip: AudioCLIPOptions = field(default_factory=AudioCLIPOptions)
    sam: SamOptions = field(default_factory=SamOptions)
    prompt: PromptOptions = field(default_factory=PromptOptions)
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    proposals: ProposalOptions = field(default_factory=ProposalOptions)
    grounding: GroundingOptions = field(default_factory=GroundingOptions)
    run: RunOptions = field(default_factory=RunOptions)
    metric_batch: int = bounded(1, 1)

    def checkpoint_files(self) -> list[Path]:
        """The checkpoints that the numbers depend on, whether they exist or not."""
        found = []
        if self.method not in (*BASELINES, "box_prompt"):
            found.append(find_weights(self.audioclip.weights, "audioclip"))
        if self.method not in ("foreground", "heatmap"):
            found.append(find_weights(self.sam.checkpoint, "sam"))
        files = [path for path in found if path is not None]
        if self.method == "box_prompt":
            for folder in (self.grounding.clap, self.grounding.detector):
                files += sorted(folder.glob("*.safetensors")) or [folder / "model.safetensors"]
        return files
