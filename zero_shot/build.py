"""Build a setting, and no more of the networks than it needs, from its options."""

from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam

from models.mini import MINI, load_mini_sam
from models.sam import build_sam
from utils.device import set_matmul_precision
from zero_shot.encoders.audioclip import AudioCLIPEncoder, build_audioclip
from zero_shot.grounding import ClapClassifier, GroundingDinoDetector
from zero_shot.methods import (
    Baseline,
    BoxPrompt,
    HeatmapBox,
    NoPrompt,
    PointPrompt,
    SimilarityThreshold,
    ZeroShotMethod,
)
from zero_shot.options import Options, SamOptions
from zero_shot.segmenters.sam import SamSegmenter


def build_method(options: Options, device: torch.device | str = "cpu") -> ZeroShotMethod:
    """The setting of the options, on a device. Raises InputError naming weights that are missing or do not fit."""
    run = options.run
    cache = run.cache if run.use_cache else None
    set_matmul_precision(run.precision)

    def audiovisual() -> AudioCLIPEncoder:
        model = build_audioclip(options.audioclip, options.fidelity)
        facts: dict[str, Any] = {"precision": run.precision, "by_pixel": run.channels_last}
        return AudioCLIPEncoder(model, options.audioclip, device=device, cache=cache, **facts)

    def segmenter() -> SamSegmenter:
        sam = load_sam(options.sam).to(device)
        return SamSegmenter(sam, cache=cache, precision=run.precision, memory_mib=run.memory_mib, compiled=run.compile)

    if options.method == "no_prompt":
        return NoPrompt(options, audiovisual(), segmenter())
    if options.method == "point":
        return PointPrompt(options, audiovisual(), segmenter())
    if options.method == "heatmap_box":
        return HeatmapBox(options, audiovisual(), segmenter())
    if options.method == "heatmap":
        return SimilarityThreshold(options, audiovisual())
    if options.method == "box_prompt":
        grounding = options.grounding
        labeller = ClapClassifier(grounding.clap, grounding.labels, device)
        return BoxPrompt(options, labeller, GroundingDinoDetector(grounding.detector, device), segmenter())
    return Baseline(options, None if options.method == "foreground" else segmenter())


def load_sam(options: SamOptions) -> Sam:
    """The SAM that the options name."""
    if options.model == "mini":
        return load_mini_sam(MINI if options.weights == "mini" else Path(options.weights))
    return build_sam(options.model, options.weights)
