"""Implementations of metrics, TPAVI and whole training steps, at the sizes of the study, with random weights."""

from collections.abc import Callable
from contextlib import nullcontext
from types import MethodType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import reference.deformable_attention
import reference.metrics
import reference.tpavi
from benchmarks.harness import Output, Work
from models.avsegformer import MaskPrediction
from models.avsegformer_head import AVSegFormerHead
from models.tpavi import TPAVI
from supervised.avsegformer_losses import mask_loss
from supervised.grad_checkpointing import enable_grad_checkpointing
from supervised.losses import segmentation_loss
from supervised.model import AVSModel
from supervised.model_options import AVSegFormerOptions, FPNOptions, ModelOptions, VGGishOptions
from utils.metrics import Metrics
from utils.semantic import SemanticMetrics

Attention = Callable[[TPAVI, Tensor, Tensor], Tensor]


def _attend_to_all_pixels(block: TPAVI, maps: Tensor, audio: Tensor, valid: None) -> tuple[Tensor, Tensor]:
    return reference.tpavi.tpavi(block, maps, audio), block.align_channel(audio)


def _logits_and_masks(videos: int) -> list[tuple[Tensor, Tensor]]:
    """Logits and ground truth of each video, both (5, 224, 224)."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(5, 224, 224)
    masks[:, 60:150, 80:170] = 1
    return [(masks * 2 - 1 + 2 * torch.randn(masks.shape, generator=generator), masks) for _ in range(videos)]


def metrics_reference(videos: int) -> Work:
    """255 passes over the pixels of each frame, then intersection and union, frame by frame."""
    pairs = _logits_and_masks(videos)

    def work() -> Output:
        f, iou = (
            np.mean([measure(*pair) for pair in pairs])
            for measure in (reference.metrics.f_score, reference.metrics.mean_iou)
        )
        return {"M_F": np.array([f]), "M_J": np.array([iou])}

    return work


def metrics_optimized(videos: int) -> Work:
    """One histogram per frame, from which both metrics are computed."""
    pairs = _logits_and_masks(videos)

    def work() -> Output:
        metrics = Metrics()
        for video, pair in enumerate(pairs):
            metrics.add(video, *pair)
        found = metrics.result(metric_batch=1)
        return {"M_F": np.array([found["m_f"]]), "M_J": np.array([found["m_j"]])}

    return work


def _classes(frames: int, size: int) -> tuple[Tensor, Tensor]:
    """Logits of 71 classes, and labels of five of them in blocks, for AVSS."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (frames, 1, 8, 8), generator=generator).float() * 14
    labels = torch.nn.functional.interpolate(labels, (size, size))[:, 0].long()
    logits = torch.randn(frames, 71, size, size, generator=generator)
    return logits.scatter_add_(1, labels[:, None], torch.full_like(logits[:, :1], 3.0)), labels


def semantic_metrics_reference(frames: int, size: int) -> Work:
    """Softmax, and three histograms of each frame."""
    logits, labels = _classes(frames, size)

    def work() -> Output:
        iou, f, count = reference.metrics.semantic_sums(logits, labels)
        means = [(total / count.clamp(min=1)).mean().item() for total in (iou, f)]
        return {"mIoU": np.array([means[0]]), "F": np.array([means[1]])}

    return work


def semantic_metrics_optimized(frames: int, size: int) -> Work:
    """One joint histogram of each frame, from which every rule is computed."""
    logits, labels = _classes(frames, size)

    def work() -> Output:
        metrics = SemanticMetrics()
        metrics.add(logits, labels)
        found = metrics.result()
        return {"mIoU": np.array([found["miou_real"]]), "F": np.array([found["f_real"]])}

    return work


def _block(attention: Attention, seconds: int, side: int, channels: int) -> Work:
    """TPAVI on one video, forward and backward."""
    torch.manual_seed(0)
    block = TPAVI(channels)
    block.W_z[1].weight.data.fill_(1.0)  # type: ignore[operator]  # else the block is the identity
    maps = torch.randn(1, seconds, channels, side, side, requires_grad=True)
    audio, gradient = torch.rand(1, seconds, 128), torch.randn(maps.shape)
    maps.grad = torch.zeros_like(maps)

    def work() -> Output:
        assert maps.grad is not None
        maps.grad.zero_()
        block.zero_grad()
        attention(block, maps, audio).backward(gradient)
        return {"maps": maps.grad.numpy(), **_gradients(block)}

    return work


def block_reference(**sizes: int) -> Work:
    """With the attention matrix, pixels × pixels."""
    return _block(reference.tpavi.tpavi, **sizes)


def block_optimized(**sizes: int) -> Work:
    """With a 128 × 128 matrix: linear in the number of pixels."""
    return _block(lambda block, maps, audio: block(maps, audio)[0], **sizes)


def _gradients(module: torch.nn.Module) -> Output:
    """The norms of all gradients, in one array: rounding errors of zero gradients count relative to the largest."""
    norms = [p.grad.norm().item() for p in module.parameters() if p.grad is not None]
    return {"gradients": np.array(norms)}


def _model(segmentor: Any, backbone: Any, size: str) -> AVSModel:
    torch.manual_seed(0)
    if segmentor == "fpn":
        variant: Any = "published" if size == "full" else "mini"
        options = ModelOptions(segmentor="fpn", fpn=FPNOptions(visual="random", audio="random", variant=variant))
    else:
        backbone = backbone if size == "full" else {"resnet50": "resnet18", "pvt_v2_b5": "pvt_v2_b0"}[backbone]
        vggish = VGGishOptions("random") if size == "full" else VGGishOptions("random", [8, 8, 8, 8], 32)
        channels = 256 if size == "full" else 32
        # Without dropout, whose draws depend on how many frames the head decodes.
        head = AVSegFormerOptions(dropout=0.0) if size == "full" else AVSegFormerOptions(4, 1, 5, 32, dropout=0.0)
        options = ModelOptions(segmentor, backbone=backbone, weights="random", vggish=vggish, channels=channels)
        options.avsegformer = head
    model = AVSModel(options)
    for block in model.modules():
        if isinstance(block, TPAVI):
            block.W_z[1].weight.data.fill_(1.0)  # type: ignore[operator]
    return model.train()


def _loss(output: Any, masks: Tensor) -> Tensor:
    if isinstance(output, MaskPrediction):
        return mask_loss(output, masks).total
    return segmentation_loss(output, masks).total


def _mix_all_queries(head: AVSegFormerHead, decoded: Tensor, feature: Tensor) -> Tensor:
    """The MLP on the map of all products of pixels and queries."""
    first, second, third = head.mlp
    products = torch.einsum("nqc,nchw->nqhw", decoded, feature)
    return third(second(first(products).relu()).relu())


def _step(
    segmentor: str, size: str, batch: int, backbone: str = "", plain: bool = False, grad_checkpointing: bool = False
) -> Work:
    """A training step of S4, where only the first frame of each video is labeled.

    Args:
        segmentor: As in ModelOptions.
        size: "full" or "tiny".
        batch: Videos.
        backbone: As in ModelOptions, for tpavi and avsegformer.
        plain: The reference step, as the original computes it.
        grad_checkpointing: Recompute the activations of the image tower in the backward pass.
    """
    model = _model(segmentor, backbone, size)
    if grad_checkpointing:
        enable_grad_checkpointing(model.visual_tower)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.0)  # each step is the first
    frames, masks = torch.randn(batch, 5, 3, 224, 224), (torch.rand(batch, 1, 224, 224) > 0.5).float()
    samples = 220_500 if size == "full" else 11_025
    audio = torch.rand(batch, 5, 1, 96, 64) if model.inputs.audio == "log_mel" else torch.randn(batch, 5, samples) / 10
    inputs: dict[str, Tensor] = {"frames": frames}
    attend = nullcontext()
    if not plain:
        with torch.no_grad():
            inputs["audio_features"] = model.encode_audio(audio)
    else:
        inputs[model.inputs.audio] = audio
        for block in model.modules():
            if isinstance(block, TPAVI):
                block.forward = MethodType(_attend_to_all_pixels, block)  # type: ignore
            elif isinstance(block, AVSegFormerHead):
                block._mix_queries = MethodType(_mix_all_queries, block)  # type: ignore
        attend = mock.patch(  # type: ignore[assignment]
            "models.deformable_attention.deformable_attention", reference.deformable_attention.deformable_attention
        )

    def work() -> Output:
        torch.manual_seed(0)  # of stochastic depth
        with attend:
            loss = _loss(model(inputs, None if plain else 1), masks)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        return {"loss": np.array([loss.item()]), **_gradients(model)}

    return work


def step_reference(**options: Any) -> Work:
    """The frozen audio tower runs in every step, attention is the plain form, all five frames are decoded."""
    return _step(**options, plain=True)


def step_optimized(**options: Any) -> Work:
    """Audio features are precomputed, attention is the fast form, only the labeled frame is decoded."""
    return _step(**options)


def step_grad_checkpointing(**options: Any) -> Work:
    """The optimized step with gradient checkpointing of the image tower."""
    return _step(**options, grad_checkpointing=True)
