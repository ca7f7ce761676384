"""Build a setting, and no more of the networks than it needs, from its options."""

from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam

from models.mini import MINI, load_mini_sam
from models.sam import build_sam
from utils.device import set_exactness
from zero_shot.audiovisual import AudioVisual, build_audioclip
from zero_shot.grounding import BoxFinder, SoundLabeller
from zero_shot.options import Options, SamOptions
from zero_shot.segmenter import Segmenter
from zero_shot.settings import BoxPrompt, Floor, Heatmap, HeatmapBox, NoPrompt, PointPrompt, Setting


def build_setting(options: Options, device: torch.device | str = "cpu") -> Setting:
    """The setting of the options, on a device. Raises InputError naming weights that are missing or do not fit."""
    run = options.run
    cache = run.cache if run.use_cache else None
    set_exactness(run.precision)

    def audiovisual() -> AudioVisual:
        model = build_audioclip(options.audioclip, options.fidelity)
        facts: dict[str, Any] = {"precision": run.precision, "by_pixel": run.channels_last}
        return AudioVisual(model, options.audioclip, device=device, cache=cache, **facts)

    def segmenter() -> Segmenter:
        sam = load_sam(options.sam).to(device)
        return Segmenter(sam, cache=cache, precision=run.precision, memory_mib=run.memory, compiled=run.compile)

    if options.setting == "no_prompt":
        return NoPrompt(options, audiovisual(), segmenter())
    if options.setting == "point":
        return PointPrompt(options, audiovisual(), segmenter())
    if options.setting == "heatmap_box":
        return HeatmapBox(options, audiovisual(), segmenter())
    if options.setting == "heatmap":
        return Heatmap(options, audiovisual())
    if options.setting == "box_prompt":
        grounding = options.grounding
        labeller = SoundLabeller(grounding.clap, grounding.labels, device)
        return BoxPrompt(options, labeller, BoxFinder(grounding.detector, device), segmenter())
    return Floor(options, None if options.setting == "foreground" else segmenter())


def load_sam(options: SamOptions) -> Sam:
    """The SAM that the options name."""
    if options.size == "mini":
        return load_mini_sam(MINI if options.weights == "mini" else Path(options.weights))
    return build_sam(options.size, options.weights)
