"""The files of weights that a run depends on, found without building a network."""

from pathlib import Path

from pretrained.download import FOLDER
from zero_shot.options import BASELINES, Options


def weight_files(options: Options) -> list[Path]:
    """The files of weights that a run depends on, there or not."""
    named = []
    if options.method not in (*BASELINES, "box_prompt"):
        named.append((options.audioclip.weights, "audioclip.safetensors"))
    if options.method not in ("foreground", "heatmap"):
        named.append((options.sam.weights, "sam.safetensors"))
    folders = {"mini": FOLDER / "mini"}
    paths = [(folders.get(weights, Path(weights)), file) for weights, file in named if weights != "random"]
    files = [path / file if path.is_dir() else path for path, file in paths]
    if options.method == "box_prompt":
        for folder in (options.grounding.clap, options.grounding.detector):
            files += sorted(folder.glob("*.safetensors")) or [folder / "model.safetensors"]
    return files
