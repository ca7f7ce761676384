"""Which files a run's towers start from, found without building a network; supervised.weights loads them."""

from functools import cache
from pathlib import Path

from pretrained.download import list_entries
from supervised.options import ModelOptions

PUBLIC = {  # our names -> those of pretrained/checkpoints.yaml
    "audioclip-full": "audioclip-full",
    "audioclip-partial": "audioclip-partial",
    "clip": "clip-rn50",
    "resnet50": "resnet50",
    "esresnext": "esresnext-fbsp",
}


@cache
def tower_file(name: str, folder: Path) -> Path:
    """The file of one of AudioCLIP's towers, by a name of supervised.weights other than random and vggish."""
    if name == "mini":
        return folder / "mini" / "audioclip.safetensors"
    (file,) = (entry.file for entry in list_entries() if entry.name == PUBLIC[name])
    return folder / str(file)


def weight_files(options: ModelOptions) -> list[Path]:
    """The files of weights that a run starts from, there or not."""
    fpn, ear = options.fpn, options.vggish
    if options.segmentor == "tpavi":
        named = [options.weights] + ([ear.weights] if options.attention != "vv" else [])
        return [Path(name) for name in named if name != "random"]
    towers = [fpn.visual] + ([fpn.audio] if fpn.fusion != "none" else [])
    files = [tower_file(name, fpn.weights_dir) for name in towers if name not in ("random", "vggish")]
    if "vggish" in towers and ear.weights != "random":
        files.append(Path(ear.weights))
    if fpn.variant == "mini":
        files.append(tower_file("mini", fpn.weights_dir))
    return list(dict.fromkeys(files))
