"""Faults that pretrained.verify has to catch, planted one by one. docs/reliability.md lists them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

from models import backbones
from models.audioclip import AudioCLIP
from models.key_maps import load_visual
from models.sam import SAM_CONFIGS
from models.vggish import VGGish
from pretrained.checks import Context
from pretrained.checks import audioclip as audioclip_checks
from pretrained.known_outputs import read_known_outputs
from tests.helpers import public_files
from tests.helpers.verify import change_file, run
from utils import audio
from utils.dataset import normalize_frames
from utils.files import read_image
from zero_shot.method_options import ProposalOptions
from zero_shot.segmenters.sam import SamSegmenter

ROOT = Path(__file__).parents[2]
# What is planted, the checks that have to catch it, and how it is planted.
Plant = Callable[[pytest.MonkeyPatch, SimpleNamespace, Path], Any]
FAULTS: list[tuple[str, list[str], Plant]] = []


def fault(name: str, *checks: str) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        FAULTS.append((name, list(checks), plant))
        return plant

    return add


@fault("another audio tower in the file", "audioclip-full/audio-text", "audioclip-full/audio-image")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    other = public_files.audioclip(9).audio.state_dict()
    replacement = {f"audio.{key}": value for key, value in other.items()}
    change_file(patch, public, out, "AudioCLIP-Full-Training.pt", lambda state: state | replacement)


@fault("CLIP's image tower in place of AudioCLIP's", "audioclip-full/image-text", "audioclip-full/audio-image")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    replacement = {f"visual.{key}": value for key, value in public_files.audioclip(2).visual.state_dict().items()}
    change_file(patch, public, out, "AudioCLIP-Full-Training.pt", lambda state: state | replacement)


@fault("AudioCLIP's image tower in CLIP's file", "clip-rn50/dog-embedding")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    replacement = {f"visual.{key}": value for key, value in public_files.audioclip(1).visual.state_dict().items()}
    change_file(patch, public, out, "CLIP.pt", lambda state: state | replacement)


@fault(
    "BGR for RGB",
    "audioclip-full/image-text",
    "sam-vit-h/prompts-car",
    "sam-vit-h/automatic-masks",
    "sam-vit-b/prompts-car",
    "pvt-v2-b5/coco",
    "clip-rn50/dog-embedding",
)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    for module in ("images", "sam"):
        patch.setattr(f"pretrained.checks.{module}.read_image", lambda path: read_image(path)[..., ::-1].copy())


@fault("ImageNet's statistics for CLIP's", "clip-rn50/dog-embedding")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr("pretrained.checks.images.normalize_frames", lambda frames, _: normalize_frames(frames, "imagenet"))


@fault("samples multiplied by 32768", "audioclip-full/audio-text", "audioclip-full/text-audio")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    load = audioclip_checks._load

    def corrected(context: Context) -> AudioCLIP:
        model = load(context)
        model.fidelity = "corrected"
        return model

    patch.setattr(audioclip_checks, "_load", corrected)


@fault("eval mode for train mode", "audioclip-full/audio-text", "audioclip-full/image-text")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(AudioCLIP, "train", lambda self, mode=True: nn.Module.train(self, False))


@fault("another prompt around the label", "audioclip-full/text-features", "audioclip-full/audio-text")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    encode = AudioCLIP.encode_text
    patch.setattr(
        AudioCLIP, "encode_text", lambda self, texts: encode(self, [f"a photo of a {text}" for text in texts])
    )


@fault("GELU for QuickGELU", "audioclip-full/text-features")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr("models.audioclip.QuickGELU", nn.GELU)


@fault("another number of text heads (the weights fit)", "audioclip-full/text-features")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    heads = {**public_files.AUDIOCLIP, "text_heads": 4}
    patch.setattr("models.audioclip.AudioCLIP", lambda **options: AudioCLIP(**heads, **options))


@fault("logit scale without exp", "audioclip-partial/logit-scales")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(audioclip_checks, "_scale", lambda parameter: parameter.clamp(1, 100).item())


@fault("another number of SAM's heads (the weights fit)", "sam-vit-h/prompts-car", "sam-vit-b/prompts-car")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    for name in ("vit_h", "vit_b"):
        patch.setitem(SAM_CONFIGS, name, replace(SAM_CONFIGS[name], heads=2))


@fault("points as (y, x)", "sam-vit-h/prompts-car", "sam-vit-b/prompts-car")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    decode = SamSegmenter.decode

    def swapped(self: SamSegmenter, embedding: Any, *, points: Any, **more: Any) -> Any:
        return decode(self, embedding, points=None if points is None else points[:, ::-1].copy(), **more)

    patch.setattr(SamSegmenter, "decode", swapped)


@fault("no suppression of equal proposals", "sam-vit-h/automatic-masks")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr("pretrained.checks.sam.ProposalOptions", lambda: ProposalOptions(box_nms_thresh=1.0))


@fault("no last ReLU", "vggish/sine-44k-relu")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    def built() -> VGGish:
        model = VGGish(**public_files.VGGISH)
        model.embeddings[-1] = nn.Identity()
        return model

    patch.setattr("models.vggish.VGGish", built)


@fault("VGGish's maps flattened in PyTorch's order", "vggish/sine-16k", "vggish/sine-44k-relu")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(VGGish, "forward", lambda self, examples: self.embeddings(self.features(examples).flatten(1)))


@fault("another offset in the log-mel", "vggish/sine-16k", "vggish/sine-44k-linear")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(audio, "LOG_OFFSET", 1e-6)


@fault("wrong key map: PVT's norms exchanged", "pvt-v2-b5/coco")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    rename = backbones.rename_pvt_key
    other = {".norm1.": ".norm2.", ".norm2.": ".norm1."}
    patch.setattr(
        backbones, "rename_pvt_key", lambda key: re.sub(r"\.norm[12]\.", lambda found: other[found[0]], rename(key))
    )


@fault("wrong key map: CLIP's queries and keys exchanged", "clip-rn50/dog-embedding")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    other = {".q_proj.": ".k_proj.", ".k_proj.": ".q_proj."}

    def exchanged(visual: nn.Module, state: dict[str, Tensor]) -> list[str]:
        names = {key: re.sub(r"\.[qk]_proj\.", lambda found: other[found[0]], key) for key in state}
        return load_visual(visual, {names[key]: value for key, value in state.items()})

    patch.setattr("pretrained.checks.clip.load_visual", exchanged)


@pytest.mark.parametrize(("checks", "plant"), [pytest.param(checks, plant, id=name) for name, checks, plant in FAULTS])
def test_planted_faults_are_caught(checks: list[str], plant: Plant, public: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, public, tmp_path)
        code, verdicts, _ = run(public, *checks, out=tmp_path)
    # Checks of other checkpoints than the first are the same computation.
    first = {check.id: check.checkpoints[0] for check in read_known_outputs().checks}
    assert code == 1
    assert {check: verdicts[check, first[check]] for check in checks} == dict.fromkeys(checks, "mismatch")


def test_the_documentation_lists_the_faults() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = text.split("## Planted faults\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| (`[^|]+) \|$", section, re.MULTILINE)
    assert rows == [(name, ", ".join(f"`{check}`" for check in checks)) for name, checks, _ in FAULTS]
