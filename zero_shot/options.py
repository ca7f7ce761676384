"""The options of a zero-shot run; zero_shot/configs has one YAML file for each row of the study."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.weights import find_weights
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.layout import MaskBenchmarkName, SoftMasks
from utils.option_ranges import MAX_WORKERS, DeviceName, bounded
from zero_shot.method_options import ConceptOptions, GroundingOptions, PromptOptions, ProposalOptions, RetrievalOptions
from zero_shot.model_options import (
    AudioCLIPOptions,
    PEAVOptions,
    Sam2Options,
    SamOptions,
    TrackingOptions,
    find_folder,
    folder_weights,
)

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
