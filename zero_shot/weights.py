"""The files of weights that a run depends on, found without building a network."""

from pathlib import Path

from pretrained.fetch import FOLDER
from zero_shot.options import FLOORS, Options


def weight_files(options: Options) -> list[Path]:
    """The files of weights that a run depends on, there or not."""
    named = []
    if options.setting not in (*FLOORS, "box_prompt"):
        named.append((options.audioclip.weights, "audioclip.safetensors"))
    if options.setting not in ("foreground", "heatmap"):
        named.append((options.sam.weights, "sam.safetensors"))
    folders = {"mini": FOLDER / "mini"}
    paths = [(folders.get(weights, Path(weights)), file) for weights, file in named if weights != "random"]
    files = [path / file if path.is_dir() else path for path, file in paths]
    if options.setting == "box_prompt":
        for folder in (options.grounding.clap, options.grounding.detector):
            files += sorted(folder.glob("*.safetensors")) or [folder / "model.safetensors"]
    return files
