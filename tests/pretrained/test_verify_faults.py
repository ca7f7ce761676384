"""Faults that pretrained.verify has to catch, planted one by one. docs/reliability.md lists them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from models import backbones
from models.audioclip import AudioCLIP
from models.key_maps import load_visual
from models.sam import SAM_CONFIGS
from models.vggish import VGGish
from pretrained.checks import Context
from pretrained.checks import audioclip as audioclip_checks
from pretrained.known_outputs import read_known_outputs
from synthetic.random_grounding import save_clap
from synthetic.random_sam2 import random_network, tiny_config
from tests.helpers import public_files
from tests.helpers.verify import change_file, change_folder, run
from utils import audio
from utils.dataset import normalize_frames
from utils.files import read_image
from zero_shot.detectors import grounding_dino
from zero_shot.detectors.sam3 import Sam3Detector
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.method_options import ProposalOptions
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.segmenters.sam2 import FeatureMaps, Sam2Segmenter

ROOT = Path(__file__).parents[2]
# What is planted, the checks that have to catch it, and how it is planted.
Plant = Callable[[pytest.MonkeyPatch, SimpleNamespace, Path], Any]
FAULTS: list[tuple[str, list[str], Plant]] = []
SAM2 = ("sam2.1/car", "sam2.1-tiny/truck", "edgetam/truck")
DETECTOR = "groundingdino-swint/coco"
SAM3 = "sam3/cat-ear"
CLAP = ("clap/librispeech-means", "clap/esc50-first-split")


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
    DETECTOR,
    *SAM2,
    SAM3,
)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    for module in ("images", "sam", "grounding_dino", "sam2"):
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


@fault("points as (y, x)", "sam-vit-h/prompts-car", "sam-vit-b/prompts-car", *SAM2)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    def swapped(decode: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, embedding, *, points, **more: decode(
            self, embedding, points=None if points is None else points[:, ::-1].copy(), **more
        )

    for segmenter in (SamSegmenter, Sam2Segmenter):
        patch.setattr(segmenter, "decode", swapped(segmenter.decode))


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


@fault("another audio tower in CLAP's folder", *CLAP)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    other = load_file(save_clap(out / "clap", seed=9) / "model.safetensors")
    replacement = {key: value for key, value in other.items() if key.startswith("audio_")}
    change_folder(patch, public, out, "clap-htsat-unfused", weights=lambda state: state | replacement)


@fault("CLAP's sounds at another rate", "clap/esc50-first-split")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    # As if AudioCLIP's rate were CLAP's; the files of the other check are not resampled.
    patch.setattr("pretrained.checks.audio_datasets.resample", lambda samples, *_: samples)


@fault("CLAP's sounds filled with silence in place of repetitions", "clap/librispeech-means")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    extract = transformers.ClapFeatureExtractor.__call__
    patch.setattr(
        transformers.ClapFeatureExtractor,
        "__call__",
        lambda self, *sounds, padding, **more: extract(self, *sounds, padding="pad", **more),
    )


@fault("the mel bands of the CLAP with fusion", *CLAP)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    extract = transformers.ClapFeatureExtractor.__call__

    def other_bands(self: Any, *sounds: Any, **more: Any) -> Any:
        self.mel_filters_slaney = self.mel_filters
        return extract(self, *sounds, **more)

    patch.setattr(transformers.ClapFeatureExtractor, "__call__", other_bands)


@fault("another prompt around CLAP's label", "clap/esc50-first-split")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    encode = ClapClassifier._encode_text
    patch.setattr(
        ClapClassifier,
        "_encode_text",
        lambda self, texts: encode(self, [text.removeprefix("This is a sound of ") for text in texts]),
    )


@fault("no normalization of GroundingDINO's picture", DETECTOR)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    without = {"preprocessor_config.json": lambda config: config.update(do_normalize=False)}
    change_folder(patch, public, out, "grounding-dino-tiny", without)


@fault("GroundingDINO's picture at its own size", DETECTOR)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    without = {"preprocessor_config.json": lambda config: config.update(do_resize=False)}
    change_folder(patch, public, out, "grounding-dino-tiny", without)


@fault("a caption without its period", DETECTOR)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(grounding_dino, "format_caption", lambda text: text.lower().strip(" ."))


@fault("center and size of a box taken for its corners", DETECTOR)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(grounding_dino, "box_convert", lambda boxes, *_: boxes)


@fault("another threshold of boxes", DETECTOR)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    detect = grounding_dino.GroundingDinoDetector.detect
    patch.setattr(
        grounding_dino.GroundingDinoDetector,
        "detect",
        lambda self, frame, caption, threshold: detect(self, frame, caption, threshold + 0.3),
    )


@fault("another image tower in SAM 2.1's and EdgeTAM's folders", *SAM2)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    for family, name in (("sam2", "sam2.1-hiera-tiny"), ("edgetam", "edgetam")):
        other = random_network(tiny_config(family, video=False), seed=9).state_dict()
        replacement = {key: value for key, value in other.items() if key.startswith("vision_encoder.")}
        change_folder(patch, public, out, name, weights=lambda state, other=replacement: state | other)


@fault("no normalization of SAM 2.1's and EdgeTAM's pictures", *SAM2)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    without = {"preprocessor_config.json": lambda config: config.update(do_normalize=False)}
    for name in ("sam2.1-hiera-tiny", "edgetam"):
        change_folder(patch, public, out, name, without)


@fault("another number of heads of SAM 2.1's and EdgeTAM's mask decoders (the weights fit)", *SAM2)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    two = {"config.json": lambda config: config["mask_decoder_config"].update(num_attention_heads=2)}
    for name in ("sam2.1-hiera-tiny", "edgetam"):
        change_folder(patch, public, out, name, two)


@fault("prompts in pixels of the picture, not of SAM 2.1's input", *SAM2)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(Sam2Segmenter, "_scale", lambda self, pixels, size: torch.as_tensor(pixels, dtype=torch.float32))


@fault("one scale for both sides of a prompt, as SAM's", *SAM2)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    scale = Sam2Segmenter._scale
    patch.setattr(Sam2Segmenter, "_scale", lambda self, pixels, size: scale(self, pixels, (max(size), max(size))))


@fault("the first of three masks in place of the only one", "sam2.1-tiny/truck", "edgetam/truck")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    decode = Sam2Segmenter.decode
    patch.setattr(
        Sam2Segmenter, "decode", lambda self, embedding, *, multimask, **more: decode(self, embedding, **more)
    )


@fault('no embedding for "no memory"', *SAM2)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    patch.setattr(Sam2Segmenter, "_maps", lambda self, embedding: _float_maps(embedding))


@fault("SAM 2.1's and EdgeTAM's finer feature maps left out", "sam2.1-tiny/truck", "edgetam/truck")
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    maps = Sam2Segmenter._maps

    def coarse_only(self: Sam2Segmenter, embedding: FeatureMaps) -> tuple[list[Tensor], Tensor]:
        fine, coarse = maps(self, embedding)
        return [torch.zeros_like(part) for part in fine], coarse

    patch.setattr(Sam2Segmenter, "_maps", coarse_only)


@fault("no normalization of SAM 3's picture", SAM3)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    without = {"processor_config.json": lambda config: config["image_processor"].update(do_normalize=False)}
    change_folder(patch, public, out, "sam3", without)


@fault("another text in SAM 3's call", SAM3)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    decode = Sam3Detector._decode
    patch.setattr(Sam3Detector, "_decode", lambda self, encoded, text: decode(self, encoded, f"a photo of a {text}"))


@fault("SAM 3's presence left out", SAM3)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    decode = Sam3Detector._decode

    def certain(self: Sam3Detector, encoded: object, text: str) -> Any:
        output = decode(self, encoded, text)
        output.presence_logits = torch.full_like(output.presence_logits, 20)
        return output

    patch.setattr(Sam3Detector, "_decode", certain)


@fault("height and width of SAM 3's picture exchanged", SAM3)
def _(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path) -> None:
    find = Sam3Detector._find
    patch.setattr(
        Sam3Detector, "_find", lambda self, encoded, text, size, *more: find(self, encoded, text, size[::-1], *more)
    )


def _float_maps(embedding: FeatureMaps) -> tuple[list[Tensor], Tensor]:
    *fine, coarse = (part.float() for part in embedding.maps)
    return fine, coarse


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
