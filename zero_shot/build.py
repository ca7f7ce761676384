"""Build a setting, and no more of the networks than it needs, from its options."""

from pathlib import Path

import torch
from segment_anything.modeling import Sam

from models.mini import MINI, load_mini_sam
from models.sam import build_sam
from zero_shot.audiovisual import AudioVisual, build_audioclip
from zero_shot.grounding import BoxFinder, SoundLabeller
from zero_shot.options import FLOORS, Options, SamOptions
from zero_shot.segmenter import Segmenter
from zero_shot.settings import BoxPrompt, Floor, Heatmap, HeatmapBox, NoPrompt, PointPrompt, Setting


def build_setting(options: Options, device: torch.device | str = "cpu") -> Setting:
    """The setting of the options, on a device. Raises InputError naming weights that are missing or do not fit."""
    cache = options.run.cache if options.run.use_cache else None

    def audiovisual() -> AudioVisual:
        model = build_audioclip(options.audioclip, options.fidelity)
        return AudioVisual(model, options.audioclip, device=device, cache=cache, precision=options.run.precision)

    def segmenter() -> Segmenter:
        sam = load_sam(options.sam).to(device)
        return Segmenter(sam, cache=cache, precision=options.run.precision, memory_mib=options.run.memory)

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


def weight_files(options: Options) -> list[Path]:
    """The files of weights that a run depends on, for its record."""
    named = []
    if options.setting not in (*FLOORS, "box_prompt"):
        named.append((options.audioclip.weights, "audioclip.safetensors"))
    if options.setting not in ("foreground", "heatmap"):
        named.append((options.sam.weights, "sam.safetensors"))
    folders = {"mini": MINI}
    paths = [(folders.get(weights, Path(weights)), file) for weights, file in named if weights != "random"]
    files = [path / file if path.is_dir() else path for path, file in paths]
    if options.setting == "box_prompt":
        for folder in (options.grounding.clap, options.grounding.detector):
            files += sorted(folder.glob("*.safetensors"))
    return files
