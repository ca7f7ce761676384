"""What benchmarks.gpu measures: training steps, SAM's image encoder, proposals and AudioCLIP's towers.

Weights are random: time and memory do not depend on them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from torch import Tensor

from models.audioclip import AudioCLIP
from models.audioclip_segmentor import AudioCLIPSegmentor
from reference.random_sam import MINI, random_sam
from supervised.losses import segmentation_loss
from supervised.model import AVSModel
from supervised.model_options import FPNOptions, ModelOptions, VGGishOptions
from supervised.optim import build_optimizer
from supervised.options import TrainOptions
from utils.device import to_channels_last
from zero_shot.method_options import ProposalOptions
from zero_shot.segmenters.proposals import generate_proposals
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.segmenters.sam_encoder import compiled_block, encode, encode_block

Step = Callable[[], Tensor]  # does the work once; what it gives must not depend on the form
EVERYTHING = ProposalOptions(8, -1e9, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Variant:
    """How the work is done. stock: by segment-anything's own code."""

    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    by_pixel: bool = False
    compiled: bool = False
    stock: bool = False

    def __str__(self) -> str:
        words = ["stock" if self.stock else "", self.precision, "channels last" if self.by_pixel else ""]
        return ", ".join(word for word in [*words, "compiled" if self.compiled else ""] if word)


@dataclass(frozen=True)
class Target:
    """Where the work is done. tiny: at sizes that only show that it works. backend: of torch.compile."""

    device: torch.device
    tiny: bool
    backend: str

    def autocast(self, form: Variant) -> AbstractContextManager[Any]:
        """The form's precision, as a context."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=form.precision == "bf16")

    def random(self, *shape: int) -> Tensor:
        """Normally distributed numbers, the same at every call."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(self.device)


@dataclass(frozen=True)
class Row:
    """Some work in several forms. The first is what the others are held against."""

    part: str
    make: Callable[[Variant, Target], Step]
    forms: list[Variant]


def _options(name: str, tiny: bool) -> ModelOptions:
    if name == "fpn":
        fpn = FPNOptions(visual="random", audio="random", variant="mini" if tiny else "published")
        return ModelOptions(segmentor="fpn", fpn=fpn, channels=32 if tiny else 256)
    small: Any = {"resnet50": "resnet18", "pvt_v2_b5": "pvt_v2_b0"}
    ear = VGGishOptions("random", [8, 8, 8, 8], 32) if tiny else VGGishOptions("random")
    backbone: Any = small[name] if tiny else name
    return ModelOptions(backbone=backbone, weights="random", vggish=ear, channels=32 if tiny else 256)


def training(name: str) -> Callable[[Variant, Target], Step]:
    """A training step of S4, as supervised.train does it, on four videos heard before; gives the loss."""

    def make(form: Variant, place: Target) -> Step:
        torch.manual_seed(0)
        model = AVSModel(_options(name, place.tiny)).to(place.device).train()
        if form.by_pixel:
            to_channels_last(model)
        optimizer = build_optimizer(model, TrainOptions(), "corrected")
        run: Any = torch.compile(model, backend=place.backend) if form.compiled else model
        videos, side = (1, 32) if place.tiny else (4, 224)
        segmentor = model.segmentor
        heard = segmentor.projection.in_features if isinstance(segmentor, AudioCLIPSegmentor) else 128
        batch = {"frames": place.random(videos, 5, 3, side, side), "audio_features": place.random(videos, 5, heard)}
        masks = (place.random(videos, 1, 224, 224) > 0).float()

        def step() -> Tensor:
            torch.manual_seed(0)  # of stochastic depth
            with place.autocast(form):
                output = run(batch, 1)
            loss = segmentation_loss(output, masks).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return make


@cache
def _sam(tiny: bool, device: torch.device) -> Sam:
    return random_sam(MINI if tiny else "vit_h", seed=2).to(device)


def encoding(form: Variant, place: Target) -> Step:
    """SAM's image encoder on four images."""
    encoder = _sam(place.tiny, place.device).image_encoder
    images = place.random(1 if place.tiny else 4, 3, encoder.img_size, encoder.img_size)
    block = compiled_block(place.backend) if form.compiled else encode_block
    memory = SamSegmenter(_sam(place.tiny, place.device)).memory // 4

    @torch.no_grad()
    def step() -> Tensor:
        with place.autocast(form):
            return encoder(images) if form.stock else encode(encoder, images, memory, block)

    return step


def proposing(form: Variant, place: Target) -> Step:
    """The proposals of a frame, 32 points a side, a tenth of the candidates above the threshold; gives how the frame
    is covered."""
    sam = _sam(place.tiny, place.device)
    fields = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    frame = fields.repeat(32, axis=0).repeat(32, axis=1)
    segmenter = SamSegmenter(sam, precision=form.precision)
    threshold = _threshold(place.tiny, place.device, frame.tobytes())
    options = ProposalOptions(4 if place.tiny else 32, threshold, 0.5, 1.0, 1.0)
    generator = SamAutomaticMaskGenerator(sam, **vars(options))

    def step() -> Tensor:
        records = generator.generate(frame) if form.stock else generate_proposals(segmenter, [frame], options)[0]
        return torch.from_numpy(sum((r["segmentation"].astype(np.float32) for r in records), np.zeros((224, 224))))

    return step


@cache
def _threshold(tiny: bool, device: torch.device, frame: bytes) -> float:
    """A predicted IoU that a tenth of the candidates is above, in the widest gap near there."""
    pixels = np.frombuffer(frame, np.uint8).reshape(224, 224, 3)
    scores = [
        record["predicted_iou"]
        for record in generate_proposals(SamSegmenter(_sam(tiny, device)), [pixels], EVERYTHING)[0]
    ]
    place = round(0.9 * (len(scores) - 1))
    near = np.sort(scores)[place - 3 : place + 4]
    widest = int(np.diff(near).argmax())
    return float(near[widest : widest + 2].mean())


def tower(kind: Literal["image", "audio"]) -> Callable[[Variant, Target], Step]:
    """AudioCLIP's image tower on 64 images, or its audio tower on 20 sounds of five seconds."""

    def make(form: Variant, place: Target) -> Step:
        torch.manual_seed(0)
        small: dict[str, Any] = {"embed_dim": 64, "vision_width": 16, "audio_width": 16, "audio_width_per_group": 16}
        model = AudioCLIP(text=False, **(small if place.tiny else {})).to(place.device).eval()
        if form.by_pixel:
            to_channels_last(model)
        count, side, samples = (1, 64, 11_025) if place.tiny else (64, 224, 220_500)
        given = place.random(count, 3, side, side)
        if kind == "audio":
            given = place.random(20 if not place.tiny else 1, samples).clamp(-3, 3) / 4

        @torch.no_grad()
        def step() -> Tensor:
            with place.autocast(form):
                return model.encode_image(given) if kind == "image" else model.encode_audio(given)

        return step

    return make


_PLAIN, _TF32, _BF16 = Variant(), Variant("tf32"), Variant("bf16")
_TRAINING = [_PLAIN, _TF32, _BF16, Variant("bf16", by_pixel=True), Variant("bf16", compiled=True)]
_STOCK = [Variant(stock=True), Variant("tf32", stock=True), Variant("bf16", stock=True)]
_CONVOLUTIONS = [_PLAIN, _TF32, _BF16, Variant("bf16", by_pixel=True)]
ROWS = [
    Row("training step, TPAVI ResNet-50", training("resnet50"), _TRAINING),
    Row("training step, TPAVI PVT-v2-b5", training("pvt_v2_b5"), _TRAINING),
    Row("training step, AudioCLIP FPN", training("fpn"), _TRAINING),
    Row("SAM ViT-H encoder, 4 images", encoding, [*_STOCK, _PLAIN, _TF32, _BF16, Variant("bf16", compiled=True)]),
    Row("SAM ViT-H proposals, 32 a side", proposing, [*_STOCK[:2], _PLAIN, _TF32, _BF16]),
    Row("AudioCLIP image tower, 64 images", tower("image"), _CONVOLUTIONS),
    Row("AudioCLIP audio tower, 20 × 5 s", tower("audio"), _CONVOLUTIONS),
]
